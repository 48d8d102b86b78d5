//! Port servers and TLS towards clients: what comes in through another port is served the same.

use std::process::Command;

use sluice_testkit::{Answer, Ca, Daemon, Group, Leaf, Origin, Process, Statsd, Wire, assert_eventually, curl};
use sluice_tests::{config_with, finished, proxy};

/// The server `http` of a forward proxy without a listener, behind these other servers.
fn behind(servers: &str) -> String {
    config_with(&format!(
        "  - {{name: http, type: http_proxy, escaper: out}}\n{servers}"
    ))
}

/// A group with the files `ca.pem`, and `NAME.pem` and `NAME.key` for a leaf.
fn with_files(yaml: &str, ca: &Ca, leaves: &[(&str, &Leaf)]) -> Group {
    let group = Group::new(yaml);
    ca.write(group.dir());
    for (name, leaf) in leaves {
        leaf.write(group.dir(), name);
    }
    group
}

async fn get(wire: &mut Wire, origin: &Origin) -> Answer {
    wire.ask(format!("GET http://{}/ HTTP/1.1\r\nHost: o\r\n\r\n", origin.addr()))
        .await
}

const TLS: &str = "tls_server: {cert_pairs: {certificate: '%dir%/front.pem', private_key: '%dir%/front.key'}}";

#[tokio::test]
async fn a_port_hands_plain_connections_on() {
    let origin = Origin::hello("hi");
    let daemon = Daemon::proxyd(&behind(
        "  - {name: port, type: plain_tcp_port, listen: '127.0.0.1:%port%', server: http}",
    ))
    .start()
    .await;
    let url = format!("http://{}/", origin.addr());
    curl(&url).proxy(daemon.addr("port")).run().await.assert(200, "hi");
    curl(&url).tunnel(daemon.addr("port")).run().await.assert(200, "hi");
    assert_eventually!(finished(&daemon).len() == 2);
    let tasks = finished(&daemon);
    daemon.stop().await.assert_clean();
    assert!(tasks.iter().all(|task| task["server_name"] == "http"));
}

#[tokio::test]
async fn an_intelli_port_tells_clients_by_their_first_byte() {
    let origin = Origin::hello("hi");
    let statsd = Statsd::start();
    let yaml = behind(
        "  - {name: nothing, type: dummy_close}
  - {name: port, type: intelli_proxy, listen: '127.0.0.1:%port%', http_server: http, socks_server: nothing,
     protocol_detection_timeout: 100ms, protocol_detection_max_jobs: 3}",
    );
    let daemon = Daemon::proxyd(&(yaml + &statsd.section())).start().await;
    let url = format!("http://{}/", origin.addr());
    curl(&url).proxy(daemon.addr("port")).run().await.assert(200, "hi");
    for first in [&b"\x05\x01\x00"[..], b"\x16\x03\x01", b"x"] {
        let mut wire = daemon.connect("port").await;
        wire.send(first).await;
        wire.assert_closed().await;
    }
    daemon.connect("port").await.assert_closed().await;
    assert_eventually!(statsd.total("sluice.listen.timeout", &[("server", "port")]) == 1.0);
    assert_eventually!(statsd.total("sluice.listen.dropped", &[("server", "port")]) == 2.0);
    daemon.stop().await.assert_clean();
}

