//! The keys that all servers with tasks have in common, so that each kind spells out its own ones only.

use std::time::Duration;

use sluice_acl::IngressRule;
use sluice_config::value::{
    AsciiStr, ByteSize, NodeName, RateQuota, Span, SpeedLimitTcp, TagMap, TcpListen, TcpMiscOpts,
};
use sluice_config::{Entry, Load};
use sluice_io::pump::PumpOptions;

use super::TaskOptions;
use crate::config::ServerConfig;

/// Defines the configuration of a kind of server: its own keys, with the common ones before them.
macro_rules! task_server {
    (
        $(#[$meta:meta])*
        pub(crate) struct $Name:ident { $($own:tt)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $Name {
            /// The escaper that requests leave by.
            pub(crate) escaper: sluice_config::value::NodeName,
            /// Inspection and interception.
            #[serde(default)]
            pub(crate) auditor: Option<sluice_config::value::NodeName>,
            /// Task logs of all servers that name the same logger share it.
            #[serde(default)]
            pub(crate) shared_logger: Option<sluice_config::value::AsciiStr>,
            /// Where to listen; without it the server is reached through a port server only.
            #[serde(default)]
            pub(crate) listen: Option<sluice_config::value::TcpListen>,
            /// One listening socket in each worker.
            #[serde(default)]
            pub(crate) listen_in_worker: bool,
            /// Which clients are let in.
            #[serde(default, alias = "ingress_net_filter")]
            pub(crate) ingress_network_filter: Option<sluice_acl::IngressRule>,
            /// Speed limit of each client connection.
            #[serde(
                default,
                alias = "tcp_conn_speed_limit",
                alias = "tcp_conn_limit",
                alias = "conn_limit"
            )]
            pub(crate) tcp_sock_speed_limit: Option<sluice_config::value::SpeedLimitTcp>,
            /// New connections in a time; those beyond it are closed at once.
            #[serde(default, alias = "tcp_conn_rate_limit", alias = "tcp_conn_limit_quota")]
            pub(crate) connection_rate_limit: Option<sluice_config::value::RateQuota>,
            /// Requests in a time, whoever makes them.
            #[serde(default, alias = "request_limit_quota")]
            pub(crate) request_rate_limit: Option<sluice_config::value::RateQuota>,
            /// Bytes of one copying read; at least 4 KiB.
            #[serde(default = "crate::server::keys::copy_buffer")]
            pub(crate) tcp_copy_buffer_size: sluice_config::value::ByteSize,
            /// Bytes after which other connections get their turn; at least 256 KiB.
            #[serde(default = "crate::server::keys::copy_yield")]
            pub(crate) tcp_copy_yield_size: sluice_config::value::ByteSize,
            /// Options of accepted sockets.
            #[serde(default)]
            pub(crate) tcp_misc_opts: sluice_config::value::TcpMiscOpts,
            /// Time between two idle checks; at most 30 minutes.
            #[serde(default = "crate::server::keys::idle_interval", alias = "task_idle_check_duration")]
            pub(crate) task_idle_check_interval: sluice_config::value::Span,
            /// Idle checks in a row that a task survives.
            #[serde(default = "crate::server::keys::idle_max")]
            pub(crate) task_idle_max_count: usize,
            /// Write a record when a task is created.
            #[serde(default)]
            pub(crate) flush_task_log_on_created: bool,
            /// Write a record when the upstream is connected.
            #[serde(default)]
            pub(crate) flush_task_log_on_connected: bool,
            /// Write a record of running tasks from time to time.
            #[serde(default)]
            pub(crate) task_log_flush_interval: Option<sluice_config::value::Span>,
            /// Tags that are added to the server's metrics.
            #[serde(default)]
            pub(crate) extra_metrics_tags: sluice_config::value::TagMap,
            $($own)*
        }

        impl $Name {
            /// The keys that it has in common with others.
            pub(crate) fn keys(&self) -> crate::server::keys::TaskKeys<'_> {
                crate::server::keys::TaskKeys {
                    escaper: &self.escaper,
                    auditor: self.auditor.as_ref(),
                    shared_logger: self.shared_logger.as_ref(),
                    listen: self.listen.as_ref(),
                    listen_in_worker: self.listen_in_worker,
                    ingress_network_filter: self.ingress_network_filter.as_ref(),
                    tcp_sock_speed_limit: self.tcp_sock_speed_limit.filter(|limit| !limit.is_off()),
                    connection_rate_limit: self.connection_rate_limit,
                    request_rate_limit: self.request_rate_limit,
                    tcp_copy_buffer_size: self.tcp_copy_buffer_size,
                    tcp_copy_yield_size: self.tcp_copy_yield_size,
                    tcp_misc_opts: &self.tcp_misc_opts,
                    task_idle_check_interval: self.task_idle_check_interval,
                    task_idle_max_count: self.task_idle_max_count,
                    flush_task_log_on_created: self.flush_task_log_on_created,
                    flush_task_log_on_connected: self.flush_task_log_on_connected,
                    task_log_flush_interval: self.task_log_flush_interval,
                    extra_metrics_tags: &self.extra_metrics_tags,
                }
            }
        }
    };
}
pub(crate) use task_server;

