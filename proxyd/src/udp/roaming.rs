//! Sockets of this host for any target.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use sluice_addr::Upstream;
use sluice_io::udp::{Done, Parcel, Socket, Tables};
use sluice_sys::udp::{Outgoing, Receiver};

use super::names::{Lookup, Names, Place};
use super::{Complaints, Far, Shape, load_of, local, take_batch};
use crate::connect::ConnectError;
use crate::resolve::Family;
use crate::traffic::{Load, Traffic};
use crate::user::Permit;

/// The most datagrams that wait for their names to be resolved,
const MOST_WAITING: usize = 16;
/// and the most bytes of them.
const MOST_WAITING_BYTES: usize = 64 * 1024;

/// What an escaper that sends by itself says about the way of datagrams.
pub(crate) trait Way: Send {
    /// Whether datagrams may go to `ip`, and come from there. Asked for each one, on the very address.
    ///
    /// # Errors
    /// What is against it.
    fn check(&self, ip: IpAddr) -> Result<(), ConnectError>;

    /// The same without counting anything.
    fn admits(&self, ip: IpAddr) -> bool;

    /// Opens a socket for a family.
    ///
    /// # Errors
    /// The kernel's.
    fn open(&self, family: Family) -> io::Result<Socket>;

    /// Begins to look up a name.
    fn look_up(&self, name: &Upstream, permit: Option<&Permit>) -> Lookup;

    /// One of the addresses that were found for a name, the one in use if it can be.
    ///
    /// # Errors
    /// Why none can be used.
    fn choose(&self, name: &Upstream, found: &[IpAddr], used: Option<IpAddr>) -> Result<IpAddr, ConnectError>;
}

/// The far end of a relay with any number of targets: a socket for each family, opened when it is needed.
pub(crate) struct Roaming {
    way: Box<dyn Way>,
    shape: Shape,
    v4: Option<Socket>,
    v6: Option<Socket>,
    /// Whose turn it is to be received from first.
    v6_first: bool,
    names: Names,
    waiting: VecDeque<(Arc<Upstream>, Vec<u8>)>,
    complaints: Complaints,
}

/// What becomes of a datagram.
enum Verdict {
    To(SocketAddr),
    Wait(Arc<Upstream>),
    Drop,
}

