//! Users through the real proxyd: who gets in, what is refused and how, what is told in logs.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_testkit::{Daemon, Origin, Wire, assert_eventually, curl, python, sluicectl};
use sluice_tests::{Gate, noise, proxy};

/// The password is `toor`.
const TOKEN: &str = "{salt: 113323bdab6fd2cc, sha1: ff9d5c1a14328dd85ee95d4e574bd0558a1dfa96}";
const TOKEN_JSON: &str = r#"{"salt": "113323bdab6fd2cc", "sha1": "ff9d5c1a14328dd85ee95d4e574bd0558a1dfa96"}"#;

/// The password is `open sesame`.
const SHA512: &str =
    "$6$saltsalt12345678$s24eYBRjFfNAaVckDSLuF2nhQIqYGgQAfsceyvtp2.bLnwaXMyRZElVvm5wV9ls6yXdrtXzRql/pnf7RXa/0V/";

/// A proxy whose users are the group `staff` with these keys; `server` and `escaper` are more keys of theirs.
fn with_users(group: &str, server: &str, escaper: &str) -> String {
    format!(
        "{}user_group:\n  - {{name: staff, {group}}}\n",
        proxy(&format!("user_group: staff, {server}"), escaper)
    )
}

/// The same with these static users.
fn with_static(users: &str, server: &str) -> String {
    with_users(&format!("static_users: [{users}]"), server, "")
}

