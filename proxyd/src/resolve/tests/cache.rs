//! The table of answers.

use super::*;
use crate::resolve::cache::{Cache, Found, Key};

fn key(domain: &str) -> Key<'_> {
    Key {
        zone: 0,
        domain,
        family: Family::V4,
    }
}

#[test]
fn little_used_names_go_first() {
    let now = Instant::now();
    let mut cache = Cache::new(100, Duration::from_secs(10));
    let minute = Duration::from_secs(60);
    for n in 0..1000 {
        cache.put(&key("used"), Ok([ADDRESS].into()), minute, now);
        cache.put(&key(&format!("n{n}")), Err(ResolveError::NotFound), minute, now);
        assert_eq!(cache.look(&key("used"), now), Found::Fresh(Ok([ADDRESS].into())));
    }
    assert_eq!(cache.len(), 100);
}

#[test]
fn answers_get_stale_and_vanish() {
    let now = Instant::now();
    let mut cache = Cache::new(100, Duration::from_secs(10));
    cache.put(&key("a"), Ok([ADDRESS].into()), Duration::from_secs(60), now);
    let at = |seconds| now + Duration::from_secs(seconds);
    assert!(matches!(cache.look(&key("a"), at(59)), Found::Fresh(_)));
    assert!(matches!(
        cache.look(&key("a"), at(60)),
        Found::Stale { settled: false, .. }
    ));
    cache.settle(&key("a"), at(65));
    assert!(matches!(
        cache.look(&key("a"), at(61)),
        Found::Stale { settled: true, .. }
    ));
    assert!(matches!(
        cache.look(&key("a"), at(69)),
        Found::Stale { settled: false, .. }
    ));
    assert_eq!(cache.look(&key("a"), at(70)), Found::Missing);
}
