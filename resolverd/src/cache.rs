//! The answers of one resolver. No I/O, no clock: the time is passed in.
//!
//! An answer is fresh until it *expires*. From then until it *vanishes* it is *trash*: still given out, while a new one
//! is asked for.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use hashbrown::{HashTable, hash_table::Entry};
use sluice_wire::dns::{Family, ResolveError};
use tokio::time::Instant;

/// The most answers that one resolver keeps.
pub(crate) const CAPACITY: usize = 65_536;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The class of failure.
    pub(crate) error: ResolveError,
    /// What a human may want to know beside it; may be empty.
    pub(crate) text: Arc<str>,
}

impl Failure {
    pub(crate) fn new(error: ResolveError, text: impl Into<Arc<str>>) -> Self {
        Self {
            error,
            text: text.into(),
        }
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        Self::new(error, "")
    }
}

/// The addresses of a name, none if it has none of that kind, or why there are none.
pub(crate) type Outcome = Result<Arc<[IpAddr]>, Failure>;

/// The bounds between which an answer is kept, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TtlBounds {
    positive_min: u32,
    positive_max: u32,
    negative: u32,
}

impl TtlBounds {
    /// The larger of both bounds for answers with addresses counts as their maximum.
    pub(crate) fn new(positive_min: u32, positive_max: u32, negative: u32) -> Self {
        Self {
            positive_min,
            positive_max: positive_max.max(positive_min),
            negative,
        }
    }

    /// How long an answer with addresses and this TTL is kept.
    pub(crate) fn positive(&self, ttl: u32) -> Lifetime {
        let (ttl, min, max) = (
            u64::from(ttl),
            u64::from(self.positive_min),
            u64::from(self.positive_max),
        );
        let (expire, vanish) = if ttl > max + min {
            (max, ttl)
        } else if ttl > 2 * min {
            (ttl - min, ttl)
        } else if ttl > min {
            (min, ttl)
        } else {
            (min, min + 1)
        };
        Lifetime {
            expire: Duration::from_secs(expire),
            vanish: Some(Duration::from_secs(vanish)),
        }
    }

    /// How long an answer without addresses is kept.
    pub(crate) fn negative(&self) -> Lifetime {
        Lifetime {
            expire: Duration::from_secs(self.negative.into()),
            vanish: None,
        }
    }
}

/// How long an answer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// How long it is fresh.
    pub(crate) expire: Duration,
    /// How long it is there at all; `None` if it goes when it expires.
    pub(crate) vanish: Option<Duration>,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// An answer, and how long it stays fresh.
    Fresh(Outcome, Duration),
    /// An answer past its time: use it, but ask for a new one.
    Trash(Outcome),
    /// Nothing.
    Missing,
}

/// One line of [`Table::list`].
#[derive(Debug)]
pub(crate) struct Listed<'a> {
    pub(crate) domain: &'a str,
    pub(crate) family: Family,
    pub(crate) outcome: &'a Outcome,
    /// How long it stays fresh; `None` if it is trash.
    pub(crate) fresh: Option<Duration>,
    /// How long it stays at all.
    pub(crate) left: Duration,
}

/// The answers, at most [`CAPACITY`] unless told otherwise. What was not used for long makes room.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    index: HashTable<usize>,
    hasher: RandomState,
    /// What happens next to which slot: it expires or vanishes.
    due: BTreeMap<(Instant, usize), Due>,
    hand: usize,
    trash: usize,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
enum Due {
    Expire,
    Vanish,
}

#[derive(Debug)]
struct Slot {
    domain: Box<str>,
    family: Family,
    outcome: Outcome,
    expire: Instant,
    vanish: Instant,
    expired: bool,
    used: bool,
}

impl Slot {
    /// The key of its entry in `due`.
    fn due(&self) -> Instant {
        if self.expired { self.vanish } else { self.expire }
    }
}

