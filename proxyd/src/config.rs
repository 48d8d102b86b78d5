//! The sections of the group's file that proxyd owns, and what holds between them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_auth::UsernameParams;
use sluice_config::value::{NodeName, TcpKeepalive, TcpListen, TcpMiscOpts, UdpMiscOpts};
use sluice_config::{Edge, Entry, Load, kinds};
use sluice_lifecycle::{Graph, NodeKind};
use sluice_sys::socket::{Keepalive, ListenOptions, TcpOptions};
use sluice_sys::udp::UdpOptions;

use crate::audit::AuditorKind;
use crate::escaper::direct_fixed::DirectFixedConfig;
use crate::escaper::dummy_deny::DummyDenyConfig;
use crate::listen::ListenSpec;
use crate::peer::Address;
use crate::server::dummy_close::DummyCloseConfig;
use crate::server::http_proxy::HttpProxyConfig;
use crate::server::intelli_proxy::IntelliProxyConfig;
use crate::server::keys::TaskKeys;
use crate::server::port::{NativeTlsPortConfig, PlainTcpPortConfig, PlainTlsPortConfig, PortKeys};
use crate::server::socks_proxy::SocksProxyConfig;
use crate::user::UserGroupConfig;

kinds! {
    /// What a server is configured as.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) enum ServerConfig: "server" {
        /// Closes every connection.
        DummyClose(DummyCloseConfig) = "dummy_close",
        /// HTTP forward proxy.
        HttpProxy(Box<HttpProxyConfig>) = "http_proxy",
        /// HTTP or SOCKS, by the first byte.
        IntelliProxy(IntelliProxyConfig) = "intelli_proxy" | "ppdp_tcp_port" | "ppdp_tcp",
        /// TLS by OpenSSL before another server.
        NativeTlsPort(Box<NativeTlsPortConfig>) = "native_tls_port" | "native_tls" | "usual_tls_port" | "usual_tls",
        /// A listener before another server.
        PlainTcpPort(PlainTcpPortConfig) = "plain_tcp_port" | "plain_tcp",
        /// TLS by rustls before another server.
        PlainTlsPort(Box<PlainTlsPortConfig>) = "plain_tls_port" | "plain_tls",
        /// SOCKS proxy.
        SocksProxy(Box<SocksProxyConfig>) = "socks_proxy",
    }
    not built {
        "plain_quic_port" | "plain_quic",
        "tcp_stream",
        "tls_stream",
        "tcp_tproxy",
        "udp_stream",
        "udp_tproxy",
        "sni_proxy",
        "http_rproxy" | "http_reverse_proxy" | "http_gateway",
    }
}

kinds! {
    /// What an escaper is configured as.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) enum EscaperConfig: "escaper" {
        /// Connects from this host.
        DirectFixed(Box<DirectFixedConfig>) = "direct_fixed",
        /// Refuses everything.
        DummyDeny(DummyDenyConfig) = "dummy_deny",
    }
    not built {
        "comply_audit",
        "comply_context",
        "direct_float" | "direct_dynamic",
        "divert_tcp",
        "proxy_float" | "proxy_dynamic",
        "proxy_http",
        "proxy_https",
        "proxy_socks5",
        "proxy_socks5s",
        "route_client",
        "route_failover",
        "route_geoip" | "route_geo_ip",
        "route_mapping",
        "route_query",
        "route_resolved" | "route_dst_ip" | "route_dstip",
        "route_select",
        "route_upstream",
        "trick_float",
    }
}

/// Everything that proxyd reads from the group's file.
#[derive(Debug)]
pub(crate) struct ProxydConfig {
    pub(crate) servers: Vec<Entry<ServerConfig>>,
    pub(crate) escapers: Vec<Entry<EscaperConfig>>,
    pub(crate) user_groups: Vec<Entry<UserGroupConfig>>,
    pub(crate) auditors: Vec<Entry<AuditorKind>>,
    pub(crate) peers: PeersConfig,
}

/// Where the other daemons of the group are, if not at their sockets.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PeersConfig {
    /// Who answers name queries: resolverd's socket, or any DNS server as `udp:IP:PORT` or `tcp:IP:PORT`.
    pub(crate) resolverd: Option<PeerConfig>,
    /// Who makes certificates for interception: certgend's socket, or a generator of g3proxy's as `udp:IP:PORT`.
    pub(crate) certgend: Option<PeerConfig>,
    /// Who records: the socket of an auditd, or a reader of exported PDUs as `udp:IP:PORT`, which gets no events.
    pub(crate) auditd: Option<PeerConfig>,
}

