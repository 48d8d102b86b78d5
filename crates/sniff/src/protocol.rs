//! The protocols, by the names that logs give them.

use std::fmt;

/// A protocol that a stream can be found to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// The peer protocol of BitTorrent (BEP 3).
    BitTorrent,
    /// DNS over TCP (RFC 7766).
    Dns,
    /// The control connection of FTP (RFC 959).
    Ftp,
    /// HTTP/1.0 and HTTP/1.1 (RFC 9112).
    Http1,
    /// HTTP/2 (RFC 9113).
    Http2,
    /// HTTP/3 (RFC 9114), known by its ALPN alone.
    Http3,
    /// IMAP (RFC 9051).
    Imap,
    /// LDAP (RFC 4511).
    Ldap,
    /// MQTT.
    Mqtt,
    /// The client protocol of NATS.
    Nats,
    /// NNTP between servers, on its own port (RFC 3977).
    Nnsp,
    /// NNTP (RFC 3977).
    Nntp,
    /// POP3 (RFC 1939).
    Pop3,
    /// RTMP.
    Rtmp,
    /// RTSP (RFC 7826).
    Rtsp,
    /// SMPP 3.3 to 5.0.
    Smpp,
    /// SMTP (RFC 5321).
    Smtp,
    /// SSH 2 (RFC 4253).
    Ssh,
    /// SSH 1.
    SshLegacy,
    /// SSL 2 or 3.
    SslLegacy,
    /// STOMP.
    Stomp,
    /// TLS 1.0 or 1.1.
    TlsLegacy,
    /// TLS 1.2 or later.
    TlsModern,
    /// TLCP (GB/T 38636).
    TlsTlcp,
    /// WebSocket (RFC 6455), known by what led to it.
    Websocket,
}

impl Protocol {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 25] = [
        Self::BitTorrent,
        Self::Dns,
        Self::Ftp,
        Self::Http1,
        Self::Http2,
        Self::Http3,
        Self::Imap,
        Self::Ldap,
        Self::Mqtt,
        Self::Nats,
        Self::Nnsp,
        Self::Nntp,
        Self::Pop3,
        Self::Rtmp,
        Self::Rtsp,
        Self::Smpp,
        Self::Smtp,
        Self::Ssh,
        Self::SshLegacy,
        Self::SslLegacy,
        Self::Stomp,
        Self::TlsLegacy,
        Self::TlsModern,
        Self::TlsTlcp,
        Self::Websocket,
    ];

    /// The name in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BitTorrent => "bittorrent",
            Self::Dns => "dns",
            Self::Ftp => "ftp_control",
            Self::Http1 => "http_1",
            Self::Http2 => "http_2",
            Self::Http3 => "http_3",
            Self::Imap => "imap",
            Self::Ldap => "ldap",
            Self::Mqtt => "mqtt",
            Self::Nats => "nats",
            Self::Nnsp => "nnsp",
            Self::Nntp => "nntp",
            Self::Pop3 => "pop3",
            Self::Rtmp => "rtmp",
            Self::Rtsp => "rtsp",
            Self::Smpp => "smpp",
            Self::Smtp => "smtp",
            Self::Ssh => "ssh",
            Self::SshLegacy => "ssh_legacy",
            Self::SslLegacy => "ssl_legacy",
            Self::Stomp => "stomp",
            Self::TlsLegacy => "tls_legacy",
            Self::TlsModern => "tls_modern",
            Self::TlsTlcp => "tls_tlcp",
            Self::Websocket => "websocket",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
