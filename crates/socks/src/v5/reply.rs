//! What is answered (RFC 1928 §6).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sluice_addr::Upstream;
use thiserror::Error;

use crate::address::{self, AddressFault, MAX_ADDRESS};
use crate::reader::{self, Stop};

/// The longest reply.
pub const MAX_REPLY: usize = 3 + MAX_ADDRESS;

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyCode {
    /// 0x00.
    Succeeded,
    /// 0x01.
    GeneralFailure,
    /// 0x02: rules forbid it.
    NotAllowed,
    /// 0x03.
    NetworkUnreachable,
    /// 0x04: or its name has no address.
    HostUnreachable,
    /// 0x05.
    ConnectionRefused,
    /// 0x06.
    TtlExpired,
    /// 0x07.
    CommandNotSupported,
    /// 0x08.
    AddressTypeNotSupported,
    /// 0x09: an extension, which RFC 1928 leaves unassigned.
    TimedOut,
}

impl ReplyCode {
    /// All, in the order of their numbers, which begin at 0.
    const ALL: [Self; 10] = [
        Self::Succeeded,
        Self::GeneralFailure,
        Self::NotAllowed,
        Self::NetworkUnreachable,
        Self::HostUnreachable,
        Self::ConnectionRefused,
        Self::TtlExpired,
        Self::CommandNotSupported,
        Self::AddressTypeNotSupported,
        Self::TimedOut,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    fn of(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Succeeded => "succeeded",
            Self::GeneralFailure => "general failure",
            Self::NotAllowed => "not allowed",
            Self::NetworkUnreachable => "network unreachable",
            Self::HostUnreachable => "host unreachable",
            Self::ConnectionRefused => "connection refused",
            Self::TtlExpired => "TTL expired",
            Self::CommandNotSupported => "command not supported",
            Self::AddressTypeNotSupported => "address type not supported",
            Self::TimedOut => "connection timed out",
        })
    }
}

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What came of the request.
    pub code: ReplyCode,
    /// The local address of the connection, or where datagrams are to be sent.
    pub bound: SocketAddr,
}

impl Reply {
    /// A reply to what was done, with the address that goes with it.
    pub const fn succeeded(bound: SocketAddr) -> Self {
        Self {
            code: ReplyCode::Succeeded,
            bound,
        }
    }

    /// A reply without an address, which is `0.0.0.0:0` then.
    pub const fn refused(code: ReplyCode) -> Self {
        Self {
            code,
            bound: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        }
    }

    /// Appends the reply; an IPv4-mapped address as the IPv4 address that it means.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[5, self.code.code(), 0]);
        address::put_ip(self.bound.ip(), out);
        out.extend_from_slice(&self.bound.port().to_be_bytes());
    }
}

/// Why a reply lets nothing follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// An address of a type that RFC 1928 does not know: where the reply ends cannot be told.
    #[error("SOCKS5 has no address type {code}")]
    AddressType {
        /// Its number.
        code: u8,
    },
    /// The server says no.
    #[error("the server answers: {0}")]
    Refused(ReplyCode),
    /// A code that neither RFC 1928 nor its one extension here knows.
    #[error("the server answers with the unknown code {code}")]
    UnknownCode {
        /// It.
        code: u8,
    },
    /// The first byte is not 5.
    #[error("version {version} is not SOCKS5")]
    Version {
        /// It.
        version: u8,
    },
}

/// Reads a reply. The longest one has [`MAX_REPLY`] bytes.
///
/// Of success it gives the address; `None` if that is a domain that is none, since servers send the like of an empty one
/// after CONNECT, where nobody needs it.
///
/// # Errors
/// [`ReplyError`]; a refusal as soon as its code is there, for servers that send no address with it.
pub fn parse_reply(buf: &[u8]) -> Result<Option<(Option<Upstream>, usize)>, ReplyError> {
    reader::read(buf, |reader| {
        let version = reader.byte()?;
        if version != 5 {
            return Err(Stop::Fault(ReplyError::Version { version }));
        }
        let code = reader.byte()?;
        match ReplyCode::of(code) {
            Some(ReplyCode::Succeeded) => {}
            Some(code) => return Err(Stop::Fault(ReplyError::Refused(code))),
            None => return Err(Stop::Fault(ReplyError::UnknownCode { code })),
        }
        reader.byte()?;
        match address::take(reader) {
            Ok(bound) => Ok(Some(bound)),
            // All of the reply has been read.
            Err(Stop::Fault(AddressFault::Host(_))) => Ok(None),
            Err(Stop::Fault(AddressFault::Type(code))) => Err(Stop::Fault(ReplyError::AddressType { code })),
            Err(Stop::More) => Err(Stop::More),
        }
    })
}
