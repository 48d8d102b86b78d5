//! Rules on ports and on kinds of request.

use serde::Deserialize;
use sluice_config::value::{Ports, ProxyRequestType};

use crate::{Action, RuleForm};

/// A rule on ports; of records that share a port the later one counts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "RuleForm<Ports>")]
pub struct PortRule {
    /// Later records first.
    records: Vec<(Action, Ports)>,
    missed: Action,
}

sluice_config::schema_as!(PortRule => RuleForm<Ports>);

impl PortRule {
    /// What the rule says about a port.
    pub fn check(&self, port: u16) -> Action {
        let found = self.records.iter().find(|(_, ports)| ports.contains(port));
        found.map_or(self.missed, |(action, _)| *action)
    }
}

impl From<RuleForm<Ports>> for PortRule {
    fn from(form: RuleForm<Ports>) -> Self {
        let records = form.records.into_iter().rev();
        Self {
            records: records
                .map(|(action, ports)| (action.unwrap_or(Action::Permit), ports))
                .collect(),
            missed: form.default.unwrap_or(Action::Forbid),
        }
    }
}

/// A rule on what a client asks for.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "RuleForm<ProxyRequestType>")]
pub struct ProxyRequestRule {
    /// Later records first.
    records: Vec<(Action, ProxyRequestType)>,
    missed: Action,
}

sluice_config::schema_as!(ProxyRequestRule => RuleForm<ProxyRequestType>);

impl ProxyRequestRule {
    /// What the rule says about a kind of request.
    pub fn check(&self, request: ProxyRequestType) -> Action {
        let found = self.records.iter().find(|(_, own)| *own == request);
        found.map_or(self.missed, |(action, _)| *action)
    }
}

impl From<RuleForm<ProxyRequestType>> for ProxyRequestRule {
    fn from(form: RuleForm<ProxyRequestType>) -> Self {
        let records = form.records.into_iter().rev();
        Self {
            records: records
                .map(|(action, request)| (action.unwrap_or(Action::Permit), request))
                .collect(),
            missed: form.default.unwrap_or(Action::Forbid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::{decode, errors};

    #[test]
    fn ports_are_listed_or_mapped() {
        let rule: PortRule = decode("[80, 443, 8000-8010]");
        assert_eq!(
            [80, 8005, 8011].map(|port| rule.check(port)),
            [Action::Permit, Action::Permit, Action::Forbid]
        );
        let rule: PortRule = decode("{default: permit, forbid: 1-1023, permit: [80, '443']}");
        assert_eq!(
            [25, 80, 1024].map(|port| rule.check(port)),
            [Action::Forbid, Action::Permit, Action::Permit]
        );
        let rule: PortRule = decode("443");
        assert_eq!(rule.check(443), Action::Permit);
    }

    #[test]
    fn requests_are_listed_or_mapped() {
        let rule: ProxyRequestRule = decode("{default: allow, deny: [HttpConnect, ftp_over_http]}");
        assert_eq!(rule.check(ProxyRequestType::HttpConnect), Action::Forbid);
        assert_eq!(rule.check(ProxyRequestType::HttpForward), Action::Permit);
    }

    #[test]
    fn unknown_actions_are_refused() {
        assert_eq!(errors::<PortRule>("{permitt: 80}"), "unknown key `permitt`");
        assert_eq!(
            errors::<PortRule>("{default: 80, allow: [80, x]}"),
            "default: expected `deny_log`, `forbid_log`, `reject_log`, `deny`, `forbid`, `reject`, `accept_log`, `allow_log`, \
             `permit_log`, `accept`, `allow` or `permit`, found `80`; \
             allow[1]: expected ports such as `80`, `8000-8010` or `80, 443`, found `x`"
        );
    }
}
