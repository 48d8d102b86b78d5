//! Names answered from proxyd's own table, added to resolverd's counters under a `stat_id` of our own.

use sluice_telemetry::metrics::{Collector, Rule, Source, next_stat_id};
use std::sync::atomic::Ordering;

use crate::resolve::{Family, Resolver};

/// The cache hits of one worker's resolver client.
pub(crate) struct CacheHits {
    resolver: Resolver,
    stat_id: String,
}

impl CacheHits {
    pub(crate) fn new(resolver: &Resolver) -> Self {
        Self {
            resolver: resolver.clone(),
            stat_id: next_stat_id(),
        }
    }
}

impl Source for CacheHits {
    fn collect(&self, out: &mut Collector<'_>) {
        for (name, hits) in self.resolver.stats() {
            for family in Family::ALL {
                let tags = [
                    ("resolver", &*name),
                    ("stat_id", &*self.stat_id),
                    ("rr_type", family.record_name()),
                ];
                let cached = hits.cached[family as usize].load(Ordering::Relaxed);
                let trashed = hits.trashed[family as usize].load(Ordering::Relaxed);
                let mut object = out.object(&tags);
                let set = Rule::Set { lead: cached + trashed };
                object.counter("resolver.query.total", set, &[], cached + trashed);
                object.counter("resolver.query.cached", Rule::NonZero, &[], cached);
                object.counter("resolver.query.trashed", Rule::NonZero, &[], trashed);
            }
        }
    }
}
