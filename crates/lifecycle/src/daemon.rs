//! What a daemon brings, and what it is given.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sluice_config::Load;
use sluice_control::Methods;
use sluice_telemetry::metrics::Registry;
use sluice_telemetry::{EventLogs, Naming};

use crate::config::{RuntimeConfig, WorkerConfig};
use crate::{ActivatedSockets, Drain, Graph, Tasks};

/// A daemon of the group. [`run`](crate::run()) calls these in the order in which they stand here.
pub trait Daemon: Sized + Send + Sync + 'static {
    /// Name of the binary, its control socket and its section in the main file (`-` written as `_`).
    const NAME: &'static str;
    /// One line for `--help`.
    const ABOUT: &'static str;
    /// What it was built with, for `-V -v`.
    const FEATURES: &'static [&'static str] = &[];
    /// Whether the root sections `runtime` and `worker` are its own: true of proxyd alone, which makes its own worker
    /// threads beside a main runtime of one thread. A helper reads them from the map under its own name, has as many
    /// threads in its main runtime as it says, by default one, and drains for 5 s.
    const DATA_PLANE: bool = false;
    /// Whether its memory may be read by others of its uid and end up in core files; not where a CA key is.
    const DUMPABLE: bool = true;

    /// Everything that it reads from the main file.
    type Config: Send + 'static;

    /// Opens the main file at `path`, or in that folder; a group's, unless the daemon has files of its own.
    fn open(path: &Path) -> Load {
        Load::open(path)
    }

    /// Reads its own sections; findings are recorded in `load`. Serves `-t`, start and reload alike, so it opens
    /// nothing and starts no thread.
    fn read(load: &mut Load) -> Self::Config;

    /// JSON Schema of each root section that it owns, by key. The common ones are added for it.
    fn schema(generator: &mut SchemaGenerator) -> Map<String, Value>;

    /// What `-g` prints; `None` if there is nothing to draw.
    fn graph(config: &Self::Config) -> Option<Graph> {
        let _ = config;
        None
    }

    /// Binds, connects and begins to serve; the daemon is ready once this returned.
    ///
    /// # Errors
    /// What keeps it from serving, with the names of things; the process ends with status 1.
    fn start(config: Self::Config, cx: Context) -> impl Future<Output = anyhow::Result<Arc<Self>>> + Send;

    /// Adds its own control methods to the common ones.
    fn methods(self: &Arc<Self>, methods: &mut Methods) {
        let _ = methods;
    }

    /// Its part of the answer to `status`, a map; `listening` (addresses) and `note` (text) are shown by `sluicectl`.
    fn status(&self) -> Value;

    /// Names of its objects by kind, for the control method `list`.
    fn objects(&self) -> Vec<(&'static str, Vec<String>)> {
        Vec::new()
    }

    /// Builds everything anew, then swaps once.
    ///
    /// # Errors
    /// What could not be built; everything runs on as before.
    fn reload(self: &Arc<Self>, config: Self::Config) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Runs after a reload that SIGHUP asked for, to pass it on to others.
    fn hung_up(self: &Arc<Self>) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Orders the tasks of replaced objects named `name` (of all, without one) to quit.
    fn force_quit(&self, name: Option<&str>) {
        let _ = name;
    }

    /// Stops to accept, then waits for the tasks within `drain`. `Context::tasks` were ordered to stop before;
    /// what is left of them afterwards is ordered to quit.
    fn stop(self: &Arc<Self>, drain: Drain) -> impl Future<Output = ()> + Send;
}

/// What a daemon starts with.
#[derive(Debug)]
pub struct Context {
    /// The group's name.
    pub group: String,
    /// The group's runtime directory, where sockets between the daemons lie.
    pub runtime_dir: PathBuf,
    /// The main file, absolute.
    pub config_file: PathBuf,
    /// Where task, escape, resolve and audit records go.
    pub logs: EventLogs,
    /// Where sources of metrics register.
    pub metrics: Registry,
    /// The work that a stop waits for: connections, accept loops.
    pub tasks: Tasks,
    /// What serves that work and must outlive it: caches, connection pools, timers. Ordered to quit last.
    pub background: Tasks,
    /// Sockets that the service manager passed.
    pub activated: ActivatedSockets,
    /// Product names in what is sent.
    pub naming: Naming,
    /// The `runtime` section in force.
    pub runtime: RuntimeConfig,
    /// The `worker` section, if there is one.
    pub worker: Option<WorkerConfig>,
}

/// The schema of `T` as a value for [`Daemon::schema`].
pub fn schema_of<T: JsonSchema + DeserializeOwned>(generator: &mut SchemaGenerator) -> Value {
    sluice_config::schema::section::<T>(generator).into()
}