/// What follows the header is served, in however many pieces the header comes; PP-01, PP-02.
#[tokio::test]
async fn a_proxy_protocol_header_tells_the_clients_address() {
    let origin = Origin::hello("hi");
    let yaml = behind(
        "  - {name: one, type: plain_tcp_port, listen: '127.0.0.1:%one%', server: http, proxy_protocol: 1}
  - {name: two, type: plain_tcp_port, listen: '127.0.0.1:%two%', server: http, proxy_protocol: v2}",
    );
    let daemon = Daemon::proxyd(&yaml).start().await;
    let v2 = |command: u8, family: u8, payload: &[u8]| {
        let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &len, payload].concat()
    };
    let v4 = [192, 0, 2, 7, 198, 51, 100, 9, 0x30, 0x39, 0x1f, 0x90];
    let mut with_tlv = v4.to_vec();
    with_tlv.extend_from_slice(&[0xee, 0, 2, b'x', b'y', 0x02, 0, 4, b'a', b'.', b'b', b'c']);
    let cases: Vec<(&str, Vec<u8>, Option<&str>)> = vec![
        (
            "one",
            b"PROXY TCP4 192.0.2.7 198.51.100.9 12345 8080\r\n".to_vec(),
            Some("192.0.2.7:12345"),
        ),
        (
            "one",
            b"PROXY TCP6 2001:db8::7 2001:db8::9 12345 8080\r\n".to_vec(),
            Some("[2001:db8::7]:12345"),
        ),
        ("one", b"PROXY UNKNOWN\r\n".to_vec(), None),
        ("one", b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
        ("two", v2(0x21, 0x11, &v4), Some("192.0.2.7:12345")),
        ("two", v2(0x21, 0x11, &with_tlv), Some("192.0.2.7:12345")),
        ("two", v2(0x20, 0x00, &[]), None),
        ("two", v2(0x20, 0x11, &with_tlv), None),
    ];
    let request = format!("GET http://{}/ HTTP/1.1\r\nHost: o\r\n\r\n", origin.addr());
    for (port, header, client) in &cases {
        for whole in [true, false] {
            let mut wire = daemon.connect(port).await;
            let own = wire.local_addr().to_string();
            let bytes = [header, request.as_bytes()].concat();
            if whole {
                wire.send(&bytes).await;
            } else {
                for byte in bytes.chunks(1) {
                    wire.send(byte).await;
                }
            }
            assert_eq!(wire.answer().await.body, b"hi", "{port}");
            // What a LOCAL header tells is about nobody.
            let authority = client.filter(|_| header.ends_with(b"a.bc")).map(|_| "a.bc");
            let client = client.map_or(own, str::to_owned);
            assert_eventually!(finished(&daemon).last().is_some_and(|task| {
                task["client_addr"] == client.as_str() && task["proxy_authority"].as_str() == authority
            }));
        }
    }
    daemon.stop().await.assert_clean();
}

