//! Rules on what is done with streams, by host.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use foldhash::fast::RandomState;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use sluice_addr::Host;
use sluice_config::schema_as;
use sluice_config::value::{Domain, InspectAction, Network, OneOrMany};

use crate::host::with_parents;
use crate::network::Table;

/// What is done with streams of one protocol, by the host that they go to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "PolicyForm")]
pub struct InspectPolicy {
    default: InspectAction,
    exact: HashMap<Host, InspectAction, RandomState>,
    children: HashMap<Box<str>, InspectAction, RandomState>,
    subnets: Table<InspectAction>,
}

schema_as!(InspectPolicy => PolicyForm);

impl InspectPolicy {
    /// What is done with a stream to a host.
    pub fn check(&self, host: &Host) -> InspectAction {
        self.find(host).0
    }

    /// The same, and the key that says so.
    pub fn find(&self, host: &Host) -> (InspectAction, &'static str) {
        let below = || match host {
            Host::Ip(ip) => Some((self.subnets.find(*ip)?, "subnet_match")),
            Host::Domain(name) => {
                let action = with_parents(name).find_map(|(domain, _)| self.children.get(domain))?;
                Some((*action, "child_match"))
            }
        };
        let exact = self.exact.get(host).map(|action| (*action, "exact_match"));
        exact.or_else(below).unwrap_or((self.default, "default"))
    }

    /// Whether there is a host with which this is done.
    pub fn has(&self, action: InspectAction) -> bool {
        let actions = self.exact.values().chain(self.children.values());
        self.default == action || actions.chain(self.subnets.values()).any(|own| *own == action)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "InspectPolicy")]
enum PolicyForm {
    Map(PolicyMap),
    Str(InspectAction),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct PolicyMap {
    default: InspectAction,
    #[serde(alias = "exact")]
    exact_match: InspectRule<Host>,
    #[serde(alias = "child")]
    child_match: InspectRule<Domain>,
    #[serde(alias = "subnet")]
    subnet_match: InspectRule<Network>,
}

/// Records with their actions, in file order; written as a map of actions.
#[derive(JsonSchema)]
#[schemars(inline)]
struct InspectRule<R>(#[schemars(with = "HashMap<InspectAction, OneOrMany<R>>")] Vec<(InspectAction, R)>);

impl<R> Default for InspectRule<R> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, R: Deserialize<'de>> Deserialize<'de> for InspectRule<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor<R>(PhantomData<R>);

        impl<'de, R: Deserialize<'de>> Visitor<'de> for MapVisitor<R> {
            type Value = InspectRule<R>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of actions to records")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut rule = Vec::new();
                while let Some(action) = map.next_key::<InspectAction>()? {
                    let records: OneOrMany<R> = map.next_value()?;
                    rule.extend(records.into_iter().map(|record| (action, record)));
                }
                Ok(InspectRule(rule))
            }
        }

        deserializer.deserialize_map(MapVisitor(PhantomData))
    }
}

impl From<PolicyForm> for InspectPolicy {
    fn from(form: PolicyForm) -> Self {
        let map = match form {
            PolicyForm::Str(default) => PolicyMap {
                default,
                ..PolicyMap::default()
            },
            PolicyForm::Map(map) => map,
        };
        let mut subnets = Table::default();
        for (action, network) in map.subnet_match.0 {
            subnets.insert(network, action);
        }
        Self {
            default: map.default,
            exact: map
                .exact_match
                .0
                .into_iter()
                .map(|(action, host)| (host, action))
                .collect(),
            children: map
                .child_match
                .0
                .into_iter()
                .map(|(action, domain)| (domain.0, action))
                .collect(),
            subnets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::{decode, errors};

    fn check(policy: &InspectPolicy, host: &str) -> InspectAction {
        policy.check(&Host::parse(host).unwrap())
    }

    #[test]
    fn a_word_is_for_all_hosts() {
        assert_eq!(check(&decode("bypass"), "a.test"), InspectAction::Bypass);
        assert_eq!(check(&InspectPolicy::default(), "a.test"), InspectAction::Intercept);
    }

    #[test]
    fn the_closest_record_decides() {
        let policy: InspectPolicy = decode(
            "{default: block, exact: {Bypass: [a.test, 10.0.0.1]}, child_match: {intercept: test}, \
             subnet: {detour: 10.0.0.0/8, bypass: 127.0.0.1}}",
        );
        for (host, action, key) in [
            ("a.test", InspectAction::Bypass, "exact_match"),
            ("b.a.test", InspectAction::Intercept, "child_match"),
            ("other", InspectAction::Block, "default"),
            ("10.0.0.1", InspectAction::Bypass, "exact_match"),
            ("10.0.0.2", InspectAction::Detour, "subnet_match"),
            ("127.0.0.1", InspectAction::Bypass, "subnet_match"),
            ("192.0.2.1", InspectAction::Block, "default"),
        ] {
            assert_eq!(check(&policy, host), action, "{host}");
            assert_eq!(policy.find(&Host::parse(host).unwrap()), (action, key), "{host}");
        }
    }

    #[test]
    fn rules_are_maps_of_actions() {
        for yaml in [
            "{exact: a.test}",
            "{exact: {allow: a.test}}",
            "{default: drop}",
            "{regex: {}}",
            "[]",
            "true",
        ] {
            assert!(!errors::<InspectPolicy>(yaml).is_empty(), "{yaml}");
        }
    }
}
