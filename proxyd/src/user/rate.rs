//! How often something may happen.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluice_config::value::RateQuota;

/// A limiter by the generic cell rate algorithm.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    quota: RateQuota,
    due: Mutex<Option<Instant>>,
}

impl RateLimiter {
    pub(crate) fn new(quota: RateQuota) -> Self {
        Self {
            quota,
            due: Mutex::default(),
        }
    }

    /// The limiter for a quota: `before` if it has the same one, so that a burst is not filled up by a reload.
    pub(crate) fn keep(quota: Option<RateQuota>, before: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        let quota = quota?;
        let kept = before.filter(|limiter| limiter.quota == quota).map(Arc::clone);
        Some(kept.unwrap_or_else(|| Arc::new(Self::new(quota))))
    }

    /// Takes one; false if there is none.
    pub(crate) fn take(&self) -> bool {
        let now = Instant::now();
        let tolerance: Duration = self.quota.period * (self.quota.burst.get() - 1);
        let mut due = self.due.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let at = due.map_or(now, |at| at.max(now));
        let is_fine = at <= now + tolerance;
        if is_fine {
            *due = Some(at + self.quota.period);
        }
        is_fine
    }
}
