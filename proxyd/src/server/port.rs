//! Port servers: `plain_tcp_port`, `plain_tls_port`, `native_tls_port`. They listen for another server: a PROXY
//! protocol header and TLS are dealt with here, and the connection is handed on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_acl::IngressRule;
use sluice_config::value::{NodeName, ProxyProtocolVersion, Span, TcpListen};
use sluice_config::{Entry, Load};
use sluice_telemetry::debug;
use sluice_tls::config::TicketerConfig;
use sluice_tls::server::TlsAcceptor;
use sluice_tls::{OpensslServerConfig, RustlsServerConfig};

use super::{Accepted, Server, ServerCommon};
use crate::config::ServerConfig;
use crate::haproxy::{self, HeaderError};
use crate::tls_server::{self, ServerTls};
use crate::worker::Worker;

/// Defines the configuration of a kind of server that stands before another one: its own keys, after the common ones.
macro_rules! port_server {
    (
        $(#[$meta:meta])*
        pub(crate) struct $Name:ident $(<$T:ident>)? { $($own:tt)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $Name $(<$T>)? {
            /// Where to listen.
            pub(crate) listen: sluice_config::value::TcpListen,
            /// One listening socket in each worker.
            #[serde(default)]
            pub(crate) listen_in_worker: bool,
            /// Which clients are let in; the address is that of the connection, whatever a PROXY header says.
            #[serde(default, alias = "ingress_net_filter")]
            pub(crate) ingress_network_filter: Option<sluice_acl::IngressRule>,
            /// The PROXY protocol header that each connection begins with, before TLS.
            #[serde(default)]
            pub(crate) proxy_protocol: Option<sluice_config::value::ProxyProtocolVersion>,
            /// Time for that header.
            #[serde(default = "crate::server::port::header_timeout")]
            pub(crate) proxy_protocol_read_timeout: sluice_config::value::Span,
            $($own)*
        }

        impl $(<$T>)? $Name $(<$T>)? {
            /// The keys that it has in common with others.
            pub(crate) fn keys(&self) -> crate::server::port::PortKeys<'_> {
                crate::server::port::PortKeys {
                    listen: &self.listen,
                    listen_in_worker: self.listen_in_worker,
                    ingress_network_filter: self.ingress_network_filter.as_ref(),
                    proxy_protocol: self.proxy_protocol,
                    proxy_protocol_read_timeout: self.proxy_protocol_read_timeout,
                }
            }
        }
    };
}
pub(crate) use port_server;

port_server! {
    /// What `plain_tcp_port` is configured with.
    pub(crate) struct PlainTcpPortConfig {
        /// The server that connections are handed to.
        pub(crate) server: NodeName,
    }
}

port_server! {
    /// What `plain_tls_port` and `native_tls_port` are configured with.
    pub(crate) struct TlsPortConfig<T> {
        /// The server that connections are handed to.
        pub(crate) server: NodeName,
        /// TLS.
        #[serde(alias = "tls")]
        pub(crate) tls_server: T,
        /// Session ticket keys.
        #[serde(default)]
        pub(crate) tls_ticketer: Option<TicketerConfig>,
    }
}

/// `plain_tls_port`: TLS by rustls.
pub(crate) type PlainTlsPortConfig = TlsPortConfig<RustlsServerConfig>;
/// `native_tls_port`: TLS by OpenSSL.
pub(crate) type NativeTlsPortConfig = TlsPortConfig<OpensslServerConfig>;

pub(crate) fn header_timeout() -> Span {
    Span(Duration::from_secs(5))
}

/// The keys that all port servers have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PortKeys<'a> {
    pub(crate) listen: &'a TcpListen,
    pub(crate) listen_in_worker: bool,
    pub(crate) ingress_network_filter: Option<&'a IngressRule>,
    pub(crate) proxy_protocol: Option<ProxyProtocolVersion>,
    pub(crate) proxy_protocol_read_timeout: Span,
}

impl<T: ServerTls> TlsPortConfig<T> {
    /// Records files that are not what they should be.
    pub(crate) fn check(&self, load: &mut Load, entry: &Entry<ServerConfig>) {
        tls_server::check(load, entry, &self.tls_server, self.tls_ticketer.as_ref());
    }
}

/// A port server.
pub(crate) struct Port {
    pub(crate) common: Arc<ServerCommon>,
    pub(crate) door: Door,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) next: Arc<Server>,
}

impl Port {
    /// Brings one connection to the next server, or closes it.
    pub(crate) async fn serve(&self, conn: Accepted, worker: Arc<Worker>) {
        let Some(mut conn) = self.door.open(conn, &self.common).await else {
            return;
        };
        if let Some(tls) = &self.tls {
            let Some(secure) = tls_server::accept(tls, conn.stream, &self.common, &conn.peers).await else {
                return;
            };
            conn.stream = secure;
            conn.accepted = Instant::now();
        }
        self.next.adopt(conn, &worker);
    }
}

/// What a connection goes through before anything else: the PROXY protocol.
pub(crate) struct Door {
    proxy_protocol: Option<(ProxyProtocolVersion, Duration)>,
}

impl Door {
    pub(crate) fn new(keys: &PortKeys<'_>) -> Self {
        let limit = keys.proxy_protocol_read_timeout.0;
        Self {
            proxy_protocol: keys.proxy_protocol.map(|version| (version, limit)),
        }
    }

    /// The connection with the addresses that its header tells; `None` if it has none in time.
    pub(crate) async fn open(&self, mut conn: Accepted, common: &ServerCommon) -> Option<Accepted> {
        let Some((version, limit)) = self.proxy_protocol else {
            return Some(conn);
        };
        // Whoever sends the header sits before our own port: the header comes before TLS.
        let tcp = conn.stream.plain()?;
        match haproxy::read_header(tcp, version, limit).await {
            Ok(told) => {
                if let Some(peers) = told {
                    conn.peers = peers;
                }
                conn.accepted = Instant::now();
                Some(conn)
            }
            Err(error) => {
                let stats = common.stats.mine();
                match error {
                    HeaderError::TimedOut(_) => stats.timed_out.add(1),
                    HeaderError::Closed | HeaderError::Malformed(_) => stats.dropped.add(1),
                    HeaderError::Read(_) => stats.accept_failed.add(1),
                }
                debug!("a connection without its PROXY protocol header"; "server" => &*common.name,
                    "client" => %conn.peers.client, "error" => %error);
                None
            }
        }
    }
}
