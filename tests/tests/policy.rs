//! Who may come in, where a request may go, and how it leaves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use sluice_testkit::{Daemon, Dnsmasq, Origin, Wire, assert_eventually};
use sluice_tests::{BlackHole, Gate, guarded_proxy, noise, proxy, resolving_proxy};
use tokio::net::TcpSocket;

async fn started(server: &str, escaper: &str) -> Daemon {
    Daemon::proxyd(&proxy(server, escaper)).start().await
}

/// Asks for a target by GET and by CONNECT, and gives both statuses.
async fn statuses(daemon: &Daemon, target: &str) -> (u16, u16) {
    let mut wire = daemon.connect("http").await;
    let get = wire.ask(format!("GET http://{target}/ HTTP/1.1\r\n\r\n")).await.status;
    let mut wire = daemon.connect("http").await;
    wire.send(format!("CONNECT {target} HTTP/1.1\r\n\r\n")).await;
    let head = wire.head().await;
    (get, head.split(' ').nth(1).unwrap().parse().unwrap())
}

/// A group with both daemons, names answered by `dns`.
async fn resolving(dns: &Dnsmasq, server: &str, escaper: &str) -> (Daemon, Daemon) {
    let resolverd = Daemon::resolverd(&resolving_proxy(dns.addr(), server, escaper))
        .start()
        .await;
    let proxyd = resolverd.group().proxyd().await;
    (proxyd, resolverd)
}

/// A group with both daemons that knows no names, and says so at once.
async fn nameless(server: &str) -> (Daemon, Daemon) {
    let resolverd = Daemon::resolverd(&proxy(server, "")).start().await;
    let proxyd = resolverd.group().proxyd().await;
    (proxyd, resolverd)
}

async fn stop((proxyd, resolverd): (Daemon, Daemon)) {
    proxyd.stop().await.assert_clean();
    resolverd.stop().await.assert_clean();
}

async fn connect_from(ip: &str, daemon: &Daemon) -> Wire {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{ip}:0").parse().unwrap()).unwrap();
    Wire::from_stream(socket.connect(daemon.addr("http")).await.unwrap())
}

