//! One direction between two streams: a message body, or half of a tunnel.
//!
//! Small amounts are copied through the scratch buffer of the thread: read, written at once, and only what the sink
//! did not take is kept in memory of the pump's own. Once [`SPLICE_AFTER`] bytes have passed between two plain
//! sockets, the kernel moves the rest from socket to socket. A pump that waits for its source owns neither.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::throttle::{Rate, SharedLimit, StreamLimits};
use crate::{Stream, pipes, scratch};

/// Bytes that are copied before splicing starts: a short exchange would not earn the pipe.
const SPLICE_AFTER: u64 = 64 * 1024;

/// Where a body ends.
pub trait Framing {
    /// What is wrong with the bytes.
    type Error;

    /// How many of the next bytes belong to the body whatever they are; 0 if each has to be looked at.
    fn blind(&self) -> u64;

    /// How many bytes the body has left, if that is known: not one more is read.
    fn remaining(&self) -> Option<u64>;

    /// Looks at the next bytes: how many of them belong to the body, counting from the first one.
    ///
    /// # Errors
    /// If the bytes break the framing.
    fn admit(&mut self, bytes: &[u8]) -> Result<usize, Self::Error>;

    /// Told that `n` bytes, at most [`Self::blind`], have passed unseen.
    fn passed(&mut self, n: u64);

    /// Whether the body is complete.
    fn is_complete(&self) -> bool;

    /// Whether the stream may end here.
    fn may_end(&self) -> bool;

    /// Whether the sink ends when the source does, so that its last bytes and its end may share a packet.
    fn ends_sink(&self) -> bool {
        false
    }
}

/// Everything up to the end of the stream: tunnels, and bodies that end by close.
#[derive(Debug, Clone, Copy)]
pub struct UntilClose;

impl Framing for UntilClose {
    type Error = std::convert::Infallible;

    fn blind(&self) -> u64 {
        u64::MAX
    }

    fn remaining(&self) -> Option<u64> {
        None
    }

    fn admit(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        Ok(bytes.len())
    }

    fn passed(&mut self, _: u64) {}

    fn is_complete(&self) -> bool {
        false
    }

    fn may_end(&self) -> bool {
        true
    }

    fn ends_sink(&self) -> bool {
        true
    }
}

/// Is told about every byte that passes, when it passes.
pub trait Meter {
    /// `n` bytes came from the source.
    fn read(&self, n: u64);
    /// The sink took `n` bytes.
    fn wrote(&self, n: u64);
}

/// What a pump may do in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PumpOptions {
    /// Bytes of one copying read.
    pub copy_size: usize,
    /// Bytes after which the other tasks of the thread get their turn.
    pub yield_size: u64,
    /// Speed limit of this direction alone.
    pub rate: Option<Rate>,
}

impl Default for PumpOptions {
    fn default() -> Self {
        Self {
            copy_size: 16 * 1024,
            yield_size: 1 << 20,
            rate: None,
        }
    }
}

/// Why a pump stopped short.
#[derive(Debug)]
pub enum PumpError<E> {
    /// The bytes break the framing.
    Framing(E),
    /// The source failed.
    Read(io::Error),
    /// The source ended inside the body.
    Truncated,
    /// The sink failed.
    Write(io::Error),
}

impl<E: fmt::Display> fmt::Display for PumpError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Framing(error) => error.fmt(f),
            Self::Read(error) => write!(f, "reading failed: {error}"),
            Self::Truncated => f.write_str("the stream ended inside the body"),
            Self::Write(error) => write!(f, "writing failed: {error}"),
        }
    }
}

/// How a pump ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PumpEnd {
    /// The body is complete; the source stays open.
    Complete,
    /// The source has ended.
    Eof,
}

/// One direction at work.
pub struct Pump<F> {
    framing: F,
    options: PumpOptions,
    unsent: Vec<u8>,
    sent: usize,
    pipe: Option<pipes::Lent>,
    excess: Vec<u8>,
    moved: u64,
    ended: Option<PumpEnd>,
    limits: Option<Box<StreamLimits>>,
}

