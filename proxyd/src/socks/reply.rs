//! What a client is told: the one place where an error becomes a SOCKS reply (client-protocol.md §5).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sluice_io::buffer;
use sluice_socks::v5::ReplyCode;
use sluice_socks::{Version, v4, v5};

use crate::client::Client;
use crate::connect::ConnectError;
use crate::error::TaskError;
use crate::server::socks_proxy::SocksProxy;
use crate::task::Task;

/// The reply for an error; `None` if the client is not there to be told.
pub(crate) fn code_of(error: &TaskError) -> Option<ReplyCode> {
    Some(match error {
        TaskError::ClientRead(_) | TaskError::ClosedByClient => return None,
        TaskError::Connect(error) => of_connect(error),
        TaskError::ProtocolBlocked(_) | TaskError::Refused(_) | TaskError::UserBlocked => ReplyCode::NotAllowed,
        TaskError::Unimplemented(_) => ReplyCode::CommandNotSupported,
        TaskError::DomainOfClient(_) => ReplyCode::AddressTypeNotSupported,
        TaskError::AnotherTarget
        | TaskError::BadPathIndex
        | TaskError::ClientTimeout(_)
        | TaskError::ClientUdpReceive(_)
        | TaskError::ClientWrite(_)
        | TaskError::ClosedByUpstream
        | TaskError::ClosedEarlyByClient
        | TaskError::HostMismatch
        | TaskError::Icap(_)
        | TaskError::Idle
        | TaskError::Http2(_)
        | TaskError::Interception(_)
        | TaskError::InvalidRequest(_)
        | TaskError::InvalidRequestBody(_)
        | TaskError::InvalidResponse(_)
        | TaskError::InvalidResponseBody(_)
        | TaskError::InvalidTarget(_)
        | TaskError::NoUpstream
        | TaskError::ServerQuit
        | TaskError::Stream(_)
        | TaskError::UdpSocket(_)
        | TaskError::UncodableForHttp10
        | TaskError::UnwantedUpgrade
        | TaskError::UpstreamRead(_)
        | TaskError::UpstreamTimeout(_)
        | TaskError::UpstreamTls(_)
        | TaskError::UpstreamWrite(_) => ReplyCode::GeneralFailure,
    })
}

fn of_connect(error: &ConnectError) -> ReplyCode {
    match error {
        ConnectError::Connect { source, .. } => match source.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => ReplyCode::ConnectionRefused,
            io::ErrorKind::HostUnreachable => ReplyCode::HostUnreachable,
            io::ErrorKind::NetworkUnreachable => ReplyCode::NetworkUnreachable,
            io::ErrorKind::TimedOut => ReplyCode::TimedOut,
            _ => ReplyCode::GeneralFailure,
        },
        ConnectError::ConnectTimeout { .. } => ReplyCode::TimedOut,
        ConnectError::ForbiddenAddress { .. }
        | ConnectError::ForbiddenFamily { .. }
        | ConnectError::MethodUnavailable { .. } => ReplyCode::NotAllowed,
        ConnectError::NoAddress { .. } | ConnectError::Resolve { .. } => ReplyCode::HostUnreachable,
        ConnectError::ProxyProtocolEncode { .. }
        | ConnectError::ProxyProtocolWrite { .. }
        | ConnectError::Socket { .. } => ReplyCode::GeneralFailure,
    }
}

/// Sends the reply to a request.
///
/// # Errors
/// The connection's, or `TimedOut`.
pub(crate) async fn put(
    server: &SocksProxy,
    client: &mut Client,
    version: Version,
    code: ReplyCode,
    bound: Option<SocketAddr>,
) -> io::Result<()> {
    let stall = server.common.options.stall_limit();
    send(server, client, stall, |out| match (version, code, bound) {
        (Version::V4, ReplyCode::Succeeded, _) => v4::Reply::new(v4::ReplyCode::Granted).put(out),
        (Version::V4, ..) => v4::Reply::new(v4::ReplyCode::Rejected).put(out),
        (Version::V5, ReplyCode::Succeeded, Some(bound)) => v5::Reply::succeeded(bound).put(out),
        (Version::V5, ..) => v5::Reply::refused(code).put(out),
    })
    .await
}

/// Says what has become of a task that has not come about, and closes.
pub(crate) async fn refuse(
    server: &SocksProxy,
    mut client: Client,
    version: Version,
    mut task: Task,
    error: &TaskError,
) {
    task.failed(error);
    let Some(code) = code_of(error) else { return };
    if put(server, &mut client, version, code, None).await.is_ok() {
        drop(task);
        client.close().await;
    }
}

/// Answers a command that is not served, and closes.
pub(crate) async fn refuse_command(server: &SocksProxy, mut client: Client, version: Version) {
    let sent = put(server, &mut client, version, ReplyCode::CommandNotSupported, None).await;
    if sent.is_ok() {
        client.close().await;
    }
}

/// Sends what `put` writes.
///
/// # Errors
/// The connection's, or `TimedOut` if the client takes nothing for `stall`.
pub(super) async fn send(
    server: &SocksProxy,
    client: &mut Client,
    stall: Duration,
    put: impl FnOnce(&mut Vec<u8>),
) -> io::Result<()> {
    let mut out = buffer::take();
    put(&mut out);
    server.common.stats.mine().tcp_out.add(out.len() as u64);
    let sent = client.send(&out, stall).await;
    buffer::recycle(out);
    sent
}
