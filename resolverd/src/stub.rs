//! Asking name servers: which of them, in which order, how long.
//!
//! - `sockets`: the sockets that queries leave from, and the runtime that hickory's transports need;
//! - `server`: one name server over one transport;
//! - `paced`: what keeps a busy connection going.
//!
//! [`Stub`] walks a [`Plan`]: it asks the servers one after the other, leaves those pending that have not answered yet,
//! and takes the first answer. What it gets is not kept here.

mod paced;
mod server;
mod sockets;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use sluice_wire::dns::{Answer, Family, MAX_TTL, Origin, Reply, ResolveError};
use tokio::time::{Instant, sleep_until};

pub(crate) use server::{Condition, Encryption, Server, Timing, Transport};
pub(crate) use sockets::{SocketOptions, Sockets};

use crate::cache::Failure;

/// The most aliases that are followed with queries of their own.
const MAX_ALIASES: usize = 8;

/// In which order and how patiently servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The servers by number, and how long each may take before the next one is asked too. After the last one it is
    /// how long any answer is waited for.
    pub(crate) steps: Vec<Step>,
    /// Each query begins with another server.
    pub(crate) rotate: bool,
}

/// One step of a [`Plan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) server: usize,
    pub(crate) wait: Duration,
}

/// The addresses of a name as the servers know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// None of them if the name has none of the wanted kind.
    pub(crate) addresses: Vec<IpAddr>,
    /// The smallest TTL of all records that led there.
    pub(crate) ttl: u32,
}

/// Asks for `domain`, and for what its aliases lead to where the servers did not follow them to the end.
///
/// # Errors
/// The first failure of `ask`.
pub(crate) async fn follow<A>(domain: &str, ask: impl Fn(String) -> A) -> Result<Found, Failure>
where
    A: Future<Output = Result<Answer, Failure>>,
{
    let mut name = domain.to_owned();
    let mut ttl = MAX_TTL;
    for _ in 0..=MAX_ALIASES {
        let answer = ask(name).await?;
        ttl = ttl.min(answer.ttl.unwrap_or(MAX_TTL));
        match answer.alias {
            Some(alias) if answer.addresses.is_empty() => name = alias,
            _ => {
                return Ok(Found {
                    addresses: answer.addresses,
                    ttl,
                });
            }
        }
    }
    Ok(Found {
        addresses: Vec::new(),
        ttl,
    }) // an endless chain leads to no address
}

/// A set of name servers and the way to use them.
pub(crate) struct Stub {
    servers: Vec<Arc<Server>>,
    plan: Plan,
    turn: AtomicUsize,
}

impl Stub {
    /// `plan` names servers by their place in `servers`.
    pub(crate) fn new(servers: Vec<Server>, plan: Plan) -> Self {
        Self {
            servers: servers.into_iter().map(Arc::new).collect(),
            plan,
            turn: AtomicUsize::new(0),
        }
    }

    /// How each server is doing.
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        self.servers.iter().map(|server| server.condition()).collect()
    }

    /// Looks up `domain`, following aliases that the servers did not follow to the end.
    ///
    /// # Errors
    /// The failure of the last server that was asked, or a time-out.
    pub(crate) async fn query(&self, domain: &str, family: Family) -> Result<Found, Failure> {
        follow(domain, |name| async move { self.ask(&name, family).await }).await
    }

    /// Walks the plan for one name: the next step is taken when the last one's time is over or everybody asked has
    /// failed; the first answer ends it.
    async fn ask(&self, domain: &str, family: Family) -> Result<Answer, Failure> {
        let first = if self.plan.rotate {
            self.turn.fetch_add(1, Ordering::Relaxed)
        } else {
            0
        };
        let mut pending = FuturesUnordered::new();
        let mut failure = None;
        for step in &self.plan.steps {
            let place = step.server.wrapping_add(first) % self.servers.len();
            let server = Arc::clone(&self.servers[place]);
            pending.push(async move { server.ask(domain, family).await });
            let next_at = Instant::now() + step.wait;
            loop {
                tokio::select! {
                    result = pending.next() => match result.map(|reply| reply.and_then(|reply| verdict(&reply))) {
                        None => break, // everybody asked has failed
                        Some(Ok(answer)) => return Ok(answer),
                        Some(Err(denial)) if denial.error == ResolveError::NotFound => return Err(denial),
                        Some(Err(other)) => failure = Some(other),
                    },
                    () = sleep_until(next_at) => {
                        failure = failure.or_else(|| Some(ResolveError::Timeout.into()));
                        break;
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| ResolveError::NoResolverSet.into()))
    }
}

/// What a server's reply means, with what it says about a failure.
fn verdict(reply: &Reply) -> Result<Answer, Failure> {
    reply.answer(Origin::Server).map_err(|error| {
        let text = reply
            .extended_error()
            .map_or_else(String::new, |(code, text)| match text {
                "" => format!("extended DNS error {code}"),
                text => format!("extended DNS error {code}: {text}"),
            });
        Failure::new(error, text)
    })
}
