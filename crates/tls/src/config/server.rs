//! The two server forms and the ticketer's.

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::NotYet;
use sluice_config::value::{OneOrMany, Span};

use super::client::HANDSHAKE_TIMEOUT;
use super::{CertPairConfig, Certificates, PemSource, TlcpCertPairConfig};

/// A TLS server over OpenSSL.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct OpensslServerConfig {
    /// Anchors for clients' certificates; the system's by default.
    #[serde(alias = "ca_cert", alias = "client_auth_cert", alias = "client_auth_certificate")]
    pub ca_certificate: Option<Certificates>,
    /// The server's certificates, chosen by the name that the client asks for.
    pub cert_pairs: OneOrMany<CertPairConfig>,
    /// Whether a client must have a certificate.
    pub enable_client_auth: bool,
    /// How long a handshake may take: 10 s by default.
    #[serde(alias = "accept_timeout", alias = "negotiation_timeout")]
    pub handshake_timeout: Span,
    /// Whether the server keeps no sessions itself.
    #[serde(alias = "disable_session_cache")]
    pub no_session_cache: bool,
    /// Whether no session tickets are given out.
    #[serde(alias = "disable_session_ticket")]
    pub no_session_ticket: bool,
    /// A text that keeps this server's sessions apart from those of another one.
    pub session_id_context: Option<String>,
    /// The server's TLCP certificates.
    pub tlcp_cert_pairs: OneOrMany<TlcpCertPairConfig>,
}

impl Default for OpensslServerConfig {
    fn default() -> Self {
        Self {
            ca_certificate: None,
            cert_pairs: OneOrMany::default(),
            enable_client_auth: false,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            no_session_cache: false,
            no_session_ticket: false,
            session_id_context: None,
            tlcp_cert_pairs: OneOrMany::default(),
        }
    }
}

/// A TLS server over rustls.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RustlsServerConfig {
    /// Anchors for clients' certificates; the system's by default.
    #[serde(alias = "ca_cert", alias = "client_auth_cert", alias = "client_auth_certificate")]
    pub ca_certificate: Option<Certificates>,
    /// The server's certificates, chosen by the name that the client asks for.
    pub cert_pairs: OneOrMany<CertPairConfig>,
    /// One more certificate; needs `private_key`.
    #[serde(alias = "cert")]
    pub certificate: Option<Certificates>,
    /// Whether a client must have a certificate.
    pub enable_client_auth: bool,
    /// How long a handshake may take: 10 s by default.
    #[serde(alias = "accept_timeout", alias = "negotiation_timeout")]
    pub handshake_timeout: Span,
    /// Whether the server keeps no sessions itself.
    #[serde(alias = "disable_session_cache")]
    pub no_session_cache: bool,
    /// Whether no session tickets are given out.
    #[serde(alias = "disable_session_ticket")]
    pub no_session_ticket: bool,
    /// The key of `certificate`.
    #[serde(alias = "key")]
    pub private_key: Option<PemSource>,
    /// The opposite of `no_session_ticket`.
    pub use_session_ticket: Option<bool>,
}

impl Default for RustlsServerConfig {
    fn default() -> Self {
        Self {
            ca_certificate: None,
            cert_pairs: OneOrMany::default(),
            certificate: None,
            enable_client_auth: false,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            no_session_cache: false,
            no_session_ticket: false,
            private_key: None,
            use_session_ticket: None,
        }
    }
}

/// Rolling keys for session tickets.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TicketerConfig {
    /// How often the age of the keys is looked at: 5 minutes by default.
    pub check_interval: Span,
    /// How many seconds a key made here is good for: 43200, 12 hours, by default. After half of it a new one is used.
    pub local_lifetime: u32,
    /// Where shared keys come from.
    #[schemars(skip)]
    pub source: Option<NotYet>,
}

impl Default for TicketerConfig {
    fn default() -> Self {
        Self {
            check_interval: Span::secs(300),
            local_lifetime: 12 * 3600,
            source: None,
        }
    }
}
