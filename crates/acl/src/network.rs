//! Rules on addresses: the longest network that holds one decides.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::fast::RandomState;
use serde::Deserialize;
use sluice_config::value::Network;

use crate::{Action, RuleForm};

/// A table of networks.
///
/// There are few prefix lengths in a table and any number of networks: so it is a map for each length, longest first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table<A> {
    v4: Vec<Level<u32, A>>,
    v6: Vec<Level<u128, A>>,
}

/// A prefix length, and the networks that have it.
type Level<K, A> = (u32, HashMap<K, A, RandomState>);

impl<A> Default for Table<A> {
    fn default() -> Self {
        Self {
            v4: Vec::new(),
            v6: Vec::new(),
        }
    }
}

impl<A: Copy> Table<A> {
    /// Adds a network; one that is there already gets the new action.
    pub(crate) fn insert(&mut self, network: Network, action: A) {
        let length = u32::from(network.prefix_len());
        match network.addr() {
            IpAddr::V4(ip) => level(&mut self.v4, length).insert(ip.to_bits(), action),
            IpAddr::V6(ip) => level(&mut self.v6, length).insert(ip.to_bits(), action),
        };
    }

    /// The actions of all networks.
    pub(crate) fn values(&self) -> impl Iterator<Item = &A> {
        let v4 = self.v4.iter().flat_map(|(_, level)| level.values());
        v4.chain(self.v6.iter().flat_map(|(_, level)| level.values()))
    }

    pub(crate) fn find(&self, ip: IpAddr) -> Option<A> {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let masked = |length: u32| ip.to_bits() & u32::MAX.checked_shl(32 - length).unwrap_or(0);
                self.v4
                    .iter()
                    .find_map(|(length, level)| level.get(&masked(*length)).copied())
            }
            IpAddr::V6(ip) => {
                let masked = |length: u32| ip.to_bits() & u128::MAX.checked_shl(128 - length).unwrap_or(0);
                self.v6
                    .iter()
                    .find_map(|(length, level)| level.get(&masked(*length)).copied())
            }
        }
    }
}

/// The networks of one prefix length.
fn level<K, A>(levels: &mut Vec<Level<K, A>>, length: u32) -> &mut HashMap<K, A, RandomState> {
    // Longest first.
    let at = levels.partition_point(|(own, _)| *own > length);
    if levels.get(at).is_none_or(|(own, _)| *own != length) {
        levels.insert(at, (length, HashMap::default()));
    }
    #[expect(clippy::indexing_slicing, reason = "it is there, or was inserted just now")]
    &mut levels[at].1
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> (IpAddr, u8) {
    (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), length)
}

const fn v6(first: u16, last: u16, length: u8) -> (IpAddr, u8) {
    (IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last)), length)
}

/// Where no client is to be taken: this host, its links, nowhere.
const NOT_OUTSIDE: &[(IpAddr, u8)] = &[
    v4(0, 0, 0, 0, 32),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v6(0, 0, 128),
    v6(0, 1, 128),
    v6(0xfe80, 0, 10),
    v6(0x100, 0, 64),
];

/// This host.
const OWN: &[(IpAddr, u8)] = &[v4(127, 0, 0, 1, 32), v6(0, 1, 128)];

