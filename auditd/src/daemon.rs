//! The daemon as far as it is built: it lives and answers, and takes nothing.

use std::sync::Arc;

use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_config::{Load, NotYet};
use sluice_lifecycle::{Context, Daemon, Drain, Tasks, schema_of};
use sluice_telemetry::warn;

/// What it says of itself in the log and in `status`.
const NOTE: &str = "taking dumps and events is not built yet in this version: no data socket is open";

/// The `auditd` section.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditdConfig {
    /// Where captures and event logs are written.
    #[serde(default)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "refuses the key by name")]
    directory: Option<NotYet>,
    /// Streaming to followers.
    #[serde(default)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "refuses the key by name")]
    live: Option<NotYet>,
}

/// Takes stream dumps and audit events.
pub(crate) struct Auditd {
    tasks: Tasks,
}

impl Daemon for Auditd {
    const NAME: &'static str = "auditd";
    const ABOUT: &'static str = "Takes stream dumps and audit events";

    type Config = AuditdConfig;

    fn read(load: &mut Load) -> AuditdConfig {
        load.section("auditd").unwrap_or_default()
    }

    fn schema(generator: &mut SchemaGenerator) -> Map<String, Value> {
        Map::from_iter([("auditd".to_owned(), schema_of::<AuditdConfig>(generator))])
    }

    async fn start(_: AuditdConfig, cx: Context) -> anyhow::Result<Arc<Self>> {
        warn!("{}", NOTE);
        Ok(Arc::new(Self { tasks: cx.tasks }))
    }

    fn status(&self) -> Value {
        json!({ "listening": [], "note": NOTE })
    }

    async fn reload(self: &Arc<Self>, _: AuditdConfig) -> anyhow::Result<()> {
        Ok(())
    }

    async fn stop(self: &Arc<Self>, drain: Drain) {
        drain.wait(&self.tasks).await;
    }
}
