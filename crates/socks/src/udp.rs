//! Datagrams of UDP ASSOCIATE (RFC 1928 §7).

use sluice_addr::{ParseHostError, Upstream};
use thiserror::Error;

use crate::address::{self, AddressFault, DomainTooLong, MAX_ADDRESS};
use crate::reader::{Reader, Stop};

/// The longest header.
pub const MAX_HEADER: usize = 3 + MAX_ADDRESS;

/// Why a datagram is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DatagramError {
    /// An address of a type that RFC 1928 does not know.
    #[error("SOCKS5 has no address type {code}")]
    AddressType {
        /// Its number.
        code: u8,
    },
    /// A part of a datagram. RFC 1928 lets a relay drop these.
    #[error("fragment {number} of a datagram; these are not put together")]
    Fragment {
        /// The byte FRAG, never 0.
        number: u8,
    },
    /// The domain is none.
    #[error("the domain is malformed: {0}")]
    Host(#[source] ParseHostError),
    /// The datagram ends before its header does (SK-03).
    #[error("a datagram of {length} bytes is shorter than its header")]
    Short {
        /// How long it is.
        length: usize,
    },
}

impl From<AddressFault> for DatagramError {
    fn from(fault: AddressFault) -> Self {
        match fault {
            AddressFault::Type(code) => Self::AddressType { code },
            AddressFault::Host(why) => Self::Host(why),
        }
    }
}

/// Reads the header of a datagram: where it goes to, or comes from, and its payload, which may be empty.
///
/// `datagram` is what was received and no byte more: a buffer's rest would show an earlier datagram's bytes.
///
/// # Errors
/// [`DatagramError`], see its variants; the datagram is dropped.
pub fn parse_datagram(datagram: &[u8]) -> Result<(Upstream, &[u8]), DatagramError> {
    let mut reader = Reader::new(datagram);
    match header(&mut reader) {
        Ok(upstream) => Ok((upstream, reader.rest())),
        Err(Stop::More) => Err(DatagramError::Short { length: datagram.len() }),
        Err(Stop::Fault(why)) => Err(why),
    }
}

fn header(reader: &mut Reader<'_>) -> Result<Upstream, Stop<DatagramError>> {
    let [_, _, fragment] = reader.array()?;
    if fragment != 0 {
        return Err(Stop::Fault(DatagramError::Fragment { number: fragment }));
    }
    address::take(reader).map_err(|stop| stop.map(DatagramError::from))
}

/// Appends a header; the payload goes behind it. Of a datagram that came from a socket address,
/// [`Upstream::from`] makes what is wanted here.
///
/// # Errors
/// [`DomainTooLong`]; nothing is appended then.
pub fn put_header(upstream: &Upstream, out: &mut Vec<u8>) -> Result<(), DomainTooLong> {
    let start = out.len();
    out.extend_from_slice(&[0; 3]);
    address::put(upstream, out).inspect_err(|_| out.truncate(start))
}

#[cfg(test)]
mod tests;
