//! The `stat` section.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::Misfit;
use sluice_config::value::{ByteSize, NodeName, Span};

use crate::naming::Naming;
use crate::target::{DatagramTarget, EitherMap, Placed, SocketPath, UdpForm, UnixForm, last_target, schema_of};
use crate::transport::Target;

/// Where a StatsD server usually listens.
const STATSD_PORT: u16 = 8125;

/// The `stat` section: where numbers go.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "StatMap")]
pub struct StatConfig {
    /// The StatsD peer. Without one it is `127.0.0.1:8125`, or none if `openmetrics` is there.
    pub target: Option<DatagramTarget>,
    /// Put before every name; the product's name when absent.
    pub prefix: Option<String>,
    /// Bytes of lines gathered before they are sent; 256 KiB by default.
    pub cache_size: usize,
    /// Longest datagram; 1400 bytes over UDP and 4096 over a Unix socket by default.
    pub max_segment_size: Option<usize>,
    /// Time between emissions; 200 ms by default.
    pub emit_interval: Duration,
    /// An endpoint for scrapers.
    pub openmetrics: Option<OpenMetricsConfig>,
}

impl Default for StatConfig {
    fn default() -> Self {
        Self {
            target: None,
            prefix: None,
            cache_size: 256 * 1024,
            max_segment_size: None,
            emit_interval: Duration::from_millis(200),
            openmetrics: None,
        }
    }
}

impl StatConfig {
    pub(super) fn prefix_for(&self, naming: Naming) -> &str {
        self.prefix.as_deref().unwrap_or_else(|| naming.product())
    }

    pub(super) fn statsd_target(&self) -> Option<DatagramTarget> {
        match (&self.target, &self.openmetrics) {
            (Some(target), _) => Some(target.clone()),
            (None, Some(_)) => None,
            (None, None) => Some(DatagramTarget::Udp {
                peer: SocketAddr::from((Ipv4Addr::LOCALHOST, STATSD_PORT)).into(),
                bind_ip: None,
            }),
        }
    }

    pub(super) fn max_segment_size_for(&self, target: &Target) -> usize {
        self.max_segment_size.unwrap_or(match target {
            Target::Udp { .. } => 1400,
            Target::Unix(_) => 4096,
        })
    }
}

/// The OpenMetrics endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "EndpointMap")]
pub struct OpenMetricsConfig {
    /// Where it listens.
    pub listen: Listen,
}

/// An address of the OpenMetrics endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP port on a loopback address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "StatConfig")]
struct StatMap {
    #[serde(alias = "backend_udp")]
    target_udp: Option<Placed<UdpForm>>,
    #[serde(alias = "backend_unix")]
    target_unix: Option<Placed<UnixForm>>,
    #[serde(alias = "backend")]
    target: Option<Placed<EitherMap>>,
    prefix: Option<NodeName>,
    cache_size: ByteSize,
    max_segment_size: Option<ByteSize>,
    emit_interval: Span,
    openmetrics: Option<OpenMetricsConfig>,
}

impl Default for StatMap {
    fn default() -> Self {
        let StatConfig {
            cache_size,
            emit_interval,
            ..
        } = StatConfig::default();
        Self {
            target_udp: None,
            target_unix: None,
            target: None,
            prefix: None,
            cache_size: ByteSize(cache_size as u64),
            max_segment_size: None,
            emit_interval: Span(emit_interval),
            openmetrics: None,
        }
    }
}

/// More than that is no batch of metrics but a slip.
const MOST_CACHED: u64 = 64 * 1024 * 1024;

impl TryFrom<StatMap> for StatConfig {
    type Error = Misfit;

    fn try_from(map: StatMap) -> Result<Self, Misfit> {
        if map.emit_interval.0.is_zero() {
            return Err(Misfit::at("emit_interval", "expected a time longer than 0"));
        }
        if map.cache_size.0 > MOST_CACHED {
            return Err(Misfit::at("cache_size", "expected at most 64MiB"));
        }
        if map.max_segment_size == Some(ByteSize(0)) {
            return Err(Misfit::at("max_segment_size", "expected a size above 0"));
        }
        Ok(Self {
            target: last_target(map.target_unix, map.target_udp, map.target, STATSD_PORT),
            prefix: map.prefix.map(|prefix| prefix.as_str().to_owned()),
            cache_size: map.cache_size.as_usize(),
            max_segment_size: map.max_segment_size.map(ByteSize::as_usize),
            emit_interval: map.emit_interval.0,
            openmetrics: map.openmetrics,
        })
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OpenMetricsConfig")]
struct EndpointMap {
    /// A port on a loopback address.
    listen: Option<SocketAddr>,
    /// The path of a Unix socket.
    unix: Option<SocketPath>,
}

impl TryFrom<EndpointMap> for OpenMetricsConfig {
    type Error = Misfit;

    fn try_from(map: EndpointMap) -> Result<Self, Misfit> {
        let listen = match map {
            EndpointMap {
                listen: Some(addr),
                unix: None,
            } if addr.ip().is_loopback() => Listen::Tcp(addr),
            EndpointMap {
                listen: Some(addr),
                unix: None,
            } => {
                let message = format!("expected an address on loopback such as `127.0.0.1:9100`, found `{addr}`");
                return Err(Misfit::at("listen", message));
            }
            EndpointMap {
                listen: None,
                unix: Some(path),
            } => Listen::Unix(path.0),
            _ => return Err(Misfit::new("one of `listen` and `unix` is needed")),
        };
        Ok(Self { listen })
    }
}

schema_of! {
    StatConfig => StatMap;
    OpenMetricsConfig => EndpointMap;
}

#[cfg(test)]
mod tests;
