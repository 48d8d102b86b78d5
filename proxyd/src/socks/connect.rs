//! CONNECT.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use sluice_addr::Upstream;
use sluice_config::value::SpeedLimitTcp;
use sluice_io::Stream;

use super::negotiation::Request;
use super::reply;
use crate::audit;
use crate::client::Client;
use crate::connect::Connect;
use crate::error::TaskError;
use crate::record::Stage;
use crate::server::socks_proxy::SocksProxy;
use crate::task::{Task, TaskKind};
use crate::user::RequestKind;
use crate::worker::Worker;

/// Opens the tunnel that the client asks for.
pub(crate) async fn run(server: &Arc<SocksProxy>, mut client: Client, request: Request, worker: &Arc<Worker>) {
    let Request {
        version,
        target,
        mut login,
        ..
    } = request;
    if let (Some(gate), Some(login)) = (&server.gate, &login) {
        gate.set_client_options(login, &client.stream);
    }
    let kind = RequestKind::SocksTcpConnect;
    let admitted = server.rules.admit(&server.common, login.as_mut(), kind, &target);
    let (permit, refusal) = match admitted {
        Ok(permit) => (permit, None),
        Err(refusal) => (None, Some(refusal)),
    };
    let mut task = Task::begin(
        &server.common,
        TaskKind::TcpConnect,
        &client.peers,
        &target,
        client.waiting_since,
        permit,
        None,
    );
    let opened = match refusal {
        None => open(server, &mut client, &target, &mut task, worker).await,
        Some(refusal) => Err(refusal.into()),
    };
    let (upstream, bound, limit) = match opened {
        Ok(opened) => opened,
        Err(error) => return reply::refuse(server, client, version, task, &error).await,
    };
    task.set_stage(Stage::Replying);
    let code = sluice_socks::v5::ReplyCode::Succeeded;
    match reply::put(server, &mut client, version, code, Some(bound)).await {
        Ok(()) => {
            let way = || audit::Way {
                escapers: Arc::clone(&server.escapers),
                escaper: server.escaper,
                path_index: None,
            };
            audit::inspect::start(worker, client, (upstream, Vec::new(), limit), task, &target, way);
        }
        Err(error) => task.failed(&TaskError::ClientWrite(error)),
    }
}

/// The upstream connection, and its local address.
async fn open(
    server: &SocksProxy,
    client: &mut Client,
    target: &Upstream,
    task: &mut Task,
    worker: &Arc<Worker>,
) -> Result<(Stream, SocketAddr, Option<SpeedLimitTcp>), TaskError> {
    task.set_stage(Stage::Connecting);
    let connect = Connect {
        upstream: target,
        task_id: task.id,
        client: client.peers.client,
        server: client.peers.server,
        path_index: None,
        permit: task.traffic.permit.as_deref(),
        worker,
    };
    let connecting = server.escapers.connect(server.escaper, &connect);
    let connected = match client.while_it_waits(connecting).await? {
        Ok(connected) => connected,
        Err(failed) => {
            task.not_connected(&failed.escaper.stats, &failed.failure.path);
            return Err(failed.failure.error.into());
        }
    };
    let mut path = connected.opened.path;
    path.local = connected.opened.stream.tcp().and_then(|tcp| tcp.local_addr().ok());
    task.connected(&connected.escaper.stats, &path, None);
    let bound = path.local.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into());
    Ok((connected.opened.stream, bound, connected.opened.limit))
}
