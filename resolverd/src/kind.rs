//! The kinds of resolver: what is configured, and what runs.
//!
//! A new kind is one file here, one variant in [`ResolverConfig`]; the compiler lists the rest.

pub(crate) mod c_ares;
pub(crate) mod deny_all;
pub(crate) mod fail_over;
pub(crate) mod hickory;
mod servers;
#[cfg(test)]
mod tests;

use std::{path::Path, time::Duration};

use sluice_config::kinds;
use sluice_lifecycle::Tasks;
use sluice_wire::dns::Family;

use crate::{
    cache::{Failure, TtlBounds},
    stub::{Condition, Found, Stub},
};

kinds! {
    /// What a resolver is configured as.
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) enum ResolverConfig: "resolver" {
        /// Queries as c-ares makes them.
        CAres(c_ares::CAresConfig) = "c_ares",
        /// Refuses everything.
        DenyAll(deny_all::DenyAllConfig) = "deny_all",
        /// Two other resolvers, one of them preferred.
        FailOver(fail_over::FailOverConfig) = "fail_over",
        /// Queries by hickory, encrypted if wanted.
        Hickory(Box<hickory::HickoryConfig>) = "hickory" | "hickory_dns" | "trust_dns",
    }
}

/// Why a resolver can not run as configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// c-ares does not take what is configured.
    #[cfg(feature = "c-ares")]
    #[error("c-ares")]
    CAres(#[from] c_ares_resolver::Error),
    /// The TLS client of `encryption`.
    #[error("the TLS client of `encryption`")]
    Tls(#[from] sluice_tls::BuildError),
    /// A TLS name that rustls does not take.
    #[error("`{0}` is not a TLS name")]
    TlsName(String),
}

/// Name servers, with what asks them.
pub(crate) enum Servers {
    /// The real c-ares.
    #[cfg(feature = "c-ares")]
    CAres(c_ares::Channel),
    /// Our own stub on hickory's transports.
    Stub(Stub),
}

impl Servers {
    /// Looks a name up.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn query(&self, domain: &str, family: Family) -> Result<Found, Failure> {
        match self {
            #[cfg(feature = "c-ares")]
            Self::CAres(channel) => channel.query(domain, family).await,
            Self::Stub(stub) => stub.query(domain, family).await,
        }
    }

    /// How each server is doing.
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        match self {
            #[cfg(feature = "c-ares")]
            Self::CAres(channel) => channel.conditions(),
            Self::Stub(stub) => stub.conditions(),
        }
    }
}

/// What the kinds have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Common {
    /// How long a replaced resolver goes on with its queries.
    pub(crate) graceful_stop_wait: Duration,
    /// The cap on one query.
    pub(crate) protective_query_timeout: Duration,
    pub(crate) ttl: TtlBounds,
}

impl ResolverConfig {
    /// The kind's name, as in `resolver_type` of logs.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::CAres(_) => "c-ares",
            Self::DenyAll(_) => "deny-all",
            Self::FailOver(_) => "fail-over",
            Self::Hickory(_) => "hickory",
        }
    }

    /// What holds for every kind.
    pub(crate) fn common(&self) -> Common {
        match self {
            Self::CAres(config) => config.common(),
            Self::DenyAll(_) => deny_all::common(),
            Self::FailOver(config) => config.common(),
            Self::Hickory(config) => config.common(),
        }
    }

    /// Whether running it depends on files that may have changed since.
    pub(crate) fn reads_files(&self) -> bool {
        match self {
            Self::CAres(config) => config.server.is_none(),
            Self::Hickory(config) => config.encryption.is_some(),
            Self::DenyAll(_) | Self::FailOver(_) => false,
        }
    }

    /// Makes what asks name servers; `None` for the kinds that ask none.
    ///
    /// # Errors
    /// [`BuildError`] if files that it names are not good.
    pub(crate) fn servers(&self, base: &Path, tasks: Tasks) -> Result<Option<Servers>, BuildError> {
        match self {
            Self::CAres(config) => config.servers(tasks).map(Some),
            Self::Hickory(config) => config.stub(base, tasks).map(|stub| Some(Servers::Stub(stub))),
            Self::DenyAll(_) | Self::FailOver(_) => Ok(None),
        }
    }

    /// The fields of a Resolve record that the kind adds.
    pub(crate) fn log_fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::CAres(config) => config.log_fields(),
            Self::DenyAll(_) => Vec::new(),
            Self::FailOver(config) => config.log_fields(),
            Self::Hickory(config) => config.log_fields(),
        }
    }
}
