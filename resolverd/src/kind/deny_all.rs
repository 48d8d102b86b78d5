//! Refuses every query.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Common;
use crate::cache::TtlBounds;

/// It has no keys of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DenyAllConfig {}

/// Nothing is waited for and nothing kept.
pub(super) fn common() -> Common {
    Common {
        graceful_stop_wait: Duration::ZERO,
        protective_query_timeout: Duration::ZERO,
        ttl: TtlBounds::new(0, 0, 0),
    }
}
