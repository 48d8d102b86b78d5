//! The `stat` section.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::naming::Naming;
use crate::transport::DatagramTarget;

/// The `stat` section: where numbers go.
#[derive(Clone, Debug, PartialEq)]
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
                peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 8125)),
                bind_ip: None,
            }),
        }
    }

    pub(super) fn max_segment_size_for(&self, target: &DatagramTarget) -> usize {
        self.max_segment_size.unwrap_or(match target {
            DatagramTarget::Udp { .. } => 1400,
            DatagramTarget::Unix(_) => 4096,
        })
    }
}

/// The OpenMetrics endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
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
