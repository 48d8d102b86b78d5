//! Which targets a server lets its clients ask for.

use sluice_acl::{DstHostSet, PortRule};
use sluice_addr::Upstream;

/// The rules about hosts and ports; a target must pass both.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    pub(crate) hosts: Option<DstHostSet>,
    pub(crate) ports: Option<PortRule>,
}

impl Rules {
    /// Whether `target` may be asked for. An unspecified address leads nowhere (or to this host) and never is.
    pub(crate) fn allow(&self, target: &Upstream) -> bool {
        let host = self
            .hosts
            .as_ref()
            .is_none_or(|rule| !rule.check(&target.host).forbids());
        let port = self
            .ports
            .as_ref()
            .is_none_or(|rule| !rule.check(target.port).forbids());
        host && port && !target.is_empty()
    }
}
