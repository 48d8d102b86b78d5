//! The reading side.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Dissector, EXPORTED_PDU, Endpoints, TCP_INFO_VERSION, TcpInfo, tag};

/// Why bytes are no exported PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    /// A header ends in the middle of an option, or without its end.
    #[error("the header is cut off")]
    Cut,
    /// An option has a length that its kind cannot have.
    #[error("option {tag} cannot be {length} bytes long")]
    Length {
        /// The option.
        tag: u16,
        /// Its length.
        length: usize,
    },
    /// Nothing says who is to dissect the bytes.
    #[error("no dissector is named")]
    NoDissector,
}

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pdu<'a> {
    /// The client's connection, if there are two headers and the outer one names it.
    pub outer: Option<Endpoints>,
    /// The upstream's connection, if it is named.
    pub inner: Option<Endpoints>,
    /// Who is to make sense of the bytes.
    pub dissector: Dissector,
    /// Where in the stream they stand.
    pub tcp: Option<TcpInfo>,
    /// The bytes.
    pub payload: &'a [u8],
}

/// The options of one header that are of use.
#[derive(Default)]
struct Header<'a> {
    name: Option<&'a str>,
    table: Option<&'a str>,
    table_port: Option<u32>,
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    src_port: Option<u16>,
    dst_port: Option<u16>,
    tcp: Option<TcpInfo>,
}

impl<'a> Pdu<'a> {
    /// Reads one datagram: two headers as [`DumpWriter`](super::DumpWriter) makes them, or a single one of others.
    ///
    /// Options that are not known are skipped.
    ///
    /// # Errors
    /// [`DumpError`] if the bytes are something else.
    pub fn take(mut datagram: &'a [u8]) -> Result<Self, DumpError> {
        let mut outer = None;
        let mut header = Header::take(&mut datagram)?;
        if header.name == Some(EXPORTED_PDU) {
            outer = header.endpoints();
            header = Header::take(&mut datagram)?;
        }
        Ok(Self {
            outer,
            inner: header.endpoints(),
            dissector: header.dissector().ok_or(DumpError::NoDissector)?,
            tcp: header.tcp,
            payload: datagram,
        })
    }
}

impl<'a> Header<'a> {
    fn take(input: &mut &'a [u8]) -> Result<Self, DumpError> {
        let mut header = Self::default();
        loop {
            let tag = number(input)?;
            let length = usize::from(number(input)?);
            let (value, rest) = input.split_at_checked(length).ok_or(DumpError::Cut)?;
            *input = rest;
            if tag == tag::END_OF_OPT {
                return Ok(header);
            }
            header.set(tag, value).ok_or(DumpError::Length { tag, length })?;
        }
    }

    /// `None` if the value does not fit its tag.
    fn set(&mut self, tag: u16, value: &'a [u8]) -> Option<()> {
        match tag {
            tag::DISSECTOR_NAME => self.name = text(value),
            tag::DISSECTOR_TABLE_NAME => self.table = text(value),
            tag::DISSECTOR_TABLE_NAME_NUM_VAL => self.table_port = Some(u32_of(value)?),
            tag::IPV4_SRC => self.src = Some(<[u8; 4]>::try_from(value).ok()?.into()),
            tag::IPV4_DST => self.dst = Some(<[u8; 4]>::try_from(value).ok()?.into()),
            tag::IPV6_SRC => self.src = Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
            tag::IPV6_DST => self.dst = Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
            tag::SRC_PORT => self.src_port = u16::try_from(u32_of(value)?).ok(),
            tag::DST_PORT => self.dst_port = u16::try_from(u32_of(value)?).ok(),
            tag::TCP_INFO_DATA => self.tcp = tcp_info(value)?,
            _ => {}
        }
        Some(())
    }

    fn endpoints(&self) -> Option<Endpoints> {
        Some(Endpoints {
            src: SocketAddr::new(self.src?, self.src_port?),
            dst: SocketAddr::new(self.dst?, self.dst_port?),
        })
    }

    fn dissector(&self) -> Option<Dissector> {
        if let Some(name) = self.name {
            return Some(Dissector::Name(name.to_owned()));
        }
        let port = u16::try_from(self.table_port?).ok()?;
        match self.table? {
            "tcp.port" => Some(Dissector::TcpPort(port)),
            "tls.port" => Some(Dissector::TlsPort(port)),
            _ => None,
        }
    }
}

fn number(input: &mut &[u8]) -> Result<u16, DumpError> {
    let (front, rest) = input.split_first_chunk().ok_or(DumpError::Cut)?;
    *input = rest;
    Ok(u16::from_be_bytes(*front))
}

fn u32_of(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// A name without the zeros that others pad it with; none if it is no text.
fn text(value: &[u8]) -> Option<&str> {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    std::str::from_utf8(value.get(..end)?)
        .ok()
        .filter(|name| !name.is_empty())
}

/// The counters; those of a version to come are skipped, `None` stands for a wrong length.
fn tcp_info(value: &[u8]) -> Option<Option<TcpInfo>> {
    let (version, mut rest) = value.split_first_chunk()?;
    if u16::from_be_bytes(*version) != TCP_INFO_VERSION {
        return Some(None);
    }
    let mut numbers = [0; 3];
    for number in &mut numbers {
        let (front, after) = rest.split_first_chunk()?;
        *number = u32::from_be_bytes(*front);
        rest = after;
    }
    let [seq, next_seq, ack] = numbers;
    Some(Some(TcpInfo { seq, next_seq, ack }))
}
