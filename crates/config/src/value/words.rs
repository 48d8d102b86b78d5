//! Words out of a small set, and expressions.

use std::borrow::Cow;

use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

use super::scalar::{Raw, Scalar, UNFIT, scalar};

/// What a client asks a proxy for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyRequestType {
    /// An `ftp://` URL.
    #[serde(alias = "ftpoverhttp")]
    FtpOverHttp,
    /// HTTP CONNECT.
    #[serde(alias = "httpconnect")]
    HttpConnect,
    /// An `http://` URL.
    #[serde(alias = "httpforward")]
    HttpForward,
    /// An `https://` URL.
    #[serde(alias = "httpsforward")]
    HttpsForward,
    /// SOCKS CONNECT.
    #[serde(alias = "sockstcpconnect")]
    SocksTcpConnect,
    /// SOCKS UDP ASSOCIATE.
    #[serde(alias = "socksudpassociate")]
    SocksUdpAssociate,
}

/// How one of several nodes is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PickPolicy {
    /// A jump consistent hash, weights ignored.
    #[serde(alias = "jumphash", alias = "jump")]
    JumpHash,
    /// A consistent hash ring.
    Ketama,
    /// By chance and weight.
    #[default]
    Random,
    /// The highest hash.
    Rendezvous,
    /// In turn.
    #[serde(alias = "roundrobin", alias = "rr")]
    RoundRobin,
    /// Always the first, the next on a retry.
    #[serde(alias = "sequence")]
    Serial,
}

/// The header that tells the next hop who the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    Classic,
    /// None.
    None,
    /// `Forwarded` (RFC 7239).
    Standard,
}

impl Scalar for ForwardedHeader {
    const EXPECTED: &'static str = "`none`, `classic`, `standard` or a boolean";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let switch = |on| if on { Self::Classic } else { Self::None };
        match raw {
            Raw::Bool(on) => Ok(switch(on)),
            Raw::Int(number) => Ok(switch(number != 0)),
            Raw::Str(word) => match word.to_ascii_lowercase().as_str() {
                "none" | "disable" => Ok(Self::None),
                "classic" | "enable" => Ok(Self::Classic),
                "standard" | "rfc7239" => Ok(Self::Standard),
                word => crate::decode::word_as_bool(word).map(switch).ok_or(UNFIT),
            },
            Raw::Float(_) => Err(UNFIT),
        }
    }
}

scalar!(ForwardedHeader, {
    "anyOf": [
        {"type": "boolean"},
        {"type": "string", "examples": ["none", "disable", "classic", "enable", "standard", "rfc7239"]},
    ],
});

/// A regular expression in Rust's syntax, searched for unanchored.
#[derive(Clone, Debug)]
pub struct RegexStr(Regex);

impl RegexStr {
    /// The expression, ready to search.
    pub fn regex(&self) -> &Regex {
        &self.0
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for RegexStr {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for RegexStr {}

impl Scalar for RegexStr {
    const EXPECTED: &'static str = "a regular expression";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let Raw::Str(text) = raw else { return Err(UNFIT) };
        Regex::new(text).map(Self).map_err(|error| {
            // The last line of the parser's picture says what is wrong.
            let text = error.to_string();
            let reason = text
                .lines()
                .next_back()
                .unwrap_or_default()
                .trim_start_matches("error: ");
            Cow::Owned(reason.to_owned())
        })
    }
}

scalar!(RegexStr, {"type": "string", "format": "regex"});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn request_types_are_written_in_camels_or_snakes() {
        for yaml in ["HttpsForward", "https_forward", "HTTPSFORWARD"] {
            assert_eq!(
                decode::<ProxyRequestType>(yaml),
                Ok(ProxyRequestType::HttpsForward),
                "{yaml}"
            );
        }
        assert_eq!(
            decode::<ProxyRequestType>("SocksUdpAssociate"),
            Ok(ProxyRequestType::SocksUdpAssociate)
        );
        for yaml in ["https", "1", "[http_forward]", "''"] {
            assert!(decode::<ProxyRequestType>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn policies_have_short_names() {
        for (yaml, policy) in [
            ("Random", PickPolicy::Random),
            ("serial", PickPolicy::Serial),
            ("sequence", PickPolicy::Serial),
            ("round_robin", PickPolicy::RoundRobin),
            ("RoundRobin", PickPolicy::RoundRobin),
            ("rr", PickPolicy::RoundRobin),
            ("ketama", PickPolicy::Ketama),
            ("rendezvous", PickPolicy::Rendezvous),
            ("jump_hash", PickPolicy::JumpHash),
            ("jump", PickPolicy::JumpHash),
        ] {
            assert_eq!(decode::<PickPolicy>(yaml), Ok(policy), "{yaml}");
        }
        assert!(decode::<PickPolicy>("first").is_err());
    }

    #[test]
    fn the_forwarded_header_is_a_word_or_a_switch() {
        for (yaml, header) in [
            ("none", ForwardedHeader::None),
            ("Disable", ForwardedHeader::None),
            ("false", ForwardedHeader::None),
            ("off", ForwardedHeader::None),
            ("classic", ForwardedHeader::Classic),
            ("enable", ForwardedHeader::Classic),
            ("1", ForwardedHeader::Classic),
            ("yes", ForwardedHeader::Classic),
            ("standard", ForwardedHeader::Standard),
            ("RFC7239", ForwardedHeader::Standard),
        ] {
            assert_eq!(decode::<ForwardedHeader>(yaml), Ok(header), "{yaml}");
        }
        assert!(decode::<ForwardedHeader>("x-forwarded-for").is_err());
    }

    #[test]
    fn a_bad_expression_says_why() {
        assert!(decode::<RegexStr>("'^a+\\.test$'").is_ok());
        let error = decode::<RegexStr>("'a(b'").unwrap_err();
        assert_eq!(error, "expected a regular expression, found `a(b`: unclosed group");
        for yaml in ["'(a)\\1'", "'a(?=b)'", "5"] {
            assert!(decode::<RegexStr>(yaml).is_err(), "{yaml}");
        }
    }
}
