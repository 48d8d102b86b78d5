//! A tunnel between a client and an upstream: two pumps, half-close, an idle check.
//!
//! [`Relay`] is a small future of its own. Whoever sets a tunnel up spawns it and ends, so that what the set-up needed
//! (parsers, buffers, the request) is not kept for the tunnel's life.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;

use crate::Stream;
use crate::pump::{Meter, Pump, PumpEnd, PumpError, PumpOptions, UntilClose};
use crate::throttle::SharedLimit;
use crate::wheel::Timer;

/// One end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The end that asked for the tunnel.
    Client,
    /// The end it leads to.
    Upstream,
}

impl Side {
    /// The other end.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

/// Watches a tunnel: counts, and may end it.
pub trait Watch {
    /// `n` bytes were read from `side`.
    fn read(&self, side: Side, n: u64);
    /// `n` bytes were written to `side`.
    fn wrote(&self, side: Side, n: u64);
    /// `side` has sent its last byte, the other one has not.
    fn half_closed(&self, side: Side);
    /// Asked at every check: whether the tunnel must end for a reason of its owner's. `idle` tells for
    /// how many checks in a row no byte has passed.
    fn check(&self, idle: usize) -> Option<RelayEnd>;
    /// The tunnel has ended.
    fn ended(&mut self, end: RelayEnd);
}

/// Why a tunnel ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// Both directions are through; this side was the first to finish.
    Closed(Side),
    /// No byte passed for too long, in the eyes of [`Watch::check`].
    Idle,
    /// The owner asked for it ([`Watch::check`]).
    MustEnd,
    /// Reading from this side failed.
    ReadFailed(Side, io::Error),
    /// Writing to this side failed.
    WriteFailed(Side, io::Error),
}

/// The regular check of a tunnel.
pub struct IdleCheck {
    /// An unarmed timer.
    pub timer: Timer,
    /// Time between two checks.
    pub interval: Duration,
}

/// The tunnel, a future until its end. Dropping it closes both streams.
pub struct Relay<W> {
    client: Stream,
    upstream: Stream,
    up: Direction,
    down: Direction,
    first: Option<Side>,
    idle: IdleCheck,
    idle_checks: usize,
    moved_at_check: u64,
    watch: W,
}

struct Direction {
    pump: Pump<UntilClose>,
    state: State,
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum State {
    Open,
    ShuttingDown,
    Done,
}

struct Metered<'a, W> {
    watch: &'a W,
    from: Side,
    to: Side,
}

impl<W: Watch> Meter for Metered<'_, W> {
    fn read(&self, n: u64) {
        self.watch.read(self.from, n);
    }

    fn wrote(&self, n: u64) {
        self.watch.wrote(self.to, n);
    }
}

impl<W: Watch> Relay<W> {
    /// A tunnel, with options for the bytes from the client and for those to it. It starts with bytes already read from the client and not yet sent to the upstream, and the other
    /// way round. The owner has counted them as read.
    pub fn new(
        (client, from_client): (Stream, Vec<u8>),
        (upstream, from_upstream): (Stream, Vec<u8>),
        (up, down): (PumpOptions, PumpOptions),
        mut idle: IdleCheck,
        watch: W,
    ) -> Self {
        idle.timer.arm(idle.interval);
        let direction = |options, bytes| {
            let mut pump = Pump::new(UntilClose, options);
            pump.preload(bytes);
            Direction {
                pump,
                state: State::Open,
            }
        };
        Self {
            client,
            upstream,
            up: direction(up, from_client),
            down: direction(down, from_upstream),
            first: None,
            idle,
            idle_checks: 0,
            moved_at_check: 0,
            watch,
        }
    }

    /// Puts the bytes that come from one side under a limit that others are under too.
    pub fn share(&mut self, from: Side, limit: Arc<SharedLimit>) {
        let direction = match from {
            Side::Client => &mut self.up,
            Side::Upstream => &mut self.down,
        };
        direction.pump.share(limit);
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        for from in [Side::Client, Side::Upstream] {
            if let Poll::Ready(Err(end)) = self.poll_pump(cx, from) {
                return Poll::Ready(end);
            }
        }
        // Both ends are looked at first: if both are through, closing the sockets says the same as shutting them down.
        let both = self.up.state != State::Open && self.down.state != State::Open;
        let both_plain = self.client.plain().is_some() && self.upstream.plain().is_some();
        if !(both && both_plain) {
            poll_shutdown(cx, &mut self.up, &mut self.upstream);
            poll_shutdown(cx, &mut self.down, &mut self.client);
        }
        if both && (both_plain || (self.up.state == State::Done && self.down.state == State::Done)) {
            return Poll::Ready(RelayEnd::Closed(self.first.unwrap_or(Side::Client)));
        }
        while self.idle.timer.poll_fired(cx).is_ready() {
            let moved = self.up.pump.moved() + self.down.pump.moved();
            self.idle_checks = if moved == self.moved_at_check {
                self.idle_checks + 1
            } else {
                0
            };
            self.moved_at_check = moved;
            if let Some(end) = self.watch.check(self.idle_checks) {
                return Poll::Ready(end);
            }
            self.idle.timer.arm(self.idle.interval);
        }
        Poll::Pending
    }

    /// Moves bytes from one side to the other until the side has ended.
    fn poll_pump(&mut self, cx: &mut Context<'_>, from: Side) -> Poll<Result<(), RelayEnd>> {
        let (direction, source, sink, to) = match from {
            Side::Client => (&mut self.up, &mut self.client, &mut self.upstream, Side::Upstream),
            Side::Upstream => (&mut self.down, &mut self.upstream, &mut self.client, Side::Client),
        };
        if direction.state != State::Open {
            return Poll::Ready(Ok(()));
        }
        let meter = Metered {
            watch: &self.watch,
            from,
            to,
        };
        match ready!(direction.pump.poll(cx, source, sink, &meter)) {
            Ok(PumpEnd::Eof | PumpEnd::Complete) => {}
            Err(PumpError::Read(error)) => return Poll::Ready(Err(RelayEnd::ReadFailed(from, error))),
            Err(PumpError::Write(error)) => return Poll::Ready(Err(RelayEnd::WriteFailed(to, error))),
            Err(PumpError::Framing(never)) => match never {},
            Err(PumpError::Truncated) => unreachable!("a tunnel may end anywhere"),
        }
        if self.first.is_none() {
            self.first = Some(from);
            self.watch.half_closed(from);
        }
        direction.state = State::ShuttingDown;
        Poll::Ready(Ok(()))
    }
}

/// Hands the end of one direction on to its sink.
fn poll_shutdown(cx: &mut Context<'_>, direction: &mut Direction, sink: &mut Stream) {
    // A failing shutdown means that the peer is gone: nothing is left to tell it.
    if direction.state == State::ShuttingDown && Pin::new(sink).poll_shutdown(cx).is_ready() {
        direction.state = State::Done;
    }
}

impl<W: Watch + Unpin> Future for Relay<W> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let relay = self.get_mut();
        let end = ready!(relay.poll_ended(cx));
        relay.watch.ended(end);
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests;
