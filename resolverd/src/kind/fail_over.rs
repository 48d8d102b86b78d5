//! Asks two other resolvers at once and prefers one of them for a while.

use std::{pin::pin, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::value::{NodeName, Span};
use sluice_telemetry::keys;
use sluice_wire::dns::{Family, ResolveError};
use tokio::time::sleep;

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

    /// Asks both at once: within the delay the primary's success counts, then the first of either.
    pub(crate) async fn query(&self, domain: &str, family: Family) -> (Resolved, Lifetime) {
        let mut primary = pin!(self.primary.resolve(domain, family));
        let mut standby = pin!(self.standby.resolve(domain, family));
        let mut delay = pin!(sleep(self.delay));
        let mut preferring = true;
        let mut answers: Vec<Resolved> = Vec::new(); // in the order in which they came
        let (mut primary_done, mut standby_done) = (false, false);
        while !(primary_done && standby_done) {
            tokio::select! {
                answer = &mut primary, if !primary_done => {
                    if self.is_good(&answer) {
                        return self.chosen(answer);
                    }
                    (primary_done, preferring) = (true, false);
                    answers.push(answer);
                }
                answer = &mut standby, if !standby_done => {
                    standby_done = true;
                    answers.push(answer);
                }
                () = &mut delay, if preferring => preferring = false,
            }
            if !preferring && let Some(good) = answers.iter().position(|answer| self.is_good(answer)) {
                return self.chosen(answers.swap_remove(good));
            }
        }
        let best = answers.into_iter().max_by_key(usefulness); // the last of equals
        self.chosen(best.unwrap_or_else(|| Resolved::failed(ResolveError::Internal)))
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

/// Of answers that are not good, one with addresses past its time is better than one without, and that than a failure.
fn usefulness(answer: &Resolved) -> u8 {
    match &answer.outcome {
        Ok(addresses) if !addresses.is_empty() => 2,
        Ok(_) => 1,
        Err(_) => 0,
    }
}
