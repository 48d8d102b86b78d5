//! Sockets that never block, and waiting for them.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::event::{EventfdFlags, eventfd};
use sluice_wire::audit::MAX_MESSAGE;

/// Messages that a socket keeps for a peer that is slow.
const HIGH_WATER: i32 = 64;

/// The same for a follower, which gets smaller ones. They are at most 1 MiB, mostly 16 KiB, and kept once for all.
const PUBLISH_HIGH_WATER: i32 = 1024;

/// Milliseconds from one attempt to connect to the next.
const RECONNECT: (i32, i32) = (50, 1000);

/// Why a socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// It could not be made, bound or connected.
    #[error("{doing} `{}` failed: {source}", path.display())]
    Open {
        /// What was tried.
        doing: &'static str,
        /// The socket's file.
        path: PathBuf,
        /// ZeroMQ's word.
        source: zmq::Error,
    },
    /// A message could not be sent or received.
    #[error("{doing} on a ZeroMQ socket failed: {source}")]
    Use {
        /// What was tried.
        doing: &'static str,
        /// ZeroMQ's word.
        source: zmq::Error,
    },
    /// Waiting needs something of the system that it does not give.
    #[error("waiting failed")]
    Wait(#[source] io::Error),
}

/// Who sent a message to a [`Router`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer(Vec<u8>);

