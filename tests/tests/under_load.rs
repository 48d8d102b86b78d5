//! Reloads, and deaths of resolverd, while clients are at work: nobody is refused, no request is lost, and nothing is
//! left behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;
use sluice_testkit::{Ca, Daemon, Dnsmasq, Group, Origin, Statsd, Wire, assert_eventually};
use sluice_tests::{nobody, proxy, resolving_proxy};
use tokio::task::JoinSet;

/// Clients that ask without a pause until they are told to stop. One that is refused, answered wrongly or kept waiting
/// fails the test.
struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<usize>,
}

impl Load {
    /// Starts clients of each kind at each of the proxy's ports.
    fn start(ports: &[SocketAddr], origin: &Origin) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        let get = format!("GET http://{}/ HTTP/1.1\r\n", origin.addr());
        for &port in ports {
            for _ in 0..2 {
                clients.spawn(come_anew(
                    port,
                    format!("{get}Connection: close\r\n\r\n"),
                    Arc::clone(&stop),
                ));
                clients.spawn(stay(port, format!("{get}\r\n"), Arc::clone(&stop)));
            }
            clients.spawn(keep_a_tunnel(port, origin.addr(), Arc::clone(&stop)));
        }
        Self { stop, clients }
    }

    /// Stops them, and says how many requests were served.
    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.iter().sum()
    }
}

async fn ask(wire: &mut Wire, request: &str) -> bool {
    let answer = wire.ask(request).await;
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, &b"hello"[..]),
        "{}",
        answer.head
    );
    answer.header("connection") != Some("close")
}

/// A connection for each request.
async fn come_anew(proxy: SocketAddr, request: String, stop: Arc<AtomicBool>) -> usize {
    let mut served = 0;
    while !stop.load(Ordering::Relaxed) {
        ask(&mut Wire::connect(proxy).await, &request).await;
        served += 1;
    }
    served
}

/// One connection, and another one when the proxy says that it ends.
async fn stay(proxy: SocketAddr, request: String, stop: Arc<AtomicBool>) -> usize {
    let mut served = 0;
    let mut wire = Wire::connect(proxy).await;
    while !stop.load(Ordering::Relaxed) {
        if !ask(&mut wire, &request).await {
            wire.assert_closed().await;
            wire = Wire::connect(proxy).await;
        }
        served += 1;
    }
    served
}

/// One tunnel, which outlives all reloads.
async fn keep_a_tunnel(proxy: SocketAddr, target: SocketAddr, stop: Arc<AtomicBool>) -> usize {
    let mut wire = Wire::connect(proxy).await;
    wire.send(format!("CONNECT {target} HTTP/1.1\r\n\r\n")).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    let mut served = 0;
    while !stop.load(Ordering::Relaxed) {
        assert!(ask(&mut wire, "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n").await);
        served += 1;
    }
    served
}

/// A forward proxy behind a port server as well, with `keys` at the proxy and `port_keys` at the port.
fn behind_a_port(keys: &str, port_keys: &str) -> String {
    proxy(keys, "").replace(
        "server:\n",
        &format!(
            "server:\n  - {{name: door, type: plain_tcp_port, listen: '127.0.0.1:%door%', server: http, {port_keys}}}\n"
        ),
    )
}

/// What a process has: threads, descriptors, kilobytes of memory.
fn belongings(pid: u32) -> (usize, usize, usize) {
    let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = memory.trim().trim_end_matches(" kB").parse().unwrap();
    (count("task"), count("fd"), memory)
}

