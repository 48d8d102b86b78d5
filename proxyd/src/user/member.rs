//! One user at work: what is configured, and what outlives configurations.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path as FsPath;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sluice_addr::Upstream;
use sluice_config::value::{Span, SpeedLimitTcp, SpeedLimitUdp};
use sluice_telemetry::metrics::Registry;
use sluice_tls::BuildError;

use super::config::{SiteConfig, UserConfig};
use super::kind::UserType;
use super::next_id;
use super::rate::{DatagramLimiter, RateLimiter, SpeedLimiter};
use super::sites::Sites;
use super::stats::{Identity, Numbers};

/// A user under one configuration. Tasks keep the one that they began with.
pub(crate) struct User {
    pub(crate) config: UserConfig,
    /// Another one for every configuration that any user has had.
    pub(crate) id: u64,
    pub(crate) state: Arc<UserState>,
    pub(crate) sites: Sites,
    pub(crate) limits: Limits,
    expire: Option<SystemTime>,
}

/// What a user's requests share, and keep over a reload if it is configured as before.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) connections: Option<RateLimiter>,
    pub(crate) requests: Option<RateLimiter>,
    pub(crate) logs: Option<RateLimiter>,
    pub(crate) upload: Option<SpeedLimiter>,
    pub(crate) download: Option<SpeedLimiter>,
    pub(crate) udp_upload: Option<DatagramLimiter>,
    pub(crate) udp_download: Option<DatagramLimiter>,
}

/// What stays with a name whatever its configuration is.
#[derive(Debug)]
pub(crate) struct UserState {
    identity: Arc<Identity>,
    registry: Registry,
    pub(crate) numbers: Numbers,
    sites: Mutex<HashMap<Box<str>, Arc<Numbers>>>,
    /// Requests that run now.
    alive: AtomicUsize,
    /// As the newest configuration says.
    blocked: AtomicBool,
}

/// What users of a group are made with.
pub(crate) struct Maker<'a> {
    pub(crate) group: &'a Arc<str>,
    pub(crate) kind: UserType,
    pub(crate) registry: &'a Registry,
    /// The folder of relative file names.
    pub(crate) base: &'a FsPath,
}

/// A user that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("user `{name}`: {source}")]
pub(crate) struct MakeError {
    name: Box<str>,
    source: BuildError,
}

impl Maker<'_> {
    /// Makes a user; `before` is who has the name now.
    ///
    /// # Errors
    /// [`MakeError`] if files of a site's `tls_client` are not what they should be.
    pub(crate) fn make(&self, config: &UserConfig, before: Option<&Arc<User>>) -> Result<Arc<User>, MakeError> {
        if let Some(before) = before.filter(|before| before.config == *config && !config.reads_files()) {
            return Ok(Arc::clone(before));
        }
        let state = before.map_or_else(|| self.state(config.name.as_str()), |before| Arc::clone(&before.state));
        let sites =
            Sites::new(&config.explicit_sites, self.base, |site| state.site(site)).map_err(|source| MakeError {
                name: config.name.as_str().into(),
                source,
            })?;
        let limits = Limits::new(config, before.map(|before| &before.limits));
        Ok(Arc::new(User {
            config: config.clone(),
            id: next_id(),
            state,
            sites,
            limits,
            expire: config.expire.map(|expire| expire.0.into()),
        }))
    }

    fn state(&self, name: &str) -> Arc<UserState> {
        let identity = Arc::new(Identity {
            group: Arc::clone(self.group),
            name: name.into(),
            kind: self.kind,
        });
        Arc::new(UserState {
            numbers: Numbers::of_user(&identity, self.registry),
            identity,
            registry: self.registry.clone(),
            sites: Mutex::default(),
            alive: AtomicUsize::new(0),
            blocked: AtomicBool::new(false),
        })
    }
}

impl UserConfig {
    /// Whether files belong to it that may change while it does not.
    fn reads_files(&self) -> bool {
        self.explicit_sites.iter().any(|site| site.tls_client.is_some())
    }
}

