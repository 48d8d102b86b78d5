//! A connection that a writer thread uses as a plain blocking one, with or without TLS.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use sluice_addr::Host;
use sluice_tls::client::Connector;
use sluice_tls::{HandshakeError, TlsStream};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

/// A TLS connection with the small runtime that drives it: the library is asynchronous, the writer is not.
pub(super) struct Tls {
    stream: TlsStream<tokio::net::TcpStream>,
    // After the stream, which is to be dropped first.
    runtime: Runtime,
    timeout: Duration,
}

impl Tls {
    /// Shakes hands over `stream` within `patience`.
    pub(super) fn connect(
        stream: TcpStream,
        connector: &Connector,
        name: &Host,
        port: u16,
        patience: Duration,
    ) -> Result<Self, HandshakeError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(HandshakeError::Io)?;
        let stream = runtime.block_on(async {
            stream.set_nonblocking(true).map_err(HandshakeError::Io)?;
            let stream = tokio::net::TcpStream::from_std(stream).map_err(HandshakeError::Io)?;
            let handshake = connector.connect(stream, name, port, &[]);
            timeout(patience, handshake)
                .await
                .unwrap_or(Err(HandshakeError::Timeout(patience)))
        })?;
        Ok(Self {
            stream,
            runtime,
            timeout: patience,
        })
    }

    fn is_alive(&mut self) -> bool {
        let stream = &mut self.stream;
        self.runtime.block_on(async {
            // Lets the runtime look at the socket, or it would not know of what came meanwhile.
            tokio::task::yield_now().await;
            let mut bytes = [0; 64];
            poll_fn(|cx| {
                let mut buf = ReadBuf::new(&mut bytes);
                Poll::Ready(match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
                    Poll::Pending => true,
                    Poll::Ready(Ok(())) => !buf.filled().is_empty(),
                    Poll::Ready(Err(_)) => false,
                })
            })
            .await
        })
    }
}

fn late(_: tokio::time::error::Elapsed) -> io::Error {
    io::ErrorKind::TimedOut.into()
}

impl Stream {
    /// Sets how long a read or a write may take.
    pub(super) fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = timeout.max(Duration::from_millis(1));
        match self {
            Self::Plain(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
            Self::Tls(tls) => {
                tls.timeout = timeout;
                Ok(())
            }
        }
    }

    /// Whether the peer has not closed its side.
    pub(super) fn is_alive(&mut self) -> bool {
        match self {
            Self::Plain(stream) => {
                if stream.set_nonblocking(true).is_err() {
                    return false;
                }
                let open = match stream.peek(&mut [0]) {
                    Ok(read) => read > 0,
                    Err(error) => error.kind() == io::ErrorKind::WouldBlock,
                };
                stream.set_nonblocking(false).is_ok() && open
            }
            Self::Tls(tls) => tls.is_alive(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buf),
            Self::Tls(tls) => {
                let read = tls.stream.read(buf);
                tls.runtime
                    .block_on(async { timeout(tls.timeout, read).await.map_err(late)? })
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(buf),
            Self::Tls(tls) => {
                let write = async {
                    let written = tls.stream.write(buf).await?;
                    tls.stream.flush().await?;
                    Ok(written)
                };
                tls.runtime
                    .block_on(async { timeout(tls.timeout, write).await.map_err(late)? })
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
