//! The two client forms.

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::value::Span;

use super::{CertPairConfig, Certificates, Ciphers, OpensslProtocol, PemSource, TlcpCertPairConfig, TlsVersion};

/// How long a handshake may take, if not said otherwise.
pub(super) const HANDSHAKE_TIMEOUT: Span = Span::secs(10);

/// A TLS client over OpenSSL. An empty map is a client with all defaults.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct OpensslClientConfig {
    /// Trust anchors beside the system's.
    #[serde(alias = "ca_cert", alias = "server_auth_cert", alias = "server_auth_certificate")]
    pub ca_certificate: Option<Certificates>,
    /// The client's certificate and key, for servers that ask for one.
    pub cert_pair: Option<CertPairConfig>,
    /// The client's certificate; needs `private_key`.
    #[serde(alias = "cert")]
    pub certificate: Option<Certificates>,
    /// Ciphers up to TLS 1.2 and TLCP, or the suites of TLS 1.3; needs `protocol`.
    pub ciphers: Option<Ciphers>,
    /// Whether the server's name is not sent. It never is for an IP address.
    pub disable_sni: bool,
    /// RFC 8701 values in the hello; only BoringSSL's family has them.
    pub enable_grease: bool,
    /// Whether to ask for signed certificate timestamps.
    pub enable_sct: bool,
    /// How long a handshake may take: 10 s by default, at least 100 ms.
    #[serde(alias = "negotiation_timeout")]
    pub handshake_timeout: Span,
    /// Whether a server's certificate that cannot be verified is only logged.
    pub insecure: bool,
    /// The newest version to offer; only without `protocol`.
    #[serde(alias = "tls_version_max")]
    pub max_tls_version: Option<TlsVersion>,
    /// The oldest version to offer; only without `protocol`.
    #[serde(alias = "tls_version_min")]
    pub min_tls_version: Option<TlsVersion>,
    /// Whether the system's trust anchors are not used.
    #[serde(alias = "no_default_ca_cert")]
    pub no_default_ca_certificate: bool,
    /// Whether no session is resumed.
    #[serde(alias = "disable_session_cache", alias = "session_cache_disabled")]
    pub no_session_cache: bool,
    /// Whether the hello's extensions come in random order; only BoringSSL's family can.
    pub permute_extensions: bool,
    /// The key of `certificate`.
    #[serde(alias = "key")]
    pub private_key: Option<PemSource>,
    /// The one version to speak.
    pub protocol: Option<OpensslProtocol>,
    /// Sessions kept for each site; 0 means the default, 16.
    #[serde(alias = "session_cache_each_cap")]
    pub session_cache_each_capacity: usize,
    /// Sites to keep sessions for; 0 means the default, 128.
    pub session_cache_lru_max_sites: usize,
    /// Key exchange groups in OpenSSL's list syntax.
    pub supported_groups: Option<String>,
    /// The client's TLCP certificates; effective with `protocol: tlcp`.
    pub tlcp_cert_pair: Option<TlcpCertPairConfig>,
    /// Whether sessions are left to OpenSSL's own cache, which resumes none for a client.
    pub use_builtin_session_cache: bool,
    /// Whether to ask for a stapled OCSP answer; it is not verified.
    pub use_ocsp_stapling: bool,
}

impl Default for OpensslClientConfig {
    fn default() -> Self {
        Self {
            ca_certificate: None,
            cert_pair: None,
            certificate: None,
            ciphers: None,
            disable_sni: false,
            enable_grease: false,
            enable_sct: false,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            insecure: false,
            max_tls_version: None,
            min_tls_version: None,
            no_default_ca_certificate: false,
            no_session_cache: false,
            permute_extensions: false,
            private_key: None,
            protocol: None,
            session_cache_each_capacity: 0,
            session_cache_lru_max_sites: 0,
            supported_groups: None,
            tlcp_cert_pair: None,
            use_builtin_session_cache: false,
            use_ocsp_stapling: false,
        }
    }
}

/// A TLS client over rustls.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RustlsClientConfig {
    /// Trust anchors beside the default ones.
    #[serde(alias = "ca_cert", alias = "server_auth_cert", alias = "server_auth_certificate")]
    pub ca_certificate: Option<Certificates>,
    /// The client's certificate and key, for servers that ask for one.
    pub cert_pair: Option<CertPairConfig>,
    /// The client's certificate; needs `private_key`.
    #[serde(alias = "cert")]
    pub certificate: Option<Certificates>,
    /// Whether the server's name is not sent.
    pub disable_sni: bool,
    /// How long a handshake may take: 10 s by default, at least 100 ms.
    #[serde(alias = "negotiation_timeout")]
    pub handshake_timeout: Span,
    /// The largest TLS message to send, in bytes.
    pub max_fragment_size: Option<usize>,
    /// Whether the default trust anchors are not used.
    #[serde(alias = "no_default_ca_cert")]
    pub no_default_ca_certificate: bool,
    /// Whether no session is resumed.
    #[serde(alias = "disable_session_cache", alias = "session_cache_disabled")]
    pub no_session_cache: bool,
    /// The key of `certificate`.
    #[serde(alias = "key")]
    pub private_key: Option<PemSource>,
    /// Whether the default trust anchors are Mozilla's as built in, rather than the system's.
    #[serde(alias = "use_builtin_ca_cert")]
    pub use_builtin_ca_certificate: bool,
}

impl Default for RustlsClientConfig {
    fn default() -> Self {
        Self {
            ca_certificate: None,
            cert_pair: None,
            certificate: None,
            disable_sni: false,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            max_fragment_size: None,
            no_default_ca_certificate: false,
            no_session_cache: false,
            private_key: None,
            use_builtin_ca_certificate: false,
        }
    }
}
