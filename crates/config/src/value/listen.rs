//! Where servers listen.

use std::borrow::Cow;
use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::Deserialize;

use super::hosts::{Interface, SockAddrSpec};
use super::scalar::{Raw, Scalar, UNFIT, scalar};
use super::socket::TcpKeepalive;

/// The queue of connections that wait to be accepted.
const DEFAULT_BACKLOG: u32 = 4096;
/// Smaller queues are not worth having: the default is taken.
const LEAST_BACKLOG: u32 = 8;

/// Where and how a server listens for TCP connections.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(from = "TcpForm")]
pub struct TcpListen {
    /// The address; port 0 lets the system choose one.
    pub address: SockAddrSpec,
    /// SO_BINDTODEVICE.
    pub interface: Option<Interface>,
    /// Keepalive, set on the listening socket and inherited.
    pub keepalive: Option<TcpKeepalive>,
    /// TCP_MAXSEG.
    pub max_segment_size: Option<u16>,
    /// The queue of connections that wait to be accepted.
    pub backlog: u32,
    /// SO_MARK.
    pub netfilter_mark: Option<u32>,
    /// IPV6_V6ONLY, on `::` alone.
    pub ipv6_only: Option<bool>,
    /// Listening sockets, at least.
    pub instance: usize,
    /// Listening sockets for each CPU.
    pub scale: Scale,
    /// Whether connections stay on the CPU that they came in on.
    pub follow_cpu_affinity: bool,
}

impl TcpListen {
    /// Listening at an address with all defaults.
    pub fn new(address: impl Into<SockAddrSpec>) -> Self {
        TcpMap {
            address: address.into(),
            ..TcpMap::at(UNSPECIFIED.into())
        }
        .into()
    }

    /// How many listening sockets there are on a machine of so many CPUs.
    pub fn instances(&self, cpus: usize) -> usize {
        self.instance.max(self.scale.of(cpus)).max(1)
    }
}

const UNSPECIFIED: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

const FORMS: &str = "a port, an address such as `127.0.0.1:8080`, `[::]:8080`, `@host:port` or `$VARIABLE`, or a map";

/// A port alone, which is one of `[::]`.
#[derive(Clone, Copy)]
pub(super) struct Port(NonZeroU16);

impl Port {
    /// The port of all addresses.
    pub(super) fn on_any(self) -> SockAddrSpec {
        SocketAddr::new(UNSPECIFIED.ip(), self.0.get()).into()
    }
}

impl Scalar for Port {
    const EXPECTED: &'static str = FORMS;

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let Raw::Int(port) = raw else { return Err(UNFIT) };
        let port = u16::try_from(port).ok().and_then(NonZeroU16::new);
        port.map(Self).ok_or(Cow::Borrowed("ports are 1 to 65535"))
    }
}

/// An address in the place of a map.
pub(super) struct ListenAddr(pub(super) SockAddrSpec);

impl Scalar for ListenAddr {
    const EXPECTED: &'static str = FORMS;

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Str(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Err("without quotes it would be a port".into())
            }
            raw => SockAddrSpec::read(raw).map(Self),
        }
    }
}

scalar!(ListenAddr, {"type": "string", "description": "ip:port, @host:port or $VARIABLE"});

scalar!(Port, {"type": "integer", "minimum": 1, "maximum": 65535});

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "TcpListen")]
enum TcpForm {
    Int(Port),
    Str(ListenAddr),
    Map(TcpMap),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TcpMap {
    #[serde(alias = "addr")]
    address: SockAddrSpec,
    interface: Option<Interface>,
    keepalive: Option<TcpKeepalive>,
    #[serde(alias = "mss")]
    max_segment_size: Option<u16>,
    backlog: Option<u32>,
    #[serde(alias = "fwmark", alias = "mark")]
    netfilter_mark: Option<u32>,
    #[serde(alias = "ipv6only")]
    ipv6_only: Option<bool>,
    #[serde(alias = "instance_count")]
    instance: Option<usize>,
    scale: Option<Scale>,
    #[serde(default)]
    follow_cpu_affinity: bool,
}

impl TcpMap {
    fn at(address: SockAddrSpec) -> Self {
        Self {
            address,
            interface: None,
            keepalive: None,
            max_segment_size: None,
            backlog: None,
            netfilter_mark: None,
            ipv6_only: None,
            instance: None,
            scale: None,
            follow_cpu_affinity: false,
        }
    }
}

impl From<TcpMap> for TcpListen {
    fn from(map: TcpMap) -> Self {
        Self {
            address: map.address,
            interface: map.interface,
            keepalive: map.keepalive,
            max_segment_size: map.max_segment_size,
            backlog: map
                .backlog
                .filter(|backlog| *backlog >= LEAST_BACKLOG)
                .unwrap_or(DEFAULT_BACKLOG),
            netfilter_mark: map.netfilter_mark,
            ipv6_only: map.ipv6_only,
            instance: map.instance.unwrap_or(1).max(1),
            scale: map.scale.unwrap_or_default(),
            follow_cpu_affinity: map.follow_cpu_affinity,
        }
    }
}

impl From<TcpForm> for TcpListen {
    fn from(form: TcpForm) -> Self {
        match form {
            TcpForm::Int(port) => TcpMap::at(port.on_any()).into(),
            TcpForm::Str(ListenAddr(address)) => TcpMap::at(address).into(),
            TcpForm::Map(map) => map.into(),
        }
    }
}

/// A multiple of the number of CPUs: `0.5`, `50%`, `1/2`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// A factor, rounded.
    Factor(f64),
    /// A fraction, rounded down.
    Fraction(u32, u32),
}

