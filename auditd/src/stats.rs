//! Counters, and how they are told.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use serde_json::{Value, json};
use sluice_telemetry::metrics::{Collector, Counter, Rule, Source, next_stat_id};

use crate::store::Tidied;

/// What the writer counts.
pub(crate) struct Stats {
    id: String,
    pub(crate) batches: Counter,
    pub(crate) records: Counter,
    pub(crate) malformed: Counter,
    /// Records that senders have lost.
    pub(crate) lost: Counter,
    pub(crate) refused: Counter,
    /// Records that followers could not be told.
    pub(crate) untold: Counter,
    pub(crate) datagrams: Counter,
    pub(crate) datagrams_malformed: Counter,
    pub(crate) written: Counter,
    /// Commits that failed.
    pub(crate) failed: Counter,
    pub(crate) rotated: Counter,
    pub(crate) compressed: Counter,
    pub(crate) deleted: Counter,
    /// Whether nothing can be written now.
    pub(crate) stuck: AtomicBool,
    pub(crate) flows: AtomicU64,
    pub(crate) file_bytes: AtomicU64,
    pub(crate) files: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Stats {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            id: next_stat_id(),
            batches: Counter::default(),
            records: Counter::default(),
            malformed: Counter::default(),
            lost: Counter::default(),
            refused: Counter::default(),
            untold: Counter::default(),
            datagrams: Counter::default(),
            datagrams_malformed: Counter::default(),
            written: Counter::default(),
            failed: Counter::default(),
            rotated: Counter::default(),
            compressed: Counter::default(),
            deleted: Counter::default(),
            stuck: AtomicBool::new(false),
            flows: AtomicU64::new(0),
            file_bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            failure: Mutex::new(None),
        })
    }

    /// Why nothing can be written now.
    pub(crate) fn failure(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tidied(&self, tidied: &Tidied) {
        self.compressed.add(tidied.compressed);
        self.deleted.add(tidied.deleted);
        self.file_bytes.store(tidied.bytes, Ordering::Relaxed);
        self.files.store(tidied.files, Ordering::Relaxed);
    }

    /// Adds what was written to all files; tells whether they are longer than `limit`, now and then while they are.
    pub(crate) fn is_over(&self, written: u64, limit: u64) -> bool {
        let before = self.file_bytes.fetch_add(written, Ordering::Relaxed);
        let now = before.saturating_add(written);
        // Some of it may be in the open files, which stay: that is not asked at each commit.
        let step = limit / 64 + 1;
        now > limit && now / step != before / step
    }

    /// For `status`.
    pub(crate) fn status(&self) -> Value {
        json!({
            "batches": self.batches.get(),
            "records": self.records.get(),
            "malformed": self.malformed.get(),
            "lost": self.lost.get(),
            "udp_packets": self.datagrams.get(),
            "written_bytes": self.written.get(),
            "failed_writes": self.failed.get(),
            "flows": self.flows.load(Ordering::Relaxed),
            "files": self.files.load(Ordering::Relaxed),
            "file_bytes": self.file_bytes.load(Ordering::Relaxed),
            "stuck": self.stuck.load(Ordering::Relaxed),
        })
    }
}

impl Source for Stats {
    fn collect(&self, out: &mut Collector<'_>) {
        let mut object = out.object(&[("stat_id", &self.id)]);
        let counters = [
            ("audit.batch.total", Rule::Always, &self.batches),
            ("audit.record.total", Rule::Always, &self.records),
            ("audit.record.lost", Rule::NonZero, &self.lost),
            ("audit.record.malformed", Rule::NonZero, &self.malformed),
            ("audit.batch.refused", Rule::NonZero, &self.refused),
            ("audit.live.missed", Rule::NonZero, &self.untold),
            ("audit.udp.total", Rule::NonZero, &self.datagrams),
            ("audit.udp.malformed", Rule::NonZero, &self.datagrams_malformed),
            ("audit.write.bytes", Rule::Always, &self.written),
            ("audit.write.failed", Rule::NonZero, &self.failed),
            ("audit.file.rotated", Rule::NonZero, &self.rotated),
            ("audit.file.compressed", Rule::NonZero, &self.compressed),
            ("audit.file.deleted", Rule::NonZero, &self.deleted),
        ];
        for (name, rule, counter) in counters {
            object.counter(name, rule, &[], counter.get());
        }
        let gauges = [
            ("audit.write.stuck", u64::from(self.stuck.load(Ordering::Relaxed))),
            ("audit.flow.alive", self.flows.load(Ordering::Relaxed)),
            ("audit.file.count", self.files.load(Ordering::Relaxed)),
            ("audit.file.bytes", self.file_bytes.load(Ordering::Relaxed)),
        ];
        for (name, value) in gauges {
            object.gauge(name, Rule::Always, &[], value);
        }
    }
}
