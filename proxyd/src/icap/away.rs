//! What is known of a service that cannot be reached, and that messages may go on without.
//!
//! Where finding out takes no time each message does it. Where it does, a watch does, so that no message waits for it, and
//! none goes on without a service that is back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Finding out that took longer than this is not done by each message.
const SLOW: Duration = Duration::from_millis(100);

/// The service was reached the last time.
const THERE: u64 = 0;
/// It was not, and each message may try.
const AWAY: u64 = 1;
/// From here on: it was not, and the watch with this number tries.
const WATCHED: u64 = 2;

/// Whether a service is away.
#[derive(Debug)]
pub(super) struct Away {
    /// One of the above.
    state: AtomicU64,
    /// The number of the next watch.
    next: AtomicU64,
}

impl Default for Away {
    fn default() -> Self {
        Self {
            state: AtomicU64::new(THERE),
            next: AtomicU64::new(WATCHED),
        }
    }
}

/// Leave to find out.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    away: &'a Away,
    began: Instant,
}

/// A service is found to be away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missed {
    /// It was there the last time.
    pub(super) is_news: bool,
    /// The watch that is to begin: until it ends nobody else tries.
    pub(super) watch: Option<u64>,
}

impl Away {
    /// Leave to try, unless a watch does.
    pub(super) fn attempt(&self) -> Option<Attempt<'_>> {
        let state = self.state.load(Ordering::Relaxed);
        (state < WATCHED).then(|| Attempt {
            away: self,
            began: Instant::now(),
        })
    }

    /// Whether this watch is to go on.
    pub(super) fn is_watched(&self, watch: u64) -> bool {
        self.state.load(Ordering::Relaxed) == watch
    }

    /// This watch has reached the service; says whether that is news.
    pub(super) fn found(&self, watch: u64) -> bool {
        self.state
            .compare_exchange(watch, THERE, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

impl Attempt<'_> {
    /// The service is there; says whether that is news.
    pub(super) fn reached(self) -> bool {
        self.away.state.swap(THERE, Ordering::Relaxed) != THERE
    }

    /// The service is away.
    pub(super) fn missed(self) -> Missed {
        let Away { state, next } = self.away;
        let is_slow = self.began.elapsed() >= SLOW;
        let to = match is_slow {
            true => next.fetch_add(1, Ordering::Relaxed),
            false => AWAY,
        };
        // A watch goes on whatever others find.
        let before = state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            (now < WATCHED).then_some(to)
        });
        Missed {
            is_news: before == Ok(THERE),
            watch: (is_slow && before.is_ok()).then_some(to),
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
        let missed = |is_news| Missed { is_news, watch: None };
        assert_eq!(away.attempt().unwrap().missed(), missed(true));
        assert_eq!(away.attempt().unwrap().missed(), missed(false));
        let (one, other) = (away.attempt().unwrap(), away.attempt().unwrap());
        assert!(one.reached() && !other.reached());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_slow_to_find_out_is_left_to_one_watch() {
        let away = Away::default();
        let [first, second, third] = [(); 3].map(|()| away.attempt().unwrap());
        advance(Duration::from_secs(4)).await;
        let Missed { is_news, watch } = first.missed();
        let watch = watch.unwrap();
        assert!(is_news && away.is_watched(watch) && away.attempt().is_none());
        let nothing = Missed {
            is_news: false,
            watch: None,
        };
        assert_eq!(second.missed(), nothing);
        // Somebody was through all the same: there is nothing to watch, until the next one is not.
        assert!(third.reached() && !away.is_watched(watch));
        let late = away.attempt().unwrap();
        advance(Duration::from_secs(4)).await;
        let next = late.missed().watch.unwrap();
        assert!(next != watch && !away.found(watch) && away.is_watched(next));
        assert!(away.found(next) && !away.found(next) && away.attempt().is_some());
    }
}
