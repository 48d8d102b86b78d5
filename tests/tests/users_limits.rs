//! Users through the real proxyd: what they may do, how fast, and what is told of it.

use std::time::Duration;

use serde_json::json;
use sluice_testkit::{Daemon, Origin, Wire, assert_eventually, curl};
use sluice_tests::users::{basic, get, ok, with_static, with_users};
use sluice_tests::{Gate, noise, proxy};

/// OB-06.
#[tokio::test]
async fn each_refusal_has_its_status() {
    let origin = Origin::hello("hi");
    let daemon = Daemon::proxyd(&with_static(
        &[
            "{name: forwards, token: ~, proxy_request_filter: http_forward}".to_owned(),
            format!("{{name: port, token: ~, dst_port_filter: {}}}", origin.port()),
            "{name: host, token: ~, dst_host_filter_set: {exact: {default: allow, deny: 127.0.0.1}}}".to_owned(),
            "{name: agent, token: ~, http_user_agent_filter: curl}".to_owned(),
            "{name: once, token: ~, request_rate_limit: 1/h}".to_owned(),
            "{name: abroad, token: ~, ingress_network_filter: {default: deny, deny: 127.0.0.1}}".to_owned(),
        ]
        .join(", "),
        "",
    ))
    .start()
    .await;
    let addr = daemon.addr("http");
    let there = format!("http://{}/", origin.addr());
    let ask = |user: &'static str, url: String| async move {
        let answer = curl(&url).proxy(addr).args(["-U", user]).run().await;
        assert_eq!(answer.exit, 0, "{user}: {answer:?}");
        answer.status
    };
    assert_eq!(ask("forwards:x", there.clone()).await, 200);
    let tunnel = curl(&there).tunnel(addr).args(["-U", "forwards:x"]).run().await;
    assert_eq!(tunnel.connect_status, 405);
    assert_eq!(ask("port:x", there.clone()).await, 200);
    assert_eq!(ask("port:x", "http://127.0.0.1:1/".to_owned()).await, 403);
    assert_eq!(ask("host:x", there.clone()).await, 403);
    assert_eq!(ask("agent:x", there.clone()).await, 403);
    let other = curl(&there)
        .proxy(addr)
        .args(["-U", "agent:x", "-A", "Mozilla/5.0"])
        .run()
        .await;
    assert_eq!(other.status, 200);
    assert_eq!(ask("once:x", there.clone()).await, 200);
    assert_eq!(ask("once:x", there.clone()).await, 429);
    assert_eq!(ask("abroad:x", there.clone()).await, 407);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_user_has_only_so_many_requests_at_a_time() {
    let gate = Gate::new();
    let waits = gate.clone();
    let origin = Origin::http(move |_| {
        let _ = waits.pass();
        ok("late")
    });
    let daemon = Daemon::proxyd(&with_static("{name: a, token: ~, request_max_alive: 1}", ""))
        .start()
        .await;
    let mut first = daemon.connect("http").await;
    first.send(get(&origin, &basic("a", ""))).await;
    assert_eventually!(origin.received_text().contains("GET / "));
    let mut second = daemon.connect("http").await;
    let refused = second.ask(get(&origin, &basic("a", ""))).await;
    assert_eq!((refused.status, refused.header("connection")), (429, Some("close")));
    gate.open();
    assert_eq!(first.answer().await.status, 200);
    let mut third = daemon.connect("http").await;
    assert_eq!(third.ask(get(&origin, &basic("a", ""))).await.status, 200);
    daemon.stop().await.assert_clean();
}

/// LM-02.
#[tokio::test]
async fn a_servers_rates_hold_for_all_and_over_a_reload() {
    let origin = Origin::hello("hi");
    let config = |more: &str| with_static("{name: a, token: ~}", &format!("request_rate_limit: 3/h, {more}"));
    let daemon = Daemon::proxyd(&config("")).start().await;
    let mut wire = daemon.connect("http").await;
    for _ in 0..2 {
        assert_eq!(wire.ask(get(&origin, &basic("a", ""))).await.status, 200);
    }
    drop(wire);
    daemon.reload_with(&config("log_uri_max_chars: 99")).await;
    for status in [200, 429] {
        let mut wire = daemon.connect("http").await;
        assert_eq!(wire.ask(get(&origin, &basic("a", ""))).await.status, status);
    }
    daemon.stop().await.assert_clean();

    let daemon = Daemon::proxyd(&proxy("tcp_conn_rate_limit: {rate: 2/h}", ""))
        .start()
        .await;
    for _ in 0..2 {
        let mut wire = daemon.connect("http").await;
        assert_eq!(wire.ask(get(&origin, "")).await.status, 200);
    }
    let mut wire = daemon.connect("http").await;
    wire.try_send(get(&origin, "")).await;
    wire.assert_closed().await;
    daemon.stop().await.assert_clean();
}

