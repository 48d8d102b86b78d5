//! What a user is configured with, in YAML and in JSON (users.md §3).

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_acl::{DstHostSet, IngressRule, PortRule, ProxyRequestRule, UserAgentRule};
use sluice_auth::{Token, Username};
use sluice_config::NotYet;
use sluice_config::value::{
    DateTime, GlobalDatagramLimit, GlobalStreamLimit, HttpKeepalive, RateQuota, ResolveRedirection, ResolveStrategy,
    Span, SpeedLimitTcp, SpeedLimitUdp, TcpConnect, TcpKeepalive, TcpMiscOpts, UdpMiscOpts,
};

use super::site::SiteList;
use crate::audit::UserAudit;

/// One user.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserConfig {
    /// The name to log in with, unique in its list.
    pub(crate) name: Username,
    /// What a password is checked against: none lets no password pass, `null` every one.
    #[serde(default)]
    pub(crate) token: Token,
    /// Facts of a connection that make it this user's.
    #[serde(default)]
    pub(crate) match_by_facts: Option<NotYet>,
    /// Until when the user may log in.
    #[serde(default)]
    pub(crate) expire: Option<DateTime>,
    /// Blocks the user, and lets it wait so long for the answer that says so.
    #[serde(default)]
    pub(crate) block_and_delay: Option<Span>,
    /// Which addresses the user may come from.
    #[serde(default, alias = "ingress_net_filter")]
    pub(crate) ingress_network_filter: Option<IngressRule>,
    /// Which kinds of request the user may make.
    #[serde(default)]
    pub(crate) proxy_request_filter: Option<ProxyRequestRule>,
    /// Which hosts the user may ask for.
    #[serde(default)]
    pub(crate) dst_host_filter_set: Option<DstHostSet>,
    /// Which ports the user may ask for.
    #[serde(default)]
    pub(crate) dst_port_filter: Option<PortRule>,
    /// Which user agents the user may have.
    #[serde(default)]
    pub(crate) http_user_agent_filter: Option<UserAgentRule>,
    /// Tries and time limit of connecting, within those of the escaper.
    #[serde(default)]
    pub(crate) tcp_connect: Option<TcpConnect>,
    /// Keep-alive probes on connections to the remote.
    #[serde(default)]
    pub(crate) tcp_remote_keepalive: TcpKeepalive,
    /// Options of TCP sockets to the remote.
    #[serde(default)]
    pub(crate) tcp_remote_misc_opts: Option<TcpMiscOpts>,
    /// Options of UDP sockets to the remote.
    #[serde(default)]
    pub(crate) udp_remote_misc_opts: Option<UdpMiscOpts>,
    /// Options of TCP sockets to the client.
    #[serde(default)]
    pub(crate) tcp_client_misc_opts: Option<TcpMiscOpts>,
    /// Options of UDP sockets to the client.
    #[serde(default)]
    pub(crate) udp_client_misc_opts: Option<UdpMiscOpts>,
    /// Keeping upstream connections for further requests, if the server does.
    #[serde(default)]
    pub(crate) http_upstream_keepalive: HttpKeepalive,
    /// Time for a response head, in place of the server's.
    #[serde(default)]
    pub(crate) http_rsp_header_recv_timeout: Option<Span>,
    /// Speed limit of each TCP connection.
    #[serde(default, alias = "tcp_conn_speed_limit", alias = "tcp_conn_limit")]
    pub(crate) tcp_sock_speed_limit: Option<SpeedLimitTcp>,
    /// Speed limit of each UDP socket.
    #[serde(default, alias = "udp_relay_speed_limit", alias = "udp_relay_limit")]
    pub(crate) udp_sock_speed_limit: Option<SpeedLimitUdp>,
    /// Speed limit of all data that the user sends.
    #[serde(default)]
    pub(crate) tcp_all_upload_speed_limit: Option<GlobalStreamLimit>,
    /// Speed limit of all data that the user is sent.
    #[serde(default)]
    pub(crate) tcp_all_download_speed_limit: Option<GlobalStreamLimit>,
    /// Speed limit of all datagrams that the user sends.
    #[serde(default)]
    pub(crate) udp_all_upload_speed_limit: Option<GlobalDatagramLimit>,
    /// Speed limit of all datagrams that the user is sent.
    #[serde(default)]
    pub(crate) udp_all_download_speed_limit: Option<GlobalDatagramLimit>,
    /// New connections in a time.
    #[serde(default, alias = "tcp_conn_rate_limit", alias = "tcp_conn_limit_quota")]
    pub(crate) connection_rate_limit: Option<RateQuota>,
    /// Requests in a time.
    #[serde(default, alias = "request_limit_quota")]
    pub(crate) request_rate_limit: Option<RateQuota>,
    /// Requests at a time; 0 is any number.
    #[serde(default, alias = "request_alive_max")]
    pub(crate) request_max_alive: usize,
    /// Task log records in a time.
    #[serde(default, alias = "log_limit_quota")]
    pub(crate) log_rate_limit: Option<RateQuota>,
    /// Characters of a URI in logs, in place of the server's.
    #[serde(default, alias = "uri_log_max_chars")]
    pub(crate) log_uri_max_chars: Option<usize>,
    /// Idle checks in a row that a task survives, in place of the server's.
    #[serde(default)]
    pub(crate) task_idle_max_count: Option<usize>,
    /// Which addresses of a name are used, within what the escaper allows.
    #[serde(default)]
    pub(crate) resolve_strategy: Option<ResolveStrategy>,
    /// Names that are resolved as something else; asked before the escaper's.
    #[serde(default)]
    pub(crate) resolve_redirection: ResolveRedirection,
    /// Whether associations in SOCKS may have several targets, as if the server said so.
    #[serde(default)]
    pub(crate) socks_use_udp_associate: bool,
    /// Inspection of the user's tasks.
    #[serde(default)]
    pub(crate) audit: UserAudit,
    /// Targets with settings and metrics of their own.
    #[serde(default)]
    pub(crate) explicit_sites: SiteList,
    /// String ids of egress path selection.
    #[serde(default)]
    pub(crate) egress_path_id_map: Option<NotYet>,
    /// JSON values of egress path selection.
    #[serde(default)]
    pub(crate) egress_path_value_map: Option<NotYet>,
}

impl UserConfig {
    /// Options of TCP sockets to the remote.
    pub(crate) fn remote_options(&self) -> (Option<&TcpMiscOpts>, TcpKeepalive) {
        (self.tcp_remote_misc_opts.as_ref(), self.tcp_remote_keepalive)
    }
}
