//! Streams that pass untouched for a while, since an attempt to open them has shown that it cannot be done.
//!
//! A host is known by the address that clients ask for together with the name in their hello: a client cannot have one
//! host's stream pass by the name of another. What one client does counts for this client alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_addr::{Host, Upstream};
use sluice_config::value::Span;

use super::obstacle::Obstacle;
use super::table::Table;

/// The most hosts, and clients of hosts, that are known at a time.
const CAPACITY: usize = 4096;

/// As many are shown by `status`.
const SHOWN: usize = 100;

/// How long streams pass, and after what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LearnedBypass {
    /// How long they pass before the next one is opened again.
    pub(crate) lifetime: Span,
    /// How often a client must refuse certificates of a host, one after another.
    pub(crate) refusals: u32,
    /// The longest time from the first of these refusals to the last.
    pub(crate) refusal_period: Span,
}

impl Default for LearnedBypass {
    fn default() -> Self {
        Self {
            lifetime: Span::secs(600),
            refusals: 3,
            refusal_period: Span::secs(60),
        }
    }
}

/// A host as a client asks for it, or one client of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// What the client's tunnel leads to.
    upstream: Upstream,
    /// The name in the client's hello.
    name: Option<Host>,
    /// `None`: every client.
    client: Option<IpAddr>,
}

impl Place {
    pub(super) fn new(upstream: &Upstream, name: Option<&Host>) -> Self {
        Self {
            upstream: upstream.clone(),
            name: name.cloned(),
            client: None,
        }
    }
}

/// What is known of a place.
#[derive(Debug)]
enum Known {
    /// A client has refused certificates, not often enough yet.
    Refusals { count: u32, since: Instant },
    /// Streams pass.
    Passes { obstacle: Obstacle, until: Instant },
}

/// The places of one auditor.
pub(super) struct Learned {
    config: LearnedBypass,
    table: Mutex<Table<Place, Known>>,
}

impl Learned {
    pub(super) fn new(config: LearnedBypass) -> Self {
        Self {
            config,
            table: Mutex::new(Table::new(CAPACITY)),
        }
    }

    /// Why a stream of `client` to `place` shall pass, if it shall.
    pub(super) fn passes(&self, mut place: Place, client: IpAddr, now: Instant) -> Option<Obstacle> {
        let mut table = self.table();
        let mut ask = |place: &Place| match table.get(place) {
            Some(Known::Passes { obstacle, until }) if now < *until => Some(*obstacle),
            _ => None,
        };
        ask(&place).or_else(|| {
            place.client = Some(client);
            ask(&place)
        })
    }

    /// The upstream of `place` has asked for a certificate.
    pub(super) fn asked(&self, place: &Place, now: Instant) {
        self.pass(&mut self.table(), place, Obstacle::CertificateRequest, now);
    }

    /// A client has refused a certificate of `place`; whether the next streams of it pass from now on.
    pub(super) fn refused(&self, mut place: Place, client: IpAddr, now: Instant) -> bool {
        place.client = Some(client);
        let mut table = self.table();
        let (count, since) = match table.get(&place) {
            Some(Known::Refusals { count, since }) if now < *since + self.config.refusal_period.0 => (*count, *since),
            _ => (0, now),
        };
        let count = count + 1;
        if count >= self.config.refusals {
            self.pass(&mut table, &place, Obstacle::CertificateRefusal, now);
            return true;
        }
        table.put(&place, Known::Refusals { count, since });
        false
    }

    /// A client has accepted a certificate of `place`: what it refused before was not for want of trust.
    pub(super) fn accepted(&self, mut place: Place, client: IpAddr) {
        place.client = Some(client);
        if let Some(Known::Refusals { count, .. }) = self.table().get(&place) {
            *count = 0;
        }
    }

    fn pass(&self, table: &mut Table<Place, Known>, place: &Place, obstacle: Obstacle, now: Instant) {
        let until = now + self.config.lifetime.0;
        table.put(place, Known::Passes { obstacle, until });
    }