#[tokio::test]
async fn a_client_that_is_not_let_in_is_closed_before_any_byte() {
    let origin = Origin::hello("hi");
    let daemon = started(
        "ingress_network_filter: {default: forbid, allow: [127.0.0.2, 127.0.1.0/24]}",
        "",
    )
    .await;
    let get = format!("GET http://{}/ HTTP/1.1\r\n\r\n", origin.addr());
    for ip in ["127.0.0.3", "127.0.2.1"] {
        let mut wire = connect_from(ip, &daemon).await;
        wire.try_send(&get).await;
        wire.assert_closed().await;
    }
    // 127.0.0.1 is let in without being named.
    for ip in ["127.0.0.1", "127.0.0.2", "127.0.1.200"] {
        let mut wire = connect_from(ip, &daemon).await;
        assert_eq!(wire.ask(&get).await.status, 200, "{ip}");
    }
    let status = daemon
        .call("server.status", serde_json::json!({"name": "http"}))
        .await
        .unwrap();
    assert_eq!(status["total_connections"], 3, "{status}");
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn hosts_are_filtered_by_name_suffix_pattern_and_network() {
    let rules = "dst_host_filter_set: {exact_match: {default: forbid, allow: [one.test, 127.0.0.1]}, \
                 child_match: {default: forbid, allow: tree.test, deny: bad.tree.test}, \
                 regex_match: {default: forbid, allow: '^x[0-9]+[.]test$'}, \
                 subnet_match: {default: forbid, allow: 127.8.0.0/16}}";
    let origin = Origin::hello("hi");
    let daemons = nameless(rules).await;
    let daemon = &daemons.0;
    let port = origin.port();
    // What is let through has no address (530) or leads nowhere (521).
    for (host, wanted) in [
        ("one.test", 530),
        ("ONE.test", 530),
        ("a.one.test", 403),
        ("tree.test", 530),
        ("a.tree.test", 530),
        ("a.b.tree.test", 530),
        ("bad.tree.test", 403),
        ("a.bad.tree.test", 403),
        ("badtree.test", 403),
        ("x12.test", 530),
        ("x12.test.test", 403),
        ("ax1.test", 403),
        ("127.0.0.2", 403),
        ("127.8.0.1", 521),
        ("10.0.0.1", 403),
        ("[::1]", 403),
    ] {
        assert_eq!(
            statuses(daemon, &format!("{host}:{port}")).await,
            (wanted, wanted),
            "{host}"
        );
    }
    assert_eq!(statuses(daemon, &origin.addr().to_string()).await, (200, 200));
    // The Host field is not looked at.
    let get = format!("GET http://{}/ HTTP/1.1\r\nHost: bad.tree.test\r\n\r\n", origin.addr());
    assert_eq!(daemon.connect("http").await.ask(get).await.status, 200);
    let refused = daemon.log_records("Task").len();
    assert_eq!(
        daemon
            .connect("http")
            .await
            .ask("GET http://no.test/ HTTP/1.1\r\n\r\n")
            .await
            .status,
        403
    );
    assert_eq!(daemon.log_records("Task").len(), refused, "what is refused is no task");
    stop(daemons).await;
}

#[tokio::test]
async fn ports_are_filtered_and_the_stricter_rule_counts() {
    let origin = Origin::hello("hi");
    let port = origin.port();
    let rules = format!(
        "dst_port_filter: [80, {port}, 8000-8010], dst_host_filter_set: {{exact_match: {{default: allow, deny: h.test}}}}"
    );
    let daemons = nameless(&rules).await;
    let daemon = &daemons.0;
    for (target, wanted) in [
        (format!("127.0.0.1:{port}"), 200),
        ("127.0.0.1:22".into(), 403),
        ("127.0.0.1:7999".into(), 403),
        (format!("h.test:{port}"), 403),
        ("h.test:22".into(), 403),
        ("g.test:8010".into(), 530),
    ] {
        assert_eq!(statuses(daemon, &target).await, (wanted, wanted), "{target}");
    }
    // The default ports of the schemes.
    for (url, status) in [("http://g.test/", 530), ("https://g.test/", 403)] {
        let answer = daemon
            .connect("http")
            .await
            .ask(format!("GET {url} HTTP/1.1\r\n\r\n"))
            .await;
        assert_eq!(answer.status, status, "{url}");
    }
    stop(daemons).await;
}

#[tokio::test]
async fn the_escaper_forbids_this_host_unless_it_is_told_otherwise() {
    let origin = Origin::hello("hi");
    let port = origin.port();
    for (filter, one, two, eight) in [
        ("", 403, 403, 403),
        // Present, and silent about the rest: only what is allowed.
        ("egress_network_filter: 127.0.0.1", 200, 403, 403),
        ("egress_network_filter: {allow: 127.0.0.1}", 200, 403, 403),
        ("egress_network_filter: {default: allow}", 403, 403, 403),
        (
            "egress_network_filter: {default: allow, allow: 127.0.0.0/8, deny: 127.0.0.2}",
            200,
            403,
            521,
        ),
        ("egress_network_filter: {allow: 127.0.0.0/16}", 200, 521, 403),
    ] {
        let daemon = Daemon::proxyd(&guarded_proxy("", filter)).start().await;
        let mut got = Vec::new();
        for host in ["127.0.0.1", "127.0.0.2", "127.8.0.1"] {
            got.push(statuses(&daemon, &format!("{host}:{port}")).await);
        }
        assert_eq!(got, [(one, one), (two, two), (eight, eight)], "{filter}");
        daemon.stop().await.assert_clean();
    }
}

#[tokio::test]
async fn the_address_that_a_name_leads_to_is_what_the_escaper_checks() {
    let origin = Origin::hello("hi");
    let port = origin.port();
    let dns = Dnsmasq::new()
        .host("inside.test", &["127.0.0.1"])
        .host("both.test", &["127.0.0.2"])
        .host("both.test", &["127.0.0.1"])
        .host("six.test", &["::1"])
        .start()
        .await;
    let filter = "{allow: 127.0.0.1}";
    let yaml = resolving_proxy(dns.addr(), "", "").replace("{default: allow, allow: [127.0.0.0/8, '::1']}", filter);
    let resolverd = Daemon::resolverd(&yaml).start().await;
    let daemon = resolverd.group().proxyd().await;
    for (host, status) in [
        ("inside.test", 200),
        ("both.test", 200),
        ("six.test", 403),
        ("none.test", 530),
    ] {
        for _ in 0..3 {
            assert_eq!(
                statuses(&daemon, &format!("{host}:{port}")).await,
                (status, status),
                "{host}"
            );
        }
    }
    assert_eq!(origin.accepted(), origin.received().len());
    stop((daemon, resolverd)).await;
}

/// DNS-08.
#[tokio::test]
async fn a_family_that_is_switched_off_is_not_asked_for() {
    let origin = Origin::hello("hi");
    let port = origin.port();
    let dns = Dnsmasq::new()
        .host("a.test", &["127.0.0.1", "::1"])
        .host("only6.test", &["::1"])
        .start()
        .await;
    for (keys, asked, literal4, literal6) in [
        ("no_ipv6: true", vec!["A"], 200, 403),
        ("resolve_strategy: ipv4_only", vec!["A"], 200, 403),
        ("no_ipv4: true", vec!["AAAA"], 403, 521),
        ("resolve_strategy: {query: Ipv6Only}", vec!["AAAA"], 403, 521),
        ("", vec!["A", "AAAA"], 200, 521),
    ] {
        let before = dns.query_types("a.test").len();
        let daemons = resolving(&dns, "", keys).await;
        let (status, _) = statuses(&daemons.0, &format!("a.test:{port}")).await;
        assert_eq!(
            status,
            literal4.max(if literal4 == 403 { 521 } else { 200 }).min(521),
            "{keys}"
        );
        let mut types = dns.query_types("a.test").split_off(before);
        types.sort();
        types.dedup();
        assert_eq!(types, asked, "{keys}");
        assert_eq!(
            statuses(&daemons.0, &format!("127.0.0.1:{port}")).await.0,
            literal4,
            "{keys}"
        );
        assert_eq!(
            statuses(&daemons.0, &format!("[::1]:{port}")).await.0,
            literal6,
            "{keys}"
        );
        stop(daemons).await;
    }
}

#[tokio::test]
async fn names_can_be_redirected_at_the_escaper() {
    let origin = Origin::hello("hi");
    let port = origin.port();
    let dns = Dnsmasq::new()
        .host("real.test", &["127.0.0.1"])
        .host("a.new.test", &["127.0.0.1"])
        .start()
        .await;
    let rules = "resolve_redirection: [{exact: ip.test, to: 127.0.0.1}, {exact: ips.test, to: [127.0.0.1, '::1']}, \
                 {exact: alias.test, to: real.test}, {parent: old.test, to: new.test}]";
    let daemons = resolving(&dns, "", rules).await;
    for (host, status) in [
        ("ip.test", 200),
        ("ips.test", 200),
        ("alias.test", 200),
        ("a.old.test", 200),
        ("b.old.test", 530),
        ("real.test", 200),
        ("sub.ip.test", 530),
    ] {
        assert_eq!(
            statuses(&daemons.0, &format!("{host}:{port}")).await,
            (status, status),
            "{host}"
        );
    }
    for name in ["ip.test", "ips.test", "alias.test", "a.old.test"] {
        assert_eq!(dns.queries(name), 0, "{name} was asked for");
    }
    // The origin is still told the name that the client uses.
    let text = origin.received_text();
    assert!(text.contains(&format!("Host: alias.test:{port}\r\n")), "{text}");
    stop(daemons).await;
}

/// PP-03.
#[tokio::test]
async fn proxy_protocol_headers_go_out_once_on_each_connection() {
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    for version in [1, 2] {
        let origin = Origin::script(move |conn| {
            if version == 1 {
                conn.until("\r\n")?;
            } else {
                conn.exactly(28)?;
            }
            while conn.head()?.is_some() {
                conn.write(ok)?;
            }
            Ok(())
        });
        let daemon = started("", &format!("use_proxy_protocol: {version}")).await;
        let mut wire = daemon.connect("http").await;
        let (client, server, addr) = (wire.local_addr(), daemon.addr("http"), origin.addr());
        for _ in 0..2 {
            let answer = wire
                .ask(format!("GET http://{addr}/ HTTP/1.1\r\nHost: h.test\r\n\r\n"))
                .await;
            assert_eq!(answer.status, 200);
        }
        wire.send(format!("CONNECT {addr} HTTP/1.1\r\n\r\n")).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
        assert_eq!(wire.ask("GET / HTTP/1.1\r\nHost: h.test\r\n\r\n").await.status, 200);
        let header = if version == 1 {
            format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", client.port(), server.port()).into_bytes()
        } else {
            let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
            header.extend(client.port().to_be_bytes());
            header.extend(server.port().to_be_bytes());
            header
        };
        let wanted = [header, b"GET / HTTP/1.1\r\nHost: h.test\r\n\r\n".to_vec()].concat();
        assert_eq!(origin.received(), vec![wanted; 3]);
        drop(wire);
        daemon.stop().await.assert_clean();
    }
}

/// LM-01. One and a half seconds' worth of bytes, less what may pass at once.
#[tokio::test]
async fn speed_limits_hold_up_and_down_for_requests_and_tunnels() {
    let limit = 200_000.0;
    let body = noise(300_000);
    let sent = body.clone();
    let origin = Origin::http(move |request| {
        let body: &[u8] = if request.method() == "GET" { &sent } else { b"ok" };
        [
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
            body,
        ]
        .concat()
    });
    let addr = origin.addr();
    // 1024 ms a slice; the other direction is as good as free.
    let up = "tcp_sock_speed_limit: {shift: 10, upload: 204800, download: 100M}";
    let down = "tcp_sock_speed_limit: {shift: 10, upload: 100M, download: 204800}";
    let get = format!("GET http://{addr}/ HTTP/1.1\r\n\r\n").into_bytes();
    let post = format!("POST http://{addr}/ HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    let post = [post, body.clone()].concat();
    let measure = async |server: &str, escaper: &str, tunnel: bool, request: Vec<u8>| {
        let daemon = started(server, escaper).await;
        let mut wire = if tunnel {
            daemon.http_connect(addr).await
        } else {
            daemon.connect("http").await
        };
        let start = Instant::now();
        let answer = wire.ask(request).await;
        let took = start.elapsed().as_secs_f64();
        assert_eq!(answer.status, 200);
        drop(wire);
        daemon.stop().await.assert_clean();
        let speed = 300_000.0 / took;
        assert!(speed < limit * 1.15, "{server}{escaper}: {speed:.0} bytes a second");
        assert!(speed > limit * 0.5, "{server}{escaper}: {speed:.0} bytes a second");
    };
    tokio::join!(
        measure(down, "", false, get.clone()),
        measure(up, "", false, post.clone()),
        measure("", down, false, get.clone()),
        measure("", up, true, post.clone()),
        measure(down, "", true, get.clone()),
        measure(up, down, true, get.clone()),
    );
}

/// LM-05.
#[tokio::test]
async fn a_speed_limit_of_nothing_is_refused() {
    for limit in ["0", "{shift: 10}", "{shift: 10, upload: 1M}"] {
        let run = Daemon::proxyd(&proxy(&format!("tcp_sock_speed_limit: {limit}"), ""))
            .run()
            .await;
        assert_eq!(run.code, Some(78), "{limit}: {run:?}");
        assert!(run.stderr.contains("tcp_sock_speed_limit"), "{limit}: {run:?}");
    }
}

#[tokio::test]
async fn a_dead_first_address_costs_a_moment_only() {
    let origin = Origin::hello("hi");
    let port = origin.port();
    let _hole = BlackHole::on(&format!("[::1]:{port}"));
    let dns = Dnsmasq::new()
        .host("dead.test", &["::1", "127.0.0.1"])
        .host("refused.test", &["127.0.0.2"])
        .host("refused.test", &["127.0.0.3"])
        .host("refused.test", &["127.0.0.1"])
        .start()
        .await;
    let daemons = resolving(&dns, "", "resolve_strategy: ipv6_first").await;
    let start = Instant::now();
    assert_eq!(statuses(&daemons.0, &format!("dead.test:{port}")).await, (200, 200));
    assert!(
        start.elapsed() > Duration::from_millis(200),
        "the first address was not tried"
    );
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for _ in 0..5 {
        assert_eq!(statuses(&daemons.0, &format!("refused.test:{port}")).await, (200, 200));
    }
    let tasks = daemons.0.log_records("Task");
    let dead = tasks
        .iter()
        .find(|task| task["upstream"] == format!("dead.test:{port}"))
        .unwrap();
    assert_eq!(
        (&dead["tcp_connect_tries"], &dead["next_peer_addr"]),
        (&2.into(), &origin.addr().to_string().into())
    );
    stop(daemons).await;
}

#[tokio::test]
async fn tries_and_their_time_are_limited() {
    let hole = BlackHole::on("127.0.0.1:0");
    let dns = Dnsmasq::new().host("hole.test", &["127.0.0.1"]).start().await;
    let daemons = resolving(&dns, "", "tcp_connect: {max_retry: 1, each_timeout: 300ms}").await;
    let start = Instant::now();
    let statuses = statuses(&daemons.0, &format!("hole.test:{}", hole.addr().port())).await;
    assert_eq!(statuses, (504, 504));
    assert!(
        (0.6..4.0).contains(&start.elapsed().as_secs_f64()),
        "{:?}",
        start.elapsed()
    );
    let task = daemons.0.log_records("Task").pop().unwrap();
    assert_eq!(
        (&task["tcp_connect_tries"], &task["reason"]),
        (&1.into(), &"UpstreamNotConnected".into())
    );
    stop(daemons).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_while_connecting_leaves_nothing() {
    let hole = BlackHole::on("127.0.0.1:0");
    let gate = Gate::new();
    gate.open();
    let daemon = started("", "tcp_connect: {max_retry: 0, each_timeout: 500ms}").await;
    let mut wire = daemon.connect("http").await;
    wire.send(format!("CONNECT {} HTTP/1.1\r\n\r\n", hole.addr())).await;
    drop(wire);
    assert_eventually!(daemon.log_records("Task").len() == 1);
    assert_eventually!(daemon.status().await["tasks_alive"] == 0);
    daemon.stop().await.assert_clean();
}

/// RL-03. What each of these changes takes effect without a restart.
#[tokio::test]
async fn what_a_reload_changes_holds_for_the_next_request() {
    let origin = Origin::http(|request| {
        let body = request.head.clone();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let addr = origin.addr();
    let daemon = Daemon::proxyd(&proxy("", "")).start().await;
    let get = format!("GET http://{addr}/ HTTP/1.1\r\nHost: h.test:80\r\n\r\n");
    let statuses = [
        ("dst_port_filter: [1]", "", 403),
        (
            "dst_host_filter_set: {exact_match: {default: allow, deny: 127.0.0.1}}",
            "",
            403,
        ),
        ("", "egress_network_filter: {default: forbid}", 403),
        ("", "no_ipv4: true, resolve_strategy: ipv6_only", 403),
        ("", "bind_ip: 127.0.0.5", 200),
        ("drop_default_port_in_host: true", "", 200),
        ("", "", 200),
    ];
    for (server, escaper, status) in statuses {
        let yaml = if escaper.contains("egress") {
            guarded_proxy(server, escaper)
        } else {
            proxy(server, escaper)
        };
        daemon.reload_with(&yaml).await;
        let answer = daemon.connect("http").await.ask(&get).await;
        assert_eq!(answer.status, status, "{server}{escaper}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if status == 200 {
            assert_eq!(
                text.contains("Host: h.test\r\n"),
                server.contains("drop"),
                "{server}{escaper}: {text}"
            );
        }
    }
    // An escaper of another kind under the same name.
    let denying = proxy("", "").replace("type: direct_fixed, resolver: dns", "type: dummy_deny");
    let denying = denying.replace(
        ", egress_network_filter: {default: allow, allow: [127.0.0.0/8, '::1']}, ",
        "",
    );
    daemon.reload_with(&denying).await;
    assert_eq!(daemon.connect("http").await.ask(&get).await.status, 403);
    daemon.reload_with(&proxy("", "")).await;
    assert_eq!(daemon.connect("http").await.ask(&get).await.status, 200);
    daemon.stop().await.assert_clean();
}
