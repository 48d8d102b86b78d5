//! What is counted for users and their sites, as a StatsD receiver sees it.

use sluice_testkit::{Daemon, Origin, Statsd, Stopped, assert_eventually, curl};
use sluice_tests::{noise, proxy};

/// A proxy that tells `statsd`; `group` are the keys of its user group, `users` its static users.
fn config(statsd: &Statsd, users: &str, group: &str) -> String {
    format!(
        "{}user_group:\n  - {{name: staff, static_users: [{users}], {group}}}\n{}",
        proxy(
            "user_group: staff, extra_metrics_tags: {site: berlin}, dst_port_filter: {default: permit, forbid: 2}",
            "extra_metrics_tags: {line: fast}"
        ),
        statsd.section()
    )
}

async fn started(statsd: &Statsd, users: &str, group: &str) -> Daemon {
    Daemon::proxyd(&config(statsd, users, group)).start().await
}

/// Asks as `user`; the status.
async fn ask(daemon: &Daemon, user: &str, url: &str) -> u16 {
    let answer = curl(url)
        .proxy(daemon.addr("http"))
        .args(["-U", &format!("{user}:x")])
        .run()
        .await;
    assert_eq!(answer.exit, 0, "{user}: {answer:?}");
    answer.status
}

/// Stops the daemon; its last numbers are told then.
async fn stopped(daemon: Daemon) -> Stopped {
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    stopped
}