/// What [`wait`] waits for.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Bytes to read from a descriptor.
    Fd(BorrowedFd<'a>),
    /// A message to receive.
    Readable(&'a Socket),
    /// Room to send, or a message to receive.
    Writable(&'a Socket),
}

/// A socket as [`wait`] knows it.
pub struct Socket {
    raw: zmq::Socket,
    // The context ends when the last of its sockets is gone.
    _context: zmq::Context,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Socket")
    }
}

impl Socket {
    fn new(kind: zmq::SocketType) -> Result<Self, zmq::Error> {
        let context = zmq::Context::new();
        let raw = context.socket(kind)?;
        raw.set_linger(0)?;
        raw.set_sndhwm(HIGH_WATER)?;
        raw.set_rcvhwm(HIGH_WATER)?;
        raw.set_maxmsgsize(i64::try_from(MAX_MESSAGE).unwrap_or(i64::MAX))?;
        raw.set_reconnect_ivl(RECONNECT.0)?;
        raw.set_reconnect_ivl_max(RECONNECT.1)?;
        Ok(Self { raw, _context: context })
    }

    fn bind(kind: zmq::SocketType, path: &Path) -> Result<Self, BusError> {
        let open = || {
            let socket = Self::new(kind)?;
            socket.raw.bind(&endpoint(path))?;
            Ok(socket)
        };
        open().map_err(|source| failed("bind of", path, source))
    }

    fn connect(kind: zmq::SocketType, path: &Path) -> Result<Self, BusError> {
        let open = || {
            let socket = Self::new(kind)?;
            // Without a peer there is no queue: what is not sent stays with us.
            socket.raw.set_immediate(true)?;
            if kind == zmq::SocketType::SUB {
                socket.raw.set_rcvhwm(PUBLISH_HIGH_WATER)?;
            }
            socket.raw.connect(&endpoint(path))?;
            Ok(socket)
        };
        open().map_err(|source| failed("connect to", path, source))
    }

    /// Sends one message of several parts if there is room for it, and somebody to send it to.
    fn send(&self, parts: &[&[u8]]) -> Result<bool, BusError> {
        match self.raw.send_multipart(parts, zmq::DONTWAIT) {
            Ok(()) => Ok(true),
            Err(zmq::Error::EAGAIN | zmq::Error::EHOSTUNREACH) => Ok(false),
            Err(source) => Err(BusError::Use { doing: "send", source }),
        }
    }

    fn recv(&self) -> Result<Option<Vec<Vec<u8>>>, BusError> {
        match self.raw.recv_multipart(zmq::DONTWAIT) {
            Ok(parts) => Ok(Some(parts)),
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => Ok(None),
            Err(source) => Err(BusError::Use {
                doing: "receive",
                source,
            }),
        }
    }
}

fn endpoint(path: &Path) -> String {
    format!("ipc://{}", path.display())
}

fn failed(doing: &'static str, path: &Path, source: zmq::Error) -> BusError {
    BusError::Open {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// The side that many send to.
#[derive(Debug)]
pub struct Router(Socket);

impl Router {
    /// Binds to `path`; a socket that lies there is replaced.
    ///
    /// # Errors
    /// [`BusError::Open`]; a path of more than about 100 bytes is one reason.
    pub fn bind(path: &Path) -> Result<Self, BusError> {
        Socket::bind(zmq::SocketType::ROUTER, path).map(Self)
    }

    /// The next message, if there is one. Of a message in several parts, which none of ours is, the last part counts.
    ///
    /// # Errors
    /// [`BusError::Use`], after which the socket is of no more use.
    pub fn recv(&self) -> Result<Option<(Peer, Vec<u8>)>, BusError> {
        let Some(mut parts) = self.0.recv()? else {
            return Ok(None);
        };
        let message = parts.pop().unwrap_or_default();
        let peer = parts.into_iter().next().unwrap_or_default();
        Ok(Some((Peer(peer), message)))
    }

    /// Sends to one who has sent before; `false` if it is gone or takes nothing now.
    ///
    /// # Errors
    /// [`BusError::Use`], after which the socket is of no more use.
    pub fn send(&self, peer: &Peer, message: &[u8]) -> Result<bool, BusError> {
        self.0.send(&[&peer.0, message])
    }

    /// For [`wait`].
    pub fn socket(&self) -> &Socket {
        &self.0
    }
}

/// The side that sends to a [`Router`].
#[derive(Debug)]
pub struct Dealer(Socket);

impl Dealer {
    /// Connects to `path`, now or when somebody is there, again and again.
    ///
    /// # Errors
    /// [`BusError::Open`] if that can never be.
    pub fn connect(path: &Path) -> Result<Self, BusError> {
        Socket::connect(zmq::SocketType::DEALER, path).map(Self)
    }

    /// The next message, if there is one.
    ///
    /// # Errors
    /// [`BusError::Use`], after which the socket is of no more use.
    pub fn recv(&self) -> Result<Option<Vec<u8>>, BusError> {
        Ok(self.0.recv()?.and_then(|mut parts| parts.pop()))
    }

    /// Sends a message; `false` if nobody is there or takes it now.
    ///
    /// # Errors
    /// [`BusError::Use`], after which the socket is of no more use.
    pub fn send(&self, message: &[u8]) -> Result<bool, BusError> {
        self.0.send(&[message])
    }

    /// For [`wait`].
    pub fn socket(&self) -> &Socket {
        &self.0
    }
}

/// The side that tells followers.
#[derive(Debug)]
pub struct Publisher(Socket);

impl Publisher {
    /// Binds to `path`; a socket that lies there is replaced.
    ///
    /// # Errors
    /// [`BusError::Open`].
    pub fn bind(path: &Path) -> Result<Self, BusError> {
        let socket = Socket::bind(zmq::SocketType::PUB, path)?;
        let set = socket.raw.set_sndhwm(PUBLISH_HIGH_WATER);
        set.map_err(|source| failed("bind of", path, source))?;
        Ok(Self(socket))
    }

    /// Tells those who follow topics that begin like this one; the slow ones of them miss it.
    ///
    /// # Errors
    /// [`BusError::Use`], after which the socket is of no more use.
    pub fn send(&self, topic: &str, message: &[u8]) -> Result<(), BusError> {
        self.0.send(&[topic.as_bytes(), message]).map(|_| ())
    }
}

/// A follower.
#[derive(Debug)]
pub struct Subscriber(Socket);

impl Subscriber {
    /// Follows the topics that begin with `prefix`, at `path`.
    ///
    /// # Errors
    /// [`BusError::Open`].
    pub fn connect(path: &Path, prefix: &str) -> Result<Self, BusError> {
        let socket = Socket::connect(zmq::SocketType::SUB, path)?;
        let set = socket.raw.set_subscribe(prefix.as_bytes());
        set.map_err(|source| failed("connect to", path, source))?;
        Ok(Self(socket))
    }

    /// The next topic and message, if there is one.
    ///
    /// # Errors
    /// [`BusError::Use`], after which the socket is of no more use.
    pub fn recv(&self) -> Result<Option<(String, Vec<u8>)>, BusError> {
        let Some(mut parts) = self.0.recv()? else {
            return Ok(None);
        };
        let message = parts.pop().unwrap_or_default();
        let topic = parts.pop().unwrap_or_default();
        Ok(Some((String::from_utf8_lossy(&topic).into_owned(), message)))
    }

    /// For [`wait`].
    pub fn socket(&self) -> &Socket {
        &self.0
    }
}

/// Ends another thread's [`wait`].
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A waker that is waited for as [`Event::Fd`].
    ///
    /// # Errors
    /// [`BusError::Wait`] without descriptors.
    pub fn new() -> Result<Self, BusError> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        fd.map(Arc::new).map(Self).map_err(|e| BusError::Wait(e.into()))
    }

    /// Ends the wait, or the next one.
    pub fn wake(&self) {
        // It fails when the counter is full, and then it is awake.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// Forgets what was woken for until now.
    pub fn clear(&self) {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&*self.0, &mut counter); // it was not awake
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of `events` is, or `limit` is over; which one it was, one asks the sockets themselves. A limit of more
/// than 24 days is none.
///
/// # Errors
/// [`BusError::Use`].
pub fn wait(events: &[Event<'_>], limit: Duration) -> Result<(), BusError> {
    let mut items: Vec<zmq::PollItem<'_>> = events
        .iter()
        .map(|event| match event {
            Event::Fd(fd) => zmq::PollItem::from_fd(fd.as_raw_fd(), zmq::POLLIN),
            Event::Readable(socket) => socket.raw.as_poll_item(zmq::POLLIN),
            Event::Writable(socket) => socket.raw.as_poll_item(zmq::POLLIN | zmq::POLLOUT),
        })
        .collect();
    // Rounded up, lest the last millisecond is spent in asking.
    let limit = i32::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(-1);
    match zmq::poll(&mut items, limit.into()) {
        Ok(_) | Err(zmq::Error::EINTR) => Ok(()),
        Err(source) => Err(BusError::Use { doing: "wait", source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn messages_go_there_and_back() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("dump");
        let dealer = Dealer::connect(&path).unwrap(); // before there is anybody
        assert!(!dealer.send(b"lost").unwrap(), "nobody is there");
        let router = Router::bind(&path).unwrap();
        while !dealer.send(b"question").unwrap() {
            wait(&[Event::Writable(dealer.socket())], LIMIT).unwrap();
        }
        let (peer, message) = loop {
            match router.recv().unwrap() {
                Some(received) => break received,
                None => wait(&[Event::Readable(router.socket())], LIMIT).unwrap(),
            }
        };
        assert_eq!(message, b"question");
        assert!(router.send(&peer, b"answer").unwrap());
        wait(&[Event::Readable(dealer.socket())], LIMIT).unwrap();
        assert_eq!(dealer.recv().unwrap().unwrap(), b"answer");
        assert_eq!(dealer.recv().unwrap(), None);
        assert!(!router.send(&Peer(b"nobody".to_vec()), b"x").unwrap() || router.recv().unwrap().is_none());
    }

    #[test]
    fn followers_get_what_they_follow() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("live");
        let publisher = Publisher::bind(&path).unwrap();
        let follower = Subscriber::connect(&path, "b").unwrap();
        // A subscription takes its time, and what is told before is missed.
        let received = loop {
            publisher.send("a 1", b"no").unwrap();
            publisher.send("b 2", b"yes").unwrap();
            wait(&[Event::Readable(follower.socket())], Duration::from_millis(10)).unwrap();
            if let Some(received) = follower.recv().unwrap() {
                break received;
            }
        };
        assert_eq!(received, ("b 2".to_owned(), b"yes".to_vec()));
    }

    #[test]
    fn a_waker_ends_a_wait() {
        let waker = Waker::new().unwrap();
        let other = waker.clone();
        let thread = std::thread::spawn(move || other.wake());
        wait(&[Event::Fd(waker.as_fd())], LIMIT).unwrap();
        thread.join().unwrap();
        waker.clear();
        wait(&[Event::Fd(waker.as_fd())], Duration::ZERO).unwrap();
    }

    #[test]
    fn a_path_that_is_too_long_is_told() {
        let path = Path::new("/tmp").join("x".repeat(120));
        assert!(matches!(Router::bind(&path), Err(BusError::Open { .. })));
    }
}
