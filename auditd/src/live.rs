//! The door for followers, with a thread of its own.
//!
//! ZeroMQ walks through the subscriptions of all when one of the followers leaves. That takes long where they are many, and
//! neither those who write nor those who stop wait for it.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use sluice_bus::Publisher;
use sluice_telemetry::debug;

/// Bytes that wait for the thread.
const MAX_WAITING: usize = 16 << 20;

/// What a record costs beside its bytes.
const OVERHEAD: usize = 128;

/// A topic and a record.
pub(crate) type Told = (String, Vec<u8>);

/// The door; dropping it closes it.
pub(crate) struct Live {
    path: PathBuf,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    told: VecDeque<Told>,
    bytes: usize,
    is_closed: bool,
}

impl Live {
    /// Opens it at `path`.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let publisher = Publisher::bind(path)?;
        let queue = Arc::new(Queue::default());
        let theirs = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("audit-live".to_owned())
            .spawn(move || theirs.run(&publisher))
            .context("start of the thread for followers")?;
        let path = path.to_owned();
        Ok(Self { path, queue })
    }

    /// Tells all followers, as far as there is room for it; returns how many records there was none for.
    pub(crate) fn tell(&self, all: Vec<Told>) -> u64 {
        let missed = self.queue.lock().add(all);
        self.queue.changed.notify_one();
        missed
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.queue.lock().is_closed = true;
        self.queue.changed.notify_one();
        // Whoever looks at it finds no door. The next one is made anew, in any case.
        let _ = fs::remove_file(&self.path);
    }
}

impl Waiting {
    fn add(&mut self, all: Vec<Told>) -> u64 {
        let mut missed = 0;
        for told in all {
            let bytes = cost(&told);
            if self.bytes + bytes > MAX_WAITING {
                missed += 1;
            } else {
                self.bytes += bytes;
                self.told.push_back(told);
            }
        }
        missed
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what is to be told until the door is closed.
    fn run(&self, publisher: &Publisher) {
        while let Some((topic, record)) = self.next() {
            if let Err(e) = publisher.send(&topic, &record) {
                debug!("followers cannot be told"; "error" => %e);
            }
        }
    }

    fn next(&self) -> Option<Told> {
        let mut waiting = self.lock();
        loop {
            if waiting.is_closed {
                return None;
            }
            if let Some(told) = waiting.told.pop_front() {
                waiting.bytes -= cost(&told);
                return Some(told);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn cost((topic, record): &Told) -> usize {
    topic.len() + record.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_what_does_not_fit_is_counted() {
        let mut waiting = Waiting::default();
        let record = vec![0; 1 << 20];
        let told = |count| vec![("topic".to_owned(), record.clone()); count];
        assert_eq!(waiting.add(told(15)), 0);
        assert_eq!(waiting.add(told(10)), 10);
        assert_eq!(
            waiting.add(vec![("topic".to_owned(), vec![0; 100])]),
            0,
            "a small one fits"
        );
        assert!(waiting.bytes <= MAX_WAITING);
        assert_eq!(waiting.told.iter().map(cost).sum::<usize>(), waiting.bytes);
    }
}
