//! Limits of speed.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;

use super::scalar::{Raw, Scalar, UNFIT, scalar};
use super::sizes::ByteSize;
use crate::Misfit;

/// The time slice of a limit that names none: 2^10 milliseconds.
pub(super) const DEFAULT_SHIFT: u8 = 10;
/// The longest time slice: 2^12 milliseconds.
const MAX_SHIFT: u8 = 12;

/// How many bytes a TCP socket may move in a slice of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "TcpForm")]
pub struct SpeedLimitTcp {
    /// The slice is 2^this milliseconds; 0 is no limit.
    pub shift_millis: u8,
    /// Bytes from the client in a slice.
    pub upload: u64,
    /// Bytes to the client in a slice.
    pub download: u64,
}

impl SpeedLimitTcp {
    /// Whether there is no limit.
    pub fn is_off(&self) -> bool {
        self.shift_millis == 0
    }

    /// What holds under two limits: the slower rate in each direction, in the longer slice.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self.is_off() {
            return other;
        }
        if other.is_off() {
            return self;
        }
        let shift_millis = self.shift_millis.max(other.shift_millis);
        let scaled = |bytes: u64, from: u8| bytes.saturating_mul(1 << (shift_millis - from));
        let least =
            |of: fn(&Self) -> u64| scaled(of(&self), self.shift_millis).min(scaled(of(&other), other.shift_millis));
        Self {
            shift_millis,
            upload: least(|limit| limit.upload),
            download: least(|limit| limit.download),
        }
    }
}

/// An amount in a slice (`10M`) or in a second (`10M/s`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    bytes: u64,
    per_second: bool,
}

impl Rate {
    /// The bytes in a slice of 2^`shift` milliseconds.
    pub(super) fn in_slice(self, shift: u8) -> u64 {
        if !self.per_second {
            return self.bytes;
        }
        let bytes = (u128::from(self.bytes) << shift) / 1000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

impl Scalar for Rate {
    const EXPECTED: &'static str = "a speed such as `10M/s`, or the bytes of a time slice such as `10M`";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Str(text) => match text.trim_end().strip_suffix("/s") {
                Some(size) => ByteSize::parse(size).map(|size| Self {
                    bytes: size.0,
                    per_second: true,
                }),
                None => ByteSize::parse(text).map(|size| Self {
                    bytes: size.0,
                    per_second: false,
                }),
            },
            Raw::Int(bytes) => u64::try_from(bytes)
                .map(|bytes| Self {
                    bytes,
                    per_second: false,
                })
                .map_err(|_| UNFIT),
            _ => Err(UNFIT),
        }
    }
}

scalar!(Rate, {
    "description": "bytes in a time slice such as `10M`, or in a second such as `10M/s`",
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": r"^\s*[0-9]+\s*([kmgtpeKMGTPE]?[iI]?[bB]?)\s*(/s)?\s*$"},
    ],
});

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "SpeedLimitTcp")]
enum TcpForm {
    Map(TcpMap),
    Text(Rate),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TcpMap {
    #[serde(alias = "shift")]
    #[schemars(range(max = 12))]
    shift_millis: Option<u8>,
    #[serde(alias = "north", alias = "upload_bytes", alias = "north_bytes")]
    upload: Option<Rate>,
    #[serde(alias = "south", alias = "download_bytes", alias = "south_bytes")]
    download: Option<Rate>,
}

/// The slice of a limit: as written, or the default if a rate per second needs one.
pub(super) fn slice(written: Option<u8>, rates: &[Option<Rate>]) -> Result<u8, Misfit> {
    match written {
        Some(shift) if shift > MAX_SHIFT => Err(Misfit::at(
            "shift_millis",
            format!("expected an integer from 0 to {MAX_SHIFT}, found `{shift}`"),
        )),
        Some(shift) => Ok(shift),
        None if rates.iter().flatten().any(|rate| rate.per_second) => Ok(DEFAULT_SHIFT),
        None => Ok(0),
    }
}

impl TryFrom<TcpForm> for SpeedLimitTcp {
    type Error = Misfit;

    fn try_from(form: TcpForm) -> Result<Self, Misfit> {
        let (shift_millis, upload, download) = match form {
            TcpForm::Text(rate) => (DEFAULT_SHIFT, Some(rate), Some(rate)),
            TcpForm::Map(map) => (
                slice(map.shift_millis, &[map.upload, map.download])?,
                map.upload,
                map.download,
            ),
        };
        let bytes = |rate: Option<Rate>| rate.map_or(0, |rate| rate.in_slice(shift_millis));
        let limit = Self {
            shift_millis,
            upload: bytes(upload),
            download: bytes(download),
        };
        if limit.is_off() {
            return Ok(Self::default());
        }
        if limit.upload == 0 || limit.download == 0 {
            return Err(Misfit::new(
                "a limit needs more than 0 bytes in both directions; without a limit leave the key out",
            ));
        }
        Ok(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    fn limit(shift_millis: u8, upload: u64, download: u64) -> SpeedLimitTcp {
        SpeedLimitTcp {
            shift_millis,
            upload,
            download,
        }
    }

    #[test]
    fn a_limit_is_one_number_or_a_map() {
        for (yaml, expected) in [
            ("1000", limit(10, 1000, 1000)),
            ("10M", limit(10, 10_000_000, 10_000_000)),
            ("10M/s", limit(10, 10_240_000, 10_240_000)),
            ("{shift: 10, north: 1K, south: 2K}", limit(10, 1000, 2000)),
            (
                "{shift_millis: 12, upload: 1000/s, download_bytes: 1K}",
                limit(12, 4096, 1000),
            ),
            ("{upload: 1000/s, download: 1000/s}", limit(10, 1024, 1024)),
            ("{shift: 0, upload: 1K}", SpeedLimitTcp::default()),
            ("{upload: 1K, download: 1K}", SpeedLimitTcp::default()),
        ] {
            assert_eq!(decode::<SpeedLimitTcp>(yaml), Ok(expected), "{yaml}");
        }
        for yaml in [
            "0",
            "{shift: 13, upload: 1, download: 1}",
            "{shift: 10, upload: 1}",
            "1.5",
            "10M/m",
            "true",
            "[]",
        ] {
            assert!(decode::<SpeedLimitTcp>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn a_limit_of_nothing_or_of_one_direction_is_refused_lm_05() {
        for yaml in [
            "0",
            "'0'",
            "0/s",
            "{shift: 10}",
            "{shift: 10, upload: 1K}",
            "{shift: 10, download: 1K}",
            "{shift: 10, upload: 1K, download: 0}",
            "{upload: 1000/s}",
            "{shift: 1, upload: 100/s, download: 1K}",
        ] {
            let error = decode::<SpeedLimitTcp>(yaml).unwrap_err().to_string();
            assert!(
                error.contains("more than 0 bytes in both directions"),
                "{yaml}: {error}"
            );
        }
        // Without a slice there is no limit, as in the program whose files these are.
        assert!(decode::<SpeedLimitTcp>("{upload: 1K}").unwrap().is_off());
    }

    #[test]
    fn two_limits_make_the_slower_one() {
        assert_eq!(
            limit(10, 1000, 5000).and(limit(12, 8000, 16000)),
            limit(12, 4000, 16000)
        );
        assert_eq!(limit(10, 1, 1).and(SpeedLimitTcp::default()), limit(10, 1, 1));
    }
}
