//! Version 2: binary.

use std::net::{IpAddr, SocketAddr};

use crate::tlv::Tlvs;
use crate::{Addresses, FamiliesDiffer, Header, HeaderError, Version};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length.
const HEAD: usize = 16;

/// What may follow the head. The two bytes of the length could say 65535, kept for each connection of a peer that nobody
/// knows yet; this is room for every TLV that is in use, a client certificate among them.
const MAX_LENGTH: usize = 4096;

pub(crate) const MAX_HEADER: usize = HEAD + MAX_LENGTH;

/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

const LENGTH_IPV4: usize = 12;
const LENGTH_IPV6: usize = 36;
const LENGTH_UNIX: usize = 216;

pub(crate) fn parse(buf: &[u8]) -> Result<Option<(Header<'_>, usize)>, HeaderError> {
    if !buf.iter().zip(&SIGNATURE).all(|(byte, expected)| byte == expected) {
        return Err(HeaderError::Missing { version: Version::V2 });
    }
    let Some((head, rest)) = buf.split_first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let form = Form::of(command, family)?;
    if length > MAX_LENGTH {
        return Err(HeaderError::TooLong { length });
    }
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    Ok(Some((header(form, head, body)?, HEAD + length)))
}

/// What a header is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The sender's own connection.
    Local,
    /// Addresses of this many bytes, which are no TCP over IP.
    Other(usize),
    Tcp4,
    Tcp6,
}

impl Form {
    fn of(command: u8, family: u8) -> Result<Self, HeaderError> {
        match (command >> 4, command & 0xf) {
            // The family is ignored.
            (2, 0) => return Ok(Self::Local),
            (2, 1) => {}
            (2, code) => return Err(HeaderError::Command { code }),
            (number, _) => return Err(HeaderError::Version { number }),
        }
        match (family >> 4, family & 0xf) {
            (4.., _) => Err(HeaderError::Family { code: family >> 4 }),
            (_, code @ 3..) => Err(HeaderError::Transport { code }),
            (1, 1) => Ok(Self::Tcp4),
            (2, 1) => Ok(Self::Tcp6),
            (1, _) => Ok(Self::Other(LENGTH_IPV4)),
            (2, _) => Ok(Self::Other(LENGTH_IPV6)),
            (3, _) => Ok(Self::Other(LENGTH_UNIX)),
            (0, _) => Ok(Self::Other(0)),
        }
    }

    /// How many bytes the addresses take.
    const fn length(self) -> usize {
        match self {
            Self::Local => 0,
            Self::Other(length) => length,
            Self::Tcp4 => LENGTH_IPV4,
            Self::Tcp6 => LENGTH_IPV6,
        }
    }
}

fn header<'b>(form: Form, head: &[u8; HEAD], body: &'b [u8]) -> Result<Header<'b>, HeaderError> {
    // All that a LOCAL header holds is discarded, the TLVs too, since their place hangs on the family.
    if form == Form::Local {
        return Ok(Header {
            addresses: None,
            tlvs: Tlvs::default(),
        });
    }
    let (block, tlvs) = body
        .split_at_checked(form.length())
        .ok_or(HeaderError::AddressesShort { length: body.len() })?;
    let addresses = match form {
        Form::Tcp4 => ends::<4>(block),
        Form::Tcp6 => ends::<16>(block),
        Form::Local | Form::Other(_) => None,
    };
    Ok(Header {
        addresses: addresses.map(Addresses::to_canonical),
        tlvs: Tlvs::checked(tlvs, &[head, block])?,
    })
}

/// Two addresses of `N` bytes, two ports.
fn ends<const N: usize>(block: &[u8]) -> Option<Addresses>
where
    [u8; N]: Into<IpAddr>,
{
    let (client, rest) = block.split_first_chunk::<N>()?;
    let (server, rest) = rest.split_first_chunk::<N>()?;
    let (client_port, rest) = rest.split_first_chunk()?;
    let server_port = rest.first_chunk()?;
    let end = |ip: [u8; N], port: &[u8; 2]| SocketAddr::new(ip.into(), u16::from_be_bytes(*port));
    Some(Addresses {
        client: end(*client, client_port),
        server: end(*server, server_port),
    })
}

pub(crate) fn put(addresses: &Addresses, out: &mut Vec<u8>) -> Result<(), FamiliesDiffer> {
    match (addresses.client.ip(), addresses.server.ip()) {
        (IpAddr::V4(client), IpAddr::V4(server)) => {
            put_head(TCP4, 12, out);
            out.extend_from_slice(&client.octets());
            out.extend_from_slice(&server.octets());
        }
        (IpAddr::V6(client), IpAddr::V6(server)) => {
            put_head(TCP6, 36, out);
            out.extend_from_slice(&client.octets());
            out.extend_from_slice(&server.octets());
        }
        _ => return Err(FamiliesDiffer(*addresses)),
    }
    out.extend_from_slice(&addresses.client.port().to_be_bytes());
    out.extend_from_slice(&addresses.server.port().to_be_bytes());
    Ok(())
}

fn put_head(family: u8, length: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&SIGNATURE);
    out.extend_from_slice(&[PROXY, family, 0, length]);
}
