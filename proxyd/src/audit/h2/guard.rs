//! What a peer may send beside requests and answers, looked at as it is read (`crates/http2`).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use h2::Reason;
pub(crate) use sluice_http2::Offence;
use sluice_http2::{Guard, Refused};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What a peer is told of its offence.
pub(super) fn reason(offence: Offence) -> Reason {
    match offence {
        Offence::Flood => Reason::ENHANCE_YOUR_CALM,
        Offence::NoSettings => Reason::PROTOCOL_ERROR,
        Offence::Size(_) => Reason::FRAME_SIZE_ERROR,
    }
}

/// Tells of an offence, which ends what can be read of a [`Guarded`]: whoever polls it must look.
#[derive(Debug, Clone, Default)]
pub(super) struct Offences(Arc<OnceLock<Offence>>);

impl Offences {
    pub(super) fn get(&self) -> Option<Offence> {
        self.0.get().copied()
    }
}

/// A stream of HTTP/2 frames whose peer is looked after.
pub(super) struct Guarded<S> {
    stream: S,
    guard: Guard,
    /// When the guard was made.
    since: Instant,
    offences: Offences,
}

impl<S> Guarded<S> {
    /// Of a client.
    pub(super) fn client(stream: S) -> (Self, Offences) {
        Self::new(stream, Guard::of_client())
    }

    /// Of an upstream.
    pub(super) fn upstream(stream: S) -> (Self, Offences) {
        Self::new(stream, Guard::of_upstream())
    }

    fn new(stream: S, guard: Guard) -> (Self, Offences) {
        let offences = Offences::default();
        let this = Self {
            stream,
            guard,
            since: Instant::now(),
            offences: offences.clone(),
        };
        (this, offences)
    }

    /// Takes what has been sent to the peer into account.
    fn sent<'b>(&mut self, parts: impl Iterator<Item = &'b [u8]>, mut sent: usize) {
        for part in parts {
            let part = part.get(..sent).unwrap_or(part);
            sent -= part.len();
            self.guard.sent(part);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.offences.get().is_some() {
            // Nobody is woken: who polls has been told.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let received = this.guard.received(&buf.filled()[before..], || this.since.elapsed());
        if let Err(Refused { at, offence }) = received {
            let _ = this.offences.0.set(offence);
            buf.set_filled(before + at);
            if at == 0 {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.sent(std::iter::once(bytes), n);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, parts))?;
        this.sent(parts.iter().map(|part| &**part), n);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const SHORT_PING: &[u8] = &[0, 0, 7, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7];
    const EMPTY_DATA: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0, 1];

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_from_a_frame_on_that_must_go_no_further() {
        let (mut peer, ours) = duplex(1 << 10);
        let (mut ours, offences) = Guarded::client(ours);
        let good = [PREFACE, SETTINGS].concat();
        peer.write_all(&[&good[..], SHORT_PING, PING].concat()).await.unwrap();
        let mut buf = [0; 1 << 10];
        assert_eq!(ours.read(&mut buf).await.unwrap(), good.len());
        assert_eq!(offences.get(), Some(Offence::Size(6)));
    }

    #[tokio::test(start_paused = true)]
    async fn time_and_what_is_written_earn_a_peer_frames() {
        let (mut peer, ours) = duplex(1 << 20);
        let (mut ours, offences) = Guarded::client(ours);
        let mut buf = vec![0; 1 << 20];
        let begun = [PREFACE, SETTINGS, &PING.repeat(999)].concat();
        peer.write_all(&begun).await.unwrap();
        ours.read_exact(&mut buf[..begun.len()]).await.unwrap();
        // A second's, then those of two messages.
        for (seconds, messages, earned) in [(1, 0, 100), (0, 2, 8)] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            let parts = vec![IoSlice::new(EMPTY_DATA); messages];
            let written = poll_fn(|cx| Pin::new(&mut ours).poll_write_vectored(cx, &parts)).await;
            assert_eq!(written.unwrap(), messages * EMPTY_DATA.len());
            peer.write_all(&PING.repeat(earned)).await.unwrap();
            ours.read_exact(&mut buf[..earned * PING.len()]).await.unwrap();
        }
        peer.write_all(PING).await.unwrap();
        let more = poll_fn(|cx| Poll::Ready(Pin::new(&mut ours).poll_read(cx, &mut ReadBuf::new(&mut buf)))).await;
        assert!(more.is_pending());
        assert_eq!(offences.get(), Some(Offence::Flood));
    }
}
