//! The questions that await an answer.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Asks;

/// The most questions that await an answer at a time; ids of 16 bits stay sparse, so that a free one is found at once.
const MAX_IN_FLIGHT: usize = 4096;

/// How long a question in a packet waits before it is sent again; doubled each time.
const FIRST_RESEND: Duration = Duration::from_secs(1);

/// Questions by id and by key, and the order in which they go out.
pub(crate) struct Flights<A: Asks> {
    datagrams: bool,
    flights: HashMap<A::Id, Flight<A>>,
    by_key: HashMap<A::Key, A::Id>,
    unsent: VecDeque<A::Id>,
}

/// One question, and everybody who waits for its answer.
pub(crate) struct Flight<A: Asks> {
    pub(crate) key: A::Key,
    pub(crate) message: Bytes,
    waiters: Vec<oneshot::Sender<A::Outcome>>,
    deadline: Instant,
    /// The peer has got it, as far as we know.
    sent: bool,
    /// It waits for its turn to be sent.
    queued: bool,
    /// When it goes out again, and how long it has waited for that.
    resend: Option<(Instant, Duration)>,
}

impl<A: Asks> Flight<A> {
    /// One more waits for the answer.
    pub(crate) fn join(&mut self) -> oneshot::Receiver<A::Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.push(sender);
        receiver
    }

    /// How many wait for the answer.
    pub(crate) fn waiters(&self) -> usize {
        self.waiters.len()
    }

    /// Tells those who wait.
    pub(crate) fn tell(&mut self, outcome: &A::Outcome) {
        for waiter in self.waiters.drain(..) {
            let _ = waiter.send(outcome.clone()); // it may have stopped waiting
        }
    }

    /// Drops those who have stopped waiting; whether any is left.
    pub(crate) fn forget_gone(&mut self) -> bool {
        self.waiters.retain(|waiter| !waiter.is_closed());
        !self.waiters.is_empty()
    }

    /// Those who wait go on with `next`.
    pub(crate) fn hand_over(&mut self, next: &mut Self) {
        next.waiters.append(&mut self.waiters);
    }

    pub(crate) fn was_sent(&self) -> bool {
        self.sent
    }
}

impl<A: Asks> Flights<A> {
    /// Without a question; `datagrams` are sent again if there is no answer.
    pub(crate) fn new(datagrams: bool) -> Self {
        Self {
            datagrams,
            flights: HashMap::new(),
            by_key: HashMap::new(),
            unsent: VecDeque::new(),
        }
    }

    pub(crate) fn is_datagrams(&self) -> bool {
        self.datagrams
    }

    pub(crate) fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Whether there is no room for another question.
    pub(crate) fn is_full(&self) -> bool {
        self.flights.len() >= MAX_IN_FLIGHT
    }

    pub(crate) fn has(&self, id: A::Id) -> bool {
        self.flights.contains_key(&id)
    }

    pub(crate) fn get(&self, id: A::Id) -> Option<&Flight<A>> {
        self.flights.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: A::Id) -> Option<&mut Flight<A>> {
        self.flights.get_mut(&id)
    }

    /// The question about `key`, if it is under way.
    pub(crate) fn id_of(&self, key: &A::Key) -> Option<A::Id> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (A::Id, &Flight<A>)> {
        self.flights.iter().map(|(id, flight)| (*id, flight))
    }

    /// All questions that are under way.
    pub(crate) fn ids(&self) -> Vec<A::Id> {
        self.flights.keys().copied().collect()
    }

    /// Begins a question with a new id.
    pub(crate) fn begin(&mut self, id: A::Id, key: A::Key, message: Bytes, deadline: Instant) -> &mut Flight<A> {
        self.by_key.insert(key.clone(), id);
        self.unsent.push_back(id);
        self.flights
            .entry(id)
            .insert_entry(Flight {
                key,
                message,
                waiters: Vec::new(),
                deadline,
                sent: false,
                queued: true,
                resend: None,
            })
            .into_mut()
    }

    /// Takes a question out, however it has ended.
    pub(crate) fn land(&mut self, id: A::Id) -> Option<Flight<A>> {
        let flight = self.flights.remove(&id)?;
        self.by_key.remove(&flight.key);
        Some(flight)
    }

    /// Hands the next question that waits for its turn to `send`; whether there was one.
    pub(crate) fn take_unsent(&mut self, now: Instant, send: impl FnOnce(&[u8])) -> bool {
        while let Some(id) = self.unsent.pop_front() {
            // It may have ended meanwhile.
            let Some(flight) = self.flights.get_mut(&id) else {
                continue;
            };
            flight.sent = true;
            flight.queued = false;
            if self.datagrams {
                let pause = flight.resend.map_or(FIRST_RESEND, |(_, pause)| pause * 2);
                flight.resend = Some((now + pause, pause));
            }
            send(&flight.message);
            return true;
        }
        false
    }

    /// Queues all that has no answer, in the order of ids: what was sent on an earlier connection is not read again.
    pub(crate) fn send_all_again(&mut self) {
        for flight in self.flights.values_mut() {
            flight.sent = false;
            flight.queued = true;
            flight.resend = None;
        }
        let mut ids = self.ids();
        ids.sort_unstable();
        self.unsent = ids.into();
    }

    /// A question's message, which goes on another way from now on.
    pub(crate) fn divert(&mut self, id: A::Id) -> Option<Bytes> {
        let flight = self.flights.get_mut(&id)?;
        flight.resend = None;
        Some(flight.message.clone())
    }

    /// The questions that are past their deadline. Packets that have waited long enough are queued again.
    pub(crate) fn late(&mut self, now: Instant) -> Vec<A::Id> {
        let mut late = Vec::new();
        for (&id, flight) in &mut self.flights {
            if now >= flight.deadline {
                late.push(id);
            } else if !flight.queued && flight.resend.is_some_and(|(at, _)| now >= at) {
                flight.queued = true;
                self.unsent.push_back(id);
            }
        }
        late
    }
}
