//! A socket for one target.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use sluice_io::udp::{Done, Parcel, Socket, Tables};
use sluice_sys::udp::{Outgoing, Receiver};

use super::{Complaints, Far, Shape, load_of, local, take_batch};
use crate::traffic::Traffic;

/// The far end of a relay with one target.
pub(crate) struct Connected {
    socket: Socket,
    peer: SocketAddr,
    shape: Shape,
    complaints: Complaints,
}

impl Connected {
    /// Takes over a socket that is connected to `peer`.
    pub(crate) fn new(socket: Socket, peer: SocketAddr, shape: Shape, complaints: Complaints) -> Self {
        Self {
            socket,
            peer,
            shape,
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
        match ready!(self.socket.poll_receive(cx, receiver, batch, packet_size)) {
            Ok(came) => {
                take_batch(receiver, parcels, traffic, |from| from == self.peer);
                Poll::Ready(came)
            }
            // The network's answer to an earlier datagram; the next one may fare better.
            Err(error) => {
                self.complain("RecvFailed", error);
                Poll::Ready(0)
            }
        }
    }

    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        tables: &mut Tables,
        memory: &[u8],
        parcels: &[Parcel<Far>],
        traffic: &Traffic,
    ) -> Poll<Done> {
        let outgoing = parcels.iter().map(|parcel| Outgoing {
            head: b"",
            payload: parcel.payload(memory),
            to: None,
            from: None,
        });
        Poll::Ready(match ready!(self.socket.poll_send(cx, &mut tables.sender, outgoing)) {
            Ok(sent) => {
                traffic.sent_to_remote(load_of(&parcels[..sent]));
                Done::Sent(sent)
            }
            Err(error) => {
                self.complain("SendFailed", error);
                traffic.dropped().not_sent.add(1);
                Done::Dropped(1)
            }
        })
    }

    fn complain(&self, reason: &'static str, error: io::Error) {
        let far = Far::Address(self.peer);
        self.complaints.tell(&far, local(&self.socket), reason, error);
    }
}