impl Table {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            due: BTreeMap::new(),
            hand: 0,
            trash: 0,
            capacity: capacity.max(1),
        }
    }

    /// Fresh answers.
    pub(crate) fn fresh(&self) -> usize {
        self.index.len() - self.trash
    }

    /// Answers past their time.
    pub(crate) fn trash(&self) -> usize {
        self.trash
    }

    /// Places that are allocated, used or not.
    pub(crate) fn allocated(&self) -> usize {
        self.slots.capacity()
    }

    /// What is known of a name at `now`.
    pub(crate) fn look(&mut self, domain: &str, family: Family, now: Instant) -> Look {
        self.advance(now);
        let Some(place) = self.find(domain, family) else {
            return Look::Missing;
        };
        let Some(slot) = &mut self.slots[place] else {
            return Look::Missing;
        };
        slot.used = true;
        if slot.expired {
            Look::Trash(slot.outcome.clone())
        } else {
            Look::Fresh(slot.outcome.clone(), slot.expire - now)
        }
    }

    /// Keeps an answer in place of an earlier one.
    pub(crate) fn put(&mut self, domain: &str, family: Family, outcome: Outcome, lifetime: Lifetime, now: Instant) {
        self.advance(now);
        if let Some(place) = self.find(domain, family) {
            self.remove(place);
        }
        if lifetime.expire.is_zero() && lifetime.vanish.is_none_or(|vanish| vanish.is_zero()) {
            return;
        }
        if self.index.len() >= self.capacity {
            self.make_room();
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let expire = now + lifetime.expire;
        let vanish = lifetime
            .vanish
            .map_or(expire, |vanish| now + vanish.max(lifetime.expire));
        self.slots[place] = Some(Slot {
            domain: domain.into(),
            family,
            outcome,
            expire,
            vanish,
            expired: false,
            used: false,
        });
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash(hasher, domain, family), place, |&other| {
            hash_slot(hasher, slots, other)
        });
        self.due.insert((expire, place), Due::Expire);
    }

    /// Moves on to `now`: what has expired becomes trash, what has vanished goes.
    pub(crate) fn advance(&mut self, now: Instant) {
        while let Some((&(at, place), &due)) = self.due.first_key_value() {
            if at > now {
                return;
            }
            let stays = match (&mut self.slots[place], due) {
                (Some(slot), Due::Expire) if slot.vanish > slot.expire => Some(slot),
                _ => None,
            };
            if let Some(slot) = stays {
                slot.expired = true;
                let vanish = slot.vanish;
                self.trash += 1;
                self.due.remove(&(at, place));
                self.due.insert((vanish, place), Due::Vanish);
            } else {
                self.remove(place);
            }
        }
    }

    /// Forgets everything, or what belongs to one domain; tells how many answers that were.
    pub(crate) fn flush(&mut self, domain: Option<&str>) -> usize {
        let before = self.index.len();
        match domain {
            Some(domain) => {
                for family in Family::ALL {
                    if let Some(place) = self.find(domain, family) {
                        self.remove(place);
                    }
                }
            }
            None => *self = Self::new(self.capacity),
        }
        before - self.index.len()
    }

    /// All answers at `now`, in no order.
    pub(crate) fn list(&mut self, now: Instant) -> impl Iterator<Item = Listed<'_>> {
        self.advance(now);
        self.slots.iter().flatten().map(move |slot| Listed {
            domain: &slot.domain,
            family: slot.family,
            outcome: &slot.outcome,
            fresh: (!slot.expired).then(|| slot.expire - now),
            left: slot.vanish - now,
        })
    }

    fn find(&self, domain: &str, family: Family) -> Option<usize> {
        let is = |&place: &usize| {
            self.slots[place]
                .as_ref()
                .is_some_and(|slot| slot.family == family && *slot.domain == *domain)
        };
        self.index.find(hash(&self.hasher, domain, family), is).copied()
    }

    fn remove(&mut self, place: usize) {
        let hash = hash_slot(&self.hasher, &self.slots, place);
        let (slots, hasher) = (&self.slots, &self.hasher);
        if let Entry::Occupied(entry) =
            self.index
                .entry(hash, |&other| other == place, |&other| hash_slot(hasher, slots, other))
        {
            entry.remove();
        }
        if let Some(slot) = self.slots[place].take() {
            self.due.remove(&(slot.due(), place));
            self.trash -= usize::from(slot.expired);
            self.free.push(place);
        }
    }

    /// Removes the next answer that was not used since the hand passed last. Ends within two rounds, since each step
    /// clears a mark and the table is full.
    fn make_room(&mut self) {
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            if let Some(slot) = &mut self.slots[place]
                && !std::mem::take(&mut slot.used)
            {
                return self.remove(place);
            }
        }
    }
}

fn hash(hasher: &RandomState, domain: &str, family: Family) -> u64 {
    hasher.hash_one((domain, family))
}