impl Default for Scale {
    fn default() -> Self {
        Self::Fraction(0, 1)
    }
}

impl Scale {
    /// That multiple of `count`.
    pub fn of(self, count: usize) -> usize {
        match self {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                reason = "a number of sockets: small, and a factor is never negative"
            )]
            Self::Factor(factor) => (factor * count as f64).round() as usize,
            Self::Fraction(numerator, denominator) => {
                let wide = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
                wide(numerator).saturating_mul(count) / wide(denominator).max(1)
            }
        }
    }

    /// The largest factor that makes sense; more sockets than that are a slip.
    const LARGEST: f64 = 1024.0;

    fn factor(factor: f64) -> Option<Self> {
        (0.0..=Self::LARGEST).contains(&factor).then_some(Self::Factor(factor))
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some((numerator, denominator)) = text.split_once('/') {
            let (numerator, denominator) = (numerator.trim().parse().ok()?, denominator.trim().parse().ok()?);
            let fine = denominator > 0 && f64::from(numerator) / f64::from(denominator) <= Self::LARGEST;
            return fine.then_some(Self::Fraction(numerator, denominator));
        }
        match text.strip_suffix('%') {
            Some(percent) => Self::factor(percent.trim().parse::<f64>().ok()? / 100.0),
            None => Self::factor(text.parse().ok()?),
        }
    }
}

impl Scalar for Scale {
    const EXPECTED: &'static str = "a multiple of the CPUs such as `2`, `0.5`, `50%` or `1/2`";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let scale = match raw {
            #[expect(clippy::cast_precision_loss, reason = "what is too large to be exact is refused")]
            Raw::Int(factor) => Self::factor(factor as f64),
            Raw::Float(factor) => Self::factor(factor),
            Raw::Str(text) => Self::parse(text),
            Raw::Bool(_) => None,
        };
        scale.ok_or(UNFIT)
    }
}

scalar!(Scale, {
    "description": "a multiple of the CPUs",
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^\s*[0-9.]+\s*(%|/\s*[0-9]+)?\s*$"},
    ],
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn a_port_an_address_or_a_map() {
        let address = |yaml| decode::<TcpListen>(yaml).map(|listen| listen.address);
        let any: SocketAddr = "[::]:8080".parse().unwrap();
        let local: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(address("8080"), Ok(any.into()));
        assert_eq!(address("127.0.0.1:8080"), Ok(local.into()));
        assert_eq!(address("'[127.0.0.1]:8080'"), Ok(local.into()));
        assert_eq!(address("{addr: '127.0.0.1:8080'}"), Ok(local.into()));
        assert_eq!(decode::<TcpListen>("127.0.0.1:8080"), Ok(TcpListen::new(local)));
        for yaml in [
            "'8080'",
            "0",
            "-1",
            "65536",
            "[]",
            "~",
            "{}",
            "{address: 8080}",
            "true",
            "{address: '[::]:1', port: 1}",
        ] {
            assert!(decode::<TcpListen>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn port_0_of_an_address_is_for_the_system_to_choose() {
        assert_eq!(
            decode::<TcpListen>("127.0.0.1:0").map(|listen| listen.address.port()),
            Ok(0)
        );
    }

    #[test]
    fn a_map_takes_every_key_in_any_spelling() {
        // CFG-02
        let yaml = "{Address: '[::]:1', interface: lo, keepalive: 10, mss: 1400, backlog: 4, fwmark: 0x1, ipv6only: on, \
                    Instance-Count: 2, scale: 50%, follow-cpu-affinity: yes}";
        let listen = decode::<TcpListen>(yaml).unwrap();
        assert_eq!(listen.backlog, DEFAULT_BACKLOG);
        assert_eq!(
            (listen.netfilter_mark, listen.ipv6_only, listen.max_segment_size),
            (Some(1), Some(true), Some(1400))
        );
        assert_eq!((listen.instances(2), listen.instances(8)), (2, 4));
        assert!(listen.follow_cpu_affinity);
    }

    /// LM-06.
    #[test]
    fn scales_round_as_they_are_written_and_a_part_of_nothing_is_refused() {
        for (yaml, of_7) in [
            ("0.5", 4),
            ("50%", 4),
            ("1/2", 3),
            ("2", 14),
            ("'0.5'", 4),
            ("0", 0),
            ("' 1 / 2 '", 3),
        ] {
            assert_eq!(decode::<Scale>(yaml).map(|scale| scale.of(7)), Ok(of_7), "{yaml}");
        }
        for yaml in [
            "-1",
            "-0.5",
            ".nan",
            ".inf",
            "1/0",
            "0/0",
            "1 / 0",
            "-1/2",
            "a",
            "''",
            "1e300",
            "true",
            "9999999999",
        ] {
            assert!(decode::<Scale>(yaml).is_err(), "{yaml}");
        }
    }
}
