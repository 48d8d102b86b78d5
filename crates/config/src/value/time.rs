//! Spans of time.

use std::borrow::Cow;
use std::time::Duration;

use super::scalar::{Raw, Scalar, UNFIT, scalar};

/// A span of time: seconds as a number, or parts with units such as `1h30m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

impl Span {
    /// A span of whole seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// A span of whole milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Reads `1h30m`, `100ms`, `30`: parts that are added up, digits alone are seconds.
    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let mut rest = text.trim();
        if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
            return rest.parse().map(Self::secs).map_err(|_| TOO_LONG);
        }
        let mut total = Duration::ZERO;
        if rest.is_empty() {
            return Err(UNFIT);
        }
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (count, after) = rest.split_at(digits);
            if count.is_empty() {
                return Err(UNFIT);
            }
            let after = after.trim_start();
            let letters = after.len() - after.trim_start_matches(char::is_alphabetic).len();
            let (unit, after) = after.split_at(letters);
            let count = count.parse::<u64>().map_err(|_| TOO_LONG)?;
            let part = part(count, unit)?;
            total = total.checked_add(part).ok_or(TOO_LONG)?;
            rest = after.trim_start();
        }
        Ok(Self(total))
    }
}

const TOO_LONG: Cow<'static, str> = Cow::Borrowed("too long");

fn part(count: u64, unit: &str) -> Result<Duration, Cow<'static, str>> {
    let secs = |each: u64| count.checked_mul(each).map(Duration::from_secs).ok_or(TOO_LONG);
    match unit {
        "ns" => Ok(Duration::from_nanos(count)),
        "us" => Ok(Duration::from_micros(count)),
        "ms" => Ok(Duration::from_millis(count)),
        "s" => secs(1),
        "m" => secs(60),
        "h" => secs(60 * 60),
        "d" => secs(24 * 60 * 60),
        "" => Err("a number without unit".into()),
        unit => Err(format!("the unit `{unit}` is none of `ns`, `us`, `ms`, `s`, `m`, `h`, `d`").into()),
    }
}

impl Scalar for Span {
    const EXPECTED: &'static str = "a time such as `10s`, `1h30m` or a number of seconds";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Int(secs) => u64::try_from(secs).map(Self::secs).map_err(|_| UNFIT),
            // Negative, infinite and not a number are errors here, never a panic.
            Raw::Float(secs) => Duration::try_from_secs_f64(secs).map(Self).map_err(|_| UNFIT),
            Raw::Str(text) => Self::parse(text),
            Raw::Bool(_) => Err(UNFIT),
        }
    }
}

scalar!(Span, {
    "description": "a time: seconds as a number, or parts with a unit (ns, us, ms, s, m, h, d) such as `1h30m`",
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^\s*([0-9]+|([0-9]+\s*(ns|us|ms|s|m|h|d)\s*)+)\s*$"},
    ],
});

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn every_form_is_read() {
        // CFG-01
        for (yaml, millis) in [
            ("0", 0),
            ("30", 30_000),
            ("'30'", 30_000),
            ("1.5", 1_500),
            ("0.5", 500),
            ("1h30m", 5_400_000),
            ("1h 30m 71s", 5_471_000),
            ("100ms", 100),
            ("' 10 s '", 10_000),
            ("1s1s", 2_000),
            ("2d", 172_800_000),
            ("1000us", 1),
            ("5000000ns", 5),
        ] {
            assert_eq!(decode::<Span>(yaml), Ok(Span::millis(millis)), "{yaml}");
        }
    }

    #[test]
    fn other_forms_are_refused_without_a_panic() {
        // CFG-01
        for yaml in [
            "-1",
            "-0.5",
            ".nan",
            ".inf",
            "-.inf",
            "1e300",
            "5min",
            "10sec",
            "1H",
            "1.5s",
            "'1.5'",
            "1h30",
            "''",
            "s",
            "true",
            "[]",
            "{}",
            "~",
            "99999999999999999999",
            "99999999999999999999s",
            "300000000000000d",
            "-1s",
        ] {
            assert!(decode::<Span>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn an_unknown_unit_is_told() {
        assert_eq!(
            decode::<Span>("5min").unwrap_err(),
            "expected a time such as `10s`, `1h30m` or a number of seconds, found `5min`: the unit `min` is none of `ns`, \
             `us`, `ms`, `s`, `m`, `h`, `d`"
        );
    }
}
