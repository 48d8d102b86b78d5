//! A connection to a service: TCP, TLS over it, or a Unix socket.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use sluice_addr::Host;
use sluice_io::Stream;
use sluice_io::buffer::ReadBuffer;
use sluice_sys::socket::{Source, TcpOptions, outgoing};
use sluice_telemetry::debug;
use sluice_tls::RustlsClient;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use super::error::IcapError;

/// Addresses of a name that are tried.
const TRIES: usize = 4;

/// The bytes below ICAP.
pub(super) enum Wire {
    Net(Stream),
    Unix(UnixStream),
}

/// A connection, and what has come on it.
pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) input: ReadBuffer,
    /// It was used before.
    pub(super) reused: bool,
}

impl Connection {
    /// Whether nothing has come on a connection that waits: bytes there would belong to no request, and an end is an end.
    pub(super) fn is_quiet(&self) -> bool {
        let blocks = |read: io::Result<usize>| matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.input.is_empty()
            && match &self.wire {
                Wire::Net(Stream::Plain(tcp)) => blocks(tcp.try_read(&mut [0])),
                // What lies under TLS may be a session ticket; whether the connection is still good shows at its use.
                Wire::Net(Stream::Secure(_) | Stream::Inside(_)) => true,
                Wire::Unix(unix) => blocks(unix.try_read(&mut [0])),
            }
    }
}

impl From<Wire> for Connection {
    fn from(wire: Wire) -> Self {
        Self {
            wire,
            input: ReadBuffer::default(),
            reused: false,
        }
    }
}

/// Where a service is.
pub(super) struct Place {
    pub(super) host: Host,
    pub(super) port: u16,
    /// Tried first, without TLS.
    pub(super) unix: Option<Box<Path>>,
    pub(super) tls: Option<(RustlsClient, Host)>,
    pub(super) options: TcpOptions,
    pub(super) timeout: Duration,
}

impl Place {
    /// Opens a connection.
    ///
    /// # Errors
    /// [`IcapError`], of the address that was tried last.
    pub(super) async fn connect(&self) -> Result<Connection, IcapError> {
        if let Some(path) = &self.unix {
            match timeout(self.timeout, UnixStream::connect(path)).await {
                Ok(Ok(unix)) => return Ok(Wire::Unix(unix).into()),
                Ok(Err(error)) => {
                    debug!("the Unix socket of an ICAP service does not answer"; "path" => %path.display(), "error" => %error);
                }
                Err(_) => {
                    debug!("the Unix socket of an ICAP service does not answer"; "path" => %path.display());
                }
            }
        }
        let stream = Stream::Plain(self.tcp().await?);
        let Some((tls, name)) = &self.tls else {
            return Ok(Wire::Net(stream).into());
        };
        let stream = Box::pin(tls.connect(stream, name)).await.map_err(IcapError::Tls)?;
        Ok(Wire::Net(Stream::Secure(Box::new(stream))).into())
    }

    async fn tcp(&self) -> Result<TcpStream, IcapError> {
        let addresses: Vec<_> = match &self.host {
            Host::Ip(ip) => vec![(*ip, self.port).into()],
            // As the daemon's own peers are looked up: by the system, not by the resolvers for clients.
            Host::Domain(domain) => {
                let lookup = |source| IcapError::Lookup {
                    host: domain.to_string(),
                    source,
                };
                match timeout(self.timeout, lookup_host((&**domain, self.port))).await {
                    Ok(found) => found.map_err(lookup)?.take(TRIES).collect(),
                    Err(_) => return Err(lookup(io::ErrorKind::TimedOut.into())),
                }
            }
        };
        let mut last = IcapError::Lookup {
            host: self.host.to_string(),
            source: io::ErrorKind::NotFound.into(),
        };
        for address in addresses {
            let socket = outgoing(address, &Source::default(), &self.options).map_err(IcapError::Socket)?;
            last = match timeout(self.timeout, TcpSocket::from_std_stream(socket).connect(address)).await {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(source)) => IcapError::Connect { address, source },
                Err(_) => IcapError::ConnectTimeout {
                    address,
                    after: self.timeout,
                },
            };
        }
        Err(last)
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Net(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Net(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Net(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(unix) => Pin::new(unix).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Net(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}
