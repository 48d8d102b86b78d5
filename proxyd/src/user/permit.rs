//! What a user who has logged in may do (users.md §10.5).

use std::sync::Arc;
use std::time::Duration;

use sluice_addr::Upstream;
use sluice_auth::EgressUpstream;
use sluice_config::value::ResolveStrategy;
use sluice_io::throttle::SharedLimit;
use sluice_tls::client::Connector;
use thiserror::Error;

use super::kind::{ClientProtocol, RequestKind};
use super::login::LoginError;
use super::member::User;
use super::rate::{DatagramLimiter, RateLimiter, SpeedLimiter};
use super::sites::Site;
use super::stats::{AtEscaper, AtServer, Forbidden};
use crate::stats::{EscaperStats, ServerStats};

/// A user on one connection.
pub(crate) struct Login {
    pub(crate) user: Arc<User>,
    /// The name as it was given, for logs.
    name: Option<Arc<str>>,
    /// The next proxy that the login asks for.
    egress: Option<Arc<EgressUpstream>>,
    numbers: Arc<AtServer>,
    server: Arc<ServerStats>,
    protocol: ClientProtocol,
    is_new: bool,
    /// Whether a request has been made.
    is_used: bool,
    /// The sites that requests of this connection were for, those with numbers.
    sites: Vec<Arc<AtServer>>,
}

/// A request that may go on. It counts as running until it is dropped.
pub(crate) struct Permit {
    pub(crate) user: Arc<User>,
    pub(crate) site: Option<Arc<Site>>,
    name: Option<Arc<str>>,
    egress: Option<Arc<EgressUpstream>>,
    kind: RequestKind,
    numbers: Arc<AtServer>,
    site_numbers: Option<Arc<AtServer>>,
    upstream: Option<Arc<AtEscaper>>,
    site_upstream: Option<Arc<AtEscaper>>,
    is_ready: bool,
}

/// Why a request may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error("destination denied")]
    DestinationDenied,
    #[error("the user has as many requests running as it may")]
    FullyLoaded,
    #[error("this kind of request is banned")]
    ProtocolBanned,
    #[error("rate limited")]
    RateLimited,
    #[error("the user agent is blocked")]
    UserAgentBlocked,
}

impl Login {
    pub(super) fn new(
        user: &Arc<User>,
        name: Option<&str>,
        numbers: Arc<AtServer>,
        server: &Arc<ServerStats>,
        protocol: ClientProtocol,
    ) -> Self {
        Self {
            user: Arc::clone(user),
            name: name.map(Arc::from),
            egress: None,
            numbers,
            server: Arc::clone(server),
            protocol,
            is_new: true,
            is_used: false,
            sites: Vec::new(),
        }
    }

    /// The same with the next proxy that it asks for.
    pub(super) fn with_egress(mut self, egress: Option<EgressUpstream>) -> Self {
        self.egress = egress.map(Arc::new);
        self
    }

    /// The same for a connection on which `before` was logged in: if it is the same user, nothing begins anew.
    pub(crate) fn after(mut self, before: Option<Self>) -> Self {
        if let Some(mut before) = before.filter(|before| Arc::ptr_eq(&before.numbers, &self.numbers)) {
            self.is_used = std::mem::take(&mut before.is_used);
            self.sites = std::mem::take(&mut before.sites);
            self.is_new = !Arc::ptr_eq(&before.user, &self.user);
        }
        self
    }

    /// Whether nobody else was logged in before, or another user.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// What holds for every kind of user at every request (AU-07).
    pub(super) fn check(user: &User, numbers: &AtServer) -> Result<(), LoginError> {
        if user.is_expired() {
            numbers.forbid(Forbidden::UserExpired);
            return Err(LoginError::Expired);
        }
        if let Some(delay) = user.block() {
            numbers.forbid(Forbidden::UserBlocked);
            return Err(LoginError::Blocked { delay });
        }
        Ok(())
    }

    /// The same for one that goes on.
    pub(super) fn recheck(mut self) -> Result<Self, LoginError> {
        self.is_new = false;
        Self::check(&self.user, &self.numbers).map(|()| self)
    }

    /// Asks whether a request may go on; `allowed` asks the server's own rules about the target.
    ///
    /// # Errors
    /// [`Refusal`], for the first thing that is against it.
    pub(crate) fn request(
        &mut self,
        kind: RequestKind,
        target: &Upstream,
        allowed: impl FnOnce() -> bool,
    ) -> Result<Permit, Refusal> {
        let site = self.user.sites.find(&target.host).map(Arc::clone);
        let permit = self.begin_request(kind, site)?;
        if !permit.user.reaches(target) || !allowed() {
            return Err(self.refuse(Forbidden::DestDenied, Refusal::DestinationDenied));
        }
        Ok(permit)
    }

    /// Asks whether a request may go on whose targets are told later.
    ///
    /// # Errors
    /// [`Refusal`], for the first thing that is against it.
    pub(crate) fn open_request(&mut self, kind: RequestKind) -> Result<Permit, Refusal> {
        self.begin_request(kind, None)
    }