    /// No lock is held across an await, and what a panic elsewhere leaves is whole.
    fn table(&self) -> MutexGuard<'_, Table<Place, Known>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What passes at the moment, for `status`: how many, and the first of them by name.
    pub(super) fn status(&self, now: Instant) -> Value {
        let table = self.table();
        let passing: BTreeMap<_, _> = table
            .iter()
            .filter_map(|(place, known)| match known {
                Known::Passes { obstacle, until } if now < *until => {
                    let key = (&place.upstream, &place.name, place.client);
                    Some((key, (*obstacle, *until)))
                }
                _ => None,
            })
            .collect();
        let shown = passing
            .iter()
            .take(SHOWN)
            .map(|((upstream, name, client), (obstacle, until))| {
                json!({
                    "upstream": upstream.to_string(),
                    "name": name.as_ref().map(Host::to_string),
                    "client": client,
                    "reason": obstacle.as_str(),
                    "seconds_left": until.saturating_duration_since(now).as_secs(),
                })
            });
        json!({"count": passing.len(), "first": shown.collect::<Vec<_>>()})
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn place(upstream: &str, name: &str) -> Place {
        Place::new(&upstream.parse().unwrap(), Some(&Host::parse(name).unwrap()))
    }

    const ANN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const BOB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn a_host_passes_for_a_while_once_its_upstream_has_asked() {
        let learned = Learned::new(LearnedBypass::default());
        let now = Instant::now();
        let at = |host: &str, name, seconds| learned.passes(place(host, name), BOB, now + Duration::from_secs(seconds));
        assert_eq!(at("a.test:443", "a.test", 0), None);
        learned.asked(&place("a.test:443", "a.test"), now);
        assert_eq!(at("a.test:443", "a.test", 599), Some(Obstacle::CertificateRequest));
        assert_eq!(at("a.test:443", "a.test", 600), None);
        // Neither by another name, nor at another place.
        assert_eq!(at("a.test:443", "b.test", 0), None);
        assert_eq!(at("b.test:443", "a.test", 0), None);
        assert_eq!(at("a.test:444", "a.test", 0), None);
    }

    #[test]
    fn refusals_in_a_row_count_for_the_client_that_refuses_alone() {
        let learned = Learned::new(LearnedBypass::default());
        let start = Instant::now();
        let refuses = |client, seconds| {
            learned.refused(
                place("a.test:443", "a.test"),
                client,
                start + Duration::from_secs(seconds),
            )
        };
        let passes = |client, seconds| {
            learned.passes(
                place("a.test:443", "a.test"),
                client,
                start + Duration::from_secs(seconds),
            )
        };
        assert!(!refuses(ANN, 0) && !refuses(BOB, 0) && !refuses(ANN, 1));
        assert_eq!(passes(ANN, 1), None);
        assert!(refuses(ANN, 2));
        assert_eq!(passes(ANN, 3), Some(Obstacle::CertificateRefusal));
        assert_eq!(passes(BOB, 3), None);
        assert_eq!(passes(ANN, 602), None);
        // The time is over, and counting begins anew.
        assert!(!refuses(ANN, 700) && !refuses(ANN, 701));
        learned.accepted(place("a.test:443", "a.test"), ANN);
        assert!(!refuses(ANN, 702));
        assert!(!refuses(ANN, 761));
        assert_eq!(passes(ANN, 762), None);
    }

    #[test]
    fn the_oldest_places_make_room() {
        let learned = Learned::new(LearnedBypass::default());
        let now = Instant::now();
        for n in 0..=CAPACITY {
            learned.asked(&place(&format!("h{n}.test:443"), "a.test"), now);
        }
        assert_eq!(learned.passes(place("h0.test:443", "a.test"), ANN, now), None);
        let last = place(&format!("h{CAPACITY}.test:443"), "a.test");
        assert_eq!(learned.passes(last, ANN, now), Some(Obstacle::CertificateRequest));
        let status = learned.status(now);
        assert_eq!(status["count"], CAPACITY);
        assert_eq!(status["first"].as_array().unwrap().len(), SHOWN);
    }
}