impl PeersConfig {
    /// Records what a peer cannot be.
    fn check(&self, load: &mut Load) {
        let Some(place) = load.place("peers") else { return };
        let is_tcp = |peer: &Option<PeerConfig>| {
            let address = peer.as_ref().and_then(|peer| peer.address.as_ref());
            matches!(address, Some(PeerAddress(Address::Tcp(_))))
        };
        for (key, peer, message) in [
            (
                "certgend",
                &self.certgend,
                "certificates are not asked for over TCP: `udp:IP:PORT` or a Unix socket",
            ),
            (
                "auditd",
                &self.auditd,
                "nothing is recorded over TCP: `udp:IP:PORT` or a Unix socket",
            ),
        ] {
            if is_tcp(peer) {
                load.error(&place, key, message);
            }
        }
        if self.auditd.as_ref().is_some_and(|peer| peer.uid.is_some()) {
            let message = "ZeroMQ tells nobody's uid: who may enter the folder of auditd's socket may be auditd";
            load.error(&place, "auditd.uid", message);
        }
    }
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(from = "PeerForm")]
pub(crate) struct PeerConfig {
    /// Its address; the group's socket if it is not given.
    pub(crate) address: Option<PeerAddress>,
    /// A uid that may answer on a Unix socket beside our own and root.
    pub(crate) uid: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "PeerConfig")]
enum PeerForm {
    Map(PeerMap),
    Str(PeerAddress),
}

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct PeerMap {
    address: Option<PeerAddress>,
    uid: Option<u32>,
}

impl From<PeerForm> for PeerConfig {
    fn from(form: PeerForm) -> Self {
        match form {
            PeerForm::Map(map) => Self {
                address: map.address,
                uid: map.uid,
            },
            PeerForm::Str(address) => Self {
                address: Some(address),
                uid: None,
            },
        }
    }
}

/// `udp:IP:PORT`, `tcp:IP:PORT`, or the absolute path of a Unix socket, with or without `unix:` before it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub(crate) struct PeerAddress(pub(crate) Address);

impl TryFrom<String> for PeerAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let socket = |text: &str| {
            text.parse::<SocketAddr>()
                .map_err(|_| format!("`{text}` is no IP address with a port, such as `127.0.0.1:53`"))
        };
        let path = text.strip_prefix("unix:").unwrap_or(&text);
        if path.starts_with('/') {
            return Ok(Self(Address::Unix(PathBuf::from(path))));
        }
        match text.split_once(':') {
            Some(("udp", address)) => Ok(Self(Address::Udp(socket(address)?))),
            Some(("tcp", address)) => Ok(Self(Address::Tcp(socket(address)?))),
            _ => Err(format!(
                "`{text}` is neither `udp:IP:PORT`, `tcp:IP:PORT` nor the absolute path of a Unix socket"
            )),
        }
    }
}

impl ProxydConfig {
    /// Reads and checks; what is wrong is recorded in `load`.
    pub(crate) fn read(load: &mut Load) -> Self {
        let config = Self {
            servers: load.nodes("server"),
            escapers: load.nodes("escaper"),
            user_groups: load.nodes("user_group"),
            auditors: load.nodes("auditor"),
            peers: load.section("peers").unwrap_or_default(),
        };
        config.peers.check(load);
        for entry in &config.auditors {
            entry.value.config().check(load, entry);
        }
        for entry in &config.user_groups {
            entry.value.check(load, entry);
        }
        for entry in &config.escapers {
            if let EscaperConfig::DirectFixed(direct) = &entry.value {
                load.refer(&entry.place, "resolver", "resolver", direct.resolver.as_str());
                direct.check(load, entry);
            }
        }
        for entry in &config.servers {
            entry.value.check(load, entry);
        }
        load.refuse_loops("server", &config.server_edges());
        config.check_ports(load);
        config
    }

    fn server_edges(&self) -> Vec<Edge> {
        let edges = |entry: &Entry<ServerConfig>| {
            let edge = |(key, next): (&'static str, &NodeName)| Edge {
                from: entry.name.clone(),
                to: next.as_str().to_owned(),
                place: entry.place.clone(),
                path: key.into(),
            };
            entry.value.next().into_iter().map(edge).collect::<Vec<_>>()
        };
        self.servers.iter().flat_map(edges).collect()
    }