/// PP-01, PP-02.
#[tokio::test]
async fn without_its_proxy_protocol_header_a_connection_is_closed() {
    let origin = Origin::hello("hi");
    let statsd = Statsd::start();
    let yaml = behind(
        "  - {name: one, type: plain_tcp_port, listen: '127.0.0.1:%one%', server: http, proxy_protocol: 1,
     proxy_protocol_read_timeout: 300ms}
  - {name: two, type: plain_tcp_port, listen: '127.0.0.1:%two%', server: http, proxy_protocol: 2}",
    );
    let daemon = Daemon::proxyd(&(yaml + &statsd.section())).start().await;
    let request = format!("GET http://{}/ HTTP/1.1\r\n\r\n", origin.addr());
    for (port, bytes) in [
        ("one", request.as_bytes()),
        ("one", b"PROXY TCP4 192.0.2.7 198.51.100.9 12345\r\n"),
        ("one", b"PROXY TCP4 192.0.2.7 2001:db8::1 1 2\r\n"),
        ("one", b"PROXY TCP4 192.0.2.7 198.51.100.9 99999 1\r\n"),
        ("one", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"),
        ("two", request.as_bytes()),
        ("two", b"PROXY UNKNOWN\r\n"),
        ("two", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c"),
        ("two", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"),
    ] {
        let mut wire = daemon.connect(port).await;
        wire.try_send(bytes).await;
        wire.assert_closed().await;
    }
    let mut slow = daemon.connect("one").await;
    slow.send(b"PROXY ").await;
    slow.assert_closed().await;
    assert_eventually!(statsd.total("sluice.listen.timeout", &[("server", "one")]) == 1.0);
    assert_eventually!(statsd.total("sluice.listen.dropped", &[("server", "one")]) == 5.0);
    assert_eventually!(statsd.total("sluice.listen.dropped", &[("server", "two")]) == 4.0);
    assert_eq!(origin.accepted(), 0);
    daemon.stop().await.assert_clean();
}

/// The port looks at the peer, the server behind it at the client that the header tells.
#[tokio::test]
async fn ingress_filters_ask_the_right_address() {
    let origin = Origin::hello("hi");
    let statsd = Statsd::start();
    let yaml = config_with(
        "  - {name: http, type: http_proxy, escaper: out, ingress_network_filter: {default: forbid, allow: [192.0.2.0/24]}}
  - {name: port, type: plain_tcp_port, listen: '127.0.0.1:%port%', server: http, proxy_protocol: 1,
     ingress_network_filter: {default: forbid, allow: [127.0.0.1]}}
  - {name: shut, type: plain_tcp_port, listen: '127.0.0.1:%shut%', server: http, proxy_protocol: 1,
     ingress_network_filter: {default: allow, deny: [127.0.0.1]}}",
    );
    let daemon = Daemon::proxyd(&(yaml + &statsd.section())).start().await;
    let header = |ip: &str| format!("PROXY TCP4 {ip} 198.51.100.9 1 2\r\n");
    let mut wire = daemon.connect("port").await;
    wire.send(header("192.0.2.1")).await;
    assert_eq!(get(&mut wire, &origin).await.status, 200);
    let mut wire = daemon.connect("port").await;
    wire.send(header("203.0.113.1")).await;
    wire.assert_closed().await;
    let mut wire = daemon.connect("shut").await;
    wire.try_send(header("192.0.2.1")).await;
    wire.assert_closed().await;
    assert_eventually!(statsd.total("sluice.listen.dropped", &[("server", "http")]) == 1.0);
    assert_eventually!(statsd.total("sluice.listen.dropped", &[("server", "shut")]) == 1.0);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn haproxy_as_sender_of_the_header_is_understood() {
    let origin = Origin::hello("hi");
    let yaml = behind(
        "  - {name: one, type: plain_tcp_port, listen: '127.0.0.1:%one%', server: http, proxy_protocol: 1}
  - {name: two, type: plain_tcp_port, listen: '127.0.0.1:%two%', server: http, proxy_protocol: 2}",
    );
    let daemon = Daemon::proxyd(&yaml).start().await;
    let group = daemon.group();
    let config = group.write_file(
        "haproxy.cfg",
        "defaults
  mode tcp
  timeout client 5s
  timeout server 5s
  timeout connect 5s
frontend f1
  bind 127.0.0.1:%front1%
  default_backend b1
frontend f2
  bind 127.0.0.1:%front2%
  unique-id-format of-%ci
  default_backend b2
backend b1
  server s 127.0.0.1:%one% send-proxy
backend b2
  server s 127.0.0.1:%two% send-proxy-v2 proxy-v2-options unique-id,crc32c
",
    );
    let mut command = tokio::process::Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&config);
    let _haproxy = Process::start("haproxy", command, group.dir());
    let url = format!("http://{}/", origin.addr());
    for front in ["front1", "front2"] {
        let answer = curl(&url)
            .proxy(group.addr(front))
            .args([
                "--retry",
                "20",
                "--retry-connrefused",
                "--retry-delay",
                "0",
                "--retry-max-time",
                "10",
            ])
            .args(["--interface", "127.0.0.3"])
            .run()
            .await;
        answer.assert(200, "hi");
    }
    assert_eventually!(finished(&daemon).len() == 2);
    for task in finished(&daemon) {
        assert!(
            task["client_addr"].as_str().unwrap().starts_with("127.0.0.3:"),
            "{task}"
        );
    }
    let mut ids: Vec<_> = finished(&daemon)
        .iter()
        .map(|task| task["proxy_unique_id"].as_str().map(str::to_owned))
        .collect();
    ids.sort();
    assert_eq!(ids, [None, Some("of-127.0.0.3".to_owned())]);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn curl_speaks_tls_to_the_proxy_by_either_library_and_by_the_server_itself() {
    let origin = Origin::hello("hi");
    let ca = Ca::new();
    let leaf = ca.issue(&["localhost"]);
    let yaml = config_with(&format!(
        "  - {{name: http, type: http_proxy, listen: '127.0.0.1:%own%', escaper: out, {TLS}}}
  - {{name: inner, type: http_proxy, escaper: out}}
  - {{name: rustls, type: plain_tls_port, listen: '127.0.0.1:%rustls%', server: inner, {TLS}}}
  - {{name: openssl, type: native_tls_port, listen: '127.0.0.1:%openssl%', server: inner, {TLS}}}
  - {{name: once, type: plain_tls_port, listen: '127.0.0.1:%once%', server: http, {TLS}}}
  - {{name: plain, type: plain_tcp_port, listen: '127.0.0.1:%plain%', server: http}}"
    ));
    let group = with_files(&yaml, &ca, &[("front", &leaf)]);
    let daemon = group.proxyd().await;
    let url = format!("http://{}/", origin.addr());
    let ca_file = group.dir().join("ca.pem");
    for port in ["own", "rustls", "openssl", "once", "plain"] {
        for tunnel in [false, true] {
            let mut curl = curl(&url)
                .args(["--proxy", &format!("https://localhost:{}", group.port(port))])
                .arg("--proxy-cacert")
                .arg(&ca_file);
            if tunnel {
                curl = curl.arg("--proxytunnel");
            }
            let answer = curl.run().await;
            assert_eq!((answer.exit, answer.text().as_str()), (0, "hi"), "{port} {tunnel}");
        }
        let mut wire = daemon.connect(port).await;
        wire.send(format!("GET {url} HTTP/1.1\r\n\r\n")).await;
        // An alert perhaps, but no HTTP.
        assert!(!wire.rest().await.starts_with(b"HTTP"), "{port}");
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_where_one_is_demanded() {
    let origin = Origin::hello("hi");
    let (ca, stranger) = (Ca::new(), Ca::named("Another CA"));
    let leaf = ca.issue(&["localhost"]);
    let tls = TLS.replace(
        "cert_pairs",
        "enable_client_auth: true, ca_certificate: '%dir%/ca.pem', cert_pairs",
    );
    let yaml = behind(&format!(
        "  - {{name: rustls, type: plain_tls_port, listen: '127.0.0.1:%rustls%', server: http, {tls}}}
  - {{name: openssl, type: native_tls_port, listen: '127.0.0.1:%openssl%', server: http, {tls}}}"
    ));
    let group = with_files(
        &yaml,
        &ca,
        &[
            ("front", &leaf),
            ("good", &ca.issue(&["client.test"])),
            ("bad", &stranger.issue(&["client.test"])),
        ],
    );
    let daemon = group.proxyd().await;
    let url = format!("http://{}/", origin.addr());
    for port in ["rustls", "openssl"] {
        for (who, lets_in) in [(Some("good"), true), (Some("bad"), false), (None, false)] {
            let mut curl = curl(&url)
                .args(["--proxy", &format!("https://localhost:{}", group.port(port))])
                .arg("--proxy-cacert")
                .arg(group.dir().join("ca.pem"));
            if let Some(who) = who {
                curl = curl
                    .arg("--proxy-cert")
                    .arg(group.dir().join(format!("{who}.pem")))
                    .arg("--proxy-key")
                    .arg(group.dir().join(format!("{who}.key")));
            }
            assert_eq!(curl.run().await.exit == 0, lets_in, "{port} {who:?}");
        }
    }
    daemon.stop().await.assert_clean();
}

/// TLS-05, TLS-17: tickets stay good over a reload that replaces the certificate.
#[tokio::test]
async fn sessions_are_resumed_also_after_a_reload() {
    let ca = Ca::new();
    let yaml = behind(&format!(
        "  - {{name: rustls, type: plain_tls_port, listen: '127.0.0.1:%rustls%', server: http, {TLS}}}
  - {{name: openssl, type: native_tls_port, listen: '127.0.0.1:%openssl%', server: http, {TLS}}}
  - {{name: own, type: http_proxy, listen: '127.0.0.1:%own%', escaper: out, {TLS}}}"
    ));
    let group = with_files(&yaml, &ca, &[("front", &ca.issue(&["localhost"]))]);
    let daemon = group.proxyd().await;
    for port in ["rustls", "openssl", "own"] {
        for version in ["-tls1_2", "-tls1_3"] {
            let session = group.dir().join(format!("{port}{version}.session"));
            let connect = |flag: &str| {
                let mut command = Command::new("openssl");
                command
                    .args([
                        "s_client",
                        version,
                        "-connect",
                        &format!("127.0.0.1:{}", group.port(port)),
                    ])
                    .arg(flag)
                    .arg(&session)
                    .args(["-ign_eof"])
                    .stdin(std::process::Stdio::piped())
                    .stdout(std::process::Stdio::piped())
                    .stderr(std::process::Stdio::piped());
                let mut child = command.spawn().unwrap();
                // A request that is refused, so that the proxy ends the connection once tickets have come.
                std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"GET / HTTP/1.1\r\n\r\n").unwrap();
                String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
            };
            assert!(connect("-sess_out").contains("\nNew, "), "{port} {version}");
            assert!(connect("-sess_in").contains("\nReused, "), "{port} {version}");
            daemon.reload().await.unwrap();
            assert!(
                connect("-sess_in").contains("\nReused, "),
                "{port} {version} after a reload"
            );
        }
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_reload_takes_up_new_certificates() {
    let ca = Ca::new();
    let group = with_files(&proxy(TLS, ""), &ca, &[("front", &ca.issue(&["old.test"]))]);
    let daemon = group.proxyd().await;
    let origin = Origin::hello("hi");
    let ask = |name: &'static str| {
        curl(&format!("http://{}/", origin.addr()))
            .args(["--proxy", &format!("https://{name}:{}", group.port("http"))])
            .args(["--connect-to", &format!("{name}:{0}:127.0.0.1:{0}", group.port("http"))])
            .args(["--resolve", &format!("{name}:{}:127.0.0.1", group.port("http"))])
            .arg("--proxy-cacert")
            .arg(group.dir().join("ca.pem"))
            .run()
    };
    assert_eq!((ask("old.test").await.exit, ask("new.test").await.exit), (0, 60));
    ca.issue(&["new.test"]).write(group.dir(), "front");
    daemon.reload().await.unwrap();
    assert_eq!((ask("old.test").await.exit, ask("new.test").await.exit), (60, 0));
    // A file that is no certificate leaves everything as it was.
    group.write_file("front.pem", "nonsense");
    let error = daemon.reload().await.unwrap_err();
    assert!(format!("{error:?}").contains("front.pem"), "{error:?}");
    assert_eq!(ask("new.test").await.exit, 0);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends_by_time_out() {
    let ca = Ca::new();
    let statsd = Statsd::start();
    let tls = TLS.replace("cert_pairs", "handshake_timeout: 200ms, cert_pairs");
    let yaml = behind(&format!(
        "  - {{name: rustls, type: plain_tls_port, listen: '127.0.0.1:%rustls%', server: http, {tls}}}
  - {{name: openssl, type: native_tls_port, listen: '127.0.0.1:%openssl%', server: http, {tls}}}"
    ));
    let group = with_files(
        &(yaml + &statsd.section()),
        &ca,
        &[("front", &ca.issue(&["localhost"]))],
    );
    let daemon = group.proxyd().await;
    for port in ["rustls", "openssl"] {
        let mut wire = daemon.connect(port).await;
        wire.send(b"\x16\x03\x01\x02\x00\x01").await;
        wire.assert_closed().await;
        let mut wire = daemon.connect(port).await;
        wire.send(b"GET / HTTP/1.1\r\n\r\n").await;
        wire.rest().await;
        assert_eventually!(statsd.total("sluice.listen.timeout", &[("server", port)]) == 1.0);
        assert_eventually!(statsd.total("sluice.listen.failed", &[("server", port)]) == 1.0);
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn ports_that_lead_nowhere_or_in_a_circle_are_refused() {
    for (servers, says) in [
        (
            "  - {name: a, type: plain_tcp_port, listen: '127.0.0.1:%a%', server: htpt}",
            "no server is named `htpt`",
        ),
        (
            "  - {name: a, type: plain_tcp_port, listen: '127.0.0.1:%a%', server: b}
  - {name: b, type: intelli_proxy, listen: '127.0.0.1:%b%', http_server: http, socks_server: a}",
            "in a loop",
        ),
        (
            "  - {name: a, type: plain_tls_port, listen: '127.0.0.1:%a%', server: http}",
            "tls_server",
        ),
        (
            "  - {name: a, type: plain_tls_port, listen: '127.0.0.1:%a%', server: http, tls_server: {}}",
            "cert_pairs",
        ),
    ] {
        let exited = Group::new(&behind(servers)).daemon("proxyd").arg("-t").run().await;
        assert!(exited.stderr.contains(says), "{says}: {}", exited.stderr);
    }
}
