//! What has been answered so far.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) connections: Counter,
    pub(crate) options: Counter,
    pub(crate) reqmod: Counter,
    pub(crate) respmod: Counter,
    pub(crate) unchanged: Counter,
    pub(crate) echoed: Counter,
    pub(crate) blocked: Counter,
    pub(crate) failed: Counter,
    pub(crate) bad_requests: Counter,
}

/// A number that grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Stats {
    /// For `status`.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "connections": self.connections.value(),
            "requests": {
                "options": self.options.value(),
                "reqmod": self.reqmod.value(),
                "respmod": self.respmod.value(),
                "bad": self.bad_requests.value(),
            },
            "answers": {
                "unchanged": self.unchanged.value(),
                "echoed": self.echoed.value(),
                "blocked": self.blocked.value(),
                "failed": self.failed.value(),
            },
        })
    }
}
