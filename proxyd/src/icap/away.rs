//! What is known of a service that cannot be reached, and that messages may go on without.
//!
//! Where finding out takes its time, one message at a time does, and the others do not wait for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Finding out that took longer than this is not done by each message.
const SLOW: Duration = Duration::from_millis(100);
/// How long it holds that a service is away, where that is slow to find out.
const HOLDS: Duration = Duration::from_secs(1);

/// The service was reached the last time.
const THERE: u64 = 0;
/// It was not, and each message may try.
const AWAY: u64 = 1;
/// It was not, and somebody is trying.
const TRYING: u64 = u64::MAX;

/// Whether a service is away.
#[derive(Debug)]
pub(super) struct Away {
    since: Instant,
    /// One of the above, or from when on it may be tried again, in milliseconds.
    state: AtomicU64,
}

impl Default for Away {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            state: AtomicU64::new(THERE),
        }
    }
}

/// Leave to find out. Dropped, it leaves that to the next message.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    away: &'a Away,
    began: Instant,
    /// No other message tries meanwhile.
    is_alone: bool,
}

impl Away {
    /// Leave to try, unless the service is known to be away.
    pub(super) fn attempt(&self) -> Option<Attempt<'_>> {
        let state = self.state.load(Ordering::Relaxed);
        let is_alone = !matches!(state, THERE | AWAY);
        if is_alone {
            let is_due = state != TRYING && self.now() >= state;
            let taken = || self.swap(state, TRYING);
            if !is_due || !taken() {
                return None;
            }
        }
        Some(Attempt {
            away: self,
            began: Instant::now(),
            is_alone,
        })
    }

    fn swap(&self, from: u64, to: u64) -> bool {
        let swapped = self
            .state
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        swapped.is_ok()
    }

    /// Milliseconds, none of them a state.
    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(TRYING / 2) + 2
    }
}

impl Attempt<'_> {
    /// The service is there; says whether that is news.
    pub(super) fn reached(mut self) -> bool {
        self.is_alone = false;
        self.away.state.swap(THERE, Ordering::Relaxed) != THERE
    }

    /// The service is away; says whether that is news.
    pub(super) fn missed(mut self) -> bool {
        self.is_alone = false;
        let state = match self.began.elapsed() {
            took if took < SLOW => AWAY,
            _ => self.away.now() + u64::try_from(HOLDS.as_millis()).unwrap_or_default(),
        };
        self.away.state.swap(state, Ordering::Relaxed) == THERE
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.is_alone {
            self.away.swap(TRYING, AWAY);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_quick_to_find_out_is_tried_by_each() {
        let away = Away::default();
        assert!(away.attempt().unwrap().missed());
        assert!(!away.attempt().unwrap().missed());
        let (one, other) = (away.attempt().unwrap(), away.attempt().unwrap());
        assert!(one.reached() && !other.reached());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_slow_to_find_out_is_tried_by_one_at_a_time() {
        let away = Away::default();
        let (first, second) = (away.attempt().unwrap(), away.attempt().unwrap());
        advance(Duration::from_secs(4)).await;
        assert!(first.missed() && !second.missed());
        assert!(away.attempt().is_none());
        advance(HOLDS).await;
        let probe = away.attempt().unwrap();
        assert!(away.attempt().is_none());
        advance(Duration::from_secs(4)).await;
        assert!(away.attempt().is_none());
        assert!(!probe.missed());
        assert!(away.attempt().is_none());
        advance(HOLDS).await;
        assert!(away.attempt().unwrap().reached());
        assert!(away.attempt().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_trying_leaves_it_to_the_next() {
        let away = Away::default();
        let first = away.attempt().unwrap();
        advance(Duration::from_secs(4)).await;
        assert!(first.missed());
        advance(HOLDS).await;
        drop(away.attempt().unwrap());
        assert!(!away.attempt().unwrap().missed());
    }
}