    /// A TLS port needs a next server that takes what it hands over.
    fn check_ports(&self, load: &mut Load) {
        for entry in &self.servers {
            let is_tls = matches!(
                entry.value,
                ServerConfig::NativeTlsPort(_) | ServerConfig::PlainTlsPort(_)
            );
            for (key, next) in entry.value.next() {
                let next = self.servers.iter().find(|other| other.name == next.as_str());
                if is_tls && let Some(next) = next.filter(|next| !next.value.takes_tls()) {
                    let message = format!("`{}` takes no connection on which TLS is done already", next.name);
                    load.error(&entry.place, key, message);
                }
            }
        }
    }

    /// Who uses whom.
    pub(crate) fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        for entry in &self.escapers {
            graph.node(NodeKind::Escaper, &entry.name);
            if let EscaperConfig::DirectFixed(direct) = &entry.value {
                graph.edge(
                    (NodeKind::Escaper, &entry.name),
                    (NodeKind::Resolver, direct.resolver.as_str()),
                );
            }
        }
        for entry in &self.user_groups {
            graph.node(NodeKind::UserGroup, &entry.name);
        }
        for entry in &self.auditors {
            graph.node(NodeKind::Auditor, &entry.name);
        }
        for entry in &self.servers {
            graph.node(NodeKind::Server, &entry.name);
            let server = (NodeKind::Server, entry.name.as_str());
            if let Some(keys) = entry.value.keys() {
                graph.edge(server, (NodeKind::Escaper, keys.escaper.as_str()));
                if let Some(auditor) = keys.auditor {
                    graph.edge(server, (NodeKind::Auditor, auditor.as_str()));
                }
            }
            if let Some(group) = entry.value.user_group() {
                graph.edge(server, (NodeKind::UserGroup, group.as_str()));
            }
            for (_, next) in entry.value.next() {
                graph.edge(server, (NodeKind::Server, next.as_str()));
            }
        }
        graph
    }
}

impl ServerConfig {
    /// The keys that kinds with tasks have in common.
    pub(crate) fn keys(&self) -> Option<TaskKeys<'_>> {
        match self {
            Self::DummyClose(_)
            | Self::IntelliProxy(_)
            | Self::NativeTlsPort(_)
            | Self::PlainTcpPort(_)
            | Self::PlainTlsPort(_) => None,
            Self::HttpProxy(http) => Some(http.keys()),
            Self::SocksProxy(socks) => Some(socks.keys()),
        }
    }

    /// The group of its users.
    pub(crate) fn user_group(&self) -> Option<&NodeName> {
        match self {
            Self::HttpProxy(http) => http.user_group.as_ref(),
            Self::SocksProxy(socks) => socks.user_group.as_ref(),
            Self::DummyClose(_)
            | Self::IntelliProxy(_)
            | Self::NativeTlsPort(_)
            | Self::PlainTcpPort(_)
            | Self::PlainTlsPort(_) => None,
        }
    }

    /// What it makes of users' names.
    fn username_params(&self) -> Option<&UsernameParams> {
        match self {
            Self::HttpProxy(http) => http.username_params.as_ref(),
            Self::SocksProxy(socks) => socks.username_params.as_ref(),
            Self::DummyClose(_)
            | Self::IntelliProxy(_)
            | Self::NativeTlsPort(_)
            | Self::PlainTcpPort(_)
            | Self::PlainTlsPort(_) => None,
        }
    }

    /// The keys that port servers have in common.
    pub(crate) fn port_keys(&self) -> Option<PortKeys<'_>> {
        match self {
            Self::DummyClose(_) | Self::HttpProxy(_) | Self::SocksProxy(_) => None,
            Self::IntelliProxy(intelli) => Some(intelli.keys()),
            Self::NativeTlsPort(port) => Some(port.keys()),
            Self::PlainTcpPort(port) => Some(port.keys()),
            Self::PlainTlsPort(port) => Some(port.keys()),
        }
    }

    /// The servers that it hands connections to, each with the key that names it.
    pub(crate) fn next(&self) -> Vec<(&'static str, &NodeName)> {
        match self {
            Self::DummyClose(_) | Self::HttpProxy(_) | Self::SocksProxy(_) => Vec::new(),
            Self::IntelliProxy(intelli) => intelli.next(),
            Self::NativeTlsPort(port) => vec![("server", &port.server)],
            Self::PlainTcpPort(port) => vec![("server", &port.server)],
            Self::PlainTlsPort(port) => vec![("server", &port.server)],
        }
    }

    fn check(&self, load: &mut Load, entry: &Entry<Self>) {
        if let Some(keys) = self.keys() {
            keys.check(load, entry);
        }
        for (key, next) in self.next() {
            load.refer(&entry.place, key, "server", next.as_str());
        }
        if let Some(group) = self.user_group() {
            load.refer(&entry.place, "user_group", "user_group", group.as_str());
        } else if self.username_params().is_some() {
            let message = "needs a `user_group`, whose names it is about";
            load.error(&entry.place, "username_params", message);
        }
        match self {
            Self::DummyClose(_) | Self::IntelliProxy(_) | Self::PlainTcpPort(_) | Self::SocksProxy(_) => {}
            Self::HttpProxy(http) => http.check(load, entry),
            Self::NativeTlsPort(port) => port.check(load, entry),
            Self::PlainTlsPort(port) => port.check(load, entry),
        }
    }

    /// Whether it has certificates of its own for clients.
    pub(crate) fn reads_certificates(&self) -> bool {
        match self {
            Self::DummyClose(_) | Self::IntelliProxy(_) | Self::PlainTcpPort(_) | Self::SocksProxy(_) => false,
            Self::HttpProxy(http) => http.tls_server.is_some(),
            Self::NativeTlsPort(_) | Self::PlainTlsPort(_) => true,
        }
    }

    /// Whether it takes a connection on which TLS has been accepted already.
    fn takes_tls(&self) -> bool {
        matches!(self, Self::DummyClose(_) | Self::HttpProxy(_) | Self::SocksProxy(_))
    }

    /// Where it listens, and the options of its sockets.
    pub(crate) fn listen(&self) -> Option<(&TcpListen, bool, TcpOptions)> {
        if let Some(keys) = self.keys() {
            let options = tcp_options(keys.tcp_misc_opts, None);
            return keys.listen.map(|listen| (listen, keys.listen_in_worker, options));
        }
        let keys = self.port_keys()?;
        let options = tcp_options(&TcpMiscOpts::default(), None);
        Some((keys.listen, keys.listen_in_worker, options))
    }
}

