//! The sections of the group's file that proxyd owns, and what holds between them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::value::{NodeName, TcpKeepalive, TcpListen, TcpMiscOpts};
use sluice_config::{Entry, Load, NotYet, kinds};
use sluice_lifecycle::{Graph, NodeKind};
use sluice_sys::socket::{Keepalive, ListenOptions, TcpOptions};

use crate::escaper::direct_fixed::DirectFixedConfig;
use crate::escaper::dummy_deny::DummyDenyConfig;
use crate::listen::ListenSpec;
use crate::resolve;
use crate::server::dummy_close::DummyCloseConfig;
use crate::server::http_proxy::HttpProxyConfig;

kinds! {
    /// What a server is configured as.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) enum ServerConfig: "server" {
        /// Closes every connection.
        DummyClose(DummyCloseConfig) = "dummy_close",
        /// HTTP forward proxy.
        HttpProxy(Box<HttpProxyConfig>) = "http_proxy",
    }
    not built {
        "plain_tcp_port" | "plain_tcp",
        "plain_tls_port" | "plain_tls",
        "native_tls_port" | "native_tls" | "usual_tls_port" | "usual_tls",
        "plain_quic_port" | "plain_quic",
        "intelli_proxy" | "ppdp_tcp_port" | "ppdp_tcp",
        "tcp_stream",
        "tls_stream",
        "tcp_tproxy",
        "udp_stream",
        "udp_tproxy",
        "sni_proxy",
        "socks_proxy",
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
    pub(crate) peers: PeersConfig,
}

/// Where the other daemons of the group are, if not at their sockets.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PeersConfig {
    /// Who answers name queries: resolverd's socket, or any DNS server as `udp:IP:PORT` or `tcp:IP:PORT`.
    pub(crate) resolverd: Option<PeerConfig>,
    /// The certificate generator.
    pub(crate) certgend: Option<NotYet>,
    /// The recorder.
    pub(crate) auditd: Option<NotYet>,
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
pub(crate) struct PeerAddress(pub(crate) resolve::Peer);

impl TryFrom<String> for PeerAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let socket = |text: &str| {
            text.parse::<SocketAddr>()
                .map_err(|_| format!("`{text}` is no IP address with a port, such as `127.0.0.1:53`"))
        };
        let path = text.strip_prefix("unix:").unwrap_or(&text);
        if path.starts_with('/') {
            return Ok(Self(resolve::Peer::Unix(PathBuf::from(path))));
        }
        match text.split_once(':') {
            Some(("udp", address)) => Ok(Self(resolve::Peer::Udp(socket(address)?))),
            Some(("tcp", address)) => Ok(Self(resolve::Peer::Tcp(socket(address)?))),
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
            peers: load.section("peers").unwrap_or_default(),
        };
        for section in ["auditor", "user_group"] {
            if let Some(place) = load.place(section) {
                load.error(&place, "", format!("`{section}` is not built yet in this version"));
            }
        }
        for entry in &config.escapers {
            if let EscaperConfig::DirectFixed(direct) = &entry.value {
                load.refer(&entry.place, "resolver", "resolver", direct.resolver.as_str());
                direct.check(load, entry);
            }
        }
        for entry in &config.servers {
            if let ServerConfig::HttpProxy(http) = &entry.value {
                load.refer(&entry.place, "escaper", "escaper", http.escaper.as_str());
                http.check(load, entry);
            }
        }
        config
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
        for entry in &self.servers {
            graph.node(NodeKind::Server, &entry.name);
            if let Some(escaper) = entry.value.escaper() {
                graph.edge((NodeKind::Server, &entry.name), (NodeKind::Escaper, escaper.as_str()));
            }
        }
        graph
    }
}

impl ServerConfig {
    fn escaper(&self) -> Option<&NodeName> {
        match self {
            Self::DummyClose(_) => None,
            Self::HttpProxy(http) => Some(&http.escaper),
        }
    }

    /// Where it listens, and the options of its sockets.
    pub(crate) fn listen(&self) -> Option<(&TcpListen, bool, TcpOptions)> {
        match self {
            Self::DummyClose(_) => None,
            Self::HttpProxy(http) => {
                let mut options = tcp_options(&http.tcp_misc_opts, None);
                options.no_delay = Some(http.tcp_misc_opts.no_delay.unwrap_or(true));
                http.listen
                    .as_ref()
                    .map(|listen| (listen, http.listen_in_worker, options))
            }
        }
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