    /// The first target of an open request: the site that it belongs to is the request's.
    pub(crate) fn set_target(&mut self, permit: &mut Permit, target: &Upstream) {
        let site = self.user.sites.find(&target.host).map(Arc::clone);
        permit.site_numbers = self.site_numbers(site.as_deref());
        permit.site = site;
        if let Some(numbers) = &permit.site_numbers {
            let counters = numbers.kind(permit.kind);
            counters.started.add(1);
            counters.began.add(1);
        }
    }

    fn begin_request(&mut self, kind: RequestKind, site: Option<Arc<Site>>) -> Result<Permit, Refusal> {
        let is_first = !std::mem::replace(&mut self.is_used, true);
        if is_first {
            self.numbers.connection(self.protocol);
        }
        self.numbers.kind(kind).started.add(1);
        let site_numbers = self.site_numbers(site.as_deref());
        if let Some(numbers) = &site_numbers {
            numbers.kind(kind).started.add(1);
        }
        let limits = &self.user.limits;
        let may = |limiter: &Option<RateLimiter>| limiter.as_ref().is_none_or(RateLimiter::take);
        if (is_first && !may(&limits.connections)) || !may(&limits.requests) {
            return Err(self.refuse(Forbidden::RateLimited, Refusal::RateLimited));
        }
        let permit = self
            .begin(kind, site, site_numbers)
            .ok_or_else(|| self.refuse(Forbidden::FullyLoaded, Refusal::FullyLoaded))?;
        if let (Some(rule), Some(kind)) = (&self.user.config.proxy_request_filter, kind.filtered_as())
            && rule.check(kind).forbids()
        {
            return Err(self.refuse(Forbidden::ProtoBanned, Refusal::ProtocolBanned));
        }
        Ok(permit)
    }

    /// Asks whether the user may have these user agents: the values of all `User-Agent` fields of a request.
    ///
    /// # Errors
    /// [`Refusal::UserAgentBlocked`].
    pub(crate) fn check_user_agents<'a>(&self, mut agents: impl Iterator<Item = &'a [u8]>) -> Result<(), Refusal> {
        let Some(rule) = &self.user.config.http_user_agent_filter else {
            return Ok(());
        };
        let forbids = |agent: &[u8]| rule.check(&String::from_utf8_lossy(agent)).forbids();
        let is_blocked = match agents.next() {
            // What the rule says where nothing is found.
            None => forbids(b""),
            Some(first) => forbids(first) || agents.any(forbids),
        };
        if is_blocked {
            return Err(self.refuse(Forbidden::UaBlocked, Refusal::UserAgentBlocked));
        }
        Ok(())
    }

    fn refuse(&self, why: Forbidden, refusal: Refusal) -> Refusal {
        self.numbers.forbid(why);
        refusal
    }

    /// The numbers of a site at this server; the first request for it on a connection counts as a connection.
    fn site_numbers(&mut self, site: Option<&Site>) -> Option<Arc<AtServer>> {
        let numbers = site?.numbers.as_ref()?.at_server(&self.server);
        if !self.sites.iter().any(|known| Arc::ptr_eq(known, &numbers)) {
            numbers.connection(self.protocol);
            self.sites.push(Arc::clone(&numbers));
        }
        Some(numbers)
    }

    fn begin(&self, kind: RequestKind, site: Option<Arc<Site>>, site_numbers: Option<Arc<AtServer>>) -> Option<Permit> {
        if !self.user.state.begin(self.user.config.request_max_alive) {
            return None;
        }
        let permit = Permit {
            user: Arc::clone(&self.user),
            site,
            name: self.name.clone(),
            egress: self.egress.clone(),
            kind,
            numbers: Arc::clone(&self.numbers),
            site_numbers,
            upstream: None,
            site_upstream: None,
            is_ready: false,
        };
        permit.count(|numbers| numbers.kind(kind).began.add(1));
        Some(permit)
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        if self.is_used {
            self.numbers.connection_ended(self.protocol);
        }
        for numbers in &self.sites {
            numbers.connection_ended(self.protocol);
        }
    }
}

impl Permit {
    /// The name for log records.
    pub(crate) fn log_name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    /// The next proxy that the login asks for, in place of the escaper's own.
    pub(crate) fn egress(&self) -> Option<&Arc<EgressUpstream>> {
        self.egress.as_ref()
    }

    /// A target that was asked for later on is out of reach.
    pub(crate) fn target_denied(&self) {
        self.numbers.forbid(Forbidden::DestDenied);
    }

    /// Whether the user has become blocked: the task must end.
    pub(crate) fn is_blocked(&self) -> bool {
        self.user.state.is_blocked()
    }

    /// Whether one more log record may be written.
    pub(crate) fn may_log(&self) -> bool {
        let may = self.user.limits.logs.as_ref().is_none_or(RateLimiter::take);
        if !may {
            self.numbers.forbid(Forbidden::LogSkipped);
        }
        may
    }

