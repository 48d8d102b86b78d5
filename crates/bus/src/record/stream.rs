//! A connection whose bytes are recorded as they go through.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use sluice_io::{SecureIo, Stream};
use sluice_wire::dump::Direction;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    FlowDump,
    held::{Held, over},
};

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's: what is read goes to the upstream.
    Client,
    /// The upstream's: what is read goes to the client.
    Remote,
}

/// A connection whose bytes are recorded as they go through: what was really read, and what of a write was really
/// taken, once (TLS-19).
///
/// With the policy to stall, nothing goes on before it is written: what was read is held back, and so is a write, which
/// then counts as taken when all that was recorded of it has gone on.
pub struct Recorded {
    inner: Stream,
    dump: Arc<FlowDump>,
    read: Direction,
    written: Direction,
    /// What is read, and what is to be written, with the policy to stall.
    held: Option<Box<(Held, Held)>>,
}

impl Recorded {
    /// Records what goes through `inner` from now on.
    pub fn new(inner: Stream, side: Side, dump: Arc<FlowDump>) -> Self {
        let (read, written) = match side {
            Side::Client => (Direction::ToRemote, Direction::ToClient),
            Side::Remote => (Direction::ToClient, Direction::ToRemote),
        };
        Self {
            inner,
            held: dump
                .is_strict()
                .then(|| Box::new((Held::new(read), Held::new(written)))),
            dump,
            read,
            written,
        }
    }

    /// The same as a stream like any other.
    #[must_use]
    pub fn into_stream(self) -> Stream {
        Stream::Secure(Box::new(self))
    }

    /// Records the first `count` bytes of what was offered.
    pub(super) fn wrote(&self, bufs: &[IoSlice<'_>], count: usize) {
        let mut left = count;
        for buf in bufs {
            let (taken, _) = buf.split_at(buf.len().min(left));
            self.dump.put(self.written, taken);
            left -= taken.len();
        }
    }
}

/// Reads, and gives what was read once it is written.
fn poll_read_held(
    inner: &mut Stream,
    dump: &Arc<FlowDump>,
    held: &mut Held,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    dump.check().map_err(over)?;
    if buf.remaining() == 0 {
        return Poll::Ready(Ok(()));
    }
    while held.is_empty() {
        let before = buf.filled().len();
        ready!(Pin::new(&mut *inner).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        let is_end = read.is_empty();
        held.hold_read(dump, read, is_end);
        buf.set_filled(before);
        if is_end && held.is_empty() {
            return Poll::Ready(Ok(()));
        }
    }
    ready!(held.poll_written(cx))?;
    held.give(buf);
    Poll::Ready(Ok(()))
}

/// Records the beginning of a write, and lets it go on once that is written.
fn poll_write_held(
    inner: &mut Stream,
    dump: &Arc<FlowDump>,
    held: &mut Held,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let offered: usize = bufs.iter().map(|buf| buf.len()).sum();
    if offered == 0 {
        return Poll::Ready(Ok(0));
    }
    dump.check().map_err(over)?;
    if held.is_empty() {
        held.hold_write(dump, bufs);
    }
    loop {
        let rest = ready!(held.poll_written(cx))?;
        if rest.is_empty() {
            break;
        }
        match ready!(Pin::new(&mut *inner).poll_write(cx, rest))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => held.go(count),
        }
    }
    // Who has waited offers the same bytes again, and maybe more. Fewer of them would go on twice.
    match held.done() {
        count if count <= offered => Poll::Ready(Ok(count)),
        _ => Poll::Ready(Err(io::ErrorKind::InvalidInput.into())),
    }
}

impl SecureIo for Recorded {
    fn transport(&self) -> &Stream {
        match &self.inner {
            bottom @ (Stream::Plain(_) | Stream::Inside(_)) => bottom,
            Stream::Secure(tls) => tls.transport(),
        }
    }
}

impl AsyncRead for Recorded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, dump, held, .. } = &mut *self;
        if let Some(held) = held {
            return poll_read_held(inner, dump, &mut held.0, cx, buf);
        }
        let before = buf.filled().len();
        ready!(Pin::new(inner).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        self.dump.put(self.read, read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { inner, dump, held, .. } = &mut *self;
        if let Some(held) = held {
            return poll_write_held(inner, dump, &mut held.1, cx, &[IoSlice::new(buf)]);
        }
        let count = ready!(Pin::new(inner).poll_write(cx, buf))?;
        self.dump.put(self.written, buf.get(..count).unwrap_or(buf));
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { inner, dump, held, .. } = &mut *self;
        if let Some(held) = held {
            return poll_write_held(inner, dump, &mut held.1, cx, bufs);
        }
        let count = ready!(Pin::new(inner).poll_write_vectored(cx, bufs))?;
        self.wrote(bufs, count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
