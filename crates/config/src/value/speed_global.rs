//! Limits of speed that all connections of a user share.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;

use super::scalar::{Raw, Scalar, UNFIT, scalar};
use super::sizes::ByteSize;
use super::time::Span;
use crate::{Misfit, schema_as};

/// A bucket of tokens for bytes that all streams together take from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "StreamForm")]
pub struct GlobalStreamLimit {
    /// The time after which tokens are added.
    pub replenish_interval: Span,
    /// The bytes that are added; never 0.
    pub replenish_bytes: u64,
    /// The most bytes in the bucket.
    pub max_burst_bytes: u64,
}

/// Buckets of tokens for bytes and packets that all datagrams together take from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "DatagramForm")]
pub struct GlobalDatagramLimit {
    /// The time after which tokens are added.
    pub replenish_interval: Span,
    /// The bytes that are added and the most in the bucket; `None` is no limit.
    pub bytes: Option<(u64, u64)>,
    /// The packets that are added and the most in the bucket; `None` is no limit.
    pub packets: Option<(u64, u64)>,
}

schema_as!(GlobalStreamLimit => StreamForm);
schema_as!(GlobalDatagramLimit => DatagramForm);

const SECOND: Span = Span::secs(1);

/// Bytes in a second, with or without saying so.
struct PerSecond(u64);

impl Scalar for PerSecond {
    const EXPECTED: &'static str = "bytes in a second such as `10M` or `10M/s`";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Int(bytes) => u64::try_from(bytes).map(Self).map_err(|_| UNFIT),
            Raw::Str(text) => {
                let size = text.trim_end();
                ByteSize::parse(size.strip_suffix("/s").unwrap_or(size)).map(|size| Self(size.0))
            }
            _ => Err(UNFIT),
        }
    }
}

scalar!(PerSecond, {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": r"^\s*[0-9]+\s*([kmgtpeKMGTPE]?[iI]?[bB]?)\s*(/s)?\s*$"},
    ],
});

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "GlobalStreamLimit")]
enum StreamForm {
    Map(StreamMap),
    Text(PerSecond),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StreamMap {
    replenish_interval: Option<Span>,
    replenish_bytes: ByteSize,
    max_burst_bytes: Option<ByteSize>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "GlobalDatagramLimit")]
enum DatagramForm {
    Map(DatagramMap),
    Text(PerSecond),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DatagramMap {
    replenish_interval: Option<Span>,
    replenish_bytes: Option<ByteSize>,
    max_burst_bytes: Option<ByteSize>,
    replenish_packets: Option<ByteSize>,
    max_burst_packets: Option<ByteSize>,
}

fn interval(written: Option<Span>) -> Result<Span, Misfit> {
    match written {
        Some(Span(interval)) if interval.is_zero() => {
            Err(Misfit::at("replenish_interval", "expected more than no time"))
        }
        written => Ok(written.unwrap_or(SECOND)),
    }
}

/// What is added, and the most there is; a smaller burst is raised.
fn bucket(replenish: u64, burst: Option<ByteSize>) -> (u64, u64) {
    (replenish, burst.map_or(replenish, |burst| burst.0.max(replenish)))
}

impl TryFrom<StreamForm> for GlobalStreamLimit {
    type Error = Misfit;

    fn try_from(form: StreamForm) -> Result<Self, Misfit> {
        let (replenish_interval, (replenish_bytes, max_burst_bytes)) = match form {
            StreamForm::Text(PerSecond(bytes)) => (SECOND, (bytes, bytes)),
            StreamForm::Map(map) => (
                interval(map.replenish_interval)?,
                bucket(map.replenish_bytes.0, map.max_burst_bytes),
            ),
        };
        if replenish_bytes == 0 {
            return Err(Misfit::new(
                "a limit needs more than 0 bytes; without a limit leave the key out",
            ));
        }
        Ok(Self {
            replenish_interval,
            replenish_bytes,
            max_burst_bytes,
        })
    }
}

impl TryFrom<DatagramForm> for GlobalDatagramLimit {
    type Error = Misfit;

    fn try_from(form: DatagramForm) -> Result<Self, Misfit> {
        let some = |replenish: Option<ByteSize>, burst| {
            replenish
                .filter(|replenish| replenish.0 > 0)
                .map(|replenish| bucket(replenish.0, burst))
        };
        let limit = match form {
            DatagramForm::Text(PerSecond(bytes)) => Self {
                replenish_interval: SECOND,
                bytes: (bytes > 0).then_some((bytes, bytes)),
                packets: None,
            },
            DatagramForm::Map(map) => Self {
                replenish_interval: interval(map.replenish_interval)?,
                bytes: some(map.replenish_bytes, map.max_burst_bytes),
                packets: some(map.replenish_packets, map.max_burst_packets),
            },
        };
        if limit.bytes.is_none() && limit.packets.is_none() {
            return Err(Misfit::new(
                "a limit needs `replenish_bytes` or `replenish_packets` of more than 0",
            ));
        }
        Ok(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn a_stream_limit_is_bytes_in_a_second_or_a_map() {
        let limit = |replenish_interval, replenish_bytes, max_burst_bytes| {
            Ok(GlobalStreamLimit {
                replenish_interval,
                replenish_bytes,
                max_burst_bytes,
            })
        };
        assert_eq!(decode("10M"), limit(SECOND, 10_000_000, 10_000_000));
        assert_eq!(decode("10M/s"), limit(SECOND, 10_000_000, 10_000_000));
        assert_eq!(decode("{replenish_bytes: 1K}"), limit(SECOND, 1000, 1000));
        let yaml = "{Replenish-Interval: 100ms, replenish_bytes: 1K, max_burst_bytes: 5}";
        assert_eq!(decode(yaml), limit(Span::millis(100), 1000, 1000));
        for yaml in [
            "0",
            "{}",
            "{replenish_bytes: 0}",
            "{replenish_interval: 0, replenish_bytes: 1}",
            "1.5",
            "[]",
        ] {
            assert!(decode::<GlobalStreamLimit>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn a_map_without_an_interval_means_a_second_and_no_interval_is_none_lm_04() {
        let stream = decode::<GlobalStreamLimit>("{replenish_bytes: 1K}").unwrap();
        assert_eq!(stream.replenish_interval, SECOND);
        let datagram = decode::<GlobalDatagramLimit>("{replenish_packets: 5}").unwrap();
        assert_eq!(datagram.replenish_interval, SECOND);
        for zero in ["0", "0s", "0.0", "0ms"] {
            let yaml = format!("{{replenish_interval: {zero}, replenish_bytes: 1K}}");
            let error = decode::<GlobalStreamLimit>(&yaml).unwrap_err().to_string();
            assert!(error.contains("expected more than no time"), "{error}");
            assert!(decode::<GlobalDatagramLimit>(&yaml).is_err());
        }
    }

    #[test]
    fn a_datagram_limit_may_be_of_packets() {
        let limit = decode::<GlobalDatagramLimit>("{replenish_packets: 10, max_burst_packets: 1K}").unwrap();
        assert_eq!((limit.bytes, limit.packets), (None, Some((10, 1000))));
        let limit = decode::<GlobalDatagramLimit>("5K").unwrap();
        assert_eq!((limit.bytes, limit.packets), (Some((5000, 5000)), None));
        for yaml in ["{}", "0", "{replenish_bytes: 0}", "{max_burst_bytes: 5}"] {
            assert!(decode::<GlobalDatagramLimit>(yaml).is_err(), "{yaml}");
        }
    }
}
