//! Where datagrams go, as the configuration says it.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use sluice_config::value::{ResolveAddrError, SockAddrSpec};

use crate::transport::Target;

/// A receiver of datagrams.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DatagramTarget {
    /// A UDP peer.
    Udp {
        /// The peer; a name is looked up once, at the start.
        peer: SockAddrSpec,
        /// Local address; the unspecified one of the peer's family when absent.
        bind_ip: Option<IpAddr>,
    },
    /// The path of a Unix datagram socket.
    Unix(PathBuf),
}

impl DatagramTarget {
    /// The target with its name looked up, which may block.
    pub(crate) fn resolve(&self) -> Result<Target, ResolveAddrError> {
        Ok(match self {
            Self::Udp { peer, bind_ip } => Target::Udp {
                peer: peer.resolve()?,
                bind_ip: *bind_ip,
            },
            Self::Unix(path) => Target::Unix(path.clone()),
        })
    }
}

/// The keys `target_unix`, `target_udp` and `target` of a section, of which the last one counts. A UDP peer whose
/// address is left out is this host at `port`.
pub(crate) fn last_target(
    unix: Option<Placed<UnixForm>>,
    udp: Option<Placed<UdpForm>>,
    either: Option<Placed<EitherMap>>,
    port: u16,
) -> Option<DatagramTarget> {
    let either = either.map(|it| it.map(|it| it.target(port)));
    [
        unix.map(Placed::into),
        udp.map(|it| it.map(|it| it.target(port))),
        either.and_then(Placed::transpose),
    ]
    .into_iter()
    .flatten()
    .max_by_key(|it| it.order)
    .map(|it| it.value)
}

/// Gives types that are read through another one that one's schema.
macro_rules! schema_of {
    ($($read:ty => $written:ty;)*) => {$(
        impl ::schemars::JsonSchema for $read {
            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                <$written>::schema_name()
            }

            fn json_schema(generator: &mut ::schemars::SchemaGenerator) -> ::schemars::Schema {
                <$written>::json_schema(generator)
            }
        }
    )*};
}
pub(crate) use schema_of;

/// A value that knows in which order it was read, for keys of which the last one counts.
#[derive(Clone, Debug)]
pub(crate) struct Placed<T> {
    order: u64,
    pub(crate) value: T,
}

impl<T> Placed<T> {
    pub(crate) fn map<U>(self, then: impl FnOnce(T) -> U) -> Placed<U> {
        Placed {
            order: self.order,
            value: then(self.value),
        }
    }

    fn into<U: From<T>>(self) -> Placed<U> {
        self.map(U::from)
    }

    /// The value that was read last.
    pub(crate) fn last(all: impl IntoIterator<Item = Option<Self>>) -> Option<T> {
        let given = all.into_iter().flatten();
        given.max_by_key(|it| it.order).map(|it| it.value)
    }
}

impl<T> Placed<Option<T>> {
    fn transpose(self) -> Option<Placed<T>> {
        let order = self.order;
        self.value.map(|value| Placed { order, value })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Placed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let value = T::deserialize(deserializer)?;
        // The keys of a map are read in the order of the file.
        let order = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { order, value })
    }
}

impl<T: JsonSchema> JsonSchema for Placed<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// The path of a socket, which is absolute: a daemon's working directory is not its user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketPath(pub(crate) PathBuf);

impl<'de> Deserialize<'de> for SocketPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = String::deserialize(deserializer)?;
        // The kernel takes 107 bytes and no zero byte.
        if Path::new(&path).is_absolute() && path.len() <= 107 && !path.contains('\0') {
            return Ok(Self(path.into()));
        }
        let found = format!("`{}`", path.escape_debug());
        let expected = &"an absolute path of at most 107 bytes";
        Err(de::Error::invalid_value(de::Unexpected::Other(&found), expected))
    }
}

impl JsonSchema for SocketPath {
    fn schema_name() -> Cow<'static, str> {
        "SocketPath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^/", "maxLength": 107, "description": "an absolute path"})
    }
}

/// A Unix socket: its path, or a map.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "UnixTarget")]
pub(crate) enum UnixForm {
    Str(SocketPath),
    Map(UnixMap),
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnixMap {
    path: SocketPath,
}

impl From<UnixForm> for DatagramTarget {
    fn from(form: UnixForm) -> Self {
        match form {
            UnixForm::Map(UnixMap { path }) | UnixForm::Str(path) => Self::Unix(path.0),
        }
    }
}

/// A UDP peer: its address, or a map.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "UdpTarget")]
pub(crate) enum UdpForm {
    Str(SockAddrSpec),
    Map(UdpMap),
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UdpMap {
    #[serde(alias = "addr")]
    address: Option<SockAddrSpec>,
    #[serde(alias = "bind")]
    bind_ip: Option<IpAddr>,
}

impl UdpForm {
    fn target(self, port: u16) -> DatagramTarget {
        let (address, bind_ip) = match self {
            Self::Str(peer) => (Some(peer), None),
            Self::Map(UdpMap { address, bind_ip }) => (address, bind_ip),
        };
        DatagramTarget::Udp {
            peer: address.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()),
            bind_ip,
        }
    }
}

/// `target: {udp: …}` or `target: {unix: …}`; of both the last one counts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EitherMap {
    udp: Option<Placed<UdpForm>>,
    unix: Option<Placed<UnixForm>>,
}

impl EitherMap {
    fn target(self, port: u16) -> Option<DatagramTarget> {
        let udp = self.udp.map(|it| it.map(|it| it.target(port)));
        Placed::last([udp, self.unix.map(Placed::into)])
    }
}

impl fmt::Display for DatagramTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp {
                peer: SockAddrSpec::Addr(addr),
                ..
            } => addr.fmt(f),
            Self::Udp {
                peer: SockAddrSpec::Name(host, port),
                ..
            } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}
