//! Rates of events, and shares of them.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::scalar::{Raw, Scalar, UNFIT, scalar};
use super::time::Span;
use crate::{Misfit, schema_as};

/// How many events may happen: one each `period`, and `burst` at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "QuotaForm")]
pub struct RateQuota {
    /// The time in which one more event is allowed.
    pub period: Duration,
    /// The events that may happen at once.
    pub burst: NonZeroU32,
}

schema_as!(RateQuota => QuotaForm);

/// A number of events in a second, a minute or an hour.
struct Rate(RateQuota);

impl Rate {
    fn new(count: u32, span: Duration) -> Result<Self, Cow<'static, str>> {
        let burst = NonZeroU32::new(count).ok_or(UNFIT)?;
        let period = span / count;
        if period.is_zero() {
            return Err("too fast".into());
        }
        Ok(Self(RateQuota { period, burst }))
    }
}

impl Scalar for Rate {
    const EXPECTED: &'static str = "a rate such as `30/s`, `60/m`, `3600/h`";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let (count, span) = match raw {
            Raw::Int(count) => (u32::try_from(count).map_err(|_| UNFIT)?, 1),
            Raw::Str(text) => {
                let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
                let span = match unit.trim() {
                    "s" => 1,
                    "m" => 60,
                    "h" => 3600,
                    _ => return Err(UNFIT),
                };
                let count = count.trim();
                if !count.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(UNFIT);
                }
                (count.parse().map_err(|_| UNFIT)?, span)
            }
            _ => return Err(UNFIT),
        };
        Self::new(count, Duration::from_secs(span))
    }
}

scalar!(Rate, {
    "description": "a rate: events in a second, or `n/s`, `n/m`, `n/h`",
    "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\s*[0-9]+\s*(/\s*[smh])?\s*$"}],
});

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "RateQuota")]
enum QuotaForm {
    Map(#[schemars(with = "QuotaKeys")] QuotaMap),
    Other(Rate),
}

/// The keys of a quota; the later of `rate` and `replenish_interval` counts.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "read by the schema alone: the order of the keys matters, which no struct keeps"
)]
struct QuotaKeys {
    rate: Option<Rate>,
    replenish_interval: Option<Span>,
    max_burst: Option<NonZeroU32>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum QuotaKey {
    Rate,
    ReplenishInterval,
    MaxBurst,
}

struct QuotaMap {
    rate: Option<RateQuota>,
    max_burst: Option<NonZeroU32>,
}

impl<'de> Deserialize<'de> for QuotaMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor;

        impl<'de> Visitor<'de> for MapVisitor {
            type Value = QuotaMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map with `rate` or `replenish_interval`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<QuotaMap, A::Error> {
                let mut quota = QuotaMap {
                    rate: None,
                    max_burst: None,
                };
                while let Some(key) = map.next_key()? {
                    match key {
                        QuotaKey::Rate => quota.rate = Some(map.next_value::<Rate>()?.0),
                        QuotaKey::ReplenishInterval => {
                            let Span(period) = map.next_value()?;
                            quota.rate = Some(RateQuota {
                                period,
                                burst: NonZeroU32::MIN,
                            });
                        }
                        QuotaKey::MaxBurst => quota.max_burst = Some(map.next_value()?),
                    }
                }
                Ok(quota)
            }
        }

        deserializer.deserialize_map(MapVisitor)
    }
}

impl TryFrom<QuotaForm> for RateQuota {
    type Error = Misfit;

    fn try_from(form: QuotaForm) -> Result<Self, Misfit> {
        let QuotaMap { rate, max_burst } = match form {
            QuotaForm::Other(Rate(quota)) => return Ok(quota),
            QuotaForm::Map(map) => map,
        };
        let quota = rate.ok_or_else(|| Misfit::new("`rate` or `replenish_interval` is missing"))?;
        if quota.period.is_zero() {
            return Err(Misfit::at("replenish_interval", "expected more than no time"));
        }
        Ok(Self {
            burst: max_burst.unwrap_or(quota.burst),
            ..quota
        })
    }
}