/// OB-06.
#[tokio::test]
async fn each_refusal_counts_once_for_its_user() {
    let statsd = Statsd::start();
    let origin = Origin::hello("hi");
    let port = origin.port();
    let users = [
        "{name: auth_failed}".to_owned(),
        "{name: user_expired, token: ~, expire: '2020-01-02T03:04:05Z'}".to_owned(),
        "{name: user_blocked, token: ~, block_and_delay: 0s}".to_owned(),
        "{name: rate_limited, token: ~, request_rate_limit: 1/h}".to_owned(),
        "{name: proto_banned, token: ~, proxy_request_filter: http_connect}".to_owned(),
        "{name: src_blocked, token: ~, ingress_network_filter: {default: deny, deny: 127.0.0.1}}".to_owned(),
        format!("{{name: dest_denied, token: ~, dst_port_filter: {{default: permit, deny: {port}}}}}"),
        "{name: ua_blocked, token: ~, http_user_agent_filter: curl}".to_owned(),
        "{name: log_skipped, token: ~, log_rate_limit: 1/h}".to_owned(),
        "{name: fully_loaded, token: ~, request_max_alive: 1}".to_owned(),
        "{name: by_server, token: ~}".to_owned(),
    ]
    .join(", ");
    let daemon = started(&statsd, &users, "").await;
    let url = format!("http://{}/", origin.addr());
    for (user, status) in [
        ("auth_failed", 407),
        ("user_expired", 407),
        ("user_blocked", 403),
        ("rate_limited", 200),
        ("rate_limited", 429),
        ("proto_banned", 405),
        ("src_blocked", 407),
        ("dest_denied", 403),
        ("ua_blocked", 403),
        ("log_skipped", 200),
        ("log_skipped", 200),
    ] {
        assert_eq!(ask(&daemon, user, &url).await, status, "{user}");
    }
    let mut tunnel = daemon.connect("http").await;
    // `fully_loaded:x`
    let credentials = "Proxy-Authorization: Basic ZnVsbHlfbG9hZGVkOng=\r\n";
    tunnel
        .send(format!("CONNECT {} HTTP/1.1\r\n{credentials}\r\n", origin.addr()))
        .await;
    assert!(tunnel.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(ask(&daemon, "fully_loaded", &url).await, 429);
    drop(tunnel);
    assert_eq!(ask(&daemon, "by_server", "http://127.0.0.1:2/").await, 403);
    assert_eq!(ask(&daemon, "stranger", &url).await, 407);
    stopped(daemon).await;
    for user in [
        "auth_failed",
        "user_expired",
        "user_blocked",
        "rate_limited",
        "proto_banned",
        "src_blocked",
        "dest_denied",
        "ua_blocked",
        "log_skipped",
        "fully_loaded",
    ] {
        let tags = [
            ("user_group", "staff"),
            ("user", user),
            ("user_type", "Static"),
            ("server", "http"),
            ("site", "berlin"),
        ];
        assert_eq!(
            statsd.total(&format!("sluice.user.forbidden.{user}"), &tags),
            1.0,
            "{user}"
        );
        let of_user = |line: &sluice_testkit::StatsdLine| {
            line.tags.get("user").is_some_and(|own| own == user) && line.name.starts_with("sluice.user.forbidden.")
        };
        let all: f64 = statsd
            .lines()
            .iter()
            .filter(|line| of_user(line))
            .map(|line| line.value)
            .sum();
        assert_eq!(all, 1.0, "{user}");
    }
    let of_server = |name: &str| statsd.total(&format!("sluice.server.forbidden.{name}"), &[("server", "http")]);
    assert_eq!(
        statsd.total("sluice.user.forbidden.dest_denied", &[("user", "by_server")]),
        1.0
    );
    assert_eq!(of_server("dest_denied"), 1.0);
    assert_eq!(of_server("user_blocked"), 1.0);
    // Without credentials at first, each client of curl's is let in at once: it sends them unasked.
    assert_eq!(of_server("auth_failed"), 4.0);
}

#[tokio::test]
async fn an_address_that_is_refused_counts_for_the_user() {
    let statsd = Statsd::start();
    let config = format!(
        "{}user_group: [{{name: staff, static_users: [{{name: a, token: ~}}]}}]\n{}",
        sluice_tests::guarded_proxy("user_group: staff", ""),
        statsd.section()
    );
    let daemon = Daemon::proxyd(&config).start().await;
    assert_eq!(ask(&daemon, "a", "http://127.0.0.1:9/").await, 403);
    stopped(daemon).await;
    assert_eq!(statsd.total("sluice.user.forbidden.ip_blocked", &[("user", "a")]), 1.0);
}

/// OB-13, OB-14.
#[tokio::test]
async fn anonymous_and_dynamic_users_are_told_and_names_do_no_harm_to_the_lines() {
    let statsd = Statsd::start();
    let origin = Origin::hello("hi");
    let users = "{name: 'a b,c|d#é', token: ~}";
    let daemon = started(&statsd, users, "anonymous_user: {name: guest}").await;
    daemon
        .call(
            "user-group.publish-user",
            serde_json::json!({"name": "staff", "users": [{"name": "dyn", "token": null}]}),
        )
        .await
        .unwrap();
    let url = format!("http://{}/", origin.addr());
    for user in ["a b,c|d#é", "dyn", "stranger"] {
        assert_eq!(ask(&daemon, user, &url).await, 200, "{user}");
    }
    let nobody = curl(&url).proxy(daemon.addr("http")).run().await;
    assert_eq!(nobody.status, 200);
    stopped(daemon).await;
    let requests = |user: &str, kind: &str| {
        let tags = [("user", user), ("user_type", kind), ("request", "http_forward")];
        statsd.total("sluice.user.request.total", &tags)
    };
    assert_eventually!(requests("a_b_c_d_é", "Static") == 1.0);
    assert_eventually!(requests("dyn", "Dynamic") == 1.0);
    assert_eventually!(requests("guest", "Anonymous") == 2.0);
}

#[tokio::test]
async fn requests_and_connections_are_counted_from_their_beginning_to_their_end() {
    let statsd = Statsd::start();
    let origin = Origin::hello("hi");
    let daemon = started(&statsd, "{name: a, token: ~}", "").await;
    // `a:x`
    let credentials = "Proxy-Authorization: Basic YTp4\r\n";
    let get = format!("GET http://{}/ HTTP/1.1\r\n{credentials}\r\n", origin.addr());
    // One connection, three requests, the last two over the upstream connection of the first.
    let mut wire = daemon.connect("http").await;
    for _ in 0..3 {
        assert_eq!(wire.ask(&get).await.status, 200);
    }
    drop(wire);
    let http = [("user", "a"), ("connection", "http")];
    let forward = [("user", "a"), ("request", "http_forward")];
    let connect = [("user", "a"), ("request", "http_connect")];
    let echo = Origin::echo();
    let mut tunnel = daemon.connect("http").await;
    tunnel
        .send(format!("CONNECT {} HTTP/1.1\r\n{credentials}\r\n", echo.addr()))
        .await;
    assert!(tunnel.head().await.starts_with("HTTP/1.1 200 "));
    assert_eventually!(statsd.last("sluice.user.request.alive", &connect) == Some(1.0));
    assert_eq!(
        statsd.last(
            "sluice.user.request.alive",
            &[("user", "a"), ("request", "socks_udp_connect")]
        ),
        Some(0.0)
    );
    drop(tunnel);
    assert_eventually!(statsd.last("sluice.user.request.alive", &connect) == Some(0.0));
    let mut kept = daemon.connect("http").await;
    kept.send(&get).await;
    assert_eq!(kept.answer().await.status, 200);
    assert_eventually!(statsd.last("sluice.user.l7.connection.alive", &http) == Some(1.0));
    drop(kept);
    assert_eventually!(statsd.last("sluice.user.l7.connection.alive", &http) == Some(0.0));
    stopped(daemon).await;
    assert_eq!(statsd.total("sluice.user.connection.total", &http), 3.0);
    assert_eq!(statsd.total("sluice.user.request.total", &forward), 4.0);
    assert_eq!(statsd.total("sluice.user.request.ready", &forward), 4.0);
    assert_eq!(statsd.total("sluice.user.request.reuse", &forward), 3.0);
    assert_eq!(statsd.total("sluice.user.request.renew", &forward), 0.0);
    assert_eq!(statsd.total("sluice.user.request.total", &connect), 1.0);
    assert_eq!(statsd.total("sluice.user.request.ready", &connect), 1.0);
    assert_eq!(statsd.last("sluice.user.request.alive", &forward), Some(0.0));
}

#[tokio::test]
async fn a_request_that_is_sent_once_more_counts_as_renewed() {
    let statsd = Statsd::start();
    let origin = Origin::script(|conn| {
        while let Some(head) = conn.head()? {
            if head.contains("/again") && conn.index() == 0 {
                return Ok(());
            }
            conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")?;
        }
        Ok(())
    });
    let daemon = started(&statsd, "{name: a, token: ~}", "").await;
    let url = format!("http://{}/", origin.addr());
    assert_eq!(ask(&daemon, "a", &url).await, 200);
    assert_eq!(ask(&daemon, "a", &format!("{url}again")).await, 200);
    stopped(daemon).await;
    let forward = [("user", "a"), ("request", "http_forward")];
    assert_eq!(statsd.total("sluice.user.request.reuse", &forward), 1.0);
    assert_eq!(statsd.total("sluice.user.request.renew", &forward), 1.0);
    assert_eq!(statsd.total("sluice.user.request.total", &forward), 2.0);
}

/// OB-07.
#[tokio::test]
async fn a_megabyte_each_way_counts_for_user_site_server_and_escaper() {
    const BODY: usize = 1 << 20;
    let statsd = Statsd::start();
    let body = noise(BODY);
    let origin = Origin::http(move |request| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        assert_eq!(request.body.len(), BODY);
        [head.as_bytes(), &body].concat()
    });
    let site =
        "{id: shop, exact_match: 127.0.0.1, emit_stats: true, duration_stats: {quantile: '0.5, 0.99', rotate: 100ms}}";
    let daemon = started(
        &statsd,
        &format!("{{name: a, token: ~, explicit_sites: [{site}, {{id: quiet, exact_match: 127.0.0.2}}]}}"),
        "",
    )
    .await;
    let file = daemon.group().dir().join("body");
    std::fs::write(&file, noise(BODY)).unwrap();
    let answer = curl(&format!("http://{}/", origin.addr()))
        .proxy(daemon.addr("http"))
        .args(["-U", "a:x", "-T"])
        .arg(&file)
        .run()
        .await;
    assert_eq!((answer.exit, answer.status, answer.body.len()), (0, 200, BODY));
    let at_server = [
        ("user", "a"),
        ("user_group", "staff"),
        ("server", "http"),
        ("site", "berlin"),
    ];
    let shop = |name: &str| format!("sluice.user.site.shop.{name}");
    assert_eventually!(
        statsd
            .last(&shop("task.ready.duration"), &[("user", "a"), ("quantile", "0.99")])
            .is_some()
    );
    stopped(daemon).await;
    let bytes = |name: &str, tags: &[(&str, &str)]| statsd.total(&format!("sluice.{name}"), tags);
    for (user, site, server) in [
        ("user.traffic.in.bytes", "traffic.in.bytes", "server.traffic.in.bytes"),
        (
            "user.traffic.out.bytes",
            "traffic.out.bytes",
            "server.traffic.out.bytes",
        ),
    ] {
        let of_user = bytes(user, &[&at_server[..], &[("request", "http_forward")]].concat());
        assert!(
            (BODY as f64..BODY as f64 + 1000.0).contains(&of_user),
            "{user}: {of_user}"
        );
        assert_eq!(statsd.total(&shop(site), &at_server), of_user, "{site}");
        assert_eq!(bytes(server, &[("server", "http")]), of_user, "{server}");
    }
    let at_escaper = [
        ("user", "a"),
        ("escaper", "out"),
        ("line", "fast"),
        ("transport", "tcp"),
    ];
    for (user, site, escaper) in [
        (
            "user.upstream.traffic.in.bytes",
            "upstream.traffic.in.bytes",
            "escaper.traffic.in.bytes",
        ),
        (
            "user.upstream.traffic.out.bytes",
            "upstream.traffic.out.bytes",
            "escaper.traffic.out.bytes",
        ),
    ] {
        let of_user = bytes(user, &at_escaper);
        assert!(
            (BODY as f64..BODY as f64 + 1000.0).contains(&of_user),
            "{user}: {of_user}"
        );
        assert_eq!(statsd.total(&shop(site), &at_escaper), of_user, "{site}");
        assert_eq!(bytes(escaper, &[("escaper", "out")]), of_user, "{escaper}");
    }
    assert_eq!(statsd.total(&shop("connection.total"), &at_server), 1.0);
    assert_eq!(statsd.total(&shop("request.total"), &at_server), 1.0);
    assert_eq!(statsd.total(&shop("request.ready"), &at_server), 1.0);
    assert_eq!(statsd.last(&shop("l7.connection.alive"), &at_server), Some(0.0));
    for quantile in ["min", "max", "mean", "0.5", "0.99"] {
        let nanos = statsd.last(&shop("task.ready.duration"), &[("quantile", quantile)]);
        assert!(
            nanos.is_some_and(|nanos| nanos > 1000.0 && nanos < 60e9),
            "{quantile}: {nanos:?}"
        );
    }
    assert!(!statsd.lines().iter().any(|line| line.name.contains("quiet")));
    assert!(
        !statsd
            .lines()
            .iter()
            .any(|line| line.name.starts_with("sluice.user.site.shop.forbidden"))
    );
}

