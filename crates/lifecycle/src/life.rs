//! The life of the process, from its locks to its last record.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sluice_control::{Limits, Listener, Methods, Peers, paths};
use sluice_sys::daemon;
use sluice_telemetry::metrics::{self, Registration, Registry, RuntimeGauges};
use sluice_telemetry::{EventLogs, Identity, info, notice, warn};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Common;
use crate::lock::Lock;
use crate::methods::{self, Process};
use crate::panics::{OnPanic, Panics};
use crate::reload::{Loaded, Reloader};
use crate::shutdown::State;
use crate::signals::{Asked, Signals};
use crate::supervise::{Ended, Supervisor};
use crate::{ActivatedSockets, Args, Context, Daemon, Tasks, notify};

/// What is queued for the event logs gets so long at the end, and answers on their way to control clients.
const LAST_RECORDS: Duration = Duration::from_secs(2);

/// What a process was born with.
pub(crate) struct Birth {
    pub(crate) args: Args,
    /// The main file, absolute.
    pub(crate) config_file: PathBuf,
    /// Absolute too.
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) activated: ActivatedSockets,
}

/// Lives until asked to end; `ready` is called once when the daemon serves.
pub(crate) fn live<D: Daemon>(birth: Birth, loaded: Loaded<D>, ready: impl FnOnce()) -> anyhow::Result<Ended> {
    prepare_process::<D>(&birth.args)?;
    let group = birth.args.group();
    let runtime_dir = birth
        .args
        .control_dir
        .clone()
        .unwrap_or_else(|| paths::default_dir(group));
    paths::make_dir(&runtime_dir)
        .with_context(|| format!("cannot use the runtime directory `{}`", runtime_dir.display()))?;
    let lock = Lock::take(&runtime_dir.join(format!("{}.lock", D::NAME)))?;
    let pid_file = birth.pid_file.as_deref().map(Lock::take).transpose()?;

    let runtime = loaded
        .common
        .runtime
        .build(D::DATA_PLANE)
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(serve::<D>(birth, loaded, runtime_dir, lock, ready));
    // Only work that blocks can be left; it is not waited for.
    runtime.shutdown_background();
    if let Some(pid_file) = pid_file {
        pid_file.remove();
    }
    ended
}

fn prepare_process<D: Daemon>(args: &Args) -> anyhow::Result<()> {
    if !D::DUMPABLE {
        daemon::forbid_dumps().context("cannot keep the memory to ourselves")?;
    }
    match daemon::raise_file_limit() {
        Ok(limit) => info!("open files"; "limit" => ?limit),
        Err(e) => warn!("the limit of open files cannot be raised"; "reason" => %e),
    }
    if args.monitored
        && let Err(e) = daemon::stop_with_parent()
    {
        warn!("cannot watch the parent"; "reason" => %e);
    }
    Ok(())
}

async fn serve<D: Daemon>(
    mut birth: Birth,
    loaded: Loaded<D>,
    runtime_dir: PathBuf,
    lock: Lock,
    ready: impl FnOnce(),
) -> anyhow::Result<Ended> {
    let began = Instant::now();
    let Loaded { own, common, warnings } = loaded;
    for warning in warnings {
        warn!("configuration: {}", warning);
    }
    let mut signals = Signals::new().context("cannot listen to signals")?;
    let panics = Panics::watch(match birth.args {
        Args { panic_quit: false, .. } => OnPanic::GoOn,
        Args { monitored: true, .. } => OnPanic::TellParent,
        _ => OnPanic::Quit,
    });
    let telling = Telling::start(&common, birth.args.group_name.as_deref())?;
    let sockets = Sockets::bind::<D>(&runtime_dir, &mut birth.activated)?;

    let (tasks, background, service) = (Tasks::new(), Tasks::new(), Tasks::new());
    let cx = Context {
        group: birth.args.group().to_owned(),
        runtime_dir: runtime_dir.clone(),
        config_file: birth.config_file.clone(),
        logs: telling.logs.clone(),
        metrics: telling.registry.clone(),
        tasks: tasks.clone(),
        background: background.clone(),
        activated: birth.activated,
        naming: common.naming,
        runtime: common.runtime.clone(),
        worker: common.worker.clone(),
    };
    let started = tokio::select! {
        started = D::start(own, cx) => started?,
        () = asked_to_end(&mut signals) => {
            notice!("stopped before it was ready");
            return Ok(Ended::Asked);
        }
    };

    let (orders, ordered) = mpsc::channel(16);
    let (state, state_seen) = watch::channel(State::Online);
    let process = Arc::new(Process {
        reloader: Reloader::new(Arc::clone(&started), birth.config_file.clone(), common.clone()),
        daemon: started,
        group: birth.args.group().to_owned(),
        runtime_dir,
        config_file: birth.config_file,
        began,
        orders,
        panics,
        service: service.clone(),
        state: state_seen,
        tasks,
    });
    let make_room = CancellationToken::new();
    sockets.serve(methods::table(&process), &common, &service, &make_room, lock);
    notify::keep_watchdog(&service);
    announce(&process, ready);

    let supervisor = Supervisor {
        process,
        runtime: common.runtime.clone(),
        background,
        orders: ordered,
        state,
        signals,
        make_room,
    };
    let ended = supervisor.run().await;
    service.quit();
    service.wait(LAST_RECORDS).await;
    telling.end().await;
    notice!("stopped");
    Ok(ended)
}

