//! Queries by hickory's transports: UDP and TCP, or one of four encrypted ones.

use std::{
    net::IpAddr,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use sluice_config::{
    Misfit,
    value::{Interface, Span, TcpMiscOpts, UdpMiscOpts},
};
use sluice_lifecycle::Tasks;
use sluice_sys::socket::TcpOptions;
use sluice_telemetry::keys;
use sluice_tls::{RustlsClientConfig, rustls::pki_types::ServerName, rustls_client};

use super::{BuildError, Common, servers::Ips};
use crate::{
    cache::TtlBounds,
    stub::{Encryption, Plan, Server, SocketOptions, Sockets, Step, Stub, Timing, Transport},
};

/// How often a query is sent over UDP if no answer comes, an interval apart.
const PACKETS: u8 = 4;

/// Queries to servers by address.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HickoryConfig {
    /// The servers, asked in this order.
    server: Ips,
    /// Their port: 53, 853 for TLS and QUIC, 443 for HTTPS.
    server_port: Option<u16>,
    /// How queries are encrypted.
    #[serde(alias = "encrypt")]
    pub(super) encryption: Option<EncryptionConfig>,
    /// The time for a connection to stand, handshake included.
    #[serde(default = "connect_timeout")]
    connect_timeout: Span,
    /// The time for one response.
    #[serde(default = "request_timeout")]
    request_timeout: Span,
    /// Tries for each server when the transport fails.
    #[serde(default = "each_tries", alias = "retry_attempts")]
    each_tries: i32,
    /// The time for outstanding answers once the last server was asked.
    #[serde(default = "each_timeout")]
    each_timeout: Span,
    /// The pause before the next server is asked too.
    #[serde(default = "retry_interval")]
    retry_interval: Span,
    /// The local address; of this and `bind_interface` the later key counts.
    bind_ip: Option<Late<IpAddr>>,
    /// The interface that queries leave by.
    bind_interface: Option<Late<Interface>>,
    /// Options of TCP sockets.
    #[serde(default)]
    tcp_misc_opts: TcpMiscOpts,
    /// Options of UDP sockets.
    #[serde(default)]
    udp_misc_opts: UdpMiscOpts,
    /// The least time that addresses are kept, in seconds.
    #[serde(default = "min_ttl")]
    positive_min_ttl: u32,
    /// The longest time that addresses are kept, in seconds.
    #[serde(default = "max_ttl")]
    positive_max_ttl: u32,
    /// How long answers without addresses and failures are kept, in seconds.
    #[serde(default = "min_ttl", alias = "negative_ttl")]
    negative_min_ttl: u32,
    /// How long a replaced resolver goes on with its queries.
    #[serde(default = "graceful_stop_wait")]
    graceful_stop_wait: Span,
    /// The cap on one query.
    #[serde(default = "protective_query_timeout")]
    protective_query_timeout: Span,
}

fn connect_timeout() -> Span {
    Span::secs(10)
}

fn request_timeout() -> Span {
    Span::secs(10)
}

fn each_tries() -> i32 {
    2
}

fn each_timeout() -> Span {
    Span::secs(5)
}

fn retry_interval() -> Span {
    Span::secs(1)
}

fn min_ttl() -> u32 {
    30
}

fn max_ttl() -> u32 {
    3600
}

pub(super) fn graceful_stop_wait() -> Span {
    Span::secs(30)
}

pub(super) fn protective_query_timeout() -> Span {
    Span::secs(60)
}

/// A value that knows when it was read, so that of two keys the later one can be told.
#[derive(Clone, Debug)]
struct Late<T> {
    value: T,
    turn: u64,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Late<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        static TURN: AtomicU64 = AtomicU64::new(0);
        let value = T::deserialize(deserializer)?;
        Ok(Self {
            value,
            turn: TURN.fetch_add(1, Ordering::Relaxed),
        })
    }
}

impl<T: PartialEq> PartialEq for Late<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: JsonSchema> JsonSchema for Late<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