/// The common keys of one server, as they were written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TaskKeys<'a> {
    pub(crate) escaper: &'a NodeName,
    pub(crate) auditor: Option<&'a NodeName>,
    pub(crate) shared_logger: Option<&'a AsciiStr>,
    pub(crate) listen: Option<&'a TcpListen>,
    pub(crate) listen_in_worker: bool,
    pub(crate) ingress_network_filter: Option<&'a IngressRule>,
    pub(crate) tcp_sock_speed_limit: Option<SpeedLimitTcp>,
    pub(crate) connection_rate_limit: Option<RateQuota>,
    pub(crate) request_rate_limit: Option<RateQuota>,
    pub(crate) tcp_copy_buffer_size: ByteSize,
    pub(crate) tcp_copy_yield_size: ByteSize,
    pub(crate) tcp_misc_opts: &'a TcpMiscOpts,
    pub(crate) task_idle_check_interval: Span,
    pub(crate) task_idle_max_count: usize,
    pub(crate) flush_task_log_on_created: bool,
    pub(crate) flush_task_log_on_connected: bool,
    pub(crate) task_log_flush_interval: Option<Span>,
    pub(crate) extra_metrics_tags: &'a TagMap,
}

impl TaskKeys<'_> {
    /// Records what cannot be.
    pub(crate) fn check(&self, load: &mut Load, entry: &Entry<ServerConfig>) {
        load.refer(&entry.place, "escaper", "escaper", self.escaper.as_str());
        if let Some(auditor) = self.auditor {
            load.refer(&entry.place, "auditor", "auditor", auditor.as_str());
        }
        if self.task_idle_check_interval.0.is_zero() {
            load.error(&entry.place, "task_idle_check_interval", "must be more than 0");
        }
        if self.task_log_flush_interval.is_some_and(|span| span.0.is_zero()) {
            load.error(&entry.place, "task_log_flush_interval", "must be more than 0");
        }
    }

    /// How tasks of this server run.
    pub(crate) fn task_options(&self) -> TaskOptions {
        const LONGEST_IDLE_CHECK: Duration = Duration::from_secs(30 * 60);
        TaskOptions {
            log_on_created: self.flush_task_log_on_created,
            log_on_connected: self.flush_task_log_on_connected,
            log_interval: self.task_log_flush_interval.map(|span| span.0),
            idle_interval: self.task_idle_check_interval.0.min(LONGEST_IDLE_CHECK),
            idle_max: self.task_idle_max_count,
            pump: PumpOptions {
                copy_size: self.tcp_copy_buffer_size.as_usize().max(4096),
                yield_size: self.tcp_copy_yield_size.0.max(256 << 10),
                rate: None,
            },
            limit: self.tcp_sock_speed_limit,
        }
    }
}

pub(crate) fn copy_buffer() -> ByteSize {
    ByteSize(16 << 10)
}

pub(crate) fn copy_yield() -> ByteSize {
    ByteSize(1 << 20)
}

pub(crate) fn idle_interval() -> Span {
    Span(Duration::from_secs(60))
}

pub(crate) fn idle_max() -> usize {
    5
}
