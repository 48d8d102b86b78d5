//! Product names in what is sent out, and who is sending.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;

/// The product whose names stand in metrics, logs and realms: the `naming` key of the main file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Naming {
    /// `g3proxy`
    G3proxy,
    /// `sluice`, the default
    #[default]
    Sluice,
    /// `vey-proxy`
    Vey,
}

impl Naming {
    /// Every value with the text that selects it in the main file.
    pub const ALL: [(&'static str, Self); 3] =
        [("g3proxy", Self::G3proxy), ("sluice", Self::Sluice), ("vey", Self::Vey)];

    /// The product's name: metric prefix, syslog ident, first part of the fluentd tag and default realm.
    pub const fn product(self) -> &'static str {
        match self {
            Self::G3proxy => "g3proxy",
            Self::Sluice => "sluice",
            Self::Vey => "vey-proxy",
        }
    }
}

impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.product())
    }
}

/// A `naming` that is none of the known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `sluice`, `g3proxy` or `vey`")]
pub struct UnknownNaming;

impl FromStr for Naming {
    type Err = UnknownNaming;

    fn from_str(text: &str) -> Result<Self, UnknownNaming> {
        let mut all = Self::ALL.into_iter();
        all.find(|(name, _)| *name == text)
            .map(|(_, naming)| naming)
            .ok_or(UnknownNaming)
    }
}

/// Who writes: stands in every event record and on every metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The group given with `-G`; empty when there was none.
    pub daemon_group: String,
    /// The product names in use.
    pub product: Naming,
    /// The process id, which tells a serving process from a draining one.
    pub pid: u32,
}

impl Identity {
    /// This process under `daemon_group`.
    pub fn of_process(daemon_group: &str, product: Naming) -> Self {
        Self {
            daemon_group: daemon_group.to_owned(),
            product,
            pid: std::process::id(),
        }
    }
}
