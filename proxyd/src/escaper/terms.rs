//! What an escaper that connects by itself is configured with, and what its users' own wishes make of it.

use std::borrow::Cow;
use std::net::IpAddr;

use sluice_addr::Host;
use sluice_config::value::{
    PickStrategy, Redirected, ResolveRedirection, ResolveStrategy, Span, TcpConnect, TcpKeepalive, TcpMiscOpts,
};
use sluice_sys::socket::TcpOptions;

use crate::config::tcp_options;
use crate::connect::Connect;
use crate::dial::{Order, Terms};
use crate::resolve::Family;
use crate::user::Permit;

/// The terms of an escaper.
pub(crate) struct OwnTerms {
    strategy: ResolveStrategy,
    /// Families that are switched off.
    off: (bool, bool),
    redirection: ResolveRedirection,
    connect: TcpConnect,
    misc: TcpMiscOpts,
    keepalive: TcpKeepalive,
    /// Both of them.
    options: TcpOptions,
}

/// What is really connected to.
pub(crate) enum Target {
    Address(IpAddr),
    Addresses(Vec<IpAddr>),
    Domain(Box<str>),
}

impl OwnTerms {
    pub(crate) fn new(
        strategy: ResolveStrategy,
        off: (bool, bool),
        redirection: ResolveRedirection,
        connect: TcpConnect,
        (misc, keepalive): (&TcpMiscOpts, TcpKeepalive),
    ) -> Self {
        Self {
            strategy,
            off,
            redirection,
            connect,
            misc: misc.clone(),
            keepalive,
            options: tcp_options(misc, Some(keepalive)),
        }
    }

    /// The terms of a request, narrowed by its user. `index` chooses among several local addresses.
    pub(crate) fn of<'a>(&'a self, req: &Connect<'_>, index: Option<u64>) -> Terms<'a> {
        let connect = match req.permit.and_then(|permit| permit.user.config.tcp_connect) {
            Some(user) => clamp(self.connect, user),
            None => self.connect,
        };
        Terms {
            index,
            order: self.order(req.permit),
            tries: connect.max_retry.saturating_add(1),
            each_timeout: connect.each_timeout.0,
            options: self.options(req.permit),
        }
    }

    fn options(&self, permit: Option<&Permit>) -> Cow<'_, TcpOptions> {
        let Some(permit) = permit else {
            return Cow::Borrowed(&self.options);
        };
        let (misc, keepalive) = permit.user.config.remote_options();
        if misc.is_none() && keepalive == TcpKeepalive::default() {
            return Cow::Borrowed(&self.options);
        }
        let misc = self.misc.clone().with(misc.cloned().unwrap_or_default());
        Cow::Owned(tcp_options(&misc, Some(self.keepalive.or(keepalive))))
    }

    /// The order in which the addresses of a name are tried: the site's or the user's strategy, where the escaper
    /// leaves a choice.
    fn order(&self, permit: Option<&Permit>) -> Order {
        let (no_v4, no_v6) = self.off;
        let wish = permit.and_then(Permit::resolve_strategy);
        let strategy = wish.map_or(self.strategy, |wish| self.strategy.with_user(wish));
        let query = strategy.query.without(no_v4, no_v6).unwrap_or(self.strategy.query);
        let v4 = query.ipv4() && !no_v4;
        let v6 = query.ipv6() && !no_v6;
        let (first, second) = match (v4, v6) {
            (false, _) => (Family::V6, None),
            (_, false) => (Family::V4, None),
            _ if query.prefers_ipv4() => (Family::V4, Some(Family::V6)),
            _ => (Family::V6, Some(Family::V4)),
        };
        Order {
            first,
            second,
            shuffle: strategy.pick == PickStrategy::Random,
        }
    }

    /// What is really connected to for a host: the user's redirections first, then the escaper's.
    pub(crate) fn target(&self, host: &Host, order: Order, permit: Option<&Permit>) -> Target {
        let domain = match host {
            Host::Ip(ip) => return Target::Address(*ip),
            Host::Domain(domain) => domain,
        };
        let users = permit.map(|permit| &permit.user.config.resolve_redirection);
        let domain = match users.and_then(|rules| redirect(rules, domain, order)) {
            Some(Redirected::Addrs(ips)) => return Target::Addresses(ips.to_vec()),
            Some(Redirected::Domain(domain)) => domain,
            None => domain.clone(),
        };
        match redirect(&self.redirection, &domain, order) {
            None => Target::Domain(domain),
            Some(Redirected::Domain(domain)) => Target::Domain(domain),
            Some(Redirected::Addrs(ips)) => Target::Addresses(ips.to_vec()),
        }
    }
}

fn redirect<'a>(rules: &'a ResolveRedirection, domain: &str, order: Order) -> Option<Redirected<'a>> {
    match rules.apply(domain) {
        // Addresses of families that are not used count as none.
        Some(Redirected::Addrs(ips)) if !ips.iter().any(|&ip| order.uses(Family::of(ip))) => {
            rules.apply_parents(domain)
        }
        redirected => redirected,
    }
}

/// The fewer tries and the shorter time; no time limit is the longest.
fn clamp(own: TcpConnect, user: TcpConnect) -> TcpConnect {
    let times = [own.each_timeout, user.each_timeout];
    let shortest = times.into_iter().filter(|time| !time.0.is_zero()).min();
    TcpConnect {
        each_timeout: shortest.unwrap_or(Span::secs(0)),
        ..own.and(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(yaml: &str) -> TcpConnect {
        sluice_config::decode_text(yaml).unwrap()
    }

    /// LM-03.
    #[test]
    fn a_user_can_only_shorten_the_time_of_connecting() {
        for (own, user, tries, seconds) in [
            ("{}", "{max_retry: 0, each_timeout: 5s}", 0, 5),
            (
                "{max_retry: 1, each_timeout: 5s}",
                "{max_retry: 3, each_timeout: 9s}",
                1,
                5,
            ),
            ("{each_timeout: 5s}", "{each_timeout: 0}", 2, 5),
            ("{each_timeout: 0}", "{each_timeout: 5s}", 2, 5),
            ("{each_timeout: 0}", "{each_timeout: 0}", 2, 0),
        ] {
            let both = clamp(connect(own), connect(user));
            assert_eq!(
                (both.max_retry, both.each_timeout),
                (tries, Span::secs(seconds)),
                "{own} {user}"
            );
        }
    }
}
