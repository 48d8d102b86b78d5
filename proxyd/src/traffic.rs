//! Counts the bytes of a task wherever they count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_io::pump::Meter;

use crate::record::Bytes;
use crate::stats::{Dropped, EscaperStats, ServerStats};
use crate::user::Permit;

/// A number that one thread writes at a time, by shared reference.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn add(&self, more: u64) {
        // No read-modify-write: the task lives on one thread.
        self.set(self.get() + more);
    }
}

/// The bytes of one task. Each is added here once, when it is read or written, and counts for the task, for its
/// server, for the escaper that it came to, and for its user.
pub(crate) struct Traffic {
    server: Arc<ServerStats>,
    escaper: Option<Arc<EscaperStats>>,
    /// The user's leave, if the server has users.
    pub(crate) permit: Option<Arc<Permit>>,
    /// Whether all of it passes through another task's connection, which counts it.
    inside: bool,
    c_rd: Tally,
    c_wr: Tally,
    r_rd: Tally,
    r_wr: Tally,
    /// For tasks that move datagrams: how many.
    packets: Option<Box<Packets>>,
}

/// The datagrams of one task.
#[derive(Default)]
struct Packets {
    c_rd: Tally,
    c_wr: Tally,
    r_rd: Tally,
    r_wr: Tally,
}

/// Some datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) packets: u64,
    /// Their payload.
    pub(crate) bytes: u64,
    /// What else there is in them.
    pub(crate) overhead: u64,
}

impl Load {
    /// Adds a datagram.
    pub(crate) fn add(&mut self, payload: usize, overhead: usize) {
        self.packets += 1;
        self.bytes += payload as u64;
        self.overhead += overhead as u64;
    }
}

impl Traffic {
    pub(crate) fn new(server: &Arc<ServerStats>, permit: Option<Permit>) -> Self {
        Self {
            server: Arc::clone(server),
            escaper: None,
            permit: permit.map(Arc::new),
            inside: false,
            c_rd: Tally::default(),
            c_wr: Tally::default(),
            r_rd: Tally::default(),
            r_wr: Tally::default(),
            packets: None,
        }
    }

    /// The traffic of a stream inside of the connection that this one is of: nothing of it counts twice.
    pub(crate) fn inside(&self) -> Self {
        Self {
            permit: self.permit.clone(),
            inside: true,
            ..Self::new(&self.server, None)
        }
    }

    /// The leave while it is the task's alone: until there are tunnels inside.
    pub(crate) fn permit_mut(&mut self) -> Option<&mut Permit> {
        self.permit.as_mut().and_then(Arc::get_mut)
    }

    /// The task is one that moves datagrams.
    pub(crate) fn count_packets(&mut self) {
        self.packets = Some(Box::default());
    }

    /// Datagrams came from the client.
    pub(crate) fn received_from_client(&self, load: Load) {
        self.refused_from_client(load);
        self.c_rd.add(load.bytes);
        if let Some(packets) = &self.packets {
            packets.c_rd.add(load.packets);
        }
        if let Some(permit) = &self.permit {
            permit.received(load.bytes);
            permit.received_packets(load.packets);
        }
    }

    /// Datagrams came from the client that are not for the upstream.
    pub(crate) fn refused_from_client(&self, load: Load) {
        let counters = &self.server.mine().udp;
        counters.in_bytes.add(load.bytes + load.overhead);
        counters.in_packets.add(load.packets);
    }

    /// Counters of datagrams that cannot go on.
    pub(crate) fn dropped(&self) -> &Dropped {
        &self.server.mine().udp_dropped
    }

    /// Datagrams went to the client.
    pub(crate) fn sent_to_client(&self, load: Load) {
        let counters = &self.server.mine().udp;
        counters.out_bytes.add(load.bytes + load.overhead);
        counters.out_packets.add(load.packets);
        self.c_wr.add(load.bytes);
        if let Some(packets) = &self.packets {
            packets.c_wr.add(load.packets);
        }
        if let Some(permit) = &self.permit {
            permit.sent(load.bytes);
            permit.sent_packets(load.packets);
        }
    }