async fn asked_to_end(signals: &mut Signals) {
    // There is nothing to reload yet that was not read just now.
    while signals.next().await == Asked::Reload {}
}

fn announce<D: Daemon>(process: &Process<D>, ready: impl FnOnce()) {
    let status = process.daemon.status();
    let listening = match sluice_control::listening(&status) {
        none if none.is_empty() => "none".to_owned(),
        listening => listening,
    };
    notify::ready("serving");
    ready();
    notice!("sluice {} ready", D::NAME; "group" => process.group.as_str(), "listening" => listening);
}

/// Event logs and metrics.
struct Telling {
    registry: Registry,
    logs: EventLogs,
    stat: Option<metrics::StatThread>,
    _runtime: Registration,
}

impl Telling {
    fn start(common: &Common, group: Option<&str>) -> anyhow::Result<Self> {
        let identity = Identity::of_process(group.unwrap_or_default(), common.naming);
        let registry = Registry::default();
        let gauges = Arc::new(RuntimeGauges::new("main", Handle::current().metrics()));
        let runtime = registry.register(gauges);
        let logs = EventLogs::start(&common.log, &identity, &registry).context("cannot start the event logs")?;
        let stat = common.stat.as_ref();
        let stat = stat
            .map(|stat| metrics::start(stat, &identity, registry.clone()))
            .transpose();
        let stat = stat.context("cannot start the metrics")?;
        Ok(Self {
            registry,
            logs,
            stat,
            _runtime: runtime,
        })
    }

    /// Writes out what is queued.
    async fn end(self) {
        let flushed = tokio::task::spawn_blocking(move || {
            // The logs first: what came of the last records is among the last numbers.
            let written = self.logs.shutdown(LAST_RECORDS);
            if let Some(stat) = self.stat {
                stat.stop();
            }
            written
        });
        if !flushed.await.unwrap_or(false) {
            warn!("records of the event logs were lost at the end");
        }
    }
}

/// The control sockets.
struct Sockets {
    shared: Listener,
    of_process: Listener,
}

impl Sockets {
    fn bind<D: Daemon>(runtime_dir: &Path, activated: &mut ActivatedSockets) -> anyhow::Result<Self> {
        let shared = match activated.take_unix_listener("ctl") {
            Some(passed) => Listener::from_std(passed).context("cannot use the passed control socket")?,
            None => Listener::bind(&paths::socket(runtime_dir, D::NAME))?,
        };
        let of_process = Listener::bind(&paths::process_socket(runtime_dir, D::NAME, std::process::id()))?;
        Ok(Self { shared, of_process })
    }

    /// Serves both: the shared one until `make_room`, when the lock is given back too; the other to the end.
    fn serve(self, methods: Methods, common: &Common, service: &Tasks, make_room: &CancellationToken, lock: Lock) {
        let methods = Arc::new(methods);
        let limits: Limits = common.controller.limits();
        let (make_room, stop) = (make_room.clone(), service.clone());
        let serving = {
            let (methods, limits) = (Arc::clone(&methods), limits.clone());
            sluice_control::serve(self.shared, methods, Peers::default(), limits, async move {
                tokio::select! {
                    () = make_room.cancelled() => {}
                    () = stop.stopping() => {}
                }
            })
        };
        service.spawn(async move {
            serving.await;
            drop(lock);
        });
        let stop = service.clone();
        service.spawn(sluice_control::serve(
            self.of_process,
            methods,
            Peers::default(),
            limits,
            async move {
                stop.stopping().await;
            },
        ));
    }
}
