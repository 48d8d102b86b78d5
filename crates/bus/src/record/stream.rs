//! A connection whose bytes are recorded as they go through.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use sluice_io::{SecureIo, Stream};
use sluice_wire::dump::Direction;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{FlowDump, Stalled};

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's: what is read goes to the upstream.
    Client,
    /// The upstream's: what is read goes to the client.
    Remote,
}

type Waiting = Pin<Box<dyn Future<Output = Result<(), Stalled>> + Send>>;

/// A connection whose bytes are recorded as they go through: what was really read, and what of a write was really
/// taken, once (TLS-19).
///
/// With the policy to stall, nothing more goes through before what did is written.
pub struct Recorded {
    inner: Stream,
    dump: Arc<FlowDump>,
    read: Direction,
    written: Direction,
    /// Until what went through is written; never locked, it makes the stream `Sync`.
    waiting: Mutex<Option<Waiting>>,
}

impl Recorded {
    /// Records what goes through `inner` from now on; bytes that were read ahead are the caller's to tell `dump`.
    pub fn new(inner: Stream, side: Side, dump: Arc<FlowDump>) -> Self {
        let (read, written) = match side {
            Side::Client => (Direction::ToRemote, Direction::ToClient),
            Side::Remote => (Direction::ToClient, Direction::ToRemote),
        };
        Self {
            inner,
            dump,
            read,
            written,
            waiting: Mutex::new(None),
        }
    }

    /// The same as a stream like any other.
    #[must_use]
    pub fn into_stream(self) -> Stream {
        Stream::Secure(Box::new(self))
    }

    /// Waits until what went through is written, if that is asked for.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waiting = self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_none() && self.dump.is_ready() {
            return Poll::Ready(Ok(()));
        }
        let future = waiting.get_or_insert_with(|| {
            let dump = Arc::clone(&self.dump);
            Box::pin(async move { dump.ready().await })
        });
        let done = std::task::ready!(future.as_mut().poll(cx));
        *waiting = None;
        Poll::Ready(done.map_err(|stalled| io::Error::new(io::ErrorKind::TimedOut, stalled)))
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

impl SecureIo for Recorded {
    fn transport(&self) -> &Stream {
        match &self.inner {
            plain @ Stream::Plain(_) => plain,
            Stream::Secure(tls) => tls.transport(),
        }
    }
}

impl AsyncRead for Recorded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_ready(cx))?;
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        self.dump.put(self.read, read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_ready(cx))?;
        let count = std::task::ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.dump.put(self.written, buf.get(..count).unwrap_or(buf));
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_ready(cx))?;
        let count = std::task::ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
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
