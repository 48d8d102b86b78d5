//! UDP ASSOCIATE: the client's datagrams come to a socket of ours, each with a header that says where it goes to
//! (RFC 1928 §7). By default an association has one target, as if it were a connection.
//!
//! The association ends with the client's TCP connection, which carries nothing more.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Poll, ready};

use sluice_addr::Upstream;
use sluice_io::relay::IdleCheck;
use sluice_io::udp::{Parcel, Relay, RelayOptions, Socket, with_receiver};
use sluice_socks::udp::{MAX_HEADER, parse_datagram};
use sluice_socks::v5::{self, ReplyCode, UdpClient};
use sluice_sys::udp::Receiver;

use super::negotiation::Request;
use super::reply;
use crate::client::Client;
use crate::connect::Connect;
use crate::error::TaskError;
use crate::record::Stage;
use crate::server::rules::Rules;
use crate::server::socks_proxy::SocksProxy;
use crate::task::{Task, TaskKind};
use crate::traffic::Load;
use crate::udp::{Outlet, canonical};
use crate::user::{Login, Refusal, RequestKind};
use crate::worker::Worker;

mod association;
mod client_end;
mod settings;

use association::Association;
use client_end::{ClientEnd, Peer};
pub(crate) use settings::UdpSettings;

/// Datagrams that are thrown away in one turn while the first good one is awaited.
const THROWN_AT_ONCE: usize = 64;

/// Serves the association that the client asks for: its future ends when data can flow.
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
    let users_wish = login
        .as_ref()
        .is_some_and(|login| login.user.config.socks_use_udp_associate);
    let (kind, task_kind) = if server.udp.several_targets || users_wish {
        (RequestKind::SocksUdpAssociate, TaskKind::UdpAssociate)
    } else {
        (RequestKind::SocksUdpConnect, TaskKind::UdpConnect)
    };
    let (permit, refusal) = match Rules::admit_open(&server.common, login.as_mut(), kind) {
        Ok(permit) => (permit, None),
        Err(refusal) => (None, Some(refusal)),
    };
    let mut task = Task::begin(
        &server.common,
        task_kind,
        &client.peers,
        &Upstream::new(IpAddr::from(Ipv4Addr::UNSPECIFIED), 0),
        client.waiting_since,
        permit,
        None,
    );
    let prepared = match refusal {
        None => prepare(server, &client, target, &mut task),
        Some(refusal) => Err(refusal.into()),
    };
    let (socket, expected) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return reply::refuse(server, client, version, task, &error).await,
    };
    task.set_stage(Stage::Replying);
    let told = told_address(server, &socket);
    if let Err(error) = reply::put(server, &mut client, version, ReplyCode::Succeeded, Some(told)).await {
        return task.failed(&TaskError::ClientWrite(error));
    }
    let one_target = task_kind == TaskKind::UdpConnect;
    let set_up = SetUp {
        server,
        client: &mut client,
        task: &mut task,
        one_target,
        worker,
    };
    match set_up.run(socket, expected, login).await {
        Ok(ready) => ready.relay(server, client, task, worker),
        Err(error) => task.failed(&error),
    }
}

/// Opens the socket for the client's datagrams, and says who is expected there.
fn prepare(
    server: &SocksProxy,
    client: &Client,
    target: Upstream,
    task: &mut Task,
) -> Result<(Socket, UdpClient), TaskError> {
    task.set_stage(Stage::Preparing);
    let wanted = target.host.clone();
    let command = v5::Command::UdpAssociate;
    let expected = v5::Request { command, target }.udp_client()?;
    server.escapers.carries_udp(server.escaper)?;
    let own = match client.stream.tcp() {
        Some(tcp) => tcp.local_addr().map_err(TaskError::UdpSocket)?,
        None => client.peers.server,
    };
    let options = task.permit().and_then(|permit| permit.user.config.udp_client_misc_opts);
    let socket = server.udp.open(&wanted, expected, canonical(own), options);
    let socket = socket.map_err(TaskError::UdpSocket)?;
    if let Ok(listen) = socket.local_addr() {
        task.set_udp_listen(listen);
    }
    Ok((socket, expected))
}

/// The address that the client is told to send to.
fn told_address(server: &SocksProxy, socket: &Socket) -> SocketAddr {
    let own = socket
        .local_addr()
        .unwrap_or_else(|_| (Ipv4Addr::UNSPECIFIED, 0).into());
    SocketAddr::new(server.udp.echo.apply(own.ip()), own.port())
}

/// An association from the reply to the first datagram's way out.
struct SetUp<'a> {
    server: &'a Arc<SocksProxy>,
    client: &'a mut Client,
    task: &'a mut Task,
    one_target: bool,
    worker: &'a Arc<Worker>,
}

/// The first datagram.
struct First {
    from: Peer,
    target: Upstream,
    payload: Vec<u8>,
}

/// What a relay begins with.
struct Ready {
    socket: Socket,
    outlet: Outlet,
    first: First,
    one_target: bool,
}

