//! Opening a TCP connection: one address, or a race among the addresses of a name (Happy Eyeballs, RFC 8305).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use sluice_acl::EgressRule;
use sluice_sys::socket::{Source, TcpOptions, outgoing};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};

use crate::connect::{ConnectError, ConnectFailure, Path};
use crate::resolve::{Answer, Family, ResolveError};
use crate::stats::EscaperStats;
use crate::worker::Worker;

/// Local addresses and the device that connections start from.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Bind {
    pub(crate) v4: Vec<Ipv4Addr>,
    pub(crate) v6: Vec<Ipv6Addr>,
    /// Used where no address of the family is given.
    pub(crate) interface: Option<String>,
}

impl Bind {
    pub(crate) fn source(&self, peer: IpAddr, index: Option<u64>) -> Source {
        let address = match peer {
            IpAddr::V4(_) => pick(&self.v4, index).map(|ip| SocketAddr::from((ip, 0))),
            IpAddr::V6(_) => pick(&self.v6, index).map(|ip| SocketAddr::from((ip, 0))),
        };
        let interface = if address.is_none() {
            self.interface.clone()
        } else {
            None
        };
        Source { address, interface }
    }
}

/// The element that a number id names (1 is the first, 0 the last, and it wraps), or one at random.
fn pick<T: Copy>(list: &[T], index: Option<u64>) -> Option<T> {
    let n = list.len();
    let at = match (n, index) {
        (0, _) => return None,
        (1, _) => 0,
        (_, None) => fastrand::usize(..n),
        (_, Some(0)) => n - 1,
        (_, Some(id)) => usize::try_from((id - 1) % n as u64).unwrap_or(0),
    };
    list.get(at).copied()
}

/// RFC 8305's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HappyEyeballs {
    /// How long the preferred family is waited for once the other one has answered (§3).
    pub(crate) resolution_delay: Duration,
    /// How long a missing answer is waited for when nothing is connecting.
    pub(crate) second_resolution_timeout: Duration,
    /// Addresses of the preferred family that are tried before the families take turns (§4).
    pub(crate) first_family_count: usize,
    /// Time between two attempts (§5).
    pub(crate) attempt_delay: Duration,
}

/// Which addresses of a name are asked for, and in which order they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) first: Family,
    pub(crate) second: Option<Family>,
    /// The addresses of a family are shuffled.
    pub(crate) shuffle: bool,
}

impl Order {
    pub(crate) fn uses(self, family: Family) -> bool {
        self.first == family || self.second == Some(family)
    }
}

/// Everything that a connection of one escaper has in common with its others.
pub(crate) struct Dialer {
    pub(crate) escaper: Arc<str>,
    pub(crate) stats: Arc<EscaperStats>,
    pub(crate) resolver: Arc<str>,
    pub(crate) bind: Bind,
    pub(crate) filter: EgressRule,
    pub(crate) no_v4: bool,
    pub(crate) no_v6: bool,
    pub(crate) happy_eyeballs: HappyEyeballs,
}

/// What may differ from connection to connection of one escaper: users have a say in it.
pub(crate) struct Terms<'a> {
    /// Chooses among several local addresses.
    pub(crate) index: Option<u64>,
    pub(crate) order: Order,
    /// Addresses tried in each family.
    pub(crate) tries: usize,
    /// Time limit of one attempt; zero leaves it to the kernel.
    pub(crate) each_timeout: Duration,
    pub(crate) options: Cow<'a, TcpOptions>,
}

/// What came of an attempt.
struct Attempt {
    peer: SocketAddr,
    bind_ip: Option<IpAddr>,
    result: Result<TcpStream, ConnectError>,
}

impl Dialer {
    /// Connects to an address.
    pub(crate) async fn ip(&self, peer: SocketAddr, terms: &Terms<'_>) -> Result<(TcpStream, Path), ConnectFailure> {
        self.may_connect(peer.ip())?;
        let start = Instant::now();
        let attempt = self.attempt(peer, terms).await;
        self.finish(attempt, 1, start)
    }

    /// Connects to whichever of some addresses answers first.
    pub(crate) async fn among(
        &self,
        addresses: &[IpAddr],
        port: u16,
        terms: &Terms<'_>,
    ) -> Result<(TcpStream, Path), ConnectFailure> {
        let mut race = Race::new(self, port, terms);
        for family in [Some(terms.order.first), terms.order.second].into_iter().flatten() {
            let of_family: Vec<_> = addresses
                .iter()
                .copied()
                .filter(|&ip| Family::of(ip) == family)
                .collect();
            race.add(family, &of_family);
        }
        race.run(None::<std::future::Pending<_>>, None, "").await
    }