impl Roaming {
    pub(crate) fn new(way: Box<dyn Way>, shape: Shape, complaints: Complaints) -> Self {
        Self {
            way,
            shape,
            v4: None,
            v6: None,
            v6_first: false,
            names: Names::default(),
            waiting: VecDeque::new(),
            complaints,
        }
    }

    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        receiver: &mut Receiver,
        parcels: &mut Vec<Parcel<Far>>,
        traffic: &Traffic,
    ) -> Poll<usize> {
        let Shape { batch, packet_size, .. } = self.shape;
        for v6 in [self.v6_first, !self.v6_first] {
            let Some(socket) = (if v6 { &self.v6 } else { &self.v4 }) else {
                continue;
            };
            match socket.poll_receive(cx, receiver, batch, packet_size) {
                Poll::Pending => {}
                Poll::Ready(received) => {
                    self.v6_first = !v6;
                    return Poll::Ready(received.map_or(0, |came| {
                        take_batch(receiver, parcels, traffic, |from| self.way.admits(from.ip()));
                        came
                    }));
                }
            }
        }
        Poll::Pending
    }

    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        tables: &mut Tables,
        memory: &[u8],
        parcels: &[Parcel<Far>],
        traffic: &Traffic,
    ) -> Poll<Done> {
        let Some(first) = parcels.first() else {
            return Poll::Ready(Done::Dropped(0));
        };
        let to = match self.verdict(cx, &first.far, traffic) {
            Verdict::To(to) => to,
            Verdict::Wait(name) => return Poll::Ready(self.let_wait(name, first.payload(memory), traffic)),
            Verdict::Drop => return Poll::Ready(Done::Dropped(1)),
        };
        let family = Family::of(to.ip());
        if !self.has_socket(family, &first.far, traffic) {
            return Poll::Ready(Done::Dropped(1));
        }
        let socket = match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        let Some(socket) = socket else {
            return Poll::Ready(Done::Dropped(1));
        };
        // The first one's verdict holds for the run behind it that goes by the same socket.
        let addresses = parcels.iter().map_while(|parcel| {
            let to = self.address(&parcel.far)?;
            (Family::of(to.ip()) == family && self.way.admits(to.ip())).then_some((parcel, to))
        });
        let outgoing = addresses.map(|(parcel, to)| Outgoing {
            head: b"",
            payload: parcel.payload(memory),
            to: Some(to),
            from: None,
        });
        socket
            .poll_send(cx, &mut tables.sender, outgoing)
            .map(|sent| match sent {
                Ok(sent) => {
                    traffic.sent_to_remote(load_of(&parcels[..sent]));
                    Done::Sent(sent)
                }
                Err(error) => {
                    self.complaints.tell(&first.far, local(socket), "SendFailed", error);
                    traffic.dropped().not_sent.add(1);
                    Done::Dropped(1)
                }
            })
    }

    /// Where a datagram goes; a refusal is said and counted.
    fn verdict(&mut self, cx: &Context<'_>, far: &Far, traffic: &Traffic) -> Verdict {
        let to = match far {
            Far::Address(to) => *to,
            Far::Name(name) => {
                let permit = traffic.permit.as_deref();
                let begin = || {
                    // It is polled at the next turn, which nothing else would bring about.
                    cx.waker().wake_by_ref();
                    self.way.look_up(name, permit)
                };
                match self.names.find(name, begin) {
                    Place::At(ip) => SocketAddr::new(ip, name.port),
                    Place::Awaited => return Verdict::Wait(Arc::clone(name)),
                    Place::Nowhere | Place::Crowded => {
                        traffic.dropped().unresolved.add(1);
                        return Verdict::Drop;
                    }
                }
            }
        };
        match self.way.check(to.ip()) {
            Ok(()) => Verdict::To(to),
            Err(error) => {
                if let (Some(permit), ConnectError::ForbiddenAddress { .. }) = (&traffic.permit, &error) {
                    permit.address_refused();
                }
                let reason = error.sendto_reason().unwrap_or("InternalServerError");
                self.complaints.tell(far, None, reason, error);
                Verdict::Drop
            }
        }
    }

    /// Where a datagram goes, if that is known.
    fn address(&self, far: &Far) -> Option<SocketAddr> {
        match far {
            Far::Address(to) => Some(*to),
            Far::Name(name) => Some(SocketAddr::new(self.names.known(name)?, name.port)),
        }
    }

    /// Whether there is a socket of a family for a datagram; one is opened if need be.
    fn has_socket(&mut self, family: Family, far: &Far, traffic: &Traffic) -> bool {
        let socket = match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        };
        if socket.is_none() {
            match self.way.open(family) {
                Ok(opened) => *socket = Some(opened),
                Err(error) => {
                    self.complaints.tell(far, None, "NoListenSocket", error);
                    traffic.dropped().not_sent.add(1);
                }
            }
        }
        socket.is_some()
    }

    /// Keeps a datagram until its name is known.
    fn let_wait(&mut self, name: Arc<Upstream>, payload: &[u8], traffic: &Traffic) -> Done {
        let bytes: usize = self.waiting.iter().map(|(_, payload)| payload.len()).sum();
        if self.waiting.len() >= MOST_WAITING || bytes + payload.len() > MOST_WAITING_BYTES {
            traffic.dropped().unresolved.add(1);
            return Done::Dropped(1);
        }
        self.waiting.push_back((name, payload.to_vec()));
        Done::Sent(1)
    }

    /// Goes on with lookups, and sends what has waited for them.
    pub(super) fn tend(&mut self, cx: &mut Context<'_>, tables: &mut Tables, traffic: &Traffic) {
        let Self {
            names, way, complaints, ..
        } = self;
        let choose = |name: &Upstream, found: &[IpAddr], used| way.choose(name, found, used);
        let complain = |name: &Arc<_>, error: ConnectError| {
            if let (Some(permit), ConnectError::ForbiddenAddress { .. }) = (&traffic.permit, &error) {
                permit.address_refused();
            }
            let reason = error.sendto_reason().unwrap_or("InternalServerError");
            complaints.tell(&Far::Name(Arc::clone(name)), None, reason, error);
        };
        names.poll(cx, choose, complain);
        if self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        for (name, payload) in waiting {
            if !self.send_late(cx, tables, traffic, &name, &payload) {
                self.waiting.push_back((name, payload));
            }
        }
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }

    /// Sends a datagram that has waited for its name, or drops it; false if it has to go on waiting.
    fn send_late(
        &mut self,
        cx: &mut Context<'_>,
        tables: &mut Tables,
        traffic: &Traffic,
        name: &Arc<Upstream>,
        payload: &[u8],
    ) -> bool {
        let far = Far::Name(Arc::clone(name));
        let to = match self.verdict(cx, &far, traffic) {
            Verdict::To(to) => to,
            Verdict::Wait(_) => return false,
            Verdict::Drop => return true,
        };
        let family = Family::of(to.ip());
        if !self.has_socket(family, &far, traffic) {
            return true;
        }
        let socket = match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        let outgoing = Outgoing {
            head: b"",
            payload,
            to: Some(to),
            from: None,
        };
        let polled = socket
            .as_ref()
            .map(|socket| socket.poll_send(cx, &mut tables.sender, std::iter::once(outgoing)));
        match polled {
            Some(Poll::Ready(Ok(_))) => {
                let mut load = Load::default();
                load.add(payload.len(), 0);
                traffic.sent_to_remote(load);
                true
            }
            Some(Poll::Ready(Err(error))) => {
                self.complaints.tell(&far, None, "SendFailed", error);
                traffic.dropped().not_sent.add(1);
                true
            }
            Some(Poll::Pending) => false,
            None => true,
        }
    }
}
