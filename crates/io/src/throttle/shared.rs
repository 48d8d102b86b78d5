//! Limits that many connections share, whatever thread they are on.
//!
//! Who finds tokens takes them; who does not waits in line. A waiter knows when its turn should come and sleeps until
//! then, so nobody depends on the one before it: one that does not come when its time is over is passed. When tokens
//! come back, or somebody leaves the line, the first is woken if that brings its turn nearer, and nobody else.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::bucket::Bucket;
use super::{BURST, Refill};

/// What a waiter gets in one turn is what comes in within this time,
const TURN: Duration = Duration::from_millis(5);
/// but not so little that system calls cost more than they move,
const LEAST_BYTES: u64 = 512;
/// nor so much that the others wait for long.
const MOST_BYTES: u64 = 256 * 1024;
const MOST_PACKETS: u64 = 64;
/// A turn that comes nearer by less is not worth waking anybody.
const NEARER: Duration = Duration::from_millis(1);
/// A waiter so late has been forgotten by its task: it loses its place.
const FORGOTTEN: Duration = Duration::from_millis(100);

/// A speed limit for many connections together.
///
/// The bucket begins full and holds as much as comes in within 50 ms at least, so that timers are precise enough for
/// the limit to be reached. Tokens come in steadily, not in heaps.
#[derive(Debug)]
pub struct SharedLimit {
    line: Mutex<Line>,
}

impl SharedLimit {
    /// A limit of bytes, for streams or datagrams.
    #[must_use]
    pub fn bytes(bytes: Refill) -> Arc<Self> {
        Self::new(Some(bytes), None)
    }

    /// A limit of datagrams by the bytes of their payload, by their number, or both.
    #[must_use]
    pub fn new(bytes: Option<Refill>, packets: Option<Refill>) -> Arc<Self> {
        let now = Instant::now();
        let tokens = |refill: Refill, least, most| {
            let most_tokens = refill.most.max(refill.within(BURST)).max(1);
            Tokens {
                turn: refill.within(TURN).clamp(least, most).min(most_tokens.div_ceil(2)),
                bucket: Bucket::full(
                    Refill {
                        most: most_tokens,
                        ..refill
                    },
                    now,
                ),
            }
        };
        Arc::new(Self {
            line: Mutex::new(Line {
                bytes: bytes.map(|refill| tokens(refill, LEAST_BYTES, MOST_BYTES)),
                packets: packets.map(|refill| tokens(refill, 1, MOST_PACKETS)),
                waiting: BTreeMap::new(),
                next: 0,
            }),
        })
    }

