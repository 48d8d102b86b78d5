//! Queries as c-ares makes them: the servers in turn, with timeouts that grow from round to round.
//!
//! With the cargo feature `c-ares` it is the real one that asks; without it the same keys drive the stub on hickory's
//! transports.

#[cfg(feature = "c-ares")]
mod channel;

#[cfg(feature = "c-ares")]
pub(crate) use channel::Channel;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::value::Span;
use sluice_lifecycle::Tasks;
use sluice_sys::socket::TcpOptions;
use sluice_telemetry::{keys, warn};

use super::{BuildError, Common, Servers, servers};
use crate::{
    cache::TtlBounds,
    stub::{Plan, Server, SocketOptions, Sockets, Step, Stub, Timing, Transport},
};

/// Where the system's name servers stand.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Queries over UDP, and TCP for what does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CAresConfig {
    /// The servers; those of `/etc/resolv.conf` if absent.
    pub(crate) server: Option<servers::Sockets>,
    /// The time for the first try of a server, in milliseconds; doubled from round to round.
    pub(crate) each_timeout: u32,
    /// Tries for each server.
    pub(crate) each_tries: u32,
    /// The limit of the growing time, in milliseconds; none if 0.
    pub(crate) max_timeout: i32,
    /// Queries for each local port and server; any number if 0. Each query has a port of its own here.
    pub(crate) udp_max_quires: i32,
    /// Each query begins with another server.
    pub(crate) round_robin: bool,
    /// SO_SNDBUF.
    pub(crate) socket_send_buffer_size: Option<u32>,
    /// SO_RCVBUF.
    pub(crate) socket_recv_buffer_size: Option<u32>,
    /// The local address for IPv4 servers.
    pub(crate) bind_ipv4: Option<Ipv4Addr>,
    /// The local address for IPv6 servers.
    pub(crate) bind_ipv6: Option<Ipv6Addr>,
    /// The least time that addresses are kept, in seconds.
    pub(crate) positive_min_ttl: u32,
    /// The longest time that addresses are kept, in seconds.
    #[serde(alias = "positive_ttl", alias = "max_cache_ttl", alias = "maximum_cache_ttl")]
    pub(crate) positive_max_ttl: u32,
    /// How long answers without addresses and failures are kept, in seconds.
    #[serde(alias = "negative_ttl", alias = "protective_cache_ttl")]
    pub(crate) negative_min_ttl: u32,
    /// How long a replaced resolver goes on with its queries.
    pub(crate) graceful_stop_wait: Span,
    /// The cap on one query.
    pub(crate) protective_query_timeout: Span,
}

impl Default for CAresConfig {
    fn default() -> Self {
        Self {
            server: None,
            each_timeout: 2000,
            each_tries: 3,
            max_timeout: 0,
            udp_max_quires: 0,
            round_robin: false,
            socket_send_buffer_size: None,
            socket_recv_buffer_size: None,
            bind_ipv4: None,
            bind_ipv6: None,
            positive_min_ttl: 30,
            positive_max_ttl: 3600,
            negative_min_ttl: 30,
            graceful_stop_wait: super::hickory::graceful_stop_wait(),
            protective_query_timeout: super::hickory::protective_query_timeout(),
        }
    }
}

impl CAresConfig {
    pub(super) fn common(&self) -> Common {
        Common {
            graceful_stop_wait: self.graceful_stop_wait.0,
            protective_query_timeout: self.protective_query_timeout.0,
            ttl: TtlBounds::new(self.positive_min_ttl, self.positive_max_ttl, self.negative_min_ttl),
        }
    }

    pub(super) fn log_fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = Vec::new();
        if let Some(ip) = self.bind_ipv4 {
            fields.push((keys::BIND_IPV4, ip.to_string()));
        }
        if let Some(ip) = self.bind_ipv6 {
            fields.push((keys::BIND_IPV6, ip.to_string()));
        }
        let servers: Vec<String> = self.addresses().iter().map(SocketAddr::to_string).collect();
        fields.push((keys::SERVER, servers.join(" ")));
        fields
    }

    /// The real c-ares, which brings a thread of its own.
    #[cfg(feature = "c-ares")]
    pub(super) fn servers(&self, _: Tasks) -> Result<Servers, BuildError> {
        Ok(Servers::CAres(Channel::new(self, &self.addresses())?))
    }

    /// The stub, with the timing of c-ares.
    #[cfg(not(feature = "c-ares"))]
    #[expect(clippy::unnecessary_wraps, reason = "the real one can fail")]
    pub(super) fn servers(&self, tasks: Tasks) -> Result<Servers, BuildError> {
        Ok(Servers::Stub(self.stub(tasks)))
    }

    #[cfg_attr(feature = "c-ares", expect(dead_code, reason = "c-ares itself asks"))]
    fn stub(&self, tasks: Tasks) -> Stub {
        let options = SocketOptions {
            bind_v4: self.bind_ipv4.map(IpAddr::V4),
            bind_v6: self.bind_ipv6.map(IpAddr::V6),
            interface: None,
            tcp: TcpOptions {
                no_delay: Some(true),
                ..TcpOptions::default()
            },
            udp: TcpOptions::default(),
            send_buffer: self.socket_send_buffer_size.map(|size| size as usize),
            recv_buffer: self.socket_recv_buffer_size.map(|size| size as usize),
            connect_timeout: self.round(self.each_tries.saturating_sub(1)),
        };
        let sockets = Sockets::new(options, tasks);
        let addresses = self.addresses();
        let plan = self.plan(addresses.len());
        let whole: Duration = plan.steps.iter().map(|step| step.wait).sum();
        let timing = Timing {
            connect: whole,
            request: whole,
            tries: 1,
            resend: whole,
            packets: 1,
        };
        let server = |address| Server::new(address, Transport::Plain, timing, sockets.clone());
        Stub::new(addresses.into_iter().map(server).collect(), plan)
    }

    /// Each server once in each round.
    pub(super) fn plan(&self, servers: usize) -> Plan {
        let rounds = self.each_tries.clamp(1, 100);
        let step = |round| {
            (0..servers).map(move |server| Step {
                server,
                wait: self.round(round),
            })
        };
        Plan {
            steps: (0..rounds).flat_map(step).collect(),
            rotate: self.round_robin,
        }
    }

    /// The time for one server in this round.
    fn round(&self, round: u32) -> Duration {
        let grown = u64::from(self.each_timeout.max(1)) << round.min(20);
        let limit = u64::try_from(self.max_timeout)
            .ok()
            .filter(|&limit| limit > 0)
            .unwrap_or(u64::MAX);
        Duration::from_millis(grown.min(limit))
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        match &self.server {
            Some(servers::Sockets(servers)) => servers.clone(),
            None => match fs::read_to_string(RESOLV_CONF) {
                Ok(text) => name_servers(&text),
                Err(error) => {
                    warn!("{} can not be read, 127.0.0.1 is asked", RESOLV_CONF; "error" => %error);
                    name_servers("")
                }
            },
        }
    }
}

/// The servers of a `resolv.conf`; without any it is the local host, as everywhere.
pub(super) fn name_servers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let ip = line.strip_prefix("nameserver")?.split_whitespace().next()?;
        let plain = ip.parse::<IpAddr>().ok().map(|ip| SocketAddr::from((ip, 53)));
        plain.or_else(|| format!("[{ip}]:53").parse().ok()) // with a numeric scope
    };
    let mut servers: Vec<SocketAddr> = Vec::new();
    for server in text.lines().filter_map(|line| server(line.trim_start())) {
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, 53).into());
    }
    servers
}
