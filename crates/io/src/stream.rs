//! A connection to a peer, plain or behind TLS.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use sluice_sys::socket::send_more;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A TLS session over some transport. One virtual call a record costs nothing beside the cipher.
pub trait SecureIo: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// The transport below.
    fn transport(&self) -> &Stream;
}

/// A stream of bytes inside of a connection that carries others too, such as a tunnel in a stream of HTTP/2.
pub trait InsideIo: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

/// A connection to a client, to an origin or to a next proxy.
pub enum Stream {
    /// TCP without anything on top; such streams can be spliced.
    Plain(TcpStream),
    /// TLS.
    Secure(Box<dyn SecureIo>),
    /// A part of another connection.
    Inside(Box<dyn InsideIo>),
}

impl Stream {
    /// The TCP socket, if nothing lies on top of it.
    #[must_use]
    pub fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Secure(_) | Self::Inside(_) => None,
        }
    }

    /// The TCP socket at the bottom, for its options and addresses; reading or writing it breaks what lies on top. None if
    /// the connection is shared with others.
    #[must_use]
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Secure(tls) => tls.transport().tcp(),
            Self::Inside(_) => None,
        }
    }
}

impl Stream {
    /// Whether the peer is known to have sent its last byte, received or not. It takes no system call to tell.
    #[must_use]
    pub fn is_read_closed(&self) -> bool {
        let Self::Plain(tcp) = self else { return false };
        let ready = pin!(tcp.ready(Interest::READABLE));
        // Nobody waits: either it is known now, or it is not.
        let mut cx = Context::from_waker(Waker::noop());
        matches!(ready.poll(&mut cx), Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// As `poll_write`, for bytes that are followed by more, or by the end of the stream, before the caller waits for
    /// anything else: the last packet may wait for what follows.
    pub fn poll_write_more(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => loop {
                ready!(tcp.poll_write_ready(cx))?;
                match tcp.try_io(Interest::WRITABLE, || send_more(&*tcp, bytes)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return Poll::Ready(other),
                }
            },
            Self::Secure(tls) => Pin::new(tls).poll_write(cx, bytes),
            Self::Inside(part) => Pin::new(part).poll_write(cx, bytes),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self::Plain(tcp)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Secure(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Inside(part) => Pin::new(part).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Secure(tls) => Pin::new(tls).poll_write(cx, buf),
            Self::Inside(part) => Pin::new(part).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            // The kernel does it with less.
            Self::Plain(tcp) if let [piece] = pieces => Pin::new(tcp).poll_write(cx, piece),
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, pieces),
            Self::Secure(tls) => Pin::new(tls).poll_write_vectored(cx, pieces),
            Self::Inside(part) => Pin::new(part).poll_write_vectored(cx, pieces),
        }
    }

    /// A TLS library writes each record as a piece.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Secure(tls) => Pin::new(tls).poll_flush(cx),
            Self::Inside(part) => Pin::new(part).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Secure(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Inside(part) => Pin::new(part).poll_shutdown(cx),
        }
    }
}

/// Stands in for TLS in tests; there is no socket below it.
#[cfg(test)]
impl SecureIo for tokio::io::DuplexStream {
    fn transport(&self) -> &Stream {
        unreachable!("no test asks for the socket below")
    }
}
