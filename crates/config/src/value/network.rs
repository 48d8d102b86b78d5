//! Networks and ports.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net};
use schemars::JsonSchema;
use serde::Deserialize;

use super::lists::OneOrMany;
use super::scalar::{Raw, Scalar, UNFIT, scalar};
use crate::Misfit;

/// A network such as `10.0.0.0/8`, or one address; an IPv4-mapped one is the IPv4 network that it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpNet);

/// The prefix length of the IPv4-mapped addresses, `::ffff:0:0/96`.
const MAPPED_PREFIX: u8 = 96;

impl Network {
    /// The network of this address and prefix length; `None` if bits of the host are set.
    pub fn new(ip: IpAddr, prefix_len: u8) -> Option<Self> {
        let net = IpNet::new(ip, prefix_len).ok()?;
        (net.trunc() == net).then(|| Self::canonical(net))
    }

    /// Whether the address is in the network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }

    /// The first address.
    pub fn addr(&self) -> IpAddr {
        self.0.addr()
    }

    /// The length of the prefix in bits.
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix_len()
    }

    fn canonical(net: IpNet) -> Self {
        if let (IpAddr::V4(ip), Some(length)) = (net.addr().to_canonical(), net.prefix_len().checked_sub(MAPPED_PREFIX))
            && let (IpNet::V6(_), Ok(mapped)) = (net, Ipv4Net::new(ip, length))
        {
            return Self(mapped.into());
        }
        Self(net)
    }

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self(ip.to_canonical().into()));
        }
        let net: IpNet = text.parse().map_err(|_| UNFIT)?;
        if net.trunc() != net {
            return Err(format!("bits of the host are set; the network is `{}`", net.trunc()).into());
        }
        Ok(Self::canonical(net))
    }
}

impl Scalar for Network {
    const EXPECTED: &'static str = "a network such as `10.0.0.0/8` or `2001:db8::/32`, or an address";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Str(text) => Self::parse(text.trim()),
            _ => Err(UNFIT),
        }
    }
}

scalar!(Network, {"type": "string", "description": "a network such as `10.0.0.0/8`, or an address"});

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of ports: `80`, `"8000-8010"`, `"80, 443"`, or a list of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(from = "OneOrMany<PortsPart>")]
pub struct Ports(Vec<RangeInclusive<u16>>);

impl Ports {
    /// Whether the port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// The set as ranges, in file order.
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }
}

impl From<OneOrMany<PortsPart>> for Ports {
    fn from(parts: OneOrMany<PortsPart>) -> Self {
        Self(parts.into_iter().flat_map(|part| part.0).collect())
    }
}

/// One element of a set of ports.
struct PortsPart(Vec<RangeInclusive<u16>>);

impl PortsPart {
    fn range(text: &str) -> Result<RangeInclusive<u16>, Cow<'static, str>> {
        let number = |text: &str| {
            let digits = text.trim();
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u16>().ok().filter(|_| plain).ok_or(UNFIT)
        };
        let (start, end) = match text.split_once('-') {
            Some((start, end)) => (number(start)?, number(end)?),
            None => (number(text)?, number(text)?),
        };
        if start > end {
            return Err(format!("{start} comes after {end}").into());
        }
        Ok(start..=end)
    }
}

impl Scalar for PortsPart {
    const EXPECTED: &'static str = "ports such as `80`, `8000-8010` or `80, 443`";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Int(port) => u16::try_from(port)
                .map(|port| Self(vec![port..=port]))
                .map_err(|_| UNFIT),
            Raw::Str(text) => text.split(',').map(Self::range).collect::<Result<_, _>>().map(Self),
            _ => Err(UNFIT),
        }
    }
}

scalar!(PortsPart, {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 65535},
        {"type": "string", "pattern": r"^\s*[0-9]+(\s*-\s*[0-9]+)?(\s*,\s*[0-9]+(\s*-\s*[0-9]+)?)*\s*$"},
    ],
});

