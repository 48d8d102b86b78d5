//! What is asked of an escaper, and what comes of it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sluice_addr::Upstream;
use sluice_config::value::SpeedLimitTcp;
use sluice_io::Stream;
use sluice_telemetry::value::Uuid;
use sluice_wire::dns::ResolveError;
use thiserror::Error;

use crate::user::Permit;
use crate::worker::Worker;

/// A connection that a task needs.
pub(crate) struct Connect<'a> {
    /// Where to.
    pub(crate) upstream: &'a Upstream,
    /// Whose task it is.
    pub(crate) task_id: Uuid,
    /// The client's address.
    pub(crate) client: SocketAddr,
    /// The address that the client connected to.
    pub(crate) server: SocketAddr,
    /// Number id of egress path selection.
    pub(crate) path_index: Option<u64>,
    /// The user's leave, if the server has users.
    pub(crate) permit: Option<&'a Permit>,
    /// The thread that does it.
    pub(crate) worker: &'a Arc<Worker>,
}

/// What an escaper makes of a [`Connect`].
pub(crate) enum Step {
    /// It is done.
    Opened(Opened),
}

/// A connection to the upstream, or to the proxy that leads there.
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    pub(crate) path: Path,
    /// What the escaper allows this connection.
    pub(crate) limit: Option<SpeedLimitTcp>,
}

/// How a connection came about, for logs and for the headers that tell of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Path {
    /// The address that was bound before connecting.
    pub(crate) bind_ip: Option<IpAddr>,
    /// Local end, once connected and if somebody wants to know.
    pub(crate) local: Option<SocketAddr>,
    /// Remote end: the upstream or the next proxy.
    pub(crate) peer: Option<SocketAddr>,
    /// Addresses tried.
    pub(crate) tries: u32,
    /// Time from the first attempt to the last answer.
    pub(crate) spent: Duration,
}

/// A connection that did not come about: what is at fault, and how far it got.
#[derive(Debug)]
pub(crate) struct ConnectFailure {
    pub(crate) error: ConnectError,
    /// Boxed: a failure is rare, and results are moved about.
    pub(crate) path: Box<Path>,
}

impl From<ConnectError> for ConnectFailure {
    fn from(error: ConnectError) -> Self {
        Self {
            error,
            path: Box::default(),
        }
    }
}

/// Why a connection did not come about.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("connect to `{peer}` failed: {source}")]
    Connect { peer: SocketAddr, source: io::Error },
    #[error("connect to `{peer}` timed out after {after:?}")]
    ConnectTimeout { peer: SocketAddr, after: Duration },
    #[error("{family} is disabled at escaper `{escaper}`")]
    ForbiddenFamily { escaper: Arc<str>, family: &'static str },
    #[error("escaper `{escaper}` forbids connections to {ip}")]
    ForbiddenAddress { escaper: Arc<str>, ip: IpAddr },
    #[error("escaper `{escaper}` refuses every request")]
    MethodUnavailable { escaper: Arc<str> },
    #[error("`{domain}` has no address that escaper `{escaper}` can use")]
    NoAddress { escaper: Arc<str>, domain: Box<str> },
    #[error("a PROXY protocol header cannot carry a connection from {client} to {server}: the address families differ")]
    ProxyProtocolEncode { client: SocketAddr, server: SocketAddr },
    #[error("sending the PROXY protocol header to `{peer}` failed: {source}")]
    ProxyProtocolWrite { peer: SocketAddr, source: io::Error },
    #[error("`{domain}` was not resolved: {source}")]
    Resolve { domain: Box<str>, source: ResolveError },
    #[error("no socket for `{peer}`: {source}")]
    Socket { peer: SocketAddr, source: io::Error },
}

impl ConnectError {
    /// The `reason` of an escape record (logs.md §4).
    pub(crate) fn escape_reason(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "ConnectFailed",
            Self::ConnectTimeout { .. } => "TimeoutByRule",
            Self::ForbiddenAddress { .. } => "ForbiddenRemoteAddress",
            Self::ForbiddenFamily { .. } => "ForbiddenAddressFamily",
            Self::MethodUnavailable { .. } => "MethodUnavailable",
            Self::NoAddress { .. } => "NoAddressConnected",
            Self::ProxyProtocolEncode { .. } => "ProxyProtocolEncodeError",
            Self::ProxyProtocolWrite { .. } => "ProxyProtocolWriteFailed",
            Self::Resolve { .. } => "ResolveFailed",
            Self::Socket { .. } => "SetupSocketFailed",
        }
    }
}
