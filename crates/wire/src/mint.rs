//! Messages between proxyd and certgend, or any other generator of certificates that takes g3proxy's.
//!
//! Each is one msgpack map. Over UDP a datagram holds one, in the exact form that g3fcgen sends and takes
//! ([`Form::Datagram`]). On certgend's own Unix stream ([`Form::Stream`]) each is preceded by its length in four bytes, and
//! four more keys carry the number of the request, which its answer repeats, the version, and the code and text of an
//! error: requests may be sent without waiting, and none is met with silence.
//!
//! [`put_request`] and [`MintResponse::take`] are the asking side, [`MintRequest::take`] and [`put_response`] the answering
//! one; [`take_frame`] takes messages off a stream.

mod error;
mod frame;
mod msgpack;
#[cfg(any(test, feature = "cases"))]
#[doc(hidden)]
pub mod properties;
mod request;
mod response;
#[cfg(test)]
mod tests;

use std::fmt;

pub use error::{ErrorCode, MintError, Problem, Rejected};
pub use frame::{FrameError, MAX_FRAME, take_frame};
pub use request::{MintRequest, put_request};
pub use response::{MintResponse, Minted, put_response};

/// The version of the messages on a stream.
pub const VERSION: u8 = 1;

/// The longest datagram that either side reads.
pub const MAX_DATAGRAM: usize = 16_384;

/// The longest name of a host: a domain's (RFC 1035 §2.3.4).
pub const MAX_HOST: usize = 255;

/// How a message travels, which decides on what it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// One message in one datagram, without any key that g3proxy and g3fcgen do not know.
    Datagram,
    /// A message with its length and our own keys, on a stream.
    Stream,
}

/// The protocol that was seen to begin TLS; an answer repeats it, the certificate does not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// TLS from the first byte, whatever is inside.
    #[default]
    Http,
    /// SMTP with STARTTLS.
    Smtp,
    /// IMAP with STARTTLS.
    Imap,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Http, Self::Smtp, Self::Imap];

    /// The number on the wire.
    pub const fn id(self) -> u8 {
        match self {
            Self::Http => 0,
            Self::Smtp => 1,
            Self::Imap => 2,
        }
    }

    /// The name on the wire, in logs too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Smtp => "smtp",
            Self::Imap => "imap",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|service| name.eq_ignore_ascii_case(service.name()))
    }
}

/// What the certificate is for, which decides on its key usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Usage {
    /// A TLS server; the key usage is the upstream's.
    #[default]
    TlsServer,
    /// A TLS server; the key usage is what the key is good for.
    TlsServerTongsuo,
    /// The signing certificate of a TLCP server (GB/T 38636).
    TlcpServerSignature,
    /// The encryption certificate of a TLCP server.
    TlcpServerEncryption,
}

impl Usage {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::TlsServer,
        Self::TlsServerTongsuo,
        Self::TlcpServerSignature,
        Self::TlcpServerEncryption,
    ];

    /// The number on the wire.
    pub const fn id(self) -> u8 {
        match self {
            Self::TlsServer => 0,
            Self::TlsServerTongsuo => 1,
            Self::TlcpServerSignature => 11,
            Self::TlcpServerEncryption => 12,
        }
    }

    /// The name on the wire, in logs too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TlsServer => "tls_server",
            Self::TlsServerTongsuo => "tls_server_tongsuo",
            Self::TlcpServerSignature => "tlcp_server_signature",
            Self::TlcpServerEncryption => "tlcp_server_encryption",
        }
    }

    /// The usage of a name in any of its spellings.
    fn of_name(name: &str) -> Option<Self> {
        let plain: String = name.chars().filter(|c| *c != '_').collect();
        match plain.to_ascii_lowercase().as_str() {
            "tlsserver" => Some(Self::TlsServer),
            "tlsservertongsuo" => Some(Self::TlsServerTongsuo),
            "tlcpserversignature" | "tlcpserversign" => Some(Self::TlcpServerSignature),
            "tlcpserverencryption" | "tlcpserverenc" => Some(Self::TlcpServerEncryption),
            _ => None,
        }
    }
}

/// A certificate, in either of the forms that it may be sent in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// DER, sent as bytes.
    Der(Vec<u8>),
    /// PEM (RFC 7468), sent as text.
    Pem(String),
}

/// A private key, in either of the forms that it may be sent in. It is never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum PrivateKey {
    /// DER in the form of its kind (RFC 8017, RFC 5915) or PKCS#8 (RFC 5958), sent as bytes.
    Der(Vec<u8>),
    /// PEM (RFC 7468), sent as text.
    Pem(String),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match self {
            Self::Der(_) => "Der",
            Self::Pem(_) => "Pem",
        };
        f.debug_tuple(form).field(&"…").finish()
    }
}
