//! Rules on requested hosts, put together.

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_addr::Host;

use crate::{Action, ChildDomainRule, DstSubnetRule, ExactHostRule, RegexDomainRule};

/// Rules on the hosts that clients ask for; the first with a matching record decides.
///
/// Without a match the strictest default of the configured rules decides, and an empty set permits.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DstHostSet {
    /// Hosts, each for itself.
    #[serde(alias = "exact")]
    pub exact_match: Option<ExactHostRule>,
    /// Domains and all below.
    #[serde(alias = "child")]
    pub child_match: Option<ChildDomainRule>,
    /// Names by expressions.
    #[serde(alias = "regex")]
    pub regex_match: Option<RegexDomainRule>,
    /// Addresses by network.
    #[serde(alias = "subnet")]
    pub subnet_match: Option<DstSubnetRule>,
}

impl DstHostSet {
    /// What the set says about a host.
    pub fn check(&self, host: &Host) -> Action {
        self.find(host).unwrap_or_else(|| self.missed())
    }

    /// What the first matching record says about a host.
    fn find(&self, host: &Host) -> Option<Action> {
        let exact = || self.exact_match.as_ref()?.find(host);
        match host {
            Host::Ip(ip) => exact().or_else(|| self.subnet_match.as_ref()?.find(*ip)),
            Host::Domain(name) => exact()
                .or_else(|| self.child_match.as_ref()?.find(name))
                .or_else(|| self.regex_match.as_ref()?.find(name)),
        }
    }

    fn missed(&self) -> Action {
        let defaults = [
            self.exact_match.as_ref().map(ExactHostRule::missed),
            self.child_match.as_ref().map(ChildDomainRule::missed),
            self.regex_match.as_ref().map(RegexDomainRule::missed),
            self.subnet_match.as_ref().map(DstSubnetRule::missed),
        ];
        defaults.into_iter().flatten().min().unwrap_or(Action::Permit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::{decode, errors};

    fn check(set: &DstHostSet, host: &str) -> Action {
        set.check(&Host::parse(host).unwrap())
    }

    #[test]
    fn the_first_rule_with_a_record_decides() {
        let set: DstHostSet = decode(
            "{exact: {permit: [a.test, 127.0.0.1]}, child: {forbid: test, default: permit}, \
             regex: {permit_log: ^x, default: permit}, Subnet-Match: {permit: 10.0.0.0/8}}",
        );
        for (host, action) in [
            ("a.test", Action::Permit),
            ("b.test", Action::Forbid),
            ("x.example", Action::PermitLog),
            ("y.example", Action::Forbid),
            ("127.0.0.1", Action::Permit),
            ("127.0.0.2", Action::Forbid),
            ("10.0.0.1", Action::Permit),
            ("::ffff:10.0.0.1", Action::Permit),
        ] {
            assert_eq!(check(&set, host), action, "{host}");
        }
    }

    #[test]
    fn without_a_match_the_strictest_default_decides_for_every_host() {
        let set: DstHostSet = decode("{child_match: example.com}");
        assert_eq!(check(&set, "192.0.2.1"), Action::Forbid);
        assert_eq!(check(&DstHostSet::default(), "192.0.2.1"), Action::Permit);
    }

    #[test]
    fn every_bad_record_is_reported() {
        assert_eq!(
            errors::<DstHostSet>("{exact: [a.test, 'a b'], subnet_match: {allow: 10.0.0.1/8}, prefix: x}"),
            "exact[1]: expected an IP address or a domain name, found `a b`: neither an IP address nor a valid domain name; \
             subnet_match.allow: expected a network such as `10.0.0.0/8` or `2001:db8::/32`, or an address, found `10.0.0.1/8`: \
             bits of the host are set; the network is `10.0.0.0/8`; unknown key `prefix`"
        );
    }
}
