//! What a client is told whose stream is refused, in the words of its protocol.

use sluice_sniff::Protocol;

/// The answer to a refused stream; nothing where the protocol has no words for it.
pub(super) fn of(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Http1 => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        // SETTINGS without any, then GOAWAY: no stream was taken, HTTP_1_1_REQUIRED (RFC 9113 §6.5, §6.8, §7).
        Protocol::Http2 => b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0d",
        Protocol::Imap => b"* BYE refused by policy\r\n",
        Protocol::Smtp => b"554 5.7.1 refused by policy\r\n",
        _ => b"",
    }
}
