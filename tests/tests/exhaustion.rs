//! Descriptors that run out, and whether everything is given back.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use sluice_testkit::{Ca, Daemon, Group, Origin, Wire, assert_eventually, python};
use sluice_tests::{config_with, finished, nobody};
use tokio::net::TcpStream;

const SERVERS: &str = "  - {name: http, type: http_proxy, listen: '127.0.0.1:%http%', escaper: out}
  - {name: socks, type: socks_proxy, listen: '127.0.0.1:%socks%', escaper: out}
  - {name: plain, type: plain_tcp_port, listen: '127.0.0.1:%plain%', server: http}
";

fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

fn resident_kib(daemon: &Daemon) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Lets the daemon have so many descriptors from now on.
fn limit_descriptors(daemon: &Daemon, most: u64) {
    let pid = Pid::from_raw(daemon.pid().cast_signed());
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(20_000),
    };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

async fn is_served(daemon: &Daemon, port: &str, origin: &Origin) -> bool {
    let mut wire = daemon.connect(port).await;
    let request = format!(
        "GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\nConnection: close\r\n\r\n",
        origin.addr()
    );
    wire.ask(request).await.status == 200
}

/// RL-08.
#[tokio::test]
async fn with_no_descriptor_left_everybody_waits_and_is_served_later() {
    let origin = Origin::hello("hi");
    let daemon = Daemon::proxyd(&config_with(SERVERS)).start().await;
    let mut ctl = daemon.ctl().await;
    limit_descriptors(&daemon, descriptors(&daemon) as u64 + 50);
    let mut idle = Vec::new();
    for i in 0..400 {
        let port = ["http", "socks", "plain"][i % 3];
        idle.push(TcpStream::connect(daemon.addr(port)).await.unwrap());
    }
    assert_eventually!(daemon.stderr().contains("Too many open files"));
    // Whoever is connected is heard; others wait for their turn.
    ctl.call("status", Value::Null).await.unwrap();
    let mut waiting = daemon.connect("http").await;
    let request = format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr());
    waiting.send(&request).await;
    drop(idle);
    assert_eq!(waiting.answer().await.status, 200);
    for port in ["http", "plain"] {
        assert!(is_served(&daemon, port, &origin).await, "{port}");
    }
    daemon.reload().await.unwrap();
    daemon.status().await;
    daemon.stop().await.assert_clean();
}

/// RL-08: wherever in a reload the descriptors run out, the listeners that were there stay.
#[tokio::test]
async fn a_reload_without_descriptors_leaves_every_listener_where_it_was() {
    let origin = Origin::hello("hi");
    let more = "  - {name: a, type: http_proxy, listen: '127.0.0.1:%a%', escaper: out}
  - {name: k, type: http_proxy, listen: {address: '127.0.0.1:%k%', instance: 2}, escaper: out}
  - {name: z, type: http_proxy, listen: '127.0.0.1:%z%', escaper: out}
";
    let daemon = Daemon::proxyd(&config_with(SERVERS)).start().await;
    let base = descriptors(&daemon) as u64;
    daemon.group().rewrite(&config_with(&format!("{SERVERS}{more}")));
    let (mut refused, mut taken) = (0, 0);
    for spare in 0..16 {
        let mut ctl = daemon.ctl().await;
        ctl.call("status", Value::Null).await.unwrap();
        limit_descriptors(&daemon, base + 1 + spare);
        let reloaded = ctl.call("reload", Value::Null).await;
        limit_descriptors(&daemon, 20_000);
        match reloaded {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
        for port in ["http", "plain"] {
            assert!(
                is_served(&daemon, port, &origin).await,
                "{port} with {spare} descriptors"
            );
        }
        drop(ctl);
        if taken == 0 {
            assert_eventually!(
                descriptors(&daemon) as u64 <= base + 1,
                "{spare}: {}",
                descriptors(&daemon)
            );
        }
    }
    assert!(refused > 3 && taken > 0, "{refused} refused, {taken} taken");
    for port in ["a", "k", "z"] {
        assert!(is_served(&daemon, port, &origin).await, "{port}");
    }
    daemon.stop().await.assert_clean();
}

/// MEM-01.
#[tokio::test(flavor = "multi_thread")]
async fn memory_and_descriptors_come_back_after_thousands_of_tasks_of_every_kind() {
    let ca = Ca::new();
    let origin = Origin::http(|request| match request.target() {
        "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nConnection: close\r\n\r\nshort".to_vec(),
        "/close" => b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec(),
    });
    let echo = Origin::echo();
    let tls = "tls_server: {cert_pairs: {certificate: '%dir%/front.pem', private_key: '%dir%/front.key'}}";
    let yaml = config_with(&format!(
        "{SERVERS}  - {{name: rustls, type: plain_tls_port, listen: '127.0.0.1:%rustls%', server: http, {tls}}}
  - {{name: openssl, type: native_tls_port, listen: '127.0.0.1:%openssl%', server: socks, {tls}}}
  - {{name: headed, type: plain_tcp_port, listen: '127.0.0.1:%headed%', server: mixed, proxy_protocol: 2}}
  - {{name: mixed, type: intelli_proxy, listen: '127.0.0.1:%mixed%', http_server: http, socks_server: socks}}
"
    ));
    let group = Group::new(&(yaml + "log: {default: discard}\n"));
    ca.issue(&["localhost"]).write(group.dir(), "front");
    let daemon = group.proxyd().await;
    let kinds = kinds(origin.addr().port(), echo.port(), nobody().port());
    round(&daemon, &kinds, 40).await;
    settled(&daemon).await;
    let (fds, memory) = (descriptors(&daemon), resident_kib(&daemon));
    round(&daemon, &kinds, 250).await;
    settled(&daemon).await;
    assert_eventually!(descriptors(&daemon) <= fds + 8, "{} of {fds}", descriptors(&daemon));
    let grown = resident_kib(&daemon).saturating_sub(memory);
    assert!(grown < 3000, "{grown} KiB more");
    daemon.stop().await.assert_clean();
}

/// What a client sends, to which port; and how much of an answer it waits for before it goes.
type Kind = (&'static str, Vec<u8>, usize);

fn kinds(origin: u16, echo: u16, nobody: u16) -> Vec<Kind> {
    let get = |path: &str| format!("GET http://127.0.0.1:{origin}/{path} HTTP/1.1\r\nHost: o\r\n\r\n").into_bytes();
    let connect = |port: u16| format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\nping").into_bytes();
    let v5 = |port: u16| {
        let head = b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01";
        [&head[..], &port.to_be_bytes(), b"ping"].concat()
    };
    let v4 = |port: u16| [&b"\x04\x01"[..], &port.to_be_bytes(), b"\x7f\x00\x00\x01\x00ping"].concat();
    let header = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"[..],
        &[192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2],
    ]
    .concat();
    let behind = |bytes: Vec<u8>| [header.clone(), bytes].concat();
    let mut kinds = vec![
        ("http", get("a"), 40),
        ("http", get("cut"), 48),
        ("http", get("close"), 20),
        ("http", connect(echo), 43),
        ("http", connect(nobody), 12),
        ("http", b"nonsense\r\n\r\n".to_vec(), 12),
        ("socks", v5(echo), 16),
        ("socks", v5(nobody), 12),
        ("socks", v4(echo), 12),
        ("socks", b"\x05\x01\x02".to_vec(), 2),
        ("plain", get("a"), 40),
        ("mixed", get("a"), 40),
        ("mixed", v5(echo), 16),
        ("headed", behind(get("a")), 40),
        ("headed", behind(v4(echo)), 12),
        ("headed", b"PROXY nonsense\r\n".to_vec(), 0),
        ("rustls", b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), 0),
        ("openssl", b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), 0),
        ("openssl", b"nonsense, and more of it".to_vec(), 0),
    ];
    // Cut short, each at some place.
    for i in 0..kinds.len() {
        let (port, bytes, _) = kinds[i].clone();
        let cut = bytes.len() * (i + 1) / 24;
        kinds.push((port, bytes[..cut].to_vec(), 0));
    }
    kinds
}

