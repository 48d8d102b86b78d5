//! The addresses of a name that datagrams go to.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sluice_wire::dns::ResolveError;
use tokio::time::timeout;

use crate::dial::Order;
use crate::resolve::{Answer, Resolver};

/// Looks up the addresses of the preferred family, else those of the other one. Both are asked for at once; once the
/// other one is known, the preferred one has `patience` left to answer.
pub(crate) async fn addresses(
    resolver: Resolver,
    zone: Arc<str>,
    domain: Box<str>,
    order: Order,
    patience: Duration,
) -> Result<Arc<[IpAddr]>, ResolveError> {
    let mut first = pin!(resolver.lookup(&zone, &domain, order.first));
    let Some(second) = order.second else {
        return first.await.map(|answer| answer.addresses);
    };
    let mut second = pin!(resolver.lookup(&zone, &domain, second));
    tokio::select! {
        biased;
        preferred = &mut first => match preferred {
            Ok(answer) if has_some(&answer) => Ok(answer.addresses),
            preferred => either(preferred, second.await),
        },
        other = &mut second => match other {
            Ok(answer) if has_some(&answer) => match timeout(patience, first).await {
                Ok(Ok(preferred)) if has_some(&preferred) => Ok(preferred.addresses),
                _ => Ok(answer.addresses),
            },
            other => either(first.await, other),
        },
    }
}

fn has_some(answer: &Answer) -> bool {
    !answer.addresses.is_empty()
}

/// What there is in two answers, the preferred one first. An error counts only where there are no addresses.
fn either(
    preferred: Result<Answer, ResolveError>,
    other: Result<Answer, ResolveError>,
) -> Result<Arc<[IpAddr]>, ResolveError> {
    match (preferred, other) {
        (Ok(answer), _) if has_some(&answer) => Ok(answer.addresses),
        (_, Ok(answer)) if has_some(&answer) => Ok(answer.addresses),
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(none), Ok(_)) => Ok(none.addresses),
    }
}
