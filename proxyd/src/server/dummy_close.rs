//! `dummy_close`: closes every connection that is handed to it.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Accepted, ServerCommon};

/// What `dummy_close` is configured with: nothing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DummyCloseConfig {}

pub(crate) struct DummyClose {
    pub(crate) common: Arc<ServerCommon>,
}

impl DummyClose {
    #[expect(clippy::unused_self, reason = "all kinds are called alike")]
    pub(crate) fn close(&self, conn: Accepted) {
        drop(conn);
    }
}
