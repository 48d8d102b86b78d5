//! What can go wrong: at load ([`BuildError`]), in a handshake ([`HandshakeError`]), and on a stream ([`PeerAlert`]).

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::x509::X509VerifyResult;
use thiserror::Error;

use crate::Alert;

/// Why a client or server could not be built from its configuration. Every variant names the key.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A file or inline text is not the PEM it should be.
    #[error("`{key}`: {origin}: {detail}")]
    BadPem {
        /// The configuration key.
        key: String,
        /// The file, or "inline PEM".
        origin: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Two keys were set of which one at most may be.
    #[error("`{key}` and `{other}` exclude each other")]
    Excludes {
        /// The one key.
        key: String,
        /// The other key.
        other: String,
    },
    /// The private key is not that of the leaf certificate.
    #[error("`{key}`: {origin} is not the key of the certificate in {certificate}")]
    KeyMismatch {
        /// The configuration key of the private key.
        key: String,
        /// Where the private key came from.
        origin: String,
        /// Where the certificate came from.
        certificate: String,
    },
    /// The TLS library failed to set up a context.
    #[error("TLS library: {0}")]
    Library(#[source] Box<dyn Error + Send + Sync>),
    /// A key was set that needs another one.
    #[error("`{key}` needs `{other}`")]
    Needs {
        /// The key that is there.
        key: String,
        /// The key that is missing.
        other: String,
    },
    /// The key's value asks for what this build's TLS library cannot do.
    #[error("`{key}`: {wanted} needs a build with {feature}")]
    NotInBuild {
        /// The configuration key.
        key: String,
        /// What was asked for.
        wanted: String,
        /// The cargo feature or features that bring it.
        feature: &'static str,
    },
    /// A file could not be read.
    #[error("`{key}`: {origin}: {source}")]
    Read {
        /// The configuration key.
        key: String,
        /// The file.
        origin: String,
        /// Why.
        source: io::Error,
    },
    /// The TLS library refused a value.
    #[error("`{key}`: {source}")]
    Refused {
        /// The configuration key.
        key: String,
        /// What the library said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No trust anchor could be found.
    #[error("no trust anchors: the system has none and `ca_certificate` is not set")]
    TrustAnchors,
}

impl BuildError {
    pub(crate) fn refused(key: &str, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Refused {
            key: key.to_owned(),
            source: Box::new(source),
        }
    }

    pub(crate) fn library(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Library(Box::new(source))
    }
}

impl From<ErrorStack> for BuildError {
    fn from(source: ErrorStack) -> Self {
        Self::library(source)
    }
}

/// Why a handshake did not succeed.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The peer ended the handshake with an alert.
    #[error("the peer sent the alert {0}")]
    Alert(Alert),
    /// The peer closed the connection in the middle of the handshake.
    #[error("the peer closed the connection in the handshake")]
    Closed,
    /// The connection failed below TLS.
    #[error("connection: {0}")]
    Io(#[source] io::Error),
    /// The TLS library failed for a reason of our own side, such as memory.
    #[error("TLS library: {0}")]
    Library(#[source] Box<dyn Error + Send + Sync>),
    /// The peer's messages are not what TLS, or our settings, allow: no common version, cipher or protocol among them.
    #[error("{0}")]
    Protocol(String),
    /// The handshake was not done in time.
    #[error("not done after {0:?}")]
    Timeout(Duration),
    /// The peer's certificate was not accepted.
    #[error("peer certificate: {0}")]
    Verify(VerifyError),
    /// The server asked for a certificate, got none, and ended the handshake.
    #[error("{0} when it was given no client certificate")]
    WithoutCertificate(#[source] Box<Self>),
}

impl HandshakeError {
    /// The same of a server that had asked for a certificate, and got none.
    pub(crate) fn without_certificate(self) -> Self {
        match self {
            Self::Alert(_) | Self::Closed | Self::Io(_) => Self::WithoutCertificate(Box::new(self)),
            // That is not what it is about.
            error => error,
        }
    }
}

/// Why a peer's certificate was not accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifyError {
    code: i32,
    reason: String,
}

impl VerifyError {
    pub(crate) fn from_openssl(result: X509VerifyResult) -> Option<Self> {
        (result != X509VerifyResult::OK).then(|| Self {
            code: result.as_raw(),
            reason: result.error_string().to_owned(),
        })
    }

    pub(crate) fn from_text(reason: String) -> Self {
        Self { code: 0, reason }
    }

    /// OpenSSL's `X509_V_ERR_*` number; 0 if another library verified.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.code
    }

    /// What a client of ours is told of it, which it would have found itself (RFC 8446 §6.2).
    #[must_use]
    pub fn alert(&self) -> Alert {
        // OpenSSL makes the same of its own results, and has no call that tells.
        match self.code {
            9 | 10 => Alert::CERTIFICATE_EXPIRED,
            2 | 18..=21 | 24 | 27 | 33 => Alert::UNKNOWN_CA,
            23 => Alert::CERTIFICATE_REVOKED,
            26 => Alert::UNSUPPORTED_CERTIFICATE,
            4..=8 | 13..=16 | 28 | 62..=64 | 66..=68 => Alert::BAD_CERTIFICATE,
            _ => Alert::CERTIFICATE_UNKNOWN,
        }
    }

    /// The reason in words.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for VerifyError {}

/// The source of the [`io::Error`] that a stream returns after its peer sent a fatal alert.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the peer sent the alert {0}")]
pub struct PeerAlert(pub Alert);

impl PeerAlert {
    /// The alert behind `error`, if a peer's alert caused it.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Alert> {
        let inner = error.get_ref()?;
        if let Some(alert) = inner.downcast_ref::<Self>() {
            return Some(alert.0);
        }
        match inner.downcast_ref::<rustls::Error>()? {
            rustls::Error::AlertReceived(description) => Some(Alert(u8::from(*description))),
            _ => None,
        }
    }
}
