//! How intercepted streams are taken part in.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::Deserializer;

use crate::value::sizes::{ByteSize, ByteSize32};
use crate::value::time::Span;

/// The shortest handshake that makes sense.
const LEAST_HANDSHAKE: Span = Span::millis(100);

/// The client's side of an intercepted TLS stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsInterceptionServer {
    /// For the ClientHello, and for the handshake; at least 100ms.
    #[serde(
        alias = "handshake_timeout",
        alias = "negotiation_timeout",
        deserialize_with = "handshake"
    )]
    pub accept_timeout: Span,
}

impl Default for TlsInterceptionServer {
    fn default() -> Self {
        Self {
            accept_timeout: Span::secs(10),
        }
    }
}

fn handshake<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
    Span::deserialize(deserializer).map(|timeout| timeout.max(LEAST_HANDSHAKE))
}

/// HTTP/1 in an intercepted stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct H1Interception {
    /// Requests taken ahead.
    pub pipeline_size: NonZeroUsize,
    /// For the next request.
    pub pipeline_read_idle_timeout: Span,
    /// For a request's head.
    pub req_header_recv_timeout: Span,
    /// For a response's head.
    pub rsp_header_recv_timeout: Span,
    /// The largest head of a request.
    pub req_header_max_size: ByteSize,
    /// The largest head of a response.
    pub rsp_header_max_size: ByteSize,
    /// The longest line of a chunk's size or a trailer.
    pub body_line_max_length: usize,
    /// Whether the client's `Forwarded` and `X-Forwarded-For` are dropped.
    pub steal_forwarded_for: bool,
}

impl Default for H1Interception {
    fn default() -> Self {
        Self {
            pipeline_size: NonZeroUsize::MIN.saturating_add(9),
            pipeline_read_idle_timeout: Span::secs(5 * 60),
            req_header_recv_timeout: Span::secs(30),
            rsp_header_recv_timeout: Span::secs(60),
            req_header_max_size: ByteSize::kib(64),
            rsp_header_max_size: ByteSize::kib(64),
            body_line_max_length: 8192,
            steal_forwarded_for: false,
        }
    }
}

/// HTTP/2 in an intercepted stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct H2Interception {
    /// The largest header list.
    #[serde(alias = "max_header_size")]
    pub max_header_list_size: ByteSize32,
    /// Streams at a time; the client gets no more than the server allows.
    pub max_concurrent_streams: u32,
    /// The largest frame; from 16KiB to 16MiB less one.
    #[serde(deserialize_with = "frame_size")]
    pub max_frame_size: ByteSize32,
    /// The window of a stream; at least 64KiB.
    #[serde(deserialize_with = "window")]
    pub stream_window_size: ByteSize32,
    /// The window of a connection; at least 64KiB.
    #[serde(deserialize_with = "window")]
    pub connection_window_size: ByteSize32,
    /// The most bytes that wait to be sent.
    pub max_send_buffer_size: ByteSize,
    /// For the handshake with the server.
    pub upstream_handshake_timeout: Span,
    /// For a free stream to the server.
    pub upstream_stream_open_timeout: Span,
    /// For the handshake with the client.
    pub client_handshake_timeout: Span,
    /// The time between pings.
    pub ping_interval: Span,
    /// For a response's head.
    pub rsp_header_recv_timeout: Span,
    /// Whether `Expect` is dropped rather than answered by 417.
    pub silent_drop_expect_header: bool,
}

impl Default for H2Interception {
    fn default() -> Self {
        Self {
            max_header_list_size: ByteSize32(64 << 10),
            max_concurrent_streams: 128,
            max_frame_size: ByteSize32(256 << 10),
            stream_window_size: ByteSize32(1 << 20),
            connection_window_size: ByteSize32(2 << 20),
            max_send_buffer_size: ByteSize::mib(8),
            upstream_handshake_timeout: Span::secs(10),
            upstream_stream_open_timeout: Span::secs(10),
            client_handshake_timeout: Span::secs(4),
            ping_interval: Span::secs(60),
            rsp_header_recv_timeout: Span::secs(60),
            silent_drop_expect_header: false,
        }
    }
}

fn frame_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize32, D::Error> {
    // The bounds of RFC 9113 §6.5.2.
    ByteSize32::deserialize(deserializer).map(|size| ByteSize32(size.0.clamp(16 << 10, (16 << 20) - 1)))
}

