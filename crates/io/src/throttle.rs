//! Speed limits: of a connection of its own, and of many connections together.
//!
//! | limit | whose | by |
//! |---|---|---|
//! | [`Rate`] | one direction of one connection | bytes, 50 ms of them at once |
//! | [`PacketRate`] | the same for datagrams | a number in any span of time |
//! | [`SharedLimit`] | everybody who has it | bytes and packets, a burst of them at once |
//! | [`Quota`] | everybody who has it | events; nobody waits for it |
//!
//! What is not limited pays nothing. What is limited owns a timer only while it is held up, and waits neither for a
//! limit while its source has nothing, nor holds tokens then.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

mod bucket;
mod datagrams;
mod quota;
mod shared;
mod window;

pub use datagrams::{DatagramLimits, DatagramRate, PacketRate};
pub use quota::Quota;
pub use shared::SharedLimit;

use bucket::Bucket;
use shared::{Ask, Grant, Member};

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

impl Rate {
    fn refill(self) -> Refill {
        let refill = Refill {
            amount: self.bytes,
            per: self.per,
            most: 0,
        };
        Refill {
            most: refill.within(BURST).max(1),
            ..refill
        }
    }
}

/// How a bucket of tokens is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refill {
    /// Tokens that come in; more than 0.
    pub amount: u64,
    /// The time in which they do; more than 0.
    pub per: Duration,
    /// The most tokens that may lie there unused.
    pub most: u64,
}

impl Refill {
    /// What comes in within `time`, in whole tokens.
    fn within(self, time: Duration) -> u64 {
        let tokens = time.as_nanos().saturating_mul(u128::from(self.amount)) / self.per.as_nanos().max(1);
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }
}

/// The limits that one direction of a stream is under. There is none at all without one.
#[derive(Default)]
pub(crate) struct StreamLimits {
    own: Option<Throttle>,
    shared: Vec<Member>,
}

impl StreamLimits {
    pub(crate) fn of(rate: Rate) -> Self {
        Self {
            own: Some(Throttle::new(rate)),
            shared: Vec::new(),
        }
    }

    pub(crate) fn share(&mut self, limit: Arc<SharedLimit>) {
        self.shared.push(Member::new(limit));
    }

    /// Ready with the number of bytes, of `want`, that may be read now: at least one. What is not read has to be given
    /// back at once by [`Self::settle`].
    pub(crate) fn poll_allowed(&mut self, cx: &mut Context<'_>, want: u64) -> Poll<u64> {
        let mut allowed = want;
        if let Some(own) = &mut self.own {
            allowed = allowed.min(ready!(own.poll_allowed(cx)));
        }
        // A limit that has granted something waits for the others: all stand in one order, so no two wait for each other.
        for member in &mut self.shared {
            ready!(member.poll_granted(cx, Ask::Bytes(allowed)));
            allowed = allowed.min(member.granted().bytes);
        }
        Poll::Ready(allowed)
    }

    /// Notes that `bytes` have passed, and gives the rest back.
    pub(crate) fn settle(&mut self, bytes: u64) {
        if let Some(own) = &mut self.own {
            own.take(bytes);
        }
        for member in &mut self.shared {
            member.settle(Grant { bytes, packets: 0 });
        }
    }
}

/// Lets bytes pass at a [`Rate`].
struct Throttle {
    bucket: Bucket,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Throttle {
    fn new(rate: Rate) -> Self {
        Self {
            bucket: Bucket::full(rate.refill(), Instant::now()),
            sleep: None,
        }
    }

    /// Ready with the number of bytes that may pass now, at least one.
    fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            let now = Instant::now();
            self.bucket.advance(now);
            // Half a burst at least, so that a fast stream is not cut into crumbs, and a whole byte of a slow one.
            let need = self.bucket.most().div_ceil(2);
            let there = self.bucket.has();
            if there >= need {
                return Poll::Ready(there);
            }
            self.sleep = Some(Box::pin(sleep_until(now + self.bucket.until(need))));
        }
    }

    /// Notes that `bytes` have passed.
    fn take(&mut self, bytes: u64) {
        self.bucket.take(bytes);
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
