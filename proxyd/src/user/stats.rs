//! Counters of users and of their sites (metrics.md §8): one object for each server and each escaper that they come
//! through. They belong to names and outlive reloads.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sluice_config::value::HistogramMetrics;
use sluice_telemetry::metrics::{Collector, Counter, Histogram, Registry, Rule, Shards, Source, next_stat_id};

use super::kind::{ClientProtocol, RequestKind, UserType};
use super::table::Table;
use crate::stats::{Datagrams, EscaperStats, ServerStats};

/// What a user is known by in metrics.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) group: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) kind: UserType,
}

/// The numbers of a user, or of a site of one.
#[derive(Debug)]
pub(crate) struct Numbers {
    identity: Arc<Identity>,
    /// What names begin with: `user.` or `user.site.ID.`.
    prefix: Arc<str>,
    /// For sites: how the time until data flows is summed up.
    duration: Option<Mutex<HistogramMetrics>>,
    registry: Registry,
    servers: Table<AtServer>,
    escapers: Table<AtEscaper>,
}

impl Numbers {
    /// A user's.
    pub(crate) fn of_user(identity: &Arc<Identity>, registry: &Registry) -> Self {
        Self::new(identity, "user.".into(), None, registry)
    }

    /// A site's.
    pub(crate) fn of_site(
        identity: &Arc<Identity>,
        site: &str,
        duration: &HistogramMetrics,
        registry: &Registry,
    ) -> Self {
        let prefix = format!("user.site.{site}.");
        Self::new(identity, prefix.into(), Some(Mutex::new(duration.clone())), registry)
    }

    fn new(
        identity: &Arc<Identity>,
        prefix: Arc<str>,
        duration: Option<Mutex<HistogramMetrics>>,
        registry: &Registry,
    ) -> Self {
        Self {
            identity: Arc::clone(identity),
            prefix,
            duration,
            registry: registry.clone(),
            servers: Table::default(),
            escapers: Table::default(),
        }
    }

    /// Sums durations up in another way from now on.
    pub(crate) fn configure(&self, duration: &HistogramMetrics) {
        if let Some(own) = &self.duration {
            duration.clone_into(&mut own.lock().unwrap_or_else(PoisonError::into_inner));
        }
        for at in self.servers.all() {
            if let Some(histogram) = &at.ready_time {
                histogram
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .configure(duration);
            }
        }
    }

    /// Those at a server.
    pub(crate) fn at_server(&self, server: &Arc<ServerStats>) -> Arc<AtServer> {
        let is_same = |at: &AtServer| Arc::ptr_eq(&at.server, server);
        self.servers.get(&server.name, is_same, &self.registry, || {
            let duration = self.duration.as_ref().map(|duration| {
                let config = duration.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Mutex::new(Histogram::new(config, Instant::now()))
            });
            AtServer {
                identity: Arc::clone(&self.identity),
                prefix: Arc::clone(&self.prefix),
                server: Arc::clone(server),
                stat_id: next_stat_id(),
                shards: Shards::default(),
                ready_time: duration,
            }
        })
    }

    /// Those at an escaper.
    pub(crate) fn at_escaper(&self, escaper: &Arc<EscaperStats>) -> Arc<AtEscaper> {
        let is_same = |at: &AtEscaper| Arc::ptr_eq(&at.escaper, escaper);
        self.escapers.get(&escaper.name, is_same, &self.registry, || AtEscaper {
            identity: Arc::clone(&self.identity),
            prefix: Arc::clone(&self.prefix),
            escaper: Arc::clone(escaper),
            stat_id: next_stat_id(),
            shards: Shards::default(),
        })
    }

    /// Forgets the servers and escapers that are there no more.
    pub(crate) fn keep(&self, server: impl Fn(&str) -> bool, escaper: impl Fn(&str) -> bool) {
        self.servers.retain(server);
        self.escapers.retain(escaper);
    }
}

/// Why something was refused to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forbidden {
    AuthFailed,
    DestDenied,
    FullyLoaded,
    IpBlocked,
    LogSkipped,
    ProtoBanned,
    RateLimited,
    SrcBlocked,
    UaBlocked,
    UserBlocked,
    UserExpired,
}

