//! Names of all log fields, and a short way to write them.
//!
//! Values whose rendering is not obvious are in [`crate::value`], re-exported here.

use slog::{Record, Serializer, Value};

pub use crate::value::{Dur, Shown, Timestamp, Uuid};

// Every record

/// Daemon group, empty when none was given.
pub const DAEMON_NAME: &str = "daemon_name";
/// Process id.
pub const PID: &str = "pid";
/// Kind of the record.
pub const LOG_TYPE: &str = "log_type";
/// Unix seconds at which the driver reported the record.
pub const REPORT_TS: &str = "report_ts";
/// Message text, where the driver has no place of its own for it.
pub const MSG: &str = "msg";

// Task records

/// Kind of the server.
pub const SERVER_TYPE: &str = "server_type";
/// Name of the server.
pub const SERVER_NAME: &str = "server_name";
/// Kind of the task.
pub const TASK_TYPE: &str = "task_type";
/// Id of the task, the same in its escape and audit records.
pub const TASK_ID: &str = "task_id";
/// What the record reports: `Created` to `Finished`.
pub const TASK_EVENT: &str = "task_event";
/// How far the task came.
pub const STAGE: &str = "stage";
/// Creation of the task.
pub const START_AT: &str = "start_at";
/// User name.
pub const USER: &str = "user";
/// Escaper that served the task in the end.
pub const ESCAPER: &str = "escaper";
/// Why the task ended, or why an attempt failed.
pub const REASON: &str = "reason";
/// Accept to creation of the task.
pub const WAIT_TIME: &str = "wait_time";
/// Creation to relaying.
pub const READY_TIME: &str = "ready_time";
/// Creation to this record.
pub const TOTAL_TIME: &str = "total_time";
/// Local listening address.
pub const SERVER_ADDR: &str = "server_addr";
/// Address of the client.
pub const CLIENT_ADDR: &str = "client_addr";
/// Requested target.
pub const UPSTREAM: &str = "upstream";
/// Application protocol, as the sender of a PROXY protocol header tells; so are all `PROXY_*`.
pub const PROXY_ALPN: &str = "proxy_alpn";
/// Host name that the client asked for.
pub const PROXY_AUTHORITY: &str = "proxy_authority";
/// Network namespace of the sender.
pub const PROXY_NETNS: &str = "proxy_netns";
/// Cipher of the client's TLS.
pub const PROXY_TLS_CIPHER: &str = "proxy_tls_cipher";
/// Common name of the client's certificate.
pub const PROXY_TLS_CN: &str = "proxy_tls_cn";
/// Whether the client's certificate was verified.
pub const PROXY_TLS_VERIFIED: &str = "proxy_tls_verified";
/// Version of the client's TLS.
pub const PROXY_TLS_VERSION: &str = "proxy_tls_version";
/// Identifier of the connection.
pub const PROXY_UNIQUE_ID: &str = "proxy_unique_id";
/// Bind IP chosen by the escaper.
pub const NEXT_BIND_IP: &str = "next_bind_ip";
/// Local address of the connection to the remote.
pub const NEXT_BOUND_ADDR: &str = "next_bound_addr";
/// Address of the remote: the upstream or the next proxy.
pub const NEXT_PEER_ADDR: &str = "next_peer_addr";
/// Expiry of a dynamic next peer.
pub const NEXT_EXPIRE: &str = "next_expire";
/// Connect attempts made.
pub const TCP_CONNECT_TRIES: &str = "tcp_connect_tries";
/// Time of all connect attempts.
pub const TCP_CONNECT_SPEND: &str = "tcp_connect_spend";
/// Bytes from the client.
pub const C_RD_BYTES: &str = "c_rd_bytes";
/// Bytes to the client.
pub const C_WR_BYTES: &str = "c_wr_bytes";
/// Bytes from the remote.
pub const R_RD_BYTES: &str = "r_rd_bytes";
/// Bytes to the remote.
pub const R_WR_BYTES: &str = "r_wr_bytes";
/// Header received to creation of the task.
pub const PIPELINE_WAIT: &str = "pipeline_wait";
/// Whether a kept upstream connection was used.
pub const REUSE_CONNECTION: &str = "reuse_connection";
/// HTTP method.
pub const METHOD: &str = "method";
/// Requested URI, without password.
pub const URI: &str = "uri";
/// First `User-Agent` value.
pub const USER_AGENT: &str = "user_agent";
/// Status sent to the client, 0 when none.
pub const RSP_STATUS: &str = "rsp_status";
/// Status received.
pub const ORIGIN_STATUS: &str = "origin_status";
/// Creation to request header sent.
pub const DUR_REQ_SEND_HDR: &str = "dur_req_send_hdr";
/// Creation to whole request sent.
pub const DUR_REQ_SEND_ALL: &str = "dur_req_send_all";
/// Creation to response header received.
pub const DUR_RSP_RECV_HDR: &str = "dur_rsp_recv_hdr";
/// Creation to whole response received.
pub const DUR_RSP_RECV_ALL: &str = "dur_rsp_recv_all";
/// Local address of the FTP control connection.
pub const FTP_C_BOUND_ADDR: &str = "ftp_c_bound_addr";
/// Peer of the FTP control connection.
pub const FTP_C_PEER_ADDR: &str = "ftp_c_peer_addr";
/// Connect attempts of the FTP control connection.
pub const FTP_C_CONNECT_TRIES: &str = "ftp_c_connect_tries";
/// Connect time of the FTP control connection.
pub const FTP_C_CONNECT_SPEND: &str = "ftp_c_connect_spend";
/// Local address of the FTP data connection.
pub const FTP_D_BOUND_ADDR: &str = "ftp_d_bound_addr";
/// Peer of the FTP data connection.
pub const FTP_D_PEER_ADDR: &str = "ftp_d_peer_addr";
/// Connect attempts of the FTP data connection.
pub const FTP_D_CONNECT_TRIES: &str = "ftp_d_connect_tries";
/// Connect time of the FTP data connection.
pub const FTP_D_CONNECT_SPEND: &str = "ftp_d_connect_spend";
/// Bytes from the FTP control connection.
pub const FTP_C_RD_BYTES: &str = "ftp_c_rd_bytes";
/// Bytes to the FTP control connection.
pub const FTP_C_WR_BYTES: &str = "ftp_c_wr_bytes";
/// Bytes from the FTP data connection.
pub const FTP_D_RD_BYTES: &str = "ftp_d_rd_bytes";
/// Bytes to the FTP data connection.
pub const FTP_D_WR_BYTES: &str = "ftp_d_wr_bytes";
/// Server side of the control connection.
pub const TCP_SERVER_ADDR: &str = "tcp_server_addr";
/// Client side of the control connection.
pub const TCP_CLIENT_ADDR: &str = "tcp_client_addr";
/// UDP address of the server, under the documented name.
pub const UDP_SERVER_ADDR: &str = "udp_server_addr";
/// UDP address of the server, under the name that g3proxy writes.
pub const UDP_LISTEN_ADDR: &str = "udp_listen_addr";
/// UDP address of the client.
pub const UDP_CLIENT_ADDR: &str = "udp_client_addr";
/// Target of the first datagram.
pub const INITIAL_PEER: &str = "initial_peer";
/// Datagrams from the client.
pub const C_RD_PACKETS: &str = "c_rd_packets";
/// Datagrams to the client.
pub const C_WR_PACKETS: &str = "c_wr_packets";
/// Datagrams from the remote.
pub const R_RD_PACKETS: &str = "r_rd_packets";
/// Datagrams to the remote.
pub const R_WR_PACKETS: &str = "r_wr_packets";

