//! The smallest daemon: nothing to serve, and yet with flags, logs, control socket, reload and a clean stop.
//!
//! It borrows the name `auditd`, since a main file has sections for the daemons of the group only. The tests of this
//! crate drive it as a real process.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use sluice_config::Load;
use sluice_control::{Error, Methods, NoParams};
use sluice_lifecycle::{Context, Daemon, Drain, Tasks};

struct Minimal {
    tasks: Tasks,
}

impl Daemon for Minimal {
    const NAME: &'static str = "auditd";
    const ABOUT: &'static str = "Does nothing, by all rules";

    type Config = ();

    fn read(_: &mut Load) {}

    fn schema(_: &mut schemars::SchemaGenerator) -> Map<String, Value> {
        Map::new()
    }

    async fn start((): (), cx: Context) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self { tasks: cx.tasks }))
    }

    fn methods(self: &Arc<Self>, methods: &mut Methods) {
        let daemon = Arc::clone(self);
        methods.add(
            "work",
            "starts a task that works until it is told to quit",
            move |_: NoParams| {
                let tasks = daemon.tasks.clone();
                daemon.tasks.spawn(async move { tasks.quitting().await });
                async { Ok("working") }
            },
        );
        let daemon = Arc::clone(self);
        methods.add("panic", "panics in a task", move |_: NoParams| {
            let panicking = daemon.tasks.spawn(async { panic!("asked for") });
            async move {
                let outcome: Result<(), _> = panicking.await;
                outcome.map_err(|e| Error::failed(format_args!("as asked: {e}")))
            }
        });
    }

    fn status(&self) -> Value {
        json!({ "listening": [], "note": "does nothing" })
    }

    async fn reload(self: &Arc<Self>, (): ()) -> anyhow::Result<()> {
        tokio::time::sleep(Duration::ZERO).await;
        Ok(())
    }

    async fn stop(self: &Arc<Self>, drain: Drain) {
        drain.wait(&self.tasks).await;
    }
}

fn main() -> ExitCode {
    sluice_lifecycle::run::<Minimal>()
}
