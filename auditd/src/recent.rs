//! The last lines of the event log, for those who look on.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

/// Lines that are kept, at most.
const MAX_LINES: usize = 4096;

/// Bytes of them, at most.
const MAX_BYTES: usize = 4 << 20;

/// The last lines.
pub(crate) struct Recent {
    lines: Mutex<Lines>,
    /// How many there were in all.
    total: watch::Sender<u64>,
}

#[derive(Default)]
struct Lines {
    kept: VecDeque<String>,
    bytes: usize,
    /// The number of the next line.
    next: u64,
}

/// Lines after a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Since {
    pub(crate) lines: Vec<String>,
    /// The place behind them.
    pub(crate) next: u64,
    /// Lines after the place that are no longer kept.
    pub(crate) missed: u64,
}

impl Recent {
    pub(crate) fn new() -> Self {
        Self {
            lines: Mutex::default(),
            total: watch::Sender::new(0),
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, new: Vec<String>) {
        if new.is_empty() {
            return;
        }
        let mut lines = self.lines();
        for line in new {
            lines.bytes += line.len();
            lines.kept.push_back(line);
            lines.next += 1;
        }
        while lines.kept.len() > MAX_LINES || lines.bytes > MAX_BYTES {
            let gone = lines.kept.pop_front().map_or(0, |line| line.len());
            lines.bytes -= gone;
        }
        let next = lines.next;
        drop(lines);
        self.total.send_replace(next);
    }

    /// The lines after `place`, or the last `last` lines without one. Waits for the first one, `limit` at most.
    pub(crate) async fn since(&self, place: Option<u64>, last: usize, limit: Duration) -> Since {
        if let Some(place) = place {
            let mut total = self.total.subscribe();
            // A place of another life is beyond all that there is: what comes is shown from the beginning.
            let place = place.min(*total.borrow());
            let _ = timeout(limit, total.wait_for(|total| *total > place)).await; // nothing came
            return self.lines().since(place);
        }
        let lines = self.lines();
        let last = u64::try_from(last.min(lines.kept.len())).unwrap_or_default();
        lines.since(lines.next - last)
    }
}

impl Lines {
    fn since(&self, place: u64) -> Since {
        let first = self.next - u64::try_from(self.kept.len()).unwrap_or_default();
        let skip = usize::try_from(place.saturating_sub(first)).unwrap_or(usize::MAX);
        Since {
            lines: self.kept.iter().skip(skip).cloned().collect(),
            next: self.next,
            missed: first.saturating_sub(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|n| n.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn lines_are_given_after_a_place() {
        let recent = Recent::new();
        recent.add(numbered(0..10));
        let last = recent.since(None, 3, Duration::ZERO).await;
        assert_eq!((last.lines, last.next), (numbered(7..10), 10));
        let limit = Duration::from_secs(5);
        let (since, ()) = tokio::join!(recent.since(Some(10), 0, limit), async {
            recent.add(numbered(10..11));
        });
        assert_eq!(since.lines, ["10"]);
        assert!(
            recent.since(Some(11), 0, limit).await.lines.is_empty(),
            "nothing came in time"
        );
    }

    #[tokio::test]
    async fn lines_that_are_gone_are_counted() {
        let recent = Recent::new();
        recent.add(numbered(0..MAX_LINES + 5));
        let since = recent.since(Some(0), 0, Duration::ZERO).await;
        assert_eq!((since.missed, since.lines.len()), (5, MAX_LINES));
        let other_life = recent.since(Some(1 << 40), 0, Duration::ZERO).await;
        assert!(other_life.lines.is_empty());
    }
}
