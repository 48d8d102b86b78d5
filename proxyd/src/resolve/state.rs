//! What is known, what is awaited, and how the peer is doing. No I/O, no clock: the time is passed in.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasher,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use sluice_wire::dns::{Family, Origin, Query, Reply, ResolveError, put_query};
use tokio::{sync::oneshot, time::Instant};

use super::wire::{Retried, ask_over_tcp};
use super::{
    Answer, Condition, Options, Source, ZoneStats,
    cache::{Cache, Found, Key, Value},
};
use crate::peer::{Asks, Flight, Flights};

/// The most addresses that are kept of one answer.
const MAX_ADDRESSES: usize = 128;

/// The longest time an answer is fresh here; resolverd keeps its own, a long one of another server is asked for again.
const MAX_FRESH: Duration = Duration::from_secs(3600);

/// The longest time it is taken for granted that a name does not exist or has no address.
const MAX_NEGATIVE: Duration = Duration::from_secs(300);

type Outcome = Result<Answer, ResolveError>;

/// The state of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Broken or refused; tried again with growing pauses.
    Down {
        /// Since when.
        since: Instant,
    },
    /// Not needed yet, or closed by the peer between two queries.
    Idle,
    /// Queries are sent and answered.
    Up,
}

/// How a lookup goes on.
pub(super) enum Begun {
    /// Over already.
    Known(Outcome),
    /// Over already, but there is a query to send so that the next one gets a better answer.
    KnownRefreshing(Outcome),
    /// The answer will come through `receiver`; if it takes too long, `stale` will do.
    Awaited {
        receiver: oneshot::Receiver<Outcome>,
        stale: Option<Value>,
    },
}

pub(crate) struct State {
    cache: Cache,
    zones: HashMap<Arc<str>, u32>,
    stats: Vec<(Arc<str>, Arc<ZoneStats>)>,
    flights: Flights<Self>,
    /// Queries whose answers did not fit in a packet.
    truncated: VecDeque<u16>,
    ids: Ids,
    link: Link,
    last_error: Option<String>,
    origin: Origin,
    options: Options,
}

/// What is asked: the resolver's number, the kind of address, the name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    zone: u32,
    family: Family,
    domain: Arc<str>,
}

impl Name {
    fn key(&self) -> Key<'_> {
        Key {
            zone: self.zone,
            domain: &self.domain,
            family: self.family,
        }
    }
}

impl State {
    pub(super) fn new(options: &Options, origin: Origin, datagrams: bool) -> Self {
        Self {
            cache: Cache::new(options.capacity, options.stale_for),
            zones: HashMap::new(),
            stats: Vec::new(),
            flights: Flights::new(datagrams),
            truncated: VecDeque::new(),
            ids: Ids::default(),
            link: Link::Idle,
            last_error: None,
            origin,
            options: *options,
        }
    }

    /// Answers a lookup, or puts it among those who wait.
    pub(super) fn begin(
        &mut self,
        resolver: &str,
        domain: &str,
        family: Family,
        now: Instant,
    ) -> Result<Begun, ResolveError> {
        let zone = self.zone(resolver);
        let key = Key { zone, domain, family };
        let stale = match self.cache.look(&key, now) {
            Found::Fresh(value) => return Ok(Begun::Known(self.known(&key, value, Source::Cache))),
            Found::Stale { value, settled: true } => {
                return Ok(Begun::Known(self.known(&key, value, Source::Stale)));
            }
            Found::Stale { value, .. } if matches!(self.link, Link::Down { .. }) => {
                self.cache.settle(&key, now + self.options.recheck);
                let refreshing = self.flight(&key, now).is_ok(); // if there are too many already, later
                let known = self.known(&key, value, Source::Stale);
                return Ok(if refreshing {
                    Begun::KnownRefreshing(known)
                } else {
                    Begun::Known(known)
                });
            }
            Found::Stale { value, .. } => Some(value),
            Found::Missing => None,
        };
        let receiver = self.flight(&key, now)?.join();
        Ok(Begun::Awaited { receiver, stale })
    }

    /// The flight for a name, a new one if there is none.
    fn flight(&mut self, key: &Key<'_>, now: Instant) -> Result<&mut Flight<Self>, ResolveError> {
        let name = Name {
            zone: key.zone,
            family: key.family,
            domain: key.domain.into(),
        };
        match self.flights.id_of(&name) {
            Some(id) => self.flights.get_mut(id).ok_or(ResolveError::Internal),
            None => self.start(name, now),
        }
    }

