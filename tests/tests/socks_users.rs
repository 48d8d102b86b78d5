//! Users of a `socks_proxy`.

use std::time::Instant;

use sluice_testkit::{Daemon, Origin, Statsd, Wire, assert_eventually, curl};
use sluice_tests::{config_with, finished};

const SERVER: &str =
    "  - {name: socks, type: socks_proxy, listen: '127.0.0.1:%socks%', escaper: out, user_group: staff}";

/// A `socks_proxy` with these users, whose passwords are all `open sesame`, and with more keys of the group.
fn socks(users: &[&str], group: &str) -> String {
    let users: Vec<_> = users
        .iter()
        .map(|keys| {
            format!("      - {{{keys}, token: {{salt: 00112233445566ff, sha1: e50df36f2ab9f05dda868278bb4b0efecb04e4e5}}}}\n")
        })
        .collect();
    let users = users.concat();
    format!(
        "{}\nuser_group:\n  - name: staff\n{group}    static_users:\n{users}",
        config_with(SERVER)
    )
}

/// What a client that has both methods and gives these credentials is answered: to the methods and to the credentials.
async fn introduced(daemon: &Daemon, user: &str, password: &str) -> (Wire, Vec<u8>) {
    let mut wire = daemon.connect("socks").await;
    let len = |text: &str| text.len().to_le_bytes()[0];
    wire.send(b"\x05\x02\x00\x02").await;
    assert_eq!(wire.exactly(2).await, b"\x05\x02");
    let credentials = [&[1, len(user)], user.as_bytes(), &[len(password)], password.as_bytes()].concat();
    wire.send(credentials).await;
    let status = wire.exactly(2).await;
    (wire, status)
}

fn connect(origin: &Origin) -> Vec<u8> {
    [&b"\x05\x01\x00\x01\x7f\x00\x00\x01"[..], &origin.port().to_be_bytes()].concat()
}

