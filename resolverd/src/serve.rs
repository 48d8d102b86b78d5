//! Answering: the group's own socket, and addresses for other programs.
//!
//! - `stream`: a conversation over a stream, Unix or TCP;
//! - `unix`, `tcp`, `udp`: who may talk to us, and over what.

mod stream;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod unix;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use sluice_lifecycle::Tasks;
use sluice_wire::dns::{Outcome, Request, ResolveError, put_reply};
use tokio::time::{Instant, sleep};

use crate::{
    cache::Failure,
    config::ListenConfig,
    resolver::{Resolved, Resolver, Source},
    resolvers::Resolvers,
};

pub(crate) use unix::start as start_own;

/// The pause after a failed accept, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The resolvers in charge; a reload swaps them.
pub(crate) type InCharge = Arc<ArcSwap<Resolvers>>;

/// What one address for other programs is for; a reload swaps it.
struct Door {
    resolver: String,
    allow: Vec<IpNet>,
}

impl Door {
    fn new(config: &ListenConfig) -> Self {
        Self {
            resolver: config.resolver.as_str().to_owned(),
            allow: config.allow.iter().map(|network| network.0).collect(),
        }
    }

    fn admits(&self, peer: SocketAddr) -> bool {
        let ip = peer.ip().to_canonical();
        self.allow.iter().any(|network| network.contains(&ip))
    }
}

/// One address for other programs, over UDP and TCP.
pub(crate) struct Listening {
    /// As configured: the port may be 0.
    configured: SocketAddr,
    bound: SocketAddr,
    door: Arc<ArcSwap<Door>>,
    tasks: Tasks,
    /// What a reload will make of it.
    next: Mutex<Option<Door>>,
}

impl Listening {
    /// Binds an address and serves it among `tasks`.
    pub(crate) async fn start(config: &ListenConfig, resolvers: &InCharge, tasks: &Tasks) -> anyhow::Result<Self> {
        let configured = config.address.resolve().context("`resolverd.listen`")?;
        let (udp, tcp) = bind(configured)
            .await
            .with_context(|| format!("listen on `{configured}`"))?;
        let bound = tcp.local_addr()?;
        let door = Arc::new(ArcSwap::from_pointee(Door::new(config)));
        let tasks = tasks.child();
        tasks.spawn(udp::serve(udp, Arc::clone(&door), Arc::clone(resolvers), tasks.clone()));
        tasks.spawn(tcp::serve(tcp, Arc::clone(&door), Arc::clone(resolvers), tasks.clone()));
        Ok(Self {
            configured,
            bound,
            door,
            tasks,
            next: Mutex::new(None),
        })
    }

    /// The address that was bound.
    pub(crate) fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Whether it listens where `config` says.
    pub(crate) fn is_at(&self, config: &ListenConfig) -> bool {
        config.address.resolve().is_ok_and(|address| address == self.configured)
    }

    /// Prepares other settings.
    pub(crate) fn prepare(&self, config: &ListenConfig) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(Door::new(config));
    }

    /// Puts prepared settings in force.
    pub(crate) fn commit(&self) {
        if let Some(door) = self.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.door.store(Arc::new(door));
        }
    }

    /// Takes no more queries.
    pub(crate) fn stop(&self) {
        self.tasks.stop();
    }
}

/// A UDP and a TCP socket on one port.
async fn bind(address: SocketAddr) -> std::io::Result<(tokio::net::UdpSocket, tokio::net::TcpListener)> {
    let mut tries = if address.port() == 0 { 16 } else { 1 };
    loop {
        tries -= 1;
        let tcp = tokio::net::TcpListener::bind(address).await?;
        match tokio::net::UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {} // the free TCP port is taken for UDP
        }
    }
}

/// A query on its way.
struct Asked {
    request: Request,
    resolver: Arc<Resolver>,
    start: Instant,
}

/// A query that could be answered at once, or one on its way.
enum Taken {
    Answered(Vec<u8>),
    Asked(Asked),
}

/// Answers `request` if its answer is known, else says who is to be asked.
fn take(request: Request, resolvers: &Resolvers, name: &str, limit: usize) -> Taken {
    let start = Instant::now();
    let Some(resolver) = resolvers.find(name) else {
        let text = format!("no resolver is named `{name}`");
        let failure = Failure::new(ResolveError::NoResolverRunning, text);
        let resolved = Resolved {
            outcome: Err(failure),
            source: Source::Query,
            left: Duration::ZERO,
        };
        return Taken::Answered(encode(&request, &resolved, limit));
    };
    match resolver.known(&request.domain, request.family) {
        Some(resolved) => {
            resolver.log(&request.domain, request.family, &resolved, start);
            Taken::Answered(encode(&request, &resolved, limit))
        }
        None => Taken::Asked(Asked {
            request,
            resolver: Arc::clone(resolver),
            start,
        }),
    }
}

impl Asked {
    /// Waits for the answer.
    async fn answer(self, limit: usize) -> Vec<u8> {
        let Request { domain, family, .. } = &self.request;
        let resolved = self.resolver.resolve(domain, *family).await;
        self.resolver.log(domain, *family, &resolved, self.start);
        encode(&self.request, &resolved, limit)
    }
}

/// The reply to a request.
fn encode(request: &Request, resolved: &Resolved, limit: usize) -> Vec<u8> {
    let ttl = u32::try_from(resolved.left.as_secs()).unwrap_or(u32::MAX);
    let outcome = match &resolved.outcome {
        Ok(addresses) => Outcome::Addresses {
            addresses,
            ttl: ttl.max(1),
            stale: resolved.source == Source::Trash,
        },
        Err(Failure { error, text }) => Outcome::Failed {
            error: *error,
            text,
            ttl,
        },
    };
    put_reply(request, &outcome, limit)
}

/// Waits a moment after a failed accept, or until `tasks` stop.
async fn rest(tasks: &Tasks) {
    tokio::select! {
        () = sleep(ACCEPT_PAUSE) => {}
        () = tasks.stopping() => {}
    }
}
