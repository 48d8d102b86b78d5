//! The client's end of an association.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use sluice_addr::{Host, Upstream};
use sluice_io::Stream;
use sluice_io::udp::{Done, Parcel, Socket, Tables};
use sluice_socks::udp::{MAX_HEADER, parse_datagram, put_header};
use sluice_sys::udp::{Local, Outgoing, Received, Receiver};
use tokio::io::{AsyncRead, ReadBuf};

use crate::error::TaskError;
use crate::server::rules::Rules;
use crate::server::socks_proxy::SocksProxy;
use crate::traffic::{Load, Traffic};
use crate::udp::{Far, Shape, canonical};

/// The most names whose headers are remembered.
const MOST_KNOWN: usize = 32;
/// Where type, address and port begin in a header.
const ADDRESS: usize = 3;
/// The address type of a name.
const DOMAIN: u8 = 3;
/// Bytes of a header with an IPv4 address, and with an IPv6 one.
const HEADER_V4: usize = 10;
const HEADER_V6: usize = 22;

/// A client: the socket that its datagrams come to, and the TCP connection that holds the association.
pub(super) struct ClientEnd {
    socket: Socket,
    control: Stream,
    client: Peer,
    shape: Shape,
    /// The only target that there may be.
    only: Option<Upstream>,
    /// Names that were asked for, so that a header need be parsed once only.
    known: Vec<Known>,
}

/// Whose datagrams come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Where the socket has several addresses: that of the client in the socket's family, and the one of ours that it
    /// sends to. Answers leave from there (UDP-06). Such a socket is not connected, which would leave it one address.
    pub(super) way_back: Option<(SocketAddr, Local)>,
}

/// A name in a header.
struct Known {
    /// Type, address and port as the client writes them.
    header: Box<[u8]>,
    far: Arc<Upstream>,
    allowed: bool,
}

/// Where a datagram goes.
struct Target {
    far: Far,
    allowed: bool,
    header: usize,
}

impl ClientEnd {
    /// Takes over a socket, which is connected to `client` unless that has a way back of its own.
    pub(super) fn new(socket: Socket, control: Stream, client: Peer, shape: Shape, only: Option<Upstream>) -> Self {
        Self {
            socket,
            control,
            client,
            shape,
            only,
            known: Vec::new(),
        }
    }

    /// A target as a relay knows it.
    pub(super) fn far_of(&mut self, target: Upstream) -> Far {
        match target.host {
            Host::Ip(ip) => Far::Address(SocketAddr::new(ip, target.port)),
            Host::Domain(_) => Far::Name(Arc::new(target)),
        }
    }

