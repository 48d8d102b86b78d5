//! One resolver as it runs: its answers, the queries that are under way, its counters and its log.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use sluice_lifecycle::Tasks;
use sluice_telemetry::EventLogger;
use sluice_wire::dns::{Family, ResolveError, check_domain};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::{
    cache::{CAPACITY, Failure, Lifetime, Look, Outcome, Table},
    kind::{
        BuildError, Common, ResolverConfig, Servers,
        fail_over::{FailOver, FailOverConfig},
    },
    record::Failed,
    stats::Stats,
    stub::Condition,
};

/// The most names that one resolver asks for at a time.
const MAX_DOING: usize = 4096;

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// An answer within its time.
    Cache,
    /// A query of just now.
    Query,
    /// An answer past its time.
    Trash,
}

impl Source {
    /// The name in logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Query => "query",
            Self::Trash => "trash",
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) outcome: Outcome,
    pub(crate) source: Source,
    /// How long it stays fresh.
    pub(crate) left: Duration,
}

impl Resolved {
    pub(crate) fn failed(failure: impl Into<Failure>) -> Self {
        Self {
            outcome: Err(failure.into()),
            source: Source::Query,
            left: Duration::ZERO,
        }
    }
}

/// What a resolver has learnt; it outlives changes of its configuration.
pub(crate) struct Memory {
    table: Mutex<Table>,
    pub(crate) stats: Stats,
}

impl Memory {
    fn new() -> Self {
        Self {
            table: Mutex::new(Table::new(CAPACITY)),
            stats: Stats::default(),
        }
    }

    /// The answers; a panic elsewhere leaves them consistent enough to go on.
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What asks.
enum Driver {
    DenyAll,
    FailOver(FailOver),
    Servers(Servers),
}

/// A name that is being asked for.
#[derive(Default)]
struct Doing {
    waiters: Vec<oneshot::Sender<Resolved>>,
    /// What there is if the query fails.
    stale: Option<Outcome>,
}

type Name = (Box<str>, Family);

/// A resolver.
pub(crate) struct Resolver {
    pub(crate) name: Arc<str>,
    pub(crate) config: ResolverConfig,
    common: Common,
    driver: Driver,
    pub(crate) memory: Arc<Memory>,
    doing: Mutex<HashMap<Name, Doing>>,
    logger: EventLogger,
    pub(crate) log_fields: Vec<(&'static str, String)>,
    tasks: Tasks,
}

/// What a resolver is made of beside its configuration.
pub(crate) struct Parts<'a> {
    pub(crate) name: &'a str,
    /// Where relative file names start.
    pub(crate) base: &'a Path,
    pub(crate) tasks: &'a Tasks,
    pub(crate) logger: EventLogger,
    /// What an earlier resolver of this name has learnt, if it still holds.
    pub(crate) memory: Option<Arc<Memory>>,
}

impl Resolver {
    /// Makes a resolver; `children` gives those that it refers to, which are there: references were checked.
    ///
    /// # Errors
    /// [`BuildError`] if files that the configuration names are not good.
    pub(crate) fn new(
        config: &ResolverConfig,
        parts: Parts<'_>,
        children: impl Fn(&str) -> Option<Arc<Self>>,
    ) -> Result<Self, BuildError> {
        let tasks = parts.tasks.child();
        let driver = match config {
            ResolverConfig::FailOver(config) => fail_over(config, children),
            _ => {
                let servers = config.servers(parts.base, tasks.clone())?;
                servers.map_or(Driver::DenyAll, Driver::Servers)
            }
        };
        Ok(Self {
            name: parts.name.into(),
            common: config.common(),
            log_fields: config.log_fields(),
            config: config.clone(),
            driver,
            memory: parts.memory.unwrap_or_else(|| Arc::new(Memory::new())),
            doing: Mutex::default(),
            logger: parts.logger,
            tasks,
        })
    }

