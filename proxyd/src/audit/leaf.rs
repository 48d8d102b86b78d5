//! The certificates that intercepted clients are shown: the client of certgend, and the table before it.
//!
//! A host that is known costs a look into the table. Any other becomes a question to the generator, shared with everybody
//! who intercepts the same host meanwhile. The only one here who does I/O is `Driver::run`:
//!
//! - `state`: which leaves there are, which are awaited, and how the generator is doing;
//! - `wire`: requests and answers on the [connection](crate::peer).

mod state;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use sluice_telemetry::{notice, warn};
use sluice_tls::intercept::{Leaf, LeafError};
use sluice_wire::mint::{Certificate, MintError, Service, Usage};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use crate::peer::{self, Address, Client};
use state::{Begun, State};

/// How patient [`Leaves`] are, and what they keep for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) connection: peer::Options,
    /// How long an answer is waited for, reconnects included.
    pub(crate) query_timeout: Duration,
    /// How long a connection waits for its leaf.
    pub(crate) wait_timeout: Duration,
    /// How long a leaf is good for of which the generator says nothing, and a refusal.
    pub(crate) protective_ttl: Duration,
    /// The longest time that a leaf is good for, whatever the generator says.
    pub(crate) maximum_ttl: Duration,
    /// How long a leaf is shown past that time, while a new one is asked for.
    pub(crate) vanish_wait: Duration,
    /// The most leaves that are kept.
    pub(crate) capacity: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connection: peer::Options::default(),
            query_timeout: Duration::from_secs(4),
            wait_timeout: Duration::from_secs(4),
            protective_ttl: Duration::from_secs(10),
            maximum_ttl: Duration::from_secs(300),
            vanish_wait: Duration::from_secs(300),
            capacity: 8192,
        }
    }
}

/// Whose certificate it is, and what for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// A domain in lower case, or an IP address as text.
    pub(crate) host: Arc<str>,
    pub(crate) service: Service,
    pub(crate) usage: Usage,
    /// SHA-256 of the certificate that it mirrors, where the host alone does not tell which that is: a name that no
    /// client has given was checked by nobody, and servers of several names may have one address.
    pub(crate) of: Option<[u8; 32]>,
}

impl Key {
    /// Of a TLS server that was met without a protocol before.
    pub(crate) fn of_tls(host: &str) -> Self {
        Self {
            host: host.to_ascii_lowercase().into(),
            service: Service::Http,
            usage: Usage::TlsServer,
            of: None,
        }
    }

    /// The same for this upstream's certificate alone.
    pub(crate) fn of_certificate(self, der: Option<&[u8]>) -> Self {
        let digest = |der| digest(&SHA256, der).as_ref().try_into().ok();
        Self {
            of: der.and_then(digest),
            ..self
        }
    }
}

/// Why there is no certificate.
#[derive(Clone, Debug, Error)]
pub(crate) enum MintFailure {
    #[error("too many certificates are waited for")]
    Overload,
    #[error("the certificate generator refuses: {0}")]
    Refused(#[source] MintError),
    #[error("the certificate generator gives no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the certificate generator cannot be reached: {0}")]
    Unreachable(Arc<str>),
    #[error("the certificate generator gives what cannot be used: {0}")]
    Unusable(#[source] Arc<LeafError>),
}

impl MintFailure {
    /// Whether the generator works and follows its rules, so that this is no failure of its.
    pub(crate) fn is_policy(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code.is_policy())
    }
}

/// What the table has of a host before its upstream is asked.
pub(crate) enum Probe {
    /// A leaf that is good.
    Fresh(Leaf),
    /// A leaf that is good enough, but shall be replaced: by [`Leaves::refresh`], once the upstream's is known.
    Stale(Leaf),
    /// The generator has refused it a moment ago.
    Refused(MintFailure),
    /// Nothing: [`Leaves::get`] is to be asked.
    Nothing,
}

/// The leaves of one auditor; cheap to clone. The last clone's end ends the [`Driver`].
#[derive(Clone)]
pub(crate) struct Leaves {
    client: Client<State>,
}

/// The I/O half of [`Leaves`].
pub(crate) type Driver = peer::Driver<State>;

/// What `status` shows of a generator.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) connected: bool,
    /// The reason of the last failure, even if it is over.
    pub(crate) last_error: Option<Arc<str>>,
    pub(crate) in_flight: usize,
    pub(crate) cached: usize,
}

impl Leaves {
    /// Makes a client of `generator`: certgend on its own socket, or any generator that takes g3proxy's datagrams.
    /// [`Driver::run`] must be spawned for it to be answered.
    pub(crate) fn new(generator: Address, options: Options) -> (Self, Driver) {
        let state = State::new(options, generator.is_datagrams());
        let (client, driver) = Client::new(generator, options.connection, state);
        (Self { client }, driver)
    }

    /// Looks for a leaf that is there already.
    pub(crate) fn probe(&self, key: &Key) -> Probe {
        self.client.state().probe(key, Instant::now())
    }

    /// Asks for a leaf that looks like `upstream`, a certificate in DER, unless one has come meanwhile.
    ///
    /// # Errors
    /// [`MintFailure`].
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the leaf still gets into the table.
    pub(crate) async fn get(&self, key: &Key, upstream: Option<Vec<u8>>) -> Result<Leaf, MintFailure> {
        let now = Instant::now();
        let begun = self.client.state().begin(key, upstream.map(Certificate::Der), now);
        let (receiver, wait) = match begun {
            Begun::Known(known) => return known,
            Begun::Awaited { receiver, wait } => (receiver, wait),
        };
        self.client.wake();
        let outcome = match timeout_at(now + wait, receiver).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => return Err(MintFailure::Unreachable("proxyd stops".into())),
            Err(_) => self.client.state().give_up(key, wait, Instant::now()),
        };
        self.tell_outage(&outcome);
        outcome
    }

    /// Says that there are no certificates for want of a generator, and when there are again, once each.
    fn tell_outage(&self, outcome: &Result<Leaf, MintFailure>) {
        let failure = match outcome {
            Err(failure @ (MintFailure::TimedOut(_) | MintFailure::Unreachable(_))) => Some(failure),
            _ => None,
        };
        if !self.client.state().set_outage(failure.is_some()) {
            return;
        }
        let generator = self.generator();
        match failure {
            Some(failure) => warn!(
                "no certificates for new hosts, which go by `on_certgend_failure`: their generator does not answer; \
                 `sluicectl certgend status` asks whether it runs";
                "generator" => %generator, "error" => %failure
            ),
            None => notice!("there are certificates for new hosts again"; "generator" => %generator),
        }
    }

    /// Asks for a new leaf in place of a stale one; nobody waits for it.
    pub(crate) fn refresh(&self, key: &Key, upstream: Option<Vec<u8>>) {
        self.client
            .state()
            .refresh(key, upstream.map(Certificate::Der), Instant::now());
        self.client.wake();
    }

    /// Who is asked.
    pub(crate) fn generator(&self) -> &Address {
        self.client.address()
    }

    /// The state of the generator, for `status`.
    pub(crate) fn condition(&self) -> Condition {
        self.client.state().condition()
    }
}
