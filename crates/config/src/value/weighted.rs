//! Things to pick from, each with a weight.

use std::borrow::Cow;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::hosts::UpstreamAddr;
use super::metrics::NodeName;
use super::scalar::{Raw, Scalar, UNFIT, scalar};

/// How often something is picked in comparison: a number of at least 0, 1 if not set.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Weight(pub f64);

impl Default for Weight {
    fn default() -> Self {
        Self(1.0)
    }
}

impl Scalar for Weight {
    const EXPECTED: &'static str = "a weight: a number of at least 0";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let weight = match raw {
            #[expect(clippy::cast_precision_loss, reason = "weights that large are alike")]
            Raw::Int(weight) => weight as f64,
            Raw::Float(weight) => weight,
            Raw::Str(text) => text.trim().parse().map_err(|_| UNFIT)?,
            Raw::Bool(_) => return Err(UNFIT),
        };
        if weight.is_finite() && weight >= 0.0 {
            Ok(Self(weight))
        } else {
            Err(UNFIT)
        }
    }
}

scalar!(Weight, {"type": ["number", "string"], "minimum": 0});

/// An upstream address and its weight; the port is as in [`UpstreamAddr`].
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(from = "UpstreamForm<PORT>")]
pub struct WeightedUpstream<const PORT: u16> {
    /// The address.
    pub addr: UpstreamAddr<PORT>,
    /// The weight.
    pub weight: Weight,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "WeightedUpstream{PORT}")]
enum UpstreamForm<const PORT: u16> {
    Map(UpstreamMap<PORT>),
    Str(UpstreamAddr<PORT>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct UpstreamMap<const PORT: u16> {
    #[serde(alias = "address")]
    addr: UpstreamAddr<PORT>,
    #[serde(default)]
    weight: Weight,
}

impl<const PORT: u16> From<UpstreamForm<PORT>> for WeightedUpstream<PORT> {
    fn from(form: UpstreamForm<PORT>) -> Self {
        match form {
            UpstreamForm::Map(UpstreamMap { addr, weight }) => Self { addr, weight },
            UpstreamForm::Str(addr) => Self {
                addr,
                weight: Weight::default(),
            },
        }
    }
}

/// A socket address and its weight.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(from = "AddrForm")]
pub struct WeightedSockAddr {
    /// The address.
    pub addr: SocketAddr,
    /// The weight.
    pub weight: Weight,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "WeightedSockAddr")]
enum AddrForm {
    Map(AddrMap),
    Str(#[schemars(with = "String")] SocketAddr),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AddrMap {
    #[schemars(with = "String")]
    #[serde(alias = "address")]
    addr: SocketAddr,
    #[serde(default)]
    weight: Weight,
}

impl From<AddrForm> for WeightedSockAddr {
    fn from(form: AddrForm) -> Self {
        match form {
            AddrForm::Map(AddrMap { addr, weight }) => Self { addr, weight },
            AddrForm::Str(addr) => Self {
                addr,
                weight: Weight::default(),
            },
        }
    }
}

/// The name of a node and its weight.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(from = "NameForm")]
pub struct WeightedName {
    /// The name.
    pub name: NodeName,
    /// The weight.
    pub weight: Weight,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "WeightedName")]
enum NameForm {
    Map(NameMap),
    Other(NodeName),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NameMap {
    name: NodeName,
    #[serde(default)]
    weight: Weight,
}

impl From<NameForm> for WeightedName {
    fn from(form: NameForm) -> Self {
        match form {
            NameForm::Map(NameMap { name, weight }) => Self { name, weight },
            NameForm::Other(name) => Self {
                name,
                weight: Weight::default(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn an_upstream_may_have_a_weight() {
        // CFG-03
        for (yaml, shown, weight) in [
            ("127.0.0.1", "127.0.0.1:80", 1.0),
            ("'[2001:db8::1]:8080'", "[2001:db8::1]:8080", 1.0),
            ("{addr: example.net, weight: 2}", "example.net:80", 2.0),
            ("{Address: '2001:db8::1', weight: '0.5'}", "[2001:db8::1]:80", 0.5),
        ] {
            let upstream = decode::<WeightedUpstream<80>>(yaml).unwrap();
            assert_eq!(
                (upstream.addr.0.to_string().as_str(), upstream.weight.0),
                (shown, weight),
                "{yaml}"
            );
        }
        for yaml in [
            "{}",
            "{addr: a, weight: -1}",
            "{addr: a, weight: .nan}",
            "{addr: a, port: 1}",
            "80",
            "[a]",
        ] {
            assert!(decode::<WeightedUpstream<80>>(yaml).is_err(), "{yaml}");
        }
        assert!(decode::<WeightedUpstream<0>>("example.net").is_err());
    }

    #[test]
    fn a_socket_address_may_have_a_weight() {
        // CFG-03
        for yaml in [
            "1.2.3.4:80",
            "'[::1]:80'",
            "{addr: '1.2.3.4:80', weight: 2}",
            "{address: '[::1]:80'}",
        ] {
            assert!(decode::<WeightedSockAddr>(yaml).is_ok(), "{yaml}");
        }
        for yaml in ["1.2.3.4", "host:80", "{weight: 1}", "{addr: 1}"] {
            assert!(decode::<WeightedSockAddr>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn a_name_may_have_a_weight() {
        assert_eq!(decode::<WeightedName>("a").unwrap().weight, Weight(1.0));
        assert_eq!(
            decode::<WeightedName>("{name: a, weight: 3}").unwrap().weight,
            Weight(3.0)
        );
        for yaml in ["5", "{weight: 3}", "{name: 5}", "a b"] {
            assert!(decode::<WeightedName>(yaml).is_err(), "{yaml}");
        }
    }
}
