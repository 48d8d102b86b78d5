//! A bucket of tokens.

use std::time::Duration;

use tokio::time::Instant;

use super::Refill;

/// Tokens that come in steadily, up to a most. It keeps fractions of tokens whole, so no rounding adds up.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Tokens that come in within `per`.
    amount: u64,
    /// Nanoseconds.
    per: u64,
    /// The most tokens.
    most: u64,
    /// Tokens times `per`; below 0 they are owed.
    level: i128,
    /// The time that `level` is of.
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn full(refill: Refill, now: Instant) -> Self {
        let mut bucket = Self {
            amount: refill.amount.max(1),
            per: u64::try_from(refill.per.as_nanos()).unwrap_or(u64::MAX).max(1),
            most: refill.most.max(1),
            level: 0,
            at: now,
        };
        bucket.level = bucket.parts(bucket.most);
        bucket
    }

    /// The most tokens that it holds.
    pub(super) fn most(&self) -> u64 {
        self.most
    }

    /// Lets in what has come since the last time.
    pub(super) fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_nanos();
        let came = i128::try_from(passed)
            .unwrap_or(i128::MAX)
            .saturating_mul(i128::from(self.amount));
        self.level = self.level.saturating_add(came).min(self.parts(self.most));
        self.at = self.at.max(now);
    }

    /// Whole tokens that are there.
    pub(super) fn has(&self) -> u64 {
        u64::try_from(self.level.max(0) / i128::from(self.per)).unwrap_or(u64::MAX)
    }

    /// Takes tokens, more than are there if need be.
    pub(super) fn take(&mut self, tokens: u64) {
        self.level = self.level.saturating_sub(self.parts(tokens));
    }

    /// Puts tokens back that were taken for nothing.
    pub(super) fn give(&mut self, tokens: u64) {
        self.level = self.level.saturating_add(self.parts(tokens)).min(self.parts(self.most));
    }

    /// The time until `tokens` have come in, counted from [`Self::advance`], if nobody takes any. They may be more than
    /// the bucket holds.
    pub(super) fn until(&self, tokens: u64) -> Duration {
        let missing = self.parts(tokens).saturating_sub(self.level).max(0);
        let amount = i128::from(self.amount);
        let nanos = missing / amount + i128::from(missing % amount != 0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn parts(&self, tokens: u64) -> i128 {
        i128::from(tokens).saturating_mul(i128::from(self.per))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refill(amount: u64, per: Duration, most: u64) -> Refill {
        Refill { amount, per, most }
    }

    #[test]
    fn not_a_token_is_lost_or_won_over_many_small_takes() {
        let start = Instant::now();
        let mut bucket = Bucket::full(refill(7, Duration::from_nanos(999_999_937), 1_000_000), start);
        bucket.take(1_000_000);
        let mut taken = 0;
        for step in 1..=100_000 {
            bucket.advance(start + Duration::from_micros(1_777) * step);
            let there = bucket.has();
            bucket.take(there);
            taken += there;
        }
        assert_eq!(taken, 7 * 177_700_000_000 / 999_999_937);
    }

    #[test]
    fn a_bucket_refills_to_full_and_no_further_lm_02() {
        let start = Instant::now();
        let mut bucket = Bucket::full(refill(10, Duration::from_secs(1), 50), start);
        bucket.take(80);
        assert_eq!((bucket.has(), bucket.until(1)), (0, Duration::from_millis(3100)));
        for (seconds, there) in [(4, 10), (8, 50), (1_000_000, 50)] {
            bucket.advance(start + Duration::from_secs(seconds));
            assert_eq!(bucket.has(), there);
        }
        bucket.give(5);
        assert_eq!(bucket.has(), 50);
    }

    #[test]
    fn numbers_of_any_size_do_no_harm() {
        let start = Instant::now();
        for (amount, per, most) in [
            (u64::MAX, Duration::MAX, u64::MAX),
            (u64::MAX, Duration::from_nanos(1), u64::MAX),
            (1, Duration::MAX, u64::MAX),
            (0, Duration::ZERO, 0),
        ] {
            let mut bucket = Bucket::full(refill(amount, per, most), start);
            bucket.take(u64::MAX);
            bucket.advance(start + Duration::from_secs(1 << 30));
            bucket.until(u64::MAX);
            bucket.give(u64::MAX);
            assert!(bucket.has() <= bucket.most());
        }
    }

    #[test]
    fn a_clock_that_steps_back_adds_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = Bucket::full(refill(10, Duration::from_secs(1), 10), start);
        bucket.take(10);
        for _ in 0..3 {
            bucket.advance(start - Duration::from_secs(5));
            bucket.advance(start);
        }
        assert_eq!(bucket.has(), 0);
    }
}
