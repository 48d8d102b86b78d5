//! Speed limits of single connections.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How much may pass at once after a pause. Small, so that the speed holds over short times too.
const BURST: Duration = Duration::from_millis(50);

/// So many bytes in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes; more than 0.
    pub bytes: u64,
    /// The time in which they may pass; more than 0.
    pub per: Duration,
}

/// Lets bytes pass at a [`Rate`]. A timer of the runtime exists only while somebody is held up.
pub(crate) struct Throttle {
    rate: Rate,
    /// Until when the bytes that have passed would have taken, had each taken its time.
    paid_until: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Throttle {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            paid_until: Instant::now(),
            sleep: None,
        }
    }

    fn time_of(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * self.rate.per.as_nanos() / u128::from(self.rate.bytes.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn bytes_in(&self, time: Duration) -> u64 {
        let bytes = time.as_nanos() * u128::from(self.rate.bytes) / self.rate.per.as_nanos().max(1);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Ready with the number of bytes that may pass now, at least one.
    pub(crate) fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            let now = Instant::now();
            self.paid_until = self.paid_until.max(now);
            let burst = BURST.max(self.time_of(1));
            let ahead = self.paid_until - now;
            // Half a burst at least, so that a fast stream is not cut into crumbs, and a whole byte of a slow one.
            let threshold = (burst / 2).min(burst - self.time_of(1));
            if ahead <= threshold {
                return Poll::Ready(self.bytes_in(burst - ahead).max(1));
            }
            self.sleep = Some(Box::pin(sleep_until(self.paid_until - threshold)));
        }
    }

    /// Notes that `bytes` have passed.
    pub(crate) fn take(&mut self, bytes: u64) {
        self.paid_until += self.time_of(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn seconds_for(rate: Rate, bytes: u64) -> f64 {
        let mut throttle = Throttle::new(rate);
        let start = Instant::now();
        let mut left = bytes;
        while left > 0 {
            let n = poll_fn(|cx| throttle.poll_allowed(cx)).await.min(left);
            throttle.take(n);
            left -= n;
        }
        start.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn the_speed_holds_for_fast_and_slow_limits() {
        for (bytes, millis) in [
            (10_000_000, 1000),
            (1 << 20, 1024),
            (1000, 1000),
            (3, 1000),
            (500, 4096),
        ] {
            let rate = Rate {
                bytes,
                per: Duration::from_millis(millis),
            };
            let took = seconds_for(rate, bytes * 10).await;
            let wanted = millis as f64 / 100.0;
            let burst = 0.05_f64.max(millis as f64 / 1000.0 / bytes as f64);
            assert!(
                took <= wanted * 1.001 && took >= wanted - 1.001 * burst,
                "{rate:?}: {took} s, not {wanted} s"
            );
        }
    }
}