/// Every kind so many times; each client ends in another way than the last.
async fn round(daemon: &Daemon, kinds: &[Kind], times: usize) {
    let handshakes = async {
        let ports = ["rustls", "openssl"].map(|port| daemon.group().port(port).to_string());
        let script = format!(
            "import socket, ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
for i in range({times}):
    for port in ({}):
        sock = context.wrap_socket(socket.create_connection(('127.0.0.1', port)))
        if i % 3: sock.sendall(b'\\x05\\x01\\x02' if i % 2 else b'GET / HTTP/1.1\\r\\n\\r\\n')
        if i % 3 == 2: sock.recv(1)
        sock.close()
",
            ports.join(", ")
        );
        let exited = python(&script, &[]).await;
        assert_eq!(exited.code, Some(0), "{}", exited.stderr);
    };
    let clients = async {
        for turn in 0..times {
            for (i, (port, bytes, wanted)) in kinds.iter().enumerate() {
                let stream = TcpStream::connect(daemon.addr(port)).await.unwrap();
                if (turn + i) % 3 == 0 {
                    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                }
                let mut wire = Wire::from_stream(stream);
                wire.try_send(bytes).await;
                if (turn + i) % 2 == 0 && *wanted > 0 {
                    wire.exactly(*wanted).await;
                }
            }
        }
    };
    tokio::join!(handshakes, clients);
}

async fn settled(daemon: &Daemon) {
    assert_eventually!(daemon.status().await["tasks_alive"] == 0);
    let mut last = usize::MAX;
    // Lingering closes and unanswered negotiations take seconds.
    assert_eventually!({
        let now = descriptors(daemon);
        let same = now == last;
        last = now;
        tokio::time::sleep(Duration::from_millis(300)).await;
        same
    });
}

#[tokio::test]
async fn a_flood_of_idle_connections_is_taken_and_given_back() {
    let origin = Origin::hello("hi");
    let yaml = config_with(SERVERS).replace("escaper: out}", "escaper: out, pipeline_read_idle_timeout: 1s}");
    let yaml = yaml.replace(
        "type: socks_proxy, listen: '127.0.0.1:%socks%', escaper: out, pipeline_read_idle_timeout: 1s}",
        "type: socks_proxy, listen: '127.0.0.1:%socks%', escaper: out, negotiation_timeout: 1s}",
    );
    let daemon = Daemon::proxyd(&yaml).start().await;
    let base = descriptors(&daemon);
    let mut idle = Vec::new();
    for i in 0..3000 {
        idle.push(
            TcpStream::connect(daemon.addr(["http", "socks", "plain"][i % 3]))
                .await
                .unwrap(),
        );
    }
    assert_eventually!(descriptors(&daemon) <= base, "{} of {base}", descriptors(&daemon));
    assert!(is_served(&daemon, "plain", &origin).await);
    assert_eventually!(finished(&daemon).len() == 1);
    daemon.stop().await.assert_clean();
}
