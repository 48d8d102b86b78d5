//! Bytes of an exchange, counted by those who have no hold of its task.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::task::Task;

/// Bytes of an exchange that are not yet told to its task.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) client_read: AtomicU64,
    pub(super) client_written: AtomicU64,
    pub(super) remote_read: AtomicU64,
    pub(super) remote_written: AtomicU64,
    /// All of them, and those that were told already.
    moved: AtomicU64,
}

impl Counts {
    pub(super) fn add(&self, counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    pub(super) fn settle(&self, task: &Task) {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        task.traffic.read_client(take(&self.client_read));
        task.traffic.wrote_client(take(&self.client_written));
        task.traffic.read_remote(take(&self.remote_read));
        task.traffic.wrote_remote(take(&self.remote_written));
    }
}
