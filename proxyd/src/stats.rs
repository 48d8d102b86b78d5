//! Counters of servers and escapers (metrics.md §5, §6). They belong to a name and outlive reloads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sluice_config::value::TagMap;
use sluice_telemetry::metrics::{
    Collector, Counter, Object, Registration, Registry, Rule, Shards, Source, next_stat_id,
};

/// Static tags of an object, `extra_metrics_tags`.
pub(crate) type ExtraTags = Vec<(String, String)>;

/// Datagrams counted, in both directions.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    pub(crate) in_bytes: Counter,
    pub(crate) in_packets: Counter,
    pub(crate) out_bytes: Counter,
    pub(crate) out_packets: Counter,
}

/// Datagrams that were let in, but could not go on.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    /// Longer than a datagram may be.
    pub(crate) too_long: Counter,
    /// Their name is not found, or more than may be kept wait for theirs.
    pub(crate) unresolved: Counter,
    /// The kernel does not take them.
    pub(crate) not_sent: Counter,
}

/// What one worker counts for a server.
#[derive(Debug, Default)]
pub(crate) struct ServerCounters {
    pub(crate) listening: Counter,
    pub(crate) listening_ended: Counter,
    pub(crate) accepted: Counter,
    pub(crate) dropped: Counter,
    pub(crate) timed_out: Counter,
    pub(crate) accept_failed: Counter,
    pub(crate) connections: Counter,
    pub(crate) task_started: Counter,
    pub(crate) task_ended: Counter,
    pub(crate) auth_failed: Counter,
    pub(crate) dest_denied: Counter,
    pub(crate) user_blocked: Counter,
    pub(crate) untrusted_started: Counter,
    pub(crate) untrusted_ended: Counter,
    pub(crate) untrusted_in: Counter,
    pub(crate) tcp_in: Counter,
    pub(crate) tcp_out: Counter,
    pub(crate) udp: Datagrams,
    pub(crate) udp_dropped: Dropped,
}

/// What one worker counts for an escaper.
#[derive(Debug, Default)]
pub(crate) struct EscaperCounters {
    pub(crate) task_total: Counter,
    pub(crate) attempt: Counter,
    pub(crate) establish: Counter,
    pub(crate) tcp_attempt: Counter,
    pub(crate) tcp_establish: Counter,
    pub(crate) tcp_success: Counter,
    pub(crate) tcp_error: Counter,
    pub(crate) tcp_timeout: Counter,
    pub(crate) ip_blocked: Counter,
    pub(crate) tcp_in: Counter,
    pub(crate) tcp_out: Counter,
    pub(crate) udp: Datagrams,
}

/// The counters of a server.
#[derive(Debug)]
pub(crate) struct ServerStats {
    pub(crate) name: Arc<str>,
    stat_id: String,
    tags: Mutex<ExtraTags>,
    shards: Shards<ServerCounters>,
}

/// The counters of an escaper.
#[derive(Debug)]
pub(crate) struct EscaperStats {
    pub(crate) name: Arc<str>,
    stat_id: String,
    tags: Mutex<ExtraTags>,
    shards: Shards<EscaperCounters>,
}

impl ServerStats {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            stat_id: next_stat_id(),
            tags: Mutex::default(),
            shards: Shards::default(),
        }
    }

    /// This worker's.
    pub(crate) fn mine(&self) -> &ServerCounters {
        self.shards.mine()
    }

    /// The sum of all workers'.
    pub(crate) fn sum(&self, counter: impl Fn(&ServerCounters) -> &Counter) -> u64 {
        self.shards.sum(|counters| counter(counters).get())
    }

    /// Tasks that run now.
    pub(crate) fn alive(&self) -> u64 {
        // Ended first: a task that ends in between must not make the difference negative.
        let ended = self.sum(|c| &c.task_ended);
        self.sum(|c| &c.task_started).saturating_sub(ended)
    }

    /// The static tags of the configuration in force.
    pub(crate) fn tags(&self) -> ExtraTags {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sockets that listen now.
    pub(crate) fn listening(&self) -> u64 {
        let ended = self.sum(|c| &c.listening_ended);
        self.sum(|c| &c.listening).saturating_sub(ended)
    }
}

