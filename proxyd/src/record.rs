//! The log records of tasks and of failed connections: plain structs, formatted by the log's writer thread.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_addr::Upstream;
use sluice_telemetry::slog::{self, KV, Serializer};
use sluice_telemetry::value::{Dur, Timestamp, Uuid};
use sluice_telemetry::{LogType, Record, keys};

use crate::connect::Path;
use crate::task::Peers;

/// What made a record be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Created,
    Connected,
    Periodic,
    ClientShutdown,
    UpstreamShutdown,
    Finished,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Connected => "Connected",
            Self::Periodic => "Periodic",
            Self::ClientShutdown => "ClientShutdown",
            Self::UpstreamShutdown => "UpstreamShutdown",
            Self::Finished => "Finished",
        }
    }

    pub(crate) fn is_half_close(self) -> bool {
        matches!(self, Self::ClientShutdown | Self::UpstreamShutdown)
    }
}

/// How far a task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Created,
    Preparing,
    Connecting,
    Connected,
    Replying,
    Relaying,
    Finished,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Preparing => "Preparing",
            Self::Connecting => "Connecting",
            Self::Connected => "Connected",
            Self::Replying => "Replying",
            Self::Relaying => "Relaying",
            Self::Finished => "Finished",
        }
    }
}

/// Payload bytes of a task, or its datagrams: read from and written to the client, read from and written to the remote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) c_rd: u64,
    pub(crate) c_wr: u64,
    pub(crate) r_rd: u64,
    pub(crate) r_wr: u64,
}

/// What only an HTTP forward task has (logs.md §3.7).
#[derive(Debug, Clone, Default)]
pub(crate) struct ForwardNotes {
    pub(crate) method: Box<str>,
    /// As the client wrote it, cut to the configured length, without a password.
    pub(crate) uri: Box<str>,
    pub(crate) user_agent: Option<Box<str>>,
    pub(crate) pipeline_wait: Duration,
    pub(crate) reused: Option<bool>,
    /// Sent to the client; 0 if nothing was.
    pub(crate) rsp_status: u16,
    /// Received from the remote; 0 if nothing was.
    pub(crate) origin_status: u16,
    pub(crate) request_head_sent: Duration,
    pub(crate) request_sent: Duration,
    pub(crate) response_head_received: Duration,
    pub(crate) response_received: Duration,
}

/// What only a task with datagrams has (logs.md §3.9, §3.10).
#[derive(Debug, Clone, Default)]
pub(crate) struct UdpNotes {
    /// Whether it may have several targets.
    pub(crate) associate: bool,
    /// Where the client sends its datagrams to.
    pub(crate) listen: Option<SocketAddr>,
    /// Where they come from.
    pub(crate) client: Option<SocketAddr>,
    pub(crate) packets: Bytes,
}

/// A record of a task (logs.md §3).
#[derive(Debug, Clone)]
pub(crate) struct TaskRecord {
    pub(crate) server_type: &'static str,
    pub(crate) server_name: Arc<str>,
    pub(crate) task_type: &'static str,
    pub(crate) task_id: Uuid,
    pub(crate) event: Event,
    pub(crate) stage: Stage,
    pub(crate) start_at: Timestamp,
    /// The name as given, if the client has given one and was let in.
    pub(crate) user: Option<Arc<str>>,
    pub(crate) peers: Peers,
    pub(crate) upstream: Upstream,
    pub(crate) wait: Duration,
    pub(crate) ready: Duration,
    pub(crate) total: Duration,
    pub(crate) escaper: Option<Arc<str>>,
    pub(crate) reason: Option<&'static str>,
    pub(crate) message: Option<String>,
    pub(crate) path: Path,
    pub(crate) bytes: Bytes,
    pub(crate) forward: Option<Box<ForwardNotes>>,
    pub(crate) udp: Option<Box<UdpNotes>>,
}

impl Record for TaskRecord {
    fn message(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => f.write_str(message),
            None => f.write_str(if self.event == Event::Finished { "finished" } else { "" }),
        }
    }

    fn kind(&self) -> LogType {
        LogType::Task
    }
}

