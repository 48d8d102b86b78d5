//! The sites of a user: targets with settings and numbers of their own (users.md §7).

use std::collections::HashSet;
use std::ops::Deref;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_addr::Host;
use sluice_config::Misfit;
use sluice_config::value::{Domain, HistogramMetrics, Network, NodeName, OneOrMany, ResolveStrategy, Span};
use sluice_tls::OpensslClientConfig;

/// One site.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SiteConfig {
    /// What it is called in metrics.
    #[serde(alias = "name")]
    pub(crate) id: NodeName,
    /// These hosts.
    #[serde(default)]
    pub(crate) exact_match: OneOrMany<Host>,
    /// These domains and all below them.
    #[serde(default)]
    pub(crate) child_match: OneOrMany<Domain>,
    /// Addresses in these networks.
    #[serde(default)]
    pub(crate) subnet_match: OneOrMany<Network>,
    /// Whether it has metrics.
    #[serde(default, alias = "emit_metrics")]
    pub(crate) emit_stats: bool,
    /// Which quantiles its metrics tell of the time until data flows.
    #[serde(default, alias = "duration_metrics")]
    pub(crate) duration_stats: HistogramMetrics,
    /// Takes the place of the user's.
    #[serde(default)]
    pub(crate) resolve_strategy: Option<ResolveStrategy>,
    /// TLS towards the origin of `https://` URLs, in place of the server's.
    #[serde(default)]
    pub(crate) tls_client: Option<OpensslClientConfig>,
    /// Takes the place of the user's.
    #[serde(default)]
    pub(crate) http_rsp_header_recv_timeout: Option<Span>,
}

/// All sites of a user; no two have a name or a match value in common.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<SiteConfig>")]
pub(crate) struct SiteList(Vec<SiteConfig>);

impl Deref for SiteList {
    type Target = [SiteConfig];

    fn deref(&self) -> &[SiteConfig] {
        &self.0
    }
}

impl TryFrom<Vec<SiteConfig>> for SiteList {
    type Error = Misfit;

    fn try_from(sites: Vec<SiteConfig>) -> Result<Self, Misfit> {
        let mut ids = HashSet::new();
        let mut values = HashSet::new();
        for site in &sites {
            if !ids.insert(&site.id) {
                return Err(Misfit::new(format!("two sites are called `{}`", site.id)));
            }
            let exact = site.exact_match.iter().map(|host| ("exact_match", host.to_string()));
            let child = site
                .child_match
                .iter()
                .map(|domain| ("child_match", domain.0.to_string()));
            let subnet = site
                .subnet_match
                .iter()
                .map(|network| ("subnet_match", network.to_string()));
            for (key, value) in exact.chain(child).chain(subnet) {
                if !values.insert((key, value.clone())) {
                    return Err(Misfit::new(format!(
                        "`{key}` of two sites, or of one twice, holds `{value}`"
                    )));
                }
            }
        }
        Ok(Self(sites))
    }
}
