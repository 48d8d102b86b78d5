//! How streams are looked at, and who is told.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::schema_as;
use crate::value::hosts::SockAddrSpec;
use crate::value::sizes::ByteSize;
use crate::value::socket::{SocketBuffer, UdpMiscOpts};
use crate::value::time::Span;

/// What is done with a stream whose protocol is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InspectAction {
    /// Refuse it, with an error of the protocol where there is one.
    Block,
    /// Relay it untouched.
    Bypass,
    /// Send it to the stream detour service.
    Detour,
    /// Take part in it.
    #[default]
    Intercept,
}

impl InspectAction {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Bypass => "bypass",
            Self::Detour => "detour",
            Self::Intercept => "intercept",
        }
    }
}

/// The most bytes that are looked at for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InspectionSizeLimit {
    /// The first line of an FTP server.
    #[serde(alias = "ftp_server_greeting_msg")]
    pub ftp_greeting_msg: ByteSize,
    /// The URI of an HTTP request.
    #[serde(alias = "http_client_request_uri")]
    pub http_request_uri: ByteSize,
    /// The first line of an IMAP server.
    #[serde(alias = "imap_server_greeting_msg")]
    pub imap_greeting_msg: ByteSize,
    /// The first message of an LDAP client.
    pub ldap_request_msg: ByteSize,
    /// The first line of a NATS server.
    #[serde(alias = "nats_server_info_line")]
    pub nats_info_line: ByteSize,
}

impl Default for InspectionSizeLimit {
    fn default() -> Self {
        Self {
            ftp_greeting_msg: ByteSize(512),
            http_request_uri: ByteSize(4096),
            imap_greeting_msg: ByteSize(512),
            ldap_request_msg: ByteSize(1024),
            nats_info_line: ByteSize(1024),
        }
    }
}

/// How the protocol of a stream is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProtocolInspection {
    /// Protocols within protocols; deeper ones are unknown.
    pub inspect_max_depth: usize,
    /// The first buffer.
    pub data0_buffer_size: ByteSize,
    /// For the first bytes of either side.
    pub data0_wait_timeout: Span,
    /// For more after the first bytes; past it the protocol is unknown.
    pub data0_read_timeout: Span,
    /// The most bytes of each message.
    pub data0_size_limit: InspectionSizeLimit,
}

impl Default for ProtocolInspection {
    fn default() -> Self {
        Self {
            inspect_max_depth: 4,
            data0_buffer_size: ByteSize(4096),
            data0_wait_timeout: Span::secs(60),
            data0_read_timeout: Span::secs(4),
            data0_size_limit: InspectionSizeLimit::default(),
        }
    }
}

/// Where copies of intercepted streams go.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "DumpForm")]
pub struct StreamDump {
    /// A reader of UDP packets; the group's auditd if not set.
    pub peer: Option<SockAddrSpec>,
    /// Kernel buffers.
    pub socket_buffer: SocketBuffer,
    /// Socket options.
    pub misc_opts: UdpMiscOpts,
    /// The largest packet.
    pub packet_size: Option<usize>,
    /// Whether the client's side is copied rather than the server's.
    pub client_side: bool,
}