impl KV for TaskRecord {
    fn serialize(&self, _: &slog::Record<'_>, out: &mut dyn Serializer) -> slog::Result {
        let finished = self.event == Event::Finished;
        let connected = self.event != Event::Created;
        let flowing = finished || self.event == Event::Periodic || self.event.is_half_close();
        out.emit_str(keys::SERVER_TYPE.into(), self.server_type)?;
        out.emit_str(keys::SERVER_NAME.into(), &self.server_name)?;
        out.emit_str(keys::TASK_TYPE.into(), self.task_type)?;
        out.emit_arguments(keys::TASK_ID.into(), &format_args!("{}", self.task_id))?;
        out.emit_str(keys::TASK_EVENT.into(), self.event.name())?;
        out.emit_str(keys::STAGE.into(), self.stage.name())?;
        out.emit_arguments(keys::START_AT.into(), &format_args!("{}", self.start_at))?;
        if let Some(user) = &self.user {
            out.emit_str(keys::USER.into(), user)?;
        }
        let (server, client) = match &self.udp {
            None => (keys::SERVER_ADDR, keys::CLIENT_ADDR),
            Some(_) => (keys::TCP_SERVER_ADDR, keys::TCP_CLIENT_ADDR),
        };
        address(out, server, Some(self.peers.server))?;
        address(out, client, Some(self.peers.client))?;
        if let Some(told) = &self.peers.told {
            told.emit(out)?;
        }
        if let Some(udp) = &self.udp {
            udp.emit(out)?;
        }
        if !self.upstream.is_empty() {
            let key = match &self.udp {
                Some(udp) if udp.associate => keys::INITIAL_PEER,
                _ => keys::UPSTREAM,
            };
            out.emit_arguments(key.into(), &format_args!("{}", self.upstream))?;
        }
        if connected {
            if let Some(escaper) = &self.escaper {
                out.emit_str(keys::ESCAPER.into(), escaper)?;
            } else if finished {
                out.emit_str(keys::ESCAPER.into(), "")?;
            }
            if !self.event.is_half_close() {
                if let Some(ip) = self.path.bind_ip {
                    out.emit_arguments(keys::NEXT_BIND_IP.into(), &format_args!("{ip}"))?;
                }
                if self.udp.is_none() {
                    out.emit_u32(keys::TCP_CONNECT_TRIES.into(), self.path.tries)?;
                    duration(out, keys::TCP_CONNECT_SPEND, self.path.spent)?;
                }
            }
            address(out, keys::NEXT_BOUND_ADDR, self.path.local)?;
            address(out, keys::NEXT_PEER_ADDR, self.path.peer)?;
        }
        if finished && let Some(reason) = self.reason {
            out.emit_str(keys::REASON.into(), reason)?;
        }
        duration(out, keys::WAIT_TIME, self.wait)?;
        duration(out, keys::READY_TIME, self.ready)?;
        duration(out, keys::TOTAL_TIME, self.total)?;
        if flowing {
            out.emit_u64(keys::C_RD_BYTES.into(), self.bytes.c_rd)?;
            out.emit_u64(keys::C_WR_BYTES.into(), self.bytes.c_wr)?;
            out.emit_u64(keys::R_RD_BYTES.into(), self.bytes.r_rd)?;
            out.emit_u64(keys::R_WR_BYTES.into(), self.bytes.r_wr)?;
        }
        if flowing && let Some(udp) = &self.udp {
            out.emit_u64(keys::C_RD_PACKETS.into(), udp.packets.c_rd)?;
            out.emit_u64(keys::C_WR_PACKETS.into(), udp.packets.c_wr)?;
            out.emit_u64(keys::R_RD_PACKETS.into(), udp.packets.r_rd)?;
            out.emit_u64(keys::R_WR_PACKETS.into(), udp.packets.r_wr)?;
        }
        match &self.forward {
            Some(forward) => forward.emit(out, connected, flowing),
            None => Ok(()),
        }
    }
}

impl UdpNotes {
    fn emit(&self, out: &mut dyn Serializer) -> slog::Result {
        // Documented under one name, written by g3proxy under the other.
        address(out, keys::UDP_SERVER_ADDR, self.listen)?;
        address(out, keys::UDP_LISTEN_ADDR, self.listen)?;
        address(out, keys::UDP_CLIENT_ADDR, self.client)
    }
}