    fn start(&mut self, name: Name, now: Instant) -> Result<&mut Flight<Self>, ResolveError> {
        if self.flights.is_full() {
            return Err(ResolveError::Internal);
        }
        let id = self.ids.draw(|id| self.flights.has(id));
        let message = put_query(&Query {
            id,
            domain: &name.domain,
            family: name.family,
            resolver: match self.origin {
                Origin::Resolverd => Some(&*self.stats[name.zone as usize].0),
                Origin::Server => None,
            },
        })?;
        let deadline = now + self.options.deadline;
        Ok(self.flights.begin(id, name, message.into(), deadline))
    }

    fn zone(&mut self, resolver: &str) -> u32 {
        if let Some(&zone) = self.zones.get(resolver) {
            return zone;
        }
        let name: Arc<str> = resolver.into();
        let zone = u32::try_from(self.stats.len()).unwrap_or(u32::MAX);
        self.stats.push((Arc::clone(&name), Arc::default()));
        self.zones.insert(name, zone);
        zone
    }

    /// Counts and hands out what the table says.
    fn known(&self, key: &Key<'_>, value: Value, source: Source) -> Outcome {
        self.stats[key.zone as usize].1.count(key.family, source);
        value.map(|addresses| Answer { addresses, source })
    }

    /// A lookup takes its stale answer, and the next ones shall not wait for a while.
    pub(super) fn give_up_waiting(&mut self, resolver: &str, domain: &str, family: Family, stale: Value) -> Outcome {
        let zone = self.zone(resolver);
        let key = Key { zone, domain, family };
        self.cache.settle(&key, Instant::now() + self.options.recheck);
        self.known(&key, stale, Source::Stale)
    }

    /// Why a lookup has waited in vain.
    pub(super) fn timed_out(&self) -> ResolveError {
        match (&self.link, self.origin) {
            (Link::Down { .. }, Origin::Resolverd) => ResolveError::NoResolverRunning,
            (Link::Down { .. }, Origin::Server) => ResolveError::ConnectionRefused,
            (_, Origin::Resolverd) => ResolveError::DriverTimedOut,
            (_, Origin::Server) => ResolveError::Timeout,
        }
    }

    /// Whether `reply` answers a query that we sent.
    fn expects(&self, reply: &Reply) -> bool {
        self.flights
            .get(reply.id())
            .is_some_and(|flight| flight.was_sent() && reply.is_about(&flight.key.domain, flight.key.family))
    }

    /// Ends the flight that `reply` answers.
    fn settle(&mut self, reply: &Reply, now: Instant) {
        self.link = Link::Up;
        if !self.expects(reply) {
            self.failed(reply.id(), ResolveError::BadResponse, now);
            return;
        }
        let Some(mut flight) = self.flights.land(reply.id()) else {
            return;
        };
        let (value, ttl) = match reply.answer(self.origin) {
            Ok(mut answer) => {
                answer.addresses.truncate(MAX_ADDRESSES);
                let limit = if answer.addresses.is_empty() {
                    MAX_NEGATIVE
                } else {
                    MAX_FRESH
                };
                (Ok(Arc::<[IpAddr]>::from(answer.addresses)), lasting(answer.ttl, limit))
            }
            Err(error @ ResolveError::NotFound) => (Err(error), lasting(reply.negative_ttl(), MAX_NEGATIVE)),
            Err(error) => {
                self.fail(flight, error, now);
                return;
            }
        };
        if !ttl.is_zero() {
            self.cache.put(&flight.key.key(), value.clone(), ttl, now);
        }
        flight.tell(&value.map(|addresses| Answer {
            addresses,
            source: Source::Peer,
        }));
    }

    /// Ends the flight `id` without an answer, if it is still awaited.
    fn failed(&mut self, id: u16, error: ResolveError, now: Instant) {
        if self.flights.get(id).is_some_and(Flight::was_sent)
            && let Some(flight) = self.flights.land(id)
        {
            self.fail(flight, error, now);
        }
    }

    /// Tells those who wait a stale answer rather than the failure.
    fn fail(&mut self, mut flight: Flight<Self>, error: ResolveError, now: Instant) {
        let outcome = self.stale(&flight.key, flight.waiters(), now);
        flight.tell(&outcome.unwrap_or(Err(error)));
    }