/// A share from 0 to 1: `0.5`, `1/2`, `50%`, or a boolean for all or nothing.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Ratio(f64);

impl Ratio {
    /// All.
    pub const ALL: Self = Self(1.0);

    /// The share.
    pub fn get(self) -> f64 {
        self.0
    }

    fn parse(text: &str) -> Option<f64> {
        let text = text.trim();
        if let Some((part, whole)) = text.split_once('/') {
            let (part, whole) = (part.trim().parse::<u32>().ok()?, whole.trim().parse::<u32>().ok()?);
            return (whole > 0).then(|| f64::from(part) / f64::from(whole));
        }
        match text.strip_suffix('%') {
            Some(percent) => Some(f64::from(percent.trim().parse::<u32>().ok()?) / 100.0),
            None => text.parse().ok(),
        }
    }
}

impl Scalar for Ratio {
    const EXPECTED: &'static str = "a share from 0 to 1 such as `0.5`, `1/2`, `50%`, or a boolean";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let ratio = match raw {
            Raw::Bool(all) => Some(f64::from(u8::from(all))),
            Raw::Int(0) => Some(0.0),
            Raw::Int(1) => Some(1.0),
            Raw::Int(_) => None,
            Raw::Float(ratio) => Some(ratio),
            Raw::Str(text) => crate::decode::word_as_bool(text)
                .map(|all| f64::from(u8::from(all)))
                .or_else(|| Self::parse(text)),
        };
        ratio.filter(|ratio| (0.0..=1.0).contains(ratio)).map(Self).ok_or(UNFIT)
    }
}

scalar!(Ratio, {
    "description": "a share from 0 to 1",
    "anyOf": [
        {"type": "boolean"},
        {"type": "number", "minimum": 0, "maximum": 1},
        {"type": "string", "pattern": r"^\s*([0-9.]+|[0-9]+\s*/\s*[0-9]+|[0-9]+\s*%)\s*$"},
    ],
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    fn quota(millis: u64, burst: u32) -> RateQuota {
        RateQuota {
            period: Duration::from_millis(millis),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    #[test]
    fn a_quota_is_a_rate_or_a_map() {
        for (yaml, expected) in [
            ("10", quota(100, 10)),
            ("'10'", quota(100, 10)),
            ("10/s", quota(100, 10)),
            ("60/m", quota(1000, 60)),
            ("3600/h", quota(1000, 3600)),
            ("{rate: 10/s}", quota(100, 10)),
            ("{rate: 10, max_burst: 50}", quota(100, 50)),
            ("{replenish_interval: 5s}", quota(5000, 1)),
            ("{replenish-interval: 5s, Max-Burst: '3'}", quota(5000, 3)),
            ("{rate: 10, replenish_interval: 5s}", quota(5000, 1)),
            ("{replenish_interval: 5s, rate: 10}", quota(100, 10)),
        ] {
            assert_eq!(decode::<RateQuota>(yaml), Ok(expected), "{yaml}");
        }
        for yaml in [
            "0",
            "-1",
            "1/d",
            "1.5",
            "'0/s'",
            "1/s1",
            "{}",
            "{max_burst: 5}",
            "{rate: 1, max_burst: 0}",
            "{burst: 1}",
            "{replenish_interval: 0}",
            "2000000000",
            "true",
            "'1/'",
            "4294967296",
        ] {
            assert!(decode::<RateQuota>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn a_ratio_is_a_share_of_one() {
        for (yaml, expected) in [
            ("0.25", 0.25),
            ("'0.25'", 0.25),
            ("1/4", 0.25),
            ("25%", 0.25),
            ("true", 1.0),
            ("off", 0.0),
            ("1", 1.0),
            ("0", 0.0),
            ("100%", 1.0),
        ] {
            assert_eq!(decode::<Ratio>(yaml).map(Ratio::get), Ok(expected), "{yaml}");
        }
        for yaml in [
            "0.5%", "2", "1.1", "-0.1", "3/2", "1/0", ".nan", ".inf", "101%", "''", "[]", "-1",
        ] {
            assert!(decode::<Ratio>(yaml).is_err(), "{yaml}");
        }
    }
}
