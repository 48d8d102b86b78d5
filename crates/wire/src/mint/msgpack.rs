//! What a value of [msgpack](crate::msgpack) stands for in these messages.

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
