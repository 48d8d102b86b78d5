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
    pub(crate) fn order(&self, permit: Option<&Permit>) -> Order {
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

    use crate::user::tests::permit;

    fn value<T: serde::de::DeserializeOwned>(yaml: &str) -> T {
        sluice_config::decode_text(yaml).unwrap()
    }

    fn terms(strategy: &str, off: (bool, bool), misc: &str) -> OwnTerms {
        OwnTerms::new(
            value(strategy),
            off,
            value("{own.test: 192.0.2.1, both.test: 192.0.2.2}"),
            value("{}"),
            (&value(misc), value("{}")),
        )
    }

    /// AU-13.
    #[tokio::test]
    async fn options_of_user_and_escaper_come_together() {
        let own = terms("{}", (false, false), "{tos: 1, mark: 2, mss: 1400, no_delay: false}");
        let keys = "tcp_remote_misc_opts: {tos: 16, mark: 7, mss: 1460, ttl: 9}, tcp_remote_keepalive: 20s";
        let permit = permit(keys).await;
        let options = own.options(Some(&permit));
        assert_eq!((options.type_of_service, options.netfilter_mark), (Some(16), Some(7)));
        assert_eq!((options.max_segment_size, options.time_to_live), (Some(1400), Some(9)));
        assert_eq!(options.no_delay, Some(false));
        assert_eq!(options.keepalive.map(|keepalive| keepalive.idle.as_secs()), Some(20));
        let options = own.options(None);
        assert_eq!((options.type_of_service, options.keepalive), (Some(1), None));
    }

    #[tokio::test]
    async fn a_user_chooses_families_where_the_escaper_leaves_a_choice() {
        use Family::{V4, V6};
        let of_site = "resolve_strategy: ipv4_only, explicit_sites: [{id: s, exact_match: site.test, resolve_strategy: ipv6only}]";
        for (strategy, off, user, first, second) in [
            ("ipv4first", (false, false), "resolve_strategy: ipv6first", V6, Some(V4)),
            ("ipv4first", (false, false), "resolve_strategy: ipv6_only", V6, None),
            ("ipv4only", (false, false), "resolve_strategy: ipv6first", V4, None),
            // Nothing would be left: the escaper has its way.
            ("ipv4first", (false, true), "resolve_strategy: ipv6only", V4, None),
            ("ipv4first", (false, true), "resolve_strategy: ipv6first", V4, None),
            ("ipv4first", (false, false), of_site, V6, None),
            ("ipv6first", (false, false), "request_max_alive: 1", V6, Some(V4)),
        ] {
            let permit = permit(user).await;
            let order = terms(strategy, off, "{}").order(Some(&permit));
            assert_eq!((order.first, order.second), (first, second), "{strategy} {user}");
        }
    }

    #[tokio::test]
    async fn a_users_redirections_come_before_the_escapers() {
        let own = terms("{}", (false, false), "{}");
        let permit = permit("resolve_redirection: {both.test: 198.51.100.1, alias.test: own.test}").await;
        for (host, permit, expected) in [
            ("both.test", Some(&permit), "198.51.100.1"),
            ("alias.test", Some(&permit), "192.0.2.1"),
            ("own.test", Some(&permit), "192.0.2.1"),
            ("both.test", None, "192.0.2.2"),
            ("alias.test", None, "alias.test"),
        ] {
            let host = Host::parse(host).unwrap();
            let target = match own.target(&host, own.order(permit), permit) {
                Target::Address(ip) => ip.to_string(),
                Target::Addresses(ips) => ips[0].to_string(),
                Target::Domain(domain) => domain.into(),
            };
            assert_eq!(target, expected, "{host}");
        }
    }

    fn connect(yaml: &str) -> TcpConnect {
        value(yaml)
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
