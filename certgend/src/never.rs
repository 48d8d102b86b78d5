//! Hosts that no certificate is made for.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_addr::Host;
use sluice_config::value::Network;

/// A domain with all below it, or a network.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub(crate) enum Never {
    Domain(Box<str>),
    Network(Network),
}

impl TryFrom<String> for Never {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(network) = network(&text) {
            return Ok(Self::Network(network));
        }
        let name = text.strip_prefix("*.").unwrap_or(&text);
        match Host::parse(name.trim_start_matches('.')) {
            Ok(Host::Domain(name)) if !name.contains('*') => Ok(Self::Domain(name)),
            _ => Err(format!("expected a domain, an address or a network, found `{text}`")),
        }
    }
}

fn network(text: &str) -> Option<Network> {
    let (ip, length) = match text.split_once('/') {
        Some((ip, length)) => (ip.parse().ok()?, length.parse().ok()?),
        None => {
            let ip: IpAddr = text.parse().ok()?;
            (ip, if ip.is_ipv4() { 32 } else { 128 })
        }
    };
    Network::new(ip, length)
}

/// Whether one of `list` covers a host.
pub(crate) fn covers(list: &[Never], host: &Host) -> bool {
    match host {
        Host::Domain(name) => covers_name(list, name),
        Host::Ip(ip) => covers_ip(list, *ip),
    }
}

/// Whether one of `list` covers an address.
pub(crate) fn covers_ip(list: &[Never], ip: IpAddr) -> bool {
    let is_in = |never: &Never| matches!(never, Never::Network(network) if network.contains(ip));
    list.iter().any(is_in)
}

/// Whether a certificate for this name, which may begin with `*.`, would do for a host that one of `list` covers.
///
/// A name that is an address as text, which old clients take for one, is that address.
pub(crate) fn covers_name(list: &[Never], name: &str) -> bool {
    if let Ok(ip) = name.parse() {
        return covers_ip(list, ip);
    }
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let domains = list.iter().filter_map(|never| match never {
        Never::Domain(domain) => Some(&**domain),
        Never::Network(_) => None,
    });
    let below = |name: &str, domain: &str| {
        name.strip_suffix(domain)
            .is_some_and(|left| left.is_empty() || left.ends_with('.'))
    };
    match name.strip_prefix("*.") {
        // The domain itself may be one of those that the star stands for.
        Some(parent) => domains
            .into_iter()
            .any(|domain| below(parent, domain) || domain.split_once('.').is_some_and(|(_, above)| above == parent)),
        None => domains.into_iter().any(|domain| below(&name, domain)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Vec<Never> {
        entries
            .iter()
            .map(|text| Never::try_from((*text).to_owned()).unwrap())
            .collect()
    }

    #[test]
    fn a_domain_covers_itself_and_all_below_in_any_spelling() {
        let list = list(&["Bank.example", "*.health.example", ".gov.example"]);
        for name in [
            "bank.example",
            "BANK.example.",
            "www.bank.example",
            "health.example",
            "a.b.health.example",
            "gov.example",
        ] {
            assert!(covers_name(&list, name), "{name}");
        }
        for name in ["example", "notbank.example", "bank.example.net", "192.0.2.1"] {
            assert!(!covers_name(&list, name), "{name}");
        }
    }

    #[test]
    fn a_star_that_may_stand_for_a_covered_host_is_covered() {
        let list = list(&["bank.example"]);
        assert!(covers_name(&list, "*.example"));
        assert!(covers_name(&list, "*.bank.example"));
        assert!(covers_name(&list, "*.a.bank.example"));
        assert!(!covers_name(&list, "*.other.example"));
        assert!(!covers_name(&list, "*.net"));
    }

    #[test]
    fn networks_cover_addresses_as_text_too() {
        let list = list(&["192.0.2.0/24", "2001:db8::1"]);
        for (ip, covered) in [
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("192.0.3.7", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
        ] {
            assert_eq!(covers_ip(&list, ip.parse().unwrap()), covered, "{ip}");
            assert_eq!(covers_name(&list, ip), covered, "{ip}");
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["", "*", "a b", "10.0.0.1/8"] {
            assert!(Never::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
