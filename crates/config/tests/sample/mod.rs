//! A small group of kinds, written as daemons write theirs.

use std::net::IpAddr;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::value::{
    AsciiStr, ByteSize, FilePath, HappyEyeballs, HttpKeepalive, HttpServerId, Interface, NodeName, OneOrMany,
    ProxyProtocolVersion, ResolveRedirection, ResolveStrategy, Secret, Span, SpeedLimitTcp, TagMap, TcpConnect,
    TcpKeepalive, TcpListen, TcpMiscOpts, UpstreamAddr,
};
use sluice_config::{Edge, Entry, Errors, Load, Misfit, NotYet, Warning, kinds};

kinds! {
    /// What a server is configured as.
    #[derive(Debug)]
    pub(crate) enum ServerConfig: "server" {
        /// An HTTP proxy.
        HttpProxy(Box<HttpProxyConfig>) = "http_proxy",
        /// Chooses a server by the first byte.
        IntelliProxy(IntelliProxyConfig) = "intelli_proxy" | "ppdp_tcp_port" | "ppdp_tcp",
    }
    not built {
        "socks_proxy",
        "http_rproxy" | "http_gateway",
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "HttpProxyMap")]
pub(crate) struct HttpProxyConfig(#[schemars(with = "HttpProxyMap")] pub(crate) HttpProxyMap);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpProxyMap {
    pub(crate) listen: Option<TcpListen>,
    pub(crate) escaper: NodeName,
    #[serde(default)]
    #[schemars(skip)]
    pub(crate) auditor: Option<NotYet>,
    pub(crate) server_id: Option<HttpServerId>,
    #[serde(default)]
    pub(crate) http_forward_mark_upstream: bool,
    #[serde(default)]
    pub(crate) http_forward_upstream_keepalive: HttpKeepalive,
    #[serde(default)]
    pub(crate) tcp_sock_speed_limit: SpeedLimitTcp,
    #[serde(default)]
    pub(crate) tcp_misc_opts: TcpMiscOpts,
    pub(crate) tcp_copy_buffer_size: Option<ByteSize>,
    pub(crate) task_idle_check_interval: Option<Span>,
    pub(crate) task_idle_max_count: Option<usize>,
    pub(crate) pipeline_size: Option<std::num::NonZeroUsize>,
    #[serde(alias = "tls")]
    pub(crate) tls_server: Option<TlsMap>,
    #[serde(default)]
    pub(crate) extra_metrics_tags: TagMap,
    pub(crate) auth_realm: Option<AsciiStr>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsMap {
    #[serde(alias = "cert")]
    pub(crate) certificate: OneOrMany<FilePath>,
    #[serde(alias = "key")]
    pub(crate) private_key: FilePath,
    pub(crate) password: Option<Secret<String>>,
}

impl TryFrom<HttpProxyMap> for HttpProxyConfig {
    type Error = Misfit;

    fn try_from(map: HttpProxyMap) -> Result<Self, Misfit> {
        if map.http_forward_mark_upstream && map.server_id.is_none() {
            return Err(Misfit::at(
                "http_forward_mark_upstream",
                "this needs a `server_id` to mark responses with",
            ));
        }
        Ok(Self(map))
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IntelliProxyConfig {
    pub(crate) listen: TcpListen,
    pub(crate) http_server: NodeName,
    pub(crate) socks_server: NodeName,
    pub(crate) proxy_protocol: Option<ProxyProtocolVersion>,
}

kinds! {
    /// What an escaper is configured as.
    #[derive(Debug)]
    pub(crate) enum EscaperConfig: "escaper" {
        /// Connects.
        Direct(Box<DirectConfig>) = "direct_fixed",
        /// Refuses.
        Deny(DenyConfig) = "dummy_deny",
        /// Passes on.
        Parent(ParentConfig) = "proxy_http",
        /// Names the next one.
        Select(SelectConfig) = "route_select",
    }
    not built {
        "direct_float" | "direct_dynamic",
        "trick_float",
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DirectConfig {
    pub(crate) resolver: NodeName,
    #[serde(default)]
    pub(crate) resolve_strategy: ResolveStrategy,
    #[serde(default)]
    pub(crate) resolve_redirection: ResolveRedirection,
    #[serde(default)]
    pub(crate) bind_ip: OneOrMany<IpAddr>,
    pub(crate) bind_interface: Option<Interface>,
    #[serde(default)]
    pub(crate) tcp_keepalive: TcpKeepalive,
    #[serde(default)]
    pub(crate) tcp_connect: TcpConnect,
    #[serde(default)]
    pub(crate) happy_eyeballs: HappyEyeballs,
    #[serde(default)]
    pub(crate) tcp_sock_speed_limit: SpeedLimitTcp,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DenyConfig {}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParentConfig {
    pub(crate) proxy_addr: UpstreamAddr<3128>,
    pub(crate) proxy_username: Option<String>,
    pub(crate) proxy_password: Option<Secret<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SelectConfig {
    pub(crate) next: OneOrMany<NodeName>,
}

kinds! {
    /// What a resolver is configured as.
    #[derive(Debug)]
    pub(crate) enum ResolverConfig: "resolver" {
        /// Asks DNS servers.
        Hickory(HickoryConfig) = "hickory" | "hickory_dns" | "trust_dns",
        /// Asks another one when the first fails.
        FailOver(FailOverConfig) = "fail_over",
    }
    not built { "c_ares" }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HickoryConfig {
    pub(crate) server: OneOrMany<IpAddr>,
    pub(crate) server_port: Option<u16>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "FailOverMap")]
pub(crate) struct FailOverConfig(#[schemars(with = "FailOverMap")] pub(crate) FailOverMap);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailOverMap {
    pub(crate) primary: NodeName,
    pub(crate) standby: NodeName,
}

impl TryFrom<FailOverMap> for FailOverConfig {
    type Error = Misfit;

    fn try_from(map: FailOverMap) -> Result<Self, Misfit> {
        if map.primary == map.standby {
            return Err(Misfit::at("standby", "this is the primary resolver too"));
        }
        Ok(Self(map))
    }
}

kinds! {
    /// What a user group is configured as.
    #[derive(Debug)]
    pub(crate) enum GroupConfig: "user group" untyped "hashed_user" {
        /// Users of the file.
        Hashed(UsersConfig) = "hashed_user",
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsersConfig {
    #[serde(default)]
    pub(crate) static_users: OneOrMany<User>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) token: Secret<String>,
    pub(crate) tcp_sock_speed_limit: Option<SpeedLimitTcp>,
}

/// What the daemon reads.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) runtime: Runtime,
    pub(crate) servers: Vec<Entry<ServerConfig>>,
    pub(crate) escapers: Vec<Entry<EscaperConfig>>,
    pub(crate) resolvers: Vec<Entry<ResolverConfig>>,
    pub(crate) groups: Vec<Entry<GroupConfig>>,
}

#[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Runtime {
    pub(crate) thread_number: Option<usize>,
    pub(crate) task_wait_delay: Option<Span>,
}

/// Loads as a daemon does.
pub(crate) fn load(main: &Path) -> (Config, Result<Vec<Warning>, Errors>) {
    let mut load = Load::open(main);
    let config = Config {
        runtime: load.daemon_section("proxyd", "runtime").unwrap_or_default(),
        resolvers: load.nodes("resolver"),
        escapers: load.nodes("escaper"),
        groups: load.nodes("user_group"),
        servers: load.nodes("server"),
    };
    check_servers(&mut load, &config.servers);
    check_escapers(&mut load, &config.escapers);
    check_resolvers(&mut load, &config.resolvers);
    (config, load.finish())
}

fn check_servers(load: &mut Load, servers: &[Entry<ServerConfig>]) {
    let mut edges = Vec::new();
    for server in servers {
        match &server.value {
            ServerConfig::HttpProxy(config) => {
                load.refer(&server.place, "escaper", "escaper", &config.0.escaper);
            }
            ServerConfig::IntelliProxy(config) => {
                for (key, name) in [
                    ("http_server", &config.http_server),
                    ("socks_server", &config.socks_server),
                ] {
                    load.refer(&server.place, key, "server", name);
                    edges.push(edge(server, key.to_owned(), name));
                }
            }
        }
    }
    load.refuse_loops("server", &edges);
}

fn check_escapers(load: &mut Load, escapers: &[Entry<EscaperConfig>]) {
    let mut edges = Vec::new();
    for escaper in escapers {
        match &escaper.value {
            EscaperConfig::Direct(config) => {
                load.refer(&escaper.place, "resolver", "resolver", &config.resolver);
            }
            EscaperConfig::Select(config) => {
                for (index, name) in config.next.iter().enumerate() {
                    let path = format!("next[{index}]");
                    load.refer(&escaper.place, path.as_str(), "escaper", name);
                    edges.push(edge(escaper, path, name));
                }
            }
            EscaperConfig::Deny(_) | EscaperConfig::Parent(_) => {}
        }
    }
    load.refuse_loops("escaper", &edges);
}

fn check_resolvers(load: &mut Load, resolvers: &[Entry<ResolverConfig>]) {
    let mut edges = Vec::new();
    for resolver in resolvers {
        if let ResolverConfig::FailOver(config) = &resolver.value {
            for (key, name) in [("primary", &config.0.primary), ("standby", &config.0.standby)] {
                load.refer(&resolver.place, key, "resolver", name);
                edges.push(edge(resolver, key.to_owned(), name));
            }
        }
    }
    load.refuse_loops("resolver", &edges);
}

fn edge<T>(from: &Entry<T>, path: String, to: &str) -> Edge {
    Edge {
        from: from.name.clone(),
        to: to.to_owned(),
        place: from.place.clone(),
        path: path.as_str().into(),
    }
}
