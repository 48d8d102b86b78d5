//! QUIC connections.

use schemars::JsonSchema;
use serde::Deserialize;

use super::sizes::ByteSize32;
use super::time::Span;

/// The transport of a QUIC connection; what is not set is the library's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QuicTransport {
    /// The silence after which a connection is over; the smaller of ours and the peer's counts.
    pub max_idle_timeout: Span,
    /// The silence after which we say something.
    pub keep_alive_interval: Span,
    /// The bytes that a stream may receive ahead.
    pub stream_receive_window: Option<ByteSize32>,
    /// The bytes that a connection may receive ahead.
    pub receive_window: Option<ByteSize32>,
    /// The bytes that may be sent without an acknowledgement.
    pub send_window: Option<ByteSize32>,
}

impl Default for QuicTransport {
    fn default() -> Self {
        Self {
            max_idle_timeout: Span::secs(60),
            keep_alive_interval: Span::secs(10),
            stream_receive_window: None,
            receive_window: None,
            send_window: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn one_key_leaves_the_other_defaults() {
        let expected = QuicTransport {
            send_window: Some(ByteSize32(1 << 20)),
            ..QuicTransport::default()
        };
        assert_eq!(decode("{send-window: 1MiB}"), Ok(expected));
        assert!(decode::<QuicTransport>("{send_window: 4GiB}").is_err());
    }
}
