//! Which leaves there are, which are awaited, and how the generator is doing. No I/O, no clock: the time is passed in.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use foldhash::quality::RandomState;
use sluice_tls::intercept::{Leaf, LeafKey};
use sluice_wire::mint::{
    Certificate, ErrorCode, Form, MAX_DATAGRAM, MintError, MintRequest, MintResponse, PrivateKey, put_request,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Condition, Key, MintFailure, Options, Probe};
use crate::audit::table::Table;

/// The most requests that await an answer at a time.
const MAX_IN_FLIGHT: usize = 4096;

/// How long a request in a datagram waits before it is sent again; doubled each time.
const FIRST_RESEND: Duration = Duration::from_secs(1);

/// How long a generator may be away before nobody waits for it any more.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long one waits for a generator that has been silent when others waited.
const SILENT_WAIT: Duration = Duration::from_millis(250);

/// How long a leaf past its time is still shown where no new one is to be had.
const OUTAGE: Duration = Duration::from_secs(3600);

type Outcome = Result<Leaf, MintFailure>;

/// How a wish for a leaf goes on.
pub(super) enum Begun {
    /// It is over already.
    Known(Outcome),
    /// The leaf will come, at most after `wait`.
    Awaited {
        receiver: oneshot::Receiver<Outcome>,
        wait: Duration,
    },
}

pub(super) struct State {
    options: Options,
    form: Form,
    /// Leaves and refusals, and until when they are good.
    table: Table<Key, (Outcome, Instant)>,
    flights: HashMap<u32, Flight>,
    by_key: HashMap<Key, u32, RandomState>,
    unsent: VecDeque<u32>,
    last_id: u32,
    /// Since when the generator cannot be reached.
    down_since: Option<Instant>,
    connected: bool,
    /// A request has timed out, and nothing has been heard since.
    silent: bool,
    last_error: Option<Arc<str>>,
}

/// One request, and everybody who waits for its answer.
struct Flight {
    key: Key,
    message: BytesMut,
    waiters: Vec<oneshot::Sender<Outcome>>,
    deadline: Instant,
    sent: bool,
    resend: Option<(Instant, Duration)>,
}

impl Flight {
    fn tell(&mut self, outcome: &Outcome) {
        for waiter in self.waiters.drain(..) {
            let _ = waiter.send(outcome.clone()); // it may have stopped waiting
        }
    }
}

impl State {
    pub(super) fn new(options: Options, form: Form) -> Self {
        Self {
            table: Table::new(options.capacity),
            options,
            form,
            flights: HashMap::new(),
            by_key: HashMap::default(),
            unsent: VecDeque::new(),
            last_id: 0,
            down_since: None,
            connected: false,
            silent: false,
            last_error: None,
        }
    }

    pub(super) fn probe(&mut self, key: &Key, now: Instant) -> Probe {
        let vanish = self.options.vanish_wait;
        match self.table.get(key) {
            Some((Ok(leaf), until)) if now < *until => Probe::Fresh(leaf.clone()),
            Some((Ok(leaf), until)) if now < *until + vanish => Probe::Stale(leaf.clone()),
            Some((Err(refused), until)) if now < *until => Probe::Refused(refused.clone()),
            _ => Probe::Nothing,
        }
    }

    pub(super) fn begin(&mut self, key: &Key, upstream: Option<Certificate>, now: Instant) -> Begun {
        match self.probe(key, now) {
            Probe::Fresh(leaf) | Probe::Stale(leaf) => return Begun::Known(Ok(leaf)),
            Probe::Refused(failure) => return Begun::Known(Err(failure)),
            Probe::Nothing => {}
        }
        // Whether a socket for datagrams leads anywhere shows only when one is sent.
        if self.form == Form::Stream && self.is_gone(now) {
            let reason = self.last_error.clone().unwrap_or_else(|| "not connected".into());
            return Begun::Known(self.or_old(key, MintFailure::Unreachable(reason), now));
        }
        let Some(flight) = self.flight(key, upstream, now) else {
            return Begun::Known(self.or_old(key, MintFailure::Overload, now));
        };
        let (sender, receiver) = oneshot::channel();
        flight.waiters.push(sender);
        let wait = self.options.wait_timeout;
        Begun::Awaited {
            receiver,
            wait: if self.silent { wait.min(SILENT_WAIT) } else { wait },
        }
    }

