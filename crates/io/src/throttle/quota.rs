//! Limits of how often something may happen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Lets one event happen each period, and some at once after a pause. Shared by all threads, without a lock.
///
/// It keeps one number, the time until which events are paid for (the generic cell rate algorithm): an event is refused
/// if paying for it would lead further ahead than the burst. What is refused costs nothing.
#[derive(Debug)]
pub struct Quota {
    /// Nanoseconds for one event.
    period: u64,
    /// Nanoseconds that may be paid ahead by the time an event comes.
    ahead: u64,
    origin: Instant,
    /// In nanoseconds since `origin`.
    paid_until: AtomicU64,
}

impl Quota {
    /// A quota that nothing was taken from.
    #[must_use]
    pub fn new(period: Duration, burst: u32) -> Self {
        let period = nanos(period).max(1);
        Self {
            period,
            ahead: period.saturating_mul(u64::from(burst.max(1) - 1)),
            origin: Instant::now(),
            paid_until: AtomicU64::new(0),
        }
    }

    /// Whether an event may happen now; if so, it counts.
    pub fn take(&self, now: Instant) -> bool {
        let now = nanos(now.saturating_duration_since(self.origin));
        let pay = |until: u64| {
            let from = until.max(now);
            (from - now <= self.ahead).then(|| from.saturating_add(self.period))
        };
        self.paid_until
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay)
            .is_ok()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    fn taken(quota: &Quota, now: Instant) -> usize {
        (0..1000).filter(|_| quota.take(now)).count()
    }

    #[test]
    fn a_burst_of_n_is_n_and_comes_back_in_full_lm_02() {
        for burst in [1, 5, 50] {
            let quota = Quota::new(Duration::from_millis(200), burst);
            let start = quota.origin;
            let all = burst as usize;
            assert_eq!(taken(&quota, start), all);
            assert_eq!(taken(&quota, start + Duration::from_millis(199)), 0);
            assert_eq!(taken(&quota, start + Duration::from_millis(200)), 1);
            assert_eq!(taken(&quota, start + Duration::from_millis(399)), 0);
            assert_eq!(taken(&quota, start + Duration::from_secs(3600)), all);
        }
    }

    #[test]
    fn the_rate_holds_for_ever() {
        let quota = Quota::new(Duration::from_millis(100), 3);
        let passed = (0..10_000)
            .filter(|&step| quota.take(quota.origin + Duration::from_millis(7) * step))
            .count();
        // 70 seconds less one step, and two that came at once in the beginning.
        assert_eq!(passed, 700 + 2);
    }

    #[test]
    fn threads_that_take_at_once_get_the_burst_between_them() {
        let quota = Quota::new(Duration::from_secs(1), 1000);
        let passed = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        if quota.take(quota.origin) {
                            passed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 1000);
    }

    #[test]
    fn times_of_any_length_do_no_harm() {
        for period in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let quota = Quota::new(period, u32::MAX);
            assert!(quota.take(quota.origin));
            assert!(quota.take(quota.origin + Duration::from_secs(1 << 32)));
            assert!(Quota::new(period, 0).take(quota.origin));
        }
    }
}
