//! PROXY protocol headers, received and sent (HAProxy's `proxy-protocol.txt`, versions 1 and 2).
//!
//! Bytes in, verdicts and bytes out: no I/O, no clock, no allocation in parsing. [`parse_header`] reads the header at the
//! front of a connection, of the one version that the configuration names: a header of the other version is an error, as
//! are other bytes, since whoever could choose would choose its address. [`put_header`] writes one.
//!
//! ```
//! use sluice_proxy_protocol::{Version, parse_header};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let buf = b"PROXY TCP4 192.0.2.1 192.0.2.9 40000 8080\r\nGET / HTTP/1.1\r\n";
//! assert_eq!(parse_header(&buf[..20], Version::V1)?, None); // read more
//! let (header, used) = parse_header(buf, Version::V1)?.expect("complete");
//! let addresses = header.addresses.expect("else the socket's own count");
//! assert_eq!(addresses.client.to_string(), "192.0.2.1:40000");
//! assert_eq!(&buf[used..], b"GET / HTTP/1.1\r\n");
//! # Ok(())
//! # }
//! ```

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::indexing_slicing))]

mod crc32c;
#[cfg(any(test, feature = "cases"))]
#[doc(hidden)]
pub mod properties;
mod tlv;
mod v1;
mod v2;

use std::fmt;
use std::net::SocketAddr;

pub use sluice_config::value::ProxyProtocolVersion as Version;
use thiserror::Error;

pub use tlv::{Ssl, Tlv, Tlvs};

/// The longest header of either version.
pub const MAX_HEADER: usize = v2::MAX_HEADER;

/// A header that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'b> {
    /// The addresses of the connection that is spoken for; `None` if the socket's own count.
    ///
    /// That is so if the sender speaks for itself (LOCAL, as health checks do) or does not know (UNKNOWN, UNSPEC), and for
    /// what is no TCP over IP.
    pub addresses: Option<Addresses>,
    /// What version 2 may tell besides.
    pub tlvs: Tlvs<'b>,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Where it comes from.
    pub client: SocketAddr,
    /// Where the client connected to.
    pub server: SocketAddr,
}

impl Addresses {
    /// With IPv4-mapped IPv6 addresses as the IPv4 addresses that they mean.
    fn to_canonical(self) -> Self {
        let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        Self {
            client: canonical(self.client),
            server: canonical(self.server),
        }
    }
}

/// Reads the header at the front of a connection.
///
/// `Ok(None)` asks for more bytes, of which there are never more than [`MAX_HEADER`]; with the header comes the number of
/// bytes that it takes. IPv4-mapped IPv6 addresses become the IPv4 addresses that they mean.
///
/// # Errors
/// [`HeaderError`]; the connection has to be closed.
pub fn parse_header(buf: &[u8], version: Version) -> Result<Option<(Header<'_>, usize)>, HeaderError> {
    match version {
        Version::V1 => v1::parse(buf),
        Version::V2 => v2::parse(buf),
    }
}

/// Client and server have addresses of different families, which no header can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{} and {} are of different address families", .0.client, .0.server)]
pub struct FamiliesDiffer(pub Addresses);

/// Appends a header without TLVs. IPv4-mapped IPv6 addresses are sent as the IPv4 addresses that they mean.
///
/// # Errors
/// [`FamiliesDiffer`]; nothing is appended then.
pub fn put_header(version: Version, addresses: &Addresses, out: &mut Vec<u8>) -> Result<(), FamiliesDiffer> {
    let addresses = addresses.to_canonical();
    match version {
        Version::V1 => v1::put(&addresses, out),
        Version::V2 => v2::put(&addresses, out),
    }
}

/// Why a connection does not begin with a header that can be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Version 2: the addresses do not fit into the announced length.
    #[error("{length} bytes are too few for the addresses")]
    AddressesShort {
        /// It.
        length: usize,
    },
    /// Version 2: the CRC32C does not match, so the header was damaged.
    #[error("the checksum does not match")]
    Checksum,
    /// Version 2: there are two checksums, or one of another length than four bytes.
    #[error("the checksum is malformed")]
    ChecksumForm,
    /// Version 2: a command other than LOCAL and PROXY.
    #[error("unknown command {code}")]
    Command {
        /// Its number.
        code: u8,
    },
    /// Version 2: an address family that does not exist.
    #[error("unknown address family {code}")]
    Family {
        /// Its number.
        code: u8,
    },
    /// Version 1: a bare CR or LF.
    #[error("a line end that is not CRLF")]
    LineEnd,
    /// Version 1: no CRLF within 107 bytes.
    #[error("the line is longer than 107 bytes")]
    LineTooLong,
    /// The bytes are not the beginning of a header of this version.
    #[error("no PROXY protocol header, where {version:?} is expected")]
    Missing {
        /// The version that was expected.
        version: Version,
    },
    /// Version 1: a part of the line is missing or wrong, or something follows it.
    #[error("the {part} is missing or malformed")]
    Part {
        /// It.
        part: Part,
    },
    /// Version 2: a TLV is cut off by the end of the header.
    #[error("a TLV does not fit into the header")]
    Tlv,
    /// Version 2: the announced length is larger than any that is accepted.
    #[error("a header of {length} bytes is too long")]
    TooLong {
        /// It.
        length: usize,
    },
    /// Version 2: a transport that does not exist.
    #[error("unknown transport {code}")]
    Transport {
        /// Its number.
        code: u8,
    },
    /// The signature is followed by another version than 2.
    #[error("version {number} of the binary header")]
    Version {
        /// It.
        number: u8,
    },
}

/// A part of a line of version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `TCP4`, `TCP6` or `UNKNOWN`.
    Family,
    /// The client's address.
    Client,
    /// The address that it connected to.
    Server,
    /// The client's port.
    ClientPort,
    /// The port that it connected to.
    ServerPort,
    /// What follows the last port.
    End,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Family => "family",
            Self::Client => "client's address",
            Self::Server => "server's address",
            Self::ClientPort => "client's port",
            Self::ServerPort => "server's port",
            Self::End => "end of the line",
        })
    }
}

#[cfg(test)]
mod tests;