    pub(super) fn refresh(&mut self, key: &Key, upstream: Option<Certificate>, now: Instant) {
        let _ = self.flight(key, upstream, now);
    }

    /// The request for `key`, begun now if there is none; `None` if there are too many.
    fn flight(&mut self, key: &Key, upstream: Option<Certificate>, now: Instant) -> Option<&mut Flight> {
        let id = match self.by_key.get(key) {
            Some(id) => *id,
            None => {
                if self.flights.len() >= MAX_IN_FLIGHT {
                    return None;
                }
                let id = self.free_id();
                let flight = Flight {
                    key: key.clone(),
                    message: self.message(id, key, upstream),
                    waiters: Vec::new(),
                    deadline: now + self.options.query_timeout,
                    sent: false,
                    resend: None,
                };
                self.flights.insert(id, flight);
                self.by_key.insert(key.clone(), id);
                self.unsent.push_back(id);
                id
            }
        };
        self.flights.get_mut(&id)
    }

    fn free_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if !self.flights.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    fn message(&self, id: u32, key: &Key, upstream: Option<Certificate>) -> BytesMut {
        let mut request = MintRequest {
            id: Some(id),
            host: key.host.to_string(),
            service: key.service,
            usage: key.usage,
            cert: upstream,
        };
        let mut message = BytesMut::new();
        let fits = put_request(&mut message, &request, self.form).is_ok()
            && (self.form == Form::Stream || message.len() <= MAX_DATAGRAM);
        if !fits {
            // Without one that is too large to be sent, the leaf looks plain.
            request.cert = None;
            message.clear();
            // A host's name is short: it is that of a socket address, or has come in a ClientHello that was checked.
            let _ = put_request(&mut message, &request, self.form);
        }
        message
    }

    /// The outcome where no new leaf is to be had: the old one, if there is one, is better than none.
    fn or_old(&mut self, key: &Key, failure: MintFailure, now: Instant) -> Outcome {
        match self.table.get(key) {
            Some((Ok(leaf), until)) if now < *until + OUTAGE && !failure.is_policy() => Ok(leaf.clone()),
            _ => Err(failure),
        }
    }

