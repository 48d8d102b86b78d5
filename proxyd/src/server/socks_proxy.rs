//! `socks_proxy`: SOCKS4, 4a and 5.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_acl::{DstHostSet, PortRule};
use sluice_auth::UsernameParams;
use sluice_config::NotYet;
use sluice_config::value::{NodeName, Span};
use sluice_io::buffer::ReadBuffer;

use super::keys::task_server;
use super::rules::Rules;
use super::{Accepted, ServerCommon};
use crate::client::Client;
use crate::escaper::{EscaperId, Escapers};
use crate::socks::negotiation::{self, Command};
use crate::socks::{connect, reply};
use crate::user::Gate;
use crate::worker::Worker;

task_server! {
    /// What `socks_proxy` is configured with.
    pub(crate) struct SocksProxyConfig {
        /// Who may use the proxy.
        #[serde(default)]
        pub(crate) user_group: Option<NodeName>,
        /// Which hosts may be asked for.
        #[serde(default)]
        pub(crate) dst_host_filter_set: Option<DstHostSet>,
        /// Which ports may be asked for.
        #[serde(default)]
        pub(crate) dst_port_filter: Option<PortRule>,
        /// Speed limit of each UDP socket towards clients.
        #[serde(default, alias = "udp_relay_speed_limit", alias = "udp_relay_limit", alias = "relay_limit")]
        pub(crate) udp_sock_speed_limit: Option<NotYet>,
        /// Bytes of the largest datagram.
        #[serde(default)]
        pub(crate) udp_relay_packet_size: Option<NotYet>,
        /// Bytes after which other tasks get their turn.
        #[serde(default)]
        pub(crate) udp_relay_yield_size: Option<NotYet>,
        /// Datagrams that are read or written at a time.
        #[serde(default)]
        pub(crate) udp_relay_batch_size: Option<NotYet>,
        /// Options of UDP sockets towards clients.
        #[serde(default)]
        pub(crate) udp_misc_opts: Option<NotYet>,
        /// Whether an association may have several targets.
        #[serde(default, alias = "enable_udp_associate", alias = "udp_associate_enabled")]
        pub(crate) use_udp_associate: Option<NotYet>,
        /// Next hop by the user's name.
        #[serde(default, alias = "username_params_to_escaper_addr")]
        pub(crate) username_params: Option<UsernameParams>,
        /// Time for everything up to the request.
        #[serde(default = "negotiation_timeout")]
        pub(crate) negotiation_timeout: Span,
        /// Time for the first datagram of an association.
        #[serde(default)]
        pub(crate) udp_client_initial_timeout: Option<NotYet>,
        /// Local IPv4 addresses for datagrams of clients.
        #[serde(default)]
        pub(crate) udp_bind_ipv4: Option<NotYet>,
        /// Local IPv6 addresses for datagrams of clients.
        #[serde(default)]
        pub(crate) udp_bind_ipv6: Option<NotYet>,
        /// Local ports for datagrams of clients.
        #[serde(default)]
        pub(crate) udp_bind_port_range: Option<NotYet>,
        /// Buffer sizes of UDP sockets.
        #[serde(default)]
        pub(crate) udp_socket_buffer: Option<NotYet>,
        /// The addresses that clients are told to send datagrams to.
        #[serde(default, alias = "auto_reply_local_ip_map")]
        pub(crate) transmute_udp_echo_ip: Option<NotYet>,
    }
}

fn negotiation_timeout() -> Span {
    Span::secs(4)
}

/// The server.
pub(crate) struct SocksProxy {
    pub(crate) common: Arc<ServerCommon>,
    pub(crate) escapers: Arc<Escapers>,
    pub(crate) escaper: EscaperId,
    pub(crate) rules: Rules,
    /// Who may use it; everybody without one.
    pub(crate) gate: Option<Gate>,
    pub(crate) negotiation_timeout: Duration,
}

impl SocksProxy {
    pub(crate) fn new(
        config: &SocksProxyConfig,
        common: Arc<ServerCommon>,
        (escapers, escaper): (Arc<Escapers>, EscaperId),
        gate: Option<Gate>,
    ) -> Self {
        Self {
            common,
            escapers,
            escaper,
            rules: Rules {
                hosts: config.dst_host_filter_set.clone(),
                ports: config.dst_port_filter.clone(),
            },
            gate,
            negotiation_timeout: config.negotiation_timeout.0,
        }
    }
}

/// Serves a client's connection to its end.
pub(crate) async fn serve(server: Arc<SocksProxy>, conn: Accepted, worker: Arc<Worker>) {
    server.common.stats.mine().connections.add(1);
    let client = Client {
        stream: conn.stream,
        buf: ReadBuffer::default(),
        timer: worker.wheel.timer(),
        peers: conn.peers,
        waiting_since: conn.accepted,
    };
    let deadline = Instant::now() + server.negotiation_timeout;
    // Passwords may take a while: a large future, for a short time.
    let negotiated = Box::pin(negotiation::run(&server, client, deadline, &worker)).await;
    let Some((client, request)) = negotiated else { return };
    match request.command {
        Command::Connect => connect::run(&server, client, request, &worker).await,
        Command::Bind | Command::UdpAssociate => reply::refuse_command(&server, client, request.version).await,
    }
}
