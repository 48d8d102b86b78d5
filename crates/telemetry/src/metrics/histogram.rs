//! Quantiles of durations, in bounded memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_config::value::HistogramMetrics;

/// Bits of a value that are kept: 2^10 steps in each power of two are three digits.
const PRECISION: u32 = 10;

/// Durations of the last full turn, and those of the one that is going on.
///
/// Values count in buckets of 0.1 %, so that memory does not grow with their number: at most 1,024 buckets for each
/// power of two.
#[derive(Debug)]
pub struct Histogram {
    config: HistogramMetrics,
    turn: Turn,
    since: Instant,
    told: Option<Told>,
}

#[derive(Debug, Default)]
struct Turn {
    buckets: BTreeMap<u64, u64>,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

/// What is told until the next turn has values: nanoseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
    /// In the order of the configuration.
    pub quantiles: Vec<f64>,
}

impl Histogram {
    /// Begins its first turn at `now`.
    pub fn new(config: HistogramMetrics, now: Instant) -> Self {
        Self {
            config,
            turn: Turn::default(),
            since: now,
            told: None,
        }
    }

    /// What it tells, and how long a turn is.
    pub fn config(&self) -> &HistogramMetrics {
        &self.config
    }

    /// Goes on under another configuration.
    pub fn configure(&mut self, config: &HistogramMetrics) {
        if self.config != *config {
            self.config = config.clone();
            self.told = None;
        }
    }

    /// Counts a value.
    pub fn add(&mut self, value: Duration) {
        self.turn.add(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The numbers to tell at `now`; `None` before the first turn with values is over.
    pub fn tell(&mut self, now: Instant) -> Option<&Told> {
        if now.duration_since(self.since) >= self.config.rotate.0 {
            self.since = now;
            if self.turn.count > 0 {
                self.told = Some(std::mem::take(&mut self.turn).told(&self.config));
            }
        }
        self.told.as_ref()
    }
}

impl Turn {
    fn add(&mut self, value: u64) {
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.count += 1;
        self.sum += u128::from(value);
        *self.buckets.entry(bucket(value)).or_default() += 1;
    }

    fn told(&self, config: &HistogramMetrics) -> Told {
        let quantiles = config.quantile.iter().map(|quantile| self.quantile(quantile.value));
        Told {
            min: self.min as f64,
            max: self.max as f64,
            mean: self.sum as f64 / self.count as f64,
            quantiles: quantiles.collect(),
        }
    }

    /// The smallest value that so large a share of all are not above.
    fn quantile(&self, share: f64) -> f64 {
        let rank = ((share * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += count;
            if seen >= rank {
                return (*bucket).clamp(self.min, self.max) as f64;
            }
        }
        self.max as f64
    }
}

/// The value with all but its first bits 0.
fn bucket(value: u64) -> u64 {
    let length = u64::BITS - value.leading_zeros();
    let dropped = length.saturating_sub(PRECISION + 1);
    value >> dropped << dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_config::decode_text;

    fn histogram(yaml: &str) -> (Histogram, Instant) {
        let now = Instant::now();
        (Histogram::new(decode_text(yaml).unwrap(), now), now)
    }

    #[test]
    fn a_turn_tells_its_quantiles_to_three_digits() {
        let (mut histogram, start) = histogram("{quantile: [0.5, 0.9, 1.0], rotate: 1s}");
        for millis in 1..=1000 {
            histogram.add(Duration::from_millis(millis));
        }
        assert_eq!(histogram.tell(start), None);
        let told = histogram.tell(start + Duration::from_secs(1)).unwrap().clone();
        assert_eq!((told.min, told.max), (1e6, 1e9));
        assert!((told.mean - 500.5e6).abs() < 1.0, "{told:?}");
        for (quantile, wanted) in told.quantiles.iter().zip([500e6, 900e6, 1000e6]) {
            assert!((quantile - wanted).abs() <= wanted * 0.001, "{told:?}");
        }
    }

    #[test]
    fn without_new_values_the_last_ones_are_told_again() {
        let (mut histogram, start) = histogram("4s");
        histogram.add(Duration::from_millis(7));
        let told = histogram.tell(start + Duration::from_secs(4)).cloned();
        assert!(told.is_some());
        assert_eq!(histogram.tell(start + Duration::from_secs(400)).cloned(), told);
        histogram.add(Duration::from_millis(9));
        let next = histogram.tell(start + Duration::from_secs(800)).unwrap();
        assert_eq!(next.min, 9e6);
    }

    /// OB-15.
    #[test]
    fn memory_does_not_grow_with_the_number_of_values() {
        let mut turn = Turn::default();
        for n in 0..1_000_000_u64 {
            turn.add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24);
        }
        assert!(turn.buckets.len() <= 41 * 1024, "{}", turn.buckets.len());
        assert_eq!(turn.count, 1_000_000);
    }
}
