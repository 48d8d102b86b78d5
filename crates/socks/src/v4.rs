//! SOCKS4 and SOCKS4a (the memoranda of Ying-Da Lee, "SOCKS 4" and "SOCKS 4A").

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use sluice_addr::{Host, ParseHostError, Upstream};
use thiserror::Error;

use crate::address::{self, DomainTooLong};
use crate::reader::{self, Stop};

/// The longest user id, in bytes; Ying-Da Lee sets no limit.
pub const MAX_USER_ID: usize = 511;

/// The longest request: head, user id and domain, each of these with its NUL.
pub const MAX_REQUEST: usize = 8 + MAX_USER_ID + 1 + MAX_DOMAIN + 1;

/// The length of a reply.
pub const REPLY: usize = 8;

/// The longest domain, in bytes.
const MAX_DOMAIN: usize = 255;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'b> {
    /// What to do.
    pub command: Command,
    /// Where to.
    pub target: Upstream,
    /// Who the client says its user is; nothing vouches for it.
    pub user_id: &'b [u8],
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Connect to the target.
    Connect,
    /// Listen for a connection from the target.
    Bind,
}

/// Why bytes are no SOCKS4 request. All but [`Version`](Self::Version) can be answered with [`ReplyCode::Rejected`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The command is neither CONNECT nor BIND.
    #[error("SOCKS4 has no command {code}")]
    Command {
        /// Its number.
        code: u8,
    },
    /// There is no end to the domain within 255 bytes.
    #[error("the domain is longer than 255 bytes")]
    DomainTooLong,
    /// The domain is none.
    #[error("the domain is malformed: {0}")]
    Host(#[source] ParseHostError),
    /// There is no end to the user id within [`MAX_USER_ID`] bytes.
    #[error("the user id is longer than 511 bytes")]
    UserIdTooLong,
    /// The first byte is not 4: nothing can be answered.
    #[error("version {version} is not SOCKS4")]
    Version {
        /// It.
        version: u8,
    },
}

/// Reads a request. The longest one has [`MAX_REQUEST`] bytes.
///
/// The address `0.0.0.x` with another x than 0 says that a domain follows (SOCKS4a).
///
/// # Errors
/// [`RequestError`], see its variants.
pub fn parse_request(buf: &[u8]) -> Result<Option<(Request<'_>, usize)>, RequestError> {
    reader::read(buf, |reader| {
        let version = reader.byte()?;
        if version != 4 {
            return Err(Stop::Fault(RequestError::Version { version }));
        }
        let command = reader.byte()?;
        let port = reader.port()?;
        let ip: [u8; 4] = reader.array()?;
        let user_id = reader.until_nul(MAX_USER_ID, RequestError::UserIdTooLong)?;
        let host = match ip {
            [0, 0, 0, 1..=255] => {
                let name = reader.until_nul(MAX_DOMAIN, RequestError::DomainTooLong)?;
                address::domain(name).map_err(|why| Stop::Fault(RequestError::Host(why)))?
            }
            ip => Host::Ip(ip.into()),
        };
        let command = match command {
            1 => Command::Connect,
            2 => Command::Bind,
            code => return Err(Stop::Fault(RequestError::Command { code })),
        };
        Ok(Request {
            command,
            target: Upstream { host, port },
            user_id,
        })
    })
}

/// Why a request cannot be put into SOCKS4's form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PutRequestError {
    /// SOCKS4 knows no IPv6, and its `0.0.0.x` means a domain.
    #[error("SOCKS4 has no form for the address {ip}")]
    Address {
        /// The address.
        ip: IpAddr,
    },
    /// The domain is too long.
    #[error(transparent)]
    DomainTooLong(#[from] DomainTooLong),
    /// The user id is too long or holds a NUL.
    #[error("a user id of {length} bytes is too long, or holds a NUL")]
    UserId {
        /// How long it is.
        length: usize,
    },
}

