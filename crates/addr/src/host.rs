//! An IP address or a domain name.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use idna::AsciiDenyList;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use thiserror::Error;

/// The longest name of RFC 1035 §2.3.4, in its text form without the last dot.
const MAX_NAME: usize = 253;
/// The longest label of RFC 1035 §2.3.4.
const MAX_LABEL: usize = 63;

/// A host that a connection can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An address; never an IPv4-mapped IPv6 one.
    Ip(IpAddr),
    /// A domain name: ASCII, lower case, without a dot at its end.
    Domain(Box<str>),
}

/// Why a text is no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseHostError {
    /// Nothing is there.
    #[error("the host is empty")]
    Empty,
    /// The text is neither an address nor a name that IDNA (UTS 46) accepts.
    #[error("neither an IP address nor a valid domain name")]
    Invalid,
    /// The name or one of its labels is longer than RFC 1035 allows.
    #[error("the name is too long: 253 bytes, 63 in a label")]
    TooLong,
}

impl Host {
    /// Parses an IP address without brackets, or a domain name.
    ///
    /// # Errors
    /// [`ParseHostError`] if the text is neither.
    pub fn parse(text: &str) -> Result<Self, ParseHostError> {
        match parse_ip(text) {
            Some(ip) => Ok(Self::Ip(ip)),
            None => Self::parse_domain(text),
        }
    }

    /// Parses a domain name; an IP address in its place is an error.
    ///
    /// # Errors
    /// [`ParseHostError`] if the text is no name.
    pub fn parse_domain(text: &str) -> Result<Self, ParseHostError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(ParseHostError::Empty);
        }
        if parse_ip(text).is_some() {
            return Err(ParseHostError::Invalid);
        }
        let name = if is_plain(text) {
            Cow::Borrowed(text)
        } else {
            to_ascii(text)?
        };
        check_labels(&name)?;
        Ok(Self::Domain(name.into()))
    }

    /// The address, if the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Domain(_) => None,
        }
    }

    /// The name, if the host is one.
    pub fn domain(&self) -> Option<&str> {
        match self {
            Self::Ip(_) => None,
            Self::Domain(name) => Some(name),
        }
    }

    /// Whether this is `0.0.0.0` or `::`, which no connection can be made to.
    pub fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }
}

/// An address in its canonical form, if the text is one.
fn parse_ip(text: &str) -> Option<IpAddr> {
    // Only these can begin an address; a name that begins otherwise skips the parser.
    let first = *text.as_bytes().first()?;
    if !first.is_ascii_hexdigit() && first != b':' {
        return None;
    }
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// Whether the name needs no IDNA processing: lower-case ASCII without a label that IDNA would look into.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
        && !text.contains("xn--")
}

fn to_ascii(text: &str) -> Result<Cow<'_, str>, ParseHostError> {
    let ascii = idna::domain_to_ascii_cow(text.as_bytes(), AsciiDenyList::URL).map_err(|_| ParseHostError::Invalid)?;
    // Full-width digits and dots are mapped by IDNA: what was a name may turn out to be an address in disguise.
    if parse_ip(&ascii).is_some() {
        return Err(ParseHostError::Invalid);
    }
    Ok(match ascii.strip_suffix('.') {
        Some(name) => Cow::Owned(name.to_owned()),
        None => ascii,
    })
}

fn check_labels(name: &str) -> Result<(), ParseHostError> {
    if name.len() > MAX_NAME {
        return Err(ParseHostError::TooLong);
    }
    for label in name.split('.') {
        match label.len() {
            0 => return Err(ParseHostError::Invalid),
            1..=MAX_LABEL => {}
            _ => return Err(ParseHostError::TooLong),
        }
    }
    Ok(())
}

impl fmt::Display for Host {
    /// Writes the host without brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Domain(name) => f.write_str(name),
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }
}

impl FromStr for Host {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HostVisitor;

        impl Visitor<'_> for HostVisitor {
            type Value = Host;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an IP address or a domain name")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Host, E> {
                Host::parse(text)
                    .map_err(|why| de::Error::invalid_value(de::Unexpected::Other(&format!("`{text}`: {why}")), &self))
            }
        }

        deserializer.deserialize_any(HostVisitor)
    }
}

impl JsonSchema for Host {
    fn schema_name() -> Cow<'static, str> {
        "Host".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "description": "an IP address without brackets, or a domain name"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Host {
        Host::Domain(text.into())
    }

    #[test]
    fn addresses_and_names_are_told_apart() {
        assert_eq!(Host::parse("127.0.0.1"), Ok(Host::Ip([127, 0, 0, 1].into())));
        assert_eq!(
            Host::parse("2001:db8::1").map(|host| host.to_string()).as_deref(),
            Ok("2001:db8::1")
        );
        assert_eq!(Host::parse("example.com"), Ok(domain("example.com")));
        assert_eq!(Host::parse("a_b.example"), Ok(domain("a_b.example")));
        assert_eq!(Host::parse("cafe"), Ok(domain("cafe")));
    }

    #[test]
    fn names_are_brought_into_one_form() {
        assert_eq!(Host::parse("WWW.Example.COM"), Ok(domain("www.example.com")));
        assert_eq!(Host::parse("example.com."), Ok(domain("example.com")));
        assert_eq!(Host::parse("www.例え.com"), Ok(domain("www.xn--r8jz45g.com")));
        assert_eq!(Host::parse("bücher。example"), Ok(domain("xn--bcher-kva.example")));
    }

    #[test]
    fn a_mapped_address_is_the_address_it_means() {
        assert_eq!(Host::parse("::ffff:10.0.0.1"), Ok(Host::Ip([10, 0, 0, 1].into())));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "[::1]",
            "a:80",
            "a b",
            "a/b",
            "user@host",
            "%41",
            "xn--a",
            "１２７.0.0.1",
        ] {
            assert!(Host::parse(text).is_err(), "{text}");
        }
        assert_eq!(Host::parse(&"a".repeat(64)), Err(ParseHostError::TooLong));
        assert_eq!(
            Host::parse(&"a.".repeat(127)).map(|host| host.to_string().len()),
            Ok(253)
        );
        assert_eq!(Host::parse(&"ab.".repeat(100)), Err(ParseHostError::TooLong));
    }

    #[test]
    fn an_address_is_no_domain() {
        assert!(Host::parse_domain("10.0.0.1").is_err());
        assert!(Host::parse_domain("::1").is_err());
    }
}
