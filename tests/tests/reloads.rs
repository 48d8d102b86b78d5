//! Reloads of servers: what they change, and what they leave alone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use sluice_testkit::{Ca, Daemon, Group, Origin, Statsd, Wire, assert_eventually, curl};
use sluice_tests::{config_with, finished};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

async fn get(daemon: &Daemon, port: &str, origin: &Origin) -> Option<u16> {
    let mut wire = daemon.connect(port).await;
    wire.try_send(format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr()))
        .await;
    let answer = String::from_utf8_lossy(&wire.some().await).into_owned();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok())
}

/// The inodes of the sockets that listen on a port.
fn listening(port: u16) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[1].ends_with(&format!(":{port:04X}")) && fields[3] == "0A" {
                found.insert(fields[9].to_owned());
            }
        }
    }
    found
}

fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

fn resident_kib(daemon: &Daemon) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// RL-01.
#[tokio::test(flavor = "multi_thread")]
async fn many_reloads_of_servers_before_servers_lose_no_connection() {
    let origin = Arc::new(Origin::hello("hi"));
    let chain = |which: usize| {
        config_with(&format!(
            "  - {{name: http, type: http_proxy, escaper: out, server_id: id{which}}}
  - {{name: socks, type: socks_proxy, escaper: out, negotiation_timeout: {which}s}}
  - {{name: inner, type: intelli_proxy, listen: '127.0.0.1:%inner%', http_server: http, socks_server: socks}}
  - {{name: outer, type: plain_tcp_port, listen: '127.0.0.1:%outer%', server: inner}}
  - {{name: headed, type: plain_tcp_port, listen: '127.0.0.1:%headed%', server: outer, proxy_protocol: 1}}"
        ))
    };
    let daemon = Arc::new(Daemon::proxyd(&chain(1)).start().await);
    let (done, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for (port, header) in [
        ("inner", ""),
        ("outer", ""),
        ("headed", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
    ] {
        let (done, served) = (Arc::clone(&done), Arc::clone(&served));
        let (addr, target) = (daemon.addr(port), origin.addr());
        clients.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let mut wire = Wire::connect(addr).await;
                let request = format!("{header}GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n");
                assert_eq!(wire.ask(request).await.body, b"hi");
                let mut wire = Wire::connect(addr).await;
                wire.send(header).await;
                wire.send(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01").await;
                wire.send(target.port().to_be_bytes()).await;
                wire.exactly(12).await;
                assert_eq!(wire.ask("GET / HTTP/1.1\r\nHost: o\r\n\r\n").await.body, b"hi");
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for i in 0..100 {
        daemon.reload_with(&chain(1 + i % 3)).await;
    }
    let before = served.load(Ordering::Relaxed);
    assert_eventually!(served.load(Ordering::Relaxed) > before + 10);
    done.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    Arc::into_inner(daemon).unwrap().stop().await.assert_clean();
}

/// RL-03.
#[tokio::test]
async fn servers_follow_their_tls_their_rules_and_their_number_of_sockets() {
    let origin = Origin::hello("hi");
    let ca = Ca::new();
    let config = |http: &str, port: &str| {
        config_with(&format!(
            "  - {{name: http, type: http_proxy, listen: {{address: '127.0.0.1:%http%', instance: 2}}, escaper: out, {http}}}
  - {{name: port, type: plain_tls_port, listen: '127.0.0.1:%port%', server: http, {port}}}"
        ))
    };
    let tls = "tls_server: {cert_pairs: {certificate: '%dir%/front.pem', private_key: '%dir%/front.key'}}";
    let demands = tls.replace(
        "cert_pairs",
        "enable_client_auth: true, ca_certificate: '%dir%/ca.pem', cert_pairs",
    );
    let group = Group::new(&config("", tls));
    ca.write(group.dir());
    ca.issue(&["localhost"]).write(group.dir(), "front");
    let daemon = group.proxyd().await;
    let url = format!("http://{}/", origin.addr());
    let by_tls = async |port: &str| {
        let curl = curl(&url).args(["--proxy", &format!("https://localhost:{}", group.port(port))]);
        let file = group.dir().join("ca.pem");
        curl.arg("--proxy-cacert").arg(file).run().await.exit == 0
    };
    let sockets = listening(group.port("http"));
    assert_eq!(sockets.len(), 2);
    assert!(get(&daemon, "http", &origin).await == Some(200) && by_tls("port").await);

    // Rules, seen through a port that did not change too; the sockets stay.
    daemon
        .reload_with(&config("ingress_network_filter: {deny: 127.0.0.1}", tls))
        .await;
    assert_eq!(
        (get(&daemon, "http", &origin).await, by_tls("port").await),
        (None, false)
    );
    daemon
        .reload_with(&config("dst_port_filter: {default: forbid}", tls))
        .await;
    assert_eq!(get(&daemon, "http", &origin).await, Some(403));
    assert_eq!(listening(group.port("http")), sockets);

    // TLS comes, changes, and goes.
    daemon.reload_with(&config(tls, &demands)).await;
    assert!(by_tls("http").await && !by_tls("port").await);
    assert_ne!(get(&daemon, "http", &origin).await, Some(200));
    daemon.reload_with(&config("", tls)).await;
    assert!(!by_tls("http").await && by_tls("port").await);
    assert_eq!(listening(group.port("http")), sockets);

    // Another number of sockets.
    let three = config("", tls).replace("instance: 2", "instance: 3");
    daemon.reload_with(&three).await;
    assert_eventually!(listening(group.port("http")).len() == 3);
    assert_eq!(get(&daemon, "http", &origin).await, Some(200));
    daemon.stop().await.assert_clean();
}

/// RL-03. An option that is left out has the system's value again.
#[tokio::test]
async fn sockets_lose_the_options_that_a_reload_leaves_out() {
    let config = |keys: &str| config_with(&format!("  - {{name: http, type: http_proxy, escaper: out, {keys}}}"));
    let with = "listen: '127.0.0.1:%http%', tcp_misc_opts: {type_of_service: 40}";
    let without = "listen: '127.0.0.1:%http%'";
    let daemon = Daemon::proxyd(&config(with)).start().await;
    let port = daemon.group().port("http");
    let first = listening(port);
    daemon.reload_with(&config(with)).await;
    assert_eq!(listening(port), first);
    daemon.reload_with(&config(&with.replace("40", "8"))).await;
    assert_eq!(listening(port), first);
    daemon.reload_with(&config(without)).await;
    assert_eventually!(listening(port).len() == 1 && listening(port) != first);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn an_address_may_become_the_wildcard_and_one_of_its_own_again() {
    let origin = Origin::hello("hi");
    let config = |address: &str| {
        config_with(&format!(
            "  - {{name: http, type: http_proxy, listen: '{address}:%http%', escaper: out}}"
        ))
    };
    let daemon = Daemon::proxyd(&config("127.0.0.1")).start().await;
    for address in ["0.0.0.0", "127.0.0.1", "[::]", "127.0.0.1", "[::]", "0.0.0.0"] {
        daemon.reload_with(&config(address)).await;
        assert_eq!(get(&daemon, "http", &origin).await, Some(200), "{address}");
        assert_eventually!(listening(daemon.group().port("http")).len() == 1);
    }
    let tasks = finished(&daemon);
    daemon.stop().await.assert_clean();
    // H1-20.
    assert!(
        tasks
            .iter()
            .all(|task| task["server_addr"].as_str().unwrap().starts_with("127.0.0.1:")
                && task["client_addr"].as_str().unwrap().starts_with("127.0.0.1:")),
        "{tasks:?}"
    );
}

#[tokio::test]
async fn two_servers_on_one_address_are_refused_at_a_reload_too() {
    let origin = Origin::hello("hi");
    let one = "  - {name: http, type: http_proxy, listen: '127.0.0.1:%http%', escaper: out}";
    let two = format!("{one}\n  - {{name: socks, type: socks_proxy, listen: '127.0.0.1:%http%', escaper: out}}");
    let daemon = Daemon::proxyd(&config_with(one)).start().await;
    daemon.group().rewrite(&config_with(&two));
    let error = daemon.reload().await.unwrap_err();
    assert!(
        error.message.contains("servers `http` and `socks` both listen on"),
        "{error:?}"
    );
    assert_eq!(get(&daemon, "http", &origin).await, Some(200));
    daemon.stop().await.assert_clean();
}

/// RL-04.
#[tokio::test]
async fn a_hundred_reloads_leave_no_object_behind() {
    let origin = Origin::hello("hi");
    let ca = Ca::new();
    let statsd = Statsd::start();
    let config = |which: usize| {
        let tls = "tls_server: {cert_pairs: {certificate: '%dir%/front.pem', private_key: '%dir%/front.key'}}";
        let servers = format!(
            "  - {{name: http, type: http_proxy, escaper: out, server_id: id{which}}}
  - {{name: socks, type: socks_proxy, escaper: out, negotiation_timeout: {which}s}}
  - {{name: rustls, type: plain_tls_port, listen: '127.0.0.1:%rustls%', server: http, {tls}}}
  - {{name: openssl, type: native_tls_port, listen: '127.0.0.1:%openssl%', server: http, {tls}}}
  - {{name: plain, type: intelli_proxy, listen: '127.0.0.1:%plain%', http_server: http, socks_server: socks}}
"
        );
        config_with(&servers) + &statsd.section()
    };
    let group = Group::new(&config(0));
    ca.issue(&["localhost"]).write(group.dir(), "front");
    let daemon = group.proxyd().await;
    // What is allocated once, or late, is no leak.
    for i in 1..=20 {
        daemon.reload_with(&config(i)).await;
    }
    assert_eq!(get(&daemon, "plain", &origin).await, Some(200));
    let (fds, memory) = (descriptors(&daemon), resident_kib(&daemon));
    for i in 21..=120 {
        daemon.reload_with(&config(i)).await;
    }
    assert_eq!(get(&daemon, "plain", &origin).await, Some(200));
    let grown = resident_kib(&daemon).saturating_sub(memory);
    assert!(grown < 4096, "{grown} KiB more after 100 reloads of five servers");
    assert_eventually!(descriptors(&daemon) <= fds, "{} of {fds}", descriptors(&daemon));

    // A server that is there again is online at once.
    let away = "  - {name: http, type: http_proxy, escaper: out}\n";
    daemon.reload_with(&(config_with(away) + &statsd.section())).await;
    daemon.reload_with(&config(0)).await;
    let status = daemon.call("server.status", json!({"name": "plain"})).await.unwrap();
    assert_eq!(status["online"], true, "{status}");
    daemon.stop().await.assert_clean();
}

/// What is at work at a stop belongs to the drain, also where its server has been replaced.
#[tokio::test]
async fn tasks_of_replaced_servers_are_told_to_quit() {
    let origin = Origin::echo();
    let config = |id: &str| {
        let servers = format!(
            "  - {{name: http, type: http_proxy, listen: '127.0.0.1:%http%', escaper: out, server_id: {id},
     task_idle_check_interval: 300ms}}"
        );
        config_with(&servers).replace("task_wait_timeout: 10s", "task_wait_timeout: 100ms")
    };
    let daemon = Daemon::proxyd(&config("old").replace("task_quit_timeout: 1s", "task_quit_timeout: 9s"))
        .start()
        .await;
    let mut wire = daemon.http_connect(origin.addr()).await;
    assert_eq!(wire.echo(b"ping").await, b"ping");
    daemon
        .reload_with(&config("new").replace("task_quit_timeout: 1s", "task_quit_timeout: 9s"))
        .await;
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let tasks = stopped.log_records("Task");
    assert_eq!(tasks.last().unwrap()["reason"], "CanceledAsServerQuit");
    assert_eq!(tasks.last().unwrap()["msg"], "the server was told to quit");
}

/// RL-13.
#[tokio::test]
async fn a_shutdown_is_cancelled_while_it_waits_and_not_while_it_drains() {
    let origin = Origin::echo();
    let yaml = config_with("  - {name: http, type: http_proxy, listen: '127.0.0.1:%http%', escaper: out}");
    let daemon = Daemon::proxyd(&yaml).start().await;
    let mut wire = daemon.http_connect(origin.addr()).await;
    daemon.call("offline", json!({"delay": 60.0})).await.unwrap();
    daemon.call("cancel-shutdown", json!({})).await.unwrap();
    assert_eq!(daemon.status().await["state"], "online");
    drop(daemon.http_connect(origin.addr()).await);
    daemon.call("offline", json!({"delay": 0.0})).await.unwrap();
    assert_eventually!(TcpStream::connect(daemon.addr("http")).await.is_err());
    let error = daemon.call("cancel-shutdown", json!({})).await.unwrap_err();
    assert!(error.message.contains("too late"), "{error:?}");
    assert_eq!(wire.echo(b"still here").await, b"still here");
    drop(wire);
    daemon.terminate().await.assert_clean();
}