    /// Somebody has waited long enough.
    pub(super) fn give_up(&mut self, key: &Key, waited: Duration, now: Instant) -> Outcome {
        self.or_old(key, MintFailure::TimedOut(waited), now)
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether an answer is awaited.
    pub(super) fn is_waiting(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Hands the next message that waits to `send`.
    pub(super) fn take_unsent(&mut self, now: Instant, send: impl FnOnce(&[u8])) {
        while let Some(id) = self.unsent.pop_front() {
            let Some(flight) = self.flights.get_mut(&id).filter(|flight| !flight.sent) else {
                continue;
            };
            flight.sent = true;
            if self.form == Form::Datagram {
                let pause = flight.resend.map_or(FIRST_RESEND, |(_, pause)| pause * 2);
                flight.resend = Some((now + pause, pause));
            }
            send(&flight.message);
            return;
        }
    }

    /// A connection stands: what has no answer is sent once more.
    pub(super) fn connected(&mut self) {
        if self.form == Form::Stream {
            self.down_since = None;
            self.connected = true;
        }
        self.silent = false;
        let mut ids: Vec<_> = self.flights.keys().copied().collect();
        ids.sort_unstable();
        for flight in self.flights.values_mut() {
            flight.sent = false;
        }
        self.unsent = ids.into();
    }

    /// The connection is broken, or could not be made.
    pub(super) fn disconnected(&mut self, reason: &str, now: Instant) {
        self.connected = false;
        self.last_error = Some(reason.into());
        self.down_since.get_or_insert(now);
        self.tick(now);
    }

    /// Whether the generator has been away for so long that nobody waits for it.
    fn is_gone(&self, now: Instant) -> bool {
        self.down_since
            .is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE)
    }

    /// Ends what has waited too long, and sends datagrams again.
    pub(super) fn tick(&mut self, now: Instant) {
        let gone = self.is_gone(now);
        let mut over = Vec::new();
        for (&id, flight) in &mut self.flights {
            if now >= flight.deadline || gone {
                over.push(id);
            } else if let Some((at, _)) = flight.resend
                && now >= at
                && flight.sent
            {
                flight.sent = false;
                self.unsent.push_back(id);
            }
        }
        for id in over {
            let reason = self.last_error.clone().filter(|_| gone);
            self.silent |= reason.is_none();
            let failure = reason.map_or(
                MintFailure::TimedOut(self.options.query_timeout),
                MintFailure::Unreachable,
            );
            self.end(id, |state, key| state.or_old(key, failure, now));
        }
    }

    fn end(&mut self, id: u32, outcome: impl FnOnce(&mut Self, &Key) -> Outcome) {
        let Some(mut flight) = self.flights.remove(&id) else {
            return;
        };
        self.by_key.remove(&flight.key);
        let outcome = outcome(self, &flight.key);
        flight.tell(&outcome);
    }

    /// Takes an answer; whether it belonged to anything.
    pub(super) fn answered(&mut self, response: MintResponse, now: Instant) -> bool {
        self.silent = false;
        self.down_since = None;
        self.connected = true;
        let asked = |flight: &Flight| {
            *flight.key.host == *response.host
                && flight.key.service == response.service
                && flight.key.usage == response.usage
        };
        let id = match response.id {
            // An error about a request that could not be read names no host.
            Some(id) => self
                .flights
                .get(&id)
                .filter(|flight| asked(flight) || response.outcome.is_err())
                .map(|_| id),
            // A datagram tells nothing else. Where it could answer several questions it answers none.
            None => {
                let mut asking = self
                    .flights
                    .iter()
                    .filter(|(_, flight)| asked(flight))
                    .map(|(id, _)| *id);
                asking.next().filter(|_| asking.next().is_none())
            }
        };
        let Some(id) = id else { return false };
        let (outcome, ttl) = match response.outcome {
            Ok(minted) => {
                let key = match &minted.key {
                    PrivateKey::Der(der) => LeafKey::Der(der),
                    PrivateKey::Pem(pem) => LeafKey::Pem(pem),
                };
                let leaf = Leaf::new(&minted.chain, key).map_err(|error| MintFailure::Unusable(Arc::new(error)));
                (leaf, Duration::from_secs(minted.ttl.into()))
            }
            Err(error) => (Err(MintFailure::Refused(error)), Duration::ZERO),
        };
        if let Err(failure) = &outcome {
            self.last_error = Some(failure.to_string().into());
        }
        self.end(id, |state, key| state.keep(key, outcome, ttl, now));
        true
    }

    /// Puts an answer into the table. What it comes to is not always what it says: an old leaf outdoes a failure.
    fn keep(&mut self, key: &Key, outcome: Outcome, ttl: Duration, now: Instant) -> Outcome {
        let ttl = if ttl.is_zero() {
            self.options.protective_ttl
        } else {
            ttl
        };
        let until = now + ttl.min(self.options.maximum_ttl);
        match outcome {
            Err(failure) => match self.or_old(key, failure, now) {
                Err(failure) if is_lasting(&failure) => {
                    self.table.put(key, (Err(failure.clone()), until));
                    Err(failure)
                }
                other => other,
            },
            Ok(leaf) => {
                self.table.put(key, (Ok(leaf.clone()), until));
                Ok(leaf)
            }
        }
    }

    pub(super) fn condition(&self) -> Condition {
        Condition {
            connected: self.connected,
            last_error: self.last_error.clone(),
            in_flight: self.flights.len(),
            cached: self.table.len(),
        }
    }
}

/// Whether asking again at once would bring the same.
fn is_lasting(failure: &MintFailure) -> bool {
    match failure {
        MintFailure::Refused(MintError { code, .. }) => !matches!(code, ErrorCode::Busy | ErrorCode::OverRate),
        MintFailure::Unusable(_) => true,
        MintFailure::Overload | MintFailure::TimedOut(_) | MintFailure::Unreachable(_) => false,
    }
}
