//! Certificates that were minted, for those who ask for the same again: other workers, or a proxy that has restarted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use sluice_wire::mint::{Certificate, MintRequest, Usage};

use crate::plan::sha256;

/// What a request asks for: digests of the host and of the certificate to mirror, and the usage.
///
/// The service is not part of it, since no certificate depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    host: [u8; 32],
    cert: Option<[u8; 32]>,
    usage: Usage,
}

impl Wanted {
    pub(crate) fn of(request: &MintRequest) -> Self {
        Self {
            host: sha256(request.host.as_bytes()),
            cert: request.cert.as_ref().map(|cert| match cert {
                Certificate::Der(der) => sha256(der),
                Certificate::Pem(pem) => sha256(pem.as_bytes()),
            }),
            usage: request.usage,
        }
    }
}

/// A certificate that can be sent.
pub(crate) struct Ready {
    /// PEM, the leaf first.
    pub(crate) chain: String,
    /// The leaf's key in DER.
    pub(crate) key: Vec<u8>,
    /// Seconds since 1970.
    pub(crate) not_after: i64,
}

/// So many of them at most; the oldest goes first.
pub(crate) struct Cache {
    limit: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_wanted: HashMap<Wanted, Arc<Ready>>,
    oldest_first: VecDeque<Wanted>,
}

impl Cache {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: Mutex::default(),
        }
    }

    /// What was made for the same wish and is valid at `now`.
    pub(crate) fn find(&self, wanted: &Wanted, now: i64) -> Option<Arc<Ready>> {
        if self.limit == 0 {
            return None;
        }
        let kept = self.kept();
        kept.by_wanted
            .get(wanted)
            .filter(|ready| ready.not_after > now)
            .map(Arc::clone)
    }

    pub(crate) fn put(&self, wanted: Wanted, ready: &Arc<Ready>) {
        if self.limit == 0 {
            return;
        }
        let mut kept = self.kept();
        if kept.by_wanted.insert(wanted, Arc::clone(ready)).is_none() {
            kept.oldest_first.push_back(wanted);
        }
        while kept.by_wanted.len() > self.limit {
            let Some(oldest) = kept.oldest_first.pop_front() else {
                return;
            };
            kept.by_wanted.remove(&oldest);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.kept().by_wanted.len()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(host: &str) -> Wanted {
        Wanted::of(&MintRequest::new(host))
    }

    fn ready(not_after: i64) -> Arc<Ready> {
        Arc::new(Ready {
            chain: String::new(),
            key: Vec::new(),
            not_after,
        })
    }

    #[test]
    fn the_same_wish_is_found_while_it_is_valid() {
        let cache = Cache::new(10);
        cache.put(wanted("a"), &ready(100));
        assert!(cache.find(&wanted("a"), 99).is_some());
        assert!(cache.find(&wanted("a"), 100).is_none());
        assert!(cache.find(&wanted("b"), 99).is_none());
        let mut other = MintRequest::new("a");
        other.cert = Some(Certificate::Der(vec![1]));
        assert!(cache.find(&Wanted::of(&other), 99).is_none());
        let mut other = MintRequest::new("a");
        other.usage = Usage::TlsServerTongsuo;
        assert!(cache.find(&Wanted::of(&other), 99).is_none());
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let cache = Cache::new(2);
        for host in ["a", "b", "a", "c"] {
            cache.put(wanted(host), &ready(100));
        }
        assert_eq!(cache.len(), 2);
        assert!(cache.find(&wanted("a"), 0).is_none() && cache.find(&wanted("c"), 0).is_some());
        let none = Cache::new(0);
        none.put(wanted("a"), &ready(100));
        assert_eq!(none.len(), 0);
    }
}