    /// The stale answer, if there is one, counted for each who waits for it.
    fn stale(&mut self, name: &Name, waiters: usize, now: Instant) -> Option<Outcome> {
        let key = name.key();
        let value = self.cache.usable(&key, now)?;
        self.cache.settle(&key, now + self.options.recheck);
        for _ in 0..waiters {
            self.stats[name.zone as usize].1.count(name.family, Source::Stale);
        }
        Some(value.map(|addresses| Answer {
            addresses,
            source: Source::Stale,
        }))
    }

    /// Ends a flight at its deadline; who joined it later goes on with a new one.
    fn expire(&mut self, id: u16, now: Instant) {
        let Some(mut flight) = self.flights.land(id) else {
            return;
        };
        if !flight.forget_gone() {
            return;
        }
        match self.flight(&flight.key.key(), now) {
            Ok(next) => flight.hand_over(next),
            Err(error) => flight.tell(&Err(error)),
        }
    }

    pub(super) fn condition(&self) -> Condition {
        Condition {
            link: self.link.clone(),
            last_error: self.last_error.clone(),
            in_flight: self.flights.len(),
            cached: self.cache.len(),
        }
    }

    pub(super) fn stats(&self) -> Vec<(Arc<str>, Arc<ZoneStats>)> {
        self.stats.clone()
    }
}

impl Asks for State {
    type Id = u16;
    type Key = Name;
    type Outcome = Outcome;
    type Detour = Pin<Box<dyn Future<Output = Retried> + Send>>;
    type Detoured = Retried;

    fn flights(&mut self) -> &mut Flights<Self> {
        &mut self.flights
    }

    fn answered(&mut self, answer: Self::Answer, now: Instant) -> bool {
        match answer {
            Ok(reply) if self.flights.is_datagrams() => {
                if !self.expects(&reply) {
                    return false;
                }
                if reply.is_truncated() {
                    self.truncated.push_back(reply.id());
                } else {
                    self.settle(&reply, now);
                }
            }
            Ok(reply) => self.settle(&reply, now),
            Err(id) => self.failed(id, ResolveError::BadResponse, now),
        }
        true
    }

    fn connected(&mut self) {
        if !self.flights.is_datagrams() {
            self.link = Link::Up;
        }
    }

    /// Whoever can live with a stale answer gets it now, the others wait.
    fn disconnected(&mut self, reason: &str, now: Instant) {
        if !matches!(self.link, Link::Down { .. }) {
            self.link = Link::Down { since: now };
        }
        self.last_error = Some(reason.to_owned());
        for id in self.flights.ids() {
            let awaited = self.flights.get(id).filter(|flight| flight.waiters() > 0);
            let Some((name, waiters)) = awaited.map(|flight| (flight.key.clone(), flight.waiters())) else {
                continue;
            };
            if let Some(outcome) = self.stale(&name, waiters, now)
                && let Some(flight) = self.flights.get_mut(id)
            {
                flight.tell(&outcome);
            }
        }
    }

    fn closed_idle(&mut self) {
        self.link = Link::Idle;
    }

    fn tick(&mut self, now: Instant) {
        for id in self.flights.late(now) {
            self.expire(id, now);
        }
    }

    fn detour(&mut self, address: SocketAddr) -> Option<Self::Detour> {
        while let Some(id) = self.truncated.pop_front() {
            if let Some(query) = self.flights.divert(id) {
                return Some(Box::pin(ask_over_tcp(address, id, query)));
            }
        }
        None
    }

    fn detoured(&mut self, (id, result): Retried, now: Instant) {
        match result {
            Ok(reply) => self.settle(&reply, now),
            Err(error) => self.failed(id, error, now),
        }
    }
}

/// How long an answer of this TTL is kept.
fn lasting(ttl: Option<u32>, limit: Duration) -> Duration {
    Duration::from_secs(ttl.unwrap_or(0).into()).min(limit)
}

/// Unpredictable query ids: a counter under a keyed hash, so that nobody can forge a UDP reply by guessing.
#[derive(Debug, Default)]
struct Ids {
    key: std::hash::RandomState,
    counter: u64,
}

impl Ids {
    /// An id that is not `taken`; there must be one.
    fn draw(&mut self, taken: impl Fn(u16) -> bool) -> u16 {
        loop {
            self.counter = self.counter.wrapping_add(1);
            let [low, high, ..] = self.key.hash_one(self.counter).to_le_bytes();
            let id = u16::from_le_bytes([low, high]);
            if !taken(id) {
                return id;
            }
        }
    }
}
