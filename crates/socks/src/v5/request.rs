//! What is asked for (RFC 1928 §4).

use std::net::IpAddr;

use sluice_addr::{Host, ParseHostError, Upstream};
use thiserror::Error;

use super::reply::ReplyCode;
use crate::address::{self, AddressFault, DomainTooLong, MAX_ADDRESS};
use crate::reader::{self, Stop};

/// The longest request.
pub const MAX_REQUEST: usize = 3 + MAX_ADDRESS;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// Where to; of UDP ASSOCIATE see [`udp_client`](Self::udp_client).
    pub target: Upstream,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// 1: connect to the target.
    Connect,
    /// 2: listen for a connection from the target.
    Bind,
    /// 3: relay datagrams.
    UdpAssociate,
}

impl Command {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Connect => 1,
            Self::Bind => 2,
            Self::UdpAssociate => 3,
        }
    }
}

/// Where the datagrams of a UDP ASSOCIATE will come from, as far as the client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpClient {
    /// The address; `None` is learned from the first datagram.
    pub ip: Option<IpAddr>,
    /// The port; `None` is learned from the first datagram.
    pub port: Option<u16>,
}

/// A client says by a domain where its datagrams come from; answered with [`ReplyCode::AddressTypeNotSupported`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the client tells its UDP address by a domain")]
pub struct DomainOfClient;

impl Request {
    /// Where the client of a UDP ASSOCIATE will send from. Some clients write the domain `0` for an unknown address.
    ///
    /// # Errors
    /// [`DomainOfClient`] if that is another domain.
    pub fn udp_client(&self) -> Result<UdpClient, DomainOfClient> {
        let ip = match &self.target.host {
            Host::Ip(ip) => (!ip.is_unspecified()).then_some(*ip),
            Host::Domain(name) if &**name == "0" => None,
            Host::Domain(_) => return Err(DomainOfClient),
        };
        let port = (self.target.port != 0).then_some(self.target.port);
        Ok(UdpClient { ip, port })
    }
}

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// An address of a type that RFC 1928 does not know.
    #[error("SOCKS5 has no address type {code}")]
    AddressType {
        /// Its number.
        code: u8,
    },
    /// A command that RFC 1928 does not know.
    #[error("SOCKS5 has no command {code}")]
    Command {
        /// Its number.
        code: u8,
    },
    /// The domain is none; an empty one (SK-01) among them.
    #[error("the domain is malformed: {0}")]
    Host(#[source] ParseHostError),
    /// The first byte is not 5.
    #[error("version {version} is not SOCKS5")]
    Version {
        /// It.
        version: u8,
    },
}

impl RequestError {
    /// What the client is told (RFC 1928 §6); `None` if nothing can be said in this protocol.
    pub const fn reply(self) -> Option<ReplyCode> {
        match self {
            Self::AddressType { .. } => Some(ReplyCode::AddressTypeNotSupported),
            Self::Command { .. } => Some(ReplyCode::CommandNotSupported),
            Self::Host(_) => Some(ReplyCode::GeneralFailure),
            Self::Version { .. } => None,
        }
    }
}

impl From<AddressFault> for RequestError {
    fn from(fault: AddressFault) -> Self {
        match fault {
            AddressFault::Type(code) => Self::AddressType { code },
            AddressFault::Host(why) => Self::Host(why),
        }
    }
}

/// Reads a request. The longest one has [`MAX_REQUEST`] bytes. The reserved byte may be anything.
///
/// # Errors
/// [`RequestError`], see its variants.
pub fn parse_request(buf: &[u8]) -> Result<Option<(Request, usize)>, RequestError> {
    reader::read(buf, |reader| {
        let version = reader.byte()?;
        if version != 5 {
            return Err(Stop::Fault(RequestError::Version { version }));
        }
        let [command, _reserved] = reader.array()?;
        let target = address::take(reader).map_err(|stop| stop.map(RequestError::from))?;
        let command = match command {
            1 => Command::Connect,
            2 => Command::Bind,
            3 => Command::UdpAssociate,
            code => return Err(Stop::Fault(RequestError::Command { code })),
        };
        Ok(Request { command, target })
    })
}

/// Appends a request.
///
/// # Errors
/// [`DomainTooLong`]; nothing is appended then.
pub fn put_request(request: &Request, out: &mut Vec<u8>) -> Result<(), DomainTooLong> {
    let start = out.len();
    out.extend_from_slice(&[5, request.command.code(), 0]);
    address::put(&request.target, out).inspect_err(|_| out.truncate(start))
}
