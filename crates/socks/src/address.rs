//! Addresses of SOCKS5: of requests, replies and datagrams (RFC 1928 §5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str;

use sluice_addr::{Host, ParseHostError, Upstream};
use thiserror::Error;

use crate::reader::{Reader, Stop};

const IPV4: u8 = 1;
const DOMAIN: u8 = 3;
const IPV6: u8 = 4;

/// The longest address with its port: type, length, 255 bytes of a domain, port.
pub(crate) const MAX_ADDRESS: usize = 1 + 1 + 255 + 2;

/// A domain takes more than the 255 bytes that its length can say; no name of [`Host::parse`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a domain of {length} bytes does not fit into a SOCKS message")]
pub struct DomainTooLong {
    /// How long it is.
    pub length: usize,
}

/// Why an address cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressFault {
    /// A type that RFC 1928 does not know.
    Type(u8),
    /// The domain is none.
    Host(ParseHostError),
}

/// Takes type, address and port.
pub(crate) fn take(reader: &mut Reader<'_>) -> Result<Upstream, Stop<AddressFault>> {
    let host = match reader.byte()? {
        IPV4 => Ok(Host::from(IpAddr::from(reader.array::<4>()?))),
        IPV6 => Ok(Host::from(IpAddr::from(reader.array::<16>()?))),
        DOMAIN => domain(reader.counted()?),
        code => return Err(Stop::Fault(AddressFault::Type(code))),
    };
    // A bad domain is told when all of the message is there; see the crate's documentation.
    let port = reader.port()?;
    let host = host.map_err(|why| Stop::Fault(AddressFault::Host(why)))?;
    Ok(Upstream { host, port })
}

/// The host that a domain field means.
pub(crate) fn domain(bytes: &[u8]) -> Result<Host, ParseHostError> {
    Host::parse(str::from_utf8(bytes).map_err(|_| ParseHostError::Invalid)?)
}

/// Appends type, address and port.
pub(crate) fn put(upstream: &Upstream, out: &mut Vec<u8>) -> Result<(), DomainTooLong> {
    match &upstream.host {
        Host::Ip(ip) => put_ip(*ip, out),
        Host::Domain(name) => {
            let length = u8::try_from(name.len()).map_err(|_| DomainTooLong { length: name.len() })?;
            out.extend_from_slice(&[DOMAIN, length]);
            out.extend_from_slice(name.as_bytes());
        }
    }
    out.extend_from_slice(&upstream.port.to_be_bytes());
    Ok(())
}

/// Appends type and address; an IPv4-mapped one as the IPv4 address that it means.
pub(crate) fn put_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => put_octets(IPV4, &Ipv4Addr::octets(&ip), out),
        IpAddr::V6(ip) => put_octets(IPV6, &Ipv6Addr::octets(&ip), out),
    }
}

fn put_octets(kind: u8, octets: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(octets);
}
