//! The connection to the peer: questions out, answers in, reconnects.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::{StreamExt, stream::FuturesUnordered};
use rustix::net::{RecvFlags, sockopt};
use sluice_config::value::SocketBuffer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use super::{Address, Asks, Shared};

/// The first pause before a new connection is tried; doubled up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Questions are queued for writing up to about this many bytes; the rest waits in the table.
const OUTPUT: usize = 64 * 1024;

/// The largest packet.
const MAX_PACKET: usize = 65535;

/// Packets that are sent at a time; the rest comes after what has been received meanwhile.
const PACKETS: usize = 256;

/// A UDP socket is left for one with another port after this many packets, which makes forging harder.
const PACKETS_PER_PORT: usize = 1000;

/// The most detours at a time.
const MAX_DETOURS: usize = 16;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Lost<M> {
    #[error("the connection was closed")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the peer sends something that is no answer: {0}")]
    Malformed(M),
    #[error("connecting took more than {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the peer runs as uid {0}, which is not trusted")]
    Uid(u32),
}

/// The end of a connection, and whether it had been of use: then the next one is tried soon.
struct End<M> {
    useful: bool,
    /// `None` if nobody needs the connection any more.
    lost: Option<Lost<M>>,
}

impl<M> End<M> {
    fn new(useful: bool, lost: impl Into<Lost<M>>) -> Self {
        Self {
            useful,
            lost: Some(lost.into()),
        }
    }

    fn unneeded(useful: bool) -> Self {
        Self { useful, lost: None }
    }
}

/// The I/O half of a [`Client`](super::Client).
pub(crate) struct Driver<A> {
    shared: Arc<Shared<A>>,
}

impl<A: Asks> Driver<A> {
    pub(super) fn new(shared: Arc<Shared<A>>) -> Self {
        Self { shared }
    }

