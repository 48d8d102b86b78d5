//! Counting packets in spans of time.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The shortest span: timers are not precise enough for a shorter one to let all through that it should.
const SHORTEST: Duration = Duration::from_millis(64);
/// Packets within this part of the span are remembered as if they had come with the last of them.
const GRAINS: u32 = 64;

/// Lets `most` packets pass in every span of `per`, wherever it begins: one that ends when a later one of the same
/// length begins is full before the other has any. All may pass at once; then each makes room when its time is over.
///
/// Packets that pass close together are remembered together, up to a 64th of the span too long: a steady stream is
/// slowed down by that at most. Spans below 64 ms are counted as longer ones that hold as many more.
#[derive(Debug)]
pub(super) struct Window {
    most: u64,
    per: Duration,
    origin: Instant,
    /// When the last packet of a group passed, and how many there were; oldest first.
    passed: VecDeque<(Instant, u64)>,
    inside: u64,
}

impl Window {
    pub(super) fn new(most: u64, per: Duration, now: Instant) -> Self {
        let factor = u32::try_from(SHORTEST.as_nanos().div_ceil(per.as_nanos().max(1))).unwrap_or(u32::MAX);
        Self {
            most: most.max(1).saturating_mul(u64::from(factor)),
            per: per.saturating_mul(factor).max(SHORTEST),
            origin: now,
            passed: VecDeque::new(),
            inside: 0,
        }
    }

    /// How many packets may pass now.
    pub(super) fn room(&mut self, now: Instant) -> u64 {
        while let Some(&(at, packets)) = self.passed.front()
            && now.saturating_duration_since(at) >= self.per
        {
            self.passed.pop_front();
            self.inside -= packets;
        }
        self.most.saturating_sub(self.inside)
    }

    /// The time until there is room: none if there is.
    pub(super) fn until_room(&mut self, now: Instant) -> Duration {
        if self.room(now) > 0 {
            return Duration::ZERO;
        }
        let oldest = self.passed.front().map(|&(at, _)| now.saturating_duration_since(at));
        oldest.map_or(Duration::ZERO, |age| self.per.saturating_sub(age))
    }

    /// Notes that packets have passed.
    pub(super) fn note(&mut self, packets: u64, now: Instant) {
        if packets == 0 {
            return;
        }
        self.inside += packets;
        let grain = self.grain(now);
        match self.passed.back().map(|&(at, _)| self.grain(at) == grain) {
            Some(true) => {
                if let Some(last) = self.passed.back_mut() {
                    *last = (now.max(last.0), last.1 + packets);
                }
            }
            _ => self.passed.push_back((now, packets)),
        }
    }

    fn grain(&self, at: Instant) -> u128 {
        at.saturating_duration_since(self.origin).as_nanos() / (self.per / GRAINS).as_nanos().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: Duration = Duration::from_millis(1024);

    #[test]
    fn a_limit_of_n_lets_n_pass_in_each_slice_udp_05_lm_02() {
        for most in [1, 2, 10, 5000] {
            let start = Instant::now();
            let mut window = Window::new(most, SLICE, start);
            for slice in 0..3 {
                let now = start + SLICE * slice;
                assert_eq!(window.room(now), most, "slice {slice}");
                window.note(most, now);
                let end = now + SLICE - Duration::from_nanos(1);
                assert_eq!(window.room(end), 0);
                assert_eq!(window.until_room(end), Duration::from_nanos(1));
            }
        }
    }

    #[test]
    fn no_span_wherever_it_begins_holds_more_than_n_and_a_greedy_sender_gets_nearly_n() {
        for most in [1, 7, 100, 1000] {
            let start = Instant::now();
            let mut window = Window::new(most, SLICE, start);
            let mut sent: Vec<(u64, u64)> = Vec::new();
            let mut random = 12_345_u64;
            let mut micros = 0;
            while micros < 20_000_000 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Steps from nothing to 8 ms, and a taste for few packets at a time.
                micros += (random >> 33) % 8_000;
                let now = start + Duration::from_micros(micros);
                let packets = window.room(now).min(1 + (random >> 60) * most / 200);
                window.note(packets, now);
                if packets > 0 {
                    sent.push((micros, packets));
                }
            }
            assert!(window.passed.len() <= GRAINS as usize + 2);
            for (first, &(from, _)) in sent.iter().enumerate() {
                let within = sent[first..].iter().take_while(|(at, _)| at - from < 1_024_000);
                assert!(within.map(|(_, packets)| packets).sum::<u64>() <= most);
            }
            let total = sent.iter().map(|(_, packets)| packets).sum::<u64>() as f64;
            assert!(total >= 0.97 * most as f64 * 20.0 / 1.024, "{most}: {total}");
        }
    }

    #[test]
    fn a_slice_too_short_for_a_timer_counts_as_a_longer_one() {
        let start = Instant::now();
        let mut window = Window::new(3, Duration::from_millis(2), start);
        assert_eq!(window.room(start), 96);
        window.note(96, start);
        assert_eq!(window.room(start + Duration::from_millis(63)), 0);
        assert_eq!(window.room(start + Duration::from_millis(64)), 96);
    }
}
