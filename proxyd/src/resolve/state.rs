//! What is known, what is awaited, and how the peer is doing. No I/O, no clock: the time is passed in.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasher,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use sluice_wire::dns::{Family, Origin, Query, Reply, ResolveError, put_query};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Answer, Condition, Options, Source, ZoneStats,
    cache::{Cache, Found, Key, Value},
};

/// The most queries that await an answer at a time; ids stay sparse, so that a free one is found at once.
const MAX_IN_FLIGHT: usize = 4096;

/// The most addresses that are kept of one answer.
const MAX_ADDRESSES: usize = 128;

/// The longest time an answer is fresh here; resolverd keeps its own, a long one of another server is asked for again.
const MAX_FRESH: Duration = Duration::from_secs(3600);

/// The longest time it is taken for granted that a name does not exist or has no address.
const MAX_NEGATIVE: Duration = Duration::from_secs(300);

/// How long a query over UDP waits before it is sent again; doubled each time.
const FIRST_RESEND: Duration = Duration::from_secs(1);

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

pub(super) struct State {
    cache: Cache,
    zones: HashMap<Arc<str>, u32>,
    stats: Vec<(Arc<str>, Arc<ZoneStats>)>,
    flights: HashMap<u16, Flight>,
    by_name: HashMap<(u32, Family, Arc<str>), u16>,
    unsent: VecDeque<u16>,
    ids: Ids,
    link: Link,
    last_error: Option<String>,
    origin: Origin,
    options: Options,
}

/// One query and everybody who waits for its answer.
struct Flight {
    zone: u32,
    domain: Arc<str>,
    family: Family,
    message: Vec<u8>,
    waiters: Vec<oneshot::Sender<Outcome>>,
    deadline: Instant,
    sent: bool,
    resend: Option<(Instant, Duration)>,
}

impl Flight {
    fn key(&self) -> Key<'_> {
        Key {
            zone: self.zone,
            domain: &self.domain,
            family: self.family,
        }
    }

    fn tell(&mut self, outcome: &Outcome) {
        for waiter in self.waiters.drain(..) {
            let _ = waiter.send(outcome.clone()); // it may have stopped waiting
        }
    }
}

