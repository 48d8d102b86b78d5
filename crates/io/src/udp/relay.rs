//! A relay of datagrams between two ends.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use sluice_sys::udp::Receiver;

use super::{Done, Ends, Parcel, Tables, with_scratch};
use crate::buffer;
use crate::relay::{IdleCheck, Side};
use crate::throttle::DatagramLimits;

/// What a datagram costs of the time of its thread beside its bytes, in bytes.
const OVERHEAD: u64 = 64;

/// How a relay works.
#[derive(Default)]
pub struct RelayOptions {
    /// Bytes after which the other tasks of the thread get their turn.
    pub yield_size: u64,
    /// What holds for datagrams from the client.
    pub up: Option<Box<DatagramLimits>>,
    /// What holds for those to it.
    pub down: Option<Box<DatagramLimits>>,
}

/// The relay, a future until its end.
pub struct Relay<E: Ends> {
    ends: E,
    up: Direction<E::Far>,
    down: Direction<E::Far>,
    yield_size: u64,
    idle: IdleCheck,
    idle_checks: usize,
    came_at_check: u64,
}

impl<E: Ends> Relay<E> {
    /// A relay that has moved nothing yet.
    pub fn new(ends: E, options: RelayOptions, mut idle: IdleCheck) -> Self {
        idle.timer.arm(idle.interval);
        Self {
            ends,
            up: Direction::new(options.up),
            down: Direction::new(options.down),
            yield_size: options.yield_size.max(1),
            idle,
            idle_checks: 0,
            came_at_check: 0,
        }
    }

    /// Gives the relay datagrams that were received from the client before it began; they go first. They lie in `memory`.
    pub fn preload(&mut self, memory: &[u8], parcels: Vec<Parcel<E::Far>>) {
        self.up.parcels = parcels;
        self.up.hold(memory);
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<E::Error> {
        let moved = with_scratch(|scratch| {
            let (receiver, tables) = (&mut scratch.receiver, &mut scratch.tables);
            let ends = &mut self.ends;
            ends.tend(cx, tables)?;
            self.up
                .poll(Side::Client, cx, receiver, tables, ends, self.yield_size)?;
            self.down
                .poll(Side::Upstream, cx, receiver, tables, ends, self.yield_size)
        });
        if let Err(why) = moved {
            return Poll::Ready(why);
        }
        while self.idle.timer.poll_fired(cx).is_ready() {
            let came = self.up.came + self.down.came;
            if came == self.came_at_check {
                self.idle_checks += 1;
                self.up.shrink();
                self.down.shrink();
            } else {
                self.idle_checks = 0;
            }
            self.came_at_check = came;
            if let Some(why) = self.ends.check(self.idle_checks) {
                return Poll::Ready(why);
            }
            self.idle.timer.arm(self.idle.interval);
        }
        Poll::Pending
    }
}

#[cfg(test)]
impl<E: Ends> Relay<E> {
    /// Datagrams that came.
    pub(super) fn came(&self) -> u64 {
        self.up.came + self.down.came
    }

    /// Room in lists and buffers.
    pub(super) fn owned(&self) -> usize {
        let of = |direction: &Direction<_>| direction.parcels.capacity() + direction.held.capacity();
        of(&self.up) + of(&self.down)
    }
}

impl<E: Ends + Unpin> Future for Relay<E>
where
    E::Far: Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let relay = self.get_mut();
        let why = ready!(relay.poll_ended(cx));
        relay.ends.ended(why);
        Poll::Ready(())
    }
}

/// Datagrams on their way in one direction.
struct Direction<F> {
    limits: Option<Box<DatagramLimits>>,
    /// Those that were received and have not been sent yet, behind `done` others.
    parcels: Vec<Parcel<F>>,
    done: usize,
    /// The memory that they lie in between two polls.
    held: Vec<u8>,
    /// Datagrams that came.
    came: u64,
}

impl<F> Direction<F> {
    fn new(limits: Option<Box<DatagramLimits>>) -> Self {
        Self {
            limits,
            parcels: Vec::new(),
            done: 0,
            held: Vec::new(),
            came: 0,
        }
    }

    /// Moves datagrams until none comes, or they are held up.
    fn poll<E: Ends<Far = F>>(
        &mut self,
        from: Side,
        cx: &mut Context<'_>,
        receiver: &mut Receiver,
        tables: &mut Tables,
        ends: &mut E,
        mut budget: u64,
    ) -> Result<(), E::Error> {
        let to = from.other();
        if !self.parcels.is_empty() {
            let held = std::mem::take(&mut self.held);
            if let Poll::Ready(unloaded) = self.poll_unload(to, cx, tables, &held, ends) {
                unloaded?;
                buffer::recycle(held);
            } else {
                self.held = held;
                return Ok(());
            }
        }
        while budget > 0 {
            let Poll::Ready(came) = ends.poll_receive(from, cx, receiver, &mut self.parcels) else {
                return Ok(());
            };
            let came = came? as u64;
            self.came += came;
            let bytes: u64 = self.parcels.iter().map(|parcel| parcel.len as u64).sum();
            budget = budget.saturating_sub(bytes + came.max(1) * OVERHEAD);
            if let Poll::Ready(unloaded) = self.poll_unload(to, cx, tables, receiver.memory(), ends) {
                unloaded?;
            } else {
                self.hold(receiver.memory());
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Sends what is there; ready when nothing is.
    fn poll_unload<E: Ends<Far = F>>(
        &mut self,
        to: Side,
        cx: &mut Context<'_>,
        tables: &mut Tables,
        memory: &[u8],
        ends: &mut E,
    ) -> Poll<Result<(), E::Error>> {
        while let Some(rest) = self.parcels.get(self.done..).filter(|rest| !rest.is_empty()) {
            let allowed = match &mut self.limits {
                None => rest.len(),
                Some(limits) => ready!(limits.poll_allowed(cx, rest.iter().map(|parcel| parcel.len as u64))),
            };
            let polled = ends.poll_send(to, cx, tables, memory, &rest[..allowed]);
            let (done, sent) = match &polled {
                Poll::Ready(Ok(Done::Sent(n))) => (*n, *n),
                Poll::Ready(Ok(Done::Dropped(n))) => (*n, 0),
                _ => (0, 0),
            };
            if let Some(limits) = &mut self.limits {
                limits.settle(rest[..sent].iter().map(|parcel| parcel.len as u64));
            }
            self.done += done;
            ready!(polled)?;
        }
        self.parcels.clear();
        self.done = 0;
        Poll::Ready(Ok(()))
    }

    /// Copies what could not be sent out of the thread's memory.
    fn hold(&mut self, memory: &[u8]) {
        self.parcels.drain(..self.done);
        self.done = 0;
        let mut held = buffer::take();
        for parcel in &mut self.parcels {
            let payload = parcel.payload(memory);
            parcel.start = held.len();
            held.extend_from_slice(payload);
        }
        self.held = held;
    }

    /// Frees the memory of a list that is empty.
    fn shrink(&mut self) {
        if self.parcels.is_empty() {
            self.parcels = Vec::new();
        }
    }
}