/// A user `root` with the password `toor` and these keys.
fn root(keys: &str) -> String {
    format!("{{name: root, token: {TOKEN}, {keys}}}")
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn basic(user: &str, password: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = format!("{user}:{password}");
    let digits = text.as_bytes().chunks(3).flat_map(|three| {
        let bits = three.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        let digit = move |at: usize| {
            if at > three.len() {
                b'='
            } else {
                ALPHABET[(bits >> (18 - 6 * at)) as usize & 63]
            }
        };
        (0..4).map(digit)
    });
    let credentials: String = digits.map(char::from).collect();
    format!("Proxy-Authorization: Basic {credentials}\r\n")
}

fn get(origin: &Origin, fields: &str) -> String {
    format!("GET http://{}/ HTTP/1.1\r\n{fields}\r\n", origin.addr())
}

/// H1-16.
#[tokio::test]
async fn a_stranger_is_challenged_and_a_user_is_served() {
    let origin = Origin::hello("hi");
    let daemon = Daemon::proxyd(&with_static(&root(""), r#"auth_realm: 'the "inner" proxy'"#))
        .start()
        .await;
    let addr = daemon.addr("http");
    let url = format!("http://{}/", origin.addr());
    let stranger = curl(&url).proxy(addr).run().await;
    assert_eq!((stranger.exit, stranger.status), (0, 407));
    assert_eq!(
        stranger.header("proxy-authenticate"),
        Some(r#"Basic realm="the \"inner\" proxy""#)
    );
    for (user, status) in [
        ("root:toor", 200),
        ("root:root", 407),
        ("root:", 407),
        ("Root:toor", 407),
    ] {
        let answer = curl(&url).proxy(addr).args(["-U", user]).run().await;
        assert_eq!((answer.exit, answer.status), (0, status), "{user}");
    }
    let tunnel = curl(&url).tunnel(addr).args(["-U", "root:toor"]).run().await;
    tunnel.assert(200, "hi");
    let tunnel = curl(&url).tunnel(addr).args(["-U", "root:no"]).run().await;
    assert_eq!((tunnel.exit, tunnel.connect_status), (56, 407));
    // The credentials are for the proxy alone.
    assert!(!origin.received_text().to_lowercase().contains("proxy-authorization"));
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let mut records = stopped.log_records("Task");
    records.retain(|record| record["task_event"] == "Finished");
    assert_eq!(records.len(), 2, "{records:?}");
    assert!(records.iter().all(|record| record["user"] == "root"), "{records:?}");
}

/// H1-17.
#[tokio::test]
async fn names_and_passwords_may_hold_any_letters() {
    let origin = Origin::hello("hi");
    let daemon = Daemon::proxyd(&with_static("{name: ü, token: ~}", "")).start().await;
    let url = format!("http://{}/", origin.addr());
    let answer = curl(&url)
        .proxy(daemon.addr("http"))
        .args(["-U", "ü:pä:ss"])
        .run()
        .await;
    answer.assert(200, "hi");
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    assert_eq!(stopped.log_records("Task")[0]["user"], "ü");
}

#[tokio::test]
async fn a_python_client_logs_in_once_it_is_asked_to() {
    let origin = Origin::hello("hi");
    let daemon = Daemon::proxyd(&with_static(&root(""), "")).start().await;
    let program = "
import sys, urllib.request
proxy, url = sys.argv[1:]
handler = urllib.request.ProxyHandler({'http': 'http://' + proxy})
passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
passwords.add_password(None, proxy, 'root', 'toor')
opener = urllib.request.build_opener(handler, urllib.request.ProxyBasicAuthHandler(passwords))
print(opener.open(url, timeout=20).read().decode())
";
    let (proxy, url) = (daemon.addr("http").to_string(), format!("http://{}/", origin.addr()));
    let answered = python(program, &[&proxy, &url]).await;
    assert_eq!(answered.stdout.trim(), "hi", "{}", answered.stderr);
    daemon.stop().await.assert_clean();
}

/// AU-06.
#[tokio::test]
async fn passwords_of_every_kind_of_hash_are_checked() {
    let origin = Origin::hello("hi");
    let tokens = [
        "{salt: 00112233445566ff, md5: c3489a32a47cf9c4833568e65cb8af19}",
        "$1$Ab3dEf9h$3iPHL6KZDeYBu4khOz6YW1",
        "$5$saltsalt12345678$goDNvcrNj8LWxZUR8xlOdUf7utTe2wtzGpTUpwir9L1",
        "$5$rounds=10000$saltsalt$3/L5pzkLzBxM2VJWAAoTESufMGyS.GeTcu7lcsnQv/8",
        &format!("{{type: xcrypt_hash, value: {SHA512}}}"),
    ];
    let users: Vec<String> = tokens
        .iter()
        .enumerate()
        .map(|(n, token)| {
            let token = if token.starts_with('{') {
                (*token).to_owned()
            } else {
                format!("'{token}'")
            };
            format!("{{name: u{n}, token: {token}}}")
        })
        .collect();
    let daemon = Daemon::proxyd(&with_static(&users.join(", "), "")).start().await;
    for n in 0..tokens.len() {
        let user = format!("u{n}");
        // Right, wrong, right again on one connection, and on another.
        let mut wire = daemon.connect("http").await;
        for (password, status) in [("open sesame", 200), ("open barley", 407), ("open sesame", 200)] {
            let answer = wire.ask(get(&origin, &basic(&user, password))).await;
            assert_eq!(answer.status, status, "{user}");
        }
        let mut other = daemon.connect("http").await;
        assert_eq!(other.ask(get(&origin, &basic(&user, "open sesame"))).await.status, 200);
        assert_eq!(other.ask(get(&origin, &basic(&user, ""))).await.status, 407);
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_slow_hash_holds_nobody_else_up_and_its_result_is_remembered() {
    let origin = Origin::hello("hi");
    let program = "import crypt; print(crypt.crypt('secret', '$6$rounds=100000$saltsalt'))";
    let token = python(program, &[]).await.stdout;
    let users = format!("{{name: slow, token: '{}'}}, {{name: fast, token: ~}}", token.trim());
    // One worker, which would be busy with the hash.
    let daemon = Daemon::proxyd(&with_static(&users, "")).start().await;
    let timed = |user: &'static str| {
        let request = get(&origin, &basic(user, "secret"));
        let connecting = daemon.connect("http");
        async move {
            let mut wire = connecting.await;
            let start = std::time::Instant::now();
            assert_eq!(wire.ask(request).await.status, 200, "{user}");
            (start.elapsed(), std::time::Instant::now())
        }
    };
    let ((slow, slow_at), (_, fast_at)) = tokio::join!(timed("slow"), timed("fast"));
    assert!(fast_at < slow_at);
    let (again, _) = timed("slow").await;
    assert!(again < slow / 4, "{again:?} after {slow:?}");
    daemon.stop().await.assert_clean();
}

/// AU-11.
#[tokio::test]
async fn parameters_behind_a_name_are_cut_off_and_checked() {
    let origin = Origin::hello("hi");
    let server = "username_params: {keys_for_host: [area, city], domain_suffix: next.test}";
    let daemon = Daemon::proxyd(&with_static(&root(""), server)).start().await;
    for (name, status) in [
        ("root", 200),
        ("root+area=1", 200),
        ("root+area=1+city=2", 200),
        ("root+city=2", 400),
        ("root+area=1+area=2", 400),
        ("root+x=1", 400),
        ("root+area", 400),
        ("other+x=1", 407),
    ] {
        let mut wire = daemon.connect("http").await;
        let answer = wire.ask(get(&origin, &basic(name, "toor"))).await;
        assert_eq!(answer.status, status, "{name}");
        if status == 400 {
            wire.assert_closed().await;
        }
    }
    // Another next proxy is another way: what was kept for one does not serve the other.
    assert_eq!(origin.accepted(), 3);
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let records = stopped.log_records("Task");
    assert_eq!(records.len(), 3, "{records:?}");
    assert!(records.iter().all(|record| record["user"] == "root"), "{records:?}");
}

/// H1-14.
#[tokio::test]
async fn the_connection_survives_one_refusal_and_ends_with_the_second() {
    let origin = Origin::hello("hi");
    let daemon = Daemon::proxyd(&with_static(&root(""), "")).start().await;
    let mut wire = daemon.connect("http").await;
    for _ in 0..3 {
        let refused = wire.ask(get(&origin, "")).await;
        assert_eq!((refused.status, refused.header("connection")), (407, None));
        assert_eq!(wire.ask(get(&origin, &basic("root", "toor"))).await.status, 200);
    }
    assert_eq!(wire.ask(get(&origin, "")).await.status, 407);
    let second = wire.ask(get(&origin, &basic("root", "no"))).await;
    assert_eq!((second.status, second.header("connection")), (407, Some("close")));
    wire.assert_closed().await;
    // CONNECT as well; what stands behind it is no request.
    let mut wire = daemon.connect("http").await;
    let connect = format!("CONNECT {} HTTP/1.1\r\n", origin.addr());
    assert_eq!(wire.ask(format!("{connect}\r\n")).await.status, 407);
    wire.send(format!("{connect}{}\r\n", basic("root", "toor"))).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    drop(wire);
    let mut wire = daemon.connect("http").await;
    let behind = get(&origin, &basic("root", "toor"));
    let refused = wire.ask(format!("{connect}\r\n{behind}")).await;
    assert_eq!((refused.status, refused.header("connection")), (407, Some("close")));
    wire.assert_closed().await;
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn the_body_of_a_stranger_is_thrown_away_or_ends_the_connection() {
    let origin = Origin::hello("hi");
    let post = |fields: &str, body: &str| {
        format!(
            "POST http://{}/ HTTP/1.1\r\nContent-Length: {}\r\n{fields}\r\n{body}",
            origin.addr(),
            body.len()
        )
    };
    let body = "x".repeat(50_000);
    let daemon = Daemon::proxyd(&with_static(&root(""), "")).start().await;
    let mut wire = daemon.connect("http").await;
    let refused = wire.ask(post("", &body)).await;
    assert_eq!((refused.status, refused.header("connection")), (407, Some("close")));
    wire.assert_closed().await;
    daemon.stop().await.assert_clean();

    let daemon = Daemon::proxyd(&with_static(&root(""), "untrusted_read_speed_limit: 10M/s"))
        .start()
        .await;
    let mut wire = daemon.connect("http").await;
    let refused = wire.ask(post("", &body)).await;
    assert_eq!((refused.status, refused.header("connection")), (407, None));
    assert_eq!(wire.ask(post(&basic("root", "toor"), &body)).await.status, 200);
    let chunks = format!(
        "POST http://{}/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        origin.addr()
    );
    assert_eq!(wire.ask(chunks).await.status, 407);
    // Wrong credentials have no claim to patience.
    let refused = wire.ask(post(&basic("root", "no"), &body)).await;
    assert_eq!((refused.status, refused.header("connection")), (407, Some("close")));
    wire.assert_closed().await;
    assert_eq!(origin.received_text().matches("POST / ").count(), 1);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_stranger_hears_nothing_where_silence_is_asked_for() {
    let origin = Origin::hello("hi");
    let users = format!("{}, {{name: bad, token: ~, block_and_delay: 0s}}", root(""));
    let daemon = Daemon::proxyd(&with_static(&users, "no_early_error_reply: true"))
        .start()
        .await;
    for request in [
        get(&origin, ""),
        get(&origin, &basic("root", "no")),
        get(&origin, &basic("bad", "")),
        "GET / nonsense\r\n\r\n".to_owned(),
    ] {
        let mut wire = daemon.connect("http").await;
        wire.send(request).await;
        wire.assert_closed().await;
    }
    // Who has logged in is told what is wrong.
    let mut wire = daemon.connect("http").await;
    assert_eq!(wire.ask(get(&origin, &basic("root", "toor"))).await.status, 200);
    let local = format!("GET /x HTTP/1.1\r\nHost: a\r\n{}\r\n", basic("root", "toor"));
    assert_eq!(wire.ask(local).await.status, 501);
    daemon.stop().await.assert_clean();
}

/// AU-07.
#[tokio::test]
async fn a_blocked_user_waits_for_the_answer() {
    let origin = Origin::hello("hi");
    let users = "{name: slow, token: ~, block_and_delay: 700ms}, {name: fast, token: ~, block_and_delay: 0s}, \
                 {name: late, token: ~, expire: '2020-01-02T03:04:05Z'}";
    let daemon = Daemon::proxyd(&with_static(users, "")).start().await;
    for (user, status, least) in [("slow", 403, 700), ("fast", 403, 0), ("late", 407, 0)] {
        let mut wire = daemon.connect("http").await;
        let start = std::time::Instant::now();
        let refused = wire.ask(get(&origin, &basic(user, "x"))).await;
        assert_eq!(refused.status, status, "{user}");
        assert!(start.elapsed() >= Duration::from_millis(least), "{user}");
        if status == 403 {
            assert_eq!(refused.header("connection"), Some("close"));
            wire.assert_closed().await;
        }
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn an_anonymous_user_takes_those_whom_nobody_knows() {
    let origin = Origin::hello("hi");
    let group = format!(
        "static_users: [{}], anonymous_user: {{name: guest, dst_port_filter: {}}}",
        root(""),
        origin.port()
    );
    let daemon = Daemon::proxyd(&with_users(&group, "", "")).start().await;
    let mut wire = daemon.connect("http").await;
    assert_eq!(wire.ask(get(&origin, "")).await.status, 200);
    assert_eq!(wire.ask(get(&origin, &basic("nobody", "x"))).await.status, 200);
    assert_eq!(wire.ask(get(&origin, &basic("root", "no"))).await.status, 407);
    assert_eq!(wire.ask(get(&origin, &basic("root", "toor"))).await.status, 200);
    let elsewhere = "GET http://127.0.0.1:1/ HTTP/1.1\r\n\r\n";
    assert_eq!(wire.ask(elsewhere).await.status, 403);
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let names: Vec<Value> = stopped
        .log_records("Task")
        .iter()
        .map(|record| record["user"].clone())
        .collect();
    assert_eq!(names, [Value::Null, json!("nobody"), json!("root")]);
}

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

/// AU-01.
#[tokio::test]
async fn a_reload_is_heard_on_connections_that_are_open() {
    let origin = Origin::hello("hi");
    let daemon = Daemon::proxyd(&with_static(&format!("{}, {{name: goes, token: ~}}", root("")), ""))
        .start()
        .await;
    let mut wire = daemon.connect("http").await;
    let mut other = daemon.connect("http").await;
    assert_eq!(wire.ask(get(&origin, &basic("root", "toor"))).await.status, 200);
    assert_eq!(other.ask(get(&origin, &basic("goes", ""))).await.status, 200);
    daemon
        .reload_with(&with_static(
            &format!("{}, {{name: comes, token: ~}}", root("request_max_alive: 5")),
            "",
        ))
        .await;
    assert_eq!(wire.ask(get(&origin, &basic("root", "toor"))).await.status, 200);
    assert_eq!(other.ask(get(&origin, &basic("goes", ""))).await.status, 407);
    assert_eq!(wire.ask(get(&origin, &basic("comes", ""))).await.status, 200);
    // A file that is broken changes nothing.
    daemon.group().rewrite(&with_static("{name: x, tokn: ~}", ""));
    assert!(daemon.reload().await.is_err());
    assert_eq!(wire.ask(get(&origin, &basic("comes", ""))).await.status, 200);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn tasks_of_a_user_that_is_blocked_meanwhile_end() {
    let origin = Origin::echo();
    let silent = Origin::silent();
    let users = |keys: &str| {
        with_static(
            &format!("{{name: a, token: ~, {keys}}}"),
            "task_idle_check_interval: 100ms, task_idle_max_count: 100000",
        )
    };
    let daemon = Daemon::proxyd(&users("")).start().await;
    let mut tunnel = daemon.connect("http").await;
    tunnel
        .send(format!("CONNECT {} HTTP/1.1\r\n{}\r\n", origin.addr(), basic("a", "")))
        .await;
    assert!(tunnel.head().await.starts_with("HTTP/1.1 200 "));
    let mut waiting = daemon.connect("http").await;
    waiting.send(get(&silent, &basic("a", ""))).await;
    assert_eventually!(silent.received_text().contains("GET / "));
    assert_eq!(tunnel.echo(b"ping").await, b"ping");
    daemon.reload_with(&users("block_and_delay: 0s")).await;
    tunnel.assert_closed().await;
    let refused = waiting.answer().await;
    assert_eq!((refused.status, refused.header("connection")), (403, Some("close")));
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let mut records = stopped.log_records("Task");
    records.retain(|record| record["task_event"] == "Finished");
    assert_eq!(records.len(), 2, "{records:?}");
    for record in records {
        assert_eq!(record["reason"], "CanceledAsUserBlocked", "{record}");
    }
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

/// AU-04.
#[tokio::test]
async fn published_users_log_in_and_survive_a_reload() {
    let origin = Origin::hello("hi");
    let config = |keys: &str| with_users(&format!("static_users: [{}], cache: users.json", root(keys)), "", "");
    let daemon = Daemon::proxyd(&config("")).start().await;
    let mut wire = daemon.connect("http").await;
    assert_eq!(list_of("static", &daemon).await, json!(["root"]));
    assert_eq!(list_of("dynamic", &daemon).await, json!([]));
    let token: Value = serde_json::from_str(TOKEN_JSON).unwrap();
    let users = json!([{"name": "new", "token": token}, {"name": "root", "token": null}]);
    publish(&daemon, users).await.unwrap();
    assert_eq!(list_of("dynamic", &daemon).await, json!(["new", "root"]));
    assert_eq!(wire.ask(get(&origin, &basic("new", "toor"))).await.status, 200);
    // The static one has the name.
    assert_eq!(wire.ask(get(&origin, &basic("root", "x"))).await.status, 407);
    daemon.reload_with(&config("request_max_alive: 7")).await;
    assert_eq!(list_of("dynamic", &daemon).await, json!(["new", "root"]));
    assert_eq!(wire.ask(get(&origin, &basic("new", "toor"))).await.status, 200);
    // All or nothing.
    for (broken, told) in [
        (
            json!([{"name": "other"}, {"name": "x", "tokn": 1}]),
            "[1] `x`: unknown key `tokn`",
        ),
        (
            json!([{"name": "x"}, {"name": "x"}]),
            "[1]: the name `x` is taken already",
        ),
    ] {
        let error = publish(&daemon, broken).await.unwrap_err();
        assert!(error.message.contains(told), "{error:?}");
    }
    assert_eq!(list_of("dynamic", &daemon).await, json!(["new", "root"]));
    let unknown = daemon
        .call("user-group.list-static-user", json!({"name": "stuff"}))
        .await;
    assert!(unknown.unwrap_err().message.contains("no user group is named `stuff`"));
    // And a restart, by the file.
    let group = daemon.group().clone();
    daemon.stop().await.assert_clean();
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(group.dir().join("users.json")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let daemon = group.proxyd().await;
    assert_eq!(list_of("dynamic", &daemon).await, json!(["new", "root"]));
    let mut wire = daemon.connect("http").await;
    assert_eq!(wire.ask(get(&origin, &basic("new", "toor"))).await.status, 200);
    daemon.stop().await.assert_clean();
}

async fn list_of(kind: &str, daemon: &Daemon) -> Value {
    let listed = daemon
        .call(&format!("user-group.list-{kind}-user"), json!({"name": "staff"}))
        .await;
    listed.expect("the group is there")
}

async fn publish(daemon: &Daemon, users: Value) -> Result<Value, sluice_testkit::CtlError> {
    daemon
        .call("user-group.publish-user", json!({"name": "staff", "users": users}))
        .await
}

#[tokio::test]
async fn the_command_line_publishes_and_lists_users() {
    let daemon = Daemon::proxyd(&with_static(&root(""), "")).start().await;
    let group = daemon.group();
    let dir = group.runtime_dir();
    let dir = dir.to_str().unwrap();
    let run = async |args: &[&str]| sluicectl([&["-C", dir, "proxyd"], args].concat()).await;
    let many: Vec<Value> = (0..20_000)
        .map(|n| json!({"name": format!("user-{n:05}"), "token": SHA512}))
        .collect();
    let file = group.write_file("users.json", &Value::from(many).to_string());
    let published = run(&["user-group", "staff", "publish-user", file.to_str().unwrap()]).await;
    assert_eq!(
        (published.code, published.stdout.trim()),
        (Some(0), "notice: 20000 users published"),
        "{published:?}"
    );
    let listed = run(&["user-group", "staff", "list-dynamic-user"]).await;
    assert_eq!((listed.code, listed.stdout.lines().count()), (Some(0), 20_000));
    assert_eq!(listed.stdout.lines().next(), Some("user-00000"));
    let listed = run(&["user-group", "staff", "list-static-user"]).await;
    assert_eq!((listed.code, listed.stdout.trim()), (Some(0), "root"));
    let groups = run(&["list", "user-group"]).await;
    assert_eq!((groups.code, groups.stdout.trim()), (Some(0), "staff"));
    let broken = group.write_file("broken.json", r#"[{"name": "x", "tokn": 1}]"#);
    let refused = run(&["user-group", "staff", "publish", broken.to_str().unwrap()]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("[0] `x`: unknown key `tokn`"), "{refused:?}");
    daemon.stop().await.assert_clean();
}

/// AU-02, AU-03.
#[tokio::test]
async fn a_source_is_looked_at_again_and_a_broken_one_changes_nothing() {
    let origin = Origin::hello("hi");
    let config = |keys: &str| {
        with_users(
            &format!("source: {{type: file, path: users.yml}}, cache: cache.json, refresh_interval: 100ms{keys}"),
            "",
            "",
        )
    };
    let group = sluice_testkit::Group::new(&config(""));
    group.write_file(
        "users.yml",
        "{name: first, token: ~}\n---\n- {name: second, token: ~}\n",
    );
    let daemon = group.proxyd().await;
    let mut wire = daemon.connect("http").await;
    assert_eq!(wire.ask(get(&origin, &basic("second", ""))).await.status, 200);
    let cache = group.dir().join("cache.json");
    let cached = || serde_json::from_str::<Value>(&std::fs::read_to_string(&cache).unwrap_or_default()).ok();
    assert_eventually!(cached() == Some(json!([{"name": "first", "token": null}, {"name": "second", "token": null}])));
    group.write_file("users.yml", "- {name: third, token: ~}\n");
    assert_eventually!(list_of("dynamic", &daemon).await == json!(["third"]));
    assert_eventually!(cached() == Some(json!([{"name": "third", "token": null}])));
    group.write_file("users.yml", "- {name: fourth, token: ~}\n- {name: bad, x: 1}\n");
    assert_eventually!(daemon.stderr().contains("unknown key `x`"));
    assert_eq!(list_of("dynamic", &daemon).await, json!(["third"]));
    assert_eq!(cached(), Some(json!([{"name": "third", "token": null}])));
    // Published users are there until the next fetch.
    group.write_file("users.yml", "- {name: fifth, token: ~}\n");
    publish(&daemon, json!([{"name": "published"}])).await.unwrap();
    assert_eventually!(list_of("dynamic", &daemon).await == json!(["fifth"]));
    // Without the source nobody fetches any more, and its users are gone with it.
    let bare = with_users("cache: cache.json", "", "");
    daemon.reload_with(&bare).await;
    assert_eq!(list_of("dynamic", &daemon).await, json!([]));
    publish(&daemon, json!([{"name": "stays"}])).await.unwrap();
    for n in 0..5 {
        daemon
            .reload_with(&config(&format!(", anonymous_user: {{name: a{n}}}")))
            .await;
        daemon.reload_with(&bare).await;
    }
    publish(&daemon, json!([{"name": "stays"}])).await.unwrap();
    // Longer than any job that was left would wait.
    let mut looks = 0;
    assert_eventually!({
        looks += 1;
        assert_eq!(list_of("dynamic", &daemon).await, json!(["stays"]));
        looks > 30
    });
    daemon.stop().await.assert_clean();
}

/// AU-03.
#[tokio::test]
async fn the_cache_is_written_again_after_a_cancelled_shutdown() {
    let group = sluice_testkit::Group::new(&with_users("cache: cache.json", "", ""));
    let daemon = group.proxyd().await;
    daemon.call("offline", json!({"delay": 600.0})).await.unwrap();
    daemon.call("cancel-shutdown", Value::Null).await.unwrap();
    publish(&daemon, json!([{"name": "a"}])).await.unwrap();
    let cached = std::fs::read_to_string(group.dir().join("cache.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&cached).unwrap(), json!([{"name": "a"}]));
    // A folder that is not there is an error, and nothing changes.
    daemon
        .reload_with(&with_users("cache: nowhere/cache.json", "", ""))
        .await;
    let error = publish(&daemon, json!([{"name": "b"}])).await.unwrap_err();
    assert!(error.message.contains("cannot be written"), "{error:?}");
    assert_eq!(list_of("dynamic", &daemon).await, json!(["a"]));
    daemon.stop().await.assert_clean();
}

/// AU-12.
#[tokio::test]
async fn faults_of_users_are_told_with_their_places() {
    let config = "
resolver: [{name: dns, type: deny_all}]
escaper: [{name: out, type: direct_fixed, resolver: dns}]
server:
  - {name: http, type: http_proxy, listen: '127.0.0.1:1', escaper: out, user_group: stuff}
user_group:
  - name: staff
    refresh_interval: 0
    source: {type: file, path: nowhere.json}
    static_users:
      - {name: a, expire: tomorrow}
      - {name: b}
      - {name: b, explicit_sites: [{id: x, tls_client: {ca_certificate: nowhere.pem}}]}
      - {name: c, egress_path_id_map: {}}
  - {name: other, type: ldap}
";
    let checked = sluice_testkit::Group::new(config)
        .daemon("proxyd")
        .arg("-t")
        .run()
        .await;
    assert_eq!(checked.code, Some(78));
    for told in [
        "server[0] `http`.user_group: no user group is named `stuff`\n    did you mean `staff`?",
        "user_group[0] `staff`.static_users[0] `a`.expire: expected a time",
        "user_group[0] `staff`.static_users[3] `c`.egress_path_id_map: `egress_path_id_map` is not built yet in this version",
        "user_group[1] `other`.type: the user group type `ldap` is not built yet in this version",
    ] {
        assert!(checked.stderr.contains(told), "{told}\n---\n{}", checked.stderr);
    }
    let config = config
        .replace("{name: a, expire: tomorrow}", "{name: a}")
        .replace("{name: c, egress_path_id_map: {}}", "{name: c}");
    let checked = sluice_testkit::Group::new(&config)
        .daemon("proxyd")
        .arg("-t")
        .run()
        .await;
    for told in [
        ":13:16: user_group[0] `staff`.static_users[2] `b`.name: the name `b` is taken already, by static_users[1]",
        "user_group[0] `staff`.static_users[2] `b`.explicit_sites[0].tls_client: ",
        "user_group[0] `staff`.refresh_interval: must be more than 0",
        "user_group[0] `staff`.source: ",
    ] {
        assert!(checked.stderr.contains(told), "{told}\n---\n{}", checked.stderr);
    }
}

#[tokio::test]
async fn the_graph_shows_who_authenticates_whom() {
    let group = sluice_testkit::Group::new(&with_static(&root(""), ""));
    let graph = group.daemon("proxyd").arg("-g").run().await;
    assert_eq!(graph.code, Some(0));
    assert!(graph.stdout.contains("user_group_staff"), "{}", graph.stdout);
}
