use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::*;
use crate::metrics::{Registry, StatConfig, StatThread};
use crate::naming::{Identity, Naming};
use crate::target::DatagramTarget;

const SOON: Duration = Duration::from_secs(20);

/// A server as metrics see it.
#[derive(Default)]
struct Server {
    name: String,
    total: AtomicU64,
    denied: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    alive: AtomicI64,
}

impl Source for Server {
    fn collect(&self, out: &mut Collector<'_>) {
        let mut object = out
            .object(&[("server", &self.name), ("online", "y"), ("stat_id", "7")])
            .tags([("site", "a b")]);
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        object.counter("server.task.total", Rule::Always, &[], get(&self.total));
        let alive = self.alive.load(Ordering::Relaxed);
        object.gauge("server.task.alive", Rule::Always, &[], alive);
        let denied = get(&self.denied);
        object.counter("server.forbidden.dest_denied", Rule::NonZero, &[], denied);
        let tcp = [("transport", "tcp")];
        let (lead, sent) = (get(&self.bytes_in), get(&self.bytes_out));
        let set = Rule::Set { lead };
        object.counter("server.traffic.in.bytes", set, &tcp, lead);
        object.counter("server.traffic.out.bytes", set, &tcp, sent);
    }
}

fn server(name: &str) -> Arc<Server> {
    Arc::new(Server {
        name: name.to_owned(),
        ..Server::default()
    })
}

fn identity() -> Identity {
    Identity {
        daemon_group: "g:1".to_owned(),
        product: Naming::Sluice,
        pid: 42,
    }
}

/// An emission that a test starts by hand, and its receiver.
fn by_hand(registry: &Registry, config: StatConfig) -> (Emission, UnixDatagram, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("statsd");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let sink = SegmentSink::new(&config, Target::Unix(path));
    (Emission::new(registry.reader(), sink, "sluice", "g:1"), socket, dir)
}