/// The sockets that a `listen` asks for.
///
/// # Errors
/// If the address names a variable or a host that does not give one.
pub(crate) fn listen_spec(
    listen: &TcpListen,
    in_worker: bool,
    tcp: TcpOptions,
) -> Result<ListenSpec, sluice_config::value::ResolveAddrError> {
    let address = listen.address.resolve()?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(ListenSpec {
        options: ListenOptions {
            address,
            backlog: listen.backlog,
            reuse_port: true,
            only_v6: listen.ipv6_only,
            interface: listen.interface.as_ref().map(|device| device.name().to_owned()),
            netfilter_mark: listen.netfilter_mark,
            max_segment_size: listen.max_segment_size,
            keepalive: listen.keepalive.and_then(keepalive),
            transparent: false,
        },
        tcp,
        instances: listen.instances(cpus),
        in_worker,
        follow_cpu: listen.follow_cpu_affinity,
    })
}

fn keepalive(config: TcpKeepalive) -> Option<Keepalive> {
    config.enable.then(|| Keepalive {
        idle: config.idle_time.0.max(Duration::from_secs(1)),
        interval: config.probe_interval.map(|span| span.0.max(Duration::from_secs(1))),
        retries: config.probe_count,
    })
}

/// Options of UDP sockets as the kernel is told them.
pub(crate) fn udp_options(config: UdpMiscOpts) -> UdpOptions {
    UdpOptions {
        time_to_live: config.time_to_live,
        hop_limit: config.hop_limit,
        type_of_service: config.type_of_service,
        traffic_class: config.traffic_class,
        netfilter_mark: config.netfilter_mark,
    }
}

/// Socket options as the kernel is told them. Connections that we open do without Nagle's delay unless told otherwise.
pub(crate) fn tcp_options(config: &TcpMiscOpts, probes: Option<TcpKeepalive>) -> TcpOptions {
    TcpOptions {
        no_delay: Some(config.no_delay.unwrap_or(true)),
        max_segment_size: config.max_segment_size,
        time_to_live: config.time_to_live,
        hop_limit: config.hop_limit,
        type_of_service: config.type_of_service,
        traffic_class: config.traffic_class,
        congestion_control: config.congestion_control.clone(),
        netfilter_mark: config.netfilter_mark,
        keepalive: probes.and_then(keepalive),
    }
}
