//! As much of [msgpack](crate::msgpack) as the messages need: what a value stands for, and writers in the shortest form.

use bytes::{BufMut, BytesMut};

pub(super) use crate::msgpack::Item;

impl Item<'_> {
    /// Text: a string, bytes in UTF-8, or an integer in decimal.
    pub(super) fn text(self) -> Option<String> {
        match self {
            Self::Str(text) => Some(text.to_owned()),
            Self::Bin(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Self::Uint(number) => Some(number.to_string()),
            Self::Int(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// A number: an integer, or decimal text.
    pub(super) fn number<N: TryFrom<u64>>(self) -> Option<N> {
        let number: u64 = match self {
            Self::Uint(number) => number,
            Self::Str(text) => text.parse().ok()?,
            Self::Bin(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok()?,
            _ => return None,
        };
        N::try_from(number).ok()
    }

    /// One of an enumeration, by its number or its name.
    pub(super) fn choice<T>(
        self,
        by_number: impl Fn(u64) -> Option<T>,
        by_name: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        match self {
            Self::Uint(number) => by_number(number),
            Self::Str(name) => by_name(name),
            _ => None,
        }
    }

    /// Whether it is the key of this number and this name, in whatever case and with `-` or `_`.
    pub(super) fn is_key(self, id: u8, name: &str) -> bool {
        match self {
            Self::Uint(number) => u64::from(id) == number,
            Self::Str(text) => text.to_ascii_lowercase().replace('-', "_") == name,
            _ => false,
        }
    }
}

/// Appends the head of a map.
pub(super) fn put_map(out: &mut BytesMut, pairs: u8) {
    debug_assert!(pairs < 16, "a map of up to 15 pairs has a head of one byte");
    out.put_u8(0x80 | pairs);
}

/// Appends an integer in its shortest form.
pub(super) fn put_uint(out: &mut BytesMut, number: u32) {
    if let Ok(small) = u8::try_from(number) {
        if small > 0x7f {
            out.put_u8(0xcc);
        }
        out.put_u8(small);
    } else if let Ok(short) = u16::try_from(number) {
        out.put_u8(0xcd);
        out.put_u16(short);
    } else {
        out.put_u8(0xce);
        out.put_u32(number);
    }
}

/// Appends text in its shortest form.
pub(super) fn put_str(out: &mut BytesMut, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length) if length < 32 => out.put_u8(0xa0 | length),
        Ok(length) => out.put_slice(&[0xd9, length]),
        Err(_) => put_length(out, 0xda, text.len()),
    }
    out.put_slice(text.as_bytes());
}

/// Appends bytes in their shortest form.
pub(super) fn put_bin(out: &mut BytesMut, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(length) => out.put_slice(&[0xc4, length]),
        Err(_) => put_length(out, 0xc5, bytes.len()),
    }
    out.put_slice(bytes);
}

/// Appends a length of two or four bytes; the marker of the longer form follows that of the shorter one.
fn put_length(out: &mut BytesMut, marker: u8, length: usize) {
    if let Ok(length) = u16::try_from(length) {
        out.put_u8(marker);
        out.put_u16(length);
    } else {
        out.put_u8(marker + 1);
        out.put_u32(u32::try_from(length).unwrap_or(u32::MAX)); // the frame's limit refuses what is near this
    }
}
