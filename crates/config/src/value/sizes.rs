//! Numbers of bytes.

use std::borrow::Cow;

use super::scalar::{Raw, Scalar, UNFIT, scalar};

/// A number of bytes, such as `64KiB`, `10M` or `4096`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A [`ByteSize`] that fits 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize32(pub u32);

impl ByteSize {
    /// The size in kibibytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// The size in mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// The size as a length in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Reads digits and an optional unit in any case.
    pub(crate) fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let text = text.trim();
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (count, unit) = text.split_at(digits);
        if count.is_empty() {
            return Err(UNFIT);
        }
        let unit = unit.trim_start();
        let Some(factor) = factor(&unit.to_ascii_lowercase()) else {
            return Err(format!("the unit `{unit}` is none of `B`, `K`, `KiB`, `M`, `MiB`, `G`, `GiB`, …").into());
        };
        let count = count.parse::<u64>().ok();
        count
            .and_then(|count| count.checked_mul(factor))
            .map(Self)
            .ok_or(TOO_LARGE)
    }
}

const TOO_LARGE: Cow<'static, str> = Cow::Borrowed("too large");

fn factor(unit: &str) -> Option<u64> {
    let power = |letter: &str| "kmgtpe".find(letter).and_then(|at| u32::try_from(at + 1).ok());
    match (unit, unit.len()) {
        ("" | "b", _) => Some(1),
        (unit, 1) => power(unit).map(|power| 1000_u64.pow(power)),
        (unit, _) => {
            let (letter, rest) = unit.split_at_checked(1)?;
            let power = power(letter)?;
            match rest {
                "b" => Some(1000_u64.pow(power)),
                "i" | "ib" => Some(1024_u64.pow(power)),
                _ => None,
            }
        }
    }
}

impl Scalar for ByteSize {
    const EXPECTED: &'static str = "a size such as `64KiB`, `10M` or a number of bytes";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Int(bytes) => u64::try_from(bytes).map(Self).map_err(|_| UNFIT),
            Raw::Str(text) => Self::parse(text),
            Raw::Bool(_) | Raw::Float(_) => Err(UNFIT),
        }
    }
}

impl Scalar for ByteSize32 {
    const EXPECTED: &'static str = "a size below 4GiB, such as `64KiB`, `10M` or a number of bytes";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let size = ByteSize::read(raw)?;
        u32::try_from(size.0).map(Self).map_err(|_| TOO_LARGE)
    }
}

scalar!(ByteSize, {
    "description": "bytes as a number, or with a unit in any case: K (1000), KiB (1024), M, MiB, G, GiB, T, P, E",
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": r"^\s*[0-9]+\s*([kmgtpeKMGTPE]?[iI]?[bB]?)\s*$"},
    ],
});

scalar!(ByteSize32, {
    "description": "bytes below 4GiB as a number, or with a unit in any case: K (1000), KiB (1024), M, MiB, G, GiB",
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 4_294_967_295_u32},
        {"type": "string", "pattern": r"^\s*[0-9]+\s*([kmgKMG]?[iI]?[bB]?)\s*$"},
    ],
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn every_form_is_read() {
        for (yaml, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("'1000'", 1000),
            ("1b", 1),
            ("1K", 1000),
            ("1KB", 1000),
            ("1k", 1000),
            ("1Ki", 1024),
            ("1KiB", 1024),
            ("100M", 100_000_000),
            ("1 GiB", 1 << 30),
            ("' 2 mib '", 2 << 20),
            ("1E", 1_000_000_000_000_000_000),
            ("15EiB", 15 << 60),
        ] {
            assert_eq!(decode::<ByteSize>(yaml), Ok(ByteSize(bytes)), "{yaml}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for yaml in [
            "1.5K", "1.01", "-1", "K", "1 kbit", "16EiB", "''", "1i", "1ib", "1é", "true", "[]", "~",
        ] {
            assert!(decode::<ByteSize>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn a_narrow_size_has_a_limit() {
        assert_eq!(decode::<ByteSize32>("1MiB"), Ok(ByteSize32(1 << 20)));
        assert!(decode::<ByteSize32>("4GiB").is_err());
    }
}
