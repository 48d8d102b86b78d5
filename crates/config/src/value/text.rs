//! Texts with a meaning of their own: URLs, times, areas, header names.

use std::borrow::Cow;
use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;

use super::scalar::{Raw, Scalar, UNFIT, scalar};

/// An absolute URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UrlStr(pub Url);

impl Scalar for UrlStr {
    const EXPECTED: &'static str = "an absolute URL";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let Raw::Str(text) = raw else { return Err(UNFIT) };
        Url::parse(text).map(Self).map_err(|why| why.to_string().into())
    }
}

scalar!(UrlStr, {"type": "string", "format": "uri"});

/// A point in time with its zone (RFC 3339).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DateTime(pub OffsetDateTime);

impl Scalar for DateTime {
    const EXPECTED: &'static str = "a time such as `2024-01-02T03:04:05Z` or `2024-01-02T03:04:05+08:00`";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let Raw::Str(text) = raw else { return Err(UNFIT) };
        OffsetDateTime::parse(text, &Rfc3339).map(Self).map_err(|_| UNFIT)
    }
}

scalar!(DateTime, {"type": "string", "format": "date-time"});

/// Where on the earth an address is, from the large to the small: `中国/山东/济南`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EgressArea(Vec<Box<str>>);

impl EgressArea {
    /// The segments.
    pub fn segments(&self) -> &[Box<str>] {
        &self.0
    }
}

impl Scalar for EgressArea {
    const EXPECTED: &'static str = "an area such as `country/province/city`";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let Raw::Str(text) = raw else { return Err(UNFIT) };
        let segments: Vec<Box<str>> = text
            .split('/')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(Into::into)
            .collect();
        if segments.is_empty() {
            Err(UNFIT)
        } else {
            Ok(Self(segments))
        }
    }
}

scalar!(EgressArea, {"type": "string", "minLength": 1});

impl fmt::Display for EgressArea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// The name of an HTTP header, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderName(Box<str>);

impl HeaderName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for HeaderName {
    const EXPECTED: &'static str = "the name of an HTTP header";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let Raw::Str(text) = raw else { return Err(UNFIT) };
        // A token of RFC 9110 §5.6.2.
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if text.is_empty() || !text.bytes().all(fine) {
            Err(UNFIT)
        } else {
            Ok(Self(text.to_ascii_lowercase().into()))
        }
    }
}

scalar!(HeaderName, {"type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn urls_are_absolute() {
        assert_eq!(decode::<UrlStr>("http://h/p").unwrap().0.host_str(), Some("h"));
        for yaml in ["/p", "h/p", "''", "5"] {
            assert!(decode::<UrlStr>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn times_have_a_zone() {
        for yaml in [
            "2024-01-02T03:04:05Z",
            "'2024-01-02T03:04:05+08:00'",
            "2024-01-02T03:04:05.5Z",
        ] {
            assert!(decode::<DateTime>(yaml).is_ok(), "{yaml}");
        }
        for yaml in ["2024-01-02", "2024-01-02T03:04:05", "now", "0"] {
            assert!(decode::<DateTime>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn areas_have_segments() {
        assert_eq!(
            decode::<EgressArea>("中国//山东/ 济南 /").unwrap().to_string(),
            "中国/山东/济南"
        );
        for yaml in ["''", "/", "5"] {
            assert!(decode::<EgressArea>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn header_names_are_tokens() {
        assert_eq!(decode::<HeaderName>("X-Path").unwrap().as_str(), "x-path");
        for yaml in ["''", "a b", "'a:'", "bücher", "5"] {
            assert!(decode::<HeaderName>(yaml).is_err(), "{yaml}");
        }
    }
}
