//! A stream whose small writes leave together.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffer;

/// Bytes that are held at most: what one TLS record takes (RFC 8446 §5.1).
const HELD: usize = 16 * 1024;

/// For a library that flushes every message that it writes. While the [`Cork`] is in, flushing does nothing, and
/// messages go on only as [`HELD`] bytes are full; whoever drives the library takes the cork out when it rests.
pub struct Corked<S>(Arc<Mutex<State<S>>>);

/// Holds a [`Corked`] stream's writes back.
pub struct Cork<S>(Arc<Mutex<State<S>>>);

struct State<S> {
    stream: S,
    /// Written to us, and not yet to the stream. It owns memory only while it holds something.
    held: Vec<u8>,
    is_in: bool,
}

/// The cork of a stream is out at first.
pub fn corked<S>(stream: S) -> (Corked<S>, Cork<S>) {
    let state = Arc::new(Mutex::new(State {
        stream,
        held: Vec::new(),
        is_in: false,
    }));
    (Corked(Arc::clone(&state)), Cork(state))
}

/// The lock is for the compiler: one task has both ends.
fn lock<S>(state: &Mutex<State<S>>) -> MutexGuard<'_, State<S>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    /// Holds back what is written from now on.
    pub fn put_in(&self) {
        lock(&self.0).is_in = true;
    }

    /// Lets go what was held back. The task is woken for what the stream does not take now; a failure is told by the
    /// next write.
    pub fn take_out(&self, cx: &mut Context<'_>) {
        let mut state = lock(&self.0);
        state.is_in = false;
        let _ = state.poll_let_go(cx);
    }
}

impl<S: AsyncWrite + Unpin> State<S> {
    fn put(&mut self, bytes: &[u8]) -> usize {
        if self.held.capacity() == 0 {
            self.held = buffer::take();
        }
        let n = bytes.len().min(HELD - self.held.len());
        self.held.extend_from_slice(&bytes[..n]);
        n
    }

    /// Writes all that is held, and flushes.
    fn poll_let_go(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, held, .. } = self;
        let mut sent = 0;
        let written = loop {
            if sent == held.len() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut *stream).poll_write(cx, &held[sent..]) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => sent += n,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        held.drain(..sent);
        if held.is_empty() && held.capacity() > 0 {
            buffer::recycle(std::mem::take(held));
        }
        ready!(written)?;
        Pin::new(stream).poll_flush(cx)
    }

    /// Takes what there is room for, and makes room before.
    fn poll_put(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.held.len() == HELD {
            ready!(self.poll_let_go(cx))?;
        }
        let mut n = 0;
        for piece in pieces {
            let taken = self.put(piece);
            n += taken;
            if taken < piece.len() {
                break;
            }
        }
        Poll::Ready(Ok(n))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_put(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_put(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        if state.is_in {
            return Poll::Ready(Ok(()));
        }
        state.poll_let_go(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        ready!(state.poll_let_go(cx))?;
        Pin::new(&mut state.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    async fn take_out<S: AsyncWrite + Unpin>(cork: &Cork<S>) {
        poll_fn(|cx| {
            cork.take_out(cx);
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_written_with_the_cork_in_leaves_at_once_when_it_is_out() {
        let (near, mut far) = duplex(1 << 20);
        let (mut near, cork) = corked(near);
        cork.put_in();
        for _ in 0..3 {
            near.write_all(b"abc").await.unwrap();
            near.flush().await.unwrap();
        }
        let mut got = [0; 64];
        assert!(far.read(&mut got).now_or_never().is_none());
        take_out(&cork).await;
        assert_eq!(far.read(&mut got).await.unwrap(), 9);
        assert_eq!(lock(&cork.0).held.capacity(), 0, "an idle stream owns no memory");
    }

    #[tokio::test]
    async fn no_more_is_held_than_one_record() {
        let (near, mut far) = duplex(HELD);
        let (mut near, cork) = corked(near);
        cork.put_in();
        let written = near.write_all(&[7; 3 * HELD]).now_or_never();
        assert!(written.is_none(), "one is on its way, one is held");
        let mut got = vec![0; 2 * HELD];
        far.read_exact(&mut got[..HELD]).await.unwrap();
        take_out(&cork).await;
        far.read_exact(&mut got[HELD..]).await.unwrap();
        assert!(got.iter().all(|&byte| byte == 7));
    }

    #[tokio::test]
    async fn a_shutdown_leaves_nothing_behind() {
        let (near, mut far) = duplex(1 << 20);
        let (mut near, cork) = corked(near);
        cork.put_in();
        near.write_all(b"last words").await.unwrap();
        near.shutdown().await.unwrap();
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "last words");
    }
}
