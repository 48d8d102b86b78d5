//! Tunnels: CONNECT, and connections that a 101 took out of HTTP.

use std::sync::Arc;

use sluice_config::value::SpeedLimitTcp;
use sluice_http1::put_connected;
use sluice_io::Stream;
use sluice_io::buffer;
use sluice_io::relay::{IdleCheck, Relay};

use crate::connect::Connect;
use crate::error::TaskError;
use crate::http::client::Client;
use crate::http::forward::After;
use crate::http::plan::{self, Persist};
use crate::http::reply;
use crate::record::Stage;
use crate::server::http_proxy::Session;
use crate::stats::EscaperStats;
use crate::task::{Task, TaskKind, Tunnel};

/// Serves a CONNECT.
pub(crate) async fn connect(session: &mut Session, mut client: Client, request: plan::Tunnel) -> After {
    let server = Arc::clone(&session.server);
    let stats = server.common.stats.mine();
    stats.tcp_in.add(request.received);
    let mut task = Task::begin(
        &server.common,
        TaskKind::TcpConnect,
        client.peers,
        &request.upstream,
        client.waiting_since,
        None,
    );
    task.set_stage(Stage::Connecting);
    let connect = Connect {
        upstream: &request.upstream,
        task_id: task.id,
        client: client.peers.client,
        server: client.peers.server,
        path_index: request.path_index,
        worker: &session.worker,
    };
    let connected = match server.escapers.connect(server.escaper, &connect).await {
        Ok(connected) => connected,
        Err(failed) => {
            task.not_connected(&failed.escaper.stats, &failed.failure.path);
            let error = TaskError::Connect(failed.failure.error);
            task.failed(&error);
            // Bytes behind a CONNECT were meant for the tunnel; they must not be read as a request.
            let keep_alive = request.keep_alive && client.buf.is_empty();
            let persist = Persist {
                keep_alive,
                http11: true,
                head_only: false,
            };
            return reply::send_error(&server, client, &error, &mut task, persist).await;
        }
    };
    let mut path = connected.opened.path;
    if task.is_logged() || server.options.tells_path() {
        path.local = connected.opened.stream.plain().and_then(|tcp| tcp.local_addr().ok());
    }
    task.connected(&connected.escaper.stats, &path, None);
    task.set_stage(Stage::Replying);
    let mut extra = Vec::new();
    server.options.put_own_headers(Some(&path), &mut extra);
    let mut out = buffer::take();
    put_connected(&extra, &mut out);
    stats.tcp_out.add(out.len() as u64);
    let sent = client.send(&out, server.common.options.stall_limit()).await;
    buffer::recycle(out);
    if let Err(error) = sent {
        task.failed(&TaskError::ClientWrite(error));
        return After::Gone;
    }
    let escaper = Arc::clone(&connected.escaper.stats);
    let limit = connected.opened.limit;
    spawn(
        session,
        client,
        (connected.opened.stream, Vec::new(), limit),
        task,
        escaper,
    );
    After::Gone
}

/// Makes a task of its own of a tunnel: a small one, without what its set-up needed. `from_upstream` are bytes that the
/// upstream has sent already; they and what is left in the client's buffer go first. `limit` is the escaper's.
pub(crate) fn spawn(
    session: &Session,
    mut client: Client,
    (upstream, from_upstream, limit): (Stream, Vec<u8>, Option<SpeedLimitTcp>),
    mut task: Task,
    escaper: Arc<EscaperStats>,
) {
    let server = &session.server.common;
    task.relaying();
    let from_client = if client.buf.is_empty() {
        Vec::new()
    } else {
        client.buf.take_all()
    };
    task.add_c_rd(from_client.len() as u64);
    server.stats.mine().tcp_in.add(from_client.len() as u64);
    let idle = IdleCheck {
        timer: client.timer,
        interval: server.options.check_interval(),
    };
    let relay = Relay::new(
        (client.stream, from_client),
        (upstream, from_upstream),
        session.server.pumps(limit),
        idle,
        Tunnel::new(task, escaper),
    );
    session.worker.spawn(relay);
}