impl Source for ServerStats {
    fn collect(&self, out: &mut Collector<'_>) {
        let listening = self.listening();
        let online = if listening > 0 { "y" } else { "n" };
        let common = [("server", &*self.name), ("online", online), ("stat_id", &self.stat_id)];
        let mut object = out.object(&common);
        object.gauge("listen.instance.count", Rule::Always, &[], listening);
        object.counter("listen.accepted", Rule::NonZero, &[], self.sum(|c| &c.accepted));
        object.counter("listen.dropped", Rule::NonZero, &[], self.sum(|c| &c.dropped));
        object.counter("listen.timeout", Rule::NonZero, &[], self.sum(|c| &c.timed_out));
        object.counter("listen.failed", Rule::NonZero, &[], self.sum(|c| &c.accept_failed));
        let mut object = out.object(&common).tags(self.tags());
        object.counter(
            "server.connection.total",
            Rule::Always,
            &[],
            self.sum(|c| &c.connections),
        );
        object.counter("server.task.total", Rule::Always, &[], self.sum(|c| &c.task_started));
        object.gauge("server.task.alive", Rule::Always, &[], self.alive());
        object.counter(
            "server.forbidden.auth_failed",
            Rule::NonZero,
            &[],
            self.sum(|c| &c.auth_failed),
        );
        object.counter(
            "server.forbidden.dest_denied",
            Rule::NonZero,
            &[],
            self.sum(|c| &c.dest_denied),
        );
        object.counter(
            "server.forbidden.user_blocked",
            Rule::NonZero,
            &[],
            self.sum(|c| &c.user_blocked),
        );
        let received = self.sum(|c| &c.tcp_in);
        let set = Rule::Set { lead: received };
        object.counter("server.traffic.in.bytes", set, &[("transport", "tcp")], received);
        object.counter(
            "server.traffic.out.bytes",
            set,
            &[("transport", "tcp")],
            self.sum(|c| &c.tcp_out),
        );
        put_datagrams(
            &mut object,
            "server",
            |counter| self.sum(|c| counter(&c.udp)),
            |d| &d.in_packets,
        );
        let dropped = [
            ("too_long", self.sum(|c| &c.udp_dropped.too_long)),
            ("unresolved", self.sum(|c| &c.udp_dropped.unresolved)),
            ("not_sent", self.sum(|c| &c.udp_dropped.not_sent)),
        ];
        for (reason, count) in dropped {
            let tags = [("transport", "udp"), ("reason", reason)];
            object.counter("server.traffic.drop.packets", Rule::NonZero, &tags, count);
        }
        let ended = self.sum(|c| &c.untrusted_ended);
        let started = self.sum(|c| &c.untrusted_started);
        let set = Rule::Set { lead: started };
        object.counter("server.task.untrusted_total", set, &[], started);
        object.gauge("server.task.untrusted_alive", set, &[], started.saturating_sub(ended));
        object.counter(
            "server.traffic.untrusted_in.bytes",
            set,
            &[("transport", "tcp")],
            self.sum(|c| &c.untrusted_in),
        );
    }
}

impl EscaperStats {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            stat_id: next_stat_id(),
            tags: Mutex::default(),
            shards: Shards::default(),
        }
    }

    /// This worker's.
    pub(crate) fn mine(&self) -> &EscaperCounters {
        self.shards.mine()
    }

    /// The static tags of the configuration in force.
    pub(crate) fn tags(&self) -> ExtraTags {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sum(&self, counter: impl Fn(&EscaperCounters) -> &Counter) -> u64 {
        self.shards.sum(|counters| counter(counters).get())
    }
}