    /// Connects, sends and receives until the last handle is dropped.
    pub(crate) async fn run(self) {
        let mut backoff = MIN_BACKOFF;
        while !self.is_closed() {
            if !self.is_eager() {
                self.wait_for_work().await;
            }
            let End { useful, lost } = self.connect_and_use().await;
            let Some(lost) = lost else { continue };
            if useful {
                backoff = MIN_BACKOFF;
                if matches!(lost, Lost::Closed) && !self.is_waiting() && !self.is_eager() {
                    self.shared.state().closed_idle();
                    continue;
                }
            }
            self.shared.state().disconnected(&lost.to_string(), Instant::now());
            self.pause(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    fn is_waiting(&self) -> bool {
        self.shared.state().flights().is_waiting()
    }

    /// Whether to connect before the first question: a daemon of ours is asked soon enough, and `status` shall know.
    fn is_eager(&self) -> bool {
        matches!(self.shared.address, Address::Unix(_))
    }

    async fn wait_for_work(&self) {
        while !self.is_closed() && !self.is_waiting() {
            self.shared.wake.notified().await;
        }
    }

    /// Waits before the next connection; those who ask meanwhile wait too, up to their deadlines.
    async fn pause(&self, backoff: Duration) {
        let mut over = pin!(sleep(backoff));
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = &mut over => return,
                _ = tick.tick() => self.shared.state().tick(Instant::now()),
                () = self.shared.wake.notified() => if self.is_closed() {
                    return;
                },
            }
        }
    }

    async fn connect_and_use(&self) -> End<A::Malformed> {
        let used = match &self.shared.address {
            Address::Unix(path) => match connect(UnixStream::connect(path)).await {
                Ok(stream) => self.use_unix(stream).await,
                Err(lost) => Err(lost),
            },
            Address::Tcp(address) => match connect(TcpStream::connect(address)).await {
                Ok(stream) => self.use_tcp(stream).await,
                Err(lost) => Err(lost),
            },
            Address::Udp(address) => self.use_udp(*address).await,
        };
        used.unwrap_or_else(|lost| End::new(false, lost))
    }

    async fn use_unix(&self, mut stream: UnixStream) -> Result<End<A::Malformed>, Lost<A::Malformed>> {
        let uid = stream.peer_cred()?.uid();
        if !self.trusts(uid) {
            return Err(Lost::Uid(uid));
        }
        let (reader, writer) = stream.split();
        Ok(self.use_stream(reader, writer).await)
    }

    pub(crate) fn trusts(&self, uid: u32) -> bool {
        uid == 0 || uid == rustix::process::geteuid().as_raw() || Some(uid) == self.shared.options.peer_uid
    }

    async fn use_tcp(&self, mut stream: TcpStream) -> Result<End<A::Malformed>, Lost<A::Malformed>> {
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.split();
        Ok(self.use_stream(reader, writer).await)
    }

    /// Says that questions can be sent.
    fn connected(&self) {
        let mut state = self.shared.state();
        state.connected();
        state.flights().send_all_again();
    }

    /// Uses one stream until it breaks.
    async fn use_stream(
        &self,
        mut reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
    ) -> End<A::Malformed> {
        self.connected();
        let mut input = BytesMut::with_capacity(8192);
        let mut output = BytesMut::new();
        let mut tick = tokio::time::interval(TICK);
        let mut useful = false;
        loop {
            let waiting = self.fill(&mut output);
            let step = tokio::select! {
                read = reader.read_buf(&mut input) => match read {
                    Ok(0) => Err(Lost::Closed),
                    Ok(_) => self.take_answers(&mut input).map(|any| useful |= any),
                    Err(error) => Err(error.into()),
                },
                written = writer.write_buf(&mut output), if !output.is_empty() => written.map(drop).map_err(Lost::Io),
                () = self.shared.wake.notified() => Ok(()),
                _ = tick.tick(), if waiting => {
                    self.shared.state().tick(Instant::now());
                    Ok(())
                }
            };
            if let Err(lost) = step {
                return End::new(useful, lost);
            }
            if self.is_closed() {
                return End::unneeded(useful);
            }
        }
    }

    /// Frames questions into `output` as far as it has room; whether any question awaits its answer.
    fn fill(&self, output: &mut BytesMut) -> bool {
        let mut state = self.shared.state();
        let flights = state.flights();
        while output.len() < OUTPUT && flights.take_unsent(Instant::now(), |question| A::frame(question, output)) {}
        flights.is_waiting()
    }

    /// Takes all whole messages out of `input`; whether there was any.
    fn take_answers(&self, input: &mut BytesMut) -> Result<bool, Lost<A::Malformed>> {
        let mut any = false;
        while let Some(answer) = A::take(input).map_err(Lost::Malformed)? {
            any = true;
            self.shared.state().answered(answer, Instant::now());
        }
        Ok(any)
    }

    /// Uses a UDP socket until it breaks, has been used enough, or nothing is awaited: the next question goes from
    /// another port then.
    async fn use_udp(&self, address: SocketAddr) -> Result<End<A::Malformed>, Lost<A::Malformed>> {
        let socket = connected_socket(address, self.shared.options.socket_buffer).await?;
        self.connected();
        let mut detours = FuturesUnordered::new();
        let mut packet = vec![0; MAX_PACKET];
        let mut tick = tokio::time::interval(TICK);
        let mut useful = false;
        let mut sent = 0;
        loop {
            match self.send_packets(&socket) {
                Ok(count) => sent += count,
                Err(error) => return Ok(End::new(useful, error)),
            }
            while detours.len() < MAX_DETOURS
                && let Some(detour) = self.shared.state().detour(address)
            {
                detours.push(detour);
            }
            let used_up = sent >= PACKETS_PER_PORT && detours.is_empty();
            if used_up || self.is_closed() || !self.is_waiting() {
                return Ok(End::unneeded(useful));
            }
            tokio::select! {
                received = receive(&socket, &mut packet) => match received {
                    Ok(length) => useful |= self.take_packet(packet.get(..length).unwrap_or_default()),
                    Err(error) => return Ok(End::new(useful, error)),
                },
                Some(end) = detours.next() => self.shared.state().detoured(end, Instant::now()),
                () = self.shared.wake.notified() => {}
                _ = tick.tick() => self.shared.state().tick(Instant::now()),
            }
        }
    }

    /// Sends what waits; how many packets that were. One that the socket does not take now goes out again as if lost.
    fn send_packets(&self, socket: &UdpSocket) -> io::Result<usize> {
        let mut state = self.shared.state();
        let mut sent = 0;
        let mut failure = None;
        while sent < PACKETS
            && failure.is_none()
            && state
                .flights()
                .take_unsent(Instant::now(), |packet| match socket.try_send(packet) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => failure = Some(error),
                    _ => {}
                })
        {
            sent += 1;
        }
        failure.map_or(Ok(sent), Err)
    }

    /// Takes one packet; whether it answered anything.
    fn take_packet(&self, packet: &[u8]) -> bool {
        A::read(packet).is_some_and(|answer| self.shared.state().answered(answer, Instant::now()))
    }
}

async fn connect<T, M>(connecting: impl Future<Output = io::Result<T>>) -> Result<T, Lost<M>> {
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(Lost::TimedOut),
    }
}

/// A socket on a fresh port that hears only from `address`.
async fn connected_socket(address: SocketAddr, buffer: SocketBuffer) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    if let Some(size) = buffer.recv {
        sockopt::set_socket_recv_buffer_size(&socket, size.as_usize())?;
    }
    if let Some(size) = buffer.send {
        sockopt::set_socket_send_buffer_size(&socket, size.as_usize())?;
    }
    socket.connect(address).await?;
    socket.writable().await?; // else the first `try_send` would not know
    Ok(socket)
}

/// Receives a packet or the news that the port is closed: the latter does not make a socket readable.
async fn receive(socket: &UdpSocket, packet: &mut [u8]) -> io::Result<usize> {
    let receive = || Ok(rustix::net::recv(socket, &mut *packet, RecvFlags::empty())?.1);
    socket.async_io(Interest::READABLE | Interest::ERROR, receive).await
}