    /// Time for a response head: the site's, else the user's, else the server's.
    pub(crate) fn response_timeout(&self, of_server: Duration) -> Duration {
        let of_site = self.site.as_ref().and_then(|site| site.response_timeout);
        let of_user = || self.user.config.http_rsp_header_recv_timeout.map(|span| span.0);
        of_site.or_else(of_user).unwrap_or(of_server)
    }

    /// The limits of all that the user sends, and of all that it is sent.
    pub(crate) fn shared_limits(&self) -> (Option<&Arc<SharedLimit>>, Option<&Arc<SharedLimit>>) {
        let limits = &self.user.limits;
        let (up, down) = (limits.upload.as_ref(), limits.download.as_ref());
        (up.map(SpeedLimiter::limit), down.map(SpeedLimiter::limit))
    }

    /// The same of datagrams.
    pub(crate) fn shared_datagram_limits(&self) -> (Option<&Arc<SharedLimit>>, Option<&Arc<SharedLimit>>) {
        let limits = &self.user.limits;
        let (up, down) = (limits.udp_upload.as_ref(), limits.udp_download.as_ref());
        (up.map(DatagramLimiter::limit), down.map(DatagramLimiter::limit))
    }

    /// TLS to origins with settings of the site, and the number of these settings.
    pub(crate) fn tls_client(&self) -> Option<&(Connector, u64)> {
        self.site.as_ref()?.tls_client.as_ref()
    }

    /// Which addresses of a name are used: the site's wish, else the user's.
    pub(crate) fn resolve_strategy(&self) -> Option<ResolveStrategy> {
        let of_site = self.site.as_ref().and_then(|site| site.resolve_strategy);
        of_site.or(self.user.config.resolve_strategy)
    }

    /// The upstream is connected by `escaper`.
    pub(crate) fn set_escaper(&mut self, escaper: &Arc<EscaperStats>) {
        self.upstream = Some(self.user.state.numbers.at_escaper(escaper));
        let site = self.site.as_ref().and_then(|site| site.numbers.as_ref());
        self.site_upstream = site.map(|numbers| numbers.at_escaper(escaper));
    }

    /// A kept upstream connection is taken.
    pub(crate) fn reused(&self) {
        self.count(|numbers| numbers.kind(self.kind).reused.add(1));
    }

    /// A kept upstream connection failed, and the request goes over a new one.
    pub(crate) fn renewed(&self) {
        self.count(|numbers| numbers.kind(self.kind).renewed.add(1));
    }

    /// Data begins to flow, so long after the task began.
    pub(crate) fn ready(&mut self, after: Duration) {
        if !std::mem::replace(&mut self.is_ready, true) {
            self.count(|numbers| {
                numbers.kind(self.kind).ready.add(1);
                numbers.ready_after(after);
            });
        }
    }

    /// An address that the target's name led to is not to be connected.
    pub(crate) fn address_refused(&self) {
        self.numbers.forbid(Forbidden::IpBlocked);
    }

    /// `n` bytes came from the client.
    pub(crate) fn received(&self, n: u64) {
        self.count(|numbers| numbers.kind(self.kind).received.add(n));
    }

    /// `n` datagrams came from the client.
    pub(crate) fn received_packets(&self, n: u64) {
        self.count(|numbers| numbers.kind(self.kind).received_packets.add(n));
    }

    /// `n` datagrams went to the client.
    pub(crate) fn sent_packets(&self, n: u64) {
        self.count(|numbers| numbers.kind(self.kind).sent_packets.add(n));
    }

    /// Datagrams came from the remote.
    pub(crate) fn received_datagrams_upstream(&self, bytes: u64, packets: u64) {
        for numbers in [&self.upstream, &self.site_upstream].into_iter().flatten() {
            numbers.received_datagrams(bytes, packets);
        }
    }

    /// Datagrams went to the remote.
    pub(crate) fn sent_datagrams_upstream(&self, bytes: u64, packets: u64) {
        for numbers in [&self.upstream, &self.site_upstream].into_iter().flatten() {
            numbers.sent_datagrams(bytes, packets);
        }
    }

    /// `n` bytes went to the client.
    pub(crate) fn sent(&self, n: u64) {
        self.count(|numbers| numbers.kind(self.kind).sent.add(n));
    }

    /// `n` bytes came from the remote.
    pub(crate) fn received_upstream(&self, n: u64) {
        for numbers in [&self.upstream, &self.site_upstream].into_iter().flatten() {
            numbers.received(n);
        }
    }

    /// `n` bytes went to the remote.
    pub(crate) fn sent_upstream(&self, n: u64) {
        for numbers in [&self.upstream, &self.site_upstream].into_iter().flatten() {
            numbers.sent(n);
        }
    }

    /// Counts for the user, and for the site if it has numbers.
    fn count(&self, count: impl Fn(&AtServer)) {
        count(&self.numbers);
        if let Some(numbers) = &self.site_numbers {
            count(numbers);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.count(|numbers| numbers.kind(self.kind).ended.add(1));
        self.user.state.end();
    }
}
