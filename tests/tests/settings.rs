//! The forms in which a configuration may be written, and what is refused before anything runs.

use sluice_testkit::{Daemon, Group, Origin, Statsd};
use sluice_tests::config_with;

/// What proxyd says of a configuration that is only tested, and its exit code.
async fn tested(yaml: &str) -> (Option<i32>, String) {
    let exited = Group::new(yaml).daemon("proxyd").arg("-t").run().await;
    (exited.code, exited.stderr)
}

async fn assert_taken(yaml: &str) {
    let (code, said) = tested(yaml).await;
    assert_eq!(code, Some(0), "{said}\n{yaml}");
}

/// CFG-02.
#[tokio::test]
async fn keys_and_kinds_are_the_same_with_a_hyphen() {
    let servers = [
        "name: a, type: http-proxy, escaper: out, listen-in-worker: true, task-idle-check-interval: 5s, \
         req-header-max-size: 8K, tls-client: {no-session-cache: true}, local-server-name: l.test",
        "name: b, type: socks-proxy, escaper: out, negotiation-timeout: 2s, tcp-misc-opts: {no-delay: false}, \
         dst-port-filter: 80",
        "name: c, type: plain-tcp-port, listen: '127.0.0.1:%c%', server: a, proxy-protocol: 1, \
         proxy-protocol-read-timeout: 2s, ingress-network-filter: {default: allow}",
        "name: d, type: intelli-proxy, listen: '127.0.0.1:%d%', http-server: a, socks-server: b, \
         protocol-detection-timeout: 2s",
        "name: e, type: dummy-close",
    ];
    let servers: Vec<_> = servers.iter().map(|keys| format!("  - {{{keys}}}\n")).collect();
    let with_hyphens = config_with(&servers.concat()).replace(
        "server:\n",
        "  - {name: none, type: dummy-deny}\n  - {name: way, type: direct-fixed, resolver: dns, \
         use-proxy-protocol: 2, tcp-connect: {max-retry: 1, each-timeout: 2s}, bind-ip: 127.0.0.1}\nserver:\n",
    );
    assert_taken(&with_hyphens).await;
    // Of two spellings of one key the later one counts.
    let twice = "  - {name: a, type: http_proxy, escaper: out, server_id: '', server-id: b}";
    assert_taken(&config_with(twice)).await;
}

/// CFG-03.
#[tokio::test]
async fn an_address_to_listen_on_comes_in_every_form() {
    let origin = Origin::hello("hi");
    for (form, to) in [
        ("'127.0.0.1:%http%'", "127.0.0.1"),
        ("'[::1]:%http%'", "[::1]"),
        ("'[::]:%http%'", "127.0.0.1"),
        ("'[::]:%http%'", "[::1]"),
        ("%http%", "127.0.0.1"),
        ("{address: '127.0.0.1:%http%'}", "127.0.0.1"),
        (
            "{address: '[::]:%http%', ipv6_only: false, backlog: 64, instance: 2}",
            "127.0.0.1",
        ),
        ("$SLUICE_TEST_LISTEN", "127.0.0.1"),
        ("{address: $SLUICE_TEST_LISTEN}", "127.0.0.1"),
    ] {
        let yaml = format!("  - {{name: http, type: http_proxy, escaper: out, listen: {form}}}");
        let group = Group::new(&config_with(&yaml));
        let address = format!("127.0.0.1:{}", group.port("http"));
        let starter = group.daemon("proxyd").env("SLUICE_TEST_LISTEN", &address);
        let daemon = starter.start().await;
        let port = daemon.group().port("http");
        let url = format!("http://{}/", origin.addr());
        let answer = sluice_testkit::curl(&url)
            .args(["-x", &format!("http://{to}:{port}")])
            .run()
            .await;
        answer.assert(200, "hi");
        daemon.stop().await.assert_clean();
    }
    for bad in ["0", "'127.0.0.1'", "'::1:80'", "65536", "$SLUICE_TEST_NOTHING"] {
        let (code, said) = tested(&config_with(&format!(
            "  - {{name: http, type: http_proxy, escaper: out, listen: {bad}}}"
        )))
        .await;
        assert!(code != Some(0) && said.contains("listen"), "{bad}: {said}");
    }
}

