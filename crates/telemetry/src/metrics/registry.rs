//! Who has numbers to tell.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Collector;

/// An object with numbers. Register one for each object that can go away by itself.
pub trait Source: Send + Sync {
    /// Tells all numbers as they are now: counters since the object was made, in the same way each time.
    fn collect(&self, out: &mut Collector<'_>);
}

/// Gone objects kept for a reader that does not come; older ones are forgotten unread.
const MAX_DEPARTED: usize = 4096;

/// All sources of a daemon. Cheap to clone; the clones are one registry.
#[derive(Clone, Default)]
pub struct Registry {
    state: Arc<Mutex<State>>,
}

type Known = (u64, Arc<dyn Source>);

#[derive(Default)]
struct State {
    next: u64,
    live: BTreeMap<u64, Arc<dyn Source>>,
    /// For each reader, who left since it last came.
    departed: BTreeMap<u64, VecDeque<Known>>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks `source` from now on, until the registration is dropped and its last values were told.
    pub fn register(&self, source: Arc<dyn Source>) -> Registration {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.live.insert(id, source);
        Registration {
            registry: self.clone(),
            id,
        }
    }

    /// Somebody who comes again and again for the numbers.
    pub(super) fn reader(&self) -> Reader {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.departed.insert(id, VecDeque::new());
        Reader {
            registry: self.clone(),
            id,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({} sources)", self.state().live.len())
    }
}

/// Keeps a source registered.
#[must_use = "dropping it removes the source"]
pub struct Registration {
    registry: Registry,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.registry.state();
        let Some(source) = state.live.remove(&self.id) else {
            return;
        };
        let mut unread = None;
        for departed in state.departed.values_mut() {
            if departed.len() >= MAX_DEPARTED {
                unread = departed.pop_front();
            }
            departed.push_back((self.id, Arc::clone(&source)));
        }
        // A source's own drop may come back here, so neither is dropped under the lock.
        drop(state);
        drop((source, unread));
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration({})", self.id)
    }
}

/// One consumer of the numbers.
pub(super) struct Reader {
    registry: Registry,
    id: u64,
}

impl Reader {
    /// Everybody with numbers, and apart those who left since the last call: they are listed this once.
    pub(super) fn sources(&self) -> (Vec<Known>, Vec<Known>) {
        let mut state = self.registry.state();
        let live = state
            .live
            .iter()
            .map(|(id, source)| (*id, Arc::clone(source)))
            .collect();
        let departed = state.departed.get_mut(&self.id);
        (live, departed.map_or_else(Vec::new, |it| it.drain(..).collect()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let unread = self.registry.state().departed.remove(&self.id);
        drop(unread);
    }
}
