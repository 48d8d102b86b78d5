//! Counters that workers add to without disturbing each other.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use crossbeam_utils::CachePadded;

/// A number that only grows. Adding is one relaxed atomic.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `more`.
    #[inline]
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Most shards that are made, whatever the number of workers.
const MAX_SHARDS: usize = 64;

/// Shards of everything made from now on; 0 until known.
static WORKERS: AtomicUsize = AtomicUsize::new(0);
/// Index for the next thread that did not get one by [`set_worker`].
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Says how many workers there will be; call it before anything is counted. The number of cores otherwise.
pub fn set_workers(number: usize) {
    WORKERS.store(number.clamp(1, MAX_SHARDS), Ordering::Relaxed);
}

/// Makes this thread worker `index`, whose shards [`Shards::mine`] returns. Other threads get an index by turns.
pub fn set_worker(index: usize) {
    INDEX.set(index);
}

fn workers() -> usize {
    match WORKERS.load(Ordering::Relaxed) {
        0 => {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            set_workers(cores);
            cores.min(MAX_SHARDS)
        }
        known => known,
    }
}

/// One `T` for each worker, on cache lines of its own.
#[derive(Debug)]
pub struct Shards<T> {
    /// As many as a power of two.
    all: Box<[CachePadded<T>]>,
}

impl<T: Default> Default for Shards<T> {
    fn default() -> Self {
        Self::with(T::default)
    }
}

impl<T> Shards<T> {
    /// Makes each with `one`.
    pub fn with(one: impl Fn() -> T) -> Self {
        let number = workers().next_power_of_two();
        Self {
            all: (0..number).map(|_| CachePadded::new(one())).collect(),
        }
    }

    /// The calling worker's own. Threads beyond the number of workers share.
    #[inline]
    pub fn mine(&self) -> &T {
        let mut index = INDEX.get();
        if index == usize::MAX {
            index = NEXT.fetch_add(1, Ordering::Relaxed);
            INDEX.set(index);
        }
        // In range: the length is a power of two.
        &self.all[index & (self.all.len() - 1)]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.all.iter().map(|padded| &**padded)
    }

    /// Adds up what `value` finds in each.
    pub fn sum(&self, value: impl Fn(&T) -> u64) -> u64 {
        self.iter().map(value).fold(0, |sum, more| sum.wrapping_add(more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_add_apart_and_the_sum_is_theirs_together() {
        let shards = Shards::<Counter>::default();
        thread::scope(|scope| {
            for worker in 0..8 {
                let shards = &shards;
                scope.spawn(move || {
                    set_worker(worker);
                    for _ in 0..1000 {
                        shards.mine().add(1);
                    }
                });
            }
        });
        assert_eq!(shards.sum(Counter::get), 8000);
        assert!(shards.iter().count().is_power_of_two());
    }
}
