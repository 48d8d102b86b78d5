//! Replies that the proxy makes itself, and their reason phrases.

use crate::fields::{InvalidField, is_value_byte};
use crate::forward::{Connection, put_length, put_status_line};

/// What answers `Expect: 100-continue` before the body is read.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The reason phrase of a status that the proxy sends; those above 520 are its own.
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        521 => "Web Server Is Down",
        522 => "Connection Timed Out",
        523 => "Origin Is Unreachable",
        525 => "SSL Handshake Failed",
        530 => "Origin DNS Error",
        _ => "Unknown",
    }
}

/// A reply of the proxy's own with a short page.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The status; its reason is [`reason`]'s.
    pub status: u16,
    /// The Connection line: [`Connection::Close`], or [`Connection::KeepAlive`] for an HTTP/1.0 client that may stay.
    pub connection: Connection,
    /// Whether the page is left out, as in answer to HEAD.
    pub head_only: bool,
    /// More lines, each with its CRLF; make them with [`put_field`](crate::put_field).
    pub extra: &'a [u8],
}

impl Reply<'_> {
    /// A reply after which the connection is closed.
    pub const fn closing(status: u16) -> Self {
        Self {
            status,
            connection: Connection::Close,
            head_only: false,
            extra: b"",
        }
    }

    /// Appends the reply to `out`.
    pub fn put(&self, out: &mut Vec<u8>) {
        let reason = reason(self.status);
        put_status_line(out, self.status, reason.as_bytes());
        out.extend_from_slice(b"Content-Type: text/html\r\n");
        let [open, middle, close] = [
            "<html><head><title>",
            "</title></head><body><h1>",
            "</h1></body></html>\n",
        ];
        // The code takes three digits and a space, twice.
        put_length(
            out,
            (open.len() + middle.len() + close.len() + 2 * (4 + reason.len())) as u64,
        );
        out.extend_from_slice(match self.connection {
            Connection::Close => b"Connection: close\r\n",
            Connection::KeepAlive => b"Connection: keep-alive\r\n",
            Connection::Implied | Connection::Upgrade => b"",
        });
        out.extend_from_slice(self.extra);
        out.extend_from_slice(b"\r\n");
        if self.head_only {
            return;
        }
        for part in [open, middle] {
            out.extend_from_slice(part.as_bytes());
            crate::fields::put_decimal(out, u64::from(self.status));
            out.push(b' ');
            out.extend_from_slice(reason.as_bytes());
        }
        out.extend_from_slice(close.as_bytes());
    }
}

/// Appends the answer to a CONNECT whose tunnel is open; no framing fields (RFC 9110 §9.3.6).
pub fn put_connected(extra: &[u8], out: &mut Vec<u8>) {
    put_status_line(out, 200, b"Connection established");
    out.extend_from_slice(extra);
    out.extend_from_slice(b"\r\n");
}

/// Which credentials a reply asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// `WWW-Authenticate`, with 401.
    Origin,
    /// `Proxy-Authenticate`, with 407.
    Proxy,
}

/// Appends the line `…-Authenticate: Basic realm="…"`, the realm quoted and escaped (RFC 9110 §5.6.4, H1-16).
///
/// # Errors
/// [`InvalidField`] if the realm holds a control byte; nothing is appended then.
pub fn put_basic_challenge(out: &mut Vec<u8>, challenge: Challenge, realm: &str) -> Result<(), InvalidField> {
    if !realm.bytes().all(is_value_byte) {
        return Err(InvalidField);
    }
    out.extend_from_slice(match challenge {
        Challenge::Origin => b"WWW-Authenticate: Basic realm=\"",
        Challenge::Proxy => b"Proxy-Authenticate: Basic realm=\"",
    });
    for byte in realm.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.extend_from_slice(b"\"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests;
