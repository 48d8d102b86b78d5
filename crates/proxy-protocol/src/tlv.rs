//! What version 2 tells besides the addresses: types, lengths, values.

use std::str;

use crate::HeaderError;
use crate::crc32c::crc32c;

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const NOOP: u8 = 0x04;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const NETNS: u8 = 0x30;

const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const SSL_SIG_ALG: u8 = 0x24;
const SSL_KEY_ALG: u8 = 0x25;

/// The longest unique id, in bytes.
const MAX_UNIQUE_ID: usize = 128;

/// The TLVs of a header, to be iterated over. They are whole, and the checksum is right if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tlvs<'b> {
    rest: &'b [u8],
}

/// One of them. What its sender says of TLS or of hosts is as true as its sender is honest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tlv<'b> {
    /// The application protocol that was negotiated (RFC 7301).
    Alpn(&'b [u8]),
    /// The host name that the client asked for, as by SNI.
    Authority(&'b str),
    /// A checksum, which has been checked.
    Crc32c(u32),
    /// The name of the sender's network namespace.
    NetNs(&'b str),
    /// Padding.
    Noop,
    /// An unknown type, or a known one whose value is not what the specification says.
    Other {
        /// The type.
        kind: u8,
        /// The value.
        value: &'b [u8],
    },
    /// How the client spoke TLS.
    Ssl(Ssl<'b>),
    /// An identifier of the connection, at most 128 bytes.
    UniqueId(&'b [u8]),
}

impl<'b> Tlv<'b> {
    fn of(kind: u8, value: &'b [u8]) -> Self {
        let known = match kind {
            ALPN => Some(Self::Alpn(value)),
            AUTHORITY => str::from_utf8(value).ok().map(Self::Authority),
            CRC32C => value.try_into().ok().map(|crc| Self::Crc32c(u32::from_be_bytes(crc))),
            NETNS => str::from_utf8(value).ok().map(Self::NetNs),
            NOOP => Some(Self::Noop),
            SSL => Ssl::of(value).map(Self::Ssl),
            UNIQUE_ID if value.len() <= MAX_UNIQUE_ID => Some(Self::UniqueId(value)),
            _ => None,
        };
        known.unwrap_or(Self::Other { kind, value })
    }
}

impl<'b> Tlvs<'b> {
    /// Those in `rest`, which comes behind `before` in the header.
    pub(crate) fn checked(rest: &'b [u8], before: &[&[u8]]) -> Result<Self, HeaderError> {
        let tlvs = Self::whole(rest).ok_or(HeaderError::Tlv)?;
        let mut checksums = Raw { rest }.filter(|&(kind, _)| kind == CRC32C);
        let Some((_, value)) = checksums.next() else {
            return Ok(tlvs);
        };
        let expected: [u8; 4] = value.try_into().map_err(|_| HeaderError::ChecksumForm)?;
        if checksums.next().is_some() {
            return Err(HeaderError::ChecksumForm);
        }
        // It is made with zeros in its own place.
        let parts = Raw { rest }.flat_map(|(kind, value)| {
            let length = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
            let value: &[u8] = if kind == CRC32C { &[0; 4] } else { value };
            [kind].into_iter().chain(length).chain(value.iter().copied())
        });
        let before = before.iter().copied().flatten().copied();
        if crc32c(before.chain(parts)) == u32::from_be_bytes(expected) {
            Ok(tlvs)
        } else {
            Err(HeaderError::Checksum)
        }
    }

    /// Those in `rest`, if the last one ends where that does.
    fn whole(rest: &'b [u8]) -> Option<Self> {
        let mut raw = Raw { rest };
        raw.by_ref().for_each(drop);
        raw.rest.is_empty().then_some(Self { rest })
    }
}

impl<'b> Iterator for Tlvs<'b> {
    type Item = Tlv<'b>;

    fn next(&mut self) -> Option<Tlv<'b>> {
        let mut raw = Raw { rest: self.rest };
        let (kind, value) = raw.next()?;
        self.rest = raw.rest;
        Some(Tlv::of(kind, value))
    }
}

/// Types and values; ends before the first that is not whole, and leaves that in `rest`.
#[derive(Clone, Copy, Debug)]
struct Raw<'b> {
    rest: &'b [u8],
}

impl<'b> Iterator for Raw<'b> {
    type Item = (u8, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let ([kind, high, low], rest) = self.rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes([*high, *low]).into())?;
        self.rest = rest;
        Some((*kind, value))
    }
}

/// How the client spoke TLS, as the sender tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ssl<'b> {
    client: u8,
    verify: u32,
    parts: &'b [u8],
}

impl<'b> Ssl<'b> {
    fn of(value: &'b [u8]) -> Option<Self> {
        let (client, rest) = value.split_first()?;
        let (verify, parts) = rest.split_first_chunk()?;
        Tlvs::whole(parts)?;
        Some(Self {
            client: *client,
            verify: u32::from_be_bytes(*verify),
            parts,
        })
    }

    /// Whether the client spoke TLS at all.
    pub const fn is_tls(&self) -> bool {
        self.client & 0x01 != 0
    }

    /// Whether the client sent a certificate on this connection.
    pub const fn certificate_on_connection(&self) -> bool {
        self.client & 0x02 != 0
    }

    /// Whether the client sent a certificate in this TLS session, maybe on an earlier connection.
    pub const fn certificate_in_session(&self) -> bool {
        self.client & 0x04 != 0
    }

    /// Whether the client sent a certificate that was verified.
    pub const fn is_verified(&self) -> bool {
        (self.certificate_in_session() || self.certificate_on_connection()) && self.verify == 0
    }

    /// The version, such as `TLSv1.3`.
    pub fn version(&self) -> Option<&'b str> {
        self.text(SSL_VERSION)
    }

    /// The common name of the client's certificate.
    pub fn common_name(&self) -> Option<&'b str> {
        self.text(SSL_CN)
    }

    /// The cipher, such as `ECDHE-RSA-AES128-GCM-SHA256`.
    pub fn cipher(&self) -> Option<&'b str> {
        self.text(SSL_CIPHER)
    }

    /// The algorithm that the server's certificate is signed with, such as `SHA256`.
    pub fn signature_algorithm(&self) -> Option<&'b str> {
        self.text(SSL_SIG_ALG)
    }

    /// The algorithm of the key of the server's certificate, such as `RSA2048`.
    pub fn key_algorithm(&self) -> Option<&'b str> {
        self.text(SSL_KEY_ALG)
    }

    fn text(&self, wanted: u8) -> Option<&'b str> {
        let (_, value) = Raw { rest: self.parts }.find(|&(kind, _)| kind == wanted)?;
        str::from_utf8(value).ok()
    }
}
