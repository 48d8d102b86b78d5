//! The numbers of certgend, and how they are told.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sluice_config::value::HistogramMetrics;
use sluice_telemetry::metrics::{Collector, Counter, Histogram, Rule, Source, next_stat_id};
use sluice_wire::mint::ErrorCode;

/// Counters, of both doors together.
pub(crate) struct Stats {
    id: String,
    pub(crate) received: Counter,
    pub(crate) invalid: Counter,
    pub(crate) responses: Counter,
    pub(crate) responses_failed: Counter,
    pub(crate) refresh_total: Counter,
    pub(crate) refresh_ok: Counter,
    pub(crate) request_total: Counter,
    pub(crate) request_ok: Counter,
    pub(crate) request_cached: Counter,
    pub(crate) fallback: Counter,
    /// In the order of [`ErrorCode::ALL`].
    refused: [Counter; ErrorCode::ALL.len()],
    durations: Mutex<Histogram>,
}

impl Stats {
    pub(crate) fn new(durations: HistogramMetrics) -> Self {
        Self {
            id: next_stat_id(),
            received: Counter::default(),
            invalid: Counter::default(),
            responses: Counter::default(),
            responses_failed: Counter::default(),
            refresh_total: Counter::default(),
            refresh_ok: Counter::default(),
            request_total: Counter::default(),
            request_ok: Counter::default(),
            request_cached: Counter::default(),
            fallback: Counter::default(),
            refused: Default::default(),
            durations: Mutex::new(Histogram::new(durations, Instant::now())),
        }
    }

    /// Tells other quantiles from now on.
    pub(crate) fn configure(&self, durations: &HistogramMetrics) {
        self.durations().configure(durations);
    }

    /// A request was answered with a certificate after so long.
    pub(crate) fn took(&self, duration: Duration) {
        self.durations().add(duration);
    }

    /// A request was answered with an error.
    pub(crate) fn refused(&self, code: ErrorCode) {
        if let Some(counter) = ErrorCode::ALL.iter().position(|known| *known == code) {
            self.refused[counter].add(1);
        }
    }

    fn durations(&self) -> std::sync::MutexGuard<'_, Histogram> {
        self.durations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the numbers.
pub(crate) struct StatsSource(pub(crate) Arc<Stats>);

impl Source for StatsSource {
    fn collect(&self, out: &mut Collector<'_>) {
        let stats = &self.0;
        let mut object = out.object(&[("stat_id", &stats.id)]);
        let lead = stats.received.get();
        for (name, counter) in [
            ("frontend.request_total", &stats.received),
            ("frontend.request_invalid", &stats.invalid),
            ("frontend.response_total", &stats.responses),
            ("frontend.response_fail", &stats.responses_failed),
            ("backend.refresh_total", &stats.refresh_total),
            ("backend.refresh_ok", &stats.refresh_ok),
            ("backend.request_total", &stats.request_total),
            ("backend.request_ok", &stats.request_ok),
            ("backend.request_cached", &stats.request_cached),
            ("backend.request_fallback", &stats.fallback),
        ] {
            object.counter(name, Rule::Set { lead }, &[], counter.get());
        }
        for (code, counter) in ErrorCode::ALL.iter().zip(&stats.refused) {
            let tags = [("reason", code.name())];
            object.counter("backend.request_refused", Rule::NonZero, &tags, counter.get());
        }
        let mut durations = stats.durations();
        let quantiles = durations.config().quantile.clone();
        if let Some(told) = durations.tell(Instant::now()) {
            let named = [("min", told.min), ("max", told.max), ("mean", told.mean)].into_iter();
            let quantiles = quantiles
                .iter()
                .map(|quantile| &*quantile.tag)
                .zip(told.quantiles.iter().copied());
            for (tag, value) in named.chain(quantiles) {
                object.gauge("backend.request_duration", Rule::Always, &[("quantile", tag)], value);
            }
        }
    }
}
