//! How names become addresses, for those who ask a resolver.

use schemars::JsonSchema;
use serde::Deserialize;

/// Which addresses of a name are asked for and used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(from = "StrategyForm")]
pub struct ResolveStrategy {
    /// The families.
    pub query: QueryStrategy,
    /// Which of several addresses is taken.
    pub pick: PickStrategy,
}

/// The address families that are asked for, and in which order they are liked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryStrategy {
    /// IPv4 before IPv6.
    #[default]
    #[serde(alias = "ipv4first")]
    Ipv4First,
    /// IPv4 alone.
    #[serde(alias = "ipv4only")]
    Ipv4Only,
    /// IPv6 before IPv4.
    #[serde(alias = "ipv6first")]
    Ipv6First,
    /// IPv6 alone.
    #[serde(alias = "ipv6only")]
    Ipv6Only,
}

/// Which of several addresses of a family is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PickStrategy {
    /// The first of the answer.
    #[serde(alias = "serial")]
    First,
    /// Any.
    #[default]
    Random,
}

impl QueryStrategy {
    /// Whether IPv4 addresses are used.
    pub fn ipv4(self) -> bool {
        self != Self::Ipv6Only
    }

    /// Whether IPv6 addresses are used.
    pub fn ipv6(self) -> bool {
        self != Self::Ipv4Only
    }

    /// Whether IPv4 is liked better, or alone.
    pub fn prefers_ipv4(self) -> bool {
        matches!(self, Self::Ipv4First | Self::Ipv4Only)
    }

    /// What is left when a family is disabled; `None` if nothing is.
    #[must_use]
    pub fn without(self, no_ipv4: bool, no_ipv6: bool) -> Option<Self> {
        match (self.ipv4() && !no_ipv4, self.ipv6() && !no_ipv6) {
            (true, true) => Some(self),
            (true, false) => Some(Self::Ipv4Only),
            (false, true) => Some(Self::Ipv6Only),
            (false, false) => None,
        }
    }
}

impl ResolveStrategy {
    /// The strategy with a user's laid over it: one family alone stays, `pick` is the user's.
    #[must_use]
    pub fn with_user(self, user: Self) -> Self {
        let only = matches!(self.query, QueryStrategy::Ipv4Only | QueryStrategy::Ipv6Only);
        Self {
            query: if only { self.query } else { user.query },
            pick: user.pick,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "ResolveStrategy")]
enum StrategyForm {
    Map(StrategyMap),
    Str(QueryStrategy),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct StrategyMap {
    query: QueryStrategy,
    pick: PickStrategy,
}

impl From<StrategyForm> for ResolveStrategy {
    fn from(form: StrategyForm) -> Self {
        match form {
            StrategyForm::Map(StrategyMap { query, pick }) => Self { query, pick },
            StrategyForm::Str(query) => Self {
                query,
                ..Self::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn a_strategy_is_a_word_or_a_map() {
        let strategy = |query, pick| Ok(ResolveStrategy { query, pick });
        for yaml in ["Ipv6Only", "ipv6_only", "ipv6-only", "IPV6ONLY", "{query: ipv6only}"] {
            assert_eq!(
                decode(yaml),
                strategy(QueryStrategy::Ipv6Only, PickStrategy::Random),
                "{yaml}"
            );
        }
        for yaml in ["{pick: First}", "{pick: serial, query: Ipv4First}"] {
            assert_eq!(
                decode(yaml),
                strategy(QueryStrategy::Ipv4First, PickStrategy::First),
                "{yaml}"
            );
        }
        for yaml in ["ipv5", "{pick: last}", "{queries: ipv4only}", "4", "[]"] {
            assert!(decode::<ResolveStrategy>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn a_disabled_family_narrows_a_strategy() {
        assert_eq!(
            QueryStrategy::Ipv4First.without(true, false),
            Some(QueryStrategy::Ipv6Only)
        );
        assert_eq!(QueryStrategy::Ipv4Only.without(true, false), None);
        assert_eq!(
            QueryStrategy::Ipv6First.without(false, false),
            Some(QueryStrategy::Ipv6First)
        );
    }
}
