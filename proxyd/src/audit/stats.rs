//! What auditors count. It belongs to their names and outlives reloads.

use std::sync::Arc;

use sluice_sniff::Protocol;
use sluice_telemetry::metrics::{Collector, Counter, Registration, Registry, Rule, Shards, Source, next_stat_id};

use super::inspect::Found;
use super::obstacle::Obstacle;

/// The counters of an auditor.
pub(crate) struct AuditorStats {
    name: Arc<str>,
    stat_id: String,
    shards: Shards<Counters>,
}

/// Counters that are registered with the metrics as long as this is held.
#[derive(Clone)]
pub(crate) struct Registered {
    stats: Arc<AuditorStats>,
    _registration: Arc<Registration>,
}

/// What one worker counts.
#[derive(Default)]
struct Counters {
    found: [Count; KINDS],
    /// By [`Obstacle`]: those that were met, and streams that passed for them.
    obstacles: [Counter; Obstacle::ALL.len()],
    bypassed: [Counter; Obstacle::ALL.len()],
}

#[derive(Default)]
struct Count {
    all: Counter,
    blocked: Counter,
}

/// The protocols, and two names for what is none.
const KINDS: usize = Protocol::ALL.len() + 2;

impl Registered {
    /// New ones.
    pub(crate) fn new(name: &str, registry: &Registry) -> Self {
        let stats = Arc::new(AuditorStats {
            name: name.into(),
            stat_id: next_stat_id(),
            shards: Shards::default(),
        });
        Self {
            _registration: Arc::new(registry.register(Arc::clone(&stats) as _)),
            stats,
        }
    }

    /// A layer is found to be this.
    pub(super) fn found(&self, found: Found) {
        self.mine(found).all.add(1);
    }

    /// A layer is refused for what it is.
    pub(super) fn blocked(&self, found: Found) {
        self.mine(found).blocked.add(1);
    }

    /// This stands against an interception.
    pub(super) fn met(&self, obstacle: Obstacle) {
        self.stats.shards.mine().obstacles[obstacle as usize].add(1);
    }

    /// A TLS stream passes untouched for this.
    pub(super) fn bypassed(&self, obstacle: Obstacle) {
        self.stats.shards.mine().bypassed[obstacle as usize].add(1);
    }

    fn mine(&self, found: Found) -> &Count {
        let known = Protocol::ALL.len();
        let at = match found {
            Found::Known(protocol) => protocol as usize,
            Found::Timeout => known,
            Found::Unknown => known + 1,
        };
        &self.stats.shards.mine().found[at]
    }
}

impl Source for AuditorStats {
    fn collect(&self, out: &mut Collector<'_>) {
        let mut object = out.object(&[("auditor", &*self.name), ("stat_id", &self.stat_id)]);
        let known = Protocol::ALL.iter().copied().map(Found::Known);
        for (at, found) in known.chain([Found::Timeout, Found::Unknown]).enumerate() {
            let tags = [("protocol", found.name())];
            let sum = |counter: fn(&Count) -> &Counter| self.shards.sum(|shard| counter(&shard.found[at]).get());
            object.counter("auditor.inspect.total", Rule::NonZero, &tags, sum(|count| &count.all));
            object.counter(
                "auditor.inspect.blocked",
                Rule::NonZero,
                &tags,
                sum(|count| &count.blocked),
            );
        }
        for obstacle in Obstacle::ALL {
            let tags = [("reason", obstacle.as_str())];
            let sum = |of: fn(&Counters) -> &[Counter]| self.shards.sum(|shard| of(shard)[obstacle as usize].get());
            object.counter(
                "auditor.tls.obstacle",
                Rule::NonZero,
                &tags,
                sum(|shard| &shard.obstacles),
            );
            object.counter("auditor.tls.bypass", Rule::NonZero, &tags, sum(|shard| &shard.bypassed));
        }
    }
}
