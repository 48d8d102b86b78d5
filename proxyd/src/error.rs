//! Why a task ended, and what that is called in its log record (logs.md §3.4).
//!
//! What the client is told about it is decided in [`crate::http::reply`], nowhere else.

use std::io;
use std::time::Duration;

use sluice_http1::{BodyError, RequestError, ResponseError, TargetError};
use sluice_socks::v5::DomainOfClient;
use sluice_tls::HandshakeError;
use thiserror::Error;

use crate::audit::h2::{H2Error, StreamError};
use crate::audit::tls::TlsError;
use crate::connect::ConnectError;
use crate::icap::IcapError;
use crate::user::Refusal;

/// An end of a task other than the regular one of an HTTP exchange.
#[derive(Debug, Error)]
pub(crate) enum TaskError {
    #[error("an association with one target was asked for another one")]
    AnotherTarget,
    #[error("the egress path selection header holds no number")]
    BadPathIndex,
    #[error("closed by client")]
    ClosedByClient,
    #[error("closed by upstream")]
    ClosedByUpstream,
    #[error("the client closed the connection inside the request")]
    ClosedEarlyByClient,
    #[error("reading from client failed: {0}")]
    ClientRead(#[source] io::Error),
    #[error("the client sent nothing for {0:?}")]
    ClientTimeout(Duration),
    #[error("receiving datagrams from client failed: {0}")]
    ClientUdpReceive(#[source] io::Error),
    #[error("writing to client failed: {0}")]
    ClientWrite(#[source] io::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    DomainOfClient(#[from] DomainOfClient),
    #[error("the Host field names another host than the URL")]
    HostMismatch,
    #[error(transparent)]
    Icap(#[from] IcapError),
    #[error("no byte passed for too long")]
    Idle,
    #[error("interception failed: {0}")]
    Interception(#[source] Box<TlsError>),
    #[error("HTTP/2 interception: {0}")]
    Http2(#[source] Box<H2Error>),
    #[error("invalid request: {0}")]
    InvalidRequest(#[from] RequestError),
    #[error("invalid request body: {0}")]
    InvalidRequestBody(#[source] BodyError),
    #[error("invalid request target: {0}")]
    InvalidTarget(#[from] TargetError),
    #[error("invalid response body: {0}")]
    InvalidResponseBody(#[source] BodyError),
    #[error("invalid response: {0}")]
    InvalidResponse(#[from] ResponseError),
    #[error("the request names no upstream")]
    NoUpstream,
    #[error("the protocol is blocked: {0}")]
    ProtocolBlocked(&'static str),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the server was told to quit")]
    ServerQuit,
    #[error(transparent)]
    Stream(Box<StreamError>),
    #[error("the response has a transfer coding that HTTP/1.0 does not know")]
    UncodableForHttp10,
    #[error("no socket for the datagrams of the client: {0}")]
    UdpSocket(#[source] io::Error),
    #[error("{0} is not supported")]
    Unimplemented(&'static str),
    #[error("the upstream switched protocols unasked")]
    UnwantedUpgrade,
    #[error("reading from upstream failed: {0}")]
    UpstreamRead(#[source] io::Error),
    #[error("the upstream sent no answer for {0:?}")]
    UpstreamTimeout(Duration),
    #[error("TLS handshake with the upstream failed: {0}")]
    UpstreamTls(#[source] HandshakeError),
    #[error("writing to upstream failed: {0}")]
    UpstreamWrite(#[source] io::Error),
    #[error("the user was blocked meanwhile")]
    UserBlocked,
}

impl TaskError {
    /// The `reason` of a task record.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::ClientRead(_) => "ClientTcpReadFailed",
            Self::ClientTimeout(_) => "ClientAppTimeout",
            Self::ClientUdpReceive(_) => "ClientUdpRecvFailed",
            Self::ClientWrite(_) => "ClientTcpWriteFailed",
            Self::ClosedByClient => "ClosedByClient",
            Self::ClosedByUpstream => "ClosedByUpstream",
            Self::ClosedEarlyByClient => "ClosedEarlyByClient",
            Self::Connect(error) => match error {
                ConnectError::Connect { .. } | ConnectError::ConnectTimeout { .. } => "UpstreamNotConnected",
                ConnectError::ForbiddenAddress { .. }
                | ConnectError::ForbiddenFamily { .. }
                | ConnectError::MethodUnavailable { .. } => "ForbiddenByRule",
                ConnectError::NoAddress { .. } => "UpstreamNotResolved",
                ConnectError::ProxyProtocolEncode { .. } | ConnectError::Socket { .. } => "InternalServerError",
                ConnectError::ProxyProtocolWrite { .. } => "UpstreamWriteFailed",
                ConnectError::Resolve { source, .. } => {
                    if source.row().error_type == "LocalError" {
                        "InternalResolverError"
                    } else {
                        "UpstreamNotResolved"
                    }
                }
            },
            Self::Icap(_) => "InternalAdapterError",
            Self::Idle => "Idle",
            Self::AnotherTarget
            | Self::BadPathIndex
            | Self::DomainOfClient(_)
            | Self::HostMismatch
            | Self::InvalidRequest(_)
            | Self::InvalidRequestBody(_)
            | Self::InvalidTarget(_)
            | Self::NoUpstream => "InvalidClientProtocol",
            Self::Http2(_) | Self::Interception(_) | Self::Stream(_) => "InterceptionError",
            Self::InvalidResponse(_) | Self::InvalidResponseBody(_) | Self::UnwantedUpgrade => {
                "InvalidUpstreamProtocol"
            }
            Self::ProtocolBlocked(_) | Self::Refused(_) => "ForbiddenByRule",
            Self::ServerQuit => "CanceledAsServerQuit",
            Self::UdpSocket(_) => "InternalServerError",
            Self::UncodableForHttp10 | Self::Unimplemented(_) => "UnimplementedProtocol",
            Self::UpstreamRead(_) => "UpstreamReadFailed",
            Self::UpstreamTimeout(_) => "UpstreamAppTimeout",
            Self::UpstreamTls(error) => {
                if matches!(error, HandshakeError::Timeout(_)) {
                    "UpstreamTlsHandshakeTimeout"
                } else {
                    "UpstreamTlsHandshakeFailed"
                }
            }
            Self::UpstreamWrite(_) => "UpstreamWriteFailed",
            Self::UserBlocked => "CanceledAsUserBlocked",
        }
    }
}
