//! The connection to the peer: queries out, replies in, reconnects.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::BytesMut;
use futures_util::{StreamExt, stream::FuturesUnordered};
use rustix::net::RecvFlags;
use sluice_wire::dns::{FrameError, ParseError, Reply, ResolveError, put_frame, take_frame};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::{TcpStream, UdpSocket, UnixStream},
    time::{Instant, sleep, timeout},
};

use super::{Peer, Shared};

/// The first pause before a new connection is tried; doubled up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How often deadlines are looked at; lookups have exact ones of their own.
const TICK: Duration = Duration::from_millis(250);

/// The longest reply: all that two bytes of length can announce.
const MAX_REPLY: usize = 65535;

/// Queries are queued for writing up to about this many bytes; the rest waits in the table.
const OUTPUT: usize = 64 * 1024;

/// A UDP socket is left for one with another port after this many queries, which makes forging harder.
const QUERIES_PER_PORT: u32 = 1000;

/// The most queries that are asked over TCP at a time since their answers did not fit in a packet.
const MAX_RETRIES: usize = 16;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the connection was closed")]
    Closed,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the peer sends something that is not DNS")]
    Garbage,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("connecting took more than {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the peer runs as uid {0}, which is not trusted")]
    Uid(u32),
}

/// The end of a connection, and whether it had been of use: then the next one is tried without a pause.
struct End {
    useful: bool,
    /// `None` if nobody needs the connection any more.
    lost: Option<Lost>,
}

