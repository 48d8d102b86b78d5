//! Numbers: counters and gauges that objects keep, sent to StatsD and shown to OpenMetrics scrapers.
//!
//! An object keeps [`Counter`]s, in [`Shards`] where workers add to them often, and registers a [`Source`] with the
//! [`Registry`]. Sources say absolute values; the StatsD thread makes differences of them, the endpoint shows them as they
//! are. Names and tags are those of g3proxy's documentation.

mod collector;
mod config;
mod help;
mod histogram;
mod openmetrics;
mod registry;
mod runtime;
mod shards;
mod statsd;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub use collector::{Collector, Gauge, Object, Rule};
#[cfg(test)]
pub(crate) use collector::{Emit, Line};
pub use config::{Listen, OpenMetricsConfig, StatConfig};
pub use histogram::{Histogram, Told};
pub use registry::{Registration, Registry, Source};
pub use runtime::RuntimeGauges;
pub use shards::{Counter, Shards, set_worker, set_workers};

use sluice_config::value::ResolveAddrError;

use crate::naming::Identity;

/// A new `stat_id`: unique on the machine, process id in the high half, a running number in the low one.
pub fn next_stat_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let low = NEXT.fetch_add(1, Ordering::Relaxed);
    let id = (u64::from(std::process::id()) << 32) | u64::from(low);
    id.to_string()
}

/// Why metrics could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The name of the StatsD peer does not lead to an address.
    #[error("the StatsD peer has no address")]
    Address(#[from] ResolveAddrError),
    /// The OpenMetrics endpoint could not be opened.
    #[error("bind of the OpenMetrics endpoint `{0}` failed")]
    Endpoint(Listen, #[source] io::Error),
    /// A thread could not be started.
    #[error("start of a metrics thread failed")]
    Thread(#[source] io::Error),
}

/// Starts what `config` asks for: the StatsD thread, the OpenMetrics endpoint, or both.
///
/// # Errors
/// [`StartError`] if the endpoint cannot be bound or a thread not be started. An endpoint's port that another process
/// holds, as the previous generation of this daemon, is tried again every second and is no error.
pub fn start(config: &StatConfig, identity: &Identity, registry: Registry) -> Result<StatThread, StartError> {
    let prefix: Arc<str> = config.prefix_for(identity.product).into();
    let group: Arc<str> = identity.daemon_group.as_str().into();
    let endpoint = config
        .openmetrics
        .as_ref()
        .map(|endpoint| {
            openmetrics::Endpoint::start(
                &endpoint.listen,
                openmetrics::Page::new(registry.reader(), &prefix, &group),
            )
        })
        .transpose()?;
    let target = config.statsd_target().map(|target| target.resolve()).transpose()?;
    let statsd = target
        .map(|target| statsd::Emitter::start(config, target, &prefix, &group, registry.reader()))
        .transpose()
        .map_err(StartError::Thread)?;
    Ok(StatThread { statsd, endpoint })
}

/// Running metrics; stops when dropped, without a last emission.
#[derive(Debug)]
pub struct StatThread {
    statsd: Option<statsd::Emitter>,
    endpoint: Option<openmetrics::Endpoint>,
}

impl StatThread {
    /// Frees the endpoint's address, for the next generation of this daemon; StatsD goes on.
    pub fn close_endpoint(&mut self) {
        self.endpoint = None;
    }

    /// The endpoint's address, if it is a TCP port that is bound by now.
    pub fn endpoint_addr(&self) -> Option<std::net::SocketAddr> {
        self.endpoint.as_ref().and_then(openmetrics::Endpoint::addr)
    }

    /// Sends the last values and ends. There is no need to wait for an interval before.
    pub fn stop(mut self) {
        self.endpoint = None;
        if let Some(statsd) = self.statsd.take() {
            statsd.stop();
        }
    }
}