schema_as!(StreamDump => DumpForm);

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "StreamDump")]
enum DumpForm {
    Map(DumpMap),
    Str(SockAddrSpec),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct DumpMap {
    peer: Option<SockAddrSpec>,
    socket_buffer: SocketBuffer,
    misc_opts: UdpMiscOpts,
    packet_size: Option<usize>,
    client_side: bool,
}

impl From<DumpForm> for StreamDump {
    fn from(form: DumpForm) -> Self {
        match form {
            DumpForm::Str(peer) => Self {
                peer: Some(peer),
                ..Self::default()
            },
            DumpForm::Map(DumpMap {
                peer,
                socket_buffer,
                misc_opts,
                packet_size,
                client_side,
            }) => Self {
                peer,
                socket_buffer,
                misc_opts,
                packet_size,
                client_side,
            },
        }
    }
}

/// Where certificates for interception come from, and how long they are kept.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "AgentForm")]
pub struct TlsCertAgent {
    /// A generator that answers over UDP; the group's certgend if not set.
    pub query_peer_addr: Option<SockAddrSpec>,
    /// Kernel buffers.
    pub query_socket_buffer: SocketBuffer,
    /// For an answer.
    pub query_wait_timeout: Span,
    /// Seconds that a failure is kept.
    pub protective_cache_ttl: u32,
    /// The most seconds that a certificate is kept.
    pub maximum_cache_ttl: u32,
    /// The wait of whoever asks.
    pub cache_request_timeout: Span,
    /// The time after which an expired entry is dropped.
    pub cache_vanish_wait: Span,
}

schema_as!(TlsCertAgent => AgentForm);

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "TlsCertAgent")]
enum AgentForm {
    Map(AgentMap),
    Str(SockAddrSpec),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct AgentMap {
    query_peer_addr: Option<SockAddrSpec>,
    query_socket_buffer: SocketBuffer,
    query_wait_timeout: Span,
    protective_cache_ttl: u32,
    maximum_cache_ttl: u32,
    cache_request_timeout: Span,
    #[serde(alias = "vanish_after_expire")]
    cache_vanish_wait: Span,
}

impl Default for AgentMap {
    fn default() -> Self {
        Self {
            query_peer_addr: None,
            query_socket_buffer: SocketBuffer::default(),
            query_wait_timeout: Span::secs(4),
            protective_cache_ttl: 10,
            maximum_cache_ttl: 300,
            cache_request_timeout: Span::secs(4),
            cache_vanish_wait: Span::secs(300),
        }
    }
}

impl Default for TlsCertAgent {
    fn default() -> Self {
        AgentForm::Map(AgentMap::default()).into()
    }
}

impl From<AgentForm> for TlsCertAgent {
    fn from(form: AgentForm) -> Self {
        let map = match form {
            AgentForm::Map(map) => map,
            AgentForm::Str(peer) => AgentMap {
                query_peer_addr: Some(peer),
                ..AgentMap::default()
            },
        };
        Self {
            query_peer_addr: map.query_peer_addr,
            query_socket_buffer: map.query_socket_buffer,
            query_wait_timeout: map.query_wait_timeout,
            protective_cache_ttl: map.protective_cache_ttl,
            maximum_cache_ttl: map.maximum_cache_ttl,
            cache_request_timeout: map.cache_request_timeout,
            cache_vanish_wait: map.cache_vanish_wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn one_key_leaves_the_other_defaults() {
        // CFG-07
        let yaml = "{inspect_max_depth: 2, data0_size_limit: {ftp-server-greeting-msg: 1K}}";
        let inspection = decode::<ProtocolInspection>(yaml).unwrap();
        assert_eq!(
            (inspection.inspect_max_depth, inspection.data0_wait_timeout),
            (2, Span::secs(60))
        );
        let limits = InspectionSizeLimit {
            ftp_greeting_msg: ByteSize(1000),
            ..InspectionSizeLimit::default()
        };
        assert_eq!(inspection.data0_size_limit, limits);
        assert!(decode::<ProtocolInspection>("{data0_size_limit: {ftp: 1}}").is_err());
    }

    #[test]
    fn a_key_without_effect_is_read_past() {
        let yaml = "{data0_size_limit: {smtp_greeting_msg: anything}}";
        assert_eq!(decode::<ProtocolInspection>(yaml), Ok(ProtocolInspection::default()));
    }

    #[test]
    fn an_address_or_a_map_says_where_dumps_go() {
        assert_eq!(
            decode::<StreamDump>("127.0.0.1:5555")
                .unwrap()
                .peer
                .map(|peer| peer.port()),
            Some(5555)
        );
        assert_eq!(decode("{}"), Ok(StreamDump::default()));
        assert!(
            decode::<StreamDump>("{client_side: on, packet_size: 1400}")
                .unwrap()
                .client_side
        );
        assert!(decode::<StreamDump>("5555").is_err());
    }

    #[test]
    fn an_address_or_a_map_says_where_certificates_come_from() {
        assert_eq!(decode("{}"), Ok(TlsCertAgent::default()));
        assert_eq!(
            decode::<TlsCertAgent>("127.0.0.1:2999")
                .unwrap()
                .query_peer_addr
                .map(|peer| peer.port()),
            Some(2999)
        );
        assert_eq!(
            decode::<TlsCertAgent>("{vanish_after_expire: 5}")
                .unwrap()
                .cache_vanish_wait,
            Span::secs(5)
        );
    }

    #[test]
    fn actions_are_words_in_any_case() {
        assert_eq!(decode("Bypass"), Ok(InspectAction::Bypass));
        assert!(decode::<InspectAction>("drop").is_err());
    }
}
