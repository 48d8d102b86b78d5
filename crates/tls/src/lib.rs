//! TLS clients and servers over rustls and OpenSSL.
//!
//! The only crate that names either library. A configuration form of [`config`] becomes something that runs:
//! [`OpensslClientConfig`] a [`client::Connector`], [`RustlsClientConfig`] a `rustls::ClientConfig` (for the libraries
//! that take one), either server's form a [`server::TlsServerParams`] and of it a [`server::TlsAcceptor`]. What either
//! makes of a connection is one [`TlsStream`]. [`intercept`] has both handshakes of intercepted connections.
//!
//! Not here: telling whether bytes are a ClientHello at all, and minting certificates.
//!
//! The OpenSSL in use is the system's unless one of the features `vendored-openssl`, `tongsuo` (the one with TLCP) and
//! `aws-lc` chooses another. Start reading at `client.rs`.

#[cfg(any(
    all(feature = "vendored-openssl", any(feature = "tongsuo", feature = "aws-lc")),
    all(feature = "tongsuo", feature = "aws-lc"),
))]
compile_error!("`vendored-openssl`, `tongsuo` and `aws-lc` exclude each other: one library is linked");

mod alert;
mod asked;
pub mod client;
pub mod config;
mod error;
pub mod intercept;
mod openssl_stream;
mod pem;
mod rustls_client;
pub mod server;
mod sessions;
mod stream;
mod tlcp;

pub use alert::Alert;
pub use asked::NOTES_REQUESTS;
pub use config::{OpensslClientConfig, OpensslServerConfig, RustlsClientConfig, RustlsServerConfig};
pub use error::{BuildError, HandshakeError, PeerAlert, VerifyError};
pub use rustls;
pub use rustls_client::{RustlsClient, install_provider, rustls_client};
pub use stream::{Closure, TlsStream};

#[cfg(test)]
mod tests;
