//! The UDP door, for those who speak to g3fcgen.
//!
//! Datagrams carry no credentials: whoever can send one gets a certificate, and its key. So the door is closed unless it
//! is asked for by name.

use std::env;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::BytesMut;
use sluice_lifecycle::{Tasks, next_datagram};
use sluice_telemetry::{debug, warn};
use sluice_wire::mint::{Form, MAX_DATAGRAM, MintRequest, put_response};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use crate::mint::{Asker, Minter};

/// The variable of the environment that names the address.
const VARIABLE: &str = "UDP_LISTEN_ADDR";

/// Where g3fcgen listens by default.
const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 2999);

/// The most requests under way; more are dropped, as a full socket buffer would.
const MAX_PENDING: usize = 1024;

/// A door that was asked for.
#[derive(Debug)]
pub(crate) enum Wish {
    /// At this address, for the reason.
    At(SocketAddr, &'static str),
    /// The socket that the service manager has made.
    Passed(StdSocket),
}

/// Whether and where UDP is asked for. The last wins: a file of its own, a group named `port<N>`, the environment, a
/// socket that was passed.
pub(crate) fn wish(stand_alone: bool, group: &str, passed: Option<StdSocket>) -> Option<Wish> {
    if let Some(passed) = passed {
        return Some(Wish::Passed(passed));
    }
    let named = env::var(VARIABLE).ok();
    let by_variable = named.as_deref().and_then(|text| {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            warn!("{} is not an address with a port and has no effect", VARIABLE; "value" => text);
        }
        parsed
    });
    if let Some(addr) = by_variable {
        return Some(Wish::At(addr, VARIABLE));
    }
    let port = group.strip_prefix("port").and_then(|port| port.parse().ok());
    if let Some(port) = port.filter(|port| *port != 0) {
        return Some(Wish::At((Ipv6Addr::UNSPECIFIED, port).into(), "the group's name"));
    }
    stand_alone.then_some(Wish::At(DEFAULT, "a file of certgend's own"))
}

impl Wish {
    /// Opens the door; returns where.
    ///
    /// # Errors
    /// If the address can not be bound.
    pub(crate) async fn open(self, minter: &Arc<Minter>, tasks: &Tasks) -> anyhow::Result<SocketAddr> {
        let (socket, why) = match self {
            Self::At(addr, why) => {
                let bound = UdpSocket::bind(addr).await;
                (bound.with_context(|| format!("listen on UDP {addr}"))?, why)
            }
            Self::Passed(socket) => {
                socket.set_nonblocking(true)?;
                (UdpSocket::from_std(socket)?, "the service manager")
            }
        };
        let addr = socket.local_addr()?;
        let who = if addr.ip().is_loopback() {
            "any local user"
        } else {
            "anybody who reaches it"
        };
        warn!("UDP is open, where {} can have certificates made", who; "address" => %addr, "asked by" => why);
        tasks.spawn(serve(socket, Arc::clone(minter), tasks.clone()));
        Ok(addr)
    }
}

async fn serve(socket: UdpSocket, minter: Arc<Minter>, tasks: Tasks) {
    let socket = Arc::new(socket);
    let pending = Arc::new(Semaphore::new(MAX_PENDING));
    let mut packet = vec![0; MAX_DATAGRAM];
    while let Some((length, peer)) = next_datagram(&socket, &mut packet, &tasks).await {
        minter.stats.received.add(1);
        let request = match MintRequest::take(packet.get(..length).unwrap_or_default(), Form::Datagram) {
            Ok(request) => request,
            Err(rejected) => {
                minter.stats.invalid.add(1);
                debug!("a datagram is no request: {}", rejected; "peer" => %peer);
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&pending).try_acquire_owned() else {
            continue;
        };
        let (socket, minter, quitting) = (Arc::clone(&socket), Arc::clone(&minter), tasks.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = answer(&socket, &minter, request, peer) => {}
                () = quitting.quitting() => {}
            }
            drop(permit);
        });
    }
}

/// Answers with a certificate, or not at all: an error has no form here.
async fn answer(socket: &UdpSocket, minter: &Arc<Minter>, request: MintRequest, peer: SocketAddr) {
    let response = minter.answer(request, Asker::Address(peer)).await;
    let mut out = BytesMut::new();
    let _ = put_response(&mut out, &response, Form::Datagram); // datagrams have no frame that could be too short
    if out.is_empty() {
        return;
    }
    minter.stats.responses.add(1);
    if out.len() > MAX_DATAGRAM {
        warn!("an answer is longer than its asker reads: the list of CA certificates is too long"; "length" => out.len());
    }
    if let Err(error) = socket.send_to(&out, peer).await {
        minter.stats.responses_failed.add(1);
        debug!("a response could not be sent"; "peer" => %peer, "error" => %error);
    }
}
