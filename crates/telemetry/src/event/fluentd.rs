//! The fluentd driver: a connection to a collector, the records on their way to it, and what happens when it is away.
//!
//! Forward Protocol Specification v1, message mode, without acknowledgements.

mod handshake;
mod stream;

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_addr::Host;
use sluice_tls::client::Connector;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::StartError;
use super::channel::{Drop, Stats};
use super::config::{FluentdConfig, hostname};
use super::driver::{IoErrors, encode};
use crate::naming::Identity;
use crate::render::Event;
use crate::render::msgpack::Forward;
use handshake::{Credentials, HandshakeError};
use stream::{Stream, Tls};

/// Bytes gathered before they are written without waiting for the flush interval.
const BUFFER: usize = 32 * 1024;

/// Why there is no connection to the collector.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("connect to `{0}` failed: {1}")]
    Connect(SocketAddr, #[source] io::Error),
    #[error("handshake with `{0}` failed: {1}")]
    Handshake(SocketAddr, #[source] HandshakeError),
    #[error("TLS handshake with `{0}` failed: {1}")]
    Tls(SocketAddr, #[source] sluice_tls::HandshakeError),
}

pub(super) struct Fluentd {
    config: FluentdConfig,
    peer: SocketAddr,
    tls: Option<(Connector, Host)>,
    credentials: Option<Credentials>,
    forward: Forward,
    link: Link,
    /// Encoded messages that are not written yet.
    buffer: Vec<u8>,
    /// Where each of them ends, and whose it is.
    pending: VecDeque<(usize, Arc<Stats>)>,
    /// When the oldest of them is to be written at the latest.
    due: Option<Instant>,
}

enum Link {
    Up(Stream),
    /// No attempt before then.
    Down(Instant),
}

impl Fluentd {
    pub(super) fn new(config: &FluentdConfig, identity: &Identity) -> Result<Self, StartError> {
        let peer = config.address.resolve()?;
        let tls = config.connector()?;
        let credentials = config.shared_key.as_ref().map(|shared_key| Credentials {
            shared_key: shared_key.reveal().clone(),
            username: config.username.clone(),
            password: config.password.reveal().clone(),
            hostname: config.hostname.clone().unwrap_or_else(hostname),
        });
        Ok(Self {
            peer,
            tls,
            credentials,
            forward: Forward::new(identity.product.product()),
            link: Link::Down(Instant::now()),
            buffer: Vec::new(),
            pending: VecDeque::new(),
            due: None,
            config: config.clone(),
        })
    }

    pub(super) fn write(&mut self, event: &Event<'_>, stats: &Arc<Stats>, errors: &mut IoErrors) {
        let now = Instant::now();
        if self.is_waiting(now) && self.pending.len() >= self.config.retry_queue_len {
            return stats.dropped(Drop::PeerUnreachable);
        }
        let forward = &mut self.forward;
        if !encode(&mut self.buffer, stats, |out| forward.message(event, out)) {
            return;
        }
        self.pending.push_back((self.buffer.len(), Arc::clone(stats)));
        self.due.get_or_insert(now + self.config.flush_interval);
        if self.buffer.len() >= BUFFER {
            self.flush(now, errors);
        }
    }

    pub(super) fn settle(&mut self, now: Instant, errors: &mut IoErrors) {
        if self.due.is_some_and(|due| due <= now) {
            self.flush(now, errors);
        }
    }

    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        let due = self.due?;
        let due = match self.link {
            Link::Up(_) => due,
            Link::Down(until) => due.max(until),
        };
        Some(due.saturating_duration_since(now))
    }

    pub(super) fn close(&mut self, until: Instant, errors: &mut IoErrors) {
        let left = until.saturating_duration_since(Instant::now());
        self.config.connect_timeout = self.config.connect_timeout.min(left);
        self.flush(Instant::now(), errors);
        self.keep(0);
    }

    /// Whether the pause after a failed connect is not over.
    fn is_waiting(&self, now: Instant) -> bool {
        matches!(self.link, Link::Down(until) if until > now)
    }

    /// Writes everything, over a new connection if need be.
    fn flush(&mut self, now: Instant, errors: &mut IoErrors) {
        // Twice: a kept connection may prove dead only by the write.
        for _ in 0..2 {
            if self.pending.is_empty() {
                self.due = None;
                return;
            }
            if self.is_waiting(now) {
                return;
            }
            let mut link = std::mem::replace(&mut self.link, Link::Down(now));
            if let Link::Up(stream) = &mut link
                && !stream.is_alive()
            {
                link = Link::Down(now);
            }
            let mut stream = match link {
                Link::Up(stream) => stream,
                Link::Down(_) => match self.connect() {
                    Ok(stream) => stream,
                    Err(error) => {
                        errors.report(&error);
                        self.link = Link::Down(Instant::now() + self.config.connect_delay);
                        self.keep(self.config.retry_queue_len);
                        return;
                    }
                },
            };
            match write_all(&mut stream, &self.buffer) {
                (written, Ok(())) => {
                    self.sent(written);
                    self.link = Link::Up(stream);
                }
                // The peer now holds part of a message, so the connection is of no use.
                (written, Err(error)) => {
                    errors.report(&error);
                    self.sent(written);
                    if is_timeout(&error) {
                        self.drop_first();
                    }
                }
            }
        }
        if !self.pending.is_empty() {
            self.link = Link::Down(Instant::now() + self.config.connect_delay);
            self.keep(self.config.retry_queue_len);
        }
    }

    fn connect(&self) -> Result<Stream, ConnectError> {
        let peer = self.peer;
        let failed = |error| ConnectError::Connect(peer, error);
        let deadline = Instant::now() + self.config.connect_timeout;
        let stream = self.open().map_err(failed)?;
        let mut stream = match &self.tls {
            None => Stream::Plain(stream),
            Some((connector, name)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let tls = Tls::connect(stream, connector, name, peer.port(), left);
                Stream::Tls(Box::new(tls.map_err(|error| ConnectError::Tls(peer, error))?))
            }
        };
        if let Some(credentials) = &self.credentials {
            handshake::run(&mut stream, credentials, deadline).map_err(|error| ConnectError::Handshake(peer, error))?;
        }
        stream.set_timeout(self.config.write_timeout).map_err(failed)?;
        Ok(stream)
    }

    fn open(&self) -> io::Result<TcpStream> {
        let peer = self.peer;
        let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(ip) = self.config.bind_ip {
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        let keepalive = &self.config.tcp_keepalive;
        if keepalive.enable {
            let mut probes = TcpKeepalive::new().with_time(keepalive.idle_time.0);
            if let Some(interval) = keepalive.probe_interval {
                probes = probes.with_interval(interval.0);
            }
            if let Some(count) = keepalive.probe_count {
                probes = probes.with_retries(count);
            }
            socket.set_tcp_keepalive(&probes)?;
        }
        socket.set_tcp_nodelay(true)?;
        let patience = self.config.connect_timeout.max(Duration::from_millis(1));
        socket.connect_timeout(&peer.into(), patience)?;
        Ok(socket.into())
    }

    /// Takes the first `written` bytes as sent.
    fn sent(&mut self, written: usize) {
        let mut start = 0;
        while let Some((end, stats)) = self.pending.front() {
            if *end > written {
                break;
            }
            stats.passed(end - start);
            start = *end;
            self.pending.pop_front();
        }
        self.cut_front(start);
    }

    fn drop_first(&mut self) {
        if let Some((end, stats)) = self.pending.pop_front() {
            stats.dropped(Drop::PeerUnreachable);
            self.cut_front(end);
        }
    }

    /// Drops all but the last `len` messages.
    fn keep(&mut self, len: usize) {
        while self.pending.len() > len {
            self.drop_first();
        }
    }

    fn cut_front(&mut self, bytes: usize) {
        self.buffer.drain(..bytes);
        for (end, _) in &mut self.pending {
            *end -= bytes;
        }
        if self.pending.is_empty() {
            self.due = None;
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// As [`io::Write::write_all`], and says how much was written before an error.
fn write_all(stream: &mut Stream, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}
