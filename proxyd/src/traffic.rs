//! Counts the bytes of a task wherever they count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_io::pump::Meter;

use crate::record::Bytes;
use crate::stats::{EscaperStats, ServerStats};
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
    pub(crate) permit: Option<Box<Permit>>,
    c_rd: Tally,
    c_wr: Tally,
    r_rd: Tally,
    r_wr: Tally,
}

impl Traffic {
    pub(crate) fn new(server: &Arc<ServerStats>, permit: Option<Permit>) -> Self {
        Self {
            server: Arc::clone(server),
            escaper: None,
            permit: permit.map(Box::new),
            c_rd: Tally::default(),
            c_wr: Tally::default(),
            r_rd: Tally::default(),
            r_wr: Tally::default(),
        }
    }

    /// Bytes of the remote count for `escaper` from now on.
    pub(crate) fn set_escaper(&mut self, escaper: &Arc<EscaperStats>) {
        if self.escaper.as_ref().is_none_or(|known| !Arc::ptr_eq(known, escaper)) {
            self.escaper = Some(Arc::clone(escaper));
            if let Some(permit) = &mut self.permit {
                permit.set_escaper(escaper);
            }
        }
    }

    /// `n` bytes of payload came from the client.
    pub(crate) fn read_client(&self, n: u64) {
        self.c_rd.add(n);
        self.read_overhead(n);
        if let Some(permit) = &self.permit {
            permit.received(n);
        }
    }

    /// `n` bytes of payload went to the client.
    pub(crate) fn wrote_client(&self, n: u64) {
        self.c_wr.add(n);
        self.wrote_overhead(n);
        if let Some(permit) = &self.permit {
            permit.sent(n);
        }
    }

    /// `n` bytes came from the client that are talk with the proxy: they count for the server alone.
    pub(crate) fn read_overhead(&self, n: u64) {
        self.server.mine().tcp_in.add(n);
    }

    /// The same towards the client.
    pub(crate) fn wrote_overhead(&self, n: u64) {
        self.server.mine().tcp_out.add(n);
    }

    /// `n` bytes of payload came from the remote.
    pub(crate) fn read_remote(&self, n: u64) {
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
