//! A client's connection.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use sluice_io::Stream;
use sluice_io::buffer::ReadBuffer;
use sluice_io::wheel::Timer;
use tokio::io::{AsyncWrite, Interest};

use crate::error::TaskError;
use crate::task::{Peers, Task};

/// How long a connection that is closed after an error is still read from, so that the reset which unread bytes
/// provoke does not overtake the reply (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);

/// A client, and what it has sent.
pub(crate) struct Client {
    pub(crate) stream: Stream,
    /// Received and not yet looked at.
    pub(crate) buf: ReadBuffer,
    /// The time-out of whatever is waited for.
    pub(crate) timer: Timer,
    pub(crate) peers: Peers,
    /// When the server began to wait for the request at hand.
    pub(crate) waiting_since: Instant,
}

/// What came of waiting for bytes.
#[derive(Debug)]
pub(crate) enum Fill {
    Bytes,
    Closed,
    Failed(io::Error),
    TimedOut,
}

impl Client {
    /// Waits for more bytes, at most until the timer fires.
    pub(crate) async fn fill(&mut self) -> Fill {
        let Self { stream, buf, timer, .. } = self;
        poll_fn(|cx| poll_fill(cx, stream, buf, timer)).await
    }

    /// As [`Self::fill`], but gives up as soon as `ending` holds. Whoever makes that so nudges the worker's wheel.
    pub(crate) async fn fill_unless(&mut self, ending: impl Fn() -> bool) -> Fill {
        let Self { stream, buf, timer, .. } = self;
        poll_fn(|cx| match poll_fill(cx, stream, buf, timer) {
            Poll::Pending if ending() => Poll::Ready(Fill::TimedOut),
            polled => polled,
        })
        .await
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// The connection's, or `TimedOut` if the client takes nothing for `stall`.
    pub(crate) async fn send(&mut self, bytes: &[u8], stall: Duration) -> io::Result<()> {
        write_all(&mut self.stream, bytes, &mut self.timer, stall).await
    }

    /// Sends all of `bytes`, the last ones that go to this client. The end of the stream shares their packet.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn send_last(&mut self, bytes: &[u8], stall: Duration) -> io::Result<()> {
        let stream = &mut self.stream;
        if stream.plain().is_none() {
            return write_all(stream, bytes, &mut self.timer, stall).await;
        }
        write(stream, bytes, true, &mut self.timer, stall).await?;
        // A failing shutdown means that the peer is gone, which is what comes next anyway.
        let _ = poll_fn(|cx| Pin::new(&mut *stream).poll_shutdown(cx)).await;
        Ok(())
    }

    /// Does what the client waits for, unless it goes before that is done; the error tells how.
    pub(crate) async fn while_it_waits<T>(&mut self, doing: impl Future<Output = T>) -> Result<T, TaskError> {
        tokio::select! {
            biased;
            done = doing => Ok(done),
            gone = self.gone() => Err(gone),
        }
    }

    /// Waits until the client has gone, while it can only wait for an answer. One that has sent more already may end its
    /// side and still wait; of such a client only a reset tells.
    async fn gone(&mut self) -> TaskError {
        self.timer.disarm();
        let Self { stream, buf, .. } = self;
        let read = if buf.is_empty() {
            poll_fn(|cx| buf.poll_fill(cx, stream)).await
        } else {
            Ok(buf.filled().len())
        };
        match read {
            Ok(0) => TaskError::ClosedByClient,
            Ok(_) => {
                let Some(tcp) = stream.tcp() else {
                    return std::future::pending().await;
                };
                match tcp.ready(Interest::ERROR).await {
                    Ok(_) => TaskError::ClientRead(
                        tcp.take_error()
                            .ok()
                            .flatten()
                            .unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
                    ),
                    Err(error) => TaskError::ClientRead(error),
                }
            }
            Err(error) => TaskError::ClientRead(error),
        }
    }

    /// Says that nothing follows, in the way of the stream; `false` if that cannot be said, or nobody listens.
    pub(crate) async fn shut(&mut self) -> bool {
        let Self { stream, timer, .. } = self;
        timer.arm(LINGER);
        poll_fn(|cx| match Pin::new(&mut *stream).poll_shutdown(cx) {
            Poll::Ready(shut) => Poll::Ready(shut.is_ok()),
            // TLS has something to say, and the client does not read.
            Poll::Pending => timer.poll_fired(cx).map(|()| false),
        })
        .await
    }

    /// Closes so that what was sent arrives even if the client is still sending.
    pub(crate) async fn close(mut self) {
        if !self.shut().await {
            return;
        }
        // No number of bytes ends this: a client may have megabytes on the way before it first looks at the reply. The
        // clock is asked as well as the timer, which nobody looks at while there is always more to read.
        let until = Instant::now() + LINGER;
        self.timer.arm(LINGER);
        while Instant::now() < until {
            let Fill::Bytes = self.fill().await else { return };
            self.buf.consume(self.buf.filled().len());
        }
    }
}

