//! Heads as they go on: hop-by-hop fields dropped, framing written anew, everything else byte for byte.

use crate::body::BodyFraming;
use crate::fields::put_decimal;
use crate::request::RequestHead;
use crate::response::ResponseHead;
use crate::target::Absolute;

/// The Connection line to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// `Connection: close`.
    Close,
    /// No line: an HTTP/1.1 receiver keeps the connection.
    #[default]
    Implied,
    /// `Connection: keep-alive`, for an HTTP/1.0 receiver.
    KeepAlive,
    /// `Connection: Upgrade` and the Upgrade field; as [`Implied`](Self::Implied) if the message asks for none.
    Upgrade,
}

/// The request target to write.
#[derive(Clone, Copy, Debug)]
pub enum TargetLine<'a> {
    /// Absolute-form, for a parent proxy.
    Absolute(&'a Absolute<'a>),
    /// Origin-form, for the origin server.
    Origin(&'a Absolute<'a>),
    /// Just these bytes: no whitespace and no control byte in them.
    Raw(&'a str),
}

/// The Host line to write.
#[derive(Clone, Copy, Debug, Default)]
pub enum HostLine<'a> {
    /// As it was sent and where it stood; none if none was sent.
    #[default]
    AsSent,
    /// As it was sent, less the port if it is this one.
    WithoutPort(u16),
    /// This instead, right after the request line.
    Replace(&'a str),
}

/// How a request goes on. Always as HTTP/1.1 (RFC 9110 §6.2).
#[derive(Clone, Copy, Debug)]
pub struct ForwardRequest<'a> {
    /// The target.
    pub target: TargetLine<'a>,
    /// The Host field.
    pub host: HostLine<'a>,
    /// The Connection field.
    pub connection: Connection,
    /// More lines, each with its CRLF; make them with [`put_field`](crate::put_field).
    pub extra: &'a [u8],
}

impl<'a> ForwardRequest<'a> {
    /// To this target, all else as it was sent.
    pub const fn new(target: TargetLine<'a>) -> Self {
        Self {
            target,
            host: HostLine::AsSent,
            connection: Connection::Implied,
            extra: b"",
        }
    }
}

impl RequestHead<'_> {
    /// Appends the head to forward to `out`.
    pub fn forward(&self, how: &ForwardRequest<'_>, out: &mut Vec<u8>) {
        out.reserve(self.head.len() + how.extra.len() + 128);
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        match how.target {
            TargetLine::Absolute(target) => target.put_absolute_form(self.method, out),
            TargetLine::Origin(target) => target.put_origin_form(self.method, out),
            TargetLine::Raw(raw) => out.extend_from_slice(raw.as_bytes()),
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        self.put_host_and_fields(how.host, out);
        match self.framing {
            BodyFraming::None | BodyFraming::UntilClose => {}
            BodyFraming::Length(length) => put_length(out, length),
            BodyFraming::Chunked => out.extend_from_slice(CHUNKED),
        }
        let connection = match how.connection {
            Connection::Upgrade if self.upgrade.is_none() => Connection::Implied,
            connection => connection,
        };
        match (connection, self.te_trailers) {
            (Connection::Implied, false) => {}
            (Connection::Implied, true) => out.extend_from_slice(b"Connection: TE\r\n"),
            (connection, te) => put_connection(out, connection, te),
        }
        if self.te_trailers {
            out.extend_from_slice(b"TE: trailers\r\n");
        }
        if let (Connection::Upgrade, Some(protocol)) = (connection, self.upgrade) {
            put_upgrade(out, protocol);
        }
        out.extend_from_slice(how.extra);
        out.extend_from_slice(b"\r\n");
    }

    fn put_host_and_fields(&self, host: HostLine<'_>, out: &mut Vec<u8>) {
        let (start, end) = (self.fields_at as usize, self.head.len().saturating_sub(2));
        let text = match host {
            HostLine::AsSent => return self.cuts.copy_kept(self.head, start, end, out),
            HostLine::Replace(text) => Some(text),
            HostLine::WithoutPort(port) => match self.host_authority() {
                Some(sent) if sent.port == Some(port) => Some(sent.without_port(port)),
                _ => return self.cuts.copy_kept(self.head, start, end, out),
            },
        };
        if let Some(text) = text {
            out.extend_from_slice(b"Host: ");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        let Some((line, line_end)) = self.host_line else {
            return self.cuts.copy_kept(self.head, start, end, out);
        };
        let mut cuts = self.cuts.clone();
        cuts.insert(line, line_end);
        cuts.copy_kept(self.head, start, end, out);
    }
}

/// How the body of a response goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyOut {
    /// As it was received.
    #[default]
    AsReceived,
    /// In chunks, though it was received until close: the caller encodes them with [`put_chunk`](crate::put_chunk).
    Chunked,
    /// As plain bytes until close, though it was received in chunks: the caller takes the chunks off. For HTTP/1.0.
    UntilClose,
}

/// How a response goes on. Always as HTTP/1.1 (RFC 9110 §6.2).
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardResponse<'a> {
    /// The Connection field.
    pub connection: Connection,
    /// The framing; of a response without a body it changes nothing.
    pub body: BodyOut,
    /// More lines, each with its CRLF; make them with [`put_field`](crate::put_field).
    pub extra: &'a [u8],
}

impl ResponseHead<'_> {
    /// Appends the head to forward to `out`.
    pub fn forward(&self, how: &ForwardResponse<'_>, out: &mut Vec<u8>) {
        out.reserve(self.size() + how.extra.len() + 128);
        put_status_line(out, self.status, self.reason());
        self.put_fields(out);
        match (self.framing, how.body) {
            (BodyFraming::None, _) => {
                if let Some(length) = self.declared_length {
                    put_length(out, length);
                }
            }
            (BodyFraming::Length(length), _) => put_length(out, length),
            // With other codings the received lines have gone on already.
            (BodyFraming::Chunked, BodyOut::AsReceived | BodyOut::Chunked) if !self.is_coded => {
                out.extend_from_slice(CHUNKED);
            }
            (BodyFraming::UntilClose, BodyOut::Chunked) if !self.is_coded => out.extend_from_slice(CHUNKED),
            (BodyFraming::Chunked | BodyFraming::UntilClose, _) => {}
        }
        match (how.connection, self.upgrade()) {
            (Connection::Upgrade, Some(protocol)) => {
                put_connection(out, Connection::Upgrade, false);
                put_upgrade(out, protocol);
            }
            (connection, _) => put_connection(out, connection, false),
        }
        out.extend_from_slice(how.extra);
        out.extend_from_slice(b"\r\n");
    }
}

const CHUNKED: &[u8] = b"Transfer-Encoding: chunked\r\n";

/// Appends `HTTP/1.1 status reason` CRLF.
pub(crate) fn put_status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    put_decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn put_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    put_decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

/// Appends the Connection line; with `te` it names the TE field too (RFC 9110 §10.1.4).
fn put_connection(out: &mut Vec<u8>, connection: Connection, te: bool) {
    let option: &[u8] = match connection {
        Connection::Close => b"close",
        Connection::Implied => return,
        Connection::KeepAlive => b"keep-alive",
        Connection::Upgrade => b"Upgrade",
    };
    out.extend_from_slice(b"Connection: ");
    out.extend_from_slice(option);
    if te {
        out.extend_from_slice(b", TE");
    }
    out.extend_from_slice(b"\r\n");
}

fn put_upgrade(out: &mut Vec<u8>, protocol: &[u8]) {
    out.extend_from_slice(b"Upgrade: ");
    out.extend_from_slice(protocol);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
