//! A stream whose bytes are told to somebody, and come no faster than its limits let them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::pump::PumpOptions;
use crate::throttle::{SharedLimit, StreamLimits};

/// Is told which bytes pass, when they pass.
pub trait Tap {
    /// These were read.
    fn read(&self, bytes: &[u8]);
    /// These were written.
    fn wrote(&self, bytes: &[u8]);
}

/// For what moves its bytes itself, as libraries of protocols do; see [`crate::pump`] for all else.
pub struct Metered<S, T> {
    stream: S,
    tap: T,
    /// Of reading.
    limits: Option<Box<StreamLimits>>,
}

impl<S, T: Tap> Metered<S, T> {
    /// Of `options` the rate counts, which like `shared` is a limit of what is read from the stream.
    pub fn new(stream: S, tap: T, options: &PumpOptions, shared: Option<Arc<SharedLimit>>) -> Self {
        let mut limits = options.rate.map(|rate| Box::new(StreamLimits::of(rate)));
        if let Some(shared) = shared {
            limits.get_or_insert_default().share(shared);
        }
        Self { stream, tap, limits }
    }
}

impl<S: AsyncRead + Unpin, T: Tap + Unpin> AsyncRead for Metered<S, T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, tap, limits } = self.get_mut();
        let before = buf.filled().len();
        match limits {
            None => ready!(Pin::new(stream).poll_read(cx, buf))?,
            Some(limits) => {
                let allowed = ready!(limits.poll_allowed(cx, buf.remaining() as u64));
                let room = usize::try_from(allowed).unwrap_or(usize::MAX).min(buf.remaining());
                let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
                let read = Pin::new(stream).poll_read(cx, &mut part);
                let n = part.filled().len();
                limits.settle(n as u64);
                ready!(read)?;
                buf.advance(n);
            }
        }
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            tap.read(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, T: Tap + Unpin> AsyncWrite for Metered<S, T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, tap, .. } = self.get_mut();
        let n = ready!(Pin::new(stream).poll_write(cx, bytes))?;
        tap.wrote(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;
    use crate::throttle::Rate;

    #[derive(Default)]
    struct Noted(RefCell<(Vec<u8>, Vec<u8>)>);

    impl Tap for &Noted {
        fn read(&self, bytes: &[u8]) {
            self.0.borrow_mut().0.extend_from_slice(bytes);
        }

        fn wrote(&self, bytes: &[u8]) {
            self.0.borrow_mut().1.extend_from_slice(bytes);
        }
    }

    /// TLS-19: of a write that is taken in part that part is told.
    #[tokio::test]
    async fn what_passes_is_told_once() {
        let (near, mut far) = duplex(4);
        let noted = Noted::default();
        let mut near = Metered::new(near, &noted, &PumpOptions::default(), None);
        assert_eq!(near.write(b"abcdef").await.unwrap(), 4);
        assert_eq!(noted.0.borrow().1, b"abcd");
        far.write_all(b"xy").await.unwrap();
        let mut got = [0; 8];
        assert_eq!(near.read(&mut got).await.unwrap(), 2);
        assert_eq!(noted.0.borrow().0, b"xy");
    }

    #[tokio::test(start_paused = true)]
    async fn reading_goes_at_its_rate() {
        let (near, mut far) = duplex(1 << 20);
        let noted = Noted::default();
        let options = PumpOptions {
            rate: Some(Rate {
                bytes: 10_000,
                per: Duration::from_secs(1),
            }),
            ..PumpOptions::default()
        };
        let mut near = Metered::new(near, &noted, &options, None);
        far.write_all(&[7; 50_000]).await.unwrap();
        drop(far);
        let began = Instant::now();
        let mut whole = Vec::new();
        near.read_to_end(&mut whole).await.unwrap();
        let seconds = began.elapsed().as_secs_f64();
        assert!(whole.len() == 50_000 && (4.9..5.1).contains(&seconds), "{seconds}");
    }
}
