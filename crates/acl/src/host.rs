//! Rules on hosts: exact ones, and domains with all below them.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use serde::Deserialize;
use sluice_addr::Host;
use sluice_config::value::Domain;

use crate::{Action, RuleForm};

/// A rule on hosts, name or address, each for itself.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "RuleForm<Host>")]
pub struct ExactHostRule {
    table: HashMap<Host, Action, RandomState>,
    missed: Action,
}

sluice_config::schema_as!(ExactHostRule => RuleForm<Host>);

impl ExactHostRule {
    /// What the rule says about a host.
    pub fn check(&self, host: &Host) -> Action {
        self.find(host).unwrap_or(self.missed)
    }

    /// What a record says about a host.
    pub fn find(&self, host: &Host) -> Option<Action> {
        self.table.get(host).copied()
    }

    /// What the rule says where no record matches.
    pub fn missed(&self) -> Action {
        self.missed
    }
}

impl From<RuleForm<Host>> for ExactHostRule {
    fn from(form: RuleForm<Host>) -> Self {
        let records = form.records.into_iter();
        Self {
            table: records
                .map(|(action, host)| (host, action.unwrap_or(Action::Permit)))
                .collect(),
            missed: form.default.unwrap_or(Action::Forbid),
        }
    }
}

/// A rule on domains, each with all below it; the longest decides.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "RuleForm<Domain>")]
pub struct ChildDomainRule {
    table: HashMap<Box<str>, Action, RandomState>,
    missed: Action,
}

sluice_config::schema_as!(ChildDomainRule => RuleForm<Domain>);

impl ChildDomainRule {
    /// What the rule says about a lower-case ASCII name.
    pub fn check(&self, name: &str) -> Action {
        self.find(name).unwrap_or(self.missed)
    }

    /// What a record says about a lower-case ASCII name.
    pub fn find(&self, name: &str) -> Option<Action> {
        with_parents(name).find_map(|(domain, _)| self.table.get(domain).copied())
    }

    /// What the rule says where no record matches.
    pub fn missed(&self) -> Action {
        self.missed
    }
}

impl From<RuleForm<Domain>> for ChildDomainRule {
    fn from(form: RuleForm<Domain>) -> Self {
        let records = form.records.into_iter();
        Self {
            table: records
                .map(|(action, domain)| (domain.0, action.unwrap_or(Action::Permit)))
                .collect(),
            missed: form.default.unwrap_or(Action::Forbid),
        }
    }
}

/// The name and all domains that it is below of, longest first, each with what stands left of it without the dot.
pub(crate) fn with_parents(name: &str) -> impl Iterator<Item = (&str, &str)> {
    let dots = name.match_indices('.').map(|(at, _)| at);
    let parents = dots.filter_map(|at| Some((name.get(at + 1..)?, name.get(..at)?)));
    std::iter::once((name, "")).chain(parents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::decode;

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    #[test]
    fn exact_hosts_match_as_a_whole() {
        let rule: ExactHostRule = decode("{allow: [Example.COM, 192.0.2.1, '::1', 例え.test], forbid: b.example.com}");
        for (text, action) in [
            ("example.com", Action::Permit),
            ("EXAMPLE.com.", Action::Permit),
            ("a.example.com", Action::Forbid),
            ("192.0.2.1", Action::Permit),
            ("::ffff:192.0.2.1", Action::Permit),
            ("::1", Action::Permit),
            ("xn--r8jz45g.test", Action::Permit),
        ] {
            assert_eq!(rule.check(&host(text)), action, "{text}");
        }
        assert_eq!(rule.find(&host("other.test")), None);
    }

    #[test]
    fn a_domain_covers_itself_and_all_below() {
        let rule: ChildDomainRule =
            decode("{default: permit, forbid: [example.com, .test], permit_log: ok.example.com}");
        for (name, action) in [
            ("example.com", Action::Forbid),
            ("a.b.example.com", Action::Forbid),
            ("ok.example.com", Action::PermitLog),
            ("x.ok.example.com", Action::PermitLog),
            ("notexample.com", Action::Permit),
            ("com", Action::Permit),
            ("a.test", Action::Forbid),
        ] {
            assert_eq!(rule.check(name), action, "{name}");
        }
    }
}
