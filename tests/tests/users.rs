//! Users through the real proxyd: who gets in, and who does not.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_testkit::{Daemon, Origin, curl, python};
use sluice_tests::users::{SHA512, basic, get, root, with_static, with_users};

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
