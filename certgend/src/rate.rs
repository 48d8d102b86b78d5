//! A limit on how many certificates are made in a time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sluice_config::value::RateQuota;

/// Tokens that come back one each period (the generic cell rate algorithm: one moment is all that is kept).
#[derive(Debug)]
pub(crate) struct Rate {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    quota: Option<RateQuota>,
    /// When all that was taken will have come back.
    full_at: Instant,
}

impl Rate {
    /// A limit that nothing was taken of; none without a quota.
    pub(crate) fn new(quota: Option<RateQuota>, now: Instant) -> Self {
        Self {
            state: Mutex::new(State { quota, full_at: now }),
        }
    }

    /// Goes on under another quota.
    pub(crate) fn configure(&self, quota: Option<RateQuota>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).quota = quota;
    }

    /// Takes one token at `now`; false if there is none.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(RateQuota { period, burst }) = state.quota else {
            return true;
        };
        let full_at = state.full_at.max(now) + period;
        let room: Duration = period.saturating_mul(burst.get());
        if full_at.duration_since(now) > room {
            return false;
        }
        state.full_at = full_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_config::decode_text;

    #[test]
    fn a_burst_is_taken_at_once_and_then_one_each_period() {
        let start = Instant::now();
        let rate = Rate::new(Some(decode_text("{rate: 10/s, max_burst: 3}").unwrap()), start);
        let taken = |at| (0..5).filter(|_| rate.take(start + Duration::from_millis(at))).count();
        assert_eq!(
            [taken(0), taken(50), taken(100), taken(250), taken(10_000)],
            [3, 0, 1, 1, 3]
        );
    }

    #[test]
    fn without_a_quota_all_may_pass_and_a_new_one_counts_from_then_on() {
        let start = Instant::now();
        let rate = Rate::new(None, start);
        assert!((0..1000).all(|_| rate.take(start)));
        rate.configure(Some(decode_text("1/m").unwrap()));
        assert!(rate.take(start) && !rate.take(start));
    }
}
