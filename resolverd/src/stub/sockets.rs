//! The sockets that queries leave from, made for hickory's transports.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hickory_net::runtime::{DnsUdpSocket, RuntimeProvider, Spawn, TokioTime, iocompat::AsyncIoTokioAsStd};
use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime};
use rustix::net::RecvFlags;
use sluice_lifecycle::Tasks;
use sluice_sys::socket::{Source, TcpOptions, outgoing};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::Interest,
    net::{TcpSocket, TcpStream, UdpSocket},
    time::timeout,
};

/// How the sockets are set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketOptions {
    /// The local address for servers of its family.
    pub(crate) bind_v4: Option<IpAddr>,
    /// The same for IPv6.
    pub(crate) bind_v6: Option<IpAddr>,
    /// The device to leave by.
    pub(crate) interface: Option<String>,
    pub(crate) tcp: TcpOptions,
    /// Only what concerns the IP layer.
    pub(crate) udp: TcpOptions,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) recv_buffer: Option<usize>,
    /// How long a TCP connection may take to stand.
    pub(crate) connect_timeout: Duration,
}

impl SocketOptions {
    fn local(&self, server: SocketAddr) -> Option<IpAddr> {
        if server.is_ipv4() { self.bind_v4 } else { self.bind_v6 }
    }

    fn buffers(&self, socket: SockRef<'_>) -> io::Result<()> {
        if let Some(size) = self.send_buffer {
            socket.set_send_buffer_size(size)?;
        }
        if let Some(size) = self.recv_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        Ok(())
    }
}

/// Makes sockets and runs hickory's connections among our tasks.
#[derive(Clone)]
pub(crate) struct Sockets {
    options: Arc<SocketOptions>,
    tasks: Tasks,
}

impl Sockets {
    pub(crate) fn new(options: SocketOptions, tasks: Tasks) -> Self {
        Self {
            options: Arc::new(options),
            tasks,
        }
    }

    /// A UDP socket for `server`.
    fn udp(&self, port: u16, server: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(
            Domain::for_address(server),
            Type::DGRAM.nonblocking(),
            Some(Protocol::UDP),
        )?;
        if let Some(interface) = &self.options.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        self.options.udp.apply(SockRef::from(&socket), server.is_ipv6())?;
        self.options.buffers(SockRef::from(&socket))?;
        let unspecified = if server.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        let local = self.options.local(server).unwrap_or(unspecified);
        socket.bind(&SocketAddr::new(local, port).into())?;
        Ok(socket)
    }

    /// A UDP socket for QUIC, which brings its own way of sending.
    pub(crate) fn quic(&self, server: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(self.udp(0, server)?.into())
    }

    /// A UDP socket that hears only from `server`, so that a closed port is noticed.
    fn connected_udp(&self, port: u16, server: SocketAddr) -> io::Result<ConnectedUdp> {
        let socket = self.udp(port, server)?;
        socket.connect(&server.into())?;
        Ok(ConnectedUdp {
            socket: UdpSocket::from_std(socket.into())?,
            server,
        })
    }

    async fn tcp(self, server: SocketAddr) -> io::Result<TcpStream> {
        let source = Source {
            address: self.options.local(server).map(|ip| SocketAddr::new(ip, 0)),
            interface: self.options.interface.clone(),
        };
        let socket = outgoing(server, &source, &self.options.tcp)?;
        self.options.buffers(SockRef::from(&socket))?;
        let connecting = TcpSocket::from_std_stream(socket).connect(server);
        timeout(self.options.connect_timeout, connecting)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    }
}

impl RuntimeProvider for Sockets {
    type Handle = Background;
    type Timer = TokioTime;
    type Udp = ConnectedUdp;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> Background {
        Background(self.tasks.clone())
    }

    fn connect_tcp(
        &self,
        server_addr: SocketAddr,
        _bind_addr: Option<SocketAddr>,
        _timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        let sockets = self.clone();
        Box::pin(async move { Ok(AsyncIoTokioAsStd(sockets.tcp(server_addr).await?)) })
    }

    /// Hickory asks for a random port in `local_addr`; the address is our own choice.
    fn bind_udp(
        &self,
        local_addr: SocketAddr,
        server_addr: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<ConnectedUdp>>>> {
        let socket = self.connected_udp(local_addr.port(), server_addr);
        Box::pin(async move { socket })
    }
}

/// A UDP socket that hears from one server only.
pub(crate) struct ConnectedUdp {
    socket: UdpSocket,
    server: SocketAddr,
}

#[async_trait::async_trait]
impl DnsUdpSocket for ConnectedUdp {
    type Time = TokioTime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        DnsUdpSocket::poll_recv_from(&self.socket, cx, buf)
    }

    /// Receives a packet or the news that the port is closed: the latter does not make a socket readable.
    async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let length = self
            .socket
            .async_io(Interest::READABLE | Interest::ERROR, || {
                let (length, _) = rustix::net::recv(&self.socket, &mut *buf, RecvFlags::empty())?;
                Ok(length)
            })
            .await?;
        Ok((length, self.server))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], target: SocketAddr) -> Poll<io::Result<usize>> {
        DnsUdpSocket::poll_send_to(&self.socket, cx, buf, target)
    }
}

/// Runs hickory's connections among our tasks; they end when those quit.
#[derive(Clone)]
pub(crate) struct Background(Tasks);

impl Spawn for Background {
    fn spawn_bg(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        let tasks = self.0.clone();
        self.0.spawn(async move {
            tokio::select! {
                () = future => {}
                () = tasks.quitting() => {}
            }
        });
    }
}
