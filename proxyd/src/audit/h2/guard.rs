//! What a peer may send beside requests and answers.
//!
//! The library answers each SETTINGS and PING and takes each PRIORITY, WINDOW_UPDATE and unknown frame, however many
//! there are (CVE-2019-9512, -9515), and says PROTOCOL_ERROR of a frame of a wrong size. So frames are looked at as they
//! are read, before it sees them: heads and data earn a peer what it may send of all else.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use h2::Reason;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Other frames that a peer may send at first.
const BURST: u64 = 1000;
/// Others that each frame of a head or of data is good for, of either side.
const PER_MESSAGE: u64 = 4;
/// Others that each second is good for.
const PER_SECOND: u64 = 100;
/// The most that can be saved.
const SAVINGS: u64 = 10 * BURST;

/// "PRI * HTTP/2.0" and so on (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// A frame's (RFC 9113 §4.1).
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;

/// What a peer has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Offence {
    #[error("control frames without end")]
    Flood,
    #[error("something else than SETTINGS first")]
    NoSettings,
    #[error("a frame of type {0:#x} that is too short or too long")]
    Size(u8),
}

impl Offence {
    /// What it is told.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Flood => Reason::ENHANCE_YOUR_CALM,
            Self::NoSettings => Reason::PROTOCOL_ERROR,
            Self::Size(_) => Reason::FRAME_SIZE_ERROR,
        }
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
    read: Frames,
    written: Frames,
    /// Whether the first frame has come.
    begun: bool,
    left: u64,
    /// Up to when seconds have been counted.
    since: Instant,
    offences: Offences,
}

impl<S> Guarded<S> {
    /// Of a client.
    pub(super) fn client(stream: S) -> (Self, Offences) {
        Self::new(stream, Frames::behind(PREFACE), Frames::behind(0))
    }

    /// Of an upstream.
    pub(super) fn upstream(stream: S) -> (Self, Offences) {
        Self::new(stream, Frames::behind(0), Frames::behind(PREFACE))
    }

    fn new(stream: S, read: Frames, written: Frames) -> (Self, Offences) {
        let offences = Offences::default();
        let this = Self {
            stream,
            read,
            written,
            begun: false,
            left: BURST,
            since: Instant::now(),
            offences: offences.clone(),
        };
        (this, offences)
    }

    /// Takes the next frame of the peer into account.
    fn receive(&mut self, head: FrameHead) -> Result<(), Offence> {
        if !std::mem::replace(&mut self.begun, true) && (head.kind != SETTINGS || head.flags & ACK != 0) {
            return Err(Offence::NoSettings);
        }
        if !head.has_right_size() {
            return Err(Offence::Size(head.kind));
        }
        match head.kind {
            HEADERS => self.earn(PER_MESSAGE),
            DATA if head.length > 0 => self.earn(PER_MESSAGE),
            // The library limits these.
            CONTINUATION => {}
            _ => {
                if self.left == 0 {
                    self.count_time();
                }
                self.left = self.left.checked_sub(1).ok_or(Offence::Flood)?;
            }
        }
        Ok(())
    }

    fn earn(&mut self, frames: u64) {
        self.left = self.left.saturating_add(frames).min(SAVINGS);
    }

    fn count_time(&mut self) {
        let now = Instant::now();
        let earned = (now - self.since).as_millis() * u128::from(PER_SECOND) / 1000;
        if let Ok(earned @ 1..) = u64::try_from(earned) {
            self.since = now;
            self.earn(earned);
        }
    }