    /// The resolvers that it asks.
    pub(crate) fn children(&self) -> impl Iterator<Item = &Arc<Self>> {
        let pair = match &self.driver {
            Driver::FailOver(pair) => Some([&pair.primary, &pair.standby]),
            _ => None,
        };
        pair.into_iter().flatten()
    }

    /// The servers that it asks.
    pub(crate) fn upstreams(&self) -> Vec<Condition> {
        match &self.driver {
            Driver::Servers(servers) => servers.conditions(),
            _ => Vec::new(),
        }
    }

    /// Names that are being asked for, and the room for them.
    pub(crate) fn doing(&self) -> (usize, usize) {
        let doing = self.doing_table();
        (doing.len(), doing.capacity())
    }

    fn doing_table(&self) -> MutexGuard<'_, HashMap<Name, Doing>> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers what is known at once; a query for what is past its time is begun.
    ///
    /// `domain` is in lower case, without a final dot.
    pub(crate) fn known(self: &Arc<Self>, domain: &str, family: Family) -> Option<Resolved> {
        if matches!(self.driver, Driver::DenyAll) {
            self.memory.stats.count_total(family);
            return Some(Resolved::failed(ResolveError::NoResolverSet));
        }
        let look = self.memory.table().look(domain, family, Instant::now());
        let stats = &self.memory.stats;
        match look {
            Look::Fresh(outcome, left) => {
                stats.count_total(family);
                stats.count_cached(family);
                Some(Resolved {
                    outcome,
                    source: Source::Cache,
                    left,
                })
            }
            Look::Trash(outcome) => {
                stats.count_total(family);
                stats.count_trashed(family);
                let _ = self.begin(domain, family, None, Some(outcome.clone())); // if there is too much to do, later
                Some(Resolved {
                    outcome,
                    source: Source::Trash,
                    left: Duration::ZERO,
                })
            }
            Look::Missing => None,
        }
    }

    /// Answers, if need be with a query that is shared by all who ask for the same name meanwhile.
    pub(crate) async fn resolve(self: &Arc<Self>, domain: &str, family: Family) -> Resolved {
        if let Some(known) = self.known(domain, family) {
            return known;
        }
        self.memory.stats.count_total(family);
        if let Err(error) = check_domain(domain) {
            return Resolved::failed(error);
        }
        let (sender, receiver) = oneshot::channel();
        if let Err(error) = self.begin(domain, family, Some(sender), None) {
            return Resolved::failed(error);
        }
        receiver
            .await
            .unwrap_or_else(|_| Resolved::failed(ResolveError::NoResolverRunning))
    }

    /// Answers like [`Resolver::resolve`] and writes a failure to the log.
    pub(crate) async fn answer(self: &Arc<Self>, domain: &str, family: Family) -> Resolved {
        let start = Instant::now();
        let resolved = self.resolve(domain, family).await;
        self.log(domain, family, &resolved, start);
        resolved
    }

    /// Writes a failure to the log.
    pub(crate) fn log(self: &Arc<Self>, domain: &str, family: Family, resolved: &Resolved, start: Instant) {
        if let Err(failure) = &resolved.outcome
            && !matches!(self.driver, Driver::DenyAll)
            && self.logger.enabled()
        {
            self.logger.log(Failed {
                resolver: Arc::clone(self),
                domain: domain.into(),
                family,
                duration: start.elapsed(),
                source: resolved.source,
                failure: failure.clone(),
            });
        }
    }

