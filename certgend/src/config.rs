//! What certgend reads: its section of the group's file, or a g3fcgen file of its own.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::{
    Load,
    value::{HistogramMetrics, OneOrMany, RateQuota, Span, User},
};
use sluice_tls::config::{Certificates, PemSource};

use crate::ca::Ca;
use crate::never::Never;

/// The longest validity of a minted certificate, unless configured otherwise.
const MAX_VALIDITY: Duration = Duration::from_secs(199 * 86_400);

/// The least `max_ttl` that counts, in seconds.
const LEAST_MAX_TTL: u32 = 300;

/// Everything that certgend reads.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) own: CertgendConfig,
    /// Whether it was a g3fcgen file, which asks for the UDP door and is less strict about the key's file.
    pub(crate) stand_alone: bool,
    /// Where relative paths begin.
    pub(crate) base: PathBuf,
}

/// The section `certgend`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CertgendConfig {
    /// Users, by uid or name, whose programs may ask for certificates, beside root and the daemon's own.
    pub(crate) allow_uid: OneOrMany<User>,
    /// The CA and how it signs. Without it each mint is answered with an error.
    pub(crate) backend: Option<BackendConfig>,
    /// Minted certificates that are kept for those who ask for the same again. Default: 4096; 0 keeps none.
    pub(crate) cache_size: CacheSize,
    /// The longest validity of a minted certificate. Default: 199d.
    pub(crate) max_validity: MaxValidity,
    /// The most certificates made in a time; without it as many as can be.
    pub(crate) mint_rate: Option<RateQuota>,
    /// Domains, each with all below it, and addresses or networks, that no certificate is made for.
    pub(crate) never_mint: OneOrMany<Never>,
}

/// A number of certificates.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct CacheSize(pub(crate) usize);

impl Default for CacheSize {
    fn default() -> Self {
        Self(4096)
    }
}

/// A validity.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct MaxValidity(Span);

impl Default for MaxValidity {
    fn default() -> Self {
        Self(Span(MAX_VALIDITY))
    }
}

impl MaxValidity {
    /// In seconds.
    pub(crate) fn secs(self) -> i64 {
        i64::try_from(self.0.0.as_secs()).unwrap_or(i64::MAX)
    }
}

/// The signing CA.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackendConfig {
    /// The CA's certificate, then those between it and the root; all of them are sent with what is minted.
    pub(crate) ca_certificate: Certificates,
    /// The file of the CA's private key, which certgend alone may read.
    pub(crate) ca_private_key: PemSource,
    /// Send the minted certificate alone.
    #[serde(default)]
    pub(crate) no_append_ca_cert: bool,
    /// Give what is minted the serial number of what it mirrors, not one of its own.
    #[serde(default)]
    pub(crate) keep_serial: bool,
    /// The most seconds that an asker is told to keep a certificate. Default: 86400, at least 300.
    #[serde(default)]
    max_ttl: Option<i32>,
    /// Which quantiles of the durations of requests are told as metrics.
    #[serde(default, alias = "duration_metrics")]
    pub(crate) duration_stats: HistogramMetrics,
}

impl BackendConfig {
    /// The most seconds that an asker is told to keep a certificate.
    pub(crate) fn max_ttl(&self) -> u32 {
        let given = self.max_ttl.map_or(86_400, |ttl| u32::try_from(ttl).unwrap_or(0));
        given.max(LEAST_MAX_TTL)
    }
}

impl Config {
    /// Reads what the file has of it.
    pub(crate) fn read(load: &mut Load) -> Self {
        let stand_alone = load.is_certgen();
        let own = if stand_alone {
            CertgendConfig {
                backend: load.section::<Option<BackendConfig>>("backend").flatten(),
                ..CertgendConfig::default()
            }
        } else {
            let own: CertgendConfig = load.section("certgend").unwrap_or_default();
            refuse_inline_key(&own, load);
            own
        };
        if let Some(place) = load.place("certgend").filter(|_| own.max_validity.secs() == 0) {
            load.error(&place, "max_validity", "a certificate that is never valid is of no use");
        }
        let config = Self {
            own,
            stand_alone,
            base: load.base_dir().to_owned(),
        };
        config.check_ca(load);
        config
    }

    /// Says what is wrong with the CA, which may still be to come, as far as whoever checks the file may see it.
    fn check_ca(&self, load: &mut Load) {
        let Err(error) = Ca::load(self) else { return };
        let section = if self.stand_alone { "backend" } else { "certgend" };
        let Some(place) = load
            .place(section)
            .filter(|_| !error.is_absence() && !error.is_of_reader())
        else {
            return;
        };
        let mut message = error.to_string();
        if let Some(source) = error.source() {
            message = format!("{message}: {source}");
        }
        let key = error.key();
        let named = format!("`{key}`: ");
        let message = message.strip_prefix(&named).unwrap_or(&message);
        let below = key.strip_prefix(section).unwrap_or(key);
        load.error(&place, below.trim_start_matches('.'), message);
    }

    /// The path of a key as messages name it.
    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.stand_alone {
            format!("backend.{key}")
        } else {
            format!("certgend.backend.{key}")
        }
    }

    pub(crate) fn uids(&self) -> Vec<u32> {
        self.own.allow_uid.iter().map(|user| user.0).collect()
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }
}

fn refuse_inline_key(own: &CertgendConfig, load: &mut Load) {
    let inline = own
        .backend
        .as_ref()
        .is_some_and(|backend| matches!(backend.ca_private_key, PemSource::Inline(_)));
    if let Some(place) = load.place("certgend").filter(|_| inline) {
        load.error_with_help(
            &place,
            "backend.ca_private_key",
            "the key itself may not stand here: every daemon of the group reads this file",
            "put it into a file that certgend alone may read, and name that",
        );
    }
}