// Escape records

/// Kind of the escaper.
pub const ESCAPER_TYPE: &str = "escaper_type";
/// Name of the escaper.
pub const ESCAPER_NAME: &str = "escaper_name";
/// Which step failed.
pub const ESCAPE_TYPE: &str = "escape_type";
/// Next hop that egress path selection put in place.
pub const OVERRIDE_PEER: &str = "override_peer";
/// Name verified in the TLS handshake.
pub const TLS_NAME: &str = "tls_name";
/// Address with which TLS is made.
pub const TLS_PEER: &str = "tls_peer";
/// What the TLS connection is for.
pub const TLS_APPLICATION: &str = "tls_application";

// Resolve records

/// Kind of the resolver.
pub const RESOLVER_TYPE: &str = "resolver_type";
/// Name of the resolver.
pub const RESOLVER_NAME: &str = "resolver_name";
/// Record type asked for.
pub const QUERY_TYPE: &str = "query_type";
/// Time of the query.
pub const DURATION: &str = "duration";
/// Where the answer came from.
pub const RR_SOURCE: &str = "rr_source";
/// Class of the failure.
pub const ERROR_TYPE: &str = "error_type";
/// Failure within its class.
pub const ERROR_SUBTYPE: &str = "error_subtype";
/// Name asked for.
pub const DOMAIN: &str = "domain";
/// Local IPv4 address of the queries.
pub const BIND_IPV4: &str = "bind_ipv4";
/// Local IPv6 address of the queries.
pub const BIND_IPV6: &str = "bind_ipv6";
/// Local address or interface of the queries.
pub const BIND_ADDR: &str = "bind_addr";
/// Servers asked, separated by spaces.
pub const SERVER: &str = "server";
/// Port of the servers.
pub const SERVER_PORT: &str = "server_port";
/// How the queries are encrypted.
pub const ENCRYPTION: &str = "encryption";
/// First resolver of a fail-over pair.
pub const NEXT_PRIMARY: &str = "next_primary";
/// Second resolver of a fail-over pair.
pub const NEXT_STANDBY: &str = "next_standby";

