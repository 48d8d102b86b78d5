//! A table that is bounded in number: of the entries that nobody has asked for lately the oldest makes room.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use foldhash::quality::RandomState;

pub(super) struct Table<K, V> {
    capacity: usize,
    entries: HashMap<K, Entry<V>, RandomState>,
    /// Of all entries, by age.
    order: VecDeque<K>,
}

struct Entry<V> {
    value: V,
    used: bool,
}

impl<K: Clone + Eq + Hash, V> Table<K, V> {
    /// An empty one, for `capacity` entries, at least one.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            entries: HashMap::default(),
            order: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&mut self, key: &K) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        entry.used = true;
        Some(&mut entry.value)
    }

    /// Puts an entry in, in place of one of the same key.
    pub(super) fn put(&mut self, key: &K, value: V) {
        let fresh = Entry { value, used: false };
        if let Some(entry) = self.entries.get_mut(key) {
            *entry = fresh;
            return;
        }
        while self.entries.len() >= self.capacity {
            let Some(oldest) = self.order.pop_front() else { break };
            match self.entries.get_mut(&oldest) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.order.push_back(oldest);
                }
                _ => {
                    self.entries.remove(&oldest);
                }
            }
        }
        self.entries.insert(key.clone(), fresh);
        self.order.push_back(key.clone());
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value))
    }
}
