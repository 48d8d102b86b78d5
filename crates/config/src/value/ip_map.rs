//! Addresses that stand for others.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::schema_as;

/// Which address a peer is told in place of another: a map, `true` for one without entries, or `false` for none at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Form")]
pub struct IpMap(Option<HashMap<IpAddr, IpAddr>>);

schema_as!(IpMap => Form);

impl IpMap {
    /// The address to tell. One that a map has no entry for becomes the unspecified address of its family: the peer shall
    /// use the one that it knows.
    pub fn apply(&self, ip: IpAddr) -> IpAddr {
        let Some(map) = &self.0 else { return ip };
        map.get(&ip).copied().unwrap_or_else(|| match ip {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        })
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "IpMap")]
enum Form {
    Map(Map),
    Scalar(bool),
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Map(HashMap<IpAddr, IpAddr>);

impl JsonSchema for Map {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "IpMapEntries".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let ip = generator.subschema_for::<IpAddr>();
        json_schema!({"type": "object", "additionalProperties": ip})
    }
}

impl From<Form> for IpMap {
    fn from(form: Form) -> Self {
        match form {
            Form::Map(map) => Self(Some(map.0)),
            Form::Scalar(on) => Self(on.then(HashMap::new)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn an_address_is_told_as_the_map_says() {
        for (yaml, ip, told) in [
            (
                "{10.0.0.1: 192.0.2.1, '2001:db8::1': 2001:db8::2}",
                "10.0.0.1",
                "192.0.2.1",
            ),
            (
                "{10.0.0.1: 192.0.2.1, '2001:db8::1': 2001:db8::2}",
                "2001:db8::1",
                "2001:db8::2",
            ),
            ("{10.0.0.1: 192.0.2.1}", "10.0.0.2", "0.0.0.0"),
            ("{10.0.0.1: 192.0.2.1}", "2001:db8::1", "::"),
            ("true", "10.0.0.1", "0.0.0.0"),
            ("on", "2001:db8::1", "::"),
            ("{}", "10.0.0.1", "0.0.0.0"),
            ("false", "10.0.0.1", "10.0.0.1"),
            ("0", "10.0.0.1", "10.0.0.1"),
        ] {
            let map = decode::<IpMap>(yaml).unwrap();
            assert_eq!(map.apply(ip.parse().unwrap()).to_string(), told, "{yaml} {ip}");
        }
        let none = IpMap::default();
        assert_eq!(none.apply("10.0.0.1".parse().unwrap()).to_string(), "10.0.0.1");
        for yaml in [
            "{a: 10.0.0.1}",
            "{10.0.0.1: b}",
            "[]",
            "10.0.0.1",
            "{10.0.0.1: 10.0.0.2:80}",
        ] {
            assert!(decode::<IpMap>(yaml).is_err(), "{yaml}");
        }
    }
}