// Audit records

/// Name of the auditor.
pub const AUDITOR_NAME: &str = "auditor_name";
/// Nesting of the inspection.
pub const DEPTH: &str = "depth";
/// What led to the inspection.
pub const SOURCE: &str = "source";
/// Protocol found.
pub const PROTOCOL: &str = "protocol";
/// Kind of the intercepted exchange.
pub const INTERCEPT_TYPE: &str = "intercept_type";
/// Result of the upstream certificate's verification.
pub const TLS_SERVER_VERIFY: &str = "tls_server_verify";
/// Request the connection is at.
pub const CURRENT_REQ_ID: &str = "current_req_id";
/// Number of the request on its connection.
pub const REQUEST_ID: &str = "request_id";
/// Arrival of the request.
pub const RECEIVED_AT: &str = "received_at";
/// `Host` of the request.
pub const HOST: &str = "host";
/// Wait in the pipeline.
pub const DUR_REQ_PIPELINE: &str = "dur_req_pipeline";
/// Target of a nested tunnel.
pub const NEXT_UPSTREAM: &str = "next_upstream";
/// Protocol that is switched to.
pub const NEXT_PROTOCOL: &str = "next_protocol";
/// Streams opened so far.
pub const TOTAL_SUB_TASK: &str = "total_sub_task";
/// Streams open now.
pub const ALIVE_SUB_TASK: &str = "alive_sub_task";
/// Round trip time of a ping.
pub const RTT: &str = "rtt";
/// Stream id on the client's side.
pub const CLT_STREAM: &str = "clt_stream";
/// Stream id on the upstream's side.
pub const UPS_STREAM: &str = "ups_stream";
/// Start of the stream.
pub const STARTED_AT: &str = "started_at";
/// Resource of the WebSocket.
pub const WS_RESOURCE_NAME: &str = "ws_resource_name";
/// Origin of the WebSocket.
pub const WS_ORIGIN: &str = "ws_origin";
/// Sub-protocols of the WebSocket.
pub const WS_SUB_PROTOCOL: &str = "ws_sub_protocol";
/// Version of the WebSocket protocol.
pub const WS_VERSION: &str = "ws_version";
/// Host that the mail client named.
pub const CLIENT_HOST: &str = "client_host";
/// Mail transactions on the connection.
pub const TRANSACTION_COUNT: &str = "transaction_count";
/// Number of the mail transaction.
pub const TRANSACTION_ID: &str = "transaction_id";
/// Sender of the mail.
pub const MAIL_FROM: &str = "mail_from";
/// Whether the server said goodbye.
pub const SERVER_BYE: &str = "server_bye";
/// Whether the client logged out.
pub const CLIENT_LOGOUT: &str = "client_logout";
/// How the inspection of an unknown stream ended.
pub const INSPECT_STATUS: &str = "inspect_status";

