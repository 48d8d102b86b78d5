//! The limits of one direction of a UDP association.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::bucket::Bucket;
use super::shared::{Ask, Grant, Member};
use super::window::Window;
use super::{Rate, SharedLimit};

/// So many datagrams in a time: no more in any span of that length, and all at once if they come so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketRate {
    /// Datagrams; more than 0.
    pub packets: u64,
    /// The time in which they may pass; spans below 64 ms are counted as longer ones, with as many more.
    pub per: Duration,
}

/// What an association may move in one direction. In any span of time pass at most the bytes of it, those of 50 ms, and
/// one datagram, which is let pass whole if half of what comes in within 50 ms is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatagramRate {
    /// Bytes of payload.
    pub bytes: Option<Rate>,
    /// Datagrams.
    pub packets: Option<PacketRate>,
}

/// The limits that one direction of an association is under. There is none at all without one.
pub struct DatagramLimits {
    bytes: Option<Bucket>,
    packets: Option<Window>,
    sleep: Option<Pin<Box<Sleep>>>,
    shared: Vec<Member>,
}

impl DatagramLimits {
    /// Limits of its own, and those that it shares; `None` without any.
    #[must_use]
    pub fn new(rate: DatagramRate, shared: impl IntoIterator<Item = Arc<SharedLimit>>) -> Option<Box<Self>> {
        let now = Instant::now();
        let limits = Self {
            bytes: rate.bytes.map(|rate| Bucket::full(rate.refill(), now)),
            packets: rate.packets.map(|rate| Window::new(rate.packets, rate.per, now)),
            sleep: None,
            shared: shared.into_iter().map(Member::new).collect(),
        };
        let none = limits.bytes.is_none() && limits.packets.is_none() && limits.shared.is_empty();
        (!none).then(|| Box::new(limits))
    }

    /// Ready with the number of datagrams, in order, that may be sent now, at least one of them. `sizes` are the bytes of
    /// their payloads; one at least. What was sent has to be told by [`Self::settle`] at once.
    pub fn poll_allowed(&mut self, cx: &mut Context<'_>, sizes: impl Iterator<Item = u64> + Clone) -> Poll<usize> {
        let mut allowed = ready!(self.poll_own(cx, sizes.clone()));
        for member in &mut self.shared {
            loop {
                let mut asked = sizes.clone().take(allowed);
                ready!(member.poll_granted(cx, Ask::Datagrams(&mut asked)));
                let fitting = fitting(sizes.clone().take(allowed), member.granted());
                if fitting > 0 {
                    allowed = fitting;
                    break;
                }
                // What was granted is for others than those that are to be sent now.
                member.settle(Grant::default());
            }
        }
        Poll::Ready(allowed)
    }

    fn poll_own(&mut self, cx: &mut Context<'_>, sizes: impl Iterator<Item = u64> + Clone) -> Poll<usize> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            let now = Instant::now();
            let room = self.packets.as_mut().map_or(u64::MAX, |window| window.room(now));
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let Some(bucket) = &mut self.bytes else {
                if room > 0 {
                    return Poll::Ready(sizes.take(room).count());
                }
                self.sleep_for(now, Duration::ZERO);
                continue;
            };
            bucket.advance(now);
            let half = bucket.most().div_ceil(2);
            let mut there = bucket.has();
            let passes = |size: &u64| {
                let passes = there >= (*size).min(half);
                there = there.saturating_sub(*size);
                passes
            };
            let allowed = sizes.clone().take(room).take_while(passes).count();
            if allowed > 0 {
                return Poll::Ready(allowed);
            }
            let wait = bucket.until(sizes.clone().next().unwrap_or(0).min(half));
            self.sleep_for(now, wait);
        }
    }

    /// Sleeps for bytes to come in, and until there is room for a packet.
    fn sleep_for(&mut self, now: Instant, bytes: Duration) {
        let window = self.packets.as_mut();
        let room = window.map_or(Duration::ZERO, |window| window.until_room(now));
        self.sleep = Some(Box::pin(sleep_until(now + bytes.max(room))));
    }

    /// Notes that so many of the datagrams, with these sizes, have been sent. What was allowed beyond goes back.
    pub fn settle(&mut self, sent: impl Iterator<Item = u64>) {
        let mut used = Grant::default();
        for size in sent {
            used.bytes += size;
            used.packets += 1;
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(used.bytes);
        }
        if let Some(window) = &mut self.packets {
            window.note(used.packets, Instant::now());
        }
        for member in &mut self.shared {
            member.settle(used);
        }
    }
}

/// How many datagrams a grant covers.
fn fitting(sizes: impl Iterator<Item = u64>, grant: Grant) -> usize {
    let mut bytes = grant.bytes;
    let packets = usize::try_from(grant.packets).unwrap_or(usize::MAX);
    sizes
        .take(packets)
        .take_while(|&size| {
            let fits = size <= bytes;
            bytes = bytes.saturating_sub(size);
            fits
        })
        .count()
}

#[cfg(test)]
mod tests;
