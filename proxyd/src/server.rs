//! The ways into the proxy. A server speaks its protocol with the client and asks an escaper for the upstream.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sluice_acl::IngressRule;
use sluice_config::value::{SpeedLimitTcp, TcpMiscOpts};
use sluice_io::Stream;
use sluice_io::pump::PumpOptions;
use sluice_io::throttle::Rate;
use sluice_sys::socket::TcpOptions;
use sluice_telemetry::{EventLogger, debug};

use self::keys::TaskKeys;
use crate::audit::Auditor;
use crate::config::tcp_options;
use crate::stats::ServerStats;
use crate::task::Peers;
use crate::user::RateLimiter;
use crate::worker::Worker;

pub(crate) mod dummy_close;
pub(crate) mod http_proxy;
pub(crate) mod intelli_proxy;
pub(crate) mod keys;
pub(crate) mod port;
pub(crate) mod rules;
pub(crate) mod socks_proxy;

/// A connection that has just come in.
pub(crate) struct Accepted {
    pub(crate) stream: Stream,
    pub(crate) peers: Peers,
    pub(crate) accepted: Instant,
}

/// A way in. A new kind is one file, one variant here and one in [`crate::config::ServerConfig`].
pub(crate) enum Server {
    DummyClose(dummy_close::DummyClose),
    HttpProxy(Arc<http_proxy::HttpProxy>),
    IntelliProxy(intelli_proxy::IntelliProxy),
    Port(port::Port),
    SocksProxy(Arc<socks_proxy::SocksProxy>),
}

impl Server {
    /// What all kinds have in common.
    pub(crate) fn common(&self) -> &Arc<ServerCommon> {
        match self {
            Self::DummyClose(server) => &server.common,
            Self::HttpProxy(server) => &server.common,
            Self::IntelliProxy(server) => &server.common,
            Self::Port(server) => &server.common,
            Self::SocksProxy(server) => &server.common,
        }
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(self: Arc<Self>, conn: Accepted, worker: Arc<Worker>) {
        match &*self {
            Self::DummyClose(server) => server.close(conn),
            Self::HttpProxy(server) => {
                let server = Arc::clone(server);
                drop(self);
                http_proxy::serve(server, conn, worker).await;
            }
            Self::IntelliProxy(server) => server.serve(conn, worker).await,
            Self::Port(server) => server.serve(conn, worker).await,
            Self::SocksProxy(server) => {
                let server = Arc::clone(server);
                drop(self);
                socks_proxy::serve(server, conn, worker).await;
            }
        }
    }

    /// Takes a connection that came in through another server and serves it in a task of its own.
    pub(crate) fn adopt(self: &Arc<Self>, conn: Accepted, worker: &Arc<Worker>) {
        let common = self.common();
        if !common.admits(conn.peers.client.ip()) {
            common.stats.mine().dropped.add(1);
            return;
        }
        if let Some(options) = &common.tcp_options {
            set_options(&common.name, &conn.stream, options);
        }
        worker.spawn(Arc::clone(self).serve(conn, Arc::clone(worker)));
    }
}

/// Sets options on the socket of a client of `server`.
pub(crate) fn set_options(server: &str, stream: &Stream, options: &TcpOptions) {
    let Some(tcp) = stream.tcp() else { return };
    // The addresses that a PROXY protocol header tells are not the socket's.
    let v6 = tcp.local_addr().is_ok_and(|own| own.ip().to_canonical().is_ipv6());
    if let Err(error) = options.apply(tcp.into(), v6) {
        debug!("a socket option was refused"; "server" => server, "error" => %error);
    }
}

/// What every kind of server has.
pub(crate) struct ServerCommon {
    pub(crate) name: Arc<str>,
    /// The `server_type` of log records.
    pub(crate) kind: &'static str,
    pub(crate) stats: Arc<ServerStats>,
    pub(crate) task_log: EventLogger,
    pub(crate) options: TaskOptions,
    /// Who looks into its tunnels.
    pub(crate) auditor: Option<Arc<Auditor>>,
    pub(crate) ingress: Option<IngressRule>,
    connection_rate: Option<RateLimiter>,
    request_rate: Option<RateLimiter>,
    /// Options for connections that another server has accepted; those of our own listener have them already.
    pub(crate) tcp_options: Option<TcpOptions>,
    /// Set when this object has been replaced: kept connections end with their next response.
    retired: AtomicBool,
    /// Set when the tasks of this object are told to end.
    quit: AtomicBool,
}

/// How tasks of a server run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskOptions {
    pub(crate) log_on_created: bool,
    pub(crate) log_on_connected: bool,
    pub(crate) log_interval: Option<Duration>,
    pub(crate) idle_interval: Duration,
    pub(crate) idle_max: usize,
    pub(crate) pump: PumpOptions,
    /// Speed limit of each client connection.
    pub(crate) limit: Option<SpeedLimitTcp>,
}

