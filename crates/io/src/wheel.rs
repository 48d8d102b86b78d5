//! Coarse timers: steps of [`TICK`], one driver a thread.
//!
//! A proxy has a time-out running on every connection and almost none ever fires. Here setting one anew is a store
//! under an uncontended lock: the entry stays in the slot where it was put, and only when that slot's time comes does
//! the wheel look whether the entry is due, moved on, or called off. Deadlines are rounded up, so a timer never fires
//! early and at most one step late.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The resolution.
pub const TICK: Duration = Duration::from_millis(TICK_MILLIS);
const TICK_MILLIS: u64 = 100;
/// Slots; what lies further ahead waits in the last one and is put back from there.
const SLOTS: u64 = 1024;

/// The timers of a thread.
pub struct Wheel {
    origin: Instant,
    inner: Mutex<Inner>,
    earlier: Notify,
}

#[derive(Default)]
struct Inner {
    slots: Vec<Vec<u32>>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// All ticks up to this one have been looked at.
    seen: u64,
    /// The tick for which the driver sleeps, 0 if it waits to be notified.
    next: u64,
}

#[derive(Default)]
struct Entry {
    /// 0: not armed.
    deadline: u64,
    /// The slot's tick, 0: in no slot.
    slot: u64,
    fired: bool,
    dropped: bool,
    waker: Option<Waker>,
}

impl Wheel {
    /// A wheel without a driver: spawn [`Self::run`] once.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        Arc::new(Self {
            origin: Instant::now(),
            inner: Mutex::new(Inner {
                slots,
                ..Inner::default()
            }),
            earlier: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick_at(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.origin)) / TICK_MILLIS
    }

    /// Drives the timers; never returns.
    pub async fn run(self: Arc<Self>) {
        loop {
            let next = self.turn();
            if next == 0 {
                self.earlier.notified().await;
            } else {
                let at = self.origin + TICK * u32::try_from(next).unwrap_or(u32::MAX);
                tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.earlier.notified() => {}
                }
            }
        }
    }

    /// Fires what is due; the tick to come back at, 0 if nothing waits.
    fn turn(&self) -> u64 {
        let now = self.tick_at(Instant::now());
        let mut inner = self.lock();
        let inner = &mut *inner;
        // After a long sleep every slot is looked at once, not every tick that has passed.
        let first = (inner.seen + 1).max((now + 1).saturating_sub(SLOTS));
        for tick in first..=now {
            let index = slot_of(tick);
            let mut slot = std::mem::take(&mut inner.slots[index]);
            for key in slot.drain(..) {
                let entry = &mut inner.entries[key as usize];
                entry.slot = 0;
                if entry.dropped {
                    *entry = Entry::default();
                    inner.free.push(key);
                } else if entry.deadline > now {
                    let to = entry.deadline.min(now + SLOTS - 1);
                    entry.slot = to;
                    inner.slots[slot_of(to)].push(key);
                } else if entry.deadline > 0 {
                    entry.deadline = 0;
                    entry.fired = true;
                    if let Some(waker) = entry.waker.take() {
                        waker.wake();
                    }
                }
            }
            // Keeps the slot's memory unless something was put into it meanwhile.
            if inner.slots[index].is_empty() {
                inner.slots[index] = slot;
            }
        }
        inner.seen = inner.seen.max(now);
        inner.next = (now + 1..now + SLOTS)
            .find(|&tick| !inner.slots[slot_of(tick)].is_empty())
            .unwrap_or(0);
        inner.next
    }

    /// Wakes everybody who waits for a timer, without firing any: they shall look around.
    pub fn nudge(&self) {
        for entry in &mut self.lock().entries {
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }

    /// A timer that is not armed.
    ///
    /// # Panics
    /// If four thousand million timers are alive.
    #[must_use]
    pub fn timer(self: &Arc<Self>) -> Timer {
        let mut inner = self.lock();
        let key = inner.free.pop().unwrap_or_else(|| {
            inner.entries.push(Entry::default());
            u32::try_from(inner.entries.len() - 1).expect("four thousand million timers do not fit into memory")
        });
        drop(inner);
        Timer {
            wheel: Arc::clone(self),
            key,
        }
    }
}

/// As `Duration::as_millis`, without its division of 128 bits.
fn millis(time: Duration) -> u64 {
    time.as_secs()
        .saturating_mul(1000)
        .saturating_add(u64::from(time.subsec_millis()))
}

fn slot_of(tick: u64) -> usize {
    usize::try_from(tick % SLOTS).expect("less than SLOTS")
}

/// One timer; dropping it frees it.
pub struct Timer {
    wheel: Arc<Wheel>,
    key: u32,
}