impl<F: Framing> Pump<F> {
    /// A pump that has moved nothing yet.
    pub fn new(framing: F, options: PumpOptions) -> Self {
        let ended = framing.is_complete().then_some(PumpEnd::Complete);
        Self {
            framing,
            options,
            unsent: Vec::new(),
            sent: 0,
            pipe: None,
            excess: Vec::new(),
            moved: 0,
            ended,
            limits: options.rate.map(|rate| Box::new(StreamLimits::of(rate))),
        }
    }

    /// Puts the pump under a limit that others are under too, beside those it has.
    pub fn share(&mut self, limit: Arc<SharedLimit>) {
        self.limits.get_or_insert_default().share(limit);
    }

    /// Gives the pump bytes that were read before it began; it sends them first. They must have been admitted and
    /// metered as read already.
    pub fn preload(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.unsent.is_empty(), "a pump is loaded once");
        self.unsent = bytes;
    }

    /// Gives the pump bytes of the source that were read by somebody else; says how many of them belong to the body.
    /// They count as moved, but the meter is the caller's affair.
    ///
    /// # Errors
    /// The framing's.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, F::Error> {
        let n = self.framing.admit(bytes)?;
        self.unsent.extend_from_slice(&bytes[..n]);
        self.moved += n as u64;
        if self.framing.is_complete() {
            self.ended = Some(PumpEnd::Complete);
        }
        Ok(n)
    }

    /// Bytes that came from the source so far.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Bytes behind the end of the body that were read with it.
    pub fn take_excess(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.excess)
    }

    /// Moves bytes until one side is not ready. The sink is flushed before the pump waits or ends, never shut down.
    ///
    /// # Errors
    /// See [`PumpError`].
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        meter: &impl Meter,
    ) -> Poll<Result<PumpEnd, PumpError<F::Error>>> {
        let mut budget = self.options.yield_size;
        loop {
            ready!(self.poll_unload(cx, sink, meter)).map_err(PumpError::Write)?;
            if let Some(end) = self.ended {
                ready!(Pin::new(&mut *sink).poll_flush(cx)).map_err(PumpError::Write)?;
                return Poll::Ready(Ok(end));
            }
            if budget == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let allowed = match &self.limits {
                None => Poll::Ready(u64::MAX),
                Some(_) => self.poll_allowed(cx, source),
            };
            let loaded = match allowed {
                Poll::Pending => {
                    // Empty, as everything is unloaded: others can use it meanwhile.
                    self.pipe = None;
                    Poll::Pending
                }
                Poll::Ready(allowed) => {
                    let loaded = self.poll_load(cx, source, sink, meter, allowed)?;
                    if let Some(limits) = &mut self.limits {
                        limits.settle(if let Poll::Ready(n) = loaded { n } else { 0 });
                    }
                    loaded
                }
            };
            let Poll::Ready(n) = loaded else {
                // An error here comes back at the next write.
                let _ = Pin::new(sink).poll_flush(cx);
                return Poll::Pending;
            };
            self.moved += n;
            budget = budget.saturating_sub(n);
            if n == 0 {
                if !self.framing.may_end() {
                    return Poll::Ready(Err(PumpError::Truncated));
                }
                self.ended = Some(PumpEnd::Eof);
            } else if self.framing.is_complete() {
                self.ended = Some(PumpEnd::Complete);
            }
        }
    }

    /// How much the limits let pass. Where a source can tell that it has nothing, nobody waits for tokens first.
    fn poll_allowed(&mut self, cx: &mut Context<'_>, source: &Stream) -> Poll<u64> {
        let Some(limits) = &mut self.limits else {
            return Poll::Ready(u64::MAX);
        };
        if let Some(tcp) = source.plain() {
            // An error comes back from the read.
            let _ = ready!(tcp.poll_read_ready(cx));
        }
        let splices = self.moved >= SPLICE_AFTER;
        let want = if splices { pipes::LARGE } else { self.options.copy_size };
        limits.poll_allowed(cx, want.max(1) as u64)
    }

    /// Sends what the pump holds; ready when it holds nothing.
    fn poll_unload(&mut self, cx: &mut Context<'_>, sink: &mut Stream, meter: &impl Meter) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            let n = ready!(poll_write_some(cx, sink, &self.unsent[self.sent..], false))?;
            self.sent += n;
            meter.wrote(n as u64);
        }
        if self.sent > 0 {
            self.unsent = Vec::new();
            self.sent = 0;
        }
        if let Some(pipe) = &mut self.pipe {
            let tcp = sink.plain().expect("only plain streams are spliced");
            while pipe.held() > 0 {
                let n = ready!(poll_io(cx, tcp, Interest::WRITABLE, || pipe.get().drain(tcp)))?;
                meter.wrote(n as u64);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes at most `allowed` bytes from the source, by splice or by copying; ready with their number, 0 at its end.
    fn poll_load(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        meter: &impl Meter,
        allowed: u64,
    ) -> Poll<Result<u64, PumpError<F::Error>>> {
        if self.moved >= SPLICE_AFTER
            && self.framing.blind() > SPLICE_AFTER
            && let (Some(from), Some(_)) = (source.plain(), sink.plain())
            && let Some(pipe) = self.pipe.take().or_else(pipes::take)
        {
            let mut pipe = pipe;
            let most = usize::try_from(self.framing.blind().min(allowed)).unwrap_or(usize::MAX);
            // Not ready: the pipe, empty, goes back to the pool.
            let n = ready!(poll_io(cx, from, Interest::READABLE, || pipe.get().fill(from, most)));
            let n = n.map_err(PumpError::Read)? as u64;
            meter.read(n);
            self.framing.passed(n);
            self.pipe = (n > 0).then_some(pipe);
            return Poll::Ready(Ok(n));
        }
        self.pipe = None;
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
        scratch::with(|buf| {
            let most = allowed.min(buf.len());
            self.poll_copy(cx, source, sink, meter, &mut buf[..most])
        })
    }

    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        meter: &impl Meter,
        scratch: &mut [u8],
    ) -> Poll<Result<u64, PumpError<F::Error>>> {
        let size = self.options.copy_size.min(scratch.len());
        // What follows the body belongs to another message and stays in the socket where that can be told.
        let remaining = self.framing.remaining().and_then(|left| usize::try_from(left).ok());
        let most = remaining.map_or(size, |left| left.min(size));
        let mut buf = ReadBuf::new(&mut scratch[..most]);
        ready!(Pin::new(&mut *source).poll_read(cx, &mut buf)).map_err(PumpError::Read)?;
        let bytes = buf.filled();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let admitted = self.framing.admit(bytes).map_err(PumpError::Framing)?;
        let (body, excess) = bytes.split_at(admitted);
        self.excess.extend_from_slice(excess);
        meter.read(bytes.len() as u64);
        // The end follows in this poll, unless a speed limit holds it up.
        let last = self.limits.is_none() && self.framing.ends_sink() && source.is_read_closed();
        let mut at = 0;
        while at < body.len() {
            match poll_write_some(cx, sink, &body[at..], last) {
                Poll::Ready(n) => {
                    let n = n.map_err(PumpError::Write)?;
                    meter.wrote(n as u64);
                    at += n;
                }
                Poll::Pending => {
                    self.unsent = body[at..].to_vec();
                    break;
                }
            }
        }
        Poll::Ready(Ok(bytes.len() as u64))
    }
}

fn poll_write_some(cx: &mut Context<'_>, sink: &mut Stream, bytes: &[u8], more: bool) -> Poll<io::Result<usize>> {
    let polled = if more {
        sink.poll_write_more(cx, bytes)
    } else {
        Pin::new(sink).poll_write(cx, bytes)
    };
    match ready!(polled) {
        Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        other => Poll::Ready(other),
    }
}

/// Runs `op` when `tcp` is ready for it, again each time the kernel says that it was not.
fn poll_io(
    cx: &mut Context<'_>,
    tcp: &TcpStream,
    interest: Interest,
    mut op: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        if interest.is_readable() {
            ready!(tcp.poll_read_ready(cx))?;
        } else {
            ready!(tcp.poll_write_ready(cx))?;
        }
        match tcp.try_io(interest, &mut op) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return Poll::Ready(other),
        }
    }
}

#[cfg(test)]
mod tests;
