//! CONNECT.

use std::sync::Arc;

use sluice_http1::put_connected;
use sluice_io::buffer;

use crate::audit;
use crate::client::Client;
use crate::connect::Connect;
use crate::error::TaskError;
use crate::http::forward::After;
use crate::http::plan::{self, Persist};
use crate::http::reply;
use crate::record::Stage;
use crate::server::http_proxy::Session;
use crate::task::{Task, TaskKind};

/// Serves a CONNECT.
pub(crate) async fn connect(session: &mut Session, mut client: Box<Client>, request: plan::Tunnel) -> After {
    let server = Arc::clone(&session.server);
    let mut task = Task::begin(
        &server.common,
        TaskKind::TcpConnect,
        &client.peers,
        &request.upstream,
        client.waiting_since,
        request.permit,
        None,
    );
    task.traffic.read_overhead(request.received);
    task.set_stage(Stage::Connecting);
    let connect = Connect {
        upstream: &request.upstream,
        task_id: task.id,
        client: client.peers.client,
        server: client.peers.server,
        path_index: request.path_index,
        permit: task.traffic.permit.as_deref(),
        worker: &session.worker,
    };
    let connecting = server.escapers.connect(server.escaper, &connect);
    let connected = match client.while_it_waits(connecting).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(failed)) => {
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
        Err(gone) => {
            task.failed(&gone);
            return After::Gone;
        }
    };
    let mut path = connected.opened.path;
    if task.is_logged() || server.options.tells_path() {
        path.local = connected.opened.stream.tcp().and_then(|tcp| tcp.local_addr().ok());
    }
    task.connected(&connected.escaper.stats, &path, None);
    task.set_stage(Stage::Replying);
    let mut extra = Vec::new();
    server.options.put_own_headers(&path, &mut extra);
    let mut out = buffer::take();
    put_connected(&extra, &mut out);
    task.traffic.wrote_overhead(out.len() as u64);
    let sent = client.send(&out, task.stall_limit()).await;
    buffer::recycle(out);
    if let Err(error) = sent {
        task.failed(&TaskError::ClientWrite(error));
        return After::Gone;
    }
    let limit = connected.opened.limit;
    let upstream = (connected.opened.stream, Vec::new(), limit);
    let way = || audit::Way {
        escapers: Arc::clone(&server.escapers),
        escaper: server.escaper,
        path_index: request.path_index,
    };
    audit::inspect::start(&session.worker, *client, upstream, task, &request.upstream, way);
    After::Gone
}
