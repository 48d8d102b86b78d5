//! Gauges of the tokio runtimes.

use std::fmt;

use tokio::runtime::RuntimeMetrics;

use super::{Collector, Rule, Source, next_stat_id};

/// Tells how busy one runtime is.
pub struct RuntimeGauges {
    runtime_id: String,
    stat_id: String,
    metrics: RuntimeMetrics,
}

impl RuntimeGauges {
    /// Watches the runtime that `metrics` is from ([`tokio::runtime::Handle::metrics`]); `runtime_id` is `main` or
    /// `worker-<n>`.
    pub fn new(runtime_id: impl Into<String>, metrics: RuntimeMetrics) -> Self {
        Self {
            runtime_id: runtime_id.into(),
            stat_id: next_stat_id(),
            metrics,
        }
    }
}

impl Source for RuntimeGauges {
    fn collect(&self, out: &mut Collector<'_>) {
        let mut object = out.object(&[("stat_id", &self.stat_id), ("runtime_id", &self.runtime_id)]);
        let alive = self.metrics.num_alive_tasks();
        object.gauge("runtime.tokio.alive_tasks", Rule::Always, &[], alive);
        let queued = self.metrics.global_queue_depth();
        object.gauge("runtime.tokio.global_queue_depth", Rule::Always, &[], queued);
    }
}

impl fmt::Debug for RuntimeGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuntimeGauges({})", self.runtime_id)
    }
}
