//! Addresses that sockets are bound to or connect to.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sluice_addr::{Host, Upstream};
use thiserror::Error;

use super::scalar::{Raw, Scalar, UNFIT, scalar};
use crate::nearest::nearest;

/// A socket address: `ip:port`, `$VARIABLE` that holds one, or `@host:port`, which is looked up when it is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SockAddrSpec {
    /// An address, given as such or by an environment variable.
    Addr(SocketAddr),
    /// A name and a port, looked up by [`resolve`](Self::resolve).
    Name(Box<str>, u16),
}

/// Why a [`SockAddrSpec`] gives no address.
#[derive(Debug, Error)]
pub enum ResolveAddrError {
    /// The look-up failed.
    #[error("cannot look up `{host}`")]
    Failed {
        /// The name.
        host: Box<str>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The name has no address, or several.
    #[error("`{host}` has {count} addresses, one is needed")]
    Ambiguous {
        /// The name.
        host: Box<str>,
        /// How many.
        count: usize,
    },
}

impl SockAddrSpec {
    /// The address. A name is looked up in the system's way, which blocks.
    ///
    /// # Errors
    /// [`ResolveAddrError`] if the name does not lead to exactly one address.
    pub fn resolve(&self) -> Result<SocketAddr, ResolveAddrError> {
        let (host, port) = match self {
            Self::Addr(addr) => return Ok(*addr),
            Self::Name(host, port) => (host, *port),
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "a start-up look-up for the daemon itself; resolverd may not run yet"
        )]
        let found = std::net::ToSocketAddrs::to_socket_addrs(&(&**host, port));
        let mut addrs: Vec<_> = found
            .map_err(|source| ResolveAddrError::Failed {
                host: host.clone(),
                source,
            })?
            .collect();
        addrs.dedup();
        match addrs.as_slice() {
            [addr] => Ok(*addr),
            _ => Err(ResolveAddrError::Ambiguous {
                host: host.clone(),
                count: addrs.len(),
            }),
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Addr(addr) => addr.port(),
            Self::Name(_, port) => *port,
        }
    }

    /// Reads the text, with environment variables looked up by `variable`.
    fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Cow<'static, str>> {
        if let Some(name) = text.strip_prefix('$') {
            let value = variable(name).ok_or_else(|| format!("the environment has no variable `{name}`"))?;
            let addr = literal(&value).ok_or_else(|| format!("the variable holds `{value}`, which is no `ip:port`"))?;
            return Ok(Self::Addr(addr));
        }
        let Some(named) = text.strip_prefix('@') else {
            return literal(text).map(Self::Addr).ok_or(UNFIT);
        };
        let upstream = Upstream::parse(named).map_err(|why| why.to_string())?;
        match upstream {
            Upstream { port: 0, .. } => Err("the port is missing".into()),
            Upstream {
                host: Host::Ip(ip),
                port,
            } => Ok(Self::Addr(SocketAddr::new(ip, port))),
            Upstream {
                host: Host::Domain(name),
                port,
            } => Ok(Self::Name(name, port)),
        }
    }
}

/// `ip:port`, with brackets allowed around any address.
fn literal(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let (ip, port) = text.strip_prefix('[')?.split_once("]:")?;
        Some(SocketAddr::new(
            IpAddr::V4(ip.parse::<Ipv4Addr>().ok()?),
            port.parse().ok()?,
        ))
    })
}

impl From<SocketAddr> for SockAddrSpec {
    fn from(addr: SocketAddr) -> Self {
        Self::Addr(addr)
    }
}

impl Scalar for SockAddrSpec {
    const EXPECTED: &'static str = "an address such as `127.0.0.1:8080` or `[::1]:8080`, `@host:port` or `$VARIABLE`";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Str(text) => Self::parse(text, |name| std::env::var(name).ok()),
            _ => Err(UNFIT),
        }
    }
}

scalar!(SockAddrSpec, {
    "type": "string",
    "description": "ip:port, @host:port (looked up at start) or $VARIABLE (of the environment)",
});

/// A network interface, by name or index; it has to be there when the configuration is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Interface {
    name: Box<str>,
}

/// Where Linux shows interfaces.
const INTERFACES: &str = "/sys/class/net";
/// The longest name that the kernel takes (IFNAMSIZ, less the zero).
const LONGEST_NAME: usize = 15;

impl Interface {
    /// The name, also if an index was written.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn of_index(index: &str) -> Result<Self, Cow<'static, str>> {
        let here = |name: &String| {
            let own = fs::read_to_string(format!("{INTERFACES}/{name}/ifindex"));
            own.is_ok_and(|own| own.trim() == index)
        };
        let name = all_interfaces().into_iter().find(here);
        let name = name.ok_or_else(|| format!("no network interface has the index {index}"))?;
        Ok(Self { name: name.into() })
    }

    fn of_name(name: &str) -> Result<Self, Cow<'static, str>> {
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Err(UNFIT);
        }
        let there = all_interfaces();
        // Where the system does not show its interfaces, binding will tell.
        if there.is_empty() || there.iter().any(|own| own == name) {
            return Ok(Self { name: name.into() });
        }
        let help = match nearest(name, there.iter().map(String::as_str)) {
            Some(near) => format!("no such interface; did you mean `{near}`?"),
            None => format!("no such interface; there are `{}`", there.join("`, `")),
        };
        Err(help.into())
    }
}