/// The I/O half of a [`Resolver`](super::Resolver).
pub(crate) struct Driver {
    shared: Arc<Shared>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Connects, sends and receives until the last resolver handle is dropped.
    pub(crate) async fn run(self) {
        let mut backoff = MIN_BACKOFF;
        while !self.is_closed() {
            if !self.is_eager() {
                self.wait_for_work().await;
            }
            let end = match &self.shared.peer {
                Peer::Unix(path) => match self.connect(UnixStream::connect(path)).await {
                    Ok(stream) => self.run_unix(stream).await,
                    Err(lost) => End::useless(lost),
                },
                Peer::Tcp(address) => match self.connect(TcpStream::connect(address)).await {
                    Ok(stream) => self.run_tcp(stream).await,
                    Err(lost) => End::useless(lost),
                },
                Peer::Udp(address) => self.run_udp(*address).await,
            };
            let Some(lost) = end.lost else {
                continue;
            };
            if end.useful {
                backoff = MIN_BACKOFF;
                if matches!(lost, Lost::Closed) && !self.shared.state().is_waiting() && !self.is_eager() {
                    self.shared.state().closed_idle();
                    continue;
                }
            }
            self.shared.state().disconnected(lost.to_string(), Instant::now());
            self.pause(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Whether to connect before the first query: our own resolverd is asked soon enough, and `status` shall know.
    fn is_eager(&self) -> bool {
        matches!(self.shared.peer, Peer::Unix(_))
    }

    async fn wait_for_work(&self) {
        while !self.is_closed() && !self.shared.state().is_waiting() {
            self.shared.wake.notified().await;
        }
    }

    async fn connect<T>(&self, connecting: impl Future<Output = io::Result<T>>) -> Result<T, Lost> {
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(Lost::TimedOut),
        }
    }

    /// Waits before the next connection; those who ask meanwhile wait too, up to their deadlines.
    async fn pause(&self, backoff: Duration) {
        let mut over = pin!(sleep(backoff));
        loop {
            tokio::select! {
                () = &mut over => return self.shared.state().tick(Instant::now()),
                () = self.shared.wake.notified() => if self.is_closed() {
                    return;
                },
            }
        }
    }

    async fn run_unix(&self, mut stream: UnixStream) -> End {
        match stream.peer_cred() {
            Ok(peer) if self.trusts(peer.uid()) => {}
            Ok(peer) => return End::useless(Lost::Uid(peer.uid())),
            Err(error) => return End::useless(error.into()),
        }
        let (reader, writer) = stream.split();
        self.run_stream(reader, writer).await
    }

    pub(super) fn trusts(&self, uid: u32) -> bool {
        uid == 0 || uid == rustix::process::geteuid().as_raw() || Some(uid) == self.shared.options.peer_uid
    }

    async fn run_tcp(&self, mut stream: TcpStream) -> End {
        if let Err(error) = stream.set_nodelay(true) {
            return End::useless(error.into());
        }
        let (reader, writer) = stream.split();
        self.run_stream(reader, writer).await
    }

    /// Uses one stream until it breaks.
    async fn run_stream(&self, mut reader: impl AsyncRead + Unpin, mut writer: impl AsyncWrite + Unpin) -> End {
        {
            let mut state = self.shared.state();
            state.connected();
            state.send_all_again();
        }
        let mut input = BytesMut::with_capacity(4096);
        let mut output = BytesMut::new();
        let mut tick = tokio::time::interval(TICK);
        let mut useful = false;
        loop {
            self.fill(&mut output);
            let waiting = self.shared.state().is_waiting();
            let step = tokio::select! {
                read = reader.read_buf(&mut input) => match read {
                    Ok(0) => Err(Lost::Closed),
                    Ok(_) => self.handle_frames(&mut input).map(|any| useful |= any),
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
                return End {
                    useful,
                    lost: Some(lost),
                };
            }
            if self.is_closed() {
                return End { useful, lost: None };
            }
        }
    }

    /// Frames queries into `output` as far as it has room.
    fn fill(&self, output: &mut BytesMut) {
        let mut state = self.shared.state();
        while output.len() < OUTPUT && state.has_unsent() {
            state.take_unsent(Instant::now(), false, 64, |message| {
                // a query is shorter than 64 KiB: its name has 255 bytes and its resolver's name comes from the configuration
                let _ = put_frame(output, message);
            });
        }
    }

    /// Handles all whole messages in `input`; whether there was any.
    fn handle_frames(&self, input: &mut BytesMut) -> Result<bool, Lost> {
        let mut any = false;
        while let Some(message) = take_frame(input, MAX_REPLY)? {
            any = true;
            let now = Instant::now();
            match Reply::take(&message) {
                Ok(reply) => self.shared.state().answered(&reply, now),
                Err(ParseError::Malformed { id }) => {
                    self.shared.state().failed(id, ResolveError::BadResponse, now);
                }
                Err(ParseError::NotAReply) => return Err(Lost::Garbage),
            }
        }
        Ok(any)
    }

    /// Uses one UDP socket until it breaks or has been used enough.
    async fn run_udp(&self, address: SocketAddr) -> End {
        let socket = match connected_socket(address).await {
            Ok(socket) => socket,
            Err(error) => return End::useless(error.into()),
        };
        self.shared.state().send_all_again();
        let mut retries = FuturesUnordered::new();
        let mut truncated = VecDeque::new();
        let mut packet = vec![0; MAX_REPLY];
        let mut tick = tokio::time::interval(TICK);
        let mut useful = false;
        let mut sent = 0;
        loop {
            match self.send_packets(&socket) {
                Ok(count) => sent += count,
                Err(error) => return End::new(useful, error.into()),
            }
            while retries.len() < MAX_RETRIES
                && let Some(id) = truncated.pop_front()
            {
                if let Some(message) = self.shared.state().message(id) {
                    retries.push(ask_over_tcp(address, id, message));
                }
            }
            if self.is_closed() || !self.shared.state().is_waiting() {
                return End { useful, lost: None };
            }
            if sent >= QUERIES_PER_PORT && retries.is_empty() {
                return End { useful, lost: None };
            }
            tokio::select! {
                received = receive(&socket, &mut packet) => match received {
                    Ok(length) => {
                        if let Some(id) = self.handle_packet(&packet[..length]) {
                            truncated.push_back(id);
                        }
                        useful = true;
                    }
                    Err(error) => return End::new(useful, error.into()),
                },
                Some((id, result)) = retries.next() => self.handle_retry(id, result),
                () = self.shared.wake.notified() => {}
                _ = tick.tick() => self.shared.state().tick(Instant::now()),
            }
        }
    }

    /// Sends what waits, as far as the socket takes it; the rest comes again with the next tick.
    fn send_packets(&self, socket: &UdpSocket) -> io::Result<u32> {
        let mut count = 0;
        let mut failure = None;
        self.shared
            .state()
            .take_unsent(Instant::now(), true, 256, |message| match socket.try_send(message) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => failure = Some(error),
                _ => count += 1,
            });
        failure.map_or(Ok(count), Err)
    }

    /// Handles one packet; gives the id of a query whose answer did not fit. What nobody asked for is ignored, since
    /// anybody can send it.
    fn handle_packet(&self, packet: &[u8]) -> Option<u16> {
        let reply = Reply::take(packet).ok()?;
        let mut state = self.shared.state();
        if !state.expects(&reply) {
            return None;
        }
        if reply.is_truncated() {
            return Some(reply.id());
        }
        state.answered(&reply, Instant::now());
        None
    }

    fn handle_retry(&self, id: u16, result: Result<Reply, ResolveError>) {
        let now = Instant::now();
        match result {
            Ok(reply) => self.shared.state().answered(&reply, now),
            Err(error) => self.shared.state().failed(id, error, now),
        }
    }
}

impl End {
    fn new(useful: bool, lost: Lost) -> Self {
        Self {
            useful,
            lost: Some(lost),
        }
    }

    fn useless(lost: Lost) -> Self {
        Self::new(false, lost)
    }
}

/// A socket on a fresh port that hears only from `address`.
async fn connected_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    socket.writable().await?; // else the first `try_send` would not know
    Ok(socket)
}

/// Receives a packet or the news that the port is closed: the latter does not make a socket readable.
async fn receive(socket: &UdpSocket, packet: &mut [u8]) -> io::Result<usize> {
    let receive = || Ok(rustix::net::recv(socket, &mut *packet, RecvFlags::empty())?.1);
    socket.async_io(Interest::READABLE | Interest::ERROR, receive).await
}

/// Asks once more over a connection of its own (RFC 7766 §5).
async fn ask_over_tcp(address: SocketAddr, id: u16, message: Vec<u8>) -> (u16, Result<Reply, ResolveError>) {
    let reply = timeout(CONNECT_TIMEOUT, exchange(address, &message)).await;
    let result = match reply {
        Ok(Ok(reply)) if reply.id() == id => Ok(reply),
        Ok(Ok(_)) => Err(ResolveError::BadResponse),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ResolveError::Timeout),
    };
    (id, result)
}

async fn exchange(address: SocketAddr, message: &[u8]) -> Result<Reply, ResolveError> {
    let refused = |_| ResolveError::ConnectionRefused;
    let mut stream = TcpStream::connect(address).await.map_err(refused)?;
    let mut buffer = BytesMut::new();
    put_frame(&mut buffer, message).map_err(|_| ResolveError::BadQuery)?;
    stream.write_all(&buffer).await.map_err(refused)?;
    buffer.clear();
    loop {
        if let Some(frame) = take_frame(&mut buffer, MAX_REPLY).map_err(|_| ResolveError::BadResponse)? {
            return Reply::take(&frame).map_err(|_| ResolveError::BadResponse);
        }
        match stream.read_buf(&mut buffer).await {
            Ok(0) => return Err(ResolveError::BadResponse),
            Ok(_) => {}
            Err(_) => return Err(ResolveError::ConnectionRefused),
        }
    }
}
