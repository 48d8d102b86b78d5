//! All resolvers of the configuration, and how a reload makes them anew.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use anyhow::Context as _;
use sluice_config::Entry;
use sluice_lifecycle::Tasks;
use sluice_telemetry::{EventLogs, LogKind, metrics};

use crate::{
    kind::ResolverConfig,
    resolver::{Parts, Resolver},
    stats::ResolverSource,
};

/// What resolvers are built with.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) tasks: Tasks,
    pub(crate) logs: EventLogs,
    pub(crate) metrics: metrics::Registry,
}

/// A resolver, and its numbers' place in the metrics, which goes with its memory.
#[derive(Clone)]
struct Slot {
    resolver: Arc<Resolver>,
    source: Arc<Told>,
}

/// Keeps a resolver's numbers told.
struct Told {
    current: Arc<Mutex<Weak<Resolver>>>,
    _registration: metrics::Registration,
}

/// The resolvers by name; never changed, a reload makes another set.
#[derive(Default)]
pub(crate) struct Resolvers {
    by_name: BTreeMap<Arc<str>, Slot>,
}

impl Resolvers {
    /// Builds all resolvers of a checked configuration, taking over from `old` what holds still:
    ///
    /// - one whose configuration and children are the same goes on as it is;
    /// - one whose own configuration changed starts anew with what it has learnt;
    /// - one of another kind, or with other children, starts from nothing.
    ///
    /// # Errors
    /// What a resolver lacks, with its name; `old` goes on untouched.
    pub(crate) fn build(entries: &[Entry<ResolverConfig>], old: &Self, workshop: &Workshop) -> anyhow::Result<Self> {
        let mut built = Self::default();
        // children first: each round builds those whose children are there; loops were refused at load
        let mut waiting: Vec<&Entry<ResolverConfig>> = entries.iter().collect();
        while !waiting.is_empty() {
            let (ready, later): (Vec<_>, Vec<_>) = waiting
                .iter()
                .partition(|entry| children(&entry.value).iter().all(|child| built.find(child).is_some()));
            let Some(_) = ready.first() else {
                anyhow::bail!("resolvers refer to each other in a loop");
            };
            for entry in ready {
                let slot = built
                    .make(entry, old, workshop)
                    .with_context(|| format!("resolver `{}`", entry.name))?;
                built.by_name.insert(Arc::clone(&slot.resolver.name), slot);
            }
            waiting = later;
        }
        Ok(built)
    }

    fn make(&self, entry: &Entry<ResolverConfig>, old: &Self, workshop: &Workshop) -> anyhow::Result<Slot> {
        let earlier = old.by_name.get(entry.name.as_str());
        let same_kind = earlier.filter(|slot| slot.resolver.config.kind() == entry.value.kind());
        let kept = same_kind.filter(|slot| self.has_same_children(&slot.resolver, &entry.value));
        if let Some(slot) = kept
            && slot.resolver.config == entry.value
            && !entry.value.reads_files()
        {
            return Ok(slot.clone());
        }
        let parts = Parts {
            name: &entry.name,
            base: entry.place.base_dir(),
            tasks: &workshop.tasks,
            logger: workshop.logs.logger(LogKind::Resolve, &format!("lr-{}", entry.name)),
            memory: kept.map(|slot| Arc::clone(&slot.resolver.memory)),
        };
        let resolver = Arc::new(Resolver::new(&entry.value, parts, |name| {
            self.find(name).map(Arc::clone)
        })?);
        let source = match kept {
            Some(slot) => Arc::clone(&slot.source),
            None => Arc::new(tell(&resolver, &workshop.metrics)),
        };
        Ok(Slot { resolver, source })
    }

    /// Whether a resolver asks the very resolvers that its new configuration names.
    fn has_same_children(&self, resolver: &Resolver, config: &ResolverConfig) -> bool {
        let new = children(config);
        let old: Vec<_> = resolver.children().collect();
        old.len() == new.len()
            && old
                .iter()
                .zip(new)
                .all(|(old, new)| self.find(new).is_some_and(|new| Arc::ptr_eq(old, new)))
    }

    /// Puts this set in charge of the metrics and sends those of `old` that are not in it into retirement.
    pub(crate) fn take_over_from(&self, old: &Self, background: &Tasks) {
        for slot in self.by_name.values() {
            *slot.source.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&slot.resolver);
        }
        for (name, slot) in &old.by_name {
            if !self
                .find(name)
                .is_some_and(|resolver| Arc::ptr_eq(resolver, &slot.resolver))
            {
                slot.resolver.retire(background);
            }
        }
    }

    /// The resolver of this name.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Resolver>> {
        self.by_name.get(name).map(|slot| &slot.resolver)
    }

    /// All of them, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Resolver>> {
        self.by_name.values().map(|slot| &slot.resolver)
    }
}

fn tell(resolver: &Arc<Resolver>, registry: &metrics::Registry) -> Told {
    let current = Arc::new(Mutex::new(Arc::downgrade(resolver)));
    let source = ResolverSource {
        name: Arc::clone(&resolver.name),
        memory: Arc::clone(&resolver.memory),
        resolver: Arc::clone(&current),
    };
    Told {
        current,
        _registration: registry.register(Arc::new(source)),
    }
}

/// The names that a resolver refers to.
pub(crate) fn children(config: &ResolverConfig) -> Vec<&str> {
    match config {
        ResolverConfig::FailOver(pair) => vec![pair.primary.as_str(), pair.standby.as_str()],
        ResolverConfig::CAres(_) | ResolverConfig::DenyAll(_) | ResolverConfig::Hickory(_) => Vec::new(),
    }
}
