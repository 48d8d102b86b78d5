//! Limits that go on over a reload, so that a burst is not filled up by it.

use std::sync::Arc;

use sluice_config::value::{GlobalDatagramLimit, GlobalStreamLimit, RateQuota};
use sluice_io::throttle::{Quota, Refill, SharedLimit};
use tokio::time::Instant;

/// A limit, and what it was made from.
#[derive(Debug)]
pub(crate) struct Lasting<C, L> {
    config: C,
    limit: Arc<L>,
}

/// How often something may happen.
pub(crate) type RateLimiter = Lasting<RateQuota, Quota>;
/// How fast many connections may be together.
pub(crate) type SpeedLimiter = Lasting<GlobalStreamLimit, SharedLimit>;
/// How fast many associations may be together.
pub(crate) type DatagramLimiter = Lasting<GlobalDatagramLimit, SharedLimit>;

impl<C: PartialEq, L> Lasting<C, L> {
    /// The limit for `config`: `before` if that is made from the same.
    fn keep(config: Option<C>, before: Option<&Self>, make: impl FnOnce(&C) -> Arc<L>) -> Option<Self> {
        let config = config?;
        let limit = match before.filter(|before| before.config == config) {
            Some(before) => Arc::clone(&before.limit),
            None => make(&config),
        };
        Some(Self { config, limit })
    }

    pub(crate) fn limit(&self) -> &Arc<L> {
        &self.limit
    }
}

impl RateLimiter {
    pub(crate) fn new(quota: Option<RateQuota>, before: Option<&Self>) -> Option<Self> {
        Self::keep(quota, before, |quota| {
            Arc::new(Quota::new(quota.period, quota.burst.get()))
        })
    }

    /// Takes one; false if there is none.
    pub(crate) fn take(&self) -> bool {
        self.limit.take(Instant::now())
    }
}

impl SpeedLimiter {
    pub(crate) fn new(limit: Option<GlobalStreamLimit>, before: Option<&Self>) -> Option<Self> {
        Self::keep(limit, before, |limit| {
            SharedLimit::bytes(Refill {
                amount: limit.replenish_bytes,
                per: limit.replenish_interval.0,
                most: limit.max_burst_bytes,
            })
        })
    }
}

impl DatagramLimiter {
    pub(crate) fn new(limit: Option<GlobalDatagramLimit>, before: Option<&Self>) -> Option<Self> {
        Self::keep(limit, before, |limit| {
            let refill = |(amount, most)| Refill {
                amount,
                per: limit.replenish_interval.0,
                most,
            };
            SharedLimit::new(limit.bytes.map(refill), limit.packets.map(refill))
        })
    }
}
