//! Version 1: a line of text.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{self, FromStr};

use crate::{Addresses, FamiliesDiffer, Header, HeaderError, Part, Tlvs, Version};

/// The longest line with its CRLF, as the specification works it out.
const MAX_LINE: usize = 107;

const START: &[u8] = b"PROXY ";

pub(crate) fn parse(buf: &[u8]) -> Result<Option<(Header<'_>, usize)>, HeaderError> {
    if !buf.iter().zip(START).all(|(byte, expected)| byte == expected) {
        return Err(HeaderError::Missing { version: Version::V1 });
    }
    let Some(line) = first_line(buf)? else { return Ok(None) };
    let rest = line.get(START.len()..).ok_or(HeaderError::LineEnd)?;
    let header = Header {
        addresses: addresses(rest)?,
        tlvs: Tlvs::default(),
    };
    Ok(Some((header, line.len() + 2)))
}

/// The first line without its CRLF; `None` before that has come.
fn first_line(buf: &[u8]) -> Result<Option<&[u8]>, HeaderError> {
    let window = buf.get(..MAX_LINE).unwrap_or(buf);
    match window.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(len) => match window.get(len..) {
            Some([b'\r', b'\n', ..]) => Ok(window.get(..len)),
            Some([b'\r']) if window.len() < MAX_LINE => Ok(None),
            Some([b'\r']) => Err(HeaderError::LineTooLong),
            _ => Err(HeaderError::LineEnd),
        },
        None if window.len() < MAX_LINE => Ok(None),
        None => Err(HeaderError::LineTooLong),
    }
}

/// What follows `PROXY `.
fn addresses(rest: &[u8]) -> Result<Option<Addresses>, HeaderError> {
    // Of UNKNOWN nothing more has to be looked at, whatever it is.
    if rest == b"UNKNOWN" || rest.starts_with(b"UNKNOWN ") {
        return Ok(None);
    }
    let mut parts = rest.split(|&byte| byte == b' ');
    let mut next = |part| {
        let bytes = parts.next().ok_or(HeaderError::Part { part })?;
        str::from_utf8(bytes).map_err(|_| HeaderError::Part { part })
    };
    let family = match next(Part::Family)? {
        "TCP4" => address::<Ipv4Addr>,
        "TCP6" => address::<Ipv6Addr>,
        _ => return Err(HeaderError::Part { part: Part::Family }),
    };
    let client = family(next(Part::Client)?, Part::Client)?;
    let server = family(next(Part::Server)?, Part::Server)?;
    let client_port = port(next(Part::ClientPort)?, Part::ClientPort)?;
    let server_port = port(next(Part::ServerPort)?, Part::ServerPort)?;
    if next(Part::End).is_ok() {
        return Err(HeaderError::Part { part: Part::End });
    }
    let addresses = Addresses {
        client: SocketAddr::new(client, client_port),
        server: SocketAddr::new(server, server_port),
    };
    Ok(Some(addresses.to_canonical()))
}

fn address<T: FromStr + Into<IpAddr>>(text: &str, part: Part) -> Result<IpAddr, HeaderError> {
    text.parse::<T>()
        .map(Into::into)
        .map_err(|_| HeaderError::Part { part })
}

/// A decimal number without sign and leading zeros, which others might take for an octal one.
fn port(text: &str, part: Part) -> Result<u16, HeaderError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    match text.parse() {
        Ok(port) if plain => Ok(port),
        _ => Err(HeaderError::Part { part }),
    }
}

pub(crate) fn put(addresses: &Addresses, out: &mut Vec<u8>) -> Result<(), FamiliesDiffer> {
    let Addresses { client, server } = addresses;
    let family = match (client, server) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
        (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
        _ => return Err(FamiliesDiffer(*addresses)),
    };
    let ((from, from_port), (to, to_port)) = ((client.ip(), client.port()), (server.ip(), server.port()));
    write!(out, "PROXY {family} {from} {to} {from_port} {to_port}\r\n").expect("a Vec takes every write");
    Ok(())
}