/// RL-01, RL-02.
#[tokio::test]
async fn clients_notice_nothing_of_reloads_with_the_same_another_and_a_broken_file() {
    let origin = Origin::hello("hello");
    let plain = behind_a_port("", "");
    let daemon = Daemon::proxyd(&plain).start().await;
    let load = Load::start(&[daemon.addr("http"), daemon.addr("door")], &origin);
    let another = behind_a_port(
        "server_id: p1, echo_chained_info: true",
        "ingress_network_filter: {default: allow}",
    );
    let more_sockets =
        behind_a_port("", "").replace("'127.0.0.1:%http%'", "{address: '127.0.0.1:%http%', instance: 3}");
    let without_the_port = proxy("", "");
    let broken = [
        (plain.replace("server:\n", "server:\n  - {{{\n"), "main.yml"),
        (plain.replace("escaper: out,", "escaper: oot,"), "`oot`"),
        (
            plain.replace("thread_number: 1", "thread_number: many"),
            "thread_number",
        ),
        // What parses and cannot be built: the last one needs a port that somebody else has.
        (
            plain.replace(
                "server:\n",
                &format!(
                    "server:\n  - {{name: z, type: plain_tcp_port, listen: '{}', server: http}}\n",
                    origin.addr()
                ),
            ),
            "in use",
        ),
    ];
    for round in 0..10 {
        for yaml in [&another, &plain, &more_sockets, &plain] {
            daemon.reload_with(yaml).await;
        }
        let reloads = daemon.status().await["reloads"].clone();
        for (yaml, told) in &broken {
            daemon.group().rewrite(yaml);
            let error = daemon.reload().await.unwrap_err();
            assert!(error.message.contains(told), "round {round}: {told}: {error:?}");
        }
        assert_eq!(daemon.status().await["reloads"], reloads, "a failed one is none");
    }
    daemon.reload_with(&plain).await;
    let served = load.stop().await;
    assert!(served > 500, "{served} requests");
    // A port that is not named any more is closed, and the other one goes on.
    daemon.reload_with(&without_the_port).await;
    assert_eventually!(tokio::net::TcpStream::connect(daemon.addr("door")).await.is_err());
    let load = Load::start(&[daemon.addr("http")], &origin);
    daemon.reload_with(&without_the_port).await;
    load.stop().await;
    assert_eventually!(daemon.status().await["tasks_alive"] == 0);
    daemon.stop().await.assert_clean();
}

/// RL-01, RL-04.
#[tokio::test]
async fn a_thousand_quick_reloads_neither_hang_nor_leave_anything() {
    let origin = Origin::hello("hello");
    let statsd = Statsd::start();
    // Hundreds of rules, so that a server that stayed would be noticed.
    let names: Vec<_> = (0..200).map(|n| format!("name-{n}.of.a.host.test")).collect();
    // The system's authorities would take most of the time.
    let keys = format!(
        "tls_client: {{ca_certificate: '%dir%/ca.pem', no_default_ca_certificate: true}}, dst_host_filter_set: {{exact_match: {{default: allow, deny: [{}]}}}}",
        names.join(", ")
    );
    let one = behind_a_port(&keys, "") + &statsd.section();
    let other = behind_a_port(&format!("server_id: p1, {keys}"), "") + &statsd.section();
    let group = Group::new(&one);
    group.write_file("ca.pem", Ca::new().pem());
    let daemon = group.proxyd().await;
    let reload = async |count: usize| {
        let mut ctl = daemon.ctl().await;
        for n in 0..count {
            group.rewrite(if n % 2 == 0 { &other } else { &one });
            ctl.call("reload", serde_json::Value::Null).await.unwrap();
        }
    };
    let idle_tasks = || statsd.last("sluice.runtime.tokio.alive_tasks", &[("runtime_id", "worker-0")]);
    assert_eventually!(idle_tasks().is_some());
    let tasks = idle_tasks();
    reload(200).await;
    let start = Instant::now();
    let (threads, descriptors, memory) = belongings(daemon.pid());
    reload(600).await;
    let later = belongings(daemon.pid());
    // A control connection may still be closing, and a few threads for blocking work come and go.
    assert!(
        later.0 <= threads + 4 && later.1 <= descriptors + 2,
        "{threads} threads and {descriptors} descriptors became {later:?}"
    );
    assert!(later.2 < memory + 8 * 1024, "{memory} kB became {} kB", later.2);
    // And with clients at work.
    let load = Load::start(&[daemon.addr("http"), daemon.addr("door")], &origin);
    reload(200).await;
    assert!(load.stop().await > 100);
    assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
    assert_eventually!(daemon.status().await["tasks_alive"] == 0);
    assert_eventually!(idle_tasks() == tasks, "{:?} became {:?}", tasks, idle_tasks());
    let online = [("server", "http"), ("online", "y")];
    assert_eq!(statsd.last("sluice.listen.instance.count", &online), Some(1.0));
    assert_eq!(statsd.total("sluice.server.task.total", &[("online", "n")]), 0.0);
    daemon.stop().await.assert_clean();
}

