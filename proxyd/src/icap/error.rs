//! Why a message could not be adapted.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sluice_http1::BodyError;
use sluice_icap::{OptionsError, PartError, ResponseError};
use sluice_tls::HandshakeError;
use thiserror::Error;

/// An end of an ICAP exchange other than a verdict. The side at fault is the service, but for `Lookup` and `Socket`.
#[derive(Debug, Error)]
pub(crate) enum IcapError {
    #[error("invalid body from the ICAP service: {0}")]
    Body(#[from] BodyError),
    #[error("the ICAP service closed the connection before it had answered")]
    Closed,
    #[error("connect to the ICAP service at `{address}` failed: {source}")]
    Connect {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("connect to the ICAP service at `{address}` timed out after {after:?}")]
    ConnectTimeout { address: SocketAddr, after: Duration },
    #[error("the ICAP service's host `{host}` was not found: {source}")]
    Lookup {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("the body from the ICAP service does not have the length that its head says")]
    Length,
    #[error("the ICAP service cannot be used: {0}")]
    Options(#[from] OptionsError),
    #[error("the ICAP service did not answer OPTIONS within {0:?}")]
    OptionsTimeout(Duration),
    #[error("invalid HTTP head from the ICAP service: {0}")]
    Part(#[from] PartError),
    #[error("the ICAP service answers with parts that are not asked for")]
    Parts,
    #[error("reading from the ICAP service failed: {0}")]
    Read(#[source] io::Error),
    #[error("invalid answer of the ICAP service: {0}")]
    Response(#[from] ResponseError),
    #[error("no socket for the ICAP service: {0}")]
    Socket(#[source] io::Error),
    #[error("the ICAP service answers with status {0}")]
    Status(u16),
    #[error("the ICAP service kept silent for {0:?}")]
    Timeout(Duration),
    #[error("TLS handshake with the ICAP service failed: {0}")]
    Tls(#[source] HandshakeError),
    #[error("the ICAP service changed the request into one that cannot be sent: {0}")]
    UnfitRequest(String),
    #[error("the ICAP service changed the response into one that cannot be sent: {0}")]
    UnfitResponse(String),
    #[error("writing to the ICAP service failed: {0}")]
    Write(#[source] io::Error),
}