impl ForwardNotes {
    fn emit(&self, out: &mut dyn Serializer, connected: bool, flowing: bool) -> slog::Result {
        out.emit_str(keys::METHOD.into(), &self.method)?;
        out.emit_str(keys::URI.into(), &self.uri)?;
        if let Some(agent) = &self.user_agent {
            out.emit_str(keys::USER_AGENT.into(), agent)?;
        }
        duration(out, keys::PIPELINE_WAIT, self.pipeline_wait)?;
        if connected && let Some(reused) = self.reused {
            out.emit_bool(keys::REUSE_CONNECTION.into(), reused)?;
        }
        if flowing {
            out.emit_u16(keys::RSP_STATUS.into(), self.rsp_status)?;
            out.emit_u16(keys::ORIGIN_STATUS.into(), self.origin_status)?;
            duration(out, keys::DUR_REQ_SEND_HDR, self.request_head_sent)?;
            duration(out, keys::DUR_REQ_SEND_ALL, self.request_sent)?;
            duration(out, keys::DUR_RSP_RECV_HDR, self.response_head_received)?;
            duration(out, keys::DUR_RSP_RECV_ALL, self.response_received)?;
        }
        Ok(())
    }
}

/// A record of a connection that did not come about (logs.md §4).
#[derive(Debug, Clone)]
pub(crate) struct EscapeRecord {
    pub(crate) escaper_type: &'static str,
    pub(crate) escaper_name: Arc<str>,
    pub(crate) task_id: Uuid,
    pub(crate) upstream: Upstream,
    pub(crate) path: Path,
    pub(crate) detail: EscapeDetail,
    pub(crate) message: String,
}

/// Which step failed.
#[derive(Debug, Clone)]
pub(crate) enum EscapeDetail {
    TcpConnect {
        reason: &'static str,
    },
    TlsHandshake {
        tls_name: String,
        application: &'static str,
    },
    UdpSendto {
        reason: &'static str,
    },
}

impl Record for EscapeRecord {
    fn message(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }

    fn kind(&self) -> LogType {
        LogType::Escape
    }
}

impl KV for EscapeRecord {
    fn serialize(&self, _: &slog::Record<'_>, out: &mut dyn Serializer) -> slog::Result {
        out.emit_str(keys::ESCAPER_TYPE.into(), self.escaper_type)?;
        out.emit_str(keys::ESCAPER_NAME.into(), &self.escaper_name)?;
        out.emit_str(
            keys::ESCAPE_TYPE.into(),
            match self.detail {
                EscapeDetail::TcpConnect { .. } => "TcpConnect",
                EscapeDetail::TlsHandshake { .. } => "TlsHandshake",
                EscapeDetail::UdpSendto { .. } => "UdpSendto",
            },
        )?;
        out.emit_arguments(keys::TASK_ID.into(), &format_args!("{}", self.task_id))?;
        out.emit_arguments(keys::UPSTREAM.into(), &format_args!("{}", self.upstream))?;
        if let Some(ip) = self.path.bind_ip {
            out.emit_arguments(keys::NEXT_BIND_IP.into(), &format_args!("{ip}"))?;
        }
        address(out, keys::NEXT_BOUND_ADDR, self.path.local)?;
        address(out, keys::NEXT_PEER_ADDR, self.path.peer)?;
        match &self.detail {
            EscapeDetail::TcpConnect { reason } => {
                out.emit_u32(keys::TCP_CONNECT_TRIES.into(), self.path.tries)?;
                duration(out, keys::TCP_CONNECT_SPEND, self.path.spent)?;
                out.emit_str(keys::REASON.into(), reason)
            }
            EscapeDetail::TlsHandshake { tls_name, application } => {
                out.emit_str(keys::TLS_NAME.into(), tls_name)?;
                out.emit_arguments(keys::TLS_PEER.into(), &format_args!("{}", self.upstream))?;
                out.emit_str(keys::TLS_APPLICATION.into(), application)
            }
            EscapeDetail::UdpSendto { reason } => out.emit_str(keys::REASON.into(), reason),
        }
    }
}

fn address(out: &mut dyn Serializer, key: &'static str, value: Option<SocketAddr>) -> slog::Result {
    match value {
        Some(value) => out.emit_arguments(key.into(), &format_args!("{value}")),
        None => Ok(()),
    }
}

fn duration(out: &mut dyn Serializer, key: &'static str, value: Duration) -> slog::Result {
    if value.is_zero() {
        Ok(())
    } else {
        out.emit_arguments(key.into(), &format_args!("{}", Dur(value)))
    }
}
