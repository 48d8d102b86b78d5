//! Finding the site that a target belongs to.

use std::collections::HashMap;
use std::iter;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use sluice_addr::Host;
use sluice_config::value::{Network, ResolveStrategy};
use sluice_tls::BuildError;
use sluice_tls::client::{Connector, SessionCache};

use super::config::SiteConfig;
use super::next_id;
use super::stats::Numbers;

/// A site at work.
pub(crate) struct Site {
    /// Its metrics; `None` if it has none.
    pub(crate) numbers: Option<Arc<Numbers>>,
    pub(crate) resolve_strategy: Option<ResolveStrategy>,
    /// TLS to origins with settings of its own, and a number that no other settings have.
    pub(crate) tls_client: Option<(Connector, u64)>,
    pub(crate) response_timeout: Option<Duration>,
}

/// All sites of a user.
#[derive(Default)]
pub(crate) struct Sites {
    exact: HashMap<Host, Arc<Site>>,
    children: HashMap<Box<str>, Arc<Site>>,
    /// Longest prefix first.
    subnets: Vec<(Network, Arc<Site>)>,
}

impl Sites {
    /// Sites with TLS files relative to `base`; `numbers` gives each that wants them its metrics.
    ///
    /// # Errors
    /// [`BuildError`] of a `tls_client`.
    pub(crate) fn new(
        configs: &[SiteConfig],
        base: &FsPath,
        numbers: impl Fn(&SiteConfig) -> Arc<Numbers>,
    ) -> Result<Self, BuildError> {
        let mut sites = Self::default();
        for config in configs {
            let tls = config
                .tls_client
                .as_ref()
                .map(|tls| Connector::build(tls, base, SessionCache::ManySites))
                .transpose()?;
            let site = Arc::new(Site {
                numbers: config.emit_stats.then(|| numbers(config)),
                resolve_strategy: config.resolve_strategy,
                tls_client: tls.map(|connector| (connector, next_id())),
                response_timeout: config.http_rsp_header_recv_timeout.map(|span| span.0),
            });
            for host in &config.exact_match {
                sites.exact.insert(host.clone(), Arc::clone(&site));
            }
            for domain in &config.child_match {
                sites.children.insert(domain.0.clone(), Arc::clone(&site));
            }
            for network in &config.subnet_match {
                sites.subnets.push((*network, Arc::clone(&site)));
            }
        }
        sites
            .subnets
            .sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
        Ok(sites)
    }

    /// The site of a host: by itself, else by the longest network or the nearest domain above.
    pub(crate) fn find(&self, host: &Host) -> Option<&Arc<Site>> {
        if let Some(site) = self.exact.get(host) {
            return Some(site);
        }
        match host {
            Host::Ip(ip) => self
                .subnets
                .iter()
                .find(|(network, _)| network.contains(*ip))
                .map(|(_, site)| site),
            Host::Domain(_) if self.children.is_empty() => None,
            Host::Domain(name) => {
                let mut domains = iter::successors(Some(&**name), |name| Some(name.split_once('.')?.1));
                domains.find_map(|domain| self.children.get(domain))
            }
        }
    }
}