    /// Takes what has been sent to the peer into account.
    fn sent<'b>(&mut self, parts: impl Iterator<Item = &'b [u8]>, mut sent: usize) {
        for part in parts {
            let part = part.get(..sent).unwrap_or(part);
            sent -= part.len();
            let mut messages = 0;
            let _: Result<(), (usize, Offence)> = self.written.follow(part, |head| {
                messages += u64::from(matches!(head.kind, HEADERS | DATA));
                Ok(())
            });
            self.earn(messages * PER_MESSAGE);
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
        let mut frames = std::mem::take(&mut this.read);
        let followed = frames.follow(&buf.filled()[before..], |head| this.receive(head));
        this.read = frames;
        if let Err((at, offence)) = followed {
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

/// The beginning of a frame.
#[derive(Debug, Clone, Copy)]
struct FrameHead {
    length: usize,
    kind: u8,
    flags: u8,
}

impl FrameHead {
    fn parse(&[a, b, c, kind, flags, ..]: &[u8; HEAD]) -> Self {
        Self {
            length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            kind,
            flags,
        }
    }

    /// Of those with a size of their own (RFC 9113 §6.3 to §6.9).
    fn has_right_size(self) -> bool {
        match self.kind {
            PRIORITY => self.length == 5,
            RST_STREAM | WINDOW_UPDATE => self.length == 4,
            SETTINGS if self.flags & ACK != 0 => self.length == 0,
            SETTINGS => self.length.is_multiple_of(6),
            PING => self.length == 8,
            GOAWAY => self.length >= 8,
            _ => true,
        }
    }
}

/// Finds frames in bytes that come in any pieces.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes until the next frame begins.
    skip: usize,
    head: [u8; HEAD],
    /// Bytes of `head` so far.
    have: usize,
}

impl Frames {
    fn behind(skip: usize) -> Self {
        Self {
            skip,
            ..Self::default()
        }
    }

    /// Tells `each` of every frame whose head ends in `bytes`.
    ///
    /// # Errors
    /// Its error, and how many of `bytes` come before that frame.
    fn follow<E>(&mut self, bytes: &[u8], mut each: impl FnMut(FrameHead) -> Result<(), E>) -> Result<(), (usize, E)> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.skip > 0 {
                let skipped = self.skip.min(rest.len());
                self.skip -= skipped;
                at += skipped;
                continue;
            }
            let begin = at;
            let n = (HEAD - self.have).min(rest.len());
            self.head[self.have..self.have + n].copy_from_slice(&rest[..n]);
            self.have += n;
            at += n;
            if self.have == HEAD {
                self.have = 0;
                let head = FrameHead::parse(&self.head);
                self.skip = head.length;
                each(head).map_err(|error| (begin, error))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn frame(kind: u8, flags: u8, length: u16) -> Vec<u8> {
        let [high, low] = length.to_be_bytes();
        let mut frame = vec![0, high, low, kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + usize::from(length), 0);
        frame
    }

    /// How many bytes of `sent`, which come in pieces of `size`, can be read from a client, and why no more.
    async fn guarded(sent: &[u8], size: usize) -> (usize, Option<Offence>) {
        let (mut peer, ours) = duplex(1 << 20);
        let (mut guarded, offences) = Guarded::client(ours);
        let mut got = 0;
        for piece in sent.chunks(size) {
            peer.write_all(piece).await.unwrap();
            let mut buf = vec![0; piece.len()];
            tokio::select! {
                biased;
                n = guarded.read(&mut buf) => got += n.unwrap(),
                () = std::future::ready(()) => {}
            }
        }
        (got, offences.get())
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_found_in_any_pieces() {
        let good = [
            vec![b'x'; PREFACE],
            frame(SETTINGS, 0, 6),
            frame(SETTINGS, ACK, 0),
            frame(HEADERS, 4, 300),
            frame(PING, 0, 8),
            frame(0x77, 0xff, 0),
        ]
        .concat();
        let bad = [&good[..], &frame(PING, 0, 7)].concat();
        for size in [1, 2, 7, 100, bad.len()] {
            assert_eq!(guarded(&good, size).await, (good.len(), None), "{size}");
            let (got, offence) = guarded(&bad, size).await;
            assert_eq!(offence, Some(Offence::Size(PING)), "{size}");
            assert!(got >= good.len() && got < good.len() + HEAD, "{size}: {got}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_have_their_sizes_and_settings_come_first() {
        let begun = [vec![b'x'; PREFACE], frame(SETTINGS, 0, 0)].concat();
        for (kind, flags, length, good) in [
            (PRIORITY, 0, 4, false),
            (RST_STREAM, 0, 3, false),
            (RST_STREAM, 0, 4, true),
            (SETTINGS, 0, 5, false),
            (SETTINGS, ACK, 6, false),
            (PING, ACK, 9, false),
            (GOAWAY, 0, 7, false),
            (GOAWAY, 0, 80, true),
            (WINDOW_UPDATE, 0, 5, false),
            (DATA, 0, 0, true),
        ] {
            let sent = [&begun[..], &frame(kind, flags, length)].concat();
            let wanted = (!good).then_some(Offence::Size(kind));
            assert_eq!(guarded(&sent, sent.len()).await.1, wanted, "{kind} {length}");
        }
        for first in [frame(PING, 0, 8), frame(SETTINGS, ACK, 0)] {
            let sent = [vec![b'x'; PREFACE], first].concat();
            assert_eq!(guarded(&sent, sent.len()).await, (PREFACE, Some(Offence::NoSettings)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_sends_as_much_as_it_has_earned() {
        let many = usize::try_from(BURST).unwrap() - 1;
        let begun = [
            vec![b'x'; PREFACE],
            frame(SETTINGS, 0, 0),
            frame(PING, 0, 8).repeat(many),
        ]
        .concat();
        assert_eq!(guarded(&begun, begun.len()).await, (begun.len(), None));
        let next = frame(WINDOW_UPDATE, 0, 4);
        let over = [&begun[..], &next[..]].concat();
        assert_eq!(guarded(&over, over.len()).await, (begun.len(), Some(Offence::Flood)));
        for (message, earned) in [
            (frame(DATA, 0, 1), 4),
            (frame(HEADERS, 0, 1), 4),
            (frame(DATA, 0, 0), 0),
        ] {
            let sent = [&begun[..], &message[..], &next.repeat(earned)].concat();
            assert_eq!(guarded(&sent, sent.len()).await.1.is_none(), earned > 0);
            let over = [&sent[..], &next[..]].concat();
            assert_eq!(guarded(&over, over.len()).await.1, Some(Offence::Flood));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_and_what_is_sent_to_a_peer_earn_it_frames() {
        let (mut peer, ours) = duplex(1 << 20);
        let (mut ours, offences) = Guarded::client(ours);
        let many = usize::try_from(BURST).unwrap() - 1;
        let begun = [
            vec![b'x'; PREFACE],
            frame(SETTINGS, 0, 0),
            frame(PING, 0, 8).repeat(many),
        ]
        .concat();
        let mut buf = vec![0; begun.len()];
        peer.write_all(&begun).await.unwrap();
        ours.read_exact(&mut buf).await.unwrap();
        // A second's, then those of two messages.
        for (seconds, messages, earned) in [(1, 0, 100), (0, 2, 8)] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            for _ in 0..messages {
                ours.write_all(&frame(DATA, 0, 100)).await.unwrap();
            }
            let updates = frame(WINDOW_UPDATE, 0, 4).repeat(earned);
            peer.write_all(&updates).await.unwrap();
            ours.read_exact(&mut buf[..updates.len()]).await.unwrap();
        }
        peer.write_all(&frame(WINDOW_UPDATE, 0, 4)).await.unwrap();
        let more =
            std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut ours).poll_read(cx, &mut ReadBuf::new(&mut buf))));
        assert!(more.await.is_pending());
        assert_eq!(offences.get(), Some(Offence::Flood));
    }
}