#[tokio::test]
async fn the_bodies_of_strangers_are_counted_apart() {
    let statsd = Statsd::start();
    let config = format!(
        "{}user_group: [{{name: staff}}]\n{}",
        proxy("user_group: staff, untrusted_read_speed_limit: 10M/s", ""),
        statsd.section()
    );
    let daemon = Daemon::proxyd(&config).start().await;
    let mut wire = daemon.connect("http").await;
    let request = format!(
        "POST http://127.0.0.1:9/ HTTP/1.1\r\nContent-Length: 30000\r\n\r\n{}",
        "x".repeat(30_000)
    );
    assert_eq!(wire.ask(&request).await.status, 407);
    let server = [("server", "http")];
    assert_eventually!(statsd.total("sluice.server.traffic.untrusted_in.bytes", &server) == 30_000.0);
    assert_eq!(statsd.total("sluice.server.task.untrusted_total", &server), 1.0);
    assert_eventually!(statsd.last("sluice.server.task.untrusted_alive", &server) == Some(0.0));
    drop(wire);
    stopped(daemon).await;
    assert_eq!(statsd.total("sluice.server.task.total", &server), 0.0);
    assert_eq!(
        statsd.total("sluice.server.traffic.in.bytes", &server),
        request.len() as f64
    );
}