/// How queries are encrypted, and whom to expect.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "EncryptionForm")]
pub(crate) struct EncryptionConfig {
    protocol: Protocol,
    /// The server's address stands for it if absent.
    tls_name: Option<String>,
    tls_client: RustlsClientConfig,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "DnsEncryption")]
enum EncryptionForm {
    /// A protocol, or a TLS name for DNS over TLS.
    Str(String),
    Map(Box<EncryptionMap>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EncryptionMap {
    /// The name in the server's certificate: a domain or an address.
    tls_name: String,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    tls_client: RustlsClientConfig,
}

impl TryFrom<EncryptionForm> for EncryptionConfig {
    type Error = Misfit;

    fn try_from(form: EncryptionForm) -> Result<Self, Misfit> {
        let (protocol, tls_name, tls_client) = match form {
            EncryptionForm::Str(word) => match Protocol::parse(&word) {
                Some(protocol) => (protocol, None, RustlsClientConfig::default()),
                None => (Protocol::Tls, Some(word), RustlsClientConfig::default()),
            },
            EncryptionForm::Map(map) => (map.protocol, Some(map.tls_name), map.tls_client),
        };
        if let Some(name) = &tls_name
            && ServerName::try_from(name.as_str()).is_err()
        {
            return Err(Misfit::new(format!("`{name}` is neither a domain nor an address")));
        }
        Ok(Self {
            protocol,
            tls_name,
            tls_client,
        })
    }
}

/// The encrypted transports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Protocol {
    H3,
    Https,
    Quic,
    #[default]
    Tls,
}

impl Protocol {
    const EXPECTED: &str = "`dns-over-tls`, `dns-over-https`, `dns-over-http/3` or `dns-over-quic`";

    /// Reads a name, whatever its case and separators.
    fn parse(word: &str) -> Option<Self> {
        let word: String = word.chars().filter(|c| !matches!(c, '-' | '_' | '/')).collect();
        match word.to_ascii_lowercase().as_str() {
            "dnsoverhttp3" | "doh3" | "h3" | "http3" => Some(Self::H3),
            "dnsoverhttps" | "doh" | "https" | "h2" => Some(Self::Https),
            "dnsoverquic" | "doq" | "quic" => Some(Self::Quic),
            "dnsovertls" | "dot" | "tls" => Some(Self::Tls),
            _ => None,
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::H3 | Self::Https => 443,
            Self::Quic | Self::Tls => 853,
        }
    }

    const fn transport(self) -> fn(Encryption) -> Transport {
        match self {
            Self::H3 => Transport::H3,
            Self::Https => Transport::Https,
            Self::Quic => Transport::Quic,
            Self::Tls => Transport::Tls,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::H3 => "dns-over-http/3",
            Self::Https => "dns-over-https",
            Self::Quic => "dns-over-quic",
            Self::Tls => "dns-over-tls",
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::parse(&word).ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&word), &Self::EXPECTED))
    }
}

impl JsonSchema for Protocol {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DnsEncryptionProtocol".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": Self::EXPECTED })
    }
}

impl HickoryConfig {
    pub(super) fn common(&self) -> Common {
        Common {
            graceful_stop_wait: self.graceful_stop_wait.0,
            protective_query_timeout: self.protective_query_timeout.0,
            ttl: TtlBounds::new(self.positive_min_ttl, self.positive_max_ttl, self.negative_min_ttl),
        }
    }

    fn port(&self) -> u16 {
        let default = self
            .encryption
            .as_ref()
            .map_or(53, |encryption| encryption.protocol.port());
        self.server_port.unwrap_or(default)
    }

    /// What queries leave from: of an address and an interface the one that was given later.
    fn bind(&self) -> (Option<IpAddr>, Option<&Interface>) {
        match (&self.bind_ip, &self.bind_interface) {
            (Some(ip), Some(interface)) if ip.turn < interface.turn => (None, Some(&interface.value)),
            (Some(ip), _) => (Some(ip.value), None),
            (None, interface) => (None, interface.as_ref().map(|interface| &interface.value)),
        }
    }

