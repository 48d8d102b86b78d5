//! The few values of DER (X.690) that are written here.

use std::net::IpAddr;

use super::{Extension, oid, sha256};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OCTET_STRING: u8 = 0x04;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;

/// Context-specific tags: of a GeneralName (RFC 5280 §4.2.1.6), and of the key identifier in an authority's.
pub(super) const DNS_NAME: u8 = 0x82;
pub(super) const IP_ADDRESS: u8 = 0x87;
const KEY_IDENTIFIER: u8 = 0x80;

/// A value with its tag and length.
pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1);
    let length = length.get(significant..).unwrap_or_default();
    let mut out = vec![tag];
    match length {
        [short @ 0..=0x7f] => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A value that was read.
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    /// Tag and length too.
    pub(super) whole: &'a [u8],
}

/// Takes one value off the front of `input`. `None` if it is not DER, or of a tag of several bytes, which no name here
/// has.
fn take<'a>(input: &mut &'a [u8]) -> Option<Element<'a>> {
    let all = *input;
    let (&[tag, first], rest) = all.split_first_chunk::<2>()?;
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (
                bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
                rest,
            )
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    let whole = all.get(..all.len() - rest.len())?;
    Some(Element { tag, content, whole })
}

/// The values in a sequence. `None` if it is not DER.
pub(super) fn sequence(mut input: &[u8]) -> Option<Vec<Element<'_>>> {
    let Element {
        tag: SEQUENCE,
        mut content,
        ..
    } = take(&mut input)?
    else {
        return None;
    };
    let mut values = Vec::new();
    while !content.is_empty() {
        values.push(take(&mut content)?);
    }
    input.is_empty().then_some(values)
}

/// A sequence of values that are encoded already.
pub(super) fn put_sequence<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let content: Vec<u8> = values.into_iter().flatten().copied().collect();
    tlv(SEQUENCE, &content)
}

/// A subject that is a common name, or nothing.
pub(super) fn common_name(name: Option<&str>) -> Vec<u8> {
    const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
    let Some(name) = name else {
        return tlv(SEQUENCE, &[]);
    };
    let attribute = tlv(SEQUENCE, &[COMMON_NAME, &tlv(UTF8_STRING, name.as_bytes())].concat());
    tlv(SEQUENCE, &tlv(SET, &attribute))
}

/// Alternative names that are this domain's, which may begin with `*.`.
pub(super) fn alt_name_dns(name: &str) -> Vec<u8> {
    tlv(SEQUENCE, &tlv(DNS_NAME, name.as_bytes()))
}

/// Alternative names that are this address.
pub(super) fn alt_name_ip(ip: IpAddr) -> Vec<u8> {
    let name = match ip {
        IpAddr::V4(ip) => tlv(IP_ADDRESS, &ip.octets()),
        IpAddr::V6(ip) => tlv(IP_ADDRESS, &ip.octets()),
    };
    tlv(SEQUENCE, &name)
}

/// The key usage of these bits, critical.
pub(super) fn key_usage(bits: &[u8]) -> Extension {
    let flags = bits.iter().fold(0_u16, |flags, bit| flags | 0x8000 >> bit);
    Extension {
        oid: oid::KEY_USAGE,
        critical: true,
        value: bit_string(flags),
    }
}

/// Up to 16 named bits, without those at the end that are 0 (X.690 §11.2.2).
pub(super) fn bit_string(flags: u16) -> Vec<u8> {
    let [high, low] = flags.to_be_bytes();
    let unused = |byte: u8| u8::try_from(byte.trailing_zeros()).unwrap_or(0);
    match (high, low) {
        (0, 0) => tlv(BIT_STRING, &[0]),
        (high, 0) => tlv(BIT_STRING, &[unused(high), high]),
        (high, low) => tlv(BIT_STRING, &[unused(low), high, low]),
    }
}

/// The extended key usage of a TLS server (RFC 5280 §4.2.1.12).
pub(super) fn server_auth() -> Extension {
    Extension {
        oid: oid::EXTENDED_KEY_USAGE,
        critical: false,
        value: vec![0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01],
    }
}

/// Basic constraints that say: no CA.
pub(super) fn end_entity(critical: bool) -> Extension {
    Extension {
        oid: oid::BASIC_CONSTRAINTS,
        critical,
        value: tlv(SEQUENCE, &[]),
    }
}

/// The identifier of a key, from the content of its bit string (RFC 7093 §2, method 1).
pub(crate) fn key_id(public: &[u8]) -> Vec<u8> {
    sha256(public).iter().take(20).copied().collect()
}

impl Extension {
    /// The identifier of the certificate's own key.
    pub(crate) fn subject_key_id(id: &[u8]) -> Self {
        Self {
            oid: oid::SUBJECT_KEY_ID,
            critical: false,
            value: tlv(OCTET_STRING, id),
        }
    }

    /// The identifier of the CA's key.
    pub(crate) fn authority_key_id(id: &[u8]) -> Self {
        Self {
            oid: oid::AUTHORITY_KEY_ID,
            critical: false,
            value: tlv(SEQUENCE, &tlv(KEY_IDENTIFIER, id)),
        }
    }
}
