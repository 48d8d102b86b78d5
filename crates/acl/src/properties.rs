//! What holds for every rule, however it is written; shared by unit tests and the fuzz target.

use std::net::IpAddr;

use serde::Deserialize;
use sluice_addr::{Host, Upstream};
use sluice_config::decode_text;

use crate::{DstHostSet, EgressRule, InspectPolicy, PortRule, ProxyRequestRule, RegexRule, UserAgentRule};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rules {
    egress: EgressRule,
    hosts: DstHostSet,
    ports: Option<PortRule>,
    requests: Option<ProxyRequestRule>,
    agents: Option<UserAgentRule>,
    texts: Option<RegexRule>,
    inspect: InspectPolicy,
}

/// Reads rules, then asks them about a host, the port and the text of the first line.
///
/// # Panics
/// If an address and its IPv4-mapped form are told different things.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (asked, rules) = text.split_once('\n').unwrap_or((text, ""));
    let rules = decode_text::<Rules>(rules).unwrap_or_default();
    let _ = rules.requests;
    let _ = rules.agents.map(|rule| rule.check(asked));
    let _ = rules.texts.map(|rule| rule.check(asked));
    let Ok(upstream) = Upstream::parse(asked) else { return };
    let _ = rules.ports.map(|rule| rule.check(upstream.port));
    let action = rules.hosts.check(&upstream.host);
    let _ = rules.inspect.check(&upstream.host);
    assert_eq!(
        Upstream::parse(&upstream.to_string()),
        Ok(upstream.clone()),
        "what is shown reads as the same"
    );
    if let Host::Ip(IpAddr::V4(ip)) = upstream.host {
        let mapped = IpAddr::V6(ip.to_ipv6_mapped());
        assert_eq!(rules.egress.check(ip.into()), rules.egress.check(mapped));
        assert_eq!(
            Host::parse(&mapped.to_string()).map(|host| rules.hosts.check(&host)),
            Ok(action)
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_sample_of_the_fuzz_corpus_holds() {
        let corpus = Path::new("../../fuzz/corpus/config_rules");
        let mut samples = 0;
        for entry in fs::read_dir(corpus).unwrap() {
            super::rules(&fs::read(entry.unwrap().path()).unwrap());
            samples += 1;
        }
        assert!(samples >= 4, "there are {samples} samples");
    }
}
