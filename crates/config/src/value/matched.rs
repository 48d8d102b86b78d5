//! Objects that hosts choose between.

use std::borrow::Cow;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::{fmt, iter};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use sluice_addr::Host;

use super::hosts::Domain;
use super::lists::OneOrMany;
use crate::Misfit;
use crate::decode::token;

/// Objects, each for some hosts: exactly these, all below a domain, or all that no other is for.
#[derive(Clone, Debug, PartialEq)]
pub struct HostMatched<T> {
    values: Vec<T>,
    exact: HashMap<Host, usize>,
    children: HashMap<Box<str>, usize>,
    default: Option<usize>,
}

impl<T> HostMatched<T> {
    /// The object for a host: an exact match, else the longest domain that it is or lies below, else the default.
    pub fn find(&self, host: &Host) -> Option<&T> {
        let child = || {
            let name = host.domain()?;
            let mut parents = iter::successors(Some(name), |name| name.split_once('.').map(|(_, parent)| parent));
            parents.find_map(|domain| self.children.get(domain))
        };
        let index = self.exact.get(host).or_else(child).or(self.default.as_ref())?;
        self.values.get(*index)
    }

    /// All objects, in file order.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    fn build(parts: impl IntoIterator<Item = Matched<T>>) -> Result<Self, Misfit> {
        let mut all = Self {
            values: Vec::new(),
            exact: HashMap::new(),
            children: HashMap::new(),
            default: None,
        };
        for (index, Matched { keys, value }) in parts.into_iter().enumerate() {
            let is_default = keys.set_default || (keys.exact_match.is_empty() && keys.child_match.is_empty());
            if is_default && all.default.replace(index).is_some() {
                return Err(Misfit::new(
                    "two of these are the default, for hosts that no other is for",
                ));
            }
            for host in keys.exact_match {
                let shown = host.to_string();
                if all.exact.insert(host, index).is_some() {
                    return Err(Misfit::new(format!("`{shown}` is matched exactly twice")));
                }
            }
            for domain in keys.child_match {
                let shown = domain.0.clone();
                if all.children.insert(domain.0, index).is_some() {
                    return Err(Misfit::new(format!("the domain `{shown}` is matched twice")));
                }
            }
            all.values.push(value);
        }
        Ok(all)
    }
}

/// The keys that say which hosts an object is for; they stand beside the object's own.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct MatchKeys {
    /// These hosts.
    exact_match: OneOrMany<Host>,
    /// These domains and all below them.
    child_match: OneOrMany<Domain>,
    /// All hosts that no other object is for.
    set_default: bool,
}

/// The names of [`MatchKeys`].
pub(crate) const MATCH_KEYS: &[&str] = &["exact_match", "child_match", "set_default"];

/// One object and its keys.
struct Matched<T> {
    keys: MatchKeys,
    value: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Matched<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Halves<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Halves<T> {
            type Value = Matched<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            /// The decoder gives the map twice: with the match keys alone, and without them.
            fn visit_seq<A: SeqAccess<'de>>(self, mut halves: A) -> Result<Matched<T>, A::Error> {
                let missing = || de::Error::custom("match keys are read from configuration files alone");
                let keys = halves.next_element()?.ok_or_else(missing)?;
                let value = halves.next_element()?.ok_or_else(missing)?;
                Ok(Matched { keys, value })
            }
        }

        deserializer.deserialize_newtype_struct(token::MATCHED, Halves(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for HostMatched<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parts = OneOrMany::<Matched<T>>::deserialize(deserializer)?;
        Self::build(parts).map_err(de::Error::custom)
    }
}

impl<T: JsonSchema> JsonSchema for HostMatched<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("HostMatched_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keys = MatchKeys::json_schema(generator);
        let mut value = T::json_schema(generator);
        let object = value.ensure_object();
        if let Some(Value::Object(more)) = keys.get("properties") {
            let own = object
                .entry("properties")
                .or_insert_with(|| Value::Object(serde_json::Map::new()));
            if let Value::Object(own) = own {
                own.extend(more.clone());
            }
        }
        json_schema!({"anyOf": [value, {"type": "array", "items": value}]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Site {
        #[serde(alias = "to")]
        port: u16,
    }

    fn port(hosts: &HostMatched<Site>, host: &str) -> Option<u16> {
        hosts.find(&Host::parse(host).unwrap()).map(|site| site.port)
    }

    #[test]
    fn exact_then_the_longest_domain_then_the_default() {
        let yaml = "[{exact_match: [a.test, 192.0.2.7], port: 1}, {Child-Match: test, to: 2}, \
                    {child_match: b.test, port: 3, set_default: true}]";
        let hosts = decode::<HostMatched<Site>>(yaml).unwrap();
        for (host, expected) in [
            ("a.test", 1),
            ("192.0.2.7", 1),
            ("x.a.test", 2),
            ("test", 2),
            ("y.b.test", 3),
            ("other", 3),
            ("192.0.2.8", 3),
        ] {
            assert_eq!(port(&hosts, host), Some(expected), "{host}");
        }
    }

    #[test]
    fn one_map_alone_is_the_default() {
        let hosts = decode::<HostMatched<Site>>("{port: 1}").unwrap();
        assert_eq!(port(&hosts, "any.test"), Some(1));
        let hosts = decode::<HostMatched<Site>>("{port: 1, exact_match: a.test}").unwrap();
        assert_eq!(port(&hosts, "any.test"), None);
    }

    #[test]
    fn what_is_said_twice_or_wrongly_is_refused() {
        for (yaml, error) in [
            (
                "[{port: 1}, {port: 2}]",
                "two of these are the default, for hosts that no other is for",
            ),
            (
                "[{port: 1, exact_match: a}, {port: 2, exact_match: A}]",
                "`a` is matched exactly twice",
            ),
            ("[{port: 1, child_match: [a, .a]}]", "the domain `a` is matched twice"),
            (
                "[{port: x, exact_match: 'a b'}]",
                "[0].exact_match: expected an IP address or a domain name, found `a b`: neither an IP address nor a valid domain \
              name; [0].port: expected an integer from 0 to 65535, found `x`",
            ),
            ("{port: 1, hosts: a}", "unknown key `hosts`"),
        ] {
            assert_eq!(decode::<HostMatched<Site>>(yaml).unwrap_err(), error, "{yaml}");
        }
    }
}
