//! Datagrams on their way out: what an escaper gives a task that relays them.
//!
//! A [`Remote`] is one end of such a relay. What cannot be sent is dropped, and said in the escape log: a datagram ends
//! nobody's task.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use sluice_addr::Upstream;
use sluice_config::value::{SocketBuffer, SpeedLimitUdp};
use sluice_io::udp::{Done, Parcel, Socket, Tables};
use sluice_sys::udp::Receiver;

use crate::connect::Path;
use crate::traffic::{Load, Traffic};

mod complaints;
mod connected;
mod names;
mod resolve;
mod roaming;

pub(crate) use complaints::Complaints;
pub(crate) use connected::Connected;
pub(crate) use names::Lookup;
pub(crate) use resolve::addresses;
pub(crate) use roaming::{Roaming, Way};

/// The far address of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Far {
    Address(SocketAddr),
    /// To be resolved by whoever sends it.
    Name(Arc<Upstream>),
}

/// How sockets for datagrams are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Datagrams read or written at a time.
    pub(crate) batch: usize,
    /// Bytes of the longest payload.
    pub(crate) packet_size: usize,
    pub(crate) buffer: SocketBuffer,
}

/// A way out for datagrams.
pub(crate) struct Outlet {
    pub(crate) remote: Remote,
    pub(crate) path: Path,
    /// What the escaper allows it.
    pub(crate) limit: Option<SpeedLimitUdp>,
}

/// The far end of a relay.
pub(crate) enum Remote {
    /// One target.
    Connected(Box<Connected>),
    /// Any target, from this host.
    Roaming(Box<Roaming>),
}

impl Remote {
    /// Receives a batch; ready with the number of datagrams that came.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        receiver: &mut Receiver,
        parcels: &mut Vec<Parcel<Far>>,
        traffic: &Traffic,
    ) -> Poll<usize> {
        match self {
            Self::Connected(remote) => remote.poll_receive(cx, receiver, parcels, traffic),
            Self::Roaming(remote) => remote.poll_receive(cx, receiver, parcels, traffic),
        }
    }

    /// Sends parcels, in order.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        tables: &mut Tables,
        memory: &[u8],
        parcels: &[Parcel<Far>],
        traffic: &Traffic,
    ) -> Poll<Done> {
        match self {
            Self::Connected(remote) => remote.poll_send(cx, tables, memory, parcels, traffic),
            Self::Roaming(remote) => remote.poll_send(cx, tables, memory, parcels, traffic),
        }
    }

    /// Goes on with lookups.
    pub(crate) fn tend(&mut self, cx: &mut Context<'_>, tables: &mut Tables, traffic: &Traffic) {
        match self {
            Self::Connected(_) => {}
            Self::Roaming(remote) => remote.tend(cx, tables, traffic),
        }
    }
}

/// Appends what a socket has received from those that `admits` lets in; what was cut is counted and left out.
fn take_batch(
    receiver: &Receiver,
    parcels: &mut Vec<Parcel<Far>>,
    traffic: &Traffic,
    admits: impl Fn(SocketAddr) -> bool,
) {
    let mut load = Load::default();
    for datagram in receiver.datagrams() {
        let Some(from) = datagram.from.map(canonical).filter(|&from| admits(from)) else {
            continue;
        };
        if datagram.is_truncated() {
            traffic.dropped().too_long.add(1);
        } else {
            load.add(datagram.length, 0);
            parcels.push(Parcel {
                start: datagram.start,
                len: datagram.length,
                far: Far::Address(from),
            });
        }
    }
    traffic.received_from_remote(load);
}

/// What so many parcels weigh.
fn load_of(parcels: &[Parcel<Far>]) -> Load {
    let mut load = Load::default();
    parcels.iter().for_each(|parcel| load.add(parcel.len, 0));
    load
}

/// An IPv4-mapped address as the IPv4 address that it means.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// The local address of a socket, if the kernel tells it.
fn local(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()
}
