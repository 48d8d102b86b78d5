//! An asynchronous stream over `openssl::ssl::SslStream`.
//!
//! OpenSSL wants a write that it has begun to be repeated with the same bytes, which an asynchronous caller that gave up
//! cannot promise. So the bridge below it takes every record at once: what the connection does not take now waits in
//! `Bridge::out`, which is empty, and owns no memory, in an idle stream.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use foreign_types::ForeignTypeRef;
use openssl::ssl::{ErrorCode, Ssl, SslRef, SslStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::asked::has_asked;
use crate::error::{HandshakeError, PeerAlert, VerifyError};
use crate::{Alert, Closure};

/// The largest plain text of one record (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;

/// Unsent bytes with which nothing more is read: a peer that asks for new keys, or for a new handshake, again and again
/// is answered each time, and need not read the answers.
const MAX_UNSENT: usize = 4 * RECORD;

/// `SSL_AD_REASON_OFFSET`: a reason code from here on is a peer's alert.
const ALERT_REASONS: std::ops::Range<i32> = 1000..1256;

pub(crate) struct OpensslStream<IO> {
    ssl: SslStream<Bridge<IO>>,
    close_notify_sent: bool,
    /// Unsent bytes came up while reading, and no writer waits: the reader sends them.
    reader_flushes: bool,
    closure: Option<Closure>,
    /// The session may be resumed, however the connection ends: no fatal error has come up.
    sound: bool,
}

impl<IO> Drop for OpensslStream<IO> {
    #[expect(
        unsafe_code,
        reason = "the binding has this only where the connection's type is known to read and write"
    )]
    fn drop(&mut self) {
        if self.sound {
            // OpenSSL takes a session out of use whose connection is freed before `close_notify` was sent. A connection
            // that is cut is no reason (RFC 5246 §7.2.1).
            // SAFETY: the pointer is that of the live object behind the reference.
            unsafe { openssl_sys::SSL_set_shutdown(self.ssl.ssl().as_ptr(), openssl_sys::SSL_SENT_SHUTDOWN) };
        }
    }
}

