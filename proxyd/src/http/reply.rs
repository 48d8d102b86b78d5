//! What a client is told when its request cannot be served: the one place where an error becomes a status
//! (client-protocol.md §2).

use std::io;

use sluice_http1::{Connection, Reply};
use sluice_io::buffer;

use crate::client::Client;
use crate::connect::ConnectError;
use crate::error::TaskError;
use crate::http::forward::After;
use crate::http::plan::{Persist, Refusal};
use crate::server::http_proxy::HttpProxy;
use crate::task::Task;
use crate::user;

/// The status for an error; `None` if the client is not there to be told.
pub(crate) fn status_of(error: &TaskError) -> Option<u16> {
    Some(match error {
        TaskError::AnotherTarget | TaskError::BadPathIndex | TaskError::DomainOfClient(_) | TaskError::NoUpstream => {
            400
        }
        TaskError::ClientRead(_)
        | TaskError::ClientUdpReceive(_)
        | TaskError::ClientWrite(_)
        | TaskError::ClosedByClient
        | TaskError::ClosedEarlyByClient
        | TaskError::Idle
        | TaskError::Http2(_)
        | TaskError::Interception(_)
        | TaskError::Stream(_) => return None,
        TaskError::ClientTimeout(_) => 408,
        TaskError::ClosedByUpstream
        | TaskError::InvalidResponse(_)
        | TaskError::InvalidResponseBody(_)
        | TaskError::UncodableForHttp10
        | TaskError::UnwantedUpgrade
        | TaskError::UpstreamRead(_)
        | TaskError::UpstreamWrite(_) => 502,
        TaskError::Connect(error) => of_connect(error),
        TaskError::HostMismatch => 409,
        TaskError::InvalidRequest(error) => error.status(),
        TaskError::InvalidRequestBody(error) => error.request_status(),
        TaskError::InvalidTarget(error) => error.status(),
        TaskError::Refused(refusal) => match refusal {
            user::Refusal::DestinationDenied | user::Refusal::UserAgentBlocked => 403,
            user::Refusal::FullyLoaded | user::Refusal::RateLimited => 429,
            user::Refusal::ProtocolBanned => 405,
        },
        TaskError::Icap(_) | TaskError::ServerQuit | TaskError::UdpSocket(_) => 500,
        TaskError::Unimplemented(_) => 501,
        TaskError::UpstreamTimeout(_) => 504,
        TaskError::UpstreamTls(_) => 525,
        TaskError::ProtocolBlocked(_) | TaskError::UserBlocked => 403,
    })
}

fn of_connect(error: &ConnectError) -> u16 {
    match error {
        ConnectError::Connect { source, .. } => match source.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => 521,
            io::ErrorKind::TimedOut => 522,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => 523,
            _ => 502,
        },
        ConnectError::ConnectTimeout { .. } => 504,
        ConnectError::ForbiddenAddress { .. }
        | ConnectError::ForbiddenFamily { .. }
        | ConnectError::MethodUnavailable { .. } => 403,
        ConnectError::NoAddress { .. } | ConnectError::Resolve { .. } => 530,
        ConnectError::ProxyProtocolEncode { .. } | ConnectError::Socket { .. } => 500,
        ConnectError::ProxyProtocolWrite { .. } => 502,
    }
}

/// Whether a connection can go on after this status: those that tell of the upstream say nothing against the client.
fn may_persist(status: u16) -> bool {
    matches!(status, 502 | 504 | 521 | 522 | 523 | 525 | 530)
}

/// Tells a client why its task failed.
pub(crate) async fn send_error(
    server: &HttpProxy,
    mut client: Box<Client>,
    error: &TaskError,
    task: &mut Task,
    persist: Persist,
) -> After {
    let Some(status) = status_of(error) else {
        return After::Gone;
    };
    let persists =
        persist.keep_alive && may_persist(status) && matches!(error, TaskError::Connect(_) | TaskError::UpstreamTls(_));
    let mut extra = Vec::new();
    if persists || may_persist(status) {
        server.options.put_own_headers(task.path(), &mut extra);
    }
    let reply = Reply {
        status,
        connection: match (persists, persist.http11) {
            (true, true) => Connection::Implied,
            (true, false) => Connection::KeepAlive,
            (false, _) => Connection::Close,
        },
        head_only: persist.head_only,
        extra: &extra,
    };
    task.note_reply(status);
    if send(server, &mut client, &reply).await.is_err() {
        return After::Gone;
    }
    if persists {
        After::Next(client)
    } else {
        After::Close(client)
    }
}

/// Answers a request that is not served at all. With `no_early_error_reply` the connection just closes.
pub(crate) async fn refuse(server: &HttpProxy, mut client: Box<Client>, refusal: &Refusal) -> After {
    let is_early = !refusal.authenticated
        && matches!(
            refusal.error,
            TaskError::InvalidRequest(_)
                | TaskError::InvalidTarget(_)
                | TaskError::ClientTimeout(_)
                | TaskError::NoUpstream
        );
    let status = status_of(&refusal.error).filter(|_| !(is_early && server.options.no_early_error_reply));
    let Some(status) = status else { return After::Gone };
    let reply = Reply {
        head_only: refusal.head_only,
        ..Reply::closing(status)
    };
    match send(server, &mut client, &reply).await {
        Ok(()) => After::Close(client),
        Err(_) => After::Gone,
    }
}

/// Sends a reply of our own.
///
/// # Errors
/// The connection's, or `TimedOut` if the client does not take it.
pub(super) async fn send(server: &HttpProxy, client: &mut Client, reply: &Reply<'_>) -> io::Result<()> {
    let mut out = buffer::take();
    reply.put(&mut out);
    server.common.stats.mine().tcp_out.add(out.len() as u64);
    let sent = client.send(&out, server.common.options.stall_limit()).await;
    buffer::recycle(out);
    sent
}
