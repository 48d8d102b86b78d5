//! `tls_interception_client`.

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::value::Span;
use sluice_tls::OpensslClientConfig;
use sluice_tls::config::{Certificates, TlsVersion};

/// The TLS client of intercepted streams. The client's SNI and ALPN are mirrored.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsInterceptionClient {
    /// The oldest version to offer.
    #[serde(alias = "tls_version_min")]
    pub(crate) min_tls_version: Option<TlsVersion>,
    /// The newest version to offer.
    #[serde(alias = "tls_version_max")]
    pub(crate) max_tls_version: Option<TlsVersion>,
    /// Trust anchors beside the system's.
    #[serde(alias = "ca_cert", alias = "server_auth_cert", alias = "server_auth_certificate")]
    pub(crate) ca_certificate: Option<Certificates>,
    /// Whether the system's trust anchors are not used.
    #[serde(alias = "no_default_ca_cert")]
    pub(crate) no_default_ca_certificate: bool,
    /// How long a handshake may take: 10 s by default, at least 100 ms.
    #[serde(alias = "negotiation_timeout")]
    pub(crate) handshake_timeout: Span,
    /// Whether no session is resumed.
    #[serde(alias = "disable_session_cache", alias = "session_cache_disabled")]
    pub(crate) no_session_cache: bool,
    /// Sites to keep sessions for; 0 means the default, 128.
    pub(crate) session_cache_lru_max_sites: usize,
    /// Sessions kept for each site; 0 means the default, 16.
    #[serde(alias = "session_cache_each_cap")]
    pub(crate) session_cache_each_capacity: usize,
    /// Key exchange groups in OpenSSL's list syntax.
    pub(crate) supported_groups: Option<String>,
    /// Whether to ask for a stapled OCSP answer; it is not verified.
    pub(crate) use_ocsp_stapling: bool,
    /// Whether to ask for signed certificate timestamps.
    pub(crate) enable_sct: bool,
    /// RFC 8701 values in the hello; only BoringSSL's family has them.
    pub(crate) enable_grease: bool,
    /// Whether the hello's extensions come in random order; only BoringSSL's family can.
    pub(crate) permute_extensions: bool,
    /// Whether a server's certificate that cannot be verified is only logged.
    pub(crate) insecure: bool,
}

impl Default for TlsInterceptionClient {
    fn default() -> Self {
        let client = OpensslClientConfig::default();
        Self {
            min_tls_version: None,
            max_tls_version: None,
            ca_certificate: None,
            no_default_ca_certificate: false,
            handshake_timeout: client.handshake_timeout,
            no_session_cache: false,
            session_cache_lru_max_sites: 0,
            session_cache_each_capacity: 0,
            supported_groups: None,
            use_ocsp_stapling: false,
            enable_sct: false,
            enable_grease: false,
            permute_extensions: false,
            insecure: false,
        }
    }
}

impl From<&TlsInterceptionClient> for OpensslClientConfig {
    fn from(config: &TlsInterceptionClient) -> Self {
        Self {
            min_tls_version: config.min_tls_version,
            max_tls_version: config.max_tls_version,
            ca_certificate: config.ca_certificate.clone(),
            no_default_ca_certificate: config.no_default_ca_certificate,
            handshake_timeout: config.handshake_timeout,
            no_session_cache: config.no_session_cache,
            session_cache_lru_max_sites: config.session_cache_lru_max_sites,
            session_cache_each_capacity: config.session_cache_each_capacity,
            supported_groups: config.supported_groups.clone(),
            use_ocsp_stapling: config.use_ocsp_stapling,
            enable_sct: config.enable_sct,
            enable_grease: config.enable_grease,
            permute_extensions: config.permute_extensions,
            insecure: config.insecure,
            ..Self::default()
        }
    }
}