impl Forbidden {
    const ALL: [(Self, &'static str); 11] = [
        (Self::AuthFailed, "forbidden.auth_failed"),
        (Self::DestDenied, "forbidden.dest_denied"),
        (Self::FullyLoaded, "forbidden.fully_loaded"),
        (Self::IpBlocked, "forbidden.ip_blocked"),
        (Self::LogSkipped, "forbidden.log_skipped"),
        (Self::ProtoBanned, "forbidden.proto_banned"),
        (Self::RateLimited, "forbidden.rate_limited"),
        (Self::SrcBlocked, "forbidden.src_blocked"),
        (Self::UaBlocked, "forbidden.ua_blocked"),
        (Self::UserBlocked, "forbidden.user_blocked"),
        (Self::UserExpired, "forbidden.user_expired"),
    ];
}

/// What one worker counts for a user at a server.
#[derive(Debug, Default)]
struct Counters {
    http: Counter,
    socks: Counter,
    l7_opened: Counter,
    l7_closed: Counter,
    forbidden: [Counter; 11],
    /// Most users make requests of one or two kinds.
    kinds: [OnceLock<Box<KindCounters>>; 8],
}

/// The same for one kind of request.
#[derive(Debug, Default)]
pub(crate) struct KindCounters {
    pub(crate) started: Counter,
    pub(crate) began: Counter,
    pub(crate) ended: Counter,
    pub(crate) ready: Counter,
    pub(crate) reused: Counter,
    pub(crate) renewed: Counter,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) received_packets: Counter,
    pub(crate) sent_packets: Counter,
}

/// The numbers of a user, or of a site, at a server.
#[derive(Debug)]
pub(crate) struct AtServer {
    identity: Arc<Identity>,
    prefix: Arc<str>,
    server: Arc<ServerStats>,
    stat_id: String,
    shards: Shards<Counters>,
    ready_time: Option<Mutex<Histogram>>,
}

impl AtServer {
    /// Something was refused.
    pub(crate) fn forbid(&self, why: Forbidden) {
        self.shards.mine().forbidden[why as usize].add(1);
    }

    /// A connection has its first request.
    pub(crate) fn connection(&self, protocol: ClientProtocol) {
        let counters = self.shards.mine();
        match protocol {
            ClientProtocol::Http => {
                counters.http.add(1);
                counters.l7_opened.add(1);
            }
            ClientProtocol::Socks => counters.socks.add(1),
        }
    }

    /// A connection of [`Self::connection`] ends, or becomes another user's.
    pub(crate) fn connection_ended(&self, protocol: ClientProtocol) {
        if protocol == ClientProtocol::Http {
            self.shards.mine().l7_closed.add(1);
        }
    }

    /// This worker's counters of a kind of request.
    pub(crate) fn kind(&self, kind: RequestKind) -> &KindCounters {
        self.shards.mine().kinds[kind as usize].get_or_init(Box::default)
    }

    /// A task's data flows after this time.
    pub(crate) fn ready_after(&self, time: Duration) {
        if let Some(histogram) = &self.ready_time {
            histogram.lock().unwrap_or_else(PoisonError::into_inner).add(time);
        }
    }

    fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        self.shards.sum(|counters| counter(counters).get())
    }

    fn sum_kind(&self, kind: RequestKind, counter: impl Fn(&KindCounters) -> &Counter) -> u64 {
        self.shards.sum(|counters| {
            let counters = counters.kinds[kind as usize].get();
            counters.map_or(0, |counters| counter(counters).get())
        })
    }
}

/// A metric's name, made of what all of an object begin with and its own end.
struct Name {
    text: String,
    prefix: usize,
}

impl Name {
    fn new(prefix: &str) -> Self {
        Self {
            text: prefix.to_owned(),
            prefix: prefix.len(),
        }
    }

    fn of(&mut self, end: &str) -> &str {
        self.text.truncate(self.prefix);
        self.text.push_str(end);
        &self.text
    }
}