impl Limits {
    fn new(config: &UserConfig, before: Option<&Self>) -> Self {
        let rate = |quota, of: fn(&Self) -> &Option<RateLimiter>| {
            RateLimiter::new(quota, before.and_then(|before| of(before).as_ref()))
        };
        let speed = |limit, of: fn(&Self) -> &Option<SpeedLimiter>| {
            SpeedLimiter::new(limit, before.and_then(|before| of(before).as_ref()))
        };
        let datagrams = |limit, of: fn(&Self) -> &Option<DatagramLimiter>| {
            DatagramLimiter::new(limit, before.and_then(|before| of(before).as_ref()))
        };
        Self {
            connections: rate(config.connection_rate_limit, |limits| &limits.connections),
            requests: rate(config.request_rate_limit, |limits| &limits.requests),
            logs: rate(config.log_rate_limit, |limits| &limits.logs),
            upload: speed(config.tcp_all_upload_speed_limit, |limits| &limits.upload),
            download: speed(config.tcp_all_download_speed_limit, |limits| &limits.download),
            udp_upload: datagrams(config.udp_all_upload_speed_limit, |limits| &limits.udp_upload),
            udp_download: datagrams(config.udp_all_download_speed_limit, |limits| &limits.udp_download),
        }
    }
}

impl User {
    /// Lets the configuration hold for what outlives it: called when it comes into force.
    pub(crate) fn activate(&self) {
        let blocked = self.config.block_and_delay.is_some();
        self.state.blocked.store(blocked, Ordering::Relaxed);
        self.state.keep_sites(&self.config.explicit_sites);
    }

    /// Whether clients from `ip` may be this user.
    pub(crate) fn admits(&self, ip: IpAddr) -> bool {
        let rule = self.config.ingress_network_filter.as_ref();
        rule.is_none_or(|rule| !rule.check(ip).forbids())
    }

    /// Whether the user's rules on ports and hosts let it ask for `target`.
    pub(crate) fn reaches(&self, target: &Upstream) -> bool {
        let port = self.config.dst_port_filter.as_ref();
        let host = self.config.dst_host_filter_set.as_ref();
        port.is_none_or(|rule| !rule.check(target.port).forbids())
            && host.is_none_or(|rule| !rule.check(&target.host).forbids())
    }

    /// Whether the user's time is over.
    pub(crate) fn is_expired(&self) -> bool {
        self.expire.is_some_and(|expire| SystemTime::now() > expire)
    }

    /// The delay of the answer, if the user is blocked.
    pub(crate) fn block(&self) -> Option<Duration> {
        match self.config.block_and_delay {
            Some(Span(delay)) => Some(delay),
            // Blocked by a newer configuration than this one.
            None if self.state.is_blocked() => Some(Duration::ZERO),
            None => None,
        }
    }

    /// Speed limit of each TCP connection.
    pub(crate) fn speed_limit(&self) -> Option<SpeedLimitTcp> {
        self.config.tcp_sock_speed_limit.filter(|limit| !limit.is_off())
    }

    /// Speed limit of each UDP socket.
    pub(crate) fn udp_speed_limit(&self) -> Option<SpeedLimitUdp> {
        self.config.udp_sock_speed_limit.filter(|limit| !limit.is_off())
    }
}

impl UserState {
    /// Whether the user is blocked by now, whatever it was when a task began.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Notes a new request, unless `most` of them run already; 0 is any number.
    pub(crate) fn begin(&self, most: usize) -> bool {
        let alive = self.alive.fetch_add(1, Ordering::Relaxed);
        let is_fine = most == 0 || alive < most;
        if !is_fine {
            self.end();
        }
        is_fine
    }

    /// Notes the end of a request that has begun.
    pub(crate) fn end(&self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }

    /// The numbers of a site.
    fn site(&self, site: &SiteConfig) -> Arc<Numbers> {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers = sites.entry(site.id.as_str().into()).or_insert_with(|| {
            let duration = &site.duration_stats;
            Arc::new(Numbers::of_site(&self.identity, &site.id, duration, &self.registry))
        });
        Arc::clone(numbers)
    }

    /// Forgets the numbers of sites that have none any more.
    fn keep_sites(&self, configs: &[SiteConfig]) {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.retain(|id, numbers| {
            let config = configs.iter().find(|site| site.emit_stats && *site.id == **id);
            if let Some(config) = config {
                numbers.configure(&config.duration_stats);
            }
            config.is_some()
        });
    }

    /// Forgets the numbers at servers and escapers that are there no more.
    pub(crate) fn keep_numbers(&self, server: &impl Fn(&str) -> bool, escaper: &impl Fn(&str) -> bool) {
        self.numbers.keep(server, escaper);
        for numbers in self.sites.lock().unwrap_or_else(PoisonError::into_inner).values() {
            numbers.keep(server, escaper);
        }
    }
}
