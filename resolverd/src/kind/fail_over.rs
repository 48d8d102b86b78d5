//! Asks two other resolvers at once and prefers one of them for a while.

use std::{sync::Arc, time::Duration};

use futures_util::future::{Either, select};
use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::value::{NodeName, Span};
use sluice_telemetry::keys;
use sluice_wire::dns::Family;
use tokio::time::timeout;

use super::Common;
use crate::{
    cache::{Lifetime, TtlBounds},
    resolver::{Resolved, Resolver, Source},
};

/// Two resolvers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailOverConfig {
    /// The resolver that is preferred.
    pub(crate) primary: NodeName,
    /// The resolver that steps in.
    pub(crate) standby: NodeName,
    /// How long the primary is preferred.
    #[serde(
        default = "fallback_delay",
        alias = "delay",
        alias = "fallback_timeout",
        alias = "timeout"
    )]
    pub(crate) fallback_delay: Span,
    /// How long failures are kept, in seconds.
    #[serde(default = "negative_ttl", alias = "protective_cache_ttl")]
    pub(crate) negative_ttl: u32,
    /// An answer without addresses is not good enough.
    #[serde(default)]
    pub(crate) retry_empty_record: bool,
    /// How long a replaced resolver goes on with its queries.
    #[serde(default = "super::hickory::graceful_stop_wait")]
    pub(crate) graceful_stop_wait: Span,
    /// The cap on one query.
    #[serde(default = "super::hickory::protective_query_timeout")]
    pub(crate) protective_query_timeout: Span,
}

fn fallback_delay() -> Span {
    Span::millis(100)
}

fn negative_ttl() -> u32 {
    30
}

impl FailOverConfig {
    pub(super) fn common(&self) -> Common {
        Common {
            graceful_stop_wait: self.graceful_stop_wait.0,
            protective_query_timeout: self.protective_query_timeout.0,
            ttl: TtlBounds::new(0, 0, self.negative_ttl),
        }
    }

    pub(super) fn log_fields(&self) -> Vec<(&'static str, String)> {
        vec![
            (keys::NEXT_PRIMARY, self.primary.as_str().to_owned()),
            (keys::NEXT_STANDBY, self.standby.as_str().to_owned()),
        ]
    }
}

/// The two resolvers as they run.
pub(crate) struct FailOver {
    pub(crate) primary: Arc<Resolver>,
    pub(crate) standby: Arc<Resolver>,
    delay: Duration,
    retry_empty: bool,
    negative: Lifetime,
}

impl FailOver {
    pub(crate) fn new(config: &FailOverConfig, primary: Arc<Resolver>, standby: Arc<Resolver>) -> Self {
        Self {
            primary,
            standby,
            delay: config.fallback_delay.0,
            retry_empty: config.retry_empty_record,
            negative: config.common().ttl.negative(),
        }
    }

    /// Whether an answer ends the query: it is not past its time, and has addresses if they are a must.
    fn is_good(&self, answer: &Resolved) -> bool {
        let has_addresses = answer
            .outcome
            .as_ref()
            .is_ok_and(|addresses| !addresses.is_empty() || !self.retry_empty);
        has_addresses && answer.source != Source::Trash
    }

    /// Asks both: within the delay the primary's success counts, then the first of either.
    pub(crate) async fn query(&self, domain: &str, family: Family) -> (Resolved, Lifetime) {
        let mut primary = Box::pin(self.primary.resolve(domain, family));
        let standby = Box::pin(self.standby.resolve(domain, family));
        let (answer, other) = match timeout(self.delay, &mut primary).await {
            Ok(answer) if self.is_good(&answer) => return self.chosen(answer),
            Ok(answer) => (answer, standby.await),
            Err(_) => match select(primary, standby).await {
                Either::Left((answer, _)) | Either::Right((answer, _)) if self.is_good(&answer) => {
                    return self.chosen(answer);
                }
                Either::Left((answer, standby)) => (answer, standby.await),
                Either::Right((answer, primary)) => (answer, primary.await),
            },
        };
        self.chosen(self.better(answer, other))
    }

    /// Which of both to use when the first was not good: a good one, else one that is past its time or empty, else
    /// the last failure.
    fn better(&self, first: Resolved, last: Resolved) -> Resolved {
        if self.is_good(&last) || first.outcome.is_err() {
            return last;
        }
        match (&first.outcome, &last.outcome) {
            (Ok(first_addresses), Ok(last_addresses)) if first_addresses.is_empty() && !last_addresses.is_empty() => {
                last
            }
            _ => first,
        }
    }

    /// The answer and how long it is good: as long as with the resolver it is from.
    fn chosen(&self, answer: Resolved) -> (Resolved, Lifetime) {
        let lifetime = match (&answer.outcome, answer.source) {
            (Err(_), _) => self.negative,
            (Ok(_), Source::Trash) => Lifetime {
                expire: Duration::ZERO,
                vanish: None,
            },
            (Ok(_), _) => Lifetime {
                expire: answer.left,
                vanish: None,
            },
        };
        (answer, lifetime)
    }
}
