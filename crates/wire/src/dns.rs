//! DNS messages (RFC 1035) between proxyd, resolverd and any other DNS server.
//!
//! On a stream each message is preceded by its length in two bytes (RFC 7766 §8): [`take_frame`], [`put_frame`].
//! [`put_query`] and [`Reply`] are the asking side, [`Request`] and [`put_reply`] the answering one. On resolverd's own
//! socket the query names the resolver to use in an EDNS option ([`RESOLVER_OPTION`]); failures carry an extended DNS
//! error (RFC 8914). [`ResolveError`] holds the one table that ties a failure to its response code, extended error,
//! log fields and metric.

mod error;
mod frame;
mod name;
#[cfg(any(test, feature = "cases"))]
#[doc(hidden)]
pub mod properties;
mod query;
mod reply;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use hickory_proto::rr::RecordType;

pub use error::{ExtendedCode, ResolveError, Row};
pub use frame::{FrameError, put_frame, take_frame};
pub use name::{check_domain, domain_of, name_of};
pub use query::{Query, Rejected, Request, put_query};
pub use reply::{Answer, Origin, Outcome, ParseError, Reply, put_reply};

/// The EDNS option (local use, RFC 6891 §9) that carries a resolver's name in UTF-8 to resolverd's own socket.
pub const RESOLVER_OPTION: u16 = 65001;

/// The EDNS option of extended DNS errors (RFC 8914 §2).
pub(crate) const EXTENDED_ERROR_OPTION: u16 = 15;

/// The UDP payload that we announce: it passes every path without fragments.
pub const UDP_PAYLOAD: u16 = 1232;

/// The longest time an answer may be kept, 7 days, as RFC 8767 §4 recommends; a larger TTL means this one.
pub const MAX_TTL: u32 = 604_800;

/// Which kind of address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4, an `A` query.
    V4,
    /// IPv6, an `AAAA` query.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The name of the record type, as in logs and metrics.
    pub const fn record_name(self) -> &'static str {
        match self {
            Self::V4 => "A",
            Self::V6 => "AAAA",
        }
    }

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The DNS record type.
    pub const fn record_type(self) -> RecordType {
        match self {
            Self::V4 => RecordType::A,
            Self::V6 => RecordType::AAAA,
        }
    }

    /// The family that a record type holds, if it holds addresses.
    pub const fn of_record_type(record_type: RecordType) -> Option<Self> {
        match record_type {
            RecordType::A => Some(Self::V4),
            RecordType::AAAA => Some(Self::V6),
            _ => None,
        }
    }
}
