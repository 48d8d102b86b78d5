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
