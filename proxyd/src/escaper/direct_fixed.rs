//! `direct_fixed`: connects to the target from this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_acl::EgressRule;
use sluice_config::value::{
    AsciiStr, HappyEyeballs as HappyEyeballsConfig, Interface, NodeName, OneOrMany, ProxyProtocolVersion,
    ResolveRedirection, ResolveStrategy, SpeedLimitTcp, SpeedLimitUdp, TagMap, TcpConnect, TcpKeepalive, TcpMiscOpts,
    UdpMiscOpts,
};
use sluice_config::{Entry, Load, NotYet};
use sluice_proxy_protocol::{Addresses, put_header};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

mod udp;

use super::EscaperCommon;
use super::terms::{OwnTerms, Target};
use crate::config::EscaperConfig;
use crate::connect::{Connect, ConnectError, ConnectFailure, Opened, Path};
use crate::dial::{Bind, Dialer, HappyEyeballs};

/// What `direct_fixed` is configured with.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DirectFixedConfig {
    /// Escape logs of all escapers that name the same logger share it.
    #[serde(default)]
    pub(crate) shared_logger: Option<AsciiStr>,
    /// Tags that are added to the escaper's metrics.
    #[serde(default)]
    pub(crate) extra_metrics_tags: TagMap,
    /// The resolver that is asked for names.
    pub(crate) resolver: NodeName,
    /// Which addresses of a name are used.
    #[serde(default)]
    pub(crate) resolve_strategy: ResolveStrategy,
    /// Names that are resolved as something else.
    #[serde(default)]
    pub(crate) resolve_redirection: ResolveRedirection,
    /// Speed limit of each TCP connection.
    #[serde(default, alias = "tcp_conn_speed_limit", alias = "tcp_conn_limit")]
    pub(crate) tcp_sock_speed_limit: Option<SpeedLimitTcp>,
    /// Speed limit of each UDP socket.
    #[serde(default, alias = "udp_relay_speed_limit", alias = "udp_relay_limit")]
    pub(crate) udp_sock_speed_limit: Option<SpeedLimitUdp>,
    /// Local addresses, IPv4 and IPv6 mixed; one of the family is chosen at random for each connection.
    #[serde(default)]
    pub(crate) bind_ip: OneOrMany<IpAddr>,
    /// Device that connections leave by where no address of the family is given.
    #[serde(default)]
    pub(crate) bind_interface: Option<Interface>,
    /// Bind to the client's own address (TPROXY).
    #[serde(default)]
    pub(crate) bind_foreign: Option<NotYet>,
    /// Reuse the client's port as well.
    #[serde(default)]
    pub(crate) bind_foreign_port: Option<NotYet>,
    /// Which addresses may be connected to.
    #[serde(default, alias = "egress_net_filter")]
    pub(crate) egress_network_filter: Option<EgressRule>,
    /// No IPv4.
    #[serde(default)]
    pub(crate) no_ipv4: bool,
    /// No IPv6.
    #[serde(default)]
    pub(crate) no_ipv6: bool,
    /// Tries and time limit of connecting.
    #[serde(default)]
    pub(crate) tcp_connect: TcpConnect,
    /// RFC 8305's times.
    #[serde(default)]
    pub(crate) happy_eyeballs: HappyEyeballsConfig,
    /// Keep-alive probes on connections.
    #[serde(default)]
    pub(crate) tcp_keepalive: TcpKeepalive,
    /// Socket options of TCP connections.
    #[serde(default)]
    pub(crate) tcp_misc_opts: TcpMiscOpts,
    /// Socket options of UDP sockets.
    #[serde(default)]
    pub(crate) udp_misc_opts: UdpMiscOpts,
    /// Whether a number id chooses among several local addresses.
    #[serde(default)]
    pub(crate) enable_path_selection: bool,
    /// PROXY protocol header sent at the start of each connection.
    #[serde(default)]
    pub(crate) use_proxy_protocol: Option<ProxyProtocolVersion>,
}

impl DirectFixedConfig {
    /// Records what does not go together.
    pub(crate) fn check(&self, load: &mut Load, entry: &Entry<EscaperConfig>) {
        let strategy = self.resolve_strategy.query;
        if self.no_ipv4 && self.no_ipv6 {
            load.error(
                &entry.place,
                "no_ipv6",
                "`no_ipv4` and `no_ipv6` together leave no way out",
            );
        } else if self
            .resolve_strategy
            .query
            .without(self.no_ipv4, self.no_ipv6)
            .is_none()
        {
            let key = if self.no_ipv4 { "no_ipv4" } else { "no_ipv6" };
            load.error(
                &entry.place,
                "resolve_strategy",
                format!("`{strategy:?}` contradicts `{key}`"),
            );
        }
    }

