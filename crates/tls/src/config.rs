//! What a user writes: the serde forms of every TLS map.
//!
//! They read no file and check no more than one value at a time; [`Connector::build`](crate::client::Connector::build),
//! [`rustls_client`](crate::rustls_client()) and [`TlsServerParams`](crate::server::TlsServerParams) do the rest.

mod client;
mod scalar;
mod server;

pub use client::{OpensslClientConfig, RustlsClientConfig};
pub use scalar::{CertPairConfig, Certificates, Ciphers, OpensslProtocol, PemSource, TlcpCertPairConfig, TlsVersion};
pub use server::{OpensslServerConfig, RustlsServerConfig, TicketerConfig};