/// H1-15.
#[tokio::test]
async fn users_of_one_connection_have_upstream_connections_of_their_own() {
    let origin = Origin::http(|request| ok(&request.connection.to_string()));
    let daemon = Daemon::proxyd(&with_static("{name: a, token: ~}, {name: b, token: ~}", ""))
        .start()
        .await;
    let mut wire = daemon.connect("http").await;
    let mut other = daemon.connect("http").await;
    let served = |answer: sluice_testkit::Answer| (answer.status, String::from_utf8_lossy(&answer.body).into_owned());
    let a = get(&origin, &basic("a", "1"));
    let b = get(&origin, &basic("b", "2"));
    assert_eq!(served(wire.ask(&a).await), (200, "0".to_owned()));
    assert_eq!(served(wire.ask(&b).await), (200, "1".to_owned()));
    assert_eq!(wire.ask(get(&origin, "")).await.status, 407);
    assert_eq!(served(wire.ask(&b).await), (200, "1".to_owned()));
    assert_eq!(served(wire.ask(&a).await), (200, "0".to_owned()));
    // A user's own connections are shared among its clients.
    assert_eq!(served(other.ask(&a).await), (200, "0".to_owned()));
    assert_eq!(origin.accepted(), 2);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_user_may_do_without_kept_connections() {
    let origin = Origin::http(|request| ok(&request.connection.to_string()));
    let users = "{name: a, token: ~, http_upstream_keepalive: false}, {name: b, token: ~}";
    let daemon = Daemon::proxyd(&with_static(users, "")).start().await;
    let mut wire = daemon.connect("http").await;
    for n in 0..3 {
        let answer = wire.ask(get(&origin, &basic("a", ""))).await;
        assert_eq!(String::from_utf8_lossy(&answer.body), n.to_string());
    }
    assert_eq!(origin.received_text().matches("Connection: close\r\n").count(), 3);
    for _ in 0..2 {
        let answer = wire.ask(get(&origin, &basic("b", ""))).await;
        assert_eq!(String::from_utf8_lossy(&answer.body), "3");
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_users_idle_count_takes_the_place_of_the_servers() {
    let origin = Origin::silent();
    let users = "{name: a, token: ~, task_idle_max_count: 1}, {name: b, token: ~}";
    let daemon = Daemon::proxyd(&with_static(
        users,
        "task_idle_check_interval: 200ms, task_idle_max_count: 100000",
    ))
    .start()
    .await;
    let mut tunnels = Vec::new();
    for user in ["a", "b"] {
        let mut wire = daemon.connect("http").await;
        wire.send(format!("CONNECT {} HTTP/1.1\r\n{}\r\n", origin.addr(), basic(user, "")))
            .await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
        tunnels.push(wire);
    }
    tunnels[0].assert_closed().await;
    assert_eventually!(daemon.log_records("Task").len() == 1);
    let records = daemon.log_records("Task");
    assert_eq!(
        (&records[0]["user"], &records[0]["reason"]),
        (&json!("a"), &json!("Idle"))
    );
    drop(tunnels);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_users_time_for_a_response_takes_the_place_of_the_servers_and_a_sites_that_of_the_users() {
    let origin = Origin::silent();
    let users = "{name: a, token: ~, http_rsp_header_recv_timeout: 1h, \
         explicit_sites: [{id: quick, subnet_match: 127.0.0.0/8, http_rsp_header_recv_timeout: 300ms}]}, \
         {name: b, token: ~, http_rsp_header_recv_timeout: 300ms}";
    let daemon = Daemon::proxyd(&with_static(users, "rsp_header_recv_timeout: 1h"))
        .start()
        .await;
    for user in ["a", "b"] {
        let mut wire = daemon.connect("http").await;
        assert_eq!(wire.ask(get(&origin, &basic(user, ""))).await.status, 504, "{user}");
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn log_records_are_left_out_over_the_rate_and_uris_are_cut() {
    let origin = Origin::hello("hi");
    let users = "{name: a, token: ~, log_rate_limit: 2/h}, {name: b, token: ~, log_uri_max_chars: 10}";
    let daemon = Daemon::proxyd(&with_static(users, "")).start().await;
    let mut wire = daemon.connect("http").await;
    for user in ["a", "a", "a", "a", "b", "b"] {
        assert_eq!(wire.ask(get(&origin, &basic(user, ""))).await.status, 200);
    }
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let records = stopped.log_records("Task");
    let of = |user: &str| records.iter().filter(|record| record["user"] == user).count();
    assert_eq!((of("a"), of("b")), (2, 2));
    let uri = |user: &str| {
        let record = records.iter().find(|record| record["user"] == user).unwrap();
        record["uri"].as_str().unwrap().chars().count()
    };
    assert_eq!(uri("b"), 10);
    assert!(uri("a") > 10);
}

async fn megabyte(wire: &mut Wire, origin: &Origin, user: &str) -> Duration {
    let start = std::time::Instant::now();
    wire.send(get(origin, &basic(user, ""))).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.body.len()), (200, 1 << 20));
    start.elapsed()
}

#[tokio::test]
async fn the_connections_of_a_user_are_slowed_down_each_and_together() {
    let body = noise(1 << 20);
    let origin = Origin::http(move |_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), &body].concat()
    });
    let users = "{name: each, token: ~, tcp_sock_speed_limit: 1M/s}, \
                 {name: all, token: ~, tcp_all_download_speed_limit: {replenish_bytes: 2M, max_burst_bytes: 2M}}, \
                 {name: free, token: ~}";
    let daemon = Daemon::proxyd(&with_static(users, "")).start().await;
    let connect = || daemon.connect("http");
    let (mut a, mut b, mut c) = (connect().await, connect().await, connect().await);
    let each = megabyte(&mut a, &origin, "each").await;
    assert!(each > Duration::from_millis(800), "{each:?}");
    let free = megabyte(&mut a, &origin, "free").await;
    assert!(free < Duration::from_millis(700), "{free:?}");
    // Three megabytes over three connections: two are there at once, the third takes half a second.
    let start = std::time::Instant::now();
    tokio::join!(
        megabyte(&mut a, &origin, "all"),
        megabyte(&mut b, &origin, "all"),
        megabyte(&mut c, &origin, "all")
    );
    let all = start.elapsed();
    assert!(all > Duration::from_millis(450), "{all:?}");
    daemon.stop().await.assert_clean();
}

/// LM-01.
#[tokio::test]
async fn small_responses_do_not_slip_past_a_users_speed() {
    let origin = Origin::hello(&"x".repeat(10_000));
    let users = "{name: a, token: ~, tcp_all_download_speed_limit: {replenish_bytes: 50K, max_burst_bytes: 50K}}";
    let daemon = Daemon::proxyd(&with_static(users, "")).start().await;
    let mut wire = daemon.connect("http").await;
    let start = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(wire.ask(get(&origin, &basic("a", ""))).await.status, 200);
    }
    let took = start.elapsed();
    assert!(took > Duration::from_millis(900), "{took:?}");
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_user_has_its_own_ways_of_resolving_and_connecting() {
    let origin = Origin::hello("hi");
    let port = origin.port();
    // The resolver denies everything: what comes through was redirected.
    let users =
        "{name: a, token: ~, resolve_redirection: {one.test: 127.0.0.1, two.test: other.test}}, {name: b, token: ~}";
    let config = with_users(
        &format!("static_users: [{users}]"),
        "",
        "resolve_redirection: {other.test: 127.0.0.1, own.test: 127.0.0.1}",
    );
    let group = sluice_testkit::Group::new(&config);
    let resolverd = group.resolverd().await;
    let daemon = group.proxyd().await;
    for (user, host, status) in [
        ("a", "one.test", 200),
        ("a", "two.test", 200),
        ("a", "own.test", 200),
        ("b", "own.test", 200),
        ("b", "one.test", 530),
    ] {
        let mut wire = daemon.connect("http").await;
        let request = format!("GET http://{host}:{port}/ HTTP/1.1\r\n{}\r\n", basic(user, ""));
        assert_eq!(wire.ask(request).await.status, status, "{user} {host}");
    }
    daemon.stop().await.assert_clean();
    resolverd.stop().await.assert_clean();
}