/// CFG-05, as far as it is built.
#[tokio::test]
async fn what_the_manual_allows_is_accepted() {
    for keys in [
        "tls_client: {}",
        "no_early_error_reply: true",
        "local_server_name: one.test",
        "local_server_name: [one.test, two.test]",
        "dst_host_filter_set: {exact: one.test}",
        "dst_host_filter_set: {exact: [one.test, two.test]}",
        "dst_port_filter: 80",
        "dst_port_filter: [80, 8000-8080]",
        "ingress_network_filter: 127.0.0.0/8",
        "http_forward_upstream_keepalive: false",
    ] {
        let server = format!("  - {{name: http, type: http_proxy, escaper: out, {keys}}}");
        assert_taken(&config_with(&server)).await;
    }
    let plain = config_with("  - {name: http, type: http_proxy, escaper: out}");
    for section in [
        "controller: {local: {recv_timeout: 5}}",
        "controller: [{local: {recv_timeout: 5}}]",
        "stat: {target: {udp: 127.0.0.1:8125}}",
        "stat: {target: {udp: {bind_ip: 127.0.0.1}}}",
        "stat: {target_udp: {}}",
    ] {
        assert_taken(&format!("{plain}{section}\n")).await;
    }
}

/// LM-06.
#[tokio::test]
async fn intervals_of_zero_and_division_by_zero_are_refused() {
    for kind in ["http_proxy", "socks_proxy"] {
        for (keys, says) in [
            ("task_idle_check_interval: 0", "task_idle_check_interval"),
            ("task_idle_check_duration: 0s", "task_idle_check"),
            ("task_log_flush_interval: 0ms", "task_log_flush_interval"),
            ("listen: {address: '127.0.0.1:%a%', scale: 1/0}", "scale"),
            ("listen: {address: '127.0.0.1:%a%', scale: 0/0}", "scale"),
            ("listen: {address: '127.0.0.1:%a%', scale: -1}", "scale"),
            ("listen: {address: '127.0.0.1:%a%', scale: .nan}", "scale"),
        ] {
            let (code, said) = tested(&config_with(&format!(
                "  - {{name: a, type: {kind}, escaper: out, {keys}}}"
            )))
            .await;
            assert!(code.is_some_and(|code| code != 0), "{kind} {keys}: {said}");
            assert!(
                said.contains(says) && !said.contains("panicked"),
                "{kind} {keys}: {said}"
            );
        }
    }
}

#[tokio::test]
async fn what_a_peer_cannot_be_is_refused() {
    for (peers, says) in [
        ("certgend: 'tcp:127.0.0.1:2999'", "not asked for over TCP"),
        ("auditd: 'tcp:127.0.0.1:5555'", "nothing is recorded over TCP"),
        ("auditd: {uid: 990}", "ZeroMQ tells nobody's uid"),
        ("auditd: 127.0.0.1", "neither `udp:IP:PORT`"),
    ] {
        let (code, said) = tested(&format!("{}peers: {{{peers}}}\n", config_with(""))).await;
        assert_eq!(code, Some(78), "{peers}: {said}");
        assert!(said.contains(says), "{peers}: {said}");
    }
}

/// Several workers, with a socket in each or one for all: a connection that comes in through a port is served on its
/// worker, and none is lost on the way to another.
#[tokio::test]
async fn ports_serve_on_any_number_of_workers() {
    let origin = Origin::hello("hi");
    for (workers, keys) in [
        ("worker: {thread_number: 3}\n", "listen_in_worker: true"),
        ("worker: {thread_number: 3}\n", "listen_in_worker: false"),
        ("", "listen_in_worker: true"),
    ] {
        let statsd = Statsd::start();
        let servers = format!(
            "  - {{name: http, type: http_proxy, escaper: out}}
  - {{name: socks, type: socks_proxy, escaper: out}}
  - {{name: inner, type: intelli_proxy, listen: '127.0.0.1:%inner%', http_server: http, socks_server: socks, {keys}}}
  - {{name: outer, type: plain_tcp_port, listen: '127.0.0.1:%outer%', server: inner, proxy_protocol: 2, {keys}}}"
        );
        let yaml = config_with(&servers).replace("thread_number: 1, ", "thread_number: 2, ");
        let daemon = Daemon::proxyd(&(yaml + workers + &statsd.section())).start().await;
        let header = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
        for _ in 0..60 {
            for (port, header) in [("inner", &b""[..]), ("outer", header)] {
                let mut wire = daemon.connect(port).await;
                wire.send(header).await;
                let request = format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr());
                assert_eq!(wire.ask(request).await.body, b"hi", "{workers}{keys}");
            }
        }
        daemon.stop().await.assert_clean();
        assert_eq!(statsd.total("sluice.server.task.total", &[("server", "http")]), 120.0);
        assert_eq!(statsd.total("sluice.listen.accepted", &[("server", "inner")]), 60.0);
    }
}