#[tokio::test]
async fn curl_logs_in_and_is_named_in_the_log() {
    let origin = Origin::hello("hi");
    let statsd = Statsd::start();
    let yaml = socks(&["name: ann", "name: 'b:o+b'"], "") + &statsd.section();
    let daemon = Daemon::proxyd(&yaml).start().await;
    let url = format!("http://{}/", origin.addr());
    let port = daemon.group().port("socks");
    let proxy = |user: &str| format!("socks5h://{user}@127.0.0.1:{port}");
    for user in ["ann:open%20sesame", "b%3Ao+b:open%20sesame"] {
        curl(&url).args(["-x", &proxy(user)]).run().await.assert(200, "hi");
    }
    for user in ["ann:open", "ann:", "nobody:open%20sesame"] {
        assert_eq!(curl(&url).args(["-x", &proxy(user)]).run().await.exit, 97, "{user}");
    }
    for scheme in ["socks5", "socks4"] {
        let bare = format!("{scheme}://127.0.0.1:{port}");
        assert_eq!(curl(&url).args(["-x", &bare]).run().await.exit, 97, "{scheme}");
    }
    assert_eventually!(finished(&daemon).len() == 2);
    // In whatever order the tunnels ended.
    let tasks = finished(&daemon);
    for user in ["ann", "b:o+b"] {
        assert!(tasks.iter().any(|task| task["user"] == user), "{user}: {tasks:?}");
    }
    assert_eventually!(statsd.total("sluice.server.forbidden.auth_failed", &[("server", "socks")]) == 5.0);
    let ann = [
        ("user", "ann"),
        ("user_group", "staff"),
        ("user_type", "Static"),
        ("server", "socks"),
    ];
    assert_eventually!(statsd.total("sluice.user.request.total", &ann) == 1.0);
    assert_eventually!(statsd.total("sluice.user.forbidden.auth_failed", &ann) == 2.0);
    let socks = [ann.as_slice(), &[("connection", "socks")]].concat();
    assert_eventually!(statsd.total("sluice.user.connection.total", &socks) == 1.0);
    let kind = [ann.as_slice(), &[("request", "socks_tcp_connect")]].concat();
    assert_eventually!(statsd.total("sluice.user.traffic.out.bytes", &kind) > 2.0);
    assert_eventually!(statsd.last("sluice.user.request.alive", &kind) == Some(0.0));
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_failed_login_is_told_and_closed() {
    let daemon = Daemon::proxyd(&socks(&["name: ann", "name: late, expire: '2020-01-01T00:00:00Z'"], ""))
        .start()
        .await;
    let long = "x".repeat(255);
    for (user, password) in [
        ("ann", "open"),
        ("ann", ""),
        ("", ""),
        ("late", "open sesame"),
        (long.as_str(), long.as_str()),
    ] {
        let (mut wire, status) = introduced(&daemon, user, password).await;
        assert_eq!(
            (status.as_slice(), wire.rest().await),
            (&b"\x01\x01"[..], Vec::new()),
            "{user}"
        );
    }
    // Neither text nor version of RFC 1929.
    for credentials in [&b"\x01\x01\xff\x01x"[..], b"\x05\x01a\x01b"] {
        let mut wire = daemon.connect("socks").await;
        wire.send([b"\x05\x01\x02", credentials].concat()).await;
        assert_eq!(wire.rest().await, b"\x05\x02\x01\x01");
    }
    daemon.stop().await.assert_clean();
}

/// AU-07.
#[tokio::test]
async fn a_blocked_user_waits_for_its_refusal() {
    let origin = Origin::echo();
    let daemon = Daemon::proxyd(&socks(
        &["name: slow, block_and_delay: 300ms", "name: now, block_and_delay: 0s"],
        "",
    ))
    .start()
    .await;
    for (user, delay) in [("slow", 300), ("now", 0)] {
        let (mut wire, status) = introduced(&daemon, user, "open sesame").await;
        assert_eq!(status, b"\x01\x00", "{user}");
        let begun = Instant::now();
        wire.send(connect(&origin)).await;
        assert_eq!(wire.rest().await, b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", "{user}");
        assert!(begun.elapsed().as_millis() >= delay, "{user}");
    }
    assert_eq!(origin.accepted(), 0);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_group_may_take_clients_without_a_name() {
    let origin = Origin::hello("hi");
    let yaml = socks(
        &["name: ann"],
        "    anonymous_user: {name: anyone, ingress_network_filter: {default: forbid, allow: 127.0.0.1, deny: 127.0.0.5}}\n",
    );
    let daemon = Daemon::proxyd(&yaml).start().await;
    let url = format!("http://{}/", origin.addr());
    let port = daemon.group().port("socks");
    let proxy = |proxy: &str| ["-x".to_owned(), format!("{proxy}127.0.0.1:{port}")];
    for scheme in ["socks4://", "socks4a://", "socks5://", "socks5://stranger:any@"] {
        curl(&url).args(proxy(scheme)).run().await.assert(200, "hi");
    }
    // Who has a name must know the password.
    assert_eq!(curl(&url).args(proxy("socks5://ann:any@")).run().await.exit, 97);
    for scheme in ["socks4://", "socks5://", "socks5://stranger:any@"] {
        let answer = curl(&url)
            .args(proxy(scheme))
            .args(["--interface", "127.0.0.5"])
            .run()
            .await;
        assert_eq!(answer.exit, 97, "{scheme}");
    }
    assert_eventually!(finished(&daemon).len() == 4);
    let names: Vec<_> = finished(&daemon).iter().map(|task| task["user"].clone()).collect();
    assert_eq!(names.iter().filter(|name| name.is_null()).count(), 3, "{names:?}");
    assert_eq!(names.iter().filter(|name| *name == "stranger").count(), 1, "{names:?}");
    daemon.stop().await.assert_clean();
}

/// The order of users.md §10.5.
#[tokio::test]
async fn requests_of_a_user_are_checked() {
    let origin = Origin::echo();
    let statsd = Statsd::start();
    let yaml = socks(
        &[
            "name: rated, request_rate_limit: {rate: 1/h, max_burst: 1}",
            "name: full, request_max_alive: 1",
            "name: banned, proxy_request_filter: [http_connect]",
            "name: ported, dst_port_filter: 25",
            "name: hosted, dst_host_filter_set: {exact: other.test}",
            "name: filtered, ingress_network_filter: {default: allow, deny: 127.0.0.1}",
        ],
        "",
    );
    let daemon = Daemon::proxyd(&(yaml + &statsd.section())).start().await;
    let mut open = Vec::new();
    for user in ["rated", "full"] {
        let (mut wire, _) = introduced(&daemon, user, "open sesame").await;
        wire.send(connect(&origin)).await;
        assert_eq!(wire.exactly(10).await[..2], *b"\x05\x00", "{user}");
        open.push(wire);
    }
    for user in ["rated", "full", "banned", "ported", "hosted"] {
        let (mut wire, status) = introduced(&daemon, user, "open sesame").await;
        assert_eq!(status, b"\x01\x00", "{user}");
        wire.send(connect(&origin)).await;
        assert_eq!(wire.rest().await, b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", "{user}");
    }
    assert_eq!(introduced(&daemon, "filtered", "open sesame").await.1, b"\x01\x01");
    for (user, metric) in [
        ("rated", "rate_limited"),
        ("full", "fully_loaded"),
        ("banned", "proto_banned"),
        ("ported", "dest_denied"),
        ("hosted", "dest_denied"),
        ("filtered", "src_blocked"),
    ] {
        let metric = format!("sluice.user.forbidden.{metric}");
        assert_eventually!(statsd.total(&metric, &[("user", user)]) == 1.0, "{user}");
    }
    // The place of a request that has ended is free.
    drop(open);
    assert_eventually!(statsd.last("sluice.server.task.alive", &[("server", "socks")]) == Some(0.0));
    let (mut wire, _) = introduced(&daemon, "full", "open sesame").await;
    wire.send(connect(&origin)).await;
    assert_eq!(wire.exactly(10).await[..2], *b"\x05\x00");
    wire.finish().await;
    wire.assert_closed().await;
    daemon.stop().await.assert_clean();
}
