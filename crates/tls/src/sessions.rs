//! The client's session cache: a bounded number of sites, each with a bounded number of sessions.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use openssl::ssl::{SslSession, SslVersion};
use sluice_addr::Host;

use crate::client::SessionLimits;

/// What a server is known by. Its sessions may resume one another: name and port, never across.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Site {
    /// Who it is to be.
    pub name: Host,
    /// The port that it listens on.
    pub port: u16,
    /// The name is sent, and has to be in the certificate. Else the certificate may be anybody's whom a trust anchor
    /// vouches for, and its sessions are not to be had by asking for the name.
    pub named: bool,
}

/// Sessions by site; the site that was used longest ago makes room.
pub(crate) struct Sessions {
    limits: SessionLimits,
    sites: Mutex<Sites<SslSession>>,
}

impl Sessions {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            sites: Mutex::new(Sites::default()),
        }
    }

    pub(crate) fn put(&self, site: &Site, session: SslSession) {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        if sites
            .newest(site)
            .is_none_or(|newest| !std::ptr::eq(&**newest, &*session))
        {
            sites.put(site, session, self.limits.max_sites, self.limits.max_each);
        }
    }

    /// The newest session for `site`. One of TLS 1.3 leaves the cache: it is resumed once (RFC 8446 §C.4).
    pub(crate) fn take(&self, site: &Site) -> Option<SslSession> {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = sites.touch(site)?;
        if newest.protocol_version() == SslVersion::TLS1_3 {
            return sites.take(site);
        }
        Some(newest.clone())
    }
}

/// What is kept of each site, newest last.
#[derive(Debug)]
pub(crate) struct Sites<S> {
    clock: u64,
    by_site: HashMap<Site, Entry<S>>,
    by_use: BTreeMap<u64, Site>,
}

#[derive(Debug)]
struct Entry<S> {
    used: u64,
    sessions: VecDeque<S>,
}

impl<S> Default for Sites<S> {
    fn default() -> Self {
        Self {
            clock: 0,
            by_site: HashMap::new(),
            by_use: BTreeMap::new(),
        }
    }
}

impl<S> Sites<S> {
    pub(crate) fn put(&mut self, site: &Site, session: S, max_sites: usize, max_each: usize) {
        self.clock += 1;
        let entry = self.by_site.entry(site.clone()).or_insert_with(|| Entry {
            used: 0,
            sessions: VecDeque::new(),
        });
        self.by_use.remove(&entry.used);
        entry.used = self.clock;
        entry.sessions.push_back(session);
        while entry.sessions.len() > max_each {
            entry.sessions.pop_front();
        }
        self.by_use.insert(self.clock, site.clone());
        while self.by_site.len() > max_sites {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            self.by_site.remove(&oldest);
        }
    }

    /// The newest of `site`, which is not used by that.
    pub(crate) fn newest(&self, site: &Site) -> Option<&S> {
        self.by_site.get(site)?.sessions.back()
    }

    /// The newest of `site`, which is used now.
    pub(crate) fn touch(&mut self, site: &Site) -> Option<&S> {
        let entry = self.by_site.get_mut(site)?;
        self.clock += 1;
        if let Some(site) = self.by_use.remove(&entry.used) {
            self.by_use.insert(self.clock, site);
        }
        entry.used = self.clock;
        entry.sessions.back()
    }

    /// Takes the newest of `site` out.
    pub(crate) fn take(&mut self, site: &Site) -> Option<S> {
        self.touch(site)?;
        let entry = self.by_site.get_mut(site)?;
        let session = entry.sessions.pop_back();
        if entry.sessions.is_empty() {
            self.by_use.remove(&entry.used);
            self.by_site.remove(site);
        }
        session
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str, port: u16) -> Site {
        Site {
            name: Host::Domain(name.into()),
            port,
            named: true,
        }
    }

    #[test]
    fn sessions_are_kept_apart_by_name_and_by_port() {
        let mut sites = Sites::default();
        sites.put(&site("a", 443), 1, 8, 4);
        assert_eq!(sites.touch(&site("a", 444)), None);
        assert_eq!(sites.touch(&site("b", 443)), None);
        assert_eq!(sites.touch(&site("a", 443)), Some(&1));
    }

    #[test]
    fn a_session_whose_name_was_not_checked_is_none_for_the_name() {
        let mut sites = Sites::default();
        let unnamed = Site {
            named: false,
            ..site("a", 443)
        };
        sites.put(&unnamed, 1, 8, 4);
        assert_eq!(sites.touch(&site("a", 443)), None);
        assert_eq!(sites.touch(&unnamed), Some(&1));
    }

    #[test]
    fn a_session_for_one_use_is_given_once_and_the_newest_comes_first() {
        let mut sites = Sites::default();
        for session in [1, 2] {
            sites.put(&site("a", 443), session, 8, 4);
        }
        assert_eq!(sites.take(&site("a", 443)), Some(2));
        assert_eq!(sites.take(&site("a", 443)), Some(1));
        assert_eq!(sites.take(&site("a", 443)), None);
        assert!(sites.by_use.is_empty());
    }

    #[test]
    fn the_site_used_longest_ago_makes_room() {
        let mut sites = Sites::default();
        sites.put(&site("a", 1), 1, 2, 4);
        sites.put(&site("b", 1), 2, 2, 4);
        assert_eq!(sites.touch(&site("a", 1)), Some(&1));
        sites.put(&site("c", 1), 3, 2, 4);
        assert_eq!(sites.touch(&site("b", 1)), None);
        assert_eq!(sites.touch(&site("a", 1)), Some(&1));
        assert_eq!(sites.by_use.len(), sites.by_site.len());
    }

    #[test]
    fn a_site_keeps_its_newest_sessions() {
        let mut sites = Sites::default();
        for session in 1..=5 {
            sites.put(&site("a", 1), session, 2, 2);
        }
        assert_eq!(sites.take(&site("a", 1)), Some(5));
        assert_eq!(sites.take(&site("a", 1)), Some(4));
        assert_eq!(sites.take(&site("a", 1)), None);
    }
}
