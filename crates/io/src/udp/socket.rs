//! A UDP socket.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use sluice_sys::udp::{Outgoing, Receiver, Sender};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The most memory that a thread has for one batch.
const MEMORY: usize = 1 << 20;

/// The datagrams of a batch: as many as are `wanted`, at least one, but no more of `size` bytes than a thread has memory
/// for.
#[must_use]
pub fn batch_size(wanted: usize, size: usize) -> usize {
    wanted.min(MEMORY / size.max(1)).clamp(1, sluice_sys::udp::MOST)
}

/// A socket of a runtime, for batches.
#[derive(Debug)]
pub struct Socket(UdpSocket);

impl Socket {
    /// Takes over a socket, which must be non-blocking.
    ///
    /// # Errors
    /// If the runtime does not take it.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        UdpSocket::from_std(socket).map(Self)
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Lets it send to `peer` and receive from there only. It does not wait.
    ///
    /// # Errors
    /// The kernel's, if no way leads there.
    pub fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        sluice_sys::udp::connect(&self.0, peer)
    }

    /// Receives up to `most` datagrams of `size` bytes; their number.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        receiver: &mut Receiver,
        most: usize,
        size: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_recv_ready(cx))?;
            match self
                .0
                .try_io(Interest::READABLE, || receiver.receive(&self.0, most, size))
            {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Sends datagrams, in order; how many the socket took, at least one.
    ///
    /// # Errors
    /// What is wrong with the first datagram, or with the socket.
    pub fn poll_send<'a>(
        &self,
        cx: &mut Context<'_>,
        sender: &mut Sender,
        datagrams: impl Iterator<Item = Outgoing<'a>> + Clone,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_send_ready(cx))?;
            match self
                .0
                .try_io(Interest::WRITABLE, || sender.send(&self.0, datagrams.clone()))
            {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }
}
