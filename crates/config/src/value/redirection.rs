//! Names that are looked up as other names or not at all.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use sluice_addr::Host;

use super::hosts::Domain;
use super::lists::OneOrMany;
use crate::Misfit;

/// The most redirections that one name goes through.
const MOST_STEPS: usize = 8;

/// Rules that replace a name by addresses, by another name, or in its last labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Form")]
pub struct ResolveRedirection {
    exact: HashMap<Box<str>, Target>,
    /// Deepest parent first.
    parents: Vec<Parent>,
}

/// What a name becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirected<'a> {
    /// These addresses; nothing is looked up.
    Addrs(&'a [IpAddr]),
    /// Another name, to be looked up in its place.
    Domain(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Addrs(Vec<IpAddr>),
    Domain(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parent {
    domain: Box<str>,
    /// Whether the domain itself is meant too.
    itself: bool,
    to: Box<str>,
}

impl Parent {
    /// The name with the matched part replaced.
    fn apply(&self, name: &str) -> Option<Box<str>> {
        let head = name.strip_suffix(&*self.domain)?;
        if head.is_empty() {
            return self.itself.then(|| self.to.clone());
        }
        head.ends_with('.').then(|| format!("{head}{}", self.to).into())
    }
}

/// A rule, for telling whether it was applied before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule<'a> {
    Exact(&'a str),
    Parent(usize),
}

impl ResolveRedirection {
    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.parents.is_empty()
    }

    /// What a lower-case ASCII name becomes, all rules followed to their end; `None` if no rule is about it.
    pub fn apply(&self, name: &str) -> Option<Redirected<'_>> {
        self.follow(name, true).unwrap_or_default()
    }

    /// The same by parent rules alone at the first step, for a name whose addresses are of the wrong family.
    pub fn apply_parents(&self, name: &str) -> Option<Redirected<'_>> {
        self.follow(name, false).unwrap_or_default()
    }

    /// Follows the rules; `Err` gives the names gone through if there is no end.
    fn follow(&self, name: &str, exact_first: bool) -> Result<Option<Redirected<'_>>, Vec<Box<str>>> {
        let mut now: Box<str> = name.into();
        let mut applied: Vec<Rule<'_>> = Vec::new();
        let mut names: Vec<Box<str>> = vec![now.clone()];
        loop {
            let exact = (exact_first || !applied.is_empty())
                .then(|| self.exact.get_key_value(&*now))
                .flatten();
            let (rule, next) = match exact {
                Some((_, Target::Addrs(addrs))) => return Ok(Some(Redirected::Addrs(addrs))),
                Some((own, Target::Domain(to))) => (Rule::Exact(own), to.clone()),
                None => {
                    let found = self
                        .parents
                        .iter()
                        .enumerate()
                        .find_map(|(at, rule)| Some((at, rule.apply(&now)?)));
                    let Some((at, next)) = found else { break };
                    (Rule::Parent(at), next)
                }
            };
            // A rule that leads into its own domain is not applied to what it made, and one that changes nothing ends it.
            if applied.last() == Some(&rule) {
                break;
            }
            if applied.contains(&rule) || applied.len() == MOST_STEPS {
                return Err(names);
            }
            applied.push(rule);
            if next == now {
                break;
            }
            names.push(next.clone());
            now = next;
        }
        Ok((!applied.is_empty()).then_some(Redirected::Domain(now)))
    }

    fn add(&mut self, rule: RuleMap) -> Result<(), Misfit> {
        let (domain, itself) = match rule {
            RuleMap {
                exact: Some(exact), to, ..
            } => {
                let target = match to {
                    To::Seq(addrs) => Target::Addrs(addrs.into_iter().map(|ip| ip.to_canonical()).collect()),
                    To::Str(Host::Ip(ip)) => Target::Addrs(vec![ip]),
                    To::Str(Host::Domain(name)) => Target::Domain(name),
                };
                self.exact.insert(exact.0, target);
                return Ok(());
            }
            RuleMap {
                parent: Some(parent), ..
            } => (parent.0, true),
            RuleMap { child: Some(child), .. } => (child.0, false),
            RuleMap { .. } => return Err(Misfit::new("one of `exact`, `parent` and `child` is needed")),
        };
        let To::Str(Host::Domain(to)) = rule.to else {
            return Err(Misfit::at(
                "to",
                "expected a domain name, which takes the place of the matched part",
            ));
        };
        self.parents.push(Parent { domain, itself, to });
        Ok(())
    }

    fn check(mut self) -> Result<Self, Misfit> {
        let depth = |parent: &Parent| std::cmp::Reverse(parent.domain.split('.').count());
        self.parents.sort_by_key(depth);
        let exact = self.exact.keys().map(ToString::to_string);
        let below = self.parents.iter().map(|parent| format!("x.{}", parent.domain));
        let mut starts: Vec<_> = exact.chain(below).collect();
        starts.sort();
        for name in starts {
            if let Err(names) = self.follow(&name, true) {
                let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
                return Err(Misfit::new(format!(
                    "the redirections have no end: {}",
                    names.join(" → ")
                )));
            }
        }
        Ok(self)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "ResolveRedirection")]
enum Form {
    Seq(Vec<CheckedRule>),
    Map(ExactMap),
}

