//! SOCKS4, SOCKS4a and SOCKS5 messages (RFC 1928, RFC 1929), both sides of each.
//!
//! Bytes in, verdicts and bytes out: no I/O, no clock. A `parse_*` function looks at the front of a buffer: `Ok(None)` asks
//! for more bytes, `Ok(Some((message, len)))` says how many bytes the message took. An error is final, whatever may follow.
//! Those that can be answered come when all of the message is there: an answer to a client that is still sending may be
//! lost in a reset. A `put_*` function appends a message.
//!
//! | step | server | client |
//! |---|---|---|
//! | which version | [`Version::of`] the first byte | |
//! | SOCKS4, SOCKS4a | [`v4::parse_request`], [`v4::Reply::put`] | [`v4::put_request`], [`v4::parse_reply`] |
//! | methods of SOCKS5 | [`v5::parse_greeting`], [`v5::put_choice`] | [`v5::put_greeting`], [`v5::parse_choice`] |
//! | user and password | [`v5::parse_credentials`], [`v5::put_status`] | [`v5::put_credentials`], [`v5::parse_status`] |
//! | request of SOCKS5 | [`v5::parse_request`], [`v5::Reply::put`] | [`v5::put_request`], [`v5::parse_reply`] |
//! | UDP | [`udp::parse_datagram`], [`udp::put_header`] | the same |
//!
//! ```
//! use sluice_socks::{Version, v5};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = b"\x05\x01\x00\x05\x01\x00\x03\x09o.example\x01\xbb";
//! assert_eq!(Version::of(client[0]), Some(Version::V5));
//!
//! let (greeting, used) = v5::parse_greeting(client)?.expect("complete");
//! assert!(greeting.offers(v5::Method::NoAuth));
//! let mut answer = Vec::new();
//! v5::put_choice(Some(v5::Method::NoAuth), &mut answer);
//!
//! let (request, len) = v5::parse_request(&client[used..])?.expect("complete");
//! assert_eq!((request.command, request.target.to_string()), (v5::Command::Connect, "o.example:443".to_owned()));
//! v5::Reply::succeeded("192.0.2.1:40000".parse()?).put(&mut answer);
//! assert_eq!(answer, b"\x05\x00\x05\x00\x00\x01\xc0\x00\x02\x01\x9c\x40");
//! assert_eq!(used + len, client.len()); // what follows is the tunnel's
//! # Ok(())
//! # }
//! ```
//!
//! Targets are in the one form that [`sluice_addr`] gives them: an IPv4-mapped IPv6 address is the IPv4 address that it
//! means, and an address in the place of a domain is that address. Whether a target may be reached is not decided here.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::indexing_slicing))]

mod address;
#[cfg(any(test, feature = "cases"))]
#[doc(hidden)]
pub mod properties;
mod reader;
pub mod udp;
pub mod v4;
pub mod v5;

pub use address::DomainTooLong;

/// What a client speaks, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// SOCKS4 or SOCKS4a.
    V4,
    /// SOCKS5.
    V5,
}

impl Version {
    /// The version that begins with this byte; `None` if that is not SOCKS.
    pub const fn of(first: u8) -> Option<Self> {
        match first {
            4 => Some(Self::V4),
            5 => Some(Self::V5),
            _ => None,
        }
    }
}