impl State {
    pub(super) fn new(options: &Options, origin: Origin) -> Self {
        Self {
            cache: Cache::new(options.capacity, options.stale_for),
            zones: HashMap::new(),
            stats: Vec::new(),
            flights: HashMap::new(),
            by_name: HashMap::new(),
            unsent: VecDeque::new(),
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
        let (sender, receiver) = oneshot::channel();
        self.flight(&key, now)?.waiters.push(sender);
        Ok(Begun::Awaited { receiver, stale })
    }

    /// The flight for a name, a new one if there is none.
    fn flight(&mut self, key: &Key<'_>, now: Instant) -> Result<&mut Flight, ResolveError> {
        let name = (key.zone, key.family, Arc::from(key.domain));
        let id = match self.by_name.get(&name) {
            Some(&id) => id,
            None => {
                let id = self.start(key, Arc::clone(&name.2), now)?;
                self.by_name.insert(name, id);
                id
            }
        };
        self.flights.get_mut(&id).ok_or(ResolveError::Internal)
    }

    fn start(&mut self, key: &Key<'_>, domain: Arc<str>, now: Instant) -> Result<u16, ResolveError> {
        if self.flights.len() >= MAX_IN_FLIGHT {
            return Err(ResolveError::Internal);
        }
        let id = self.ids.draw(|id| self.flights.contains_key(&id));
        let message = put_query(&Query {
            id,
            domain: key.domain,
            family: key.family,
            resolver: match self.origin {
                Origin::Resolverd => Some(&*self.stats[key.zone as usize].0),
                Origin::Server => None,
            },
        })?;
        let flight = Flight {
            zone: key.zone,
            domain,
            family: key.family,
            message,
            waiters: Vec::new(),
            deadline: now + self.options.deadline,
            sent: false,
            resend: None,
        };
        self.flights.insert(id, flight);
        self.unsent.push_back(id);
        Ok(id)
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

    /// Hands the queries to send to `send`, at most `limit` of them; those sent over UDP come again if no answer does.
    pub(super) fn take_unsent(&mut self, now: Instant, datagrams: bool, limit: usize, mut send: impl FnMut(&[u8])) {
        for _ in 0..limit {
            let Some(id) = self.unsent.pop_front() else {
                return;
            };
            let Some(flight) = self.flights.get_mut(&id) else {
                continue;
            };
            flight.sent = true;
            flight.resend = datagrams.then(|| {
                let pause = flight.resend.map_or(FIRST_RESEND, |(_, pause)| pause * 2);
                (now + pause, pause)
            });
            send(&flight.message);
        }
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.flights.is_empty()
    }

    /// The query with this id, to be sent on another way.
    pub(super) fn message(&mut self, id: u16) -> Option<Vec<u8>> {
        let flight = self.flights.get_mut(&id)?;
        flight.resend = None;
        Some(flight.message.clone())
    }

    /// Whether `reply` answers a query that we sent.
    pub(super) fn expects(&self, reply: &Reply) -> bool {
        self.flights
            .get(&reply.id())
            .is_some_and(|flight| flight.sent && reply.is_about(&flight.domain, flight.family))
    }

    /// Ends the flight that `reply` answers.
    pub(super) fn answered(&mut self, reply: &Reply, now: Instant) {
        self.link = Link::Up;
        if !self.expects(reply) {
            self.failed(reply.id(), ResolveError::BadResponse, now);
            return;
        }
        let Some(mut flight) = self.land(reply.id()) else {
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
            self.cache.put(&flight.key(), value.clone(), ttl, now);
        }
        flight.tell(&value.map(|addresses| Answer {
            addresses,
            source: Source::Peer,
        }));
    }

    /// Ends the flight `id` without an answer, if it is still awaited.
    pub(super) fn failed(&mut self, id: u16, error: ResolveError, now: Instant) {
        if self.flights.get(&id).is_some_and(|flight| flight.sent)
            && let Some(flight) = self.land(id)
        {
            self.fail(flight, error, now);
        }
    }

    /// Tells those who wait a stale answer rather than the failure.
    fn fail(&mut self, mut flight: Flight, error: ResolveError, now: Instant) {
        let outcome = match self.cache.usable(&flight.key(), now) {
            Some(value) => {
                self.cache.settle(&flight.key(), now + self.options.recheck);
                self.stale_for(&flight, value)
            }
            None => Err(error),
        };
        flight.tell(&outcome);
    }

    /// The stale answer, counted for each who waits for it.
    fn stale_for(&self, flight: &Flight, value: Value) -> Outcome {
        for _ in &flight.waiters {
            self.stats[flight.zone as usize].1.count(flight.family, Source::Stale);
        }
        value.map(|addresses| Answer {
            addresses,
            source: Source::Stale,
        })
    }

    /// Takes a flight out of all tables.
    fn land(&mut self, id: u16) -> Option<Flight> {
        let flight = self.flights.remove(&id)?;
        self.by_name
            .remove(&(flight.zone, flight.family, Arc::clone(&flight.domain)));
        Some(flight)
    }

    /// Ends what is too old, and queues again what was sent over UDP and got no answer.
    pub(super) fn tick(&mut self, now: Instant) {
        let (late, again): (Vec<u16>, Vec<u16>) = self
            .flights
            .iter()
            .filter(|(_, flight)| now >= flight.deadline || flight.resend.is_some_and(|(at, _)| now >= at))
            .map(|(&id, _)| id)
            .partition(|id| self.flights.get(id).is_some_and(|flight| now >= flight.deadline));
        for id in again {
            if let Some(flight) = self.flights.get_mut(&id)
                && let Some((at, _)) = &mut flight.resend
            {
                *at = flight.deadline; // until it is sent
                self.unsent.push_back(id);
            }
        }
        for id in late {
            self.expire(id, now);
        }
    }

    /// Ends a flight at its deadline; who joined it later goes on with a new one.
    fn expire(&mut self, id: u16, now: Instant) {
        let Some(mut flight) = self.land(id) else {
            return;
        };
        flight.waiters.retain(|waiter| !waiter.is_closed());
        if flight.waiters.is_empty() {
            return;
        }
        let waiters = std::mem::take(&mut flight.waiters);
        match self.flight(&flight.key(), now) {
            Ok(next) => next.waiters = waiters,
            Err(error) => {
                flight.waiters = waiters;
                flight.tell(&Err(error));
            }
        }
    }

    /// The connection stands.
    pub(super) fn connected(&mut self) {
        self.link = Link::Up;
    }

    /// Queues what was sent on an earlier connection, which will not be read again.
    pub(super) fn send_all_again(&mut self) {
        for (&id, flight) in &mut self.flights {
            if std::mem::take(&mut flight.sent) {
                flight.resend = None;
                self.unsent.push_back(id);
            }
        }
    }

    /// The peer closed the connection while nothing was asked of it.
    pub(super) fn closed_idle(&mut self) {
        self.link = Link::Idle;
    }

    /// The peer can not be reached: whoever can live with a stale answer gets it now, the others wait.
    pub(super) fn disconnected(&mut self, reason: String, now: Instant) {
        if !matches!(self.link, Link::Down { .. }) {
            self.link = Link::Down { since: now };
        }
        self.last_error = Some(reason);
        let ids: Vec<u16> = self.flights.keys().copied().collect();
        for id in ids {
            let Some(mut flight) = self.flights.remove(&id) else {
                continue;
            };
            if !flight.waiters.is_empty()
                && let Some(value) = self.cache.usable(&flight.key(), now)
            {
                self.cache.settle(&flight.key(), now + self.options.recheck);
                let outcome = self.stale_for(&flight, value);
                flight.tell(&outcome);
            }
            self.flights.insert(id, flight);
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