/// Appends a request: SOCKS4a if the target is a domain.
///
/// # Errors
/// [`PutRequestError`]; nothing is appended then.
pub fn put_request(request: &Request<'_>, out: &mut Vec<u8>) -> Result<(), PutRequestError> {
    let (ip, name) = match &request.target.host {
        Host::Ip(IpAddr::V4(ip)) if !matches!(ip.octets(), [0, 0, 0, 1..=255]) => (ip.octets(), None),
        Host::Ip(ip) => return Err(PutRequestError::Address { ip: *ip }),
        Host::Domain(name) if name.len() > MAX_DOMAIN => {
            return Err(DomainTooLong { length: name.len() }.into());
        }
        Host::Domain(name) => ([0, 0, 0, 1], Some(name)),
    };
    let length = request.user_id.len();
    if length > MAX_USER_ID || request.user_id.contains(&0) {
        return Err(PutRequestError::UserId { length });
    }
    let command = match request.command {
        Command::Connect => 1,
        Command::Bind => 2,
    };
    out.extend_from_slice(&[4, command]);
    out.extend_from_slice(&request.target.port.to_be_bytes());
    out.extend_from_slice(&ip);
    out.extend_from_slice(request.user_id);
    out.push(0);
    if let Some(name) = name {
        out.extend_from_slice(name.as_bytes());
        out.push(0);
    }
    Ok(())
}

/// What a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyCode {
    /// 90: done.
    Granted,
    /// 91: refused, or failed in whatever way.
    Rejected,
    /// 92: the client runs no identd.
    NoIdentd,
    /// 93: identd and the request name different users.
    OtherUser,
}

impl ReplyCode {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Granted => 90,
            Self::Rejected => 91,
            Self::NoIdentd => 92,
            Self::OtherUser => 93,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        match code {
            90 => Some(Self::Granted),
            91 => Some(Self::Rejected),
            92 => Some(Self::NoIdentd),
            93 => Some(Self::OtherUser),
            _ => None,
        }
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Granted => "request granted",
            Self::Rejected => "request rejected or failed",
            Self::NoIdentd => "the client's identd cannot be reached",
            Self::OtherUser => "identd reports another user",
        })
    }
}

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What came of the request.
    pub code: ReplyCode,
    /// The address that BIND listens on. After CONNECT nobody looks at it.
    pub bound: SocketAddrV4,
}

impl Reply {
    /// A reply that tells no address.
    pub const fn new(code: ReplyCode) -> Self {
        Self {
            code,
            bound: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
        }
    }

    /// Appends the reply: port in bytes 3 and 4, address in 5 to 8 (SK-08).
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0, self.code.code()]);
        out.extend_from_slice(&self.bound.port().to_be_bytes());
        out.extend_from_slice(&self.bound.ip().octets());
    }
}

/// Why a reply grants nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// The server says no.
    #[error("the server answers: {0}")]
    Refused(ReplyCode),
    /// A code that SOCKS4 does not know.
    #[error("the server answers with the unknown code {code}")]
    UnknownCode {
        /// It.
        code: u8,
    },
    /// The first byte is neither 0 nor, as some servers send, 4.
    #[error("a reply of version {version} is not SOCKS4's")]
    Version {
        /// It.
        version: u8,
    },
}

/// Reads a reply and gives its address, if the request was granted.
///
/// # Errors
/// [`ReplyError`]; a refusal as soon as its code is there.
pub fn parse_reply(buf: &[u8]) -> Result<Option<(SocketAddrV4, usize)>, ReplyError> {
    reader::read(buf, |reader| {
        let version = reader.byte()?;
        if !matches!(version, 0 | 4) {
            return Err(Stop::Fault(ReplyError::Version { version }));
        }
        let code = reader.byte()?;
        match ReplyCode::of(code) {
            Some(ReplyCode::Granted) => {}
            Some(code) => return Err(Stop::Fault(ReplyError::Refused(code))),
            None => return Err(Stop::Fault(ReplyError::UnknownCode { code })),
        }
        let port = reader.port()?;
        Ok(SocketAddrV4::new(Ipv4Addr::from(reader.array::<4>()?), port))
    })
}

#[cfg(test)]
mod tests;