impl Source for AtServer {
    fn collect(&self, out: &mut Collector<'_>) {
        let identity = &self.identity;
        let common = [
            ("user_group", &*identity.group),
            ("user", &*identity.name),
            ("user_type", identity.kind.tag()),
            ("stat_id", &*self.stat_id),
            ("server", &*self.server.name),
        ];
        let mut object = out.object(&common).tags(self.server.tags());
        let mut name = Name::new(&self.prefix);
        let rule = Rule::NonZero;
        for (tag, connections) in [("http", self.sum(|c| &c.http)), ("socks", self.sum(|c| &c.socks))] {
            object.counter(name.of("connection.total"), rule, &[("connection", tag)], connections);
        }
        // Ended first: what ends in between must not make the difference negative.
        let closed = self.sum(|c| &c.l7_closed);
        let alive = self.sum(|c| &c.l7_opened).saturating_sub(closed);
        let http = [("connection", "http")];
        object.gauge(name.of("l7.connection.alive"), Rule::Always, &http, alive);
        for kind in RequestKind::ALL {
            let tag = [("request", kind.tag())];
            let mut counter = |end, counter: fn(&KindCounters) -> &Counter| {
                object.counter(name.of(end), rule, &tag, self.sum_kind(kind, counter));
            };
            counter("request.total", |c| &c.started);
            counter("request.ready", |c| &c.ready);
            counter("request.reuse", |c| &c.reused);
            counter("request.renew", |c| &c.renewed);
            let ended = self.sum_kind(kind, |c| &c.ended);
            let alive = self.sum_kind(kind, |c| &c.began).saturating_sub(ended);
            object.gauge(name.of("request.alive"), Rule::Always, &tag, alive);
            let received = self.sum_kind(kind, |c| &c.received);
            let set = Rule::Set { lead: received };
            object.counter(name.of("traffic.in.bytes"), set, &tag, received);
            let sent = self.sum_kind(kind, |c| &c.sent);
            object.counter(name.of("traffic.out.bytes"), set, &tag, sent);
            let received = self.sum_kind(kind, |c| &c.received_packets);
            let set = Rule::Set { lead: received };
            object.counter(name.of("traffic.in.packets"), set, &tag, received);
            let sent = self.sum_kind(kind, |c| &c.sent_packets);
            object.counter(name.of("traffic.out.packets"), set, &tag, sent);
        }
        for (why, end) in Forbidden::ALL {
            object.counter(name.of(end), rule, &[], self.sum(|c| &c.forbidden[why as usize]));
        }
        if let Some(histogram) = &self.ready_time {
            let mut histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
            let quantiles = histogram.config().quantile.clone();
            if let Some(told) = histogram.tell(Instant::now()) {
                let mut gauge = |tag: &str, value: f64| {
                    let name = name.of("task.ready.duration");
                    object.gauge(name, Rule::Always, &[("quantile", tag)], value);
                };
                gauge("min", told.min);
                gauge("max", told.max);
                gauge("mean", told.mean);
                for (quantile, value) in quantiles.iter().zip(&told.quantiles) {
                    gauge(&quantile.tag, *value);
                }
            }
        }
    }
}

/// What one worker counts for a user at an escaper.
#[derive(Debug, Default)]
struct UpstreamCounters {
    received: Counter,
    sent: Counter,
    udp: Datagrams,
}

/// The numbers of a user, or of a site, at an escaper.
#[derive(Debug)]
pub(crate) struct AtEscaper {
    identity: Arc<Identity>,
    prefix: Arc<str>,
    escaper: Arc<EscaperStats>,
    stat_id: String,
    shards: Shards<UpstreamCounters>,
}

impl AtEscaper {
    pub(crate) fn received(&self, n: u64) {
        self.shards.mine().received.add(n);
    }

    pub(crate) fn sent(&self, n: u64) {
        self.shards.mine().sent.add(n);
    }

    pub(crate) fn received_datagrams(&self, bytes: u64, packets: u64) {
        let counters = &self.shards.mine().udp;
        counters.in_bytes.add(bytes);
        counters.in_packets.add(packets);
    }

    pub(crate) fn sent_datagrams(&self, bytes: u64, packets: u64) {
        let counters = &self.shards.mine().udp;
        counters.out_bytes.add(bytes);
        counters.out_packets.add(packets);
    }
}

impl Source for AtEscaper {
    fn collect(&self, out: &mut Collector<'_>) {
        let identity = &self.identity;
        let common = [
            ("user_group", &*identity.group),
            ("user", &*identity.name),
            ("user_type", identity.kind.tag()),
            ("stat_id", &*self.stat_id),
            ("escaper", &*self.escaper.name),
        ];
        let mut object = out.object(&common).tags(self.escaper.tags());
        let mut name = Name::new(&self.prefix);
        let received = self.shards.sum(|c| c.received.get());
        let sent = self.shards.sum(|c| c.sent.get());
        let set = Rule::Set { lead: sent };
        let tcp = [("transport", "tcp")];
        object.counter(name.of("upstream.traffic.in.bytes"), set, &tcp, received);
        object.counter(name.of("upstream.traffic.out.bytes"), set, &tcp, sent);
        let sum = |counter: fn(&Datagrams) -> &Counter| self.shards.sum(|c| counter(&c.udp).get());
        let set = Rule::Set {
            lead: sum(|d| &d.out_packets),
        };
        let udp = [("transport", "udp")];
        object.counter(name.of("upstream.traffic.in.bytes"), set, &udp, sum(|d| &d.in_bytes));
        object.counter(
            name.of("upstream.traffic.in.packets"),
            set,
            &udp,
            sum(|d| &d.in_packets),
        );
        object.counter(name.of("upstream.traffic.out.bytes"), set, &udp, sum(|d| &d.out_bytes));
        object.counter(
            name.of("upstream.traffic.out.packets"),
            set,
            &udp,
            sum(|d| &d.out_packets),
        );
    }
}