macro_rules! network_rule {
    ($(#[$doc:meta])* $Rule:ident: $built_in:expr => $action:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Deserialize)]
        #[serde(from = "RuleForm<Network>")]
        pub struct $Rule {
            table: Table<Action>,
            missed: Action,
        }

        sluice_config::schema_as!($Rule => RuleForm<Network>);

        impl $Rule {
            /// The rule's own entries, and `missed` for the rest.
            fn built_in(missed: Action) -> Self {
                let mut table = Table::default();
                for (ip, length) in $built_in {
                    if let Some(network) = Network::new(*ip, *length) {
                        table.insert(network, Action::$action);
                    }
                }
                Self { table, missed }
            }

            /// What the rule says about an address.
            pub fn check(&self, ip: IpAddr) -> Action {
                self.find(ip).unwrap_or(self.missed)
            }

            /// What a record says about an address.
            pub fn find(&self, ip: IpAddr) -> Option<Action> {
                self.table.find(ip)
            }

            /// What the rule says where no record matches.
            pub fn missed(&self) -> Action {
                self.missed
            }
        }

        impl From<RuleForm<Network>> for $Rule {
            fn from(form: RuleForm<Network>) -> Self {
                let mut rule = Self::built_in(form.default.unwrap_or(Action::Forbid));
                for (action, network) in form.records {
                    rule.table.insert(network, action.unwrap_or(Action::Permit));
                }
                rule
            }
        }
    };
}

network_rule! {
    /// A rule on networks, without entries of its own.
    NetworkRule: &[] => Permit
}

network_rule! {
    /// A rule on clients; this host's own loopback addresses are permitted unless records say otherwise.
    IngressRule: OWN => Permit
}

network_rule! {
    /// A rule on the addresses that are connected to; those of this host and its links are forbidden unless records say
    /// otherwise.
    ///
    /// The default, for where no rule is configured, forbids these and permits the rest.
    EgressRule: NOT_OUTSIDE => Forbid
}

network_rule! {
    /// A rule on addresses that clients ask for, with the entries of [`EgressRule`].
    DstSubnetRule: NOT_OUTSIDE => Forbid
}

impl Default for EgressRule {
    fn default() -> Self {
        Self::built_in(Action::Permit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::decode;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_network_decides() {
        let rule: NetworkRule =
            decode("{allow: [10.0.0.0/8, '2001:db8::/32'], deny_log: 10.1.0.0/16, permit-log: 10.1.1.1}");
        for (addr, action) in [
            ("10.2.0.1", Action::Permit),
            ("10.1.0.1", Action::ForbidLog),
            ("10.1.1.1", Action::PermitLog),
            ("11.0.0.0", Action::Forbid),
            ("2001:db8::1", Action::Permit),
            ("2001:db9::1", Action::Forbid),
        ] {
            assert_eq!(rule.check(ip(addr)), action, "{addr}");
        }
    }

    #[test]
    fn a_mapped_address_is_checked_as_what_it_means() {
        let rule: NetworkRule = decode("10.0.0.0/8");
        assert_eq!(rule.check(ip("::ffff:10.0.0.1")), Action::Permit);
        assert_eq!(EgressRule::default().check(ip("::ffff:127.0.0.1")), Action::Forbid);
    }

    #[test]
    fn the_whole_internet_is_a_network_too() {
        let rule: NetworkRule = decode("{forbid: 10.0.0.0/8, permit: ['0.0.0.0/0', '::/0']}");
        assert_eq!(rule.check(ip("192.0.2.1")), Action::Permit);
        assert_eq!(rule.check(ip("::1")), Action::Permit);
        assert_eq!(rule.check(ip("10.0.0.1")), Action::Forbid);
    }

    #[test]
    fn egress_keeps_away_from_this_host() {
        let default = EgressRule::default();
        for own in [
            "0.0.0.0",
            "127.8.8.8",
            "169.254.169.254",
            "::",
            "::1",
            "fe80::1",
            "100::1",
        ] {
            assert_eq!(default.check(ip(own)), Action::Forbid, "{own}");
        }
        assert_eq!(default.check(ip("192.0.2.1")), Action::Permit);
        let configured: EgressRule = decode("{default: permit, allow: 127.0.0.0/8}");
        assert_eq!(configured.check(ip("127.0.0.1")), Action::Permit);
        assert_eq!(configured.check(ip("::1")), Action::Forbid);
        let listed: EgressRule = decode("[192.0.2.0/24]");
        assert_eq!(listed.check(ip("192.0.3.1")), Action::Forbid);
    }

    #[test]
    fn ingress_knows_loopback() {
        let rule: IngressRule = decode("192.0.2.0/24");
        assert_eq!(rule.check(ip("127.0.0.1")), Action::Permit);
        assert_eq!(rule.check(ip("127.0.0.2")), Action::Forbid);
        let strict: IngressRule = decode("{deny: [127.0.0.1, '::1']}");
        assert_eq!(strict.check(ip("127.0.0.1")), Action::Forbid);
    }

    #[test]
    fn of_two_actions_for_a_network_the_later_counts() {
        let rule: NetworkRule = decode("{allow: 10.0.0.0/8, deny: 10.0.0.0/8}");
        assert_eq!(rule.check(ip("10.0.0.1")), Action::Forbid);
    }
}