    /// Receives a batch; ready with the number of datagrams that came.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        receiver: &mut Receiver,
        parcels: &mut Vec<Parcel<Far>>,
        server: &SocksProxy,
        traffic: &Traffic,
    ) -> Poll<Result<usize, TaskError>> {
        let Shape { batch, packet_size, .. } = self.shape;
        let came = match ready!(self.socket.poll_receive(cx, receiver, batch, packet_size + MAX_HEADER)) {
            Ok(came) => came,
            // An answer to what was sent to a client that does not listen any more.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Poll::Ready(Ok(0)),
            Err(error) => return Poll::Ready(Err(TaskError::ClientUdpReceive(error))),
        };
        let (mut passed, mut refused) = (Load::default(), Load::default());
        for datagram in receiver.datagrams() {
            // What others sent before the socket was connected may still be there.
            if datagram.from.map(canonical) != Some(self.client.address) {
                continue;
            }
            match self.take(&datagram, server, traffic)? {
                Some(parcel) => {
                    passed.add(parcel.len, datagram.length - parcel.len);
                    parcels.push(parcel);
                }
                None => refused.add(0, datagram.length),
            }
        }
        traffic.received_from_client(passed);
        traffic.refused_from_client(refused);
        Poll::Ready(Ok(came))
    }

    /// Makes a parcel of a datagram, if it may pass.
    fn take(
        &mut self,
        datagram: &Received<'_>,
        server: &SocksProxy,
        traffic: &Traffic,
    ) -> Result<Option<Parcel<Far>>, TaskError> {
        if datagram.is_truncated() {
            traffic.dropped().too_long.add(1);
            return Ok(None);
        }
        let permit = traffic.permit.as_deref();
        let reach = |target: &Upstream| server.rules.reach(permit, target);
        let Some(target) = self.target(datagram.payload, reach) else {
            return Ok(None);
        };
        if let Some(only) = &self.only
            && !is(only, &target.far)
        {
            return Err(TaskError::AnotherTarget);
        }
        if !target.allowed {
            Rules::count_denied(&server.common, permit);
            return Ok(None);
        }
        let len = datagram.length - target.header;
        if len > self.shape.packet_size {
            traffic.dropped().too_long.add(1);
            return Ok(None);
        }
        Ok(Some(Parcel {
            start: datagram.start + target.header,
            len,
            far: target.far,
        }))
    }

    /// Where a datagram goes; `None` if its header is none.
    fn target(&mut self, datagram: &[u8], reach: impl Fn(&Upstream) -> bool) -> Option<Target> {
        if let Some(known) = self.known_target(datagram) {
            return Some(known);
        }
        let (upstream, payload) = parse_datagram(datagram).ok()?;
        let header = datagram.len() - payload.len();
        let allowed = reach(&upstream);
        let far = self.far_of(upstream);
        if let Far::Name(name) = &far {
            if self.known.len() >= MOST_KNOWN {
                self.known.remove(0);
            }
            self.known.push(Known {
                header: datagram.get(ADDRESS..header)?.into(),
                far: Arc::clone(name),
                allowed,
            });
        }
        Some(Target { far, allowed, header })
    }

    /// The same for a name that was asked for before: without parsing, and without memory of its own.
    fn known_target(&self, datagram: &[u8]) -> Option<Target> {
        let &[_, _, 0, DOMAIN, len, ..] = datagram else {
            return None;
        };
        let header = ADDRESS + 2 + usize::from(len) + 2;
        let written = datagram.get(ADDRESS..header)?;
        let known = self.known.iter().find(|known| *known.header == *written)?;
        Some(Target {
            far: Far::Name(Arc::clone(&known.far)),
            allowed: known.allowed,
            header,
        })
    }

    /// Sends parcels, in order.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        tables: &mut Tables,
        memory: &[u8],
        parcels: &[Parcel<Far>],
        traffic: &Traffic,
    ) -> Poll<Done> {
        let Tables { sender, heads } = tables;
        heads.clear();
        let mut run = 0;
        for from in parcels.iter().map_while(|parcel| address(&parcel.far)) {
            // Only a name could be too long.
            let _ = put_header(&Upstream::from(from), heads);
            run += 1;
        }
        let parcels = &parcels[..run];
        if parcels.is_empty() {
            // Whoever resolves names says where answers come from.
            return Poll::Ready(Done::Dropped(1));
        }
        let heads = &*heads;
        let (to, from) = self.client.way_back.unzip();
        let outgoing = parcels.iter().scan(0, |at, parcel| {
            let head = &heads[*at..][..header_len(&parcel.far)];
            *at += head.len();
            Some(Outgoing {
                head,
                payload: parcel.payload(memory),
                to,
                from,
            })
        });
        Poll::Ready(match ready!(self.socket.poll_send(cx, sender, outgoing)) {
            Ok(sent) => {
                let mut load = Load::default();
                for parcel in &parcels[..sent] {
                    load.add(parcel.len, header_len(&parcel.far));
                }
                traffic.sent_to_client(load);
                Done::Sent(sent)
            }
            // A client that is not there ends the association by its TCP connection.
            Err(_) => {
                traffic.dropped().not_sent.add(1);
                Done::Dropped(1)
            }
        })
    }

    /// Looks after the TCP connection.
    ///
    /// # Errors
    /// Its end: it carries nothing more.
    pub(super) fn poll_control(&mut self, cx: &mut Context<'_>) -> Result<(), TaskError> {
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        match Pin::new(&mut self.control).poll_read(cx, &mut buf) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) => Err(TaskError::ClosedByClient),
            Poll::Ready(Err(error)) => Err(TaskError::ClientRead(error)),
        }
    }
}

/// Whether a far address is this target.
fn is(target: &Upstream, far: &Far) -> bool {
    match far {
        Far::Address(address) => target.host == Host::Ip(address.ip()) && target.port == address.port(),
        Far::Name(name) => **name == *target,
    }
}

fn address(far: &Far) -> Option<SocketAddr> {
    match far {
        Far::Address(address) => Some(canonical(*address)),
        Far::Name(_) => None,
    }
}

/// Bytes of the header of a datagram that comes from `far`.
fn header_len(far: &Far) -> usize {
    match address(far) {
        Some(SocketAddr::V4(_)) => HEADER_V4,
        Some(SocketAddr::V6(_)) => HEADER_V6,
        None => 0,
    }
}