impl Source for EscaperStats {
    fn collect(&self, out: &mut Collector<'_>) {
        let mut object = out
            .object(&[("escaper", &*self.name), ("stat_id", &self.stat_id)])
            .tags(self.tags());
        object.counter("escaper.task.total", Rule::Always, &[], self.sum(|c| &c.task_total));
        object.counter(
            "escaper.connection.attempt",
            Rule::Always,
            &[],
            self.sum(|c| &c.attempt),
        );
        object.counter(
            "escaper.connection.establish",
            Rule::Always,
            &[],
            self.sum(|c| &c.establish),
        );
        object.counter(
            "escaper.tcp.connect.attempt",
            Rule::NonZero,
            &[],
            self.sum(|c| &c.tcp_attempt),
        );
        object.counter(
            "escaper.tcp.connect.establish",
            Rule::NonZero,
            &[],
            self.sum(|c| &c.tcp_establish),
        );
        object.counter(
            "escaper.tcp.connect.success",
            Rule::NonZero,
            &[],
            self.sum(|c| &c.tcp_success),
        );
        object.counter(
            "escaper.tcp.connect.error",
            Rule::NonZero,
            &[],
            self.sum(|c| &c.tcp_error),
        );
        object.counter(
            "escaper.tcp.connect.timeout",
            Rule::NonZero,
            &[],
            self.sum(|c| &c.tcp_timeout),
        );
        object.counter(
            "escaper.forbidden.ip_blocked",
            Rule::NonZero,
            &[],
            self.sum(|c| &c.ip_blocked),
        );
        let sent = self.sum(|c| &c.tcp_out);
        let set = Rule::Set { lead: sent };
        object.counter(
            "escaper.traffic.in.bytes",
            set,
            &[("transport", "tcp")],
            self.sum(|c| &c.tcp_in),
        );
        object.counter("escaper.traffic.out.bytes", set, &[("transport", "tcp")], sent);
        put_datagrams(
            &mut object,
            "escaper",
            |counter| self.sum(|c| counter(&c.udp)),
            |d| &d.out_packets,
        );
    }
}

/// The set of datagram metrics, which begins with the first packet of the leading direction.
fn put_datagrams(
    object: &mut Object<'_, '_>,
    of: &str,
    sum: impl Fn(fn(&Datagrams) -> &Counter) -> u64,
    lead: fn(&Datagrams) -> &Counter,
) {
    let set = Rule::Set { lead: sum(lead) };
    let udp = [("transport", "udp")];
    let mut counter = |name: &str, counter: fn(&Datagrams) -> &Counter| {
        object.counter(&format!("{of}.traffic.{name}"), set, &udp, sum(counter));
    };
    counter("in.bytes", |d| &d.in_bytes);
    counter("in.packets", |d| &d.in_packets);
    counter("out.bytes", |d| &d.out_bytes);
    counter("out.packets", |d| &d.out_packets);
}

/// All counters by name, registered with the metrics while their object exists.
#[derive(Debug)]
pub(crate) struct StatsBook {
    registry: Registry,
    servers: HashMap<String, (Arc<ServerStats>, Registration)>,
    escapers: HashMap<String, (Arc<EscaperStats>, Registration)>,
}

impl StatsBook {
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            registry,
            servers: HashMap::new(),
            escapers: HashMap::new(),
        }
    }

    /// The counters of a server, new ones if the name is.
    pub(crate) fn server(&mut self, name: &str, tags: &TagMap) -> Arc<ServerStats> {
        let (stats, _) = self.servers.entry(name.to_owned()).or_insert_with(|| {
            let stats = Arc::new(ServerStats::new(name));
            let registration = self.registry.register(Arc::clone(&stats) as _);
            (stats, registration)
        });
        *stats.tags.lock().unwrap_or_else(PoisonError::into_inner) = tags.0.clone();
        Arc::clone(stats)
    }

    /// The counters of an escaper, new ones if the name is.
    pub(crate) fn escaper(&mut self, name: &str, tags: &TagMap) -> Arc<EscaperStats> {
        let (stats, _) = self.escapers.entry(name.to_owned()).or_insert_with(|| {
            let stats = Arc::new(EscaperStats::new(name));
            let registration = self.registry.register(Arc::clone(&stats) as _);
            (stats, registration)
        });
        *stats.tags.lock().unwrap_or_else(PoisonError::into_inner) = tags.0.clone();
        Arc::clone(stats)
    }

    /// Forgets what no object of the configuration is named any more.
    pub(crate) fn keep(&mut self, servers: impl Fn(&str) -> bool, escapers: impl Fn(&str) -> bool) {
        self.servers.retain(|name, _| servers(name));
        self.escapers.retain(|name, _| escapers(name));
    }
}