impl Timer {
    /// Lets the timer fire once `after` has passed, whatever was set before.
    pub fn arm(&mut self, after: Duration) {
        self.arm_from(Instant::now(), after);
    }

    /// As [`Self::arm`], for one who has just looked at the clock.
    pub fn arm_from(&mut self, now: Instant, after: Duration) {
        let wheel = &self.wheel;
        // Rounded up, and one more for the part of the running tick that has passed.
        let ticks = millis(after).div_ceil(TICK_MILLIS);
        let now = wheel.tick_at(now);
        let deadline = now + ticks.min(u64::MAX / 4) + 1;
        let mut inner = wheel.lock();
        let inner = &mut *inner;
        let entry = &mut inner.entries[self.key as usize];
        entry.deadline = deadline;
        entry.fired = false;
        if entry.slot != 0 && entry.slot <= deadline {
            return;
        }
        // The entry's old, later slot is left behind: it must not be visited as if it were this one's.
        let slot = deadline.min(now.max(inner.seen) + SLOTS - 1);
        if entry.slot != 0 {
            let old = slot_of(entry.slot);
            inner.slots[old].retain(|&key| key != self.key);
        }
        inner.entries[self.key as usize].slot = slot;
        inner.slots[slot_of(slot)].push(self.key);
        if inner.next == 0 || slot < inner.next {
            inner.next = slot;
            wheel.earlier.notify_one();
        }
    }

    /// Calls the timer off.
    pub fn disarm(&mut self) {
        let mut inner = self.wheel.lock();
        let entry = &mut inner.entries[self.key as usize];
        entry.deadline = 0;
        entry.fired = false;
    }

    /// Ready once the timer has fired; it stays so until it is armed again or called off.
    pub fn poll_fired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.wheel.lock();
        let entry = &mut inner.entries[self.key as usize];
        if entry.fired {
            return Poll::Ready(());
        }
        if !entry.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            entry.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until the timer fires.
    pub async fn fired(&mut self) {
        poll_fn(|cx| self.poll_fired(cx)).await;
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut inner = self.wheel.lock();
        let inner = &mut *inner;
        let entry = &mut inner.entries[self.key as usize];
        if entry.slot == 0 {
            *entry = Entry::default();
            inner.free.push(self.key);
        } else {
            entry.dropped = true;
            entry.deadline = 0;
            entry.waker = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[expect(clippy::disallowed_methods, reason = "the tests' runtime counts no tasks")]
    fn driven() -> Arc<Wheel> {
        let wheel = Wheel::new();
        tokio::spawn(Arc::clone(&wheel).run());
        wheel
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_fires_after_its_time_and_within_a_step_of_it() {
        let wheel = driven();
        for millis in [1, 99, 100, 250, 60_000, 500_000] {
            let mut timer = wheel.timer();
            let start = Instant::now();
            timer.arm(Duration::from_millis(millis));
            timer.fired().await;
            let took = start.elapsed();
            assert!(took >= Duration::from_millis(millis), "{millis}: {took:?}");
            assert!(took <= Duration::from_millis(millis) + 2 * TICK, "{millis}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn arming_again_moves_the_deadline_both_ways() {
        let wheel = driven();
        let mut timer = wheel.timer();
        let start = Instant::now();
        timer.arm(Duration::from_secs(1));
        timer.arm(Duration::from_secs(5));
        timer.fired().await;
        assert!(start.elapsed() >= Duration::from_secs(5));
        let start = Instant::now();
        timer.arm(Duration::from_secs(90));
        timer.arm(Duration::from_secs(2));
        timer.fired().await;
        assert!(start.elapsed() < Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_called_off_or_dropped_does_not_fire() {
        let wheel = driven();
        let mut timer = wheel.timer();
        timer.arm(Duration::from_secs(1));
        drop(wheel.timer());
        let mut gone = wheel.timer();
        gone.arm(Duration::from_secs(1));
        drop(gone);
        timer.disarm();
        advance(Duration::from_secs(3)).await;
        let mut probe = wheel.timer();
        probe.arm(Duration::from_millis(1));
        probe.fired().await;
        poll_fn(|cx| {
            assert!(timer.poll_fired(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(wheel.lock().entries.len() <= 3);
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_timers_fire_each_once() {
        let wheel = driven();
        let mut timers: Vec<_> = (0..10_000).map(|_| wheel.timer()).collect();
        for (i, timer) in timers.iter_mut().enumerate() {
            timer.arm(Duration::from_millis(i as u64 * 37 % 300_000));
        }
        for timer in &mut timers {
            timer.fired().await;
        }
        assert!(wheel.lock().slots.iter().all(Vec::is_empty));
    }
}