fn hash_slot(hasher: &RandomState, slots: &[Option<Slot>], place: usize) -> u64 {
    slots[place]
        .as_ref()
        .map_or(0, |slot| hash(hasher, &slot.domain, slot.family))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn addresses(last: u8) -> Outcome {
        Ok([IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))].into())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn lifetimes_follow_the_rules() {
        let bounds = TtlBounds::new(30, 3600, 20);
        for (ttl, expire, vanish) in [
            (0, 30, 31),
            (1, 30, 31),
            (30, 30, 31),
            (31, 30, 31),
            (60, 30, 60),
            (61, 31, 61),
            (3630, 3600, 3630),
            (3631, 3600, 3631),
            (u32::MAX, 3600, u64::from(u32::MAX)),
        ] {
            let expected = Lifetime {
                expire: seconds(expire),
                vanish: Some(seconds(vanish)),
            };
            assert_eq!(bounds.positive(ttl), expected, "{ttl}");
        }
        assert_eq!(
            bounds.negative(),
            Lifetime {
                expire: seconds(20),
                vanish: None
            }
        );
        let extreme = TtlBounds::new(u32::MAX, 0, 0);
        assert_eq!(extreme.positive(u32::MAX).expire, seconds(u32::MAX.into()));
    }

    #[test]
    fn answers_expire_then_vanish() {
        let start = Instant::now();
        let mut table = Table::new(100);
        let bounds = TtlBounds::new(30, 3600, 20);
        table.put("a", Family::V4, addresses(1), bounds.positive(100), start);
        assert_eq!(
            table.look("a", Family::V4, start + seconds(69)),
            Look::Fresh(addresses(1), seconds(1))
        );
        assert_eq!((table.fresh(), table.trash()), (1, 0));
        assert_eq!(
            table.look("a", Family::V4, start + seconds(70)),
            Look::Trash(addresses(1))
        );
        assert_eq!((table.fresh(), table.trash()), (0, 1));
        assert_eq!(table.look("a", Family::V6, start + seconds(70)), Look::Missing);
        assert_eq!(table.look("a", Family::V4, start + seconds(100)), Look::Missing);
        assert_eq!((table.fresh(), table.trash(), table.due.len()), (0, 0, 0));
    }

    #[test]
    fn failures_vanish_when_they_expire() {
        let start = Instant::now();
        let mut table = Table::new(100);
        let failure: Outcome = Err(ResolveError::NotFound.into());
        table.put(
            "a",
            Family::V4,
            failure.clone(),
            TtlBounds::new(30, 60, 20).negative(),
            start,
        );
        assert!(
            matches!(table.look("a", Family::V4, start + seconds(19)), Look::Fresh(outcome, _) if outcome == failure)
        );
        assert_eq!(table.look("a", Family::V4, start + seconds(20)), Look::Missing);
    }

    #[test]
    fn a_ttl_of_zero_is_not_kept() {
        let start = Instant::now();
        let mut table = Table::new(100);
        table.put(
            "a",
            Family::V4,
            Ok([].into()),
            TtlBounds::new(0, 0, 0).negative(),
            start,
        );
        assert_eq!((table.fresh(), table.slots.len()), (0, 0));
    }

    #[test]
    fn a_new_answer_replaces_trash() {
        let start = Instant::now();
        let mut table = Table::new(100);
        let bounds = TtlBounds::new(30, 3600, 20);
        table.put("a", Family::V4, addresses(1), bounds.positive(100), start);
        table.advance(start + seconds(80));
        table.put("a", Family::V4, addresses(2), bounds.positive(100), start + seconds(80));
        assert_eq!((table.fresh(), table.trash(), table.due.len()), (1, 0, 1));
        assert_eq!(
            table.look("a", Family::V4, start + seconds(149)),
            Look::Fresh(addresses(2), seconds(1))
        );
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_used() {
        let start = Instant::now();
        let mut table = Table::new(64);
        let lifetime = TtlBounds::new(30, 3600, 20).positive(600);
        table.put("used", Family::V4, addresses(1), lifetime, start);
        for n in 0..10_000 {
            table.put(&format!("n{n}"), Family::V4, addresses(2), lifetime, start);
            assert!(matches!(table.look("used", Family::V4, start), Look::Fresh(..)), "{n}");
        }
        assert_eq!((table.fresh(), table.slots.len(), table.due.len()), (64, 64, 64));
    }

    #[test]
    fn flushing_forgets_one_domain_or_all() {
        let start = Instant::now();
        let mut table = Table::new(64);
        let lifetime = TtlBounds::new(30, 3600, 20).positive(600);
        for name in ["a", "b", "c"] {
            for family in Family::ALL {
                table.put(name, family, addresses(1), lifetime, start);
            }
        }
        assert_eq!(table.flush(Some("a")), 2);
        assert_eq!(table.list(start).count(), 4);
        assert_eq!(table.flush(Some("a")), 0);
        assert_eq!(table.flush(None), 4);
        assert_eq!(table.list(start).count(), 0);
    }
}
