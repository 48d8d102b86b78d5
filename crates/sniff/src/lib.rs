//! Which protocol a stream speaks, by the first bytes of whoever speaks first.
//!
//! Bytes in, verdicts out: no I/O, no clock. [`of_client`] and [`of_server`] look at everything that one side has sent so
//! far and give a [`Verdict`]: it is this protocol, it is none that is known, or more bytes are needed. They are asked
//! again with the same bytes and more. No more are asked for than [`Limits::most`], whatever the peer sends.
//!
//! The port of a server is a hint ([`Hints`]): what is expected there is looked for first, and some protocols whose first
//! bytes say little (POP3, DNS) are looked for only where they are expected.
//!
//! ```
//! use sluice_sniff::{Hints, Limits, Protocol, Verdict, of_client, of_server};
//!
//! let (hints, limits) = (Hints::default(), Limits::default());
//! assert_eq!(of_client(b"GET / HT", hints, &limits), Verdict::More);
//! assert_eq!(of_client(b"GET / HTTP/1.1\r\n", hints, &limits), Verdict::Is(Protocol::Http1));
//! assert_eq!(of_server(b"SSH-2.0-OpenSSH_9.9\r\n", hints, &limits), Verdict::Is(Protocol::Ssh));
//! assert_eq!(of_client(&[0x00; 8], hints, &limits), Verdict::Not);
//! ```
//!
//! [`hello`] puts a TLS ClientHello together that comes in any number of records.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::indexing_slicing))]

mod binary;
pub mod hello;
mod line;
#[cfg(any(test, feature = "cases"))]
#[doc(hidden)]
pub mod properties;
mod protocol;
#[cfg(test)]
mod tests;
mod text;
mod tls;

pub use protocol::Protocol;

use Protocol as P;

/// What is expected, by the port.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints<'a> {
    /// Protocols that are looked for first, in this order.
    pub protocols: &'a [Protocol],
    /// Whether TLS is looked for before them.
    pub tls_first: bool,
}

/// The most bytes that are looked at for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The first line of an FTP or SMTP server.
    pub ftp_greeting: usize,
    /// The URI of an HTTP or RTSP request.
    pub http_uri: usize,
    /// The first line of an IMAP server.
    pub imap_greeting: usize,
    /// The first message of an LDAP client.
    pub ldap_request: usize,
    /// The first line of a NATS server.
    pub nats_info: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ftp_greeting: 512,
            http_uri: 4096,
            imap_greeting: 512,
            ldap_request: 1024,
            nats_info: 1024,
        }
    }
}

impl Limits {
    /// The most bytes after which more may be asked for: with more than that there is a verdict.
    #[must_use]
    pub fn most(&self) -> usize {
        let messages = [
            self.ftp_greeting,
            self.http_uri.saturating_add(text::AROUND_URI),
            self.imap_greeting,
            self.ldap_request,
            self.nats_info,
            tls::MOST,
            binary::MOST,
            text::GREETING,
        ];
        messages.into_iter().max().unwrap_or_default()
    }
}

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is this protocol.
    Is(Protocol),
    /// More bytes are needed.
    More,
    /// It is none that is looked for, whatever may follow.
    Not,
}

/// What a client speaks that was the first to send; `bytes` are all that it has sent.
#[must_use]
pub fn of_client(bytes: &[u8], hints: Hints<'_>, limits: &Limits) -> Verdict {
    let tls_first = hints.tls_first.then_some(P::TlsModern);
    let general = [P::TlsModern, P::Http1, P::Ssh, P::Smpp, P::BitTorrent];
    first_of(tls_first.iter().chain(hints.protocols).chain(&general), |protocol| {
        client_speaks(protocol, bytes, limits)
    })
}

/// What a server speaks that was the first to send; `bytes` are all that it has sent.
#[must_use]
pub fn of_server(bytes: &[u8], hints: Hints<'_>, limits: &Limits) -> Verdict {
    let hinted = first_of(hints.protocols.iter(), |protocol| {
        server_speaks(protocol, bytes, limits)
    });
    let general = [P::Ssh, P::Ftp, P::Nats, P::BitTorrent, P::Http2];
    match hinted {
        Verdict::Is(_) => hinted,
        other => match first_of(general.iter(), |protocol| server_in_general(protocol, bytes, limits)) {
            Verdict::Not => other,
            verdict => verdict,
        },
    }
}

/// The first protocol that it is, else whether more bytes could make it one.
fn first_of<'a>(protocols: impl Iterator<Item = &'a Protocol>, look: impl Fn(Protocol) -> Verdict) -> Verdict {
    let mut open = Verdict::Not;
    for protocol in protocols {
        match look(*protocol) {
            Verdict::Not => {}
            Verdict::More => open = Verdict::More,
            is => return is,
        }
    }
    open
}

/// One protocol of those in which the client speaks first, or may.
fn client_speaks(protocol: Protocol, bytes: &[u8], limits: &Limits) -> Verdict {
    match protocol {
        P::SslLegacy | P::TlsLegacy | P::TlsModern | P::TlsTlcp => tls::client(bytes),
        P::Http1 | P::Http2 => text::http(bytes, limits),
        P::Rtsp => text::rtsp(bytes, limits),
        P::SshLegacy | P::Ssh => text::ssh(bytes),
        P::Stomp => text::stomp(bytes),
        P::BitTorrent => binary::bittorrent(bytes),
        P::Dns => binary::dns(bytes),
        P::Ldap => binary::ldap(bytes, limits),
        P::Mqtt => binary::mqtt(bytes),
        P::Rtmp => binary::rtmp(bytes),
        P::Smpp => binary::smpp(bytes),
        P::Ftp | P::Http3 | P::Imap | P::Nats | P::Nnsp | P::Nntp | P::Pop3 | P::Smtp | P::Websocket => Verdict::Not,
    }
}

/// One protocol of those in which the server speaks first, where it is expected.
fn server_speaks(protocol: Protocol, bytes: &[u8], limits: &Limits) -> Verdict {
    match protocol {
        P::Ftp => text::ftp(bytes, limits),
        P::Imap => text::imap(bytes, limits),
        P::Nats => text::nats(bytes, limits),
        P::Nnsp | P::Nntp => text::nntp(bytes, protocol),
        P::Pop3 => text::pop3(bytes),
        P::Smtp => text::smtp(bytes, limits),
        P::SshLegacy | P::Ssh => text::ssh(bytes),
        P::BitTorrent => binary::bittorrent(bytes),
        P::Http2 => binary::settings(bytes),
        P::Smpp => binary::outbind(bytes),
        P::Dns
        | P::Http1
        | P::Http3
        | P::Ldap
        | P::Mqtt
        | P::Rtmp
        | P::Rtsp
        | P::SslLegacy
        | P::Stomp
        | P::TlsLegacy
        | P::TlsModern
        | P::TlsTlcp
        | P::Websocket => Verdict::Not,
    }
}

/// One protocol of those in which the server speaks first, where anything may come.
fn server_in_general(protocol: Protocol, bytes: &[u8], limits: &Limits) -> Verdict {
    match protocol {
        P::Ftp => text::ftp_or_smtp(bytes, limits),
        other => server_speaks(other, bytes, limits),
    }
}