/// One rule; alone it says what is wrong with it in its own place.
#[derive(Deserialize, JsonSchema)]
#[serde(try_from = "RuleMap")]
struct CheckedRule(#[schemars(with = "RuleMap")] RuleMap);

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RuleMap {
    /// This name.
    exact: Option<Domain>,
    /// This domain and all below it.
    parent: Option<Domain>,
    /// All below this domain.
    child: Option<Domain>,
    to: To,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "ResolveTo")]
enum To {
    Seq(Vec<IpAddr>),
    Str(Host),
}

impl TryFrom<RuleMap> for CheckedRule {
    type Error = Misfit;

    fn try_from(rule: RuleMap) -> Result<Self, Misfit> {
        ResolveRedirection::default().add(rule.clone())?;
        Ok(Self(rule))
    }
}

/// A map of names to what they become.
struct ExactMap(Vec<RuleMap>);

impl<'de> Deserialize<'de> for ExactMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor;

        impl<'de> Visitor<'de> for MapVisitor {
            type Value = ExactMap;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of domain names to addresses or names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ExactMap, A::Error> {
                let mut rules = Vec::new();
                while let Some((domain, to)) = map.next_entry()? {
                    rules.push(RuleMap {
                        exact: Some(domain),
                        parent: None,
                        child: None,
                        to,
                    });
                }
                Ok(ExactMap(rules))
            }
        }

        deserializer.deserialize_map(MapVisitor)
    }
}

impl JsonSchema for ExactMap {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ExactRedirections".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let to = generator.subschema_for::<To>();
        schemars::json_schema!({"type": "object", "additionalProperties": to})
    }
}

crate::schema_as!(ResolveRedirection => Form);

impl TryFrom<Form> for ResolveRedirection {
    type Error = Misfit;

    fn try_from(form: Form) -> Result<Self, Misfit> {
        let rules: OneOrMany<RuleMap> = match form {
            Form::Seq(rules) => rules.into_iter().map(|CheckedRule(rule)| rule).collect(),
            Form::Map(ExactMap(rules)) => OneOrMany(rules),
        };
        let mut redirection = Self::default();
        for rule in rules {
            redirection.add(rule)?;
        }
        redirection.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    fn to(yaml: &str, name: &str) -> String {
        match decode::<ResolveRedirection>(yaml).unwrap().apply(name) {
            None => "-".to_owned(),
            Some(Redirected::Domain(name)) => name.into(),
            Some(Redirected::Addrs(addrs)) => addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        }
    }

    #[test]
    fn exact_names_become_addresses_or_names() {
        let yaml = "{a.test: 10.0.0.1, b.test: ['::ffff:10.0.0.2', '::1'], C.test: d.test}";
        assert_eq!(to(yaml, "a.test"), "10.0.0.1");
        assert_eq!(to(yaml, "b.test"), "10.0.0.2 ::1");
        assert_eq!(to(yaml, "c.test"), "d.test");
        assert_eq!(to(yaml, "x.a.test"), "-");
    }

    #[test]
    fn parents_and_children_replace_the_matched_part() {
        let yaml = "[{parent: example.com, to: example.net}, {child: deep.example.com, to: other.test}]";
        assert_eq!(to(yaml, "example.com"), "example.net");
        assert_eq!(to(yaml, "a.b.example.com"), "a.b.example.net");
        assert_eq!(to(yaml, "x.deep.example.com"), "x.other.test");
        assert_eq!(to(yaml, "deep.example.com"), "deep.example.net");
        assert_eq!(to(yaml, "myexample.com"), "-");
    }

    #[test]
    fn exact_rules_come_first_and_may_exempt_a_name() {
        let yaml = "[{exact: a.test, parent: b.test, to: 10.0.0.1}, {parent: test, to: example}, {exact: www.test, to: www.test}]";
        assert_eq!(to(yaml, "a.test"), "10.0.0.1");
        assert_eq!(to(yaml, "b.test"), "b.example");
        assert_eq!(to(yaml, "www.test"), "www.test");
    }

    #[test]
    fn rules_are_followed_to_the_end() {
        assert_eq!(to("{t2.test: t1.test, t1.test: 10.0.0.1}", "t2.test"), "10.0.0.1");
        assert_eq!(to("[{parent: a.test, to: sub.a.test}]", "x.a.test"), "x.sub.a.test");
    }

    #[test]
    fn wrong_families_fall_through_to_the_parents() {
        let rules = decode::<ResolveRedirection>("[{exact: a.test, to: '::1'}, {parent: test, to: example}]").unwrap();
        assert_eq!(
            rules.apply_parents("a.test"),
            Some(Redirected::Domain("a.example".into()))
        );
    }

    #[test]
    fn rules_without_end_are_refused() {
        let errors = decode::<ResolveRedirection>("{a.test: b.test, b.test: a.test}").unwrap_err();
        assert_eq!(errors, "the redirections have no end: `a.test` → `b.test` → `a.test`");
        assert!(decode::<ResolveRedirection>("[{parent: a, to: b}, {parent: b, to: a}]").is_err());
    }

    #[test]
    fn bad_rules_are_told_in_their_place() {
        let errors =
            decode::<ResolveRedirection>("[{to: a.test}, {parent: a.test, to: 10.0.0.1}, {exact: a}]").unwrap_err();
        assert_eq!(
            errors,
            "[0]: one of `exact`, `parent` and `child` is needed; [1].to: expected a domain name, which takes the place of \
             the matched part; [2]: `to` is missing"
        );
    }
}
