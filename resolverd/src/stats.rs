//! The counters of one resolver, and how they are told.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use sluice_telemetry::metrics::{Collector, Counter, Rule, Source, next_stat_id};
use sluice_wire::dns::{Family, ResolveError};

use crate::resolver::{Memory, Resolver};

/// Counters of both record types.
pub(crate) struct Stats {
    id: String,
    families: [FamilyStats; 2],
}

#[derive(Default)]
struct FamilyStats {
    total: Counter,
    cached: Counter,
    trashed: Counter,
    driver: Counter,
    /// By failure, in the order of [`ResolveError::ALL`].
    errors: [Counter; ResolveError::ALL.len()],
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            id: next_stat_id(),
            families: Default::default(),
        }
    }
}

impl Stats {
    fn of(&self, family: Family) -> &FamilyStats {
        match family {
            Family::V4 => &self.families[0],
            Family::V6 => &self.families[1],
        }
    }

    pub(crate) fn count_total(&self, family: Family) {
        self.of(family).total.add(1);
    }

    pub(crate) fn count_cached(&self, family: Family) {
        self.of(family).cached.add(1);
    }

    pub(crate) fn count_trashed(&self, family: Family) {
        self.of(family).trashed.add(1);
    }

    pub(crate) fn count_driver(&self, family: Family) {
        self.of(family).driver.add(1);
    }

    pub(crate) fn count_error(&self, family: Family, error: ResolveError) {
        if let Some(at) = ResolveError::ALL.iter().position(|known| *known == error) {
            self.of(family).errors[at].add(1);
        }
    }
}

impl FamilyStats {
    /// All failures that one metric counts.
    fn errors_of(&self, metric: &str) -> u64 {
        let errors = ResolveError::ALL.iter().zip(&self.errors);
        errors
            .filter(|(error, _)| error.row().metric == Some(metric))
            .map(|(_, counter)| counter.get())
            .sum()
    }
}

/// The metrics below `resolver.query.` that count failures.
const ERROR_METRICS: [(&str, &str); 7] = [
    ("driver.timeout", "resolver.query.driver.timeout"),
    ("driver.refused", "resolver.query.driver.refused"),
    ("driver.malformed", "resolver.query.driver.malformed"),
    ("server.refused", "resolver.query.server.refused"),
    ("server.malformed", "resolver.query.server.malformed"),
    ("server.not_found", "resolver.query.server.not_found"),
    ("server.serv_fail", "resolver.query.server.serv_fail"),
];

/// Tells the numbers of one resolver as long as it is there.
pub(crate) struct ResolverSource {
    pub(crate) name: Arc<str>,
    pub(crate) memory: Arc<Memory>,
    /// The one that has the memory now.
    pub(crate) resolver: Arc<Mutex<Weak<Resolver>>>,
}

impl Source for ResolverSource {
    fn collect(&self, out: &mut Collector<'_>) {
        let stats = &self.memory.stats;
        let mut object = out.object(&[("resolver", &self.name), ("stat_id", &stats.id)]);
        for family in Family::ALL {
            let tags = [("rr_type", family.record_name())];
            let numbers = stats.of(family);
            let total = numbers.total.get();
            object.counter("resolver.query.total", Rule::Set { lead: total }, &tags, total);
            object.counter("resolver.query.cached", Rule::NonZero, &tags, numbers.cached.get());
            object.counter("resolver.query.trashed", Rule::NonZero, &tags, numbers.trashed.get());
            object.counter(
                "resolver.query.driver.total",
                Rule::NonZero,
                &tags,
                numbers.driver.get(),
            );
            for (metric, name) in ERROR_METRICS {
                object.counter(name, Rule::NonZero, &tags, numbers.errors_of(metric));
            }
        }
        let (cache, trash, allocated) = {
            let table = self.memory.table();
            (table.fresh(), table.trash(), table.allocated())
        };
        object.gauge("resolver.memory.cache.capacity", Rule::Always, &[], allocated);
        object.gauge("resolver.memory.cache.length", Rule::Always, &[], cache);
        let current = self.resolver.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        let (doing, doing_capacity) = current.map_or((0, 0), |resolver| resolver.doing());
        object.gauge("resolver.memory.doing.capacity", Rule::Always, &[], doing_capacity);
        object.gauge("resolver.memory.doing.length", Rule::Always, &[], doing);
        object.gauge("resolver.memory.trash.capacity", Rule::Always, &[], allocated);
        object.gauge("resolver.memory.trash.length", Rule::Always, &[], trash);
    }
}
