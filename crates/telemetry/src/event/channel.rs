//! A logger's queue and its numbers.

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;

use crossbeam_queue::ArrayQueue;

use super::Record;
use crate::metrics::{Collector, Counter, Registration, Rule, Shards, Source, next_stat_id};
use crate::value::Timestamp;

/// A record and when it was made.
pub(super) struct Stamped<R: ?Sized> {
    pub(super) at: Timestamp,
    pub(super) record: R,
}

pub(super) type Boxed = Box<Stamped<dyn Record>>;

/// Why a record was lost: `drop_type` in the metrics.
#[derive(Clone, Copy, Debug)]
pub(super) enum Drop {
    ChannelClosed,
    ChannelOverflow,
    FormatFailed,
    PeerUnreachable,
}

/// The numbers of one logger.
pub(super) struct Stats {
    name: String,
    stat_id: String,
    total: Shards<Counter>,
    pass: Counter,
    bytes: Counter,
    closed: Counter,
    overflow: Counter,
    format: Counter,
    unreachable: Counter,
}

impl Stats {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            stat_id: next_stat_id(),
            total: Shards::default(),
            pass: Counter::default(),
            bytes: Counter::default(),
            closed: Counter::default(),
            overflow: Counter::default(),
            format: Counter::default(),
            unreachable: Counter::default(),
        }
    }

    /// Counts one record of `bytes` that reached the next hop.
    pub(super) fn passed(&self, bytes: usize) {
        self.pass.add(1);
        self.bytes.add(bytes as u64);
    }

    /// Counts one lost record.
    pub(super) fn dropped(&self, why: Drop) {
        let counter = match why {
            Drop::ChannelClosed => &self.closed,
            Drop::ChannelOverflow => &self.overflow,
            Drop::FormatFailed => &self.format,
            Drop::PeerUnreachable => &self.unreachable,
        };
        counter.add(1);
    }

    #[cfg(test)]
    pub(super) fn numbers(&self) -> (u64, u64, u64, [u64; 4]) {
        (
            self.total.sum(Counter::get),
            self.pass.get(),
            self.bytes.get(),
            [&self.closed, &self.overflow, &self.format, &self.unreachable].map(Counter::get),
        )
    }
}

impl Source for Stats {
    fn collect(&self, out: &mut Collector<'_>) {
        let mut object = out.object(&[("logger", &self.name), ("stat_id", &self.stat_id)]);
        let total = self.total.sum(Counter::get);
        object.counter("logger.message.total", Rule::Always, &[], total);
        object.counter("logger.message.pass", Rule::Always, &[], self.pass.get());
        object.counter("logger.traffic.pass", Rule::Always, &[], self.bytes.get());
        for (why, counter) in [
            ("FormatFailed", &self.format),
            ("ChannelClosed", &self.closed),
            ("ChannelOverflow", &self.overflow),
            ("PeerUnreachable", &self.unreachable),
        ] {
            let tags = [("drop_type", why)];
            object.counter("logger.message.drop", Rule::NonZero, &tags, counter.get());
        }
    }
}

/// The threads that empty the queues, and whether they were called.
#[derive(Default)]
pub(super) struct Wake {
    called: AtomicBool,
    threads: std::sync::OnceLock<Vec<Thread>>,
}

impl Wake {
    pub(super) fn set_threads(&self, threads: Vec<Thread>) {
        let _ = self.threads.set(threads);
    }

    /// Wakes the writers, unless that was done since one of them last went to sleep.
    fn call(&self) {
        if !self.called.load(Ordering::Relaxed) && !self.called.swap(true, Ordering::AcqRel) {
            self.call_now();
        }
    }

    #[cold]
    pub(super) fn call_now(&self) {
        for thread in self.threads.get().into_iter().flatten() {
            thread.unpark();
        }
    }

    /// To be said by a writer before it looks at the queues for the last time before it sleeps.
    pub(super) fn rearm(&self) {
        self.called.store(false, Ordering::Release);
    }
}

/// A logger's queue.
pub(super) struct Channel {
    queue: ArrayQueue<Boxed>,
    half: usize,
    closed: AtomicBool,
    wake: Arc<Wake>,
    pub(super) stats: Arc<Stats>,
    _registration: Registration,
}

impl Channel {
    pub(super) fn new(name: &str, size: usize, wake: Arc<Wake>, registry: &crate::metrics::Registry) -> Self {
        let stats = Arc::new(Stats::new(name));
        let source: Arc<dyn Source> = Arc::<Stats>::clone(&stats);
        let size = size.max(1);
        Self {
            queue: ArrayQueue::new(size),
            half: size.div_ceil(2),
            closed: AtomicBool::new(false),
            wake,
            _registration: registry.register(source),
            stats,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.stats.name
    }

    #[inline]
    pub(super) fn offer(&self, record: impl FnOnce() -> Boxed) {
        self.stats.total.mine().add(1);
        if self.closed.load(Ordering::Relaxed) {
            return self.stats.dropped(Drop::ChannelClosed);
        }
        // A look before the record is made, so that an overflow costs as little as can be.
        let len = self.queue.len();
        if len >= self.half {
            self.wake.call();
        }
        if len >= self.queue.capacity() || self.queue.push(record()).is_err() {
            self.stats.dropped(Drop::ChannelOverflow);
        }
    }

    pub(super) fn take(&self) -> Option<Boxed> {
        self.queue.pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_half_full(&self) -> bool {
        self.queue.len() >= self.half
    }

    /// Records offered from now on are dropped.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Drops what is still queued.
    pub(super) fn abandon(&self) {
        while self.queue.pop().is_some() {
            self.stats.dropped(Drop::ChannelClosed);
        }
    }
}

/// A logger as its writer knows it.
pub(super) struct Known {
    pub(super) channel: Arc<Channel>,
    /// Alive while somebody holds the logger.
    pub(super) token: Weak<()>,
}
