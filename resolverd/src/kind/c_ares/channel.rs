//! The real c-ares.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use c_ares_resolver::{FutureResolver, Options};
use sluice_wire::dns::{Answer, Family, Origin, Reply, ResolveError};
use tokio::time::Instant;

use super::CAresConfig;
use crate::{
    cache::Failure,
    kind::BuildError,
    stub::{Condition, Found, follow},
};

/// The class of the internet, as in a question.
const IN: u16 = 1;

/// A channel of c-ares, which has a thread of its own.
pub(crate) struct Channel {
    resolver: FutureResolver,
    servers: Vec<SocketAddr>,
    states: Arc<Mutex<HashMap<String, State>>>,
}

/// What c-ares tells of a server.
#[derive(Clone, Default)]
struct State {
    asked: u64,
    answered: u64,
    failed_in_a_row: u64,
    last_failure: Option<Instant>,
}

impl Channel {
    /// # Errors
    /// What c-ares does not take.
    pub(super) fn new(config: &CAresConfig, servers: &[SocketAddr]) -> Result<Self, BuildError> {
        let ares = |error| BuildError::CAres(c_ares_resolver::Error::Ares(error));
        let mut options = Options::new();
        options
            .set_flags(c_ares::Flags::EDNS | c_ares::Flags::STAYOPEN)
            .set_timeout(Duration::from_millis(config.each_timeout.max(1).into()))
            .set_tries(config.each_tries.clamp(1, 100))
            .set_query_cache_max_ttl(0) // we keep the answers
            .set_ednspsz(sluice_wire::dns::UDP_PAYLOAD.into())
            .set_lookups("b") // no files
            .map_err(ares)?;
        if let Ok(limit @ 1..) = u64::try_from(config.max_timeout) {
            options.set_max_timeout(Duration::from_millis(limit));
        }
        options.set_udp_max_queries(u32::try_from(config.udp_max_quires).ok().filter(|&limit| limit > 0));
        if let Some(size) = config.socket_send_buffer_size {
            options.set_sock_send_buffer_size(size);
        }
        if let Some(size) = config.socket_recv_buffer_size {
            options.set_sock_receive_buffer_size(size);
        }
        if config.round_robin {
            options.set_rotate();
        } else {
            options.set_no_rotate();
        }
        let resolver = FutureResolver::with_options(options)?;
        resolver
            .set_servers(servers.iter().map(SocketAddr::to_string))
            .map_err(ares)?;
        if let Some(ip) = config.bind_ipv4 {
            resolver.set_local_ipv4(ip);
        }
        if let Some(ip) = config.bind_ipv6 {
            resolver.set_local_ipv6(ip);
        }
        let states: Arc<Mutex<HashMap<String, State>>> = Arc::default();
        let told = Arc::clone(&states);
        resolver.set_server_state_callback(move |server, success, _| {
            let mut states = told.lock().unwrap_or_else(PoisonError::into_inner);
            states.entry(server.to_owned()).or_default().note(success);
        });
        Ok(Self {
            resolver,
            servers: servers.to_vec(),
            states,
        })
    }

    /// Looks up `domain`, following aliases that the servers did not follow to the end.
    ///
    /// # Errors
    /// What c-ares says.
    pub(crate) async fn query(&self, domain: &str, family: Family) -> Result<Found, Failure> {
        follow(domain, |name| async move { self.ask(&name, family).await }).await
    }

    async fn ask(&self, domain: &str, family: Family) -> Result<Answer, Failure> {
        let query = self
            .resolver
            .query(&format!("{domain}."), IN, family.record_type().into());
        match query.await {
            Ok(message) => {
                let reply = Reply::take(&message).map_err(|_| ResolveError::BadResponse)?;
                if !reply.is_about(domain, family) {
                    return Err(ResolveError::BadResponse.into());
                }
                Ok(reply.answer(Origin::Server)?)
            }
            Err(c_ares::Error::ENODATA) => Ok(Answer {
                addresses: Vec::new(),
                ttl: None,
                alias: None,
            }),
            Err(error) => match class(error) {
                // what a server said is told by the class
                class if class.row().error_type == "ServerError" => Err(class.into()),
                class => Err(Failure::new(class, error.to_string())),
            },
        }
    }

    /// How each server is doing.
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let condition = |&address: &SocketAddr| {
            let state = states.get(&address.to_string()).cloned().unwrap_or_default();
            Condition {
                address,
                transport: "udp",
                connected: false,
                asked: state.asked,
                answered: state.answered,
                failed_in_a_row: state.failed_in_a_row,
                last_failure: state.last_failure.map(|at| (at.elapsed(), "a query failed".to_owned())),
                latency: Duration::ZERO, // c-ares does not tell
            }
        };
        self.servers.iter().map(condition).collect()
    }
}

impl State {
    fn note(&mut self, success: bool) {
        self.asked += 1;
        if success {
            self.answered += 1;
            self.failed_in_a_row = 0;
        } else {
            self.failed_in_a_row += 1;
            self.last_failure = Some(Instant::now());
        }
    }
}

/// What an error of c-ares is in our terms.
fn class(error: c_ares::Error) -> ResolveError {
    use c_ares::Error;
    match error {
        Error::EBADFAMILY => ResolveError::BadFamily,
        Error::EBADNAME => ResolveError::BadName,
        Error::EBADQUERY => ResolveError::BadQuery,
        Error::EBADRESP => ResolveError::BadResponse,
        Error::ECONNREFUSED => ResolveError::ConnectionRefused,
        Error::EFORMERR => ResolveError::FormErr,
        Error::ENODATA => ResolveError::EmptyResult,
        Error::ENOSERVER => ResolveError::NoResolverSet,
        Error::ENOTFOUND => ResolveError::NotFound,
        Error::ENOTIMP => ResolveError::NotImp,
        Error::EREFUSED => ResolveError::Refused,
        Error::ESERVFAIL => ResolveError::ServFail,
        Error::ETIMEOUT => ResolveError::Timeout,
        Error::ECANCELLED | Error::EDESTRUCTION => ResolveError::NoResolverRunning,
        _ => ResolveError::Internal,
    }
}