// Mint records, which have HOST and DURATION too

/// Protocol that TLS was found in.
pub const SERVICE: &str = "service";
/// What the certificate is for.
pub const USAGE: &str = "usage";
/// Serial number of the certificate, in hexadecimal.
pub const SERIAL: &str = "serial";
/// SHA-256 of the certificate, in hexadecimal.
pub const FINGERPRINT: &str = "fingerprint";
/// Kind of the certificate's key.
pub const KEY_TYPE: &str = "key_type";
/// End of the certificate's validity.
pub const NOT_AFTER: &str = "not_after";
/// Who asked for the certificate: user and process, or address.
pub const ASKER: &str = "asker";
/// What of the mirrored certificate could not be kept.
pub const FALLBACK: &str = "fallback";
/// Who made the certificate.
pub const GENERATOR: &str = "generator";

// Icap events, which have METHOD, URI, HOST, RSP_STATUS and DURATION too

/// URI of the ICAP service.
pub const ICAP_SERVICE: &str = "icap_service";
/// What it was asked: `REQMOD` or `RESPMOD`.
pub const ICAP_METHOD: &str = "icap_method";
/// Status of its answer.
pub const ICAP_STATUS: &str = "icap_status";
/// What becomes of the message.
pub const VERDICT: &str = "verdict";

/// Writes fields into a serializer; the body of a record's [`slog::KV::serialize`].
///
/// ```
/// use sluice_telemetry::keys::{self, Fields, Uuid};
///
/// struct Refused { task: Uuid, tries: u32, peer: Option<std::net::SocketAddr> }
///
/// impl slog::KV for Refused {
///     fn serialize(&self, record: &slog::Record<'_>, out: &mut dyn slog::Serializer) -> slog::Result {
///         Fields::new(record, out)
///             .put(keys::TASK_ID, &self.task)?
///             .put(keys::TCP_CONNECT_TRIES, &self.tries)?
///             .put(keys::NEXT_PEER_ADDR, &self.peer)?
///             .done()
///     }
/// }
/// ```
#[expect(missing_debug_implementations, reason = "wraps a serializer that has none")]
pub struct Fields<'a> {
    record: &'a Record<'a>,
    out: &'a mut dyn Serializer,
}

impl<'a> Fields<'a> {
    /// Writes to `out` on behalf of `record`.
    pub fn new(record: &'a Record<'a>, out: &'a mut dyn Serializer) -> Self {
        Self { record, out }
    }

    /// Writes one field; an `Option` that is `None`, and a zero [`Dur`], are absent.
    ///
    /// # Errors
    /// What the driver's encoding answers.
    pub fn put<V: Value + ?Sized>(&mut self, key: &'static str, value: &V) -> Result<&mut Self, slog::Error> {
        value.serialize(self.record, key.into(), self.out)?;
        Ok(self)
    }

    /// Writes one field by its `Display`.
    ///
    /// # Errors
    /// What the driver's encoding answers.
    pub fn show<V: std::fmt::Display>(&mut self, key: &'static str, value: V) -> Result<&mut Self, slog::Error> {
        self.out.emit_arguments(key.into(), &format_args!("{value}"))?;
        Ok(self)
    }

    /// Ends a chain.
    ///
    /// # Errors
    /// None; the type is that of [`slog::KV::serialize`].
    pub fn done(&mut self) -> slog::Result {
        Ok(())
    }
}
