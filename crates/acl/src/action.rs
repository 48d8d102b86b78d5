//! What a rule decides.

use schemars::JsonSchema;
use serde::Deserialize;

/// What a rule decides; the smaller one is the stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Refuse, and log it.
    #[serde(alias = "deny_log", alias = "reject_log")]
    ForbidLog,
    /// Refuse.
    #[serde(alias = "deny", alias = "reject")]
    Forbid,
    /// Allow, and log it.
    #[serde(alias = "allow_log", alias = "accept_log")]
    PermitLog,
    /// Allow.
    #[serde(alias = "allow", alias = "accept")]
    Permit,
}

impl Action {
    /// All actions, strictest first.
    pub const ALL: [Self; 4] = [Self::ForbidLog, Self::Forbid, Self::PermitLog, Self::Permit];

    /// Whether this refuses.
    pub fn forbids(self) -> bool {
        matches!(self, Self::Forbid | Self::ForbidLog)
    }

    /// Whether this is to be logged.
    pub fn logs(self) -> bool {
        matches!(self, Self::ForbidLog | Self::PermitLog)
    }

    /// The stricter of two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// The action of a normalised word.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "forbid_log" | "deny_log" | "reject_log" => Self::ForbidLog,
            "forbid" | "deny" | "reject" => Self::Forbid,
            "permit_log" | "allow_log" | "accept_log" => Self::PermitLog,
            "permit" | "allow" | "accept" => Self::Permit,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_action_wins() {
        assert_eq!(Action::Permit.and(Action::ForbidLog), Action::ForbidLog);
        assert_eq!(Action::Forbid.and(Action::PermitLog), Action::Forbid);
        assert!(Action::ALL.is_sorted());
    }
}