    /// A server that can not be reached from `bind_ip`.
    pub(crate) fn unreachable(&self) -> Option<(IpAddr, IpAddr)> {
        let ip = self.bind().0?;
        let server = self.server.0.iter().find(|server| server.is_ipv4() != ip.is_ipv4())?;
        Some((ip, *server))
    }

    pub(super) fn log_fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = Vec::new();
        match self.bind() {
            (Some(ip), _) => fields.push((keys::BIND_ADDR, ip.to_string())),
            (None, Some(interface)) => fields.push((keys::BIND_ADDR, interface.name().to_owned())),
            (None, None) => {}
        }
        let servers: Vec<String> = self.server.0.iter().map(IpAddr::to_string).collect();
        fields.push((keys::SERVER, servers.join(" ")));
        fields.push((keys::SERVER_PORT, self.port().to_string()));
        if let Some(encryption) = &self.encryption {
            fields.push((keys::ENCRYPTION, encryption.protocol.name().to_owned()));
        }
        fields
    }

    pub(super) fn stub(&self, base: &Path, tasks: Tasks) -> Result<Stub, BuildError> {
        let tries = u32::try_from(self.each_tries).unwrap_or(0).max(1);
        let timing = Timing {
            connect: self.connect_timeout.0,
            request: self.request_timeout.0,
            tries,
            resend: self.retry_interval.0,
            packets: PACKETS,
        };
        let sockets = Sockets::new(self.socket_options(), tasks);
        let mut servers = Vec::new();
        for &ip in &self.server.0 {
            let transport = match &self.encryption {
                None => Transport::Plain,
                Some(encryption) => encryption.transport(ip, base)?,
            };
            servers.push(Server::new(
                (ip, self.port()).into(),
                transport,
                timing,
                sockets.clone(),
            ));
        }
        let plan = self.plan(servers.len());
        Ok(Stub::new(servers, plan))
    }

    /// The servers in turn, one more each interval.
    fn plan(&self, servers: usize) -> Plan {
        let wait = |server| {
            if server + 1 == servers {
                self.each_timeout.0
            } else {
                self.retry_interval.0
            }
        };
        let steps = (0..servers)
            .map(|server| Step {
                server,
                wait: wait(server),
            })
            .collect();
        Plan { steps, rotate: false }
    }

    fn socket_options(&self) -> SocketOptions {
        let (ip, interface) = self.bind();
        let tcp = &self.tcp_misc_opts;
        let udp = &self.udp_misc_opts;
        SocketOptions {
            bind_v4: ip.filter(IpAddr::is_ipv4),
            bind_v6: ip.filter(IpAddr::is_ipv6),
            interface: interface.map(|interface| interface.name().to_owned()),
            tcp: TcpOptions {
                no_delay: Some(tcp.no_delay.unwrap_or(true)),
                max_segment_size: tcp.max_segment_size,
                time_to_live: tcp.time_to_live,
                hop_limit: tcp.hop_limit,
                type_of_service: tcp.type_of_service,
                traffic_class: tcp.traffic_class,
                congestion_control: tcp.congestion_control.clone(),
                netfilter_mark: tcp.netfilter_mark,
                keepalive: None,
            },
            udp: TcpOptions {
                time_to_live: udp.time_to_live,
                hop_limit: udp.hop_limit,
                type_of_service: udp.type_of_service,
                traffic_class: udp.traffic_class,
                netfilter_mark: udp.netfilter_mark,
                ..TcpOptions::default()
            },
            send_buffer: None,
            recv_buffer: None,
            connect_timeout: self.connect_timeout.0,
        }
    }
}

impl EncryptionConfig {
    fn transport(&self, server: IpAddr, base: &Path) -> Result<Transport, BuildError> {
        let name = match &self.tls_name {
            Some(name) => ServerName::try_from(name.clone()).map_err(|_| BuildError::TlsName(name.clone()))?,
            None => ServerName::from(server),
        };
        let client = rustls_client(&self.tls_client, base)?;
        Ok(self.protocol.transport()(Encryption {
            name,
            config: client.config,
        }))
    }
}