struct Bridge<IO> {
    io: IO,
    waker: Waker,
    /// Read from the connection before the library was chosen for it, and not yet handed over.
    head: Vec<u8>,
    out: Vec<u8>,
    /// Set while reading beside a writer that waits for the connection: its waker must stay registered.
    hold: bool,
    /// Woken once all is sent: a reader that must not read before that.
    held_up: Option<Waker>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Read for Bridge<IO> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.is_full() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !self.head.is_empty() {
            let count = self.head.len().min(buf.len());
            buf.iter_mut()
                .zip(self.head.drain(..count))
                .for_each(|(to, from)| *to = from);
            return Ok(count);
        }
        let Self { io, waker, .. } = self;
        let mut buf = ReadBuf::new(buf);
        match Pin::new(io).poll_read(&mut Context::from_waker(waker), &mut buf)? {
            Poll::Ready(()) => Ok(buf.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Write for Bridge<IO> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        if self.out.is_empty() && !self.hold {
            let Self { io, waker, .. } = self;
            if let Poll::Ready(n) = Pin::new(io).poll_write(&mut Context::from_waker(waker), buf)? {
                sent = n;
            }
        }
        self.out.extend_from_slice(buf.get(sent..).unwrap_or_default());
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<IO> Bridge<IO> {
    fn is_full(&self) -> bool {
        self.out.len() > MAX_UNSENT
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Bridge<IO> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sent = 0;
        let result = loop {
            let rest = self.out.get(sent..).unwrap_or_default();
            if rest.is_empty() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.io).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => sent += n,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if sent == self.out.len() {
            self.out = Vec::new();
            if let Some(reader) = self.held_up.take() {
                reader.wake();
            }
        } else {
            self.out.drain(..sent);
        }
        result
    }
}

/// Which way a handshake goes.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Client,
    Server,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> OpensslStream<IO> {
    /// Shakes hands over `io`, of which `head` has been read already.
    pub(crate) async fn handshake(ssl: Ssl, io: IO, head: Vec<u8>, side: Side) -> Result<Self, HandshakeError> {
        let bridge = Bridge {
            io,
            waker: Waker::noop().clone(),
            head,
            out: Vec::new(),
            hold: false,
            held_up: None,
        };
        let ssl = SslStream::new(ssl, bridge).map_err(|e| HandshakeError::Library(Box::new(e)))?;
        let mut stream = Self {
            ssl,
            close_notify_sent: false,
            reader_flushes: false,
            closure: None,
            sound: false,
        };
        // A flight leaves as one.
        stream.ssl.get_mut().hold = true;
        let result = poll_fn(|cx| {
            stream.enter(cx);
            let step = match side {
                Side::Client => stream.ssl.connect(),
                Side::Server => stream.ssl.accept(),
            };
            match step {
                Ok(()) => match side {
                    // It leaves with what the client says first, or when that awaits something.
                    Side::Client => Poll::Ready(Ok(())),
                    // What is left, such as tickets, the client need not read before it speaks.
                    Side::Server => match stream.ssl.get_mut().poll_drain(cx) {
                        Poll::Ready(Err(error)) => Poll::Ready(Err(HandshakeError::Io(error))),
                        Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
                    },
                },
                Err(error) if is_wait(error.code()) => {
                    // The peer answers only what it got: our flight goes out before its is awaited.
                    match stream.ssl.get_mut().poll_drain(cx) {
                        Poll::Ready(Err(error)) => Poll::Ready(Err(HandshakeError::Io(error))),
                        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
                    }
                }
                Err(error) => {
                    let ssl = stream.ssl.ssl();
                    let error = handshake_error(error, ssl, side);
                    Poll::Ready(Err(if has_asked(ssl) {
                        error.without_certificate()
                    } else {
                        error
                    }))
                }
            }
        })
        .await;
        stream.ssl.get_mut().hold = false;
        if let Err(error) = result {
            // The alert that tells the peer why is worth one try, not a wait.
            poll_fn(|cx| {
                let _ = stream.ssl.get_mut().poll_drain(cx);
                Poll::Ready(())
            })
            .await;
            return Err(error);
        }
        stream.reader_flushes = true;
        stream.sound = true;
        Ok(stream)
    }
}

impl<IO> OpensslStream<IO> {
    pub(crate) fn ssl(&self) -> &SslRef {
        self.ssl.ssl()
    }

    pub(crate) fn io(&self) -> &IO {
        &self.ssl.get_ref().io
    }

    pub(crate) fn io_mut(&mut self) -> &mut IO {
        &mut self.ssl.get_mut().io
    }

    pub(crate) fn closure(&self) -> Option<Closure> {
        self.closure
    }

    fn enter(&mut self, cx: &Context<'_>) {
        let bridge = self.ssl.get_mut();
        if !bridge.waker.will_wake(cx.waker()) {
            bridge.waker.clone_from(cx.waker());
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for OpensslStream<IO> {
    #[expect(
        unsafe_code,
        reason = "zeroing each buffer before OpenSSL fills it would cost a pass over it"
    )]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.enter(cx);
        let this = &mut *self;
        let writer_waits = !this.ssl.get_ref().out.is_empty() && !this.reader_flushes;
        this.ssl.get_mut().hold = writer_waits;
        // SAFETY: `ssl_read_uninit` only ever writes initialised bytes to the slice.
        let read = this.ssl.ssl_read_uninit(unsafe { buf.unfilled_mut() });
        this.ssl.get_mut().hold = false;
        if this.ssl.get_ref().is_full() {
            // Whoever sends the last of it wakes us, be it ourselves.
            this.ssl.get_mut().held_up = Some(cx.waker().clone());
        }
        if !writer_waits && !this.ssl.get_ref().out.is_empty() {
            this.reader_flushes = this.ssl.get_mut().poll_drain(cx)?.is_pending();
        }
        match read {
            Ok(n) => {
                // SAFETY: `ssl_read_uninit` has initialised the first `n` bytes.
                unsafe { buf.assume_init(n) };
                buf.advance(n);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.code() == ErrorCode::ZERO_RETURN => {
                this.closure = Some(Closure::Orderly);
                Poll::Ready(Ok(()))
            }
            Err(error) if is_wait(error.code()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(this.stream_error(error))),
        }
    }
}

impl<IO> OpensslStream<IO> {
    fn stream_error(&mut self, error: openssl::ssl::Error) -> io::Error {
        self.sound = is_eof(&error) || error.code() == ErrorCode::SYSCALL;
        if let Some(alert) = peer_alert(&error) {
            self.closure = Some(if alert.is_orderly() {
                Closure::Orderly
            } else {
                Closure::Abortive(alert)
            });
            return io::Error::new(io::ErrorKind::ConnectionAborted, PeerAlert(alert));
        }
        if is_eof(&error) {
            return io::ErrorKind::UnexpectedEof.into();
        }
        error
            .into_io_error()
            .unwrap_or_else(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

thread_local! {
    /// Where small pieces become one record.
    static GATHER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for OpensslStream<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.enter(cx);
        let this = &mut *self;
        // Nobody has waited for what the handshake left, so nothing says that the connection is full.
        let goes_along = std::mem::take(&mut this.reader_flushes) && !buf.is_empty();
        if !goes_along {
            ready!(this.ssl.get_mut().poll_drain(cx))?;
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.ssl.get_mut().hold = goes_along;
        let written = this.ssl.ssl_write(buf.get(..RECORD).unwrap_or(buf));
        this.ssl.get_mut().hold = false;
        if goes_along {
            // What is left waits for the next write, as it always does.
            let _ = this.ssl.get_mut().poll_drain(cx)?;
        }
        Poll::Ready(match written {
            Ok(n) => Ok(n),
            // Only a handshake in the middle of the stream waits here, and renegotiation is off.
            Err(error) if is_wait(error.code()) => return Poll::Pending,
            Err(error) => Err(this.stream_error(error)),
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut pieces = bufs.iter().filter(|buf| !buf.is_empty());
        let Some(first) = pieces.next() else {
            return self.poll_write(cx, &[]);
        };
        if first.len() >= RECORD || pieces.next().is_none() {
            return self.poll_write(cx, first);
        }
        GATHER.with_borrow_mut(|record| {
            record.clear();
            for buf in bufs {
                let room = RECORD - record.len();
                record.extend_from_slice(buf.get(..room).unwrap_or(buf));
            }
            self.poll_write(cx, record)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.reader_flushes = false;
        let bridge = self.ssl.get_mut();
        ready!(bridge.poll_drain(cx))?;
        Pin::new(&mut bridge.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.enter(cx);
        let this = &mut *self;
        this.reader_flushes = false;
        if !this.close_notify_sent {
            // A broken stream has nothing to say any more; the connection below is closed all the same.
            let _ = this.ssl.shutdown();
            this.close_notify_sent = true;
        }
        let bridge = this.ssl.get_mut();
        ready!(bridge.poll_drain(cx))?;
        Pin::new(&mut bridge.io).poll_shutdown(cx)
    }
}

fn is_wait(code: ErrorCode) -> bool {
    // The callbacks that would wait for something else are not set.
    code == ErrorCode::WANT_READ || code == ErrorCode::WANT_WRITE
}

fn peer_alert(error: &openssl::ssl::Error) -> Option<Alert> {
    error.ssl_error()?.errors().iter().find_map(|error| {
        let reason = error.reason_code();
        ALERT_REASONS
            .contains(&reason)
            .then(|| u8::try_from(reason - ALERT_REASONS.start).ok().map(Alert))
            .flatten()
    })
}

fn is_eof(error: &openssl::ssl::Error) -> bool {
    if error.code() == ErrorCode::SYSCALL {
        return error.io_error().is_none();
    }
    // OpenSSL 3 has a reason of its own for it; the others make it the case above.
    const UNEXPECTED_EOF_WHILE_READING: i32 = 294;
    cfg!(not(boring))
        && error.ssl_error().is_some_and(|stack| {
            stack
                .errors()
                .iter()
                .any(|error| error.reason_code() == UNEXPECTED_EOF_WHILE_READING)
        })
}

fn handshake_error(error: openssl::ssl::Error, ssl: &SslRef, side: Side) -> HandshakeError {
    if let Some(alert) = peer_alert(&error) {
        return HandshakeError::Alert(alert);
    }
    if is_eof(&error) {
        return HandshakeError::Closed;
    }
    let error = match error.into_io_error() {
        Ok(error) => return HandshakeError::Io(error),
        Err(error) => error,
    };
    // A server that demands no certificate has the result OK.
    if let Some(verify) = VerifyError::from_openssl(ssl.verify_result()) {
        return HandshakeError::Verify(verify);
    }
    let reasons: Vec<&str> = error
        .ssl_error()
        .map(|stack| {
            stack
                .errors()
                .iter()
                .filter_map(openssl::error::Error::reason)
                .collect()
        })
        .unwrap_or_default();
    let role = match side {
        Side::Client => "server",
        Side::Server => "client",
    };
    HandshakeError::Protocol(if reasons.is_empty() {
        format!("the {role}'s handshake failed: {error}")
    } else {
        reasons.join("; ")
    })
}
