//! A relay of datagrams between two ends.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use sluice_sys::udp::Receiver;

use super::{Done, End, Parcel, Tables, with_scratch};
use crate::buffer;
pub use crate::relay::IdleCheck;
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

/// Why a relay has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum RelayEnd<C, R> {
    /// The client's end cannot go on.
    Client(C),
    /// The other end cannot go on.
    Remote(R),
    /// No datagram came for too long, in the eyes of [`Watch::check`].
    Idle,
    /// The owner asked for it ([`Watch::check`]).
    MustEnd,
}

/// Watches a relay.
pub trait Watch<C, R> {
    /// Asked at every check: whether the relay must end for a reason of its owner's. `idle` tells for how many checks in
    /// a row no datagram has come from either end.
    fn check(&self, idle: usize) -> Option<RelayEnd<C, R>>;
    /// The relay has ended.
    fn ended(&mut self, end: RelayEnd<C, R>);
}

/// The relay, a future until its end.
pub struct Relay<C: End, R: End<Far = C::Far>, W> {
    client: C,
    remote: R,
    up: Direction<C::Far>,
    down: Direction<C::Far>,
    yield_size: u64,
    idle: IdleCheck,
    idle_checks: usize,
    came_at_check: u64,
    watch: W,
}

impl<C: End, R: End<Far = C::Far>, W: Watch<C::Error, R::Error>> Relay<C, R, W> {
    /// A relay that has moved nothing yet.
    pub fn new(client: C, remote: R, options: RelayOptions, mut idle: IdleCheck, watch: W) -> Self {
        idle.timer.arm(idle.interval);
        Self {
            client,
            remote,
            up: Direction::new(options.up),
            down: Direction::new(options.down),
            yield_size: options.yield_size.max(1),
            idle,
            idle_checks: 0,
            came_at_check: 0,
            watch,
        }
    }

    /// Gives the relay datagrams that were received from the client before it began; they go first. They lie in `memory`.
    pub fn preload(&mut self, memory: &[u8], parcels: Vec<Parcel<C::Far>>) {
        self.up.parcels = parcels;
        self.up.hold(memory);
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd<C::Error, R::Error>> {
        let moved = with_scratch(|scratch| {
            let (receiver, tables) = (&mut scratch.receiver, &mut scratch.tables);
            self.client.tend(cx, tables).map_err(RelayEnd::Client)?;
            self.remote.tend(cx, tables).map_err(RelayEnd::Remote)?;
            let (client, remote) = (&mut self.client, &mut self.remote);
            self.up
                .poll(cx, (receiver, tables), client, remote, self.yield_size)
                .map_err(|failed| match failed {
                    Failed::From(error) => RelayEnd::Client(error),
                    Failed::To(error) => RelayEnd::Remote(error),
                })?;
            self.down
                .poll(cx, (receiver, tables), remote, client, self.yield_size)
                .map_err(|failed| match failed {
                    Failed::From(error) => RelayEnd::Remote(error),
                    Failed::To(error) => RelayEnd::Client(error),
                })
        });
        if let Err(end) = moved {
            return Poll::Ready(end);
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
            if let Some(end) = self.watch.check(self.idle_checks) {
                return Poll::Ready(end);
            }
            self.idle.timer.arm(self.idle.interval);
        }
        Poll::Pending
    }
}

#[cfg(test)]
impl<C: End, R: End<Far = C::Far>, W> Relay<C, R, W> {
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

impl<C, R, W> Future for Relay<C, R, W>
where
    C: End + Unpin,
    R: End<Far = C::Far> + Unpin,
    W: Watch<C::Error, R::Error> + Unpin,
    C::Far: Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let relay = self.get_mut();
        let end = ready!(relay.poll_ended(cx));
        relay.watch.ended(end);
        Poll::Ready(())
    }
}

/// The end at which a direction has failed.
enum Failed<F, T> {
    From(F),
    To(T),
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
    fn poll<A: End<Far = F>, B: End<Far = F>>(
        &mut self,
        cx: &mut Context<'_>,
        (receiver, tables): (&mut Receiver, &mut Tables),
        from: &mut A,
        to: &mut B,
        mut budget: u64,
    ) -> Result<(), Failed<A::Error, B::Error>> {
        if !self.parcels.is_empty() {
            let held = std::mem::take(&mut self.held);
            if let Poll::Ready(unloaded) = self.poll_unload(cx, tables, &held, to) {
                unloaded.map_err(Failed::To)?;
                buffer::recycle(held);
            } else {
                self.held = held;
                return Ok(());
            }
        }
        while budget > 0 {
            let Poll::Ready(came) = from.poll_receive(cx, receiver, &mut self.parcels) else {
                return Ok(());
            };
            let came = came.map_err(Failed::From)? as u64;
            self.came += came;
            let bytes: u64 = self.parcels.iter().map(|parcel| parcel.len as u64).sum();
            budget = budget.saturating_sub(bytes + came * OVERHEAD);
            if let Poll::Ready(unloaded) = self.poll_unload(cx, tables, receiver.memory(), to) {
                unloaded.map_err(Failed::To)?;
            } else {
                self.hold(receiver.memory());
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Sends what is there; ready when nothing is.
    fn poll_unload<B: End<Far = F>>(
        &mut self,
        cx: &mut Context<'_>,
        tables: &mut Tables,
        memory: &[u8],
        to: &mut B,
    ) -> Poll<Result<(), B::Error>> {
        while let Some(rest) = self.parcels.get(self.done..).filter(|rest| !rest.is_empty()) {
            let allowed = match &mut self.limits {
                None => rest.len(),
                Some(limits) => ready!(limits.poll_allowed(cx, rest.iter().map(|parcel| parcel.len as u64))),
            };
            let polled = to.poll_send(cx, tables, memory, &rest[..allowed]);
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