    /// Waits until so many bytes of a stream may pass: those that are sent at once, without a pump.
    pub async fn pass(self: &Arc<Self>, bytes: u64) {
        let mut member = Member::new(Arc::clone(self));
        let mut left = bytes;
        while left > 0 {
            poll_fn(|cx| member.poll_granted(cx, Ask::Bytes(left))).await;
            let bytes = member.granted().bytes.min(left);
            left -= bytes;
            member.settle(Grant { bytes, packets: 0 });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What somebody wants to move.
pub(super) enum Ask<'a> {
    /// Bytes of a stream: any part of them will do.
    Bytes(u64),
    /// The payloads of datagrams, in order: some whole ones.
    Datagrams(&'a mut dyn Iterator<Item = u64>),
}

/// What may be moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) bytes: u64,
    pub(super) packets: u64,
}

#[derive(Debug)]
struct Tokens {
    bucket: Bucket,
    /// What one turn gives.
    turn: u64,
}

/// Whom a limit serves, and in which order.
#[derive(Debug)]
struct Line {
    bytes: Option<Tokens>,
    packets: Option<Tokens>,
    /// By the number drawn: who came first stands first.
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    waker: Waker,
    /// When its turn should come.
    due: Instant,
}

enum Turn {
    Now(Grant, Option<Waker>),
    Later { number: u64, due: Instant },
}

impl Line {
    fn take_turn(&mut self, number: Option<u64>, ask: &mut Ask<'_>, waker: &Waker) -> Turn {
        let now = Instant::now();
        self.advance(now);
        let place = number.and_then(|number| Some((number, self.waiting.get(&number)?.due)));
        let first = self.waiting.keys().next().copied();
        let may = match place {
            None => first.is_none(),
            Some((number, due)) => first == Some(number) || due <= now,
        };
        let due = if may {
            let others = self.waiting.len() > usize::from(place.is_some());
            match self.grant(ask, others) {
                Ok(grant) => {
                    if let Some((number, _)) = place {
                        self.leave(number, now);
                    }
                    return Turn::Now(grant, self.nearer(now));
                }
                Err(wait) => now + wait,
            }
        } else {
            place.map_or_else(|| now + self.wait_at_end(), |(_, due)| due)
        };
        let number = place.map_or(self.next, |(number, _)| number);
        self.next = self.next.max(number + 1);
        let waiting = self.waiting.entry(number).or_insert_with(|| Waiting {
            waker: waker.clone(),
            due,
        });
        waiting.due = due;
        if !waiting.waker.will_wake(waker) {
            waiting.waker.clone_from(waker);
        }
        Turn::Later { number, due }
    }

    fn advance(&mut self, now: Instant) {
        for tokens in self.bytes.iter_mut().chain(&mut self.packets) {
            tokens.bucket.advance(now);
        }
    }

    /// Takes tokens, at least for a bit; else says how long they will be in coming. With others in line nobody gets more
    /// than a turn.
    fn grant(&mut self, ask: &mut Ask<'_>, others: bool) -> Result<Grant, Duration> {
        match ask {
            Ask::Bytes(want) => {
                let Some(tokens) = &mut self.bytes else {
                    return Ok(Grant {
                        bytes: *want,
                        packets: 0,
                    });
                };
                let need = tokens.turn.min(*want);
                let there = tokens.bucket.has();
                if there < need {
                    return Err(tokens.bucket.until(need));
                }
                let bytes = if others { need } else { there.min(*want) };
                tokens.bucket.take(bytes);
                Ok(Grant { bytes, packets: 0 })
            }
            Ask::Datagrams(sizes) => self.grant_datagrams(*sizes, others),
        }
    }

    fn grant_datagrams(&mut self, sizes: &mut dyn Iterator<Item = u64>, others: bool) -> Result<Grant, Duration> {
        let mut grant = Grant::default();
        for size in sizes {
            // One larger than the bucket must pass too: it makes debts, which all pay off together.
            let short = |tokens: &Tokens, cost: u64| {
                let need = cost.min(tokens.bucket.most().div_ceil(2));
                (tokens.bucket.has() < need).then(|| tokens.bucket.until(need))
            };
            let bytes = self.bytes.as_ref().and_then(|tokens| short(tokens, size));
            let packets = self.packets.as_ref().and_then(|tokens| short(tokens, 1));
            if let Some(wait) = bytes.max(packets) {
                return if grant.packets > 0 { Ok(grant) } else { Err(wait) };
            }
            for (tokens, cost) in [(&mut self.bytes, size), (&mut self.packets, 1)] {
                if let Some(tokens) = tokens {
                    tokens.bucket.take(cost);
                }
            }
            grant.bytes += size;
            grant.packets += 1;
            let over = |tokens: &Option<Tokens>, had| tokens.as_ref().is_some_and(|tokens| had >= tokens.turn);
            if others && (over(&self.bytes, grant.bytes) || over(&self.packets, grant.packets)) {
                break;
            }
        }
        Ok(grant)
    }

    /// How long one has to wait who joins the line now.
    fn wait_at_end(&self) -> Duration {
        let turns = self.waiting.len() as u64 + 1;
        self.wait_for(turns)
    }

    fn wait_for(&self, turns: u64) -> Duration {
        let wait = |tokens: &Tokens| tokens.bucket.until(tokens.turn.saturating_mul(turns));
        let waits = self.bytes.iter().chain(&self.packets).map(wait);
        waits.max().unwrap_or_default()
    }

    /// Takes somebody out of the line, and those before it whose tasks have forgotten them.
    fn leave(&mut self, number: u64, now: Instant) {
        self.waiting.remove(&number);
        while let Some(first) = self.waiting.first_entry()
            && *first.key() < number
            && now.saturating_duration_since(first.get().due) > FORGOTTEN
        {
            first.remove();
        }
    }

    /// The first in line, if its turn comes sooner than it thinks.
    fn nearer(&mut self, now: Instant) -> Option<Waker> {
        let due = now + self.wait_for(1);
        let mut first = self.waiting.first_entry()?;
        let first = first.get_mut();
        if first.due <= due + NEARER {
            return None;
        }
        first.due = due;
        Some(first.waker.clone())
    }

    fn give_back(&mut self, grant: Grant) -> Option<Waker> {
        let now = Instant::now();
        self.advance(now);
        for (tokens, back) in [(&mut self.bytes, grant.bytes), (&mut self.packets, grant.packets)] {
            if let Some(tokens) = tokens {
                tokens.bucket.give(back);
            }
        }
        self.nearer(now)
    }
}

/// One connection under a shared limit. Dropping it leaves the line and gives back what was not used.
pub(super) struct Member {
    limit: Arc<SharedLimit>,
    number: Option<u64>,
    sleep: Option<Pin<Box<Sleep>>>,
    granted: Grant,
}

impl Member {
    pub(super) fn new(limit: Arc<SharedLimit>) -> Self {
        Self {
            limit,
            number: None,
            sleep: None,
            granted: Grant::default(),
        }
    }

    /// What was granted and not yet [settled](Self::settle).
    pub(super) fn granted(&self) -> Grant {
        self.granted
    }

    /// Ready once something is granted; keeps what is.
    pub(super) fn poll_granted(&mut self, cx: &mut Context<'_>, mut ask: Ask<'_>) -> Poll<()> {
        if self.granted != Grant::default() {
            return Poll::Ready(());
        }
        loop {
            let turn = self.limit.lock().take_turn(self.number, &mut ask, cx.waker());
            let due = match turn {
                Turn::Now(grant, next) => {
                    self.number = None;
                    self.sleep = None;
                    self.granted = grant;
                    wake(next);
                    return Poll::Ready(());
                }
                Turn::Later { number, due } => {
                    self.number = Some(number);
                    due
                }
            };
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if sleep.deadline() != due {
                sleep.as_mut().reset(due);
            }
            ready!(sleep.as_mut().poll(cx));
        }
    }

    /// Says how much of the grant was used; the rest goes back.
    pub(super) fn settle(&mut self, used: Grant) {
        let granted = std::mem::take(&mut self.granted);
        let back = Grant {
            bytes: granted.bytes.saturating_sub(used.bytes),
            packets: granted.packets.saturating_sub(used.packets),
        };
        if back != Grant::default() {
            let next = self.limit.lock().give_back(back);
            wake(next);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.number.is_none() && self.granted == Grant::default() {
            return;
        }
        let next = {
            let mut line = self.limit.lock();
            if let Some(number) = self.number {
                line.waiting.remove(&number);
            }
            line.give_back(self.granted)
        };
        wake(next);
    }
}

fn wake(next: Option<Waker>) {
    if let Some(waker) = next {
        waker.wake();
    }
}

#[cfg(test)]
mod tests;
