//! TLS and SSL, by the first bytes of a ClientHello.

use crate::hello::{CLIENT_HELLO, ClientHello, Handshake, HelloError};
use crate::line::{either, take};
use crate::{Protocol, Verdict};

/// The longest hello of a client that knows nothing newer than TLS 1.1.
const LEGACY: usize = 2048;

/// The most bytes that are needed: each byte of such a hello in a record of its own.
pub(crate) const MOST: usize = 6 * LEGACY;

/// A ClientHello of any version.
pub(crate) fn client(bytes: &[u8]) -> Verdict {
    match bytes.first() {
        None => Verdict::More,
        Some(0x16) => modern(bytes),
        Some(first) if first & 0x80 != 0 => either(ssl2(bytes)),
        Some(_) => Verdict::Not,
    }
}

/// In records (RFC 8446 §5.1): the version that the hello itself names counts.
///
/// What no client should send but servers take, an empty record or a hello of great length, is TLS all the same: else
/// it would be a way around whoever looks into TLS.
fn modern(bytes: &[u8]) -> Verdict {
    // What begins as another message is no hello, whatever records follow.
    if Handshake::gather(bytes, 1).is_ok_and(|first| first.bytes().first().is_some_and(|&kind| kind != CLIENT_HELLO)) {
        return Verdict::Not;
    }
    match Handshake::gather(bytes, 6) {
        Err(HelloError::EmptyRecord) => Verdict::Is(Protocol::TlsModern),
        Err(HelloError::Record | HelloError::TooLong { .. } | HelloError::Malformed) => Verdict::Not,
        Ok(handshake) => match *handshake.bytes() {
            [_, _, _, _, major, minor, ..] => match (major, minor) {
                (1, 1) => Verdict::Is(Protocol::TlsTlcp),
                (3, 0) => legacy(bytes, Protocol::SslLegacy),
                (3, 1 | 2) => legacy(bytes, Protocol::TlsLegacy),
                (3, _) => Verdict::Is(Protocol::TlsModern),
                _ => Verdict::Not,
            },
            _ => Verdict::More,
        },
    }
}

/// `protocol`, unless the list of versions, which counts for servers that know it (RFC 8446 §4.2.1), has newer ones.
fn legacy(bytes: &[u8], protocol: Protocol) -> Verdict {
    let is_modern = |version: &u16| matches!(*version, 0x0303..=0x03ff);
    match ClientHello::read(bytes, LEGACY) {
        Ok(None) => Verdict::More,
        Ok(Some(hello)) if hello.versions.iter().any(is_modern) => Verdict::Is(Protocol::TlsModern),
        Err(HelloError::EmptyRecord | HelloError::TooLong { .. }) => Verdict::Is(Protocol::TlsModern),
        Ok(Some(_)) | Err(HelloError::Malformed | HelloError::Record) => Verdict::Is(protocol),
    }
}

/// The hello of SSL 2, which later versions were asked for in too (RFC 5246 appendix E.2).
fn ssl2(bytes: &[u8]) -> Result<Verdict, Verdict> {
    let (length, rest) = take::<2>(bytes)?;
    let length = u16::from_be_bytes(length) & 0x7fff;
    let ([kind], rest) = take::<1>(rest)?;
    if kind != CLIENT_HELLO || length < 9 {
        return Ok(Verdict::Not);
    }
    let (version, rest) = take::<2>(rest)?;
    if version != [0, 2] && !matches!(version, [3, 0..=3]) {
        return Ok(Verdict::Not);
    }
    let (ciphers, rest) = take::<2>(rest)?;
    let (session, rest) = take::<2>(rest)?;
    let (challenge, _) = take::<2>(rest)?;
    let [ciphers, session, challenge] = [ciphers, session, challenge].map(u16::from_be_bytes);
    let total = 9 + u32::from(ciphers) + u32::from(session) + u32::from(challenge);
    let good = ciphers > 0 && ciphers % 3 == 0 && (16..=32).contains(&challenge) && total == u32::from(length);
    Ok(if good {
        Verdict::Is(Protocol::SslLegacy)
    } else {
        Verdict::Not
    })
}
