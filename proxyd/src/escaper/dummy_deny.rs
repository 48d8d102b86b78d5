//! `dummy_deny`: refuses every task.

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::value::TagMap;

use super::{EscaperCommon, unavailable};
use crate::connect::ConnectError;

/// What `dummy_deny` is configured with.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DummyDenyConfig {
    /// Tags that are added to the escaper's metrics.
    pub(crate) extra_metrics_tags: TagMap,
}

pub(crate) struct DummyDeny {
    pub(crate) common: EscaperCommon,
}

impl DummyDeny {
    pub(crate) fn refuse(&self) -> ConnectError {
        unavailable(&self.common)
    }
}
