//! As much of [msgpack](crate::msgpack) as the messages need.

use crate::cursor::Cut;
pub(super) use crate::msgpack::Item;

/// Why bytes are no message, or no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A key has a value of a kind that it cannot have.
    #[error("`{key}` has a value of another kind, or too large a one")]
    BadValue {
        /// The key.
        key: &'static str,
    },
    /// The bytes end in the middle of a value, are no msgpack, or go on after it.
    #[error("it is not msgpack")]
    NotMsgpack,
    /// A key that has to be there is not.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// It is longer than allowed.
    #[error("it is {length} bytes long, the limit is {limit}")]
    TooLong {
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
}

impl From<Cut> for Malformed {
    fn from(_: Cut) -> Self {
        Self::NotMsgpack
    }
}

impl<'a> Item<'a> {
    pub(super) fn uint(self, key: &'static str) -> Result<u64, Malformed> {
        match self {
            Self::Uint(number) => Ok(number),
            _ => Err(Malformed::BadValue { key }),
        }
    }

    pub(super) fn str(self, key: &'static str) -> Result<&'a str, Malformed> {
        match self {
            Self::Str(text) => Ok(text),
            _ => Err(Malformed::BadValue { key }),
        }
    }

    pub(super) fn bin(self, key: &'static str) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bin(bytes) => Ok(bytes),
            _ => Err(Malformed::BadValue { key }),
        }
    }

    pub(super) fn id(self, key: &'static str) -> Result<super::Id, Malformed> {
        self.bin(key)?.try_into().map_err(|_| Malformed::BadValue { key })
    }
}

/// Takes a map off the front of `input`. `each` gets a key and the head of its value, and takes what the value holds; what
/// it does not know it leaves to `Item::skip_rest`.
pub(super) fn take_map<'a>(
    input: &mut &'a [u8],
    mut each: impl FnMut(&'a str, Item<'a>, &mut &'a [u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let Item::Map(pairs) = Item::take(input)? else {
        return Err(Malformed::NotMsgpack);
    };
    for _ in 0..pairs {
        let key = match Item::take(input)? {
            Item::Str(key) => key,
            other => {
                other.skip_rest(input)?;
                ""
            }
        };
        let value = Item::take(input)?;
        each(key, value, input)?;
    }
    Ok(())
}

/// Takes one whole value off the front of `input` as bytes.
pub(super) fn take_raw<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let before = *input;
    Item::take(input)?.skip_rest(input)?;
    let length = before.len() - input.len();
    before.get(..length).ok_or(Malformed::NotMsgpack)
}

/// Appends the head of a map.
pub(super) fn put_map(out: &mut Vec<u8>, pairs: usize) {
    match u8::try_from(pairs) {
        Ok(pairs) if pairs < 16 => out.push(0x80 | pairs),
        _ => {
            out.push(0xdf);
            put_u32(out, pairs);
        }
    }
}

/// Appends the head of a map in its longest form, and tells where the number of pairs stands, for [`set_map32`].
pub(super) fn put_map32(out: &mut Vec<u8>) -> usize {
    out.push(0xdf);
    put_u32(out, 0);
    out.len() - 4
}

/// Writes the number of pairs of a map's head that [`put_map32`] has put at `at`.
pub(super) fn set_map32(out: &mut [u8], at: usize, pairs: u32) {
    if let Some(count) = out.get_mut(at..at + 4) {
        count.copy_from_slice(&pairs.to_be_bytes());
    }
}

/// Appends the head of an array, always in its longest form.
pub(super) fn put_array(out: &mut Vec<u8>, items: usize) {
    out.push(0xdd);
    put_u32(out, items);
}

/// Appends a number in its shortest form.
pub(super) fn put_uint(out: &mut Vec<u8>, number: u64) {
    if let Ok(byte) = u8::try_from(number) {
        if byte > 0x7f {
            out.push(0xcc);
        }
        out.push(byte);
    } else if let Ok(short) = u16::try_from(number) {
        out.push(0xcd);
        out.extend_from_slice(&short.to_be_bytes());
    } else if let Ok(word) = u32::try_from(number) {
        out.push(0xce);
        out.extend_from_slice(&word.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Appends a number that may be below 0.
pub(super) fn put_int(out: &mut Vec<u8>, number: i64) {
    match u64::try_from(number) {
        Ok(number) => put_uint(out, number),
        Err(_) => {
            out.push(0xd3);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

pub(super) fn put_float(out: &mut Vec<u8>, number: f64) {
    out.push(0xcb);
    out.extend_from_slice(&number.to_be_bytes());
}

pub(super) fn put_nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

pub(super) fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

/// Appends text in its shortest form.
pub(super) fn put_str(out: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length) if length < 32 => out.push(0xa0 | length),
        Ok(length) => out.extend_from_slice(&[0xd9, length]),
        Err(_) => {
            out.push(0xdb);
            put_u32(out, text.len());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// Appends bytes in their shortest form.
pub(super) fn put_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(length) => out.extend_from_slice(&[0xc4, length]),
        Err(_) => {
            out.push(0xc6);
            put_u32(out, bytes.len());
        }
    }
    out.extend_from_slice(bytes);
}

fn put_u32(out: &mut Vec<u8>, length: usize) {
    // What is near this is refused by the limits of records and messages.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}