fn lines(socket: &UnixDatagram) -> Vec<String> {
    let mut datagram = [0; 65536];
    let len = socket.recv(&mut datagram).unwrap();
    let text = std::str::from_utf8(&datagram[..len]).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

const TAGS: &str = "|#daemon_group:g_1,server:edge,online:y,stat_id:7,site:a_b";

#[test]
fn lines_are_differences_and_follow_the_emission_rules() {
    let registry = Registry::new();
    let edge = server("edge");
    let _registration = registry.register(Arc::<Server>::clone(&edge));
    let (mut emission, socket, _dir) = by_hand(&registry, StatConfig::default());

    emission.emit();
    let always = |total: u64, alive: i64| {
        vec![
            format!("sluice.server.task.total:{total}|c{TAGS}"),
            format!("sluice.server.task.alive:{alive}|g{TAGS}"),
        ]
    };
    assert_eq!(lines(&socket), always(0, 0));

    add(&edge.total, 5);
    add(&edge.denied, 1);
    add(&edge.bytes_in, 10);
    edge.alive.store(-2, Ordering::Relaxed);
    emission.emit();
    let mut expected = always(5, -2);
    expected.push(format!("sluice.server.forbidden.dest_denied:1|c{TAGS}"));
    expected.push(format!("sluice.server.traffic.in.bytes:10|c{TAGS},transport:tcp"));
    expected.push(format!("sluice.server.traffic.out.bytes:0|c{TAGS},transport:tcp"));
    assert_eq!(lines(&socket), expected);

    add(&edge.total, 1);
    add(&edge.bytes_out, 3);
    emission.emit();
    let mut expected = always(1, -2);
    expected.push(format!("sluice.server.forbidden.dest_denied:0|c{TAGS}"));
    expected.push(format!("sluice.server.traffic.in.bytes:0|c{TAGS},transport:tcp"));
    expected.push(format!("sluice.server.traffic.out.bytes:3|c{TAGS},transport:tcp"));
    assert_eq!(lines(&socket), expected);
}

#[test]
fn counters_go_on_when_an_object_goes_offline_or_gets_other_static_tags() {
    struct Named(AtomicU64);
    impl Source for Named {
        fn collect(&self, out: &mut Collector<'_>) {
            let turn = self.0.fetch_add(1, Ordering::Relaxed);
            let online = if turn == 0 { "y" } else { "n" };
            for rr_type in ["A", "AAAA"] {
                let tags = [("server", "a"), ("online", online), ("rr_type", rr_type)];
                let turn_tag = turn.to_string();
                let mut object = out.object(&tags).tag("turn", &turn_tag);
                object.counter("n", Rule::Always, &[("transport", "tcp")], 10 + turn);
            }
        }
    }
    let registry = Registry::new();
    let _registration = registry.register(Arc::new(Named(AtomicU64::new(0))));
    let (mut emission, socket, _dir) = by_hand(&registry, StatConfig::default());
    for (turn, online, more) in [(0, "y", 10), (1, "n", 1), (2, "n", 1)] {
        emission.emit();
        let expected = ["A", "AAAA"].map(|rr_type| {
            format!(
                "sluice.n:{more}|c|#daemon_group:g_1,server:a,online:{online},rr_type:{rr_type},turn:{turn},transport:tcp"
            )
        });
        assert_eq!(lines(&socket), expected);
    }
}

#[test]
fn a_removed_object_is_emitted_once_more_and_forgotten() {
    let registry = Registry::new();
    let edge = server("edge");
    let registration = registry.register(Arc::<Server>::clone(&edge));
    let (mut emission, socket, _dir) = by_hand(&registry, StatConfig::default());
    emission.emit();
    lines(&socket);
    add(&edge.total, 9);
    drop(registration);
    let gone = Arc::downgrade(&edge);
    drop(edge);
    emission.emit();
    assert_eq!(lines(&socket)[0], format!("sluice.server.task.total:9|c{TAGS}"));
    assert!(gone.upgrade().is_none());
    assert!(emission.told.is_empty());

    let other = server("other");
    let _registration = registry.register(other);
    emission.emit();
    assert!(lines(&socket).iter().all(|line| line.contains("server:other")));
}

#[test]
fn tag_values_cannot_change_a_line() {
    let registry = Registry::new();
    let _registration = registry.register(server("a:b,c|d #é\n/x"));
    let (mut emission, socket, _dir) = by_hand(&registry, StatConfig::default());
    emission.emit();
    let line = lines(&socket).remove(0);
    assert!(line.contains(",server:a_b_c_d__é_/x,online:y,"), "{line}");
}

#[test]
fn gauges_that_need_a_value_first_are_told_from_then_on() {
    struct Late(AtomicU64);
    impl Source for Late {
        fn collect(&self, out: &mut Collector<'_>) {
            let value = self.0.load(Ordering::Relaxed);
            let mut object = out.object(&[]);
            object.gauge("late", Rule::NonZero, &[], value);
            object.gauge("mean", Rule::Always, &[("quantile", "0.50")], 0.25);
        }
    }
    let registry = Registry::new();
    let late = Arc::new(Late(AtomicU64::new(0)));
    let _registration = registry.register(Arc::<Late>::clone(&late));
    let (mut emission, socket, _dir) = by_hand(&registry, StatConfig::default());
    let mean = "sluice.mean:0.25|g|#daemon_group:g_1,quantile:0.50";
    emission.emit();
    assert_eq!(lines(&socket), [mean]);
    for value in [3, 0] {
        late.0.store(value, Ordering::Relaxed);
        emission.emit();
        assert_eq!(
            lines(&socket),
            [&format!("sluice.late:{value}|g|#daemon_group:g_1"), mean]
        );
    }
}

#[test]
fn lines_are_packed_into_segments_and_longer_ones_sent_alone() {
    let registry = Registry::new();
    let _one = registry.register(server("s"));
    let _long = registry.register(server(&"x".repeat(300)));
    let _two = registry.register(server("t"));
    let config = StatConfig {
        max_segment_size: Some(200),
        ..StatConfig::default()
    };
    let (mut emission, socket, _dir) = by_hand(&registry, config);
    emission.emit();
    let sizes: Vec<usize> = (0..4).map(|_| lines(&socket).len()).collect();
    assert_eq!(sizes, [2, 1, 1, 2]);
    for max in [1, 4, 5, 8, 9, 100] {
        let all = b"abc\nabc\nabcdefgh\nabc\n";
        let parts: Vec<&[u8]> = segments(all, max).collect();
        assert_eq!(parts.concat(), all);
        assert!(
            parts
                .iter()
                .all(|part| { part.len() <= max || part.iter().filter(|byte| **byte == b'\n').count() == 1 })
        );
    }
}

#[test]
fn the_cache_is_sent_when_it_is_full() {
    let registry = Registry::new();
    let _one = registry.register(server("s"));
    let config = StatConfig {
        cache_size: 80,
        ..StatConfig::default()
    };
    let (mut emission, socket, _dir) = by_hand(&registry, config);
    emission.emit();
    assert_eq!(lines(&socket).len(), 1);
    assert_eq!(lines(&socket).len(), 1);
}

#[test]
fn a_stuck_or_absent_receiver_never_holds_the_thread() {
    let registry = Registry::new();
    let _one = registry.register(server("s"));
    let (mut emission, socket, _dir) = by_hand(&registry, StatConfig::default());
    let from = Instant::now();
    for _ in 0..2000 {
        emission.emit();
    }
    assert!(from.elapsed() < SOON);
    drop(socket);
    emission.emit();
}

#[test]
fn stopping_sends_the_last_values() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(SOON)).unwrap();
    let registry = Registry::new();
    let edge = server("edge");
    let _registration = registry.register(Arc::<Server>::clone(&edge));
    let config = StatConfig {
        target: Some(DatagramTarget::Udp {
            peer: receiver.local_addr().unwrap().into(),
            bind_ip: Some([127, 0, 0, 3].into()),
        }),
        prefix: Some("my proxy".to_owned()),
        emit_interval: Duration::from_secs(3600),
        ..StatConfig::default()
    };
    let thread = crate::metrics::start(&config, &identity(), registry.clone()).unwrap();
    add(&edge.total, 11);
    StatThread::stop(thread);
    let mut datagram = [0; 65536];
    let (len, from) = receiver.recv_from(&mut datagram).unwrap();
    assert_eq!(from.ip().to_string(), "127.0.0.3");
    let text = std::str::from_utf8(&datagram[..len]).unwrap();
    assert!(text.starts_with("my_proxy.server.task.total:11|c|#"), "{text}");
}

#[test]
fn the_thread_emits_by_itself_until_it_is_dropped() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(SOON)).unwrap();
    let registry = Registry::new();
    let _registration = registry.register(server("edge"));
    let config = StatConfig {
        target: Some(DatagramTarget::Udp {
            peer: receiver.local_addr().unwrap().into(),
            bind_ip: None,
        }),
        emit_interval: Duration::from_millis(5),
        ..StatConfig::default()
    };
    let thread = crate::metrics::start(&config, &identity(), registry).unwrap();
    for _ in 0..3 {
        receiver.recv(&mut [0; 2048]).unwrap();
    }
    drop(thread);
}
