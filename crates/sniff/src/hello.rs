//! ClientHello messages (RFC 8446 §4.1.2), in one TLS record or in many.

use std::borrow::Cow;

use thiserror::Error;

/// The handshake type.
pub(crate) const CLIENT_HELLO: u8 = 1;
const HANDSHAKE: u8 = 0x16;
/// The longest record (RFC 8446 §5.1).
const RECORD_MAX: usize = 1 << 14;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// Why bytes are no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HelloError {
    /// A record without content, which would cost much and say nothing.
    #[error("a handshake record is empty")]
    EmptyRecord,
    /// The message contradicts itself.
    #[error("the message is not a well formed ClientHello")]
    Malformed,
    /// Something other than a handshake record.
    #[error("not a TLS handshake record")]
    Record,
    /// The message is longer than is allowed.
    #[error("the ClientHello is longer than {limit} bytes")]
    TooLong {
        /// The most bytes of the message.
        limit: usize,
    },
}

/// The beginning of a handshake, put together from records.
pub(crate) struct Handshake<'a>(Cow<'a, [u8]>);

impl<'a> Handshake<'a> {
    /// Gathers the first `want` bytes of the handshake, or as many as are there.
    pub(crate) fn gather(mut bytes: &'a [u8], want: usize) -> Result<Self, HelloError> {
        let mut message: Cow<'a, [u8]> = Cow::Borrowed(&[]);
        while message.len() < want {
            match *bytes {
                [] => break,
                [kind, ..] if kind != HANDSHAKE => return Err(HelloError::Record),
                // TLCP has version 1.1 in its records.
                [_, major, ..] if major != 3 && major != 1 => return Err(HelloError::Record),
                [_, 1, minor, ..] if minor != 1 => return Err(HelloError::Record),
                // Of version 3 any minor one: servers ignore it (RFC 8446 §5.1).
                _ => {}
            }
            let Some((&[_, _, _, high, low], rest)) = bytes.split_first_chunk::<5>() else {
                break;
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length == 0 {
                return Err(HelloError::EmptyRecord);
            }
            if length > RECORD_MAX {
                return Err(HelloError::Record);
            }
            let (fragment, after) = rest.split_at(length.min(rest.len()));
            let fragment = fragment.get(..want - message.len()).unwrap_or(fragment);
            if message.is_empty() {
                message = Cow::Borrowed(fragment);
            } else {
                message.to_mut().extend_from_slice(fragment);
            }
            bytes = after;
        }
        Ok(Self(message))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a client's first message says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The version field: since TLS 1.2 it stays as it is, and [`Self::versions`] counts.
    pub legacy_version: (u8, u8),
    /// The name that is asked for (RFC 6066 §3), as it was sent.
    pub server_name: Option<Box<str>>,
    /// The protocols that are offered, best first (RFC 7301 §3.1).
    pub alpn: Vec<Box<[u8]>>,
    /// The versions that are offered, best first (RFC 8446 §4.2.1).
    pub versions: Vec<u16>,
}

impl ClientHello {
    /// Reads the ClientHello at the front of `bytes`, of at most `limit` bytes; `Ok(None)` asks for more of them, and for
    /// the earlier ones again. Records need no more than `5 * limit` bytes around it.
    ///
    /// # Errors
    /// [`HelloError`] if these can never become one.
    pub fn read(bytes: &[u8], limit: usize) -> Result<Option<Self>, HelloError> {
        let head = Handshake::gather(bytes, 4)?;
        let &[kind, a, b, c] = head.bytes() else {
            return match head.bytes().first() {
                Some(&kind) if kind != CLIENT_HELLO => Err(HelloError::Malformed),
                _ => Ok(None),
            };
        };
        if kind != CLIENT_HELLO {
            return Err(HelloError::Malformed);
        }
        let length = u32::from_be_bytes([0, a, b, c]);
        let length = usize::try_from(length).map_err(|_| HelloError::TooLong { limit })?;
        if length.saturating_add(4) > limit {
            return Err(HelloError::TooLong { limit });
        }
        let message = Handshake::gather(bytes, 4 + length)?;
        match message.bytes().get(4..) {
            Some(body) if body.len() == length => Self::parse(body).map(Some).ok_or(HelloError::Malformed),
            _ => Ok(None),
        }
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let [major, minor] = reader.array::<2>()?;
        reader.array::<32>()?;
        let session = reader.block8()?;
        let ciphers = reader.block16()?;
        let compression = reader.block8()?;
        if session.len() > 32 || ciphers.len() < 2 || ciphers.len() % 2 != 0 || compression.is_empty() {
            return None;
        }
        let mut hello = Self {
            legacy_version: (major, minor),
            ..Self::default()
        };
        // Before TLS 1.2 there may be none at all.
        if reader.0.is_empty() {
            return Some(hello);
        }
        let mut extensions = Reader(reader.block16()?);
        if !reader.0.is_empty() {
            return None;
        }
        let mut seen = 0_u64;
        while !extensions.0.is_empty() {
            let kind = u16::from_be_bytes(extensions.array()?);
            let content = Reader(extensions.block16()?);
            let bit = 1_u64.checked_shl(kind.into()).unwrap_or(0);
            if seen & bit != 0 {
                return None;
            }
            seen |= bit;
            match kind {
                SERVER_NAME => hello.server_name = server_name(content)?,
                ALPN => hello.alpn = alpn(content)?,
                SUPPORTED_VERSIONS => hello.versions = versions(content)?,
                _ => {}
            }
        }
        Some(hello)
    }
}

/// The host name of a list of names.
fn server_name(mut content: Reader<'_>) -> Option<Option<Box<str>>> {
    let mut names = Reader(content.block16()?);
    let mut found = None;
    while !names.0.is_empty() {
        let [kind] = names.array()?;
        let name = names.block16()?;
        if kind == 0 && found.is_none() {
            let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
            found = Some(name.into());
        }
    }
    content.0.is_empty().then_some(found)
}

fn alpn(mut content: Reader<'_>) -> Option<Vec<Box<[u8]>>> {
    let mut names = Reader(content.block16()?);
    let mut all = Vec::new();
    while !names.0.is_empty() {
        let name = names.block8()?;
        if name.is_empty() {
            return None;
        }
        all.push(name.into());
    }
    (content.0.is_empty() && !all.is_empty()).then_some(all)
}

fn versions(mut content: Reader<'_>) -> Option<Vec<u16>> {
    let list = content.block8()?;
    let (pairs, odd) = list.as_chunks::<2>();
    let good = content.0.is_empty() && odd.is_empty() && !pairs.is_empty();
    good.then(|| pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
}

/// Reads the vectors of TLS (RFC 8446 §3.4).
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn block8(&mut self) -> Option<&'a [u8]> {
        let [length] = self.array()?;
        self.take(usize::from(length))
    }

    fn block16(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(self.array()?);
        self.take(usize::from(length))
    }
}