    /// Connects to a name: to whichever of its addresses answers first, in the order of `terms`.
    pub(crate) async fn domain(
        &self,
        worker: &Worker,
        domain: &str,
        port: u16,
        terms: &Terms<'_>,
    ) -> Result<(TcpStream, Path), ConnectFailure> {
        let lookup = |family| Box::pin(worker.resolver.lookup(&self.resolver, domain, family));
        let order = terms.order;
        Race::new(self, port, terms)
            .run(Some(lookup(order.first)), order.second.map(lookup), domain)
            .await
    }

    /// Whether this escaper connects to `ip` at all. The address that is checked is the one that is connected.
    pub(crate) fn may_connect(&self, ip: IpAddr) -> Result<(), ConnectError> {
        let family = match ip {
            IpAddr::V4(_) if self.no_v4 => Some("IPv4"),
            IpAddr::V6(_) if self.no_v6 => Some("IPv6"),
            _ => None,
        };
        if let Some(family) = family {
            return Err(ConnectError::ForbiddenFamily {
                escaper: Arc::clone(&self.escaper),
                family,
            });
        }
        if self.filter.check(ip).forbids() {
            self.stats.mine().ip_blocked.add(1);
            return Err(ConnectError::ForbiddenAddress {
                escaper: Arc::clone(&self.escaper),
                ip,
            });
        }
        Ok(())
    }

    /// Whether [`Self::may_connect`] lets `ip` pass; nothing is counted.
    pub(crate) fn admits(&self, ip: IpAddr) -> bool {
        let off = if ip.is_ipv4() { self.no_v4 } else { self.no_v6 };
        !off && !self.filter.check(ip).forbids()
    }

    async fn attempt(&self, peer: SocketAddr, terms: &Terms<'_>) -> Attempt {
        let source = self.bind.source(peer.ip(), terms.index);
        let bind_ip = source.address.map(|address| address.ip());
        let stats = self.stats.mine();
        stats.tcp_attempt.add(1);
        let result = self.open(peer, &source, terms).await;
        match &result {
            Ok(_) => stats.tcp_success.add(1),
            Err(ConnectError::ConnectTimeout { .. }) => stats.tcp_timeout.add(1),
            Err(ConnectError::Connect { source, .. }) if source.kind() == io::ErrorKind::TimedOut => {
                stats.tcp_timeout.add(1);
            }
            Err(_) => stats.tcp_error.add(1),
        }
        Attempt { peer, bind_ip, result }
    }

    async fn open(&self, peer: SocketAddr, source: &Source, terms: &Terms<'_>) -> Result<TcpStream, ConnectError> {
        let socket = outgoing(peer, source, &terms.options).map_err(|source| ConnectError::Socket { peer, source })?;
        let connecting = TcpSocket::from_std_stream(socket).connect(peer);
        let connected = if terms.each_timeout.is_zero() {
            connecting.await
        } else {
            timeout(terms.each_timeout, connecting)
                .await
                .map_err(|_| ConnectError::ConnectTimeout {
                    peer,
                    after: terms.each_timeout,
                })?
        };
        connected.map_err(|source| ConnectError::Connect { peer, source })
    }

    fn finish(&self, attempt: Attempt, tries: u32, start: Instant) -> Result<(TcpStream, Path), ConnectFailure> {
        let path = Path {
            bind_ip: attempt.bind_ip,
            local: None,
            peer: Some(attempt.peer),
            tries,
            spent: start.elapsed(),
        };
        match attempt.result {
            Ok(stream) => Ok((stream, path)),
            Err(error) => Err(ConnectFailure {
                error,
                path: Box::new(path),
            }),
        }
    }
}

/// The attempts for one name.
struct Race<'a> {
    dialer: &'a Dialer,
    port: u16,
    terms: &'a Terms<'a>,
    waiting: [VecDeque<IpAddr>; 2],
    left: [usize; 2],
    started: [usize; 2],
    tried: u32,
    running: FuturesUnordered<Pin<Box<dyn Future<Output = Attempt> + Send + 'a>>>,
    next_attempt: Option<Instant>,
    last_error: Option<ConnectError>,
    last_peer: Option<(SocketAddr, Option<IpAddr>)>,
}

impl<'a> Race<'a> {
    fn new(dialer: &'a Dialer, port: u16, terms: &'a Terms<'a>) -> Self {
        Self {
            dialer,
            port,
            terms,
            waiting: [VecDeque::new(), VecDeque::new()],
            left: [terms.tries; 2],
            started: [0; 2],
            tried: 0,
            running: FuturesUnordered::new(),
            next_attempt: None,
            last_error: None,
            last_peer: None,
        }
    }