/// SIGHUP is a reload too; many at once are few.
#[tokio::test]
async fn hangups_under_load_are_reloads() {
    let origin = Origin::hello("hello");
    let daemon = Daemon::proxyd(&behind_a_port("", "")).start().await;
    let load = Load::start(&[daemon.addr("http")], &origin);
    for _ in 0..200 {
        daemon.signal(Signal::HUP);
        tokio::task::yield_now().await;
    }
    assert_eventually!(daemon.status().await["reloads"].as_u64().is_some_and(|count| count > 0));
    let before = daemon.status().await["reloads"].as_u64().unwrap();
    daemon.signal(Signal::HUP);
    assert_eventually!(
        daemon.status().await["reloads"]
            .as_u64()
            .is_some_and(|count| count > before)
    );
    load.stop().await;
    daemon.stop().await.assert_clean();
}

/// What is asked for while resolverd is killed and started again, over and over: names that were asked for before go
/// on without a pause, and each other request waits and succeeds.
#[tokio::test]
async fn resolverd_dies_and_comes_back_under_load() {
    let origin = Origin::hello("hello");
    let dns = Dnsmasq::new()
        .host("cached.test", &["127.0.0.1"])
        .domain("new.test", "127.0.0.1")
        .ttl(600)
        .start()
        .await;
    let group = Group::new(&resolving_proxy(dns.addr(), "", ""));
    let mut resolverd = group.resolverd().await;
    let proxyd = group.proxyd().await;
    let port = origin.port();
    let addr = proxyd.addr("http");
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    let cached = format!("GET http://cached.test:{port}/ HTTP/1.1\r\nConnection: close\r\n\r\n");
    ask(&mut proxyd.connect("http").await, &cached).await;
    for _ in 0..2 {
        clients.spawn(come_anew(addr, cached.clone(), Arc::clone(&stop)));
    }
    for client in 0..4 {
        let stop = Arc::clone(&stop);
        clients.spawn(async move {
            let mut served = 0;
            while !stop.load(Ordering::Relaxed) {
                let host = format!("n{served}.c{client}.new.test:{port}");
                let request = format!("GET http://{host}/ HTTP/1.1\r\nConnection: close\r\n\r\n");
                ask(&mut Wire::connect(addr).await, &request).await;
                served += 1;
            }
            served
        });
    }
    for _ in 0..5 {
        let group = resolverd.kill9().await;
        resolverd = group.resolverd().await;
        let answered = resolverd
            .call("resolver.cache.show", json!({"resolver": "dns"}))
            .await
            .unwrap();
        // It really is at work again before it is killed once more.
        let before = answered.as_array().map_or(0, Vec::len);
        assert_eventually!({
            let answered = resolverd
                .call("resolver.cache.show", json!({"resolver": "dns"}))
                .await
                .unwrap();
            answered.as_array().map_or(0, Vec::len) > before + 10
        });
    }
    // One that hangs: what is known goes on.
    resolverd.signal(Signal::STOP);
    let start = Instant::now();
    for _ in 0..20 {
        ask(&mut proxyd.connect("http").await, &cached).await;
    }
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    resolverd.signal(Signal::CONT);
    stop.store(true, Ordering::Relaxed);
    let served: usize = clients.join_all().await.iter().sum();
    assert!(served > 100, "{served} requests");
    // A name that nobody knows is no victim of it.
    let unknown = format!("GET http://unknown.test:{}/ HTTP/1.1\r\n\r\n", nobody().port());
    assert_eq!(proxyd.connect("http").await.ask(unknown).await.status, 530);
    resolverd.stop().await.assert_clean();
    proxyd.stop().await.assert_clean();
}
