//! The daemon as far as it is built: it lives and answers, and mints nothing.

use std::sync::Arc;

use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_config::{Load, NotYet};
use sluice_lifecycle::{Context, Daemon, Drain, Tasks, schema_of};
use sluice_telemetry::warn;

/// What it says of itself in the log and in `status`.
const NOTE: &str = "minting certificates is not built yet in this version: no data socket is open";

/// The `certgend` section.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertgendConfig {
    /// Who may ask for certificates.
    #[serde(default)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "refuses the key by name")]
    allow_uid: Option<NotYet>,
    /// The CA and its limits.
    #[serde(default)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "refuses the key by name")]
    backend: Option<NotYet>,
    /// Certificates a second.
    #[serde(default)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "refuses the key by name")]
    mint_rate: Option<NotYet>,
    /// Hosts that no certificate is made for.
    #[serde(default)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "refuses the key by name")]
    never_mint: Option<NotYet>,
}

/// Mints certificates for TLS interception.
pub(crate) struct Certgend {
    tasks: Tasks,
}

impl Daemon for Certgend {
    const NAME: &'static str = "certgend";
    const ABOUT: &'static str = "Mints certificates for TLS interception";
    // It will hold the CA key.
    const DUMPABLE: bool = false;

    type Config = CertgendConfig;

    fn read(load: &mut Load) -> CertgendConfig {
        load.section("certgend").unwrap_or_default()
    }

    fn schema(generator: &mut SchemaGenerator) -> Map<String, Value> {
        Map::from_iter([("certgend".to_owned(), schema_of::<CertgendConfig>(generator))])
    }

    async fn start(_: CertgendConfig, cx: Context) -> anyhow::Result<Arc<Self>> {
        warn!("{}", NOTE);
        Ok(Arc::new(Self { tasks: cx.tasks }))
    }

    fn status(&self) -> Value {
        json!({ "listening": [], "note": NOTE })
    }

    async fn reload(self: &Arc<Self>, _: CertgendConfig) -> anyhow::Result<()> {
        Ok(())
    }

    async fn stop(self: &Arc<Self>, drain: Drain) {
        drain.wait(&self.tasks).await;
    }
}
