//! The names that one association sends to.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sluice_addr::Upstream;
use tokio::time::Instant;

use crate::connect::ConnectError;

/// The most names that are remembered.
const MOST: usize = 32;
/// How long an address is used before the name is looked up again, in the thread's table first.
const FRESH: Duration = Duration::from_secs(30);
/// How long a name without an address is left alone.
const FAILED: Duration = Duration::from_secs(2);

/// A lookup at work.
pub(crate) type Lookup = Pin<Box<dyn Future<Output = Result<Arc<[IpAddr]>, ConnectError>> + Send>>;

/// What is known of names.
#[derive(Default)]
pub(super) struct Names {
    all: Vec<Name>,
    /// Lookups at work.
    busy: usize,
}

struct Name {
    far: Arc<Upstream>,
    ip: Option<IpAddr>,
    /// When it is to be looked up again.
    until: Instant,
    lookup: Option<Lookup>,
}

/// Where a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    At(IpAddr),
    /// It will be known later.
    Awaited,
    /// It has no address that can be used, and that has been said.
    Nowhere,
    /// There is no room for another name now.
    Crowded,
}

impl Names {
    /// Where a name is, if that is known already.
    pub(super) fn known(&self, far: &Arc<Upstream>) -> Option<IpAddr> {
        self.all.iter().find(|name| name.is(far))?.ip
    }

    /// Where a name is; begins a lookup if that has to be found out. An address that is no longer fresh is used until a
    /// new one is there.
    pub(super) fn find(&mut self, far: &Arc<Upstream>, lookup: impl FnOnce() -> Lookup) -> Place {
        let now = Instant::now();
        let place = match self.all.iter().position(|name| name.is(far)) {
            Some(place) => place,
            None => match self.make_room() {
                Some(()) => {
                    self.all.push(Name {
                        far: Arc::clone(far),
                        ip: None,
                        until: now,
                        lookup: None,
                    });
                    self.all.len() - 1
                }
                None => return Place::Crowded,
            },
        };
        let name = &mut self.all[place];
        if name.until <= now && name.lookup.is_none() {
            name.lookup = Some(lookup());
            self.busy += 1;
        }
        match name.ip {
            Some(ip) => Place::At(ip),
            None if name.lookup.is_some() => Place::Awaited,
            None => Place::Nowhere,
        }
    }

    /// Forgets the name that was looked up longest ago; `None` if all are being looked up.
    fn make_room(&mut self) -> Option<()> {
        if self.all.len() < MOST {
            return Some(());
        }
        let settled = self.all.iter().enumerate().filter(|(_, name)| name.lookup.is_none());
        let (oldest, _) = settled.min_by_key(|(_, name)| name.until)?;
        self.all.swap_remove(oldest);
        Some(())
    }

    /// Goes on with lookups. `choose` picks an address of those found, given the one in use; what went wrong is told to
    /// `complain`.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        choose: impl Fn(&Upstream, &[IpAddr], Option<IpAddr>) -> Result<IpAddr, ConnectError>,
        complain: impl Fn(&Arc<Upstream>, ConnectError),
    ) {
        if self.busy == 0 {
            return;
        }
        for name in &mut self.all {
            let Some(lookup) = &mut name.lookup else { continue };
            let Poll::Ready(found) = lookup.as_mut().poll(cx) else {
                continue;
            };
            name.lookup = None;
            self.busy -= 1;
            let chosen = found.and_then(|found| choose(&name.far, &found, name.ip));
            let now = Instant::now();
            match chosen {
                Ok(ip) => {
                    name.ip = Some(ip);
                    name.until = now + FRESH;
                }
                Err(error) => {
                    name.ip = None;
                    name.until = now + FAILED;
                    complain(&name.far, error);
                }
            }
        }
    }
}

impl Name {
    fn is(&self, far: &Arc<Upstream>) -> bool {
        Arc::ptr_eq(&self.far, far) || self.far == *far
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, poll_fn, ready};
    use tokio::time::advance;

    fn name(text: &str) -> Arc<Upstream> {
        Arc::new(text.parse().unwrap())
    }

    fn found(ips: &'static [&'static str]) -> Lookup {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Box::pin(ready(Ok(ips.into())))
    }

    fn never() -> Lookup {
        unreachable!("nothing is to be looked up")
    }

    /// Polls the lookups; the first address is chosen, unless the one in use is there.
    async fn settle(names: &mut Names) -> usize {
        let failed = std::cell::Cell::new(0);
        poll_fn(|cx| {
            let choose = |_: &Upstream, ips: &[IpAddr], now: Option<IpAddr>| {
                let kept = now.filter(|now| ips.contains(now)).or_else(|| ips.first().copied());
                kept.ok_or_else(|| ConnectError::MethodUnavailable { escaper: "e".into() })
            };
            names.poll(cx, choose, |_, _| failed.set(failed.get() + 1));
            Poll::Ready(())
        })
        .await;
        failed.get()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_kept_while_the_name_has_it() {
        let mut names = Names::default();
        let far = name("a.test:53");
        assert_eq!(names.find(&far, || found(&["192.0.2.1", "192.0.2.2"])), Place::Awaited);
        assert_eq!(settle(&mut names).await, 0);
        let first = "192.0.2.1".parse().unwrap();
        assert_eq!(names.find(&name("a.test:53"), never), Place::At(first));
        advance(FRESH).await;
        // The old one serves while a new one is looked for.
        assert_eq!(
            names.find(&far, || found(&["192.0.2.2", "192.0.2.1"])),
            Place::At(first)
        );
        assert_eq!(settle(&mut names).await, 0);
        assert_eq!(names.find(&far, never), Place::At(first));
        advance(FRESH).await;
        names.find(&far, || found(&["192.0.2.3"]));
        settle(&mut names).await;
        assert_eq!(names.known(&far), "192.0.2.3".parse().ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_an_address_is_complained_about_once_and_left_alone_for_a_while() {
        let mut names = Names::default();
        let far = name("none.test:53");
        assert_eq!(names.find(&far, || found(&[])), Place::Awaited);
        assert_eq!(settle(&mut names).await, 1);
        assert_eq!(names.find(&far, never), Place::Nowhere);
        assert_eq!(settle(&mut names).await, 0);
        advance(FAILED).await;
        assert_eq!(names.find(&far, || found(&["192.0.2.1"])), Place::Awaited);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_so_many_names() {
        let mut names = Names::default();
        for i in 0..3 * MOST {
            let far = name(&format!("{i}.test:53"));
            assert_eq!(names.find(&far, || found(&["192.0.2.1"])), Place::Awaited);
            settle(&mut names).await;
            advance(Duration::from_millis(1)).await;
        }
        assert_eq!(names.all.len(), MOST);
        assert!(names.known(&name("0.test:53")).is_none());
        assert!(names.known(&name(&format!("{}.test:53", 3 * MOST - 1))).is_some());
        let mut names = Names::default();
        for i in 0..MOST {
            names.find(&name(&format!("{i}.test:53")), || Box::pin(pending()));
        }
        assert_eq!(names.find(&name("more.test:53"), never), Place::Crowded);
    }
}
