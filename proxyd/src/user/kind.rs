//! What users and their requests are, in the words of metrics and rules.

use sluice_config::value::ProxyRequestType;

/// Where a user comes from: the tag `user_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum UserType {
    Anonymous,
    Dynamic,
    Static,
}

impl UserType {
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::Anonymous => "Anonymous",
            Self::Dynamic => "Dynamic",
            Self::Static => "Static",
        }
    }
}

/// What a request is: the tag `request`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    FtpOverHttp,
    HttpConnect,
    HttpForward,
    HttpsForward,
    SocksTcpConnect,
    SocksUdpAssociate,
    SocksUdpConnect,
    TcpConnect,
}

impl RequestKind {
    pub(crate) const ALL: [Self; 8] = [
        Self::FtpOverHttp,
        Self::HttpConnect,
        Self::HttpForward,
        Self::HttpsForward,
        Self::SocksTcpConnect,
        Self::SocksUdpAssociate,
        Self::SocksUdpConnect,
        Self::TcpConnect,
    ];

    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::FtpOverHttp => "ftp_over_http",
            Self::HttpConnect => "http_connect",
            Self::HttpForward => "http_forward",
            Self::HttpsForward => "https_forward",
            Self::SocksTcpConnect => "socks_tcp_connect",
            Self::SocksUdpAssociate => "socks_udp_associate",
            Self::SocksUdpConnect => "socks_udp_connect",
            Self::TcpConnect => "tcp_connect",
        }
    }

    /// What a `proxy_request_filter` calls it; `None` for requests that no such rule is about.
    pub(crate) fn filtered_as(self) -> Option<ProxyRequestType> {
        Some(match self {
            Self::FtpOverHttp => ProxyRequestType::FtpOverHttp,
            Self::HttpConnect => ProxyRequestType::HttpConnect,
            Self::HttpForward => ProxyRequestType::HttpForward,
            Self::HttpsForward => ProxyRequestType::HttpsForward,
            Self::SocksTcpConnect => ProxyRequestType::SocksTcpConnect,
            Self::SocksUdpAssociate | Self::SocksUdpConnect => ProxyRequestType::SocksUdpAssociate,
            Self::TcpConnect => return None,
        })
    }
}

/// The protocol by which a client speaks with the proxy: the tag `connection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientProtocol {
    Http,
    Socks,
}
