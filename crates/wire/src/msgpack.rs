//! Reading msgpack, a value at a time.

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
