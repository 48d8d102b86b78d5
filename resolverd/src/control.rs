//! What the control socket asks of resolverd.

use std::{net::IpAddr, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_config::value::QueryStrategy;
use sluice_control::{Code, Error, Methods, NoParams};
use sluice_wire::dns::Family;
use tokio::time::{Instant, timeout};

use crate::{
    daemon::Resolverd,
    resolver::{Resolved, Resolver},
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct One {
    /// The resolver's name.
    #[serde(alias = "name")]
    resolver: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Query {
    /// The resolver's name.
    #[serde(alias = "name")]
    resolver: String,
    /// The name to look up.
    domain: String,
    /// Which families are asked for: `ipv4_only`, `ipv6_only`, `ipv4_first` or `ipv6_first`.
    #[serde(default)]
    strategy: Strategy,
    /// Milliseconds to wait for the preferred family once the other one is there.
    #[serde(default = "resolution_delay")]
    resolution_delay: u16,
}

fn resolution_delay() -> u16 {
    50
}

/// A strategy in any of its spellings.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
struct Strategy(#[schemars(with = "String")] QueryStrategy);

impl TryFrom<String> for Strategy {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        let plain: String = word.chars().filter(char::is_ascii_alphanumeric).collect();
        Ok(Self(match plain.to_ascii_lowercase().as_str() {
            "ipv4only" => QueryStrategy::Ipv4Only,
            "ipv6only" => QueryStrategy::Ipv6Only,
            "ipv4first" => QueryStrategy::Ipv4First,
            "ipv6first" => QueryStrategy::Ipv6First,
            _ => {
                return Err(format!(
                    "`{word}` is none of ipv4_only, ipv6_only, ipv4_first, ipv6_first"
                ));
            }
        }))
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Show {
    /// The resolver's name.
    #[serde(alias = "name")]
    resolver: String,
    /// Only this name.
    #[serde(default)]
    domain: Option<String>,
    /// At most so many answers.
    #[serde(default = "show_limit")]
    limit: usize,
}

fn show_limit() -> usize {
    1000
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Flush {
    /// The resolver's name; all of them if absent.
    #[serde(default, alias = "name")]
    resolver: Option<String>,
    /// Only this name.
    #[serde(default)]
    domain: Option<String>,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    kind: &'static str,
    cached: usize,
    trash: usize,
    doing: usize,
}

#[derive(Serialize)]
struct Answered {
    addresses: Vec<IpAddr>,
    /// What each family that was asked for said.
    answers: Vec<FamilyAnswer>,
    /// In seconds.
    duration: f64,
}

#[derive(Serialize)]
struct FamilyAnswer {
    query_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<IpAddr>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    source: &'static str,
    /// Seconds that it stays fresh.
    ttl: u64,
}

impl FamilyAnswer {
    fn new(family: Family, resolved: &Resolved) -> Self {
        let (addresses, error) = match &resolved.outcome {
            Ok(addresses) => (Some(addresses.to_vec()), None),
            Err(failure) if failure.text.is_empty() => (None, Some(failure.error.to_string())),
            Err(failure) => (None, Some(format!("{}: {}", failure.error, failure.text))),
        };
        Self {
            query_type: family.record_name(),
            addresses,
            error,
            source: resolved.source.name(),
            ttl: resolved.left.as_secs(),
        }
    }
}

#[derive(Serialize)]
struct CachedAnswer {
    domain: String,
    query_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<IpAddr>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    state: &'static str,
    /// Seconds until it expires; 0 if it has.
    expires_in: u64,
    /// Seconds until it vanishes.
    vanishes_in: u64,
}

#[derive(Serialize)]
struct Flushed {
    flushed: usize,
}

#[derive(Serialize)]
struct UpstreamState {
    resolver: String,
    address: String,
    transport: &'static str,
    connected: bool,
    asked: u64,
    answered: u64,
    failed_in_a_row: u64,
    latency_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure_seconds_ago: Option<u64>,
}

/// Adds resolverd's own methods.
pub(crate) fn add(daemon: &Arc<Resolverd>, methods: &mut Methods) {
    let of = Arc::clone(daemon);
    methods.add(
        "resolver.list",
        "all resolvers, their kinds and how much they hold",
        move |_: NoParams| {
            let list = list(&of);
            async move { Ok(list) }
        },
    );
    let of = Arc::clone(daemon);
    methods.add("resolver.query", "looks a name up", move |query: Query| {
        let resolver = find(&of, &query.resolver);
        async move { ask(&resolver?, &query).await }
    });
    let of = Arc::clone(daemon);
    methods.add(
        "resolver.cache.show",
        "the answers that a resolver holds",
        move |show: Show| {
            let shown = find(&of, &show.resolver).map(|resolver| shown(&resolver, &show));
            async move { shown }
        },
    );
    let of = Arc::clone(daemon);
    methods.add("resolver.cache.flush", "forgets answers", move |flush: Flush| {
        let flushed = flushed(&of, &flush);
        async move { flushed }
    });
    let of = Arc::clone(daemon);
    methods.add(
        "resolver.upstreams",
        "the name servers of a resolver and how they do",
        move |one: One| {
            let upstreams = find(&of, &one.resolver).map(|resolver| upstreams(&resolver));
            async move { upstreams }
        },
    );
}

fn find(daemon: &Resolverd, name: &str) -> Result<Arc<Resolver>, Error> {
    let resolvers = daemon.resolvers();
    resolvers
        .find(name)
        .cloned()
        .ok_or_else(|| Error::new(Code::NotFound, format!("no resolver is named `{name}`")))
}

fn list(daemon: &Resolverd) -> Vec<Listed> {
    let one = |resolver: &Arc<Resolver>| {
        let table = resolver.memory.table();
        Listed {
            name: resolver.name.to_string(),
            kind: resolver.config.kind(),
            cached: table.fresh(),
            trash: table.trash(),
            doing: resolver.doing().0,
        }
    };
    daemon.resolvers().iter().map(one).collect()
}

/// Asks for what the strategy says; the preferred family's addresses come first.
async fn ask(resolver: &Arc<Resolver>, query: &Query) -> Result<Answered, Error> {
    let start = Instant::now();
    let domain = plain(&query.domain);
    let strategy = query.strategy.0;
    let families = match (strategy.ipv4(), strategy.ipv6(), strategy.prefers_ipv4()) {
        (true, true, true) => vec![Family::V4, Family::V6],
        (true, true, false) => vec![Family::V6, Family::V4],
        (true, false, _) => vec![Family::V4],
        (false, ..) => vec![Family::V6],
    };
    let delay = Duration::from_millis(query.resolution_delay.into());
    let answers = match families.as_slice() {
        [first, second] => {
            let mut preferred = Box::pin(resolver.answer(&domain, *first));
            let mut other = Box::pin(resolver.answer(&domain, *second));
            tokio::select! {
                answer = &mut preferred => {
                    let known = timeout(delay, other).await.ok();
                    vec![Some((*first, answer)), known.map(|answer| (*second, answer))]
                }
                answer = &mut other => {
                    let has_some = matches!(&answer.outcome, Ok(addresses) if !addresses.is_empty());
                    let late = if has_some { timeout(delay, preferred).await.ok() } else { Some(preferred.await) };
                    vec![late.map(|answer| (*first, answer)), Some((*second, answer))]
                }
            }
        }
        _ => {
            let mut answers = Vec::new();
            for family in families {
                answers.push(Some((family, resolver.answer(&domain, family).await)));
            }
            answers
        }
    };
    let answers: Vec<FamilyAnswer> = answers
        .into_iter()
        .flatten()
        .map(|(family, answer)| FamilyAnswer::new(family, &answer))
        .collect();
    let addresses: Vec<IpAddr> = answers
        .iter()
        .flat_map(|answer| answer.addresses.iter().flatten())
        .copied()
        .collect();
    let error = answers.iter().find_map(|answer| answer.error.clone());
    match error {
        Some(error) if addresses.is_empty() => Err(Error::new(Code::Failed, error)),
        _ => Ok(Answered {
            addresses,
            answers,
            duration: start.elapsed().as_secs_f64(),
        }),
    }
}

fn shown(resolver: &Resolver, show: &Show) -> Vec<CachedAnswer> {
    let domain = show.domain.as_deref().map(plain);
    let mut table = resolver.memory.table();
    let wanted = |own: &str| domain.as_deref().is_none_or(|domain| own == domain);
    let mut answers: Vec<CachedAnswer> = table
        .list(Instant::now())
        .filter(|listed| wanted(listed.domain))
        .take(show.limit)
        .map(|listed| CachedAnswer {
            domain: listed.domain.to_owned(),
            query_type: listed.family.record_name(),
            addresses: listed.outcome.as_ref().ok().map(|addresses| addresses.to_vec()),
            error: listed.outcome.as_ref().err().map(|failure| failure.error.to_string()),
            state: if listed.fresh.is_some() { "fresh" } else { "trash" },
            expires_in: listed.fresh.unwrap_or_default().as_secs(),
            vanishes_in: listed.left.as_secs(),
        })
        .collect();
    drop(table);
    answers.sort_by(|a, b| (&a.domain, a.query_type).cmp(&(&b.domain, b.query_type)));
    answers
}

fn flushed(daemon: &Resolverd, flush: &Flush) -> Result<Flushed, Error> {
    let domain = flush.domain.as_deref().map(plain);
    let flush_one = |resolver: &Arc<Resolver>| resolver.memory.table().flush(domain.as_deref());
    let flushed = match &flush.resolver {
        Some(name) => flush_one(&find(daemon, name)?),
        None => daemon.resolvers().iter().map(flush_one).sum(),
    };
    Ok(Flushed { flushed })
}

fn upstreams(resolver: &Resolver) -> Vec<UpstreamState> {
    let one = |condition: crate::stub::Condition| UpstreamState {
        resolver: resolver.name.to_string(),
        address: condition.address.to_string(),
        transport: condition.transport,
        connected: condition.connected,
        asked: condition.asked,
        answered: condition.answered,
        failed_in_a_row: condition.failed_in_a_row,
        latency_ms: condition.latency.as_secs_f64() * 1000.0,
        last_failure_seconds_ago: condition.last_failure.as_ref().map(|(ago, _)| ago.as_secs()),
        last_failure: condition.last_failure.map(|(_, text)| text),
    };
    resolver.upstreams().into_iter().map(one).collect()
}

/// A domain as the tables have it.
fn plain(domain: &str) -> String {
    domain.trim_end_matches('.').to_ascii_lowercase()
}