fn all_interfaces() -> Vec<String> {
    let Ok(entries) = fs::read_dir(INTERFACES) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

impl Scalar for Interface {
    const EXPECTED: &'static str = "the name or index of a network interface";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Int(index @ 1..=0x7fff_ffff) => Self::of_index(&index.to_string()),
            Raw::Str(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Self::of_index(text)
            }
            Raw::Str(text) => Self::of_name(text),
            _ => Err(UNFIT),
        }
    }
}

scalar!(Interface, {
    "description": "the name or index of a network interface",
    "anyOf": [{"type": "string", "minLength": 1, "maxLength": 15}, {"type": "integer", "minimum": 1}],
});

/// An upstream address with a default port; 0 for a key that has none, where the port must be given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamAddr<const PORT: u16>(pub Upstream);

impl<const PORT: u16> Scalar for UpstreamAddr<PORT> {
    const EXPECTED: &'static str = "a host and port such as `example.net:443` or `[2001:db8::1]:443`";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let Raw::Str(text) = raw else { return Err(UNFIT) };
        let upstream = Upstream::parse(text).map_err(|why| why.to_string())?.or_port(PORT);
        if upstream.port == 0 {
            return Err("the port is missing".into());
        }
        Ok(Self(upstream))
    }
}

impl<'de, const PORT: u16> serde::Deserialize<'de> for UpstreamAddr<PORT> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::scalar::deserialize(deserializer)
    }
}

impl<const PORT: u16> schemars::JsonSchema for UpstreamAddr<PORT> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("UpstreamAddr{PORT}").into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let port = if PORT == 0 {
            "host:port".to_owned()
        } else {
            format!("host[:port], port {PORT} by default")
        };
        schemars::json_schema!({"type": "string", "description": port})
    }
}

/// A domain name, lower case and ASCII; one dot in front, as some write it for "all below", is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(pub Box<str>);

impl Scalar for Domain {
    const EXPECTED: &'static str = "a domain name";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let Raw::Str(text) = raw else { return Err(UNFIT) };
        match Host::parse_domain(text.strip_prefix('.').unwrap_or(text)) {
            Ok(Host::Domain(name)) => Ok(Self(name)),
            _ => Err(UNFIT),
        }
    }
}

scalar!(Domain, {"type": "string", "minLength": 1});

impl std::ops::Deref for Domain {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn addresses_and_names_are_read() {
        // CFG-03
        for (yaml, addr) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("'[::1]:80'", "[::1]:80"),
            ("'[127.0.0.1]:1234'", "127.0.0.1:1234"),
            ("'@127.0.0.1:80'", "127.0.0.1:80"),
            ("'@[::1]:80'", "[::1]:80"),
        ] {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(decode::<SockAddrSpec>(yaml), Ok(SockAddrSpec::Addr(addr)), "{yaml}");
        }
        assert_eq!(
            decode::<SockAddrSpec>("'@Host.example:80'"),
            Ok(SockAddrSpec::Name("host.example".into(), 80))
        );
    }

    #[test]
    fn other_addresses_are_refused() {
        for yaml in [
            "127.0.0.1",
            "host:80",
            "'::1:80'",
            "'@host'",
            "'@host:0'",
            "80",
            "''",
            "'[::1]'",
            "'127.0.0.1:x'",
        ] {
            assert!(decode::<SockAddrSpec>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn a_variable_stands_for_an_address() {
        // CFG-03
        let variable = |name: &str| match name {
            "GOOD" => Some("[::1]:53".to_owned()),
            "NESTED" => Some("$GOOD".to_owned()),
            "NAME" => Some("@host:53".to_owned()),
            _ => None,
        };
        assert_eq!(SockAddrSpec::parse("$GOOD", variable).map(|spec| spec.port()), Ok(53));
        for text in ["$NESTED", "$NAME", "$NONE", "$"] {
            assert!(SockAddrSpec::parse(text, variable).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_looked_up_when_it_is_used() {
        let spec = SockAddrSpec::Name("name.invalid".into(), 53);
        assert!(spec.resolve().is_err());
    }

    #[test]
    fn an_interface_has_to_be_there() {
        assert_eq!(decode::<Interface>("lo").unwrap().name(), "lo");
        for yaml in ["0", "-1", "''", "a-name-that-is-too-long", "1.5", "99999999"] {
            assert!(decode::<Interface>(yaml).is_err(), "{yaml}");
        }
        assert!(decode::<Interface>("lo0").unwrap_err().contains("did you mean `lo`?"));
        assert_eq!(decode::<Interface>("1"), decode::<Interface>("'1'"));
    }

    #[test]
    fn an_upstream_needs_a_port_or_a_default() {
        assert_eq!(decode::<UpstreamAddr<80>>("example.net").unwrap().0.port, 80);
        assert_eq!(decode::<UpstreamAddr<0>>("example.net:8080").unwrap().0.port, 8080);
        assert!(
            decode::<UpstreamAddr<0>>("example.net")
                .unwrap_err()
                .contains("the port is missing")
        );
    }
}