fn window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize32, D::Error> {
    ByteSize32::deserialize(deserializer).map(|size| ByteSize32(size.0.max(64 << 10)))
}

/// SMTP in an intercepted stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SmtpInterception {
    /// For the server's first line.
    pub greeting_timeout: Span,
    /// For the end after QUIT.
    pub quit_wait_timeout: Span,
    /// For the next command.
    pub command_wait_timeout: Span,
    /// For the reply to a command.
    pub response_wait_timeout: Span,
    /// For the reply to DATA.
    pub data_initiation_timeout: Span,
    /// For the reply to the end of the data.
    pub data_termination_timeout: Span,
    /// Whether ATRN is passed on (RFC 2645); the turned stream is not intercepted.
    #[serde(alias = "allow_odmr")]
    pub allow_on_demand_mail_relay: bool,
    /// Whether BDAT is passed on (RFC 3030), without ICAP.
    pub allow_data_chunking: bool,
    /// Whether BURL is passed on (RFC 4468), without ICAP.
    #[serde(alias = "allow_burl")]
    pub allow_burl_data: bool,
}

impl Default for SmtpInterception {
    fn default() -> Self {
        Self {
            greeting_timeout: Span::secs(5 * 60),
            quit_wait_timeout: Span::secs(60),
            command_wait_timeout: Span::secs(5 * 60),
            response_wait_timeout: Span::secs(5 * 60),
            data_initiation_timeout: Span::secs(2 * 60),
            data_termination_timeout: Span::secs(10 * 60),
            allow_on_demand_mail_relay: false,
            allow_data_chunking: false,
            allow_burl_data: false,
        }
    }
}

/// IMAP in an intercepted stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImapInterception {
    /// For the server's first line.
    pub greeting_timeout: Span,
    /// From the first line until the user is known.
    pub authenticate_timeout: Span,
    /// For the end after LOGOUT.
    pub logout_wait_timeout: Span,
    /// The longest line of a command.
    pub command_line_max_size: usize,
    /// The longest line of a response.
    pub response_line_max_size: usize,
    /// Idle checks while lines are passed on, IDLE included.
    pub forward_max_idle_count: usize,
    /// Idle checks while a literal is passed on.
    pub transfer_max_idle_count: usize,
}

impl Default for ImapInterception {
    fn default() -> Self {
        Self {
            greeting_timeout: Span::secs(5 * 60),
            authenticate_timeout: Span::secs(5 * 60),
            logout_wait_timeout: Span::secs(10),
            command_line_max_size: 4096,
            response_line_max_size: 4096,
            forward_max_idle_count: 30,
            transfer_max_idle_count: 5,
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
        let h1 = H1Interception {
            body_line_max_length: 1,
            ..H1Interception::default()
        };
        assert_eq!(decode("{body-line-max-length: 1}"), Ok(h1));
        assert_eq!(h1.pipeline_size.get(), 10);
        let smtp = SmtpInterception {
            allow_on_demand_mail_relay: true,
            ..SmtpInterception::default()
        };
        assert_eq!(decode("{allow_odmr: yes}"), Ok(smtp));
        let imap = ImapInterception {
            forward_max_idle_count: 1,
            ..ImapInterception::default()
        };
        assert_eq!(decode("{forward_max_idle_count: 1}"), Ok(imap));
        assert!(decode::<H1Interception>("{pipeline_size: 0}").is_err());
    }

    #[test]
    fn sizes_and_times_are_kept_in_bounds() {
        let h2 = decode::<H2Interception>("{max_frame_size: 1, stream_window_size: 1K, connection_window_size: 3MiB}")
            .unwrap();
        assert_eq!(h2.max_frame_size, ByteSize32(16 << 10));
        assert_eq!(h2.stream_window_size, ByteSize32(64 << 10));
        assert_eq!(h2.connection_window_size, ByteSize32(3 << 20));
        assert_eq!(
            decode::<H2Interception>("{max_frame_size: 1G}").unwrap().max_frame_size,
            ByteSize32((16 << 20) - 1)
        );
        let server = decode::<TlsInterceptionServer>("{handshake_timeout: 1ms}").unwrap();
        assert_eq!(server.accept_timeout, LEAST_HANDSHAKE);
    }
}
