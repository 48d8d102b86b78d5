//! msgpack, read a value at a time and written in its shortest forms.

use bytes::BufMut;

use crate::cursor::{Cut, bytes, counted, counted_and, number, split};

/// One value, or the head of one that holds others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Item<'a> {
    Nil,
    Bool(bool),
    Uint(u64),
    /// Below 0.
    Int(i64),
    Float(f64),
    Str(&'a str),
    Bin(&'a [u8]),
    Array(u32),
    Map(u32),
    /// An extension, or text that is not UTF-8.
    Other,
}

impl<'a> Item<'a> {
    /// Takes one value off the front of `input`; of an array or map only its head.
    pub(crate) fn take(input: &mut &'a [u8]) -> Result<Self, Cut> {
        let marker = u8::from_be_bytes(bytes(input)?);
        Ok(match marker {
            0x00..=0x7f => Self::Uint(marker.into()),
            0x80..=0x8f => Self::Map((marker & 0x0f).into()),
            0x90..=0x9f => Self::Array((marker & 0x0f).into()),
            0xa0..=0xbf => text(split(input, (marker & 0x1f).into())?),
            0xc0 => Self::Nil,
            0xc1 => return Err(Cut),
            0xc2 | 0xc3 => Self::Bool(marker == 0xc3),
            0xc4 => Self::Bin(counted::<1>(input)?),
            0xc5 => Self::Bin(counted::<2>(input)?),
            0xc6 => Self::Bin(counted::<4>(input)?),
            0xc7 => other(counted_and::<1>(input, 1)?),
            0xc8 => other(counted_and::<2>(input, 1)?),
            0xc9 => other(counted_and::<4>(input, 1)?),
            0xca => Self::Float(f32::from_be_bytes(bytes(input)?).into()),
            0xcb => Self::Float(f64::from_be_bytes(bytes(input)?)),
            0xcc => Self::Uint(number::<1>(input)?),
            0xcd => Self::Uint(number::<2>(input)?),
            0xce => Self::Uint(number::<4>(input)?),
            0xcf => Self::Uint(number::<8>(input)?),
            0xd0 => Self::signed(i8::from_be_bytes(bytes(input)?).into()),
            0xd1 => Self::signed(i16::from_be_bytes(bytes(input)?).into()),
            0xd2 => Self::signed(i32::from_be_bytes(bytes(input)?).into()),
            0xd3 => Self::signed(i64::from_be_bytes(bytes(input)?)),
            0xd4 => other(split(input, 2)?),
            0xd5 => other(split(input, 3)?),
            0xd6 => other(split(input, 5)?),
            0xd7 => other(split(input, 9)?),
            0xd8 => other(split(input, 17)?),
            0xd9 => text(counted::<1>(input)?),
            0xda => text(counted::<2>(input)?),
            0xdb => text(counted::<4>(input)?),
            0xdc => Self::Array(u16::from_be_bytes(bytes(input)?).into()),
            0xdd => Self::Array(u32::from_be_bytes(bytes(input)?)),
            0xde => Self::Map(u16::from_be_bytes(bytes(input)?).into()),
            0xdf => Self::Map(u32::from_be_bytes(bytes(input)?)),
            0xe0..=0xff => Self::Int(i8::from_be_bytes([marker]).into()),
        })
    }

    fn signed(number: i64) -> Self {
        u64::try_from(number).map_or(Self::Int(number), Self::Uint)
    }

    /// Takes what is left of this value, its head being taken, off the front of `input`. Never recurses.
    pub(crate) fn skip_rest(self, input: &mut &'a [u8]) -> Result<(), Cut> {
        // Each value takes a byte at least, so the input bounds the loop whatever the heads announce.
        let mut left = self.holds();
        while left > 0 {
            left = (left - 1).saturating_add(Item::take(input)?.holds());
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
}

fn text(bytes: &[u8]) -> Item<'_> {
    std::str::from_utf8(bytes).map_or(Item::Other, Item::Str)
}

fn other(_: &[u8]) -> Item<'_> {
    Item::Other
}

/// Appends the head of a map.
pub(crate) fn put_map(out: &mut impl BufMut, pairs: usize) {
    match u8::try_from(pairs) {
        Ok(pairs) if pairs < 16 => out.put_u8(0x80 | pairs),
        _ => put_length(out, 0xde, pairs),
    }
}

/// Appends the head of a map in its longest form, and tells where the number of pairs stands, for [`set_map32`].
pub(crate) fn put_map32(out: &mut Vec<u8>) -> usize {
    out.put_u8(0xdf);
    out.put_u32(0);
    out.len() - 4
}

/// Writes the number of pairs of a map's head that [`put_map32`] has put at `at`.
pub(crate) fn set_map32(out: &mut [u8], at: usize, pairs: u32) {
    if let Some(count) = out.get_mut(at..at + 4) {
        count.copy_from_slice(&pairs.to_be_bytes());
    }
}

/// Appends the head of an array, always in its longest form.
pub(crate) fn put_array32(out: &mut impl BufMut, items: u32) {
    out.put_u8(0xdd);
    out.put_u32(items);
}

/// Appends a number.
pub(crate) fn put_uint(out: &mut impl BufMut, number: u64) {
    if let Ok(byte) = u8::try_from(number) {
        if byte > 0x7f {
            out.put_u8(0xcc);
        }
        out.put_u8(byte);
    } else if let Ok(short) = u16::try_from(number) {
        out.put_u8(0xcd);
        out.put_u16(short);
    } else if let Ok(word) = u32::try_from(number) {
        out.put_u8(0xce);
        out.put_u32(word);
    } else {
        out.put_u8(0xcf);
        out.put_u64(number);
    }
}

/// Appends a number that may be below 0, then always in its longest form.
pub(crate) fn put_int(out: &mut impl BufMut, number: i64) {
    match u64::try_from(number) {
        Ok(number) => put_uint(out, number),
        Err(_) => {
            out.put_u8(0xd3);
            out.put_i64(number);
        }
    }
}

pub(crate) fn put_float(out: &mut impl BufMut, number: f64) {
    out.put_u8(0xcb);
    out.put_f64(number);
}

pub(crate) fn put_nil(out: &mut impl BufMut) {
    out.put_u8(0xc0);
}

pub(crate) fn put_bool(out: &mut impl BufMut, value: bool) {
    out.put_u8(if value { 0xc3 } else { 0xc2 });
}

/// Appends text.
pub(crate) fn put_str(out: &mut impl BufMut, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length) if length < 32 => out.put_u8(0xa0 | length),
        Ok(length) => out.put_slice(&[0xd9, length]),
        Err(_) => put_length(out, 0xda, text.len()),
    }
    out.put_slice(text.as_bytes());
}

/// Appends bytes.
pub(crate) fn put_bin(out: &mut impl BufMut, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(length) => out.put_slice(&[0xc4, length]),
        Err(_) => put_length(out, 0xc5, bytes.len()),
    }
    out.put_slice(bytes);
}

/// Appends a length of two or four bytes; the marker of the longer form follows that of the shorter one.
fn put_length(out: &mut impl BufMut, marker: u8, length: usize) {
    if let Ok(length) = u16::try_from(length) {
        out.put_u8(marker);
        out.put_u16(length);
    } else {
        out.put_u8(marker + 1);
        // What is near this is refused by the limits of frames, records and messages.
        out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    }
}
