//! To any reader of exported PDUs, as Wireshark's udpdump.

use std::{
    io,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sluice_wire::dump::MAX_PACKET_SIZE;

use super::{FlowDump, FlowMeta};

/// A connected socket: one for each worker, since a reader tells streams apart by it, too.
#[derive(Debug)]
pub struct UdpDump {
    socket: UdpSocket,
    packet_size: usize,
    sent: AtomicU64,
    lost: AtomicU64,
}

/// What has happened until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpDumpStats {
    /// Datagrams that the system took.
    pub sent: u64,
    /// Datagrams that it did not take, as its buffer was full, and those that it said nobody listens to.
    pub lost: u64,
}

impl UdpDump {
    /// Sends by `socket`, which is connected, in datagrams of at most `packet_size` bytes (1200 at least).
    ///
    /// # Errors
    /// If the socket cannot be made not to block.
    pub fn new(socket: UdpSocket, packet_size: usize) -> io::Result<Arc<Self>> {
        socket.set_nonblocking(true)?;
        Ok(Arc::new(Self {
            socket,
            packet_size: packet_size.min(MAX_PACKET_SIZE),
            sent: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }))
    }

    /// Begins a flow.
    pub fn flow(self: &Arc<Self>, meta: &FlowMeta) -> FlowDump {
        FlowDump::to_udp(Arc::clone(self), meta, self.packet_size)
    }

    /// What has happened until now.
    pub fn stats(&self) -> UdpDumpStats {
        UdpDumpStats {
            sent: self.sent.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }

    /// Sends one datagram now, or never: the stream does not wait for its copy.
    pub(super) fn send(&self, packet: &[u8]) {
        let mut result = self.socket.send(packet);
        // That nobody took an earlier one is told in place of sending this one.
        if result
            .as_ref()
            .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
            result = self.socket.send(packet);
        }
        let counter = match result {
            Ok(_) => &self.sent,
            Err(_) => &self.lost,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
