//! The client of a daemon that is asked many things at a time, over one connection.
//!
//! What is asked, and what is made of the answers, is the business of an [`Asks`], a state without I/O and clock. A
//! [`Client`] is the handle to it, for those who ask; its [`Driver`] alone does I/O:
//!
//! - `flights`: the questions that await an answer, and everybody who waits for them;
//! - `driver`: the connection, questions out, answers in, and what to do when it breaks.

mod driver;
mod flights;

use std::fmt;
use std::hash::Hash;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use sluice_config::value::SocketBuffer;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use driver::Driver;
pub(crate) use flights::{Flight, Flights};

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    /// A daemon of ours on its own socket.
    Unix(PathBuf),
}

impl Address {
    /// Whether questions are packets, which can get lost.
    pub(crate) fn is_datagrams(&self) -> bool {
        matches!(self, Self::Udp(_))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The messages of a peer's protocol.
pub(crate) trait Speaks {
    /// A message of the peer.
    type Answer: Send;
    /// Why what a peer sends on a stream is no message.
    type Malformed: std::error::Error;

    /// Takes one message off the front of `input`, a stream; `Ok(None)` asks for more bytes.
    ///
    /// # Errors
    /// If the bytes can never become a message; the connection ends.
    fn take(input: &mut BytesMut) -> Result<Option<Self::Answer>, Self::Malformed>;

    /// Reads a packet, if it is a message.
    fn read(packet: &[u8]) -> Option<Self::Answer>;

    /// Appends a question to what is sent on a stream.
    fn frame(question: &[u8], output: &mut BytesMut);
}

/// What is asked of a peer, and what is made of its answers. All calls are under one lock.
pub(crate) trait Asks: Speaks + Send + Sized + 'static {
    /// Tells questions apart on the wire.
    type Id: Copy + Eq + Hash + Ord + Send;
    /// Tells them apart for those who ask.
    type Key: Clone + Eq + Hash + Send;
    /// What those who ask are told.
    type Outcome: Clone + Send;
    /// A question that is asked on another way, to its end.
    type Detour: Future<Output = Self::Detoured> + Send;
    type Detoured: Send;

    /// The questions that await an answer.
    fn flights(&mut self) -> &mut Flights<Self>;

    /// Takes a message; whether it belonged to a question. A packet that does not is nobody's, since anybody can send it.
    fn answered(&mut self, answer: Self::Answer, now: Instant) -> bool;

    /// A connection stands, or a socket for packets, of which nobody knows whether it leads anywhere. What has no answer
    /// is about to be sent again.
    fn connected(&mut self);

    /// The connection is broken, or could not be made.
    fn disconnected(&mut self, reason: &str, now: Instant);

    /// The peer closed the connection while nothing was asked of it.
    fn closed_idle(&mut self);

    /// Ends what has waited too long. Called ten times a second while something waits.
    fn tick(&mut self, now: Instant);

    /// The next question that must not go in a packet to `address` once more, but on another way.
    fn detour(&mut self, address: SocketAddr) -> Option<Self::Detour>;

    /// What came of a detour.
    fn detoured(&mut self, end: Self::Detoured, now: Instant);
}

/// A handle to ask by; cheap to clone. The last clone's end ends the [`Driver`].
pub(crate) struct Client<A> {
    shared: Arc<Shared<A>>,
    _alive: Arc<Alive<A>>,
}

impl<A> Clone for Client<A> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            _alive: Arc::clone(&self._alive),
        }
    }
}

/// What handle and driver share.
struct Shared<A> {
    address: Address,
    options: Options,
    state: Mutex<A>,
    /// Wakes the driver: there is something to send, or nobody is left to send for.
    wake: Notify,
    closed: AtomicBool,
}

impl<A> Shared<A> {
    /// The state; no lock is held across an await, and a panic elsewhere leaves it consistent enough to go on.
    fn state(&self) -> MutexGuard<'_, A> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the driver when the last [`Client`] is gone.
struct Alive<A>(Arc<Shared<A>>);

impl<A> Drop for Alive<A> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }
}

/// Of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The uid that the peer on a Unix socket may run as beside our own and root.
    pub(crate) peer_uid: Option<u32>,
    /// Of a UDP socket; as the system wants it if nothing is said.
    pub(crate) socket_buffer: SocketBuffer,
}

impl<A: Asks> Client<A> {
    /// Makes a client of the peer at `address`; [`Driver::run`] must be spawned for it to be answered.
    pub(crate) fn new(address: Address, options: Options, state: A) -> (Self, Driver<A>) {
        let shared = Arc::new(Shared {
            address,
            options,
            state: Mutex::new(state),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
        });
        let client = Self {
            shared: Arc::clone(&shared),
            _alive: Arc::new(Alive(Arc::clone(&shared))),
        };
        (client, Driver::new(shared))
    }

    /// What is asked and known. Who asks anew calls [`Self::wake`] afterwards.
    pub(crate) fn state(&self) -> MutexGuard<'_, A> {
        self.shared.state()
    }

    /// There is something to send.
    pub(crate) fn wake(&self) {
        self.shared.wake.notify_one();
    }

    pub(crate) fn address(&self) -> &Address {
        &self.shared.address
    }
}
