//! As much of msgpack as the messages need: values in front of a slice, and writers in the shortest form.

use bytes::{BufMut, BytesMut};

use super::Problem;
use crate::cursor::{bytes, counted, counted_and, number, split};

/// One value, or the head of one that holds others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// An integer from 0.
    Uint(u64),
    /// An integer below 0.
    Negative(i64),
    /// Text, which need not be UTF-8.
    Str(&'a [u8]),
    Bin(&'a [u8]),
    /// So many values follow.
    Array(u32),
    /// So many pairs follow.
    Map(u32),
    /// Nil, a boolean, a float or an extension, which no key takes.
    Other,
}

impl<'a> Value<'a> {
    /// Takes one value off the front of `input`; of an array or map only its head.
    pub(super) fn take(input: &mut &'a [u8]) -> Result<Self, Problem> {
        let [marker] = bytes::<1>(input)?;
        Ok(match marker {
            0x00..=0x7f => Self::Uint(marker.into()),
            0x80..=0x8f => Self::Map((marker & 0x0f).into()),
            0x90..=0x9f => Self::Array((marker & 0x0f).into()),
            0xa0..=0xbf => Self::Str(split(input, (marker & 0x1f).into())?),
            0xc4 => Self::Bin(counted::<1>(input)?),
            0xc5 => Self::Bin(counted::<2>(input)?),
            0xc6 => Self::Bin(counted::<4>(input)?),
            0xd9 => Self::Str(counted::<1>(input)?),
            0xda => Self::Str(counted::<2>(input)?),
            0xdb => Self::Str(counted::<4>(input)?),
            0xcc => Self::Uint(number::<1>(input)?),
            0xcd => Self::Uint(number::<2>(input)?),
            0xce => Self::Uint(number::<4>(input)?),
            0xcf => Self::Uint(number::<8>(input)?),
            0xd0 => Self::signed(i8::from_be_bytes(bytes(input)?).into()),
            0xd1 => Self::signed(i16::from_be_bytes(bytes(input)?).into()),
            0xd2 => Self::signed(i32::from_be_bytes(bytes(input)?).into()),
            0xd3 => Self::signed(i64::from_be_bytes(bytes(input)?)),
            0xe0..=0xff => Self::Negative(i8::from_be_bytes([marker]).into()),
            0xdc => Self::Array(u16::from_be_bytes(bytes(input)?).into()),
            0xdd => Self::Array(u32::from_be_bytes(bytes(input)?)),
            0xde => Self::Map(u16::from_be_bytes(bytes(input)?).into()),
            0xdf => Self::Map(u32::from_be_bytes(bytes(input)?)),
            0xc0 | 0xc2 | 0xc3 => Self::Other,
            0xca => other(input, 4)?,
            0xcb => other(input, 8)?,
            // extensions: a type of one byte, then the data
            0xd4 => other(input, 2)?,
            0xd5 => other(input, 3)?,
            0xd6 => other(input, 5)?,
            0xd7 => other(input, 9)?,
            0xd8 => other(input, 17)?,
            0xc7 => extension::<1>(input)?,
            0xc8 => extension::<2>(input)?,
            0xc9 => extension::<4>(input)?,
            0xc1 => return Err(Problem::NotMsgpack),
        })
    }

    fn signed(number: i64) -> Self {
        u64::try_from(number).map_or(Self::Negative(number), Self::Uint)
    }

    /// Takes what is left of this value, its head being taken, off the front of `input`. Never recurses.
    pub(super) fn skip_rest(self, input: &mut &'a [u8]) -> Result<(), Problem> {
        // Each value takes a byte at least, so the input bounds the loop whatever the heads announce.
        let mut left = self.holds();
        while left > 0 {
            left = (left - 1).saturating_add(Value::take(input)?.holds());
        }
        Ok(())
    }

    fn holds(self) -> u64 {
        match self {
            Self::Array(count) => count.into(),
            Self::Map(count) => u64::from(count) * 2,
            _ => 0,
        }
    }

    /// Text: a string, bytes in UTF-8, or an integer in decimal.
    pub(super) fn text(self) -> Option<String> {
        match self {
            Self::Str(bytes) | Self::Bin(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Self::Uint(number) => Some(number.to_string()),
            Self::Negative(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// A number: an integer, or decimal text.
    pub(super) fn number<N: TryFrom<u64>>(self) -> Option<N> {
        let number: u64 = match self {
            Self::Uint(number) => number,
            Self::Str(bytes) | Self::Bin(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok()?,
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
            Self::Str(bytes) => by_name(std::str::from_utf8(bytes).ok()?),
            _ => None,
        }
    }
}

/// The name of a key: lower-cased, with `_` for `-`. `None` if it is no name.
pub(super) fn plain_key(bytes: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(bytes).ok()?;
    Some(name.to_ascii_lowercase().replace('-', "_"))
}

fn other<'a>(input: &mut &'a [u8], length: usize) -> Result<Value<'a>, Problem> {
    split(input, length)?;
    Ok(Value::Other)
}

fn extension<'a, const N: usize>(input: &mut &'a [u8]) -> Result<Value<'a>, Problem> {
    counted_and::<N>(input, 1)?;
    Ok(Value::Other)
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