    /// Runs until an attempt succeeds or there is nothing left to try, with the lookups that are still going on.
    async fn run<L>(
        mut self,
        mut first: Option<L>,
        mut second: Option<L>,
        domain: &str,
    ) -> Result<(TcpStream, Path), ConnectFailure>
    where
        L: Future<Output = Result<Answer, ResolveError>> + Unpin,
    {
        let times = &self.dialer.happy_eyeballs;
        let start = Instant::now();
        let mut unresolved = None;
        let mut preferred_until = None;
        loop {
            let connecting = !self.running.is_empty();
            // The next attempt waits for the delay after the last one, and for the preferred family's answer.
            let hold = self.next_attempt.max(preferred_until);
            if self.has_candidate() && hold.is_none_or(|at| at <= Instant::now()) {
                self.start_next();
                continue;
            }
            if !connecting && !self.has_candidate() && first.is_none() && second.is_none() {
                let error = self
                    .last_error
                    .take()
                    .or(unresolved)
                    .unwrap_or_else(|| ConnectError::NoAddress {
                        escaper: Arc::clone(&self.dialer.escaper),
                        domain: domain.into(),
                    });
                return Err(ConnectFailure {
                    error,
                    path: Box::new(self.path(start)),
                });
            }
            let give_up = !connecting && !self.has_candidate() && self.tried > 0;
            tokio::select! {
                biased;
                Some(attempt) = self.running.next(), if connecting => {
                    if attempt.result.is_ok() {
                        return self.dialer.finish(attempt, self.tried, start);
                    }
                    self.last_peer = Some((attempt.peer, attempt.bind_ip));
                    self.last_error = attempt.result.err();
                    // The next one need not wait any more.
                    self.next_attempt = None;
                }
                answer = opt(&mut first), if first.is_some() => {
                    first = None;
                    preferred_until = None;
                    match answer {
                        Ok(answer) => self.add(self.terms.order.first, &answer.addresses),
                        Err(source) => unresolved = Some(ConnectError::Resolve { domain: domain.into(), source }),
                    }
                }
                answer = opt(&mut second), if second.is_some() => {
                    second = None;
                    match answer {
                        Ok(answer) => self.add(self.terms.order.second.unwrap_or(self.terms.order.first), &answer.addresses),
                        Err(source) => {
                            unresolved.get_or_insert_with(|| ConnectError::Resolve { domain: domain.into(), source });
                        }
                    }
                    if first.is_some() && self.has_candidate() {
                        preferred_until = Some(Instant::now() + times.resolution_delay);
                    }
                }
                () = until(hold), if self.has_candidate() => {
                    self.next_attempt = None;
                    preferred_until = None;
                }
                () = tokio::time::sleep(times.second_resolution_timeout), if give_up => {
                    // Every address that came has failed, and the other family keeps silent.
                    first = None;
                    second = None;
                }
            }
        }
    }

    /// Puts the permitted ones of a family's addresses into the queue.
    fn add(&mut self, family: Family, addresses: &[IpAddr]) {
        let slot = usize::from(family != self.terms.order.first);
        let mut addresses = addresses.to_vec();
        if self.terms.order.shuffle {
            fastrand::shuffle(&mut addresses);
        }
        for ip in addresses {
            match self.dialer.may_connect(ip) {
                Ok(()) => self.waiting[slot].push_back(ip),
                Err(error) => self.last_error = Some(error),
            }
        }
    }

    /// The family whose turn it is: the preferred one for its first few addresses, then in turn.
    fn turn(&self) -> Option<usize> {
        let ready = |slot: usize| self.left[slot] > 0 && !self.waiting[slot].is_empty();
        let lead = self.dialer.happy_eyeballs.first_family_count.max(1);
        let preferred = self.started[0] < lead || self.started[0] - lead < self.started[1];
        let turn = usize::from(!preferred);
        [turn, 1 - turn].into_iter().find(|&slot| ready(slot))
    }

    fn has_candidate(&self) -> bool {
        self.turn().is_some()
    }

    fn start_next(&mut self) {
        let Some(slot) = self.turn() else { return };
        let Some(ip) = self.waiting[slot].pop_front() else {
            return;
        };
        self.left[slot] -= 1;
        self.started[slot] += 1;
        self.tried += 1;
        let dialer = self.dialer;
        let peer = SocketAddr::new(ip, self.port);
        self.running.push(Box::pin(dialer.attempt(peer, self.terms)));
        self.next_attempt = Some(Instant::now() + dialer.happy_eyeballs.attempt_delay);
    }

    fn path(&self, start: Instant) -> Path {
        Path {
            bind_ip: self.last_peer.and_then(|(_, ip)| ip),
            local: None,
            peer: self.last_peer.map(|(peer, _)| peer),
            tries: self.tried,
            spent: start.elapsed(),
        }
    }
}

async fn opt<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
