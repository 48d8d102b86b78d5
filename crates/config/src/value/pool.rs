//! Pools of connections to a service.

use schemars::JsonSchema;
use serde::Deserialize;

use super::time::Span;

/// How many unused connections to a service are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionPool {
    /// How often unused connections are looked at.
    pub check_interval: Span,
    /// The most that are kept.
    pub max_idle_count: usize,
    /// Fewer than these are filled up.
    pub min_idle_count: usize,
    /// One unused for longer is closed.
    pub idle_timeout: Span,
}

impl Default for ConnectionPool {
    fn default() -> Self {
        Self {
            check_interval: Span::secs(10),
            max_idle_count: 1024,
            min_idle_count: 32,
            idle_timeout: Span::secs(5 * 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn one_key_leaves_the_other_defaults() {
        // CFG-07
        let expected = ConnectionPool {
            max_idle_count: 5,
            ..ConnectionPool::default()
        };
        assert_eq!(decode("{max-idle-count: 5}"), Ok(expected));
        assert_eq!(decode("{}"), Ok(ConnectionPool::default()));
        for yaml in ["5", "~", "{min_idle_count: -1}", "{size: 1}"] {
            assert!(decode::<ConnectionPool>(yaml).is_err(), "{yaml}");
        }
    }
}
