//! What a server lets its clients ask for.

use sluice_acl::{DstHostSet, PortRule};
use sluice_addr::Upstream;

use super::ServerCommon;
use crate::user::{Login, Permit, Refusal, RequestKind};

/// The rules about hosts and ports; a target must pass both.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    pub(crate) hosts: Option<DstHostSet>,
    pub(crate) ports: Option<PortRule>,
}

impl Rules {
    /// Whether `target` may be asked for. An unspecified address leads nowhere (or to this host) and never is.
    fn allow(&self, target: &Upstream) -> bool {
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

    /// Whether a request that has been admitted without one may have `target`: the rules of its user, then ours.
    pub(crate) fn reach(&self, permit: Option<&Permit>, target: &Upstream) -> bool {
        permit.is_none_or(|permit| permit.user.reaches(target)) && self.allow(target)
    }

    /// Counts a target that is out of reach.
    pub(crate) fn count_denied(server: &ServerCommon, permit: Option<&Permit>) {
        server.stats.mine().dest_denied.add(1);
        if let Some(permit) = permit {
            permit.target_denied();
        }
    }

    /// Asks whether a request may go on that has no target yet.
    ///
    /// # Errors
    /// [`Refusal`], for the first thing that is against it.
    pub(crate) fn admit_open(
        server: &ServerCommon,
        login: Option<&mut Login>,
        kind: RequestKind,
    ) -> Result<Option<Permit>, Refusal> {
        if !server.takes_request() {
            return Err(Refusal::RateLimited);
        }
        login.map(|login| login.open_request(kind)).transpose()
    }

    /// Asks whether a request may go on: rates first, then the rules of its user, then ours (users.md §10.5).
    ///
    /// # Errors
    /// [`Refusal`], for the first thing that is against it.
    pub(crate) fn admit(
        &self,
        server: &ServerCommon,
        login: Option<&mut Login>,
        kind: RequestKind,
        target: &Upstream,
    ) -> Result<Option<Permit>, Refusal> {
        if !server.takes_request() {
            return Err(Refusal::RateLimited);
        }
        let allowed = || {
            let allowed = self.allow(target);
            if !allowed {
                server.stats.mine().dest_denied.add(1);
            }
            allowed
        };
        match login {
            Some(login) => login.request(kind, target, allowed).map(Some),
            None if allowed() => Ok(None),
            None => Err(Refusal::DestinationDenied),
        }
    }
}
