//! Names to addresses: the client of resolverd, or of any other DNS server.
//!
//! Each worker has a [`Resolver`] of its own. A name it knows costs a look into a small table; any other becomes a query
//! on the worker's one connection, shared with everybody who asks for the same name meanwhile. Nothing here does I/O
//! but `Driver::run`, which the worker spawns beside its other tasks:
//!
//! - `cache`: answers, and for a bounded time stale answers (RFC 8767);
//! - `state`: what is known, what is awaited, and how the peer is doing;
//! - `wire`: queries and replies on the [connection](crate::peer).
//!
//! IP literals never get here.

mod cache;
mod state;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sluice_wire::dns::Origin;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::peer::{self, Address, Client};
pub(crate) use sluice_wire::dns::{Family, ResolveError};
pub(crate) use state::Link;
use state::{Begun, State};

/// How patient a [`Resolver`] is and how much it keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// The uid that resolverd may run as beside our own and root.
    pub(crate) peer_uid: Option<u32>,
    /// How long a lookup waits for its answer, reconnects included.
    pub(crate) deadline: Duration,
    /// How long a lookup waits before it takes a stale answer instead (RFC 8767 §5, "client response timer").
    pub(crate) stale_after: Duration,
    /// How long an answer past its time may still be used when no better one comes.
    pub(crate) stale_for: Duration,
    /// How long stale answers are given out at once after a failed refresh (RFC 8767 §5, "failure recheck timer").
    pub(crate) recheck: Duration,
    /// The most answers that are kept.
    pub(crate) capacity: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            peer_uid: None,
            deadline: Duration::from_secs(10),
            stale_after: Duration::from_millis(1800),
            stale_for: Duration::from_secs(3600),
            recheck: Duration::from_secs(5),
            capacity: 4096,
        }
    }
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The addresses in the order of the reply; none if the name has none of this kind (NODATA).
    pub(crate) addresses: Arc<[IpAddr]>,
    /// Where the answer comes from.
    pub(crate) source: Source,
}

/// Where an [`Answer`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Our own table.
    Cache,
    /// The peer, just now.
    Peer,
    /// Our own table, past its time, since the peer gives nothing better.
    Stale,
}

/// A client of one peer; cheap to clone. The last clone's end ends the [`Driver`].
#[derive(Clone)]
pub(crate) struct Resolver {
    client: Client<State>,
    options: Options,
}

/// The I/O half of a [`Resolver`].
pub(crate) type Driver = peer::Driver<State>;

/// Whose replies these are; only our own resolverd is told which of its resolvers to use.
fn origin(peer: &Address) -> Origin {
    match peer {
        Address::Unix(_) => Origin::Resolverd,
        Address::Tcp(_) | Address::Udp(_) => Origin::Server,
    }
}

/// How often a resolver's names were answered from our own table, by record type.
#[derive(Debug, Default)]
pub(crate) struct ZoneStats {
    /// Answers within their time, for A and AAAA.
    pub(crate) cached: [AtomicU64; 2],
    /// Stale answers, for A and AAAA.
    pub(crate) trashed: [AtomicU64; 2],
}

impl ZoneStats {
    fn count(&self, family: Family, source: Source) {
        let counters = match source {
            Source::Cache => &self.cached,
            Source::Stale => &self.trashed,
            Source::Peer => return,
        };
        counters[family as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// What `status` shows of the peer.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    /// The state of the connection.
    pub(crate) link: Link,
    /// The reason of the last failure, even if it is over.
    pub(crate) last_error: Option<String>,
    /// Queries without an answer yet.
    pub(crate) in_flight: usize,
    /// Answers in the table.
    pub(crate) cached: usize,
}

impl Resolver {
    /// Makes a client of `peer`; `Driver::run` must be spawned for it to be answered.
    pub(crate) fn new(peer: Address, options: Options) -> (Self, Driver) {
        let state = State::new(&options, origin(&peer), peer.is_datagrams());
        let connection = peer::Options {
            peer_uid: options.peer_uid,
            ..peer::Options::default()
        };
        let (client, driver) = Client::new(peer, connection, state);
        (Self { client, options }, driver)
    }

    /// Looks up one kind of address of `domain`, a lower-case name, as the resolver named `resolver` sees it.
    ///
    /// # Errors
    /// The reason that resolverd gives; [`ResolveError::NoResolverRunning`] if it can not be reached,
    /// [`ResolveError::DriverTimedOut`] if it does not answer within the deadline.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the answer still gets into the table.
    pub(crate) async fn lookup(&self, resolver: &str, domain: &str, family: Family) -> Result<Answer, ResolveError> {
        let now = Instant::now();
        let begun = self.client.state().begin(resolver, domain, family, now)?;
        let (receiver, stale) = match begun {
            Begun::Known(known) => return known,
            Begun::KnownRefreshing(known) => {
                self.client.wake();
                return known;
            }
            Begun::Awaited { receiver, stale } => (receiver, stale),
        };
        self.client.wake();
        match stale {
            None => self.wait(receiver, now).await,
            Some(stale) => match timeout_at(now + self.options.stale_after, receiver).await {
                Ok(Ok(answer)) => answer,
                _ => self.client.state().give_up_waiting(resolver, domain, family, stale),
            },
        }
    }

    async fn wait(
        &self,
        receiver: oneshot::Receiver<Result<Answer, ResolveError>>,
        begun: Instant,
    ) -> Result<Answer, ResolveError> {
        match timeout_at(begun + self.options.deadline, receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ResolveError::NoResolverRunning), // the driver is gone
            Err(_) => Err(self.client.state().timed_out()),
        }
    }

    /// The state of the connection, for `status`.
    pub(crate) fn condition(&self) -> Condition {
        self.client.state().condition()
    }

    /// The counters of each resolver name that was asked for.
    pub(crate) fn stats(&self) -> Vec<(Arc<str>, Arc<ZoneStats>)> {
        self.client.state().stats()
    }
}