impl SetUp<'_> {
    async fn run(mut self, socket: Socket, expected: UdpClient, mut login: Option<Login>) -> Result<Ready, TaskError> {
        let first = self.first(&socket, expected).await?;
        if first.from.way_back.is_none() {
            socket.connect(first.from.address).map_err(TaskError::UdpSocket)?;
        }
        self.task.set_udp_client(first.from.address, &first.target);
        if let (Some(login), Some(permit)) = (&mut login, self.task.traffic.permit_mut()) {
            login.set_target(permit, &first.target);
        }
        let outlet = self.open(&first.target).await?;
        // What came on the TCP connection meanwhile has been read.
        if !self.client.buf.is_empty() {
            return Err(TaskError::ClosedByClient);
        }
        Ok(Ready {
            socket,
            outlet,
            first,
            one_target: self.one_target,
        })
    }

    /// Waits for the first datagram that may pass. Others are thrown away, unless there can be only one target.
    async fn first(&mut self, socket: &Socket, expected: UdpClient) -> Result<First, TaskError> {
        let limit = self.server.udp.initial_timeout;
        self.client.timer.arm(limit);
        let size = self.server.udp.shape.packet_size + MAX_HEADER;
        poll_fn(|cx| {
            // A client that says more has left the protocol.
            if !self.client.buf.is_empty() {
                return Poll::Ready(Err(TaskError::ClosedByClient));
            }
            let Client { stream, buf, timer, .. } = &mut *self.client;
            match buf.poll_fill(cx, stream) {
                Poll::Ready(Ok(_)) => return Poll::Ready(Err(TaskError::ClosedByClient)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(TaskError::ClientRead(error))),
                Poll::Pending => {}
            }
            if timer.poll_fired(cx).is_ready() {
                return Poll::Ready(Err(TaskError::ClientTimeout(limit)));
            }
            for _ in 0..THROWN_AT_ONCE {
                let taken = with_receiver(|receiver| {
                    socket.poll_receive(cx, receiver, 1, size).map(|received| {
                        received.map_err(TaskError::ClientUdpReceive)?;
                        self.take_first(receiver, expected)
                    })
                });
                if let Some(first) = ready!(taken)? {
                    return Poll::Ready(Ok(first));
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    fn take_first(&self, receiver: &Receiver, expected: UdpClient) -> Result<Option<First>, TaskError> {
        let Some(datagram) = receiver.datagrams().next() else {
            return Ok(None);
        };
        let Some(socket_peer) = datagram.from else {
            return Ok(None);
        };
        let from = canonical(socket_peer);
        let server = self.server;
        let is_expected =
            expected.ip.is_none_or(|ip| ip == from.ip()) && expected.port.is_none_or(|port| port == from.port());
        if !is_expected {
            return Ok(None);
        }
        if !server.common.admits(from.ip()) {
            server.common.stats.mine().dropped.add(1);
            return Ok(None);
        }
        let mut load = Load::default();
        let parsed = parse_datagram(datagram.payload).ok();
        let is_too_long = |payload: &[u8]| datagram.is_truncated() || payload.len() > server.udp.shape.packet_size;
        if parsed.as_ref().is_some_and(|(_, payload)| is_too_long(payload)) {
            self.task.traffic.dropped().too_long.add(1);
        }
        let Some((target, payload)) = parsed.filter(|(_, payload)| !is_too_long(payload)) else {
            load.add(0, datagram.length);
            self.task.traffic.refused_from_client(load);
            return Ok(None);
        };
        load.add(payload.len(), datagram.length - payload.len());
        if !server.rules.reach(self.task.permit(), &target) {
            Rules::count_denied(&server.common, self.task.permit());
            self.task.traffic.refused_from_client(load);
            return if self.one_target {
                Err(Refusal::DestinationDenied.into())
            } else {
                Ok(None)
            };
        }
        self.task.traffic.received_from_client(load);
        Ok(Some(First {
            from: Peer {
                address: from,
                way_back: datagram.local.map(|local| (socket_peer, local)),
            },
            payload: payload.to_vec(),
            target,
        }))
    }

    /// The way out.
    async fn open(&mut self, target: &Upstream) -> Result<Outlet, TaskError> {
        self.task.set_stage(Stage::Connecting);
        let connect = Connect {
            upstream: target,
            task_id: self.task.id,
            client: self.client.peers.client,
            server: self.client.peers.server,
            path_index: None,
            permit: self.task.traffic.permit.as_deref(),
            worker: self.worker,
        };
        let (server, one_target) = (self.server, self.one_target);
        let opening = server
            .escapers
            .open_udp(server.escaper, &connect, server.udp.shape, one_target);
        match self.client.while_it_waits(opening).await? {
            Ok((outlet, escaper)) => {
                self.task.connected(&escaper.stats, &outlet.path, None);
                Ok(outlet)
            }
            Err(failed) => {
                self.task.not_connected(&failed.escaper.stats, &failed.failure.path);
                Err(failed.failure.error.into())
            }
        }
    }
}

impl Ready {
    /// Makes a task of its own of the relay.
    fn relay(self, server: &Arc<SocksProxy>, client: Client, mut task: Task, worker: &Worker) {
        task.relaying();
        let [up, down] = task.datagram_limits(server.udp.limit, self.outlet.limit);
        let options = RelayOptions {
            yield_size: server.udp.yield_size,
            up,
            down,
        };
        let idle = IdleCheck {
            timer: client.timer,
            interval: task.server().options.check_interval(),
        };
        let only = self.one_target.then(|| self.first.target.clone());
        let mut near = ClientEnd::new(self.socket, client.stream, self.first.from, server.udp.shape, only);
        let far = near.far_of(self.first.target);
        let parcel = Parcel {
            start: 0,
            len: self.first.payload.len(),
            far,
        };
        let ends = Association::new(Arc::clone(server), task, near, self.outlet.remote);
        let mut relay = Relay::new(ends, options, idle);
        relay.preload(&self.first.payload, vec![parcel]);
        worker.spawn(relay);
    }
}
