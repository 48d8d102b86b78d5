//! A host and a port.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use thiserror::Error;

use crate::{Host, ParseHostError};

/// Where a connection is asked to go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Upstream {
    /// The address or name.
    pub host: Host,
    /// The port; 0 if the text that this was parsed from had none.
    pub port: u16,
}

/// Why a text is no upstream address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseUpstreamError {
    /// The host part is wrong.
    #[error(transparent)]
    Host(#[from] ParseHostError),
    /// A bracket is opened and not closed, or something stands between it and the port.
    #[error("unbalanced brackets")]
    Bracket,
    /// The part after the colon is no port number.
    #[error("the port is no number from 0 to 65535")]
    Port,
}

impl Upstream {
    /// An upstream of these parts.
    pub fn new(host: impl Into<Host>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// Parses `host`, `host:port`, `[ip6]`, `[ip6]:port` or a bare IPv6 address. A missing port is 0.
    ///
    /// # Errors
    /// [`ParseUpstreamError`] if host or port are wrong.
    pub fn parse(text: &str) -> Result<Self, ParseUpstreamError> {
        if let Some(rest) = text.strip_prefix('[') {
            let (inner, rest) = rest.split_once(']').ok_or(ParseUpstreamError::Bracket)?;
            let ip: IpAddr = inner.parse::<Ipv6Addr>().map_err(|_| ParseHostError::Invalid)?.into();
            let port = match rest.strip_prefix(':') {
                Some(port) => parse_port(port)?,
                None if rest.is_empty() => 0,
                None => return Err(ParseUpstreamError::Bracket),
            };
            return Ok(Self::new(ip, port));
        }
        match text.split_once(':') {
            None => Ok(Self {
                host: Host::parse(text)?,
                port: 0,
            }),
            Some((_, rest)) if rest.contains(':') => Ok(Self {
                host: Host::parse(text)?,
                port: 0,
            }),
            Some((host, port)) => Ok(Self {
                host: Host::parse(host)?,
                port: parse_port(port)?,
            }),
        }
    }

    /// The same, with `port` in place of a missing one.
    #[must_use]
    pub fn or_port(mut self, port: u16) -> Self {
        if self.port == 0 {
            self.port = port;
        }
        self
    }

    /// The socket address, if the host is an address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.host.ip().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// Whether nothing can be reached there: port 0, or host `0.0.0.0` or `::`.
    pub fn is_empty(&self) -> bool {
        self.port == 0 || self.host.is_unspecified()
    }
}

fn parse_port(text: &str) -> Result<u16, ParseUpstreamError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseUpstreamError::Port); // u16::from_str would take a sign
    }
    text.parse().map_err(|_| ParseUpstreamError::Port)
}

impl fmt::Display for Upstream {
    /// Writes `host:port`, an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl From<SocketAddr> for Upstream {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr.ip(), addr.port())
    }
}

impl FromStr for Upstream {
    type Err = ParseUpstreamError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UpstreamVisitor;

        impl Visitor<'_> for UpstreamVisitor {
            type Value = Upstream;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a host with an optional port, such as `example.net:443` or `[2001:db8::1]:443`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Upstream, E> {
                Upstream::parse(text)
                    .map_err(|why| de::Error::invalid_value(de::Unexpected::Other(&format!("`{text}`: {why}")), &self))
            }
        }

        deserializer.deserialize_any(UpstreamVisitor)
    }
}

impl JsonSchema for Upstream {
    fn schema_name() -> Cow<'static, str> {
        "Upstream".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "description": "host[:port], an IPv6 address with a port in brackets"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_parses() {
        // CFG-03
        for (text, shown) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1", "127.0.0.1:0"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("[2001:db8::1]", "[2001:db8::1]:0"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("www.例え.com:80", "www.xn--r8jz45g.com:80"),
            ("example.net", "example.net:0"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("Example.NET.:443", "example.net:443"),
        ] {
            assert_eq!(
                Upstream::parse(text).map(|upstream| upstream.to_string()).as_deref(),
                Ok(shown),
                "{text}"
            );
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            ":80",
            "[::1",
            "[::1]80",
            "[::1]:",
            "host:port",
            "host:99999",
            "host:+80",
            "host:",
            "[a]:80",
        ] {
            assert!(Upstream::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_default_port_fills_a_gap_only() {
        assert_eq!(Upstream::parse("a:1").map(|upstream| upstream.or_port(80).port), Ok(1));
        assert_eq!(Upstream::parse("a").map(|upstream| upstream.or_port(80).port), Ok(80));
    }

    #[test]
    fn unspecified_hosts_and_port_zero_are_empty() {
        for text in ["0.0.0.0:80", "[::]:80", "a:0"] {
            assert!(
                Upstream::parse(text).is_ok_and(|upstream| upstream.is_empty()),
                "{text}"
            );
        }
    }
}
