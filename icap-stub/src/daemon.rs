//! The daemon as far as it is built: it lives and answers, and serves nothing.

use std::sync::Arc;

use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_config::{Load, NotYet};
use sluice_lifecycle::{Context, Daemon, Drain, Tasks, schema_of};
use sluice_telemetry::warn;

/// What it says of itself in the log and in `status`.
const NOTE: &str = "the ICAP service is not built yet in this version: no data socket is open";

/// The `icap_stub` section.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IcapStubConfig {
    /// Addresses of the ICAP service.
    #[serde(default)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "refuses the key by name")]
    listen: Option<NotYet>,
    /// What is answered to which request.
    #[serde(default)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "refuses the key by name")]
    rules: Option<NotYet>,
}

/// Answers ICAP requests for trials and tests.
pub(crate) struct IcapStub {
    tasks: Tasks,
}

impl Daemon for IcapStub {
    const NAME: &'static str = "icap-stub";
    const ABOUT: &'static str = "Answers ICAP requests for trials and tests";

    type Config = IcapStubConfig;

    fn read(load: &mut Load) -> IcapStubConfig {
        load.section("icap_stub").unwrap_or_default()
    }

    fn schema(generator: &mut SchemaGenerator) -> Map<String, Value> {
        Map::from_iter([("icap_stub".to_owned(), schema_of::<IcapStubConfig>(generator))])
    }

    async fn start(_: IcapStubConfig, cx: Context) -> anyhow::Result<Arc<Self>> {
        warn!("{}", NOTE);
        Ok(Arc::new(Self { tasks: cx.tasks }))
    }

    fn status(&self) -> Value {
        json!({ "listening": [], "note": NOTE })
    }

    async fn reload(self: &Arc<Self>, _: IcapStubConfig) -> anyhow::Result<()> {
        Ok(())
    }

    async fn stop(self: &Arc<Self>, drain: Drain) {
        drain.wait(&self.tasks).await;
    }
}
