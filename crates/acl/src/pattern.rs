//! Rules of regular expressions.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use regex::RegexSet;
use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::Misfit;
use sluice_config::value::{Domain, OneOrMany, RegexStr};

use crate::host::with_parents;
use crate::{Action, RuleForm};

/// Expressions with an action each; of all that match the strictest decides.
#[derive(Clone, Debug, Default)]
struct Patterns(Vec<(Action, RegexSet)>);

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        let shown = |own: &Self| {
            own.0
                .iter()
                .map(|(action, set)| (*action, set.patterns().to_vec()))
                .collect::<Vec<_>>()
        };
        shown(self) == shown(other)
    }
}

impl Patterns {
    /// Each expression is known to be good; together they may be too large.
    fn new(records: &[(Action, RegexStr)]) -> Result<Self, Misfit> {
        let mut sets = Vec::new();
        for action in Action::ALL {
            let patterns = records
                .iter()
                .filter(|(own, _)| *own == action)
                .map(|(_, regex)| regex.as_str());
            let set =
                RegexSet::new(patterns).map_err(|error| Misfit::new(format!("all expressions together: {error}")))?;
            if !set.is_empty() {
                sets.push((action, set));
            }
        }
        Ok(Self(sets))
    }

    fn find(&self, text: &str) -> Option<Action> {
        self.0
            .iter()
            .find(|(_, set)| set.is_match(text))
            .map(|(action, _)| *action)
    }
}

/// A rule of expressions that are searched for in a text.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RuleForm<RegexStr>")]
pub struct RegexRule {
    patterns: Patterns,
    missed: Action,
}

sluice_config::schema_as!(RegexRule => RuleForm<RegexStr>);

impl RegexRule {
    /// What the rule says about a text.
    pub fn check(&self, text: &str) -> Action {
        self.find(text).unwrap_or(self.missed)
    }

    /// What a record says about a text.
    pub fn find(&self, text: &str) -> Option<Action> {
        self.patterns.find(text)
    }
}

impl TryFrom<RuleForm<RegexStr>> for RegexRule {
    type Error = Misfit;

    fn try_from(form: RuleForm<RegexStr>) -> Result<Self, Misfit> {
        let records = form
            .records
            .into_iter()
            .map(|(action, regex)| (action.unwrap_or(Action::Permit), regex));
        let patterns = Patterns::new(&records.collect::<Vec<_>>())?;
        Ok(Self {
            patterns,
            missed: form.default.unwrap_or(Action::Forbid),
        })
    }
}

/// A record of a [`RegexDomainRule`]: an expression for whole names, or some for what stands left of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "RegexDomainRecord")]
pub enum RegexDomainRecord {
    /// Searched for in the whole name.
    Str(RegexStr),
    /// Searched for in what stands left of a domain.
    Map(ChildPatterns),
}

/// Expressions for the names below a domain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChildPatterns {
    /// The domain.
    pub parent: Domain,
    /// Searched for in what stands left of the domain and its dot.
    pub regex: OneOrMany<RegexStr>,
}

/// A rule of expressions on names.
///
/// Expressions under a domain are tried first, those of the longest domain before others, then those for whole names.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RuleForm<RegexDomainRecord>")]
pub struct RegexDomainRule {
    children: HashMap<Box<str>, Patterns, RandomState>,
    whole: Patterns,
    missed: Action,
}

sluice_config::schema_as!(RegexDomainRule => RuleForm<RegexDomainRecord>);

impl RegexDomainRule {
    /// What the rule says about a lower-case ASCII name.
    pub fn check(&self, name: &str) -> Action {
        self.find(name).unwrap_or(self.missed)
    }

    /// What a record says about a lower-case ASCII name.
    pub fn find(&self, name: &str) -> Option<Action> {
        let below = |(domain, left): (&str, &str)| self.children.get(domain)?.find(left);
        let child = if self.children.is_empty() {
            None
        } else {
            with_parents(name).find_map(below)
        };
        child.or_else(|| self.whole.find(name))
    }

    /// What the rule says where no record matches.
    pub fn missed(&self) -> Action {
        self.missed
    }
}

impl TryFrom<RuleForm<RegexDomainRecord>> for RegexDomainRule {
    type Error = Misfit;

    fn try_from(form: RuleForm<RegexDomainRecord>) -> Result<Self, Misfit> {
        let mut whole = Vec::new();
        let mut children: HashMap<Box<str>, Vec<(Action, RegexStr)>, RandomState> = HashMap::default();
        for (action, record) in form.records {
            let action = action.unwrap_or(Action::Permit);
            match record {
                RegexDomainRecord::Str(regex) => whole.push((action, regex)),
                RegexDomainRecord::Map(ChildPatterns { parent, regex }) => {
                    children
                        .entry(parent.0)
                        .or_default()
                        .extend(regex.into_iter().map(|regex| (action, regex)));
                }
            }
        }
        let built = children
            .into_iter()
            .map(|(domain, records)| Ok((domain, Patterns::new(&records)?)));
        Ok(Self {
            children: built.collect::<Result<_, Misfit>>()?,
            whole: Patterns::new(&whole)?,
            missed: form.default.unwrap_or(Action::Forbid),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::{decode, errors};

    #[test]
    fn of_matching_expressions_the_strictest_decides() {
        let rule: RegexRule = decode("{permit: ['^a', b], forbid: 'c$', forbid_log: d}");
        for (text, action) in [
            ("abc", Action::Forbid),
            ("ab", Action::Permit),
            ("adc", Action::ForbidLog),
            ("x", Action::Forbid),
            ("xb", Action::Permit),
        ] {
            assert_eq!(rule.check(text), action, "{text}");
        }
    }

    #[test]
    fn expressions_below_a_domain_come_first() {
        let rule: RegexDomainRule = decode(
            "{default: permit_log, permit: [{parent: a.test, regex: ['^www[0-9]*$', '^$']}, 'exact\\.other'], forbid: test}",
        );
        for (name, action) in [
            ("www1.a.test", Action::Permit),
            ("a.test", Action::Permit),
            ("x.a.test", Action::Forbid),
            ("www1.b.a.test", Action::Forbid),
            ("exact.other", Action::Permit),
            ("else.example", Action::PermitLog),
        ] {
            assert_eq!(rule.check(name), action, "{name}");
        }
    }

    #[test]
    fn a_bare_map_is_one_of_actions() {
        assert!(errors::<RegexDomainRule>("{parent: a.test, regex: x}").contains("unknown key"));
        let listed: RegexDomainRule = decode("[{parent: a.test, regex: x}]");
        assert_eq!(listed.check("x.a.test"), Action::Permit);
    }
}