#[tokio::test]
async fn numbers_go_on_over_a_reload_and_go_with_their_user() {
    let statsd = Statsd::start();
    let origin = Origin::hello("hi");
    let daemon = started(&statsd, "{name: a, token: ~}, {name: b, token: ~}", "").await;
    let url = format!("http://{}/", origin.addr());
    for user in ["a", "b"] {
        assert_eq!(ask(&daemon, user, &url).await, 200);
    }
    daemon
        .reload_with(&config(&statsd, "{name: a, token: ~, request_max_alive: 9}", ""))
        .await;
    assert_eq!(ask(&daemon, "a", &url).await, 200);
    let ids = |user: &str| {
        let lines = statsd
            .lines()
            .into_iter()
            .filter(|line| line.tags.get("user").is_some_and(|own| own == user) && line.tags.contains_key("server"));
        lines
            .map(|line| line.tags["stat_id"].clone())
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eventually!(statsd.total("sluice.user.request.total", &[("user", "a")]) == 2.0);
    assert_eq!(ids("a").len(), 1);
    let told = |user: &str| {
        let lines = statsd.lines();
        lines
            .iter()
            .filter(|line| line.tags.get("user").is_some_and(|own| own == user))
            .count()
    };
    // Its last numbers are told once, and then nothing more.
    let round = told("a") / 2;
    let before = told("a");
    assert_eventually!(told("a") > before + round.max(100));
    let (last, before) = (told("b"), told("a"));
    assert_eventually!(told("a") > before + round.max(100));
    assert_eq!(told("b"), last);
    stopped(daemon).await;
}
