//! `socks_proxy`: SOCKS4, 4a and 5.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_acl::{DstHostSet, PortRule};
use sluice_auth::UsernameParams;
use sluice_config::value::{
    ByteSize, IpMap, NodeName, OneOrMany, PortRange, SocketBuffer, Span, SpeedLimitUdp, UdpMiscOpts,
};
use sluice_io::buffer::ReadBuffer;

use super::keys::task_server;
use super::rules::Rules;
use super::{Accepted, ServerCommon};
use crate::client::Client;
use crate::escaper::{EscaperId, Escapers};
use crate::socks::negotiation::{self, Command};
use crate::socks::udp::{self, UdpSettings};
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
        pub(crate) udp_sock_speed_limit: Option<SpeedLimitUdp>,
        /// Bytes of the longest payload of a datagram, from 512 to 65536.
        #[serde(default = "packet_size")]
        pub(crate) udp_relay_packet_size: ByteSize,
        /// Bytes of datagrams after which other tasks get their turn; at least 256 KiB.
        #[serde(default = "super::keys::copy_yield")]
        pub(crate) udp_relay_yield_size: ByteSize,
        /// Datagrams that are read or written at a time.
        #[serde(default = "batch_size")]
        pub(crate) udp_relay_batch_size: usize,
        /// Options of UDP sockets towards clients.
        #[serde(default)]
        pub(crate) udp_misc_opts: UdpMiscOpts,
        /// Whether an association may have several targets.
        #[serde(default, alias = "enable_udp_associate", alias = "udp_associate_enabled")]
        pub(crate) use_udp_associate: bool,
        /// Next hop by the user's name.
        #[serde(default, alias = "username_params_to_escaper_addr")]
        pub(crate) username_params: Option<UsernameParams>,
        /// Time for everything up to the request.
        #[serde(default = "negotiation_timeout")]
        pub(crate) negotiation_timeout: Span,
        /// Time for the first datagram of an association.
        #[serde(default = "initial_timeout")]
        pub(crate) udp_client_initial_timeout: Span,
        /// Local IPv4 addresses for datagrams of clients.
        #[serde(default)]
        pub(crate) udp_bind_ipv4: OneOrMany<Ipv4Addr>,
        /// Local IPv6 addresses for datagrams of clients.
        #[serde(default)]
        pub(crate) udp_bind_ipv6: OneOrMany<Ipv6Addr>,
        /// Local ports for datagrams of clients.
        #[serde(default)]
        pub(crate) udp_bind_port_range: Option<PortRange>,
        /// Buffer sizes of UDP sockets, on both sides.
        #[serde(default)]
        pub(crate) udp_socket_buffer: SocketBuffer,
        /// The addresses that clients are told to send datagrams to.
        #[serde(default, alias = "auto_reply_local_ip_map")]
        pub(crate) transmute_udp_echo_ip: IpMap,
    }
}

fn packet_size() -> ByteSize {
    ByteSize(4096)
}

fn batch_size() -> usize {
    8
}

fn initial_timeout() -> Span {
    Span::secs(30)
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
    pub(crate) udp: UdpSettings,
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
            udp: UdpSettings::new(config),
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
        Command::UdpAssociate => Box::pin(udp::run(&server, client, request, &worker)).await,
        Command::Bind => reply::refuse_command(&server, client, request.version).await,
    }
}
