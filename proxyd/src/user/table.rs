//! A table of counters by name that is read for every task and hardly ever written.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use sluice_telemetry::metrics::{Registration, Registry, Source};

/// Counters by name, each registered with the metrics as long as it stands here.
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: ArcSwap<HashMap<Arc<str>, Entry<T>>>,
    /// One writer at a time.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct Entry<T> {
    counters: Arc<T>,
    registration: Arc<Registration>,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            counters: Arc::clone(&self.counters),
            registration: Arc::clone(&self.registration),
        }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            entries: ArcSwap::default(),
            writing: Mutex::default(),
        }
    }
}

impl<T: Source + 'static> Table<T> {
    /// The counters under a name, made anew if there are none or if they are not the right ones.
    pub(crate) fn get(
        &self,
        name: &Arc<str>,
        is_right: impl Fn(&T) -> bool,
        registry: &Registry,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let find = |entries: &HashMap<Arc<str>, Entry<T>>| {
            let entry = entries.get(name).filter(|entry| is_right(&entry.counters))?;
            Some(Arc::clone(&entry.counters))
        };
        if let Some(found) = find(&self.entries.load()) {
            return found;
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = HashMap::clone(&self.entries.load());
        if let Some(found) = find(&entries) {
            return found;
        }
        let counters = Arc::new(make());
        let entry = Entry {
            counters: Arc::clone(&counters),
            registration: Arc::new(registry.register(Arc::clone(&counters) as _)),
        };
        entries.insert(Arc::clone(name), entry);
        self.entries.store(Arc::new(entries));
        counters
    }

    /// All counters.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        let entries = self.entries.load();
        entries.values().map(|entry| Arc::clone(&entry.counters)).collect()
    }

    /// Forgets those whose names are not wanted.
    pub(crate) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = self.entries.load();
        if entries.keys().all(|name| wanted(name)) {
            return;
        }
        let mut kept = HashMap::clone(&entries);
        kept.retain(|name, _| wanted(name));
        self.entries.store(Arc::new(kept));
    }
}
