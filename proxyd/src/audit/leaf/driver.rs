//! The connection to the generator: requests out, answers in, reconnects.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use rustix::net::{RecvFlags, sockopt};
use sluice_config::value::SocketBuffer;
use sluice_wire::mint::{Form, FrameError, MAX_DATAGRAM, MintResponse, take_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UdpSocket, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use super::{Generator, Shared};

/// The first pause before a new connection is tried; doubled up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Requests are queued for writing up to about this many bytes; the rest waits in the table.
const OUTPUT: usize = 64 * 1024;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the connection was closed")]
    Closed,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it sends something that is no answer")]
    Garbage,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("connecting took more than {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
    #[error("it runs as uid {0}, which is not trusted")]
    Uid(u32),
}

/// The end of a connection, and whether it had been of use: then the next one is tried soon.
struct End {
    useful: bool,
    /// `None` if nobody needs the connection any more.
    lost: Option<Lost>,
}

impl End {
    fn useless(lost: Lost) -> Self {
        Self {
            useful: false,
            lost: Some(lost),
        }
    }
}

/// The I/O half of [`Leaves`](super::Leaves).
pub(crate) struct Driver {
    shared: Arc<Shared>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Connects, sends and receives until the last handle is dropped.
    pub(crate) async fn run(self) {
        let mut backoff = MIN_BACKOFF;
        while !self.is_closed() {
            let end = match &self.shared.generator {
                Generator::Unix(path) => self.run_unix(path).await,
                Generator::Udp(address) => {
                    self.wait_for_work().await;
                    self.run_udp(*address).await
                }
            };
            let Some(lost) = end.lost else { continue };
            if end.useful {
                backoff = MIN_BACKOFF;
            }
            self.shared.state().disconnected(&lost.to_string(), Instant::now());
            self.pause(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    async fn wait_for_work(&self) {
        while !self.is_closed() && !self.shared.state().is_waiting() {
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

    async fn run_unix(&self, path: &Path) -> End {
        let stream = match timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return End::useless(error.into()),
            Err(_) => return End::useless(Lost::TimedOut),
        };
        match stream.peer_cred() {
            Ok(peer) if self.trusts(peer.uid()) => self.run_stream(stream).await,
            Ok(peer) => End::useless(Lost::Uid(peer.uid())),
            Err(error) => End::useless(error.into()),
        }
    }

    fn trusts(&self, uid: u32) -> bool {
        uid == 0 || uid == rustix::process::geteuid().as_raw() || Some(uid) == self.shared.options.peer_uid
    }

    /// Uses one stream until it breaks.
    async fn run_stream(&self, mut stream: UnixStream) -> End {
        self.shared.state().connected();
        let (mut reader, mut writer) = stream.split();
        let mut input = BytesMut::with_capacity(8192);
        let mut output = BytesMut::new();
        let mut tick = tokio::time::interval(TICK);
        let mut useful = false;
        loop {
            {
                let mut state = self.shared.state();
                while output.len() < OUTPUT && state.has_unsent() {
                    state.take_unsent(Instant::now(), |message| output.extend_from_slice(message));
                }
            }
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

    /// Handles all whole messages in `input`; whether there was any.
    fn handle_frames(&self, input: &mut BytesMut) -> Result<bool, Lost> {
        let mut any = false;
        while let Some(message) = take_frame(input)? {
            let response = MintResponse::take(&message, Form::Stream).map_err(|_| Lost::Garbage)?;
            self.shared.state().answered(response, Instant::now());
            any = true;
        }
        Ok(any)
    }

    /// Uses a UDP socket until it breaks, or nothing is awaited: the next request goes from another port then.
    async fn run_udp(&self, address: SocketAddr) -> End {
        let socket = match connected_socket(address, self.shared.options.socket_buffer).await {
            Ok(socket) => socket,
            Err(error) => return End::useless(error.into()),
        };
        self.shared.state().connected();
        let mut packet = vec![0; MAX_DATAGRAM];
        let mut tick = tokio::time::interval(TICK);
        let mut useful = false;
        loop {
            if let Err(error) = self.send_packets(&socket) {
                return End {
                    useful,
                    lost: Some(error.into()),
                };
            }
            if self.is_closed() || !self.shared.state().is_waiting() {
                return End { useful, lost: None };
            }
            tokio::select! {
                received = receive(&socket, &mut packet) => match received {
                    Ok(length) => useful |= self.handle_packet(packet.get(..length).unwrap_or_default()),
                    Err(error) => return End { useful, lost: Some(error.into()) },
                },
                () = self.shared.wake.notified() => {}
                _ = tick.tick() => self.shared.state().tick(Instant::now()),
            }
        }
    }

    fn send_packets(&self, socket: &UdpSocket) -> io::Result<()> {
        let mut state = self.shared.state();
        let mut failure = None;
        while state.has_unsent() && failure.is_none() {
            // One that the socket does not take now comes again with its resend.
            state.take_unsent(Instant::now(), |message| match socket.try_send(message) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => failure = Some(error),
                _ => {}
            });
        }
        failure.map_or(Ok(()), Err)
    }

    /// Takes one packet. What nobody asked for, or is no answer, is ignored.
    fn handle_packet(&self, packet: &[u8]) -> bool {
        MintResponse::take(packet, Form::Datagram)
            .is_ok_and(|response| self.shared.state().answered(response, Instant::now()))
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