    /// Datagrams came from the remote.
    pub(crate) fn received_from_remote(&self, load: Load) {
        if let Some(escaper) = &self.escaper {
            let counters = &escaper.mine().udp;
            counters.in_bytes.add(load.bytes + load.overhead);
            counters.in_packets.add(load.packets);
        }
        self.r_rd.add(load.bytes);
        if let Some(packets) = &self.packets {
            packets.r_rd.add(load.packets);
        }
        if let Some(permit) = &self.permit {
            permit.received_datagrams_upstream(load.bytes, load.packets);
        }
    }

    /// Datagrams went to the remote.
    pub(crate) fn sent_to_remote(&self, load: Load) {
        if let Some(escaper) = &self.escaper {
            let counters = &escaper.mine().udp;
            counters.out_bytes.add(load.bytes + load.overhead);
            counters.out_packets.add(load.packets);
        }
        self.r_wr.add(load.bytes);
        if let Some(packets) = &self.packets {
            packets.r_wr.add(load.packets);
        }
        if let Some(permit) = &self.permit {
            permit.sent_datagrams_upstream(load.bytes, load.packets);
        }
    }

    /// The task's datagrams so far; `None` if it moves none.
    pub(crate) fn packets(&self) -> Option<Bytes> {
        self.packets.as_ref().map(|packets| Bytes {
            c_rd: packets.c_rd.get(),
            c_wr: packets.c_wr.get(),
            r_rd: packets.r_rd.get(),
            r_wr: packets.r_wr.get(),
        })
    }

    /// Bytes of the remote count for `escaper` from now on.
    pub(crate) fn set_escaper(&mut self, escaper: &Arc<EscaperStats>) {
        if self.escaper.as_ref().is_none_or(|known| !Arc::ptr_eq(known, escaper)) {
            self.escaper = Some(Arc::clone(escaper));
            if let Some(permit) = self.permit_mut() {
                permit.set_escaper(escaper);
            }
        }
    }

    /// `n` bytes of payload came from the client.
    pub(crate) fn read_client(&self, n: u64) {
        if self.inside {
            return;
        }
        self.c_rd.add(n);
        self.read_overhead(n);
        if let Some(permit) = &self.permit {
            permit.received(n);
        }
    }

    /// `n` bytes of payload went to the client.
    pub(crate) fn wrote_client(&self, n: u64) {
        if self.inside {
            return;
        }
        self.c_wr.add(n);
        self.wrote_overhead(n);
        if let Some(permit) = &self.permit {
            permit.sent(n);
        }
    }

    /// `n` bytes came from the client that are talk with the proxy: they count for the server alone.
    pub(crate) fn read_overhead(&self, n: u64) {
        if self.inside {
            return;
        }
        self.server.mine().tcp_in.add(n);
    }

    /// The same towards the client.
    pub(crate) fn wrote_overhead(&self, n: u64) {
        if self.inside {
            return;
        }
        self.server.mine().tcp_out.add(n);
    }

    /// `n` bytes of payload came from the remote.
    pub(crate) fn read_remote(&self, n: u64) {
        if self.inside {
            return;
        }
        self.r_rd.add(n);
        if let Some(escaper) = &self.escaper {
            escaper.mine().tcp_in.add(n);
        }
        if let Some(permit) = &self.permit {
            permit.received_upstream(n);
        }
    }

    /// `n` bytes of payload went to the remote.
    pub(crate) fn wrote_remote(&self, n: u64) {
        if self.inside {
            return;
        }
        self.r_wr.add(n);
        if let Some(escaper) = &self.escaper {
            escaper.mine().tcp_out.add(n);
        }
        if let Some(permit) = &self.permit {
            permit.sent_upstream(n);
        }
    }

    /// The task's own so far.
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes {
            c_rd: self.c_rd.get(),
            c_wr: self.c_wr.get(),
            r_rd: self.r_rd.get(),
            r_wr: self.r_wr.get(),
        }
    }
}

/// Bytes on their way from the client to the remote.
pub(crate) struct Upwards<'a>(pub(crate) &'a Traffic);

impl Meter for Upwards<'_> {
    fn read(&self, n: u64) {
        self.0.read_client(n);
    }

    fn wrote(&self, n: u64) {
        self.0.wrote_remote(n);
    }
}

/// Bytes on their way from the remote to the client.
pub(crate) struct Downwards<'a>(pub(crate) &'a Traffic);

impl Meter for Downwards<'_> {
    fn read(&self, n: u64) {
        self.0.read_remote(n);
    }

    fn wrote(&self, n: u64) {
        self.0.wrote_client(n);
    }
}