    /// Which families are switched off, by the keys or by a strategy that knows only one.
    fn families(&self) -> (bool, bool) {
        let query = self.resolve_strategy.query;
        (self.no_ipv4 || !query.ipv4(), self.no_ipv6 || !query.ipv6())
    }
}

fn split_families(ips: &[IpAddr]) -> (Vec<Ipv4Addr>, Vec<Ipv6Addr>) {
    let v4 = ips
        .iter()
        .filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None })
        .collect();
    let v6 = ips
        .iter()
        .filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None })
        .collect();
    (v4, v6)
}

pub(crate) struct DirectFixed {
    pub(crate) common: EscaperCommon,
    pub(crate) proxy_protocol: Option<ProxyProtocolVersion>,
    dialer: Dialer,
    terms: OwnTerms,
    path_selection: bool,
    limit: Option<SpeedLimitTcp>,
    udp_limit: Option<SpeedLimitUdp>,
    udp_options: UdpMiscOpts,
}

impl DirectFixed {
    pub(crate) fn new(config: &DirectFixedConfig, common: EscaperCommon) -> Self {
        let (no_v4, no_v6) = config.families();
        let (v4, v6) = split_families(&config.bind_ip.0);
        let happy = &config.happy_eyeballs;
        let dialer = Dialer {
            escaper: Arc::clone(&common.name),
            stats: Arc::clone(&common.stats),
            resolver: config.resolver.as_str().into(),
            bind: Bind {
                v4,
                v6,
                interface: config.bind_interface.as_ref().map(|device| device.name().to_owned()),
            },
            filter: config.egress_network_filter.clone().unwrap_or_default(),
            no_v4,
            no_v6,
            happy_eyeballs: HappyEyeballs {
                resolution_delay: happy.resolution_delay.0,
                second_resolution_timeout: happy.second_resolution_timeout.0,
                first_family_count: happy.first_address_family_count,
                attempt_delay: happy.connection_attempt_delay.0,
            },
        };
        Self {
            common,
            proxy_protocol: config.use_proxy_protocol,
            dialer,
            terms: OwnTerms::new(
                config.resolve_strategy,
                (no_v4, no_v6),
                config.resolve_redirection.clone(),
                config.tcp_connect,
                (&config.tcp_misc_opts, config.tcp_keepalive),
            ),
            path_selection: config.enable_path_selection,
            limit: config.tcp_sock_speed_limit.filter(|limit| !limit.is_off()),
            udp_limit: config.udp_sock_speed_limit.filter(|limit| !limit.is_off()),
            udp_options: config.udp_misc_opts,
        }
    }

    /// Opens the upstream of `req`.
    pub(crate) async fn connect(&self, req: &Connect<'_>) -> Result<Opened, ConnectFailure> {
        let stats = self.common.stats.mine();
        stats.attempt.add(1);
        let terms = self.terms.of(req, req.path_index.filter(|_| self.path_selection));
        let port = req.upstream.port;
        let (mut tcp, path) = match self.terms.target(&req.upstream.host, terms.order, req.permit) {
            Target::Address(ip) => self.dialer.ip(SocketAddr::new(ip, port), &terms).await?,
            Target::Addresses(ips) => Box::pin(self.dialer.among(&ips, port, &terms)).await?,
            Target::Domain(domain) => Box::pin(self.dialer.domain(req.worker, &domain, port, &terms)).await?,
        };
        stats.tcp_establish.add(1);
        if let Some(version) = self.proxy_protocol
            && let Err(error) = self.send_proxy_header(version, req, &mut tcp, &path).await
        {
            return Err(ConnectFailure {
                error,
                path: Box::new(path),
            });
        }
        stats.establish.add(1);
        Ok(Opened {
            stream: tcp.into(),
            path,
            limit: self.limit,
        })
    }

    async fn send_proxy_header(
        &self,
        version: ProxyProtocolVersion,
        req: &Connect<'_>,
        tcp: &mut TcpStream,
        path: &Path,
    ) -> Result<(), ConnectError> {
        let addresses = Addresses {
            client: req.client,
            server: req.server,
        };
        let mut header = Vec::new();
        put_header(version, &addresses, &mut header).map_err(|_| ConnectError::ProxyProtocolEncode {
            client: req.client,
            server: req.server,
        })?;
        tcp.write_all(&header)
            .await
            .map_err(|source| ConnectError::ProxyProtocolWrite {
                peer: path.peer.unwrap_or(req.server),
                source,
            })?;
        self.common.stats.mine().tcp_out.add(header.len() as u64);
        Ok(())
    }
}
