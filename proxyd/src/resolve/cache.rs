//! A bounded table of answers. No I/O, no clock: the time is passed in.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use hashbrown::{HashTable, hash_table::Entry};
use sluice_wire::dns::{Family, ResolveError};
use tokio::time::Instant;

/// What is known of a name: its addresses, or that it has none or does not exist.
pub(super) type Value = Result<Arc<[IpAddr]>, ResolveError>;

/// A name as one resolver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    /// The number of the resolver's name.
    pub(super) zone: u32,
    pub(super) domain: &'a str,
    pub(super) family: Family,
}

/// What the table says of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Fresh(Value),
    /// Past its time; `settled` if a refresh has just failed, so that it need not be tried again yet.
    Stale {
        value: Value,
        settled: bool,
    },
    Missing,
}

/// Answers by name, at most `capacity`. What was not used since the hand last passed goes first (CLOCK).
#[derive(Debug)]
pub(super) struct Cache {
    slots: Vec<Slot>,
    index: HashTable<usize>,
    hasher: RandomState,
    hand: usize,
    capacity: usize,
    stale_for: Duration,
}

#[derive(Debug)]
struct Slot {
    zone: u32,
    family: Family,
    used: bool,
    domain: Box<str>,
    value: Value,
    expires: Instant,
    settled_until: Instant,
}

impl Slot {
    fn is(&self, key: &Key<'_>) -> bool {
        self.zone == key.zone && self.family == key.family && *self.domain == *key.domain
    }

    fn key(&self) -> Key<'_> {
        Key {
            zone: self.zone,
            domain: &self.domain,
            family: self.family,
        }
    }
}

impl Cache {
    pub(super) fn new(capacity: usize, stale_for: Duration) -> Self {
        Self {
            slots: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            hand: 0,
            capacity: capacity.max(1),
            stale_for,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// What is known at `now`; no allocation.
    pub(super) fn look(&mut self, key: &Key<'_>, now: Instant) -> Found {
        let Some(slot) = self.slot(key) else {
            return Found::Missing;
        };
        let (expires, settled) = (slot.expires, slot.settled_until > now);
        slot.used = true;
        let value = slot.value.clone();
        if now < expires {
            Found::Fresh(value)
        } else if now < expires + self.stale_for {
            Found::Stale { value, settled }
        } else {
            Found::Missing
        }
    }

    /// The value, fresh or stale.
    pub(super) fn usable(&mut self, key: &Key<'_>, now: Instant) -> Option<Value> {
        match self.look(key, now) {
            Found::Fresh(value) | Found::Stale { value, .. } => Some(value),
            Found::Missing => None,
        }
    }

    /// Takes stale answers of this name as good enough until `until`.
    pub(super) fn settle(&mut self, key: &Key<'_>, until: Instant) {
        if let Some(slot) = self.slot(key) {
            slot.settled_until = until;
        }
    }

    /// Keeps a value for `ttl`, in the place of the name's older one or of a little used name.
    pub(super) fn put(&mut self, key: &Key<'_>, value: Value, ttl: Duration, now: Instant) {
        if let Some(slot) = self.slot(key) {
            slot.value = value;
            slot.expires = now + ttl;
            slot.settled_until = now;
            return;
        }
        let slot = Slot {
            zone: key.zone,
            family: key.family,
            used: false,
            domain: key.domain.into(),
            value,
            expires: now + ttl,
            settled_until: now,
        };
        let place = if self.slots.len() < self.capacity {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            let place = self.victim(now);
            self.forget(place);
            self.slots[place] = slot;
            place
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hasher.hash_one(key), place, |&other| {
            hasher.hash_one(slots[other].key())
        });
    }

    fn slot(&mut self, key: &Key<'_>) -> Option<&mut Slot> {
        let slots = &self.slots;
        let &place = self
            .index
            .find(self.hasher.hash_one(key), |&place| slots[place].is(key))?;
        Some(&mut self.slots[place])
    }

    /// The next place whose answer may go. Ends within two rounds, since each step clears a mark.
    fn victim(&mut self, now: Instant) -> usize {
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[place];
            if !slot.used || now >= slot.expires + self.stale_for {
                return place;
            }
            slot.used = false;
        }
    }

    /// Takes the name at `place` out of the index.
    fn forget(&mut self, place: usize) {
        let hash = self.hasher.hash_one(self.slots[place].key());
        let hasher = &self.hasher;
        let slots = &self.slots;
        if let Entry::Occupied(entry) = self.index.entry(
            hash,
            |&other| other == place,
            |&other| hasher.hash_one(slots[other].key()),
        ) {
            entry.remove();
        }
    }
}