/// A range of ports to choose from: `61000 - 62000`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(try_from = "RangeForm")]
pub struct PortRange {
    /// The first port; never 0.
    pub start: u16,
    /// The last port; more than the first.
    pub end: u16,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "PortRange")]
enum RangeForm {
    Map(RangeMap),
    Str(RangeText),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RangeMap {
    #[serde(alias = "from")]
    start: u16,
    #[serde(alias = "to")]
    end: u16,
}

struct RangeText(u16, u16);

impl Scalar for RangeText {
    const EXPECTED: &'static str = "a range of ports such as `61000-62000`";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let Raw::Str(text) = raw else { return Err(UNFIT) };
        if !text.contains('-') {
            return Err(UNFIT);
        }
        PortsPart::range(text).map(|range| Self(*range.start(), *range.end()))
    }
}

scalar!(RangeText, {"type": "string", "pattern": r"^\s*[0-9]+\s*-\s*[0-9]+\s*$"});

impl TryFrom<RangeForm> for PortRange {
    type Error = Misfit;

    fn try_from(form: RangeForm) -> Result<Self, Misfit> {
        let (start, end) = match form {
            RangeForm::Map(RangeMap { start, end }) => (start, end),
            RangeForm::Str(RangeText(start, end)) => (start, end),
        };
        if start == 0 || end <= start {
            return Err(Misfit::new(format!(
                "expected a first port of at least 1 and a later last one, found {start}-{end}"
            )));
        }
        Ok(Self { start, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn networks_are_written_with_a_prefix_or_as_an_address() {
        for (yaml, shown) in [
            ("192.168.0.0/16", "192.168.0.0/16"),
            ("2001:db8::/48", "2001:db8::/48"),
            ("10.0.0.1", "10.0.0.1/32"),
            ("'::1'", "::1/128"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("'::ffff:10.0.0.0/104'", "10.0.0.0/8"),
            ("'::ffff:10.0.0.1'", "10.0.0.1/32"),
            ("'::/0'", "::/0"),
        ] {
            assert_eq!(
                decode::<Network>(yaml).map(|net| net.to_string()).as_deref(),
                Ok(shown),
                "{yaml}"
            );
        }
        for yaml in [
            "192.168.1.1/24",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "a",
            "10",
            "''",
            "[]",
        ] {
            assert!(decode::<Network>(yaml).is_err(), "{yaml}");
        }
        assert!(
            decode::<Network>("192.168.1.1/24")
                .unwrap_err()
                .ends_with("the network is `192.168.1.0/24`")
        );
    }

    #[test]
    fn a_network_holds_mapped_addresses_too() {
        let net = decode::<Network>("10.0.0.0/8").unwrap();
        assert!(net.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!net.contains("11.0.0.0".parse().unwrap()));
    }

    #[test]
    fn ports_are_numbers_ranges_and_lists_of_them() {
        for yaml in [
            "80",
            "'80'",
            "'80, 443, 8000-8010'",
            "[79-81]",
            "[1, '70-90', '443,80']",
            "80-80",
        ] {
            assert!(decode::<Ports>(yaml).unwrap().contains(80), "{yaml}");
        }
        assert!(!decode::<Ports>("[]").unwrap().contains(0));
        for yaml in [
            "65536", "-1", "'10-9'", "'1-2-3'", "true", "''", "'80,'", "[[80]]", "'+80'", "1.5", "a",
        ] {
            assert!(decode::<Ports>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn a_port_range_goes_up() {
        let range = Ok(PortRange {
            start: 61000,
            end: 62000,
        });
        for yaml in [
            "61000-62000",
            "' 61000 - 62000 '",
            "{start: 61000, end: 62000}",
            "{from: 61000, to: '62000'}",
        ] {
            assert_eq!(decode::<PortRange>(yaml), range, "{yaml}");
        }
        for yaml in [
            "61000",
            "'61000'",
            "0-100",
            "1-1",
            "2-1",
            "{start: 1}",
            "{start: 0, end: 5}",
            "1-65536",
        ] {
            assert!(decode::<PortRange>(yaml).is_err(), "{yaml}");
        }
    }
}
