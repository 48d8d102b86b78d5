//! `audit` of a user.

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::value::Ratio;

/// What a user says about being audited.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UserAudit {
    /// Whether the user's streams are inspected where the server has an auditor.
    pub(crate) enable_protocol_inspection: bool,
    /// Whether streams of unknown protocols are refused.
    pub(crate) prohibit_unknown_protocol: bool,
    /// Whether streams are refused whose protocol does not show in time.
    pub(crate) prohibit_timeout_protocol: bool,
    /// The share of tasks that are audited, in place of the auditor's.
    #[serde(alias = "application_audit_ratio")]
    pub(crate) task_audit_ratio: Option<Ratio>,
}

impl Default for UserAudit {
    fn default() -> Self {
        Self {
            enable_protocol_inspection: false,
            prohibit_unknown_protocol: false,
            prohibit_timeout_protocol: true,
            task_audit_ratio: None,
        }
    }
}
