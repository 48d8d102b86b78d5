//! Which leaves there are, which are awaited, and how the generator is doing. No I/O, no clock: the time is passed in.

use std::convert::Infallible;
use std::future::Pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use sluice_tls::intercept::{Leaf, LeafKey};
use sluice_wire::mint::{
    Certificate, ErrorCode, Form, MAX_DATAGRAM, MintError, MintRequest, MintResponse, PrivateKey, put_request,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Condition, Key, MintFailure, Options, Probe};
use crate::audit::table::Table;
use crate::peer::{Asks, Flight, Flights};

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

pub(crate) struct State {
    options: Options,
    /// Leaves and refusals, and until when they are good.
    table: Table<Key, (Outcome, Instant)>,
    pub(super) flights: Flights<Self>,
    last_id: u32,
    /// Since when the generator cannot be reached.
    down_since: Option<Instant>,
    connected: bool,
    /// A request has timed out, and nothing has been heard since.
    silent: bool,
    /// The last one who had to wait got nothing for want of a generator.
    is_out: bool,
    last_error: Option<Arc<str>>,
}

impl State {
    pub(super) fn new(options: Options, datagrams: bool) -> Self {
        Self {
            table: Table::new(options.capacity),
            options,
            flights: Flights::new(datagrams),
            last_id: 0,
            down_since: None,
            connected: false,
            silent: false,
            is_out: false,
            last_error: None,
        }
    }

    fn form(&self) -> Form {
        if self.flights.is_datagrams() {
            Form::Datagram
        } else {
            Form::Stream
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
        if self.form() == Form::Stream && self.is_gone(now) {
            let reason = self.last_error.clone().unwrap_or_else(|| "not connected".into());
            return Begun::Known(self.or_old(key, MintFailure::Unreachable(reason), now));
        }
        let Some(flight) = self.flight(key, upstream, now) else {
            return Begun::Known(self.or_old(key, MintFailure::Overload, now));
        };
        let receiver = flight.join();
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
    fn flight(&mut self, key: &Key, upstream: Option<Certificate>, now: Instant) -> Option<&mut Flight<Self>> {
        if let Some(id) = self.flights.id_of(key) {
            return self.flights.get_mut(id);
        }
        if self.flights.is_full() {
            return None;
        }
        let id = self.free_id();
        let message = self.message(id, key, upstream).freeze();
        let deadline = now + self.options.query_timeout;
        Some(self.flights.begin(id, key.clone(), message, deadline))
    }

    fn free_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if !self.flights.has(self.last_id) {
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
        let form = self.form();
        let mut message = BytesMut::new();
        let fits = put_request(&mut message, &request, form).is_ok()
            && (form == Form::Stream || message.len() <= MAX_DATAGRAM);
        if !fits {
            // Without one that is too large to be sent, the leaf looks plain.
            request.cert = None;
            message.clear();
            // A host's name is short: it is that of a socket address, or has come in a ClientHello that was checked.
            let _ = put_request(&mut message, &request, form);
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

    /// Somebody has waited long enough. The next one must not do the same because the clock has not ticked meanwhile.
    pub(super) fn give_up(&mut self, key: &Key, waited: Duration, now: Instant) -> Outcome {
        if waited >= self.options.query_timeout {
            self.note_silence();
        }
        self.or_old(key, MintFailure::TimedOut(waited), now)
    }

    fn note_silence(&mut self) {
        self.silent = true;
        let failure = MintFailure::TimedOut(self.options.query_timeout);
        self.last_error = Some(failure.to_string().into());
    }

    /// Whether it is news that the generator is out, or not any more. An old leaf is no sign of life.
    pub(super) fn set_outage(&mut self, is_out: bool) -> bool {
        let is_out = is_out || self.is_out && (self.silent || self.down_since.is_some());
        std::mem::replace(&mut self.is_out, is_out) != is_out
    }

    /// Whether the generator has been away for so long that nobody waits for it.
    fn is_gone(&self, now: Instant) -> bool {
        self.down_since
            .is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE)
    }

    fn end(&mut self, id: u32, outcome: impl FnOnce(&mut Self, &Key) -> Outcome) {
        if let Some(mut flight) = self.flights.land(id) {
            flight.tell(&outcome(self, &flight.key));
        }
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

impl Asks for State {
    type Id = u32;
    type Key = Key;
    type Outcome = Outcome;
    type Detour = Pending<Infallible>;
    type Detoured = Infallible;

    fn flights(&mut self) -> &mut Flights<Self> {
        &mut self.flights
    }

    fn answered(&mut self, response: MintResponse, now: Instant) -> bool {
        self.silent = false;
        self.down_since = None;
        self.connected = true;
        let asked = |flight: &Flight<Self>| {
            *flight.key.host == *response.host
                && flight.key.service == response.service
                && flight.key.usage == response.usage
        };
        let id = match response.id {
            // An error about a request that could not be read names no host.
            Some(id) => self
                .flights
                .get(id)
                .filter(|flight| asked(flight) || response.outcome.is_err())
                .map(|_| id),
            // A datagram tells nothing else. Where it could answer several questions it answers none.
            None => {
                let mut asking = self
                    .flights
                    .iter()
                    .filter(|(_, flight)| asked(flight))
                    .map(|(id, _)| id);
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

    fn connected(&mut self) {
        if self.form() == Form::Stream {
            self.down_since = None;
            self.connected = true;
        }
        self.silent = false;
    }

    fn disconnected(&mut self, reason: &str, now: Instant) {
        self.connected = false;
        self.last_error = Some(reason.into());
        self.down_since.get_or_insert(now);
        self.tick(now);
    }

    fn closed_idle(&mut self) {}

    fn tick(&mut self, now: Instant) {
        let late = self.flights.late(now);
        let gone = self.is_gone(now);
        for id in if gone { self.flights.ids() } else { late } {
            let reason = self.last_error.clone().filter(|_| gone);
            if reason.is_none() {
                self.note_silence();
            }
            let failure = reason.map_or(
                MintFailure::TimedOut(self.options.query_timeout),
                MintFailure::Unreachable,
            );
            self.end(id, |state, key| state.or_old(key, failure, now));
        }
    }

    fn detour(&mut self, _: SocketAddr) -> Option<Self::Detour> {
        None
    }

    fn detoured(&mut self, end: Infallible, _: Instant) {
        match end {}
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