/// Reads once into `buf`.
pub(crate) fn poll_fill(
    cx: &mut Context<'_>,
    stream: &mut Stream,
    buf: &mut ReadBuffer,
    timer: &mut Timer,
) -> Poll<Fill> {
    match buf.poll_fill(cx, stream) {
        Poll::Ready(Ok(0)) => Poll::Ready(Fill::Closed),
        Poll::Ready(Ok(_)) => Poll::Ready(Fill::Bytes),
        Poll::Ready(Err(error)) => Poll::Ready(Fill::Failed(error)),
        Poll::Pending => timer.poll_fired(cx).map(|()| Fill::TimedOut),
    }
}

/// Sends all of `bytes`, giving up when the peer takes none for `stall`.
///
/// # Errors
/// The connection's, or `TimedOut`.
pub(crate) async fn write_all(stream: &mut Stream, bytes: &[u8], timer: &mut Timer, stall: Duration) -> io::Result<()> {
    write(stream, bytes, false, timer, stall).await
}

/// As [`write_all`]; if there is `more` to come at once, the last packet waits for it.
async fn write(stream: &mut Stream, bytes: &[u8], more: bool, timer: &mut Timer, stall: Duration) -> io::Result<()> {
    let mut at = 0;
    let mut armed = false;
    poll_fn(|cx| {
        loop {
            let polled = match (at < bytes.len(), more) {
                (true, false) => Pin::new(&mut *stream).poll_write(cx, &bytes[at..]),
                (true, true) => stream.poll_write_more(cx, &bytes[at..]),
                (false, _) => Pin::new(&mut *stream).poll_flush(cx).map_ok(|()| 0),
            };
            match polled {
                Poll::Ready(Ok(0)) if at < bytes.len() => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(n)) => {
                    at += n;
                    armed = false;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if !armed {
                        timer.arm(stall);
                        armed = true;
                    }
                    return timer.poll_fired(cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    })
    .await
}

/// Watches that a transfer goes on: it ends when nothing moved for too many idle checks in a row, when its server is
/// told to quit, or when its user is blocked. One timer serves the idle checks and the periodic log record.
pub(crate) struct Stall<'a> {
    task: &'a Task,
    moved: u64,
    checks: usize,
    since_log: Duration,
    log_due: bool,
}

impl<'a> Stall<'a> {
    pub(crate) fn new(task: &'a Task) -> Self {
        Self {
            task,
            moved: 0,
            checks: 0,
            since_log: Duration::ZERO,
            log_due: false,
        }
    }

    fn interval(&self) -> Duration {
        self.task.server().options.check_interval()
    }

    /// Starts the timer.
    pub(crate) fn arm(&self, timer: &mut Timer) {
        timer.arm(self.interval());
    }

    /// The timer has fired with so many bytes moved: an error if the transfer must end, else the timer runs again.
    pub(crate) fn check(&mut self, timer: &mut Timer, moved: u64) -> Option<TaskError> {
        if let Some(error) = self.task.must_end() {
            return Some(error);
        }
        if moved == self.moved {
            self.checks += 1;
            let idle = self.task.stall_limit().as_nanos();
            if self.interval().as_nanos() * self.checks as u128 >= idle {
                return Some(TaskError::Idle);
            }
        } else {
            self.checks = 0;
        }
        self.moved = moved;
        self.since_log += self.interval();
        self.log_due = self
            .task
            .server()
            .options
            .log_interval
            .is_some_and(|log| self.since_log >= log);
        if self.log_due {
            self.since_log = Duration::ZERO;
        }
        self.arm(timer);
        None
    }

    /// Whether the last check fell on the time of a periodic log record.
    pub(crate) fn is_log_due(&self) -> bool {
        self.log_due
    }
}

#[cfg(test)]
mod tests {
    use sluice_io::SecureIo;
    use sluice_io::wheel::Wheel;
    use tokio::io::{AsyncRead, ReadBuf};

    use super::*;

    /// TLS whose peer takes nothing more, `close_notify` neither.
    struct Full(Stream);

    impl SecureIo for Full {
        fn transport(&self) -> &Stream {
            &self.0
        }
    }

    impl AsyncRead for Full {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Full {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    /// TLS-04.
    #[tokio::test]
    async fn a_client_that_does_not_read_does_not_keep_its_connection_open() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let tcp = tokio::net::TcpStream::connect(addr).await.unwrap();
        tokio::time::pause();
        let wheel = Wheel::new();
        let client = Client {
            stream: Stream::Secure(Box::new(Full(tcp.into()))),
            buf: ReadBuffer::default(),
            timer: wheel.timer(),
            peers: Peers {
                client: addr,
                server: addr,
                told: None,
            },
            waiting_since: Instant::now(),
        };
        tokio::select! {
            () = client.close() => {}
            () = wheel.run() => {}
            () = tokio::time::sleep(2 * LINGER) => panic!("still open"),
        }
    }
}