impl TaskOptions {
    /// How bytes are moved from and to a client, under the server's limit and these.
    pub(crate) fn pumps(&self, limits: [Option<SpeedLimitTcp>; 2]) -> (PumpOptions, PumpOptions) {
        let limits = limits.into_iter().chain([self.limit]).flatten();
        let Some(limit) = limits.reduce(SpeedLimitTcp::and) else {
            return (self.pump, self.pump);
        };
        let per = Duration::from_millis(1 << limit.shift_millis);
        let with = |bytes| PumpOptions {
            rate: Some(Rate { bytes, per }),
            ..self.pump
        };
        (with(limit.upload), with(limit.download))
    }

    /// Time between two looks at a running task: for idleness, and for its periodic log record.
    pub(crate) fn check_interval(&self) -> Duration {
        self.log_interval
            .map_or(self.idle_interval, |log| log.min(self.idle_interval))
    }

    /// How long a task may go on without a byte.
    pub(crate) fn stall_limit(&self) -> Duration {
        self.stall_limit_for(None)
    }

    /// The same with a number of idle checks that is the user's, if it has one.
    pub(crate) fn stall_limit_for(&self, idle_max: Option<usize>) -> Duration {
        let checks = u32::try_from(idle_max.unwrap_or(self.idle_max)).unwrap_or(u32::MAX);
        self.idle_interval.saturating_mul(checks.saturating_add(1))
    }
}

impl ServerCommon {
    /// `before` is what has the name now: rates go on if their quotas stay.
    pub(crate) fn new(
        name: Arc<str>,
        kind: &'static str,
        stats: Arc<ServerStats>,
        task_log: EventLogger,
        keys: &TaskKeys<'_>,
        auditor: Option<Arc<Auditor>>,
        before: Option<&Self>,
    ) -> Arc<Self> {
        let connection_rate = before.and_then(|before| before.connection_rate.as_ref());
        let request_rate = before.and_then(|before| before.request_rate.as_ref());
        let own_options = *keys.tcp_misc_opts != TcpMiscOpts::default();
        Arc::new(Self {
            name,
            kind,
            stats,
            task_log,
            options: keys.task_options(),
            auditor,
            ingress: keys.ingress_network_filter.cloned(),
            connection_rate: RateLimiter::new(keys.connection_rate_limit, connection_rate),
            request_rate: RateLimiter::new(keys.request_rate_limit, request_rate),
            tcp_options: own_options.then(|| tcp_options(keys.tcp_misc_opts, None)),
            retired: AtomicBool::default(),
            quit: AtomicBool::default(),
        })
    }

    /// For a kind without tasks.
    pub(crate) fn bare(
        name: Arc<str>,
        kind: &'static str,
        stats: Arc<ServerStats>,
        ingress: Option<&IngressRule>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            kind,
            stats,
            task_log: EventLogger::discard(),
            options: TaskOptions {
                log_on_created: false,
                log_on_connected: false,
                log_interval: None,
                idle_interval: Duration::from_secs(60),
                idle_max: 0,
                pump: PumpOptions::default(),
                limit: None,
            },
            auditor: None,
            ingress: ingress.cloned(),
            connection_rate: None,
            request_rate: None,
            tcp_options: None,
            retired: AtomicBool::default(),
            quit: AtomicBool::default(),
        })
    }

    /// Whether one more connection, from `ip`, is let in.
    pub(crate) fn admits(&self, ip: IpAddr) -> bool {
        self.ingress.as_ref().is_none_or(|rule| !rule.check(ip).forbids())
            && self.connection_rate.as_ref().is_none_or(RateLimiter::take)
    }

    /// Whether one more request is taken.
    pub(crate) fn takes_request(&self) -> bool {
        self.request_rate.as_ref().is_none_or(RateLimiter::take)
    }

    /// Notes that another object has taken this one's place.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Tells the tasks of this object to end at their next idle check.
    pub(crate) fn quit(&self) {
        self.quit.store(true, Ordering::Relaxed);
    }

    pub(crate) fn must_quit(&self) -> bool {
        self.quit.load(Ordering::Relaxed)
    }
}
