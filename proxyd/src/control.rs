//! The control methods that only proxyd has.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluice_control::{CallError, Client, Code, Error, Methods};
use sluice_telemetry::warn;
use tokio::time::timeout;

use crate::daemon::Proxyd;

/// Time for a call that is passed on to resolverd.
const PASSED_ON: Duration = Duration::from_secs(20);

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ServerName {
    /// The server's name.
    name: String,
}

/// What a method of resolverd takes; passed on as it is.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Passed(Value);

/// Adds them.
pub(crate) fn add(proxyd: &Arc<Proxyd>, methods: &mut Methods) {
    let daemon = Arc::clone(proxyd);
    methods.add(
        "server.status",
        "numbers of one server: online, alive tasks, connections, tasks",
        move |params: ServerName| {
            let server = daemon.server(&params.name);
            async move {
                let Some(server) = server else {
                    return Err(Error::new(
                        Code::NotFound,
                        format!("no server is named `{}`", params.name),
                    ));
                };
                let stats = &server.common().stats;
                Ok(json!({
                    "online": stats.listening() > 0,
                    "alive_tasks": stats.alive(),
                    "total_connections": stats.sum(|c| &c.connections),
                    "total_tasks": stats.sum(|c| &c.task_started),
                }))
            }
        },
    );
    crate::user::add_methods(proxyd, methods);
    for method in [
        "resolver.query",
        "resolver.list",
        "resolver.cache.show",
        "resolver.cache.flush",
        "resolver.upstreams",
    ] {
        let daemon = Arc::clone(proxyd);
        methods.add(method, "passed on to resolverd", move |params: Passed| {
            let path = sluice_control::paths::socket(daemon.runtime_dir(), "resolverd");
            async move { pass_on(&path, method, params).await }
        });
    }
}

/// Calls a method of the daemon at `path`.
async fn pass_on(path: &Path, method: &str, params: Passed) -> Result<Value, Error> {
    let unreachable = |error: &dyn std::fmt::Display| Error::new(Code::Failed, format!("resolverd: {error}"));
    let call = async {
        let mut client = Client::connect(path).await.map_err(|error| unreachable(&error))?;
        client.call(method, params.0).await.map_err(|error| match error {
            CallError::Answer(error) => error,
            error => unreachable(&error),
        })
    };
    timeout(PASSED_ON, call)
        .await
        .unwrap_or_else(|_| Err(Error::new(Code::Failed, "resolverd does not answer")))
}

/// Tells resolverd to reload too, as SIGHUP to proxyd promises.
///
/// One that has a user of its own would not listen: there the service manager tells both.
pub(crate) async fn reload_resolverd(runtime_dir: &Path) {
    let path = sluice_control::paths::socket(runtime_dir, "resolverd");
    let own = rustix::process::geteuid().as_raw();
    let listens = fs::metadata(&path).is_ok_and(|socket| own == 0 || socket.uid() == own);
    if listens && let Err(error) = pass_on(&path, "reload", Passed(json!({}))).await {
        warn!("resolverd did not reload"; "error" => %error);
    }
}