    /// Joins those who wait for a name, or begins a query for it.
    fn begin(
        self: &Arc<Self>,
        domain: &str,
        family: Family,
        waiter: Option<oneshot::Sender<Resolved>>,
        stale: Option<Outcome>,
    ) -> Result<(), Failure> {
        let name = (Box::from(domain), family);
        let mut doing = self.doing_table();
        if let Some(entry) = doing.get_mut(&name) {
            entry.waiters.extend(waiter);
            return Ok(());
        }
        if doing.len() >= MAX_DOING {
            return Err(Failure::new(
                ResolveError::Internal,
                "too many names are being asked for",
            ));
        }
        doing.insert(
            name.clone(),
            Doing {
                waiters: waiter.into_iter().collect(),
                stale,
            },
        );
        drop(doing);
        let resolver = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = resolver.run(&name) => {}
                () = resolver.tasks.quitting() => {
                    resolver.doing_table().remove(&name);
                }
            }
        });
        Ok(())
    }

    /// One query: asks, keeps the answer, tells all who wait.
    async fn run(self: &Arc<Self>, name: &Name) {
        let (domain, family) = (&*name.0, name.1);
        self.memory.stats.count_driver(family);
        let asked = timeout(self.common.protective_query_timeout, self.ask(domain, family));
        let (resolved, lifetime) = asked.await.unwrap_or_else(|_| {
            let failure = Failure::new(ResolveError::DriverTimedOut, "the cap on one query has passed");
            (Resolved::failed(failure), self.common.ttl.negative())
        });
        if let Err(failure) = &resolved.outcome {
            self.memory.stats.count_error(family, failure.error);
        }
        let stale = self.doing_table().get(name).and_then(|doing| doing.stale.clone());
        let told = match (&resolved.outcome, stale) {
            (Err(failure), Some(stale)) if failure.error != ResolveError::NotFound => Resolved {
                outcome: stale,
                source: Source::Trash,
                left: Duration::ZERO,
            },
            _ => {
                let now = Instant::now();
                self.memory
                    .table()
                    .put(domain, family, resolved.outcome.clone(), lifetime, now);
                Resolved {
                    left: lifetime.expire,
                    ..resolved
                }
            }
        };
        let doing = self.doing_table().remove(name).unwrap_or_default();
        for waiter in doing.waiters {
            let _ = waiter.send(told.clone()); // it may have stopped waiting
        }
    }

    /// What the driver says, and how long that holds. Boxed, since a fail-over pair asks resolvers in turn.
    fn ask<'a>(&'a self, domain: &'a str, family: Family) -> BoxFuture<'a, (Resolved, Lifetime)> {
        async move {
            match &self.driver {
                Driver::DenyAll => (
                    Resolved::failed(ResolveError::NoResolverSet),
                    self.common.ttl.negative(),
                ),
                Driver::FailOver(pair) => pair.query(domain, family).await,
                Driver::Servers(servers) => {
                    let (outcome, lifetime) = match servers.query(domain, family).await {
                        Ok(found) if found.addresses.is_empty() => (Ok([].into()), self.common.ttl.negative()),
                        Ok(found) => {
                            let addresses: Arc<[IpAddr]> = found.addresses.into();
                            (Ok(addresses), self.common.ttl.positive(found.ttl))
                        }
                        Err(failure) => (Err(failure), self.common.ttl.negative()),
                    };
                    (
                        Resolved {
                            outcome,
                            source: Source::Query,
                            left: lifetime.expire,
                        },
                        lifetime,
                    )
                }
            }
        }
        .boxed()
    }

    /// Ends its tasks once its queries are done, or after the configured wait.
    pub(crate) fn retire(&self, background: &Tasks) {
        let tasks = self.tasks.clone();
        let wait = self.common.graceful_stop_wait;
        let outer = background.clone();
        background.spawn(async move {
            tokio::select! {
                _ = tasks.wait(wait) => {}
                () = outer.quitting() => {}
            }
            tasks.quit();
        });
    }
}

/// The pair's resolvers; a missing one leaves a driver that refuses, which checked references do not let happen.
fn fail_over(config: &FailOverConfig, children: impl Fn(&str) -> Option<Arc<Resolver>>) -> Driver {
    match (children(config.primary.as_str()), children(config.standby.as_str())) {
        (Some(primary), Some(standby)) => Driver::FailOver(FailOver::new(config, primary, standby)),
        _ => Driver::DenyAll,
    }
}
