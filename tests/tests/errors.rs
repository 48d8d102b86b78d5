//! What a client is told when its request cannot be served, and what becomes of its connection then.

use sluice_testkit::{Daemon, Origin, Wire, assert_eventually, curl};
use sluice_tests::{BlackHole, guarded_proxy, nobody, proxy};

async fn started(server: &str, escaper: &str) -> Daemon {
    Daemon::proxyd(&proxy(server, escaper)).start().await
}

/// Asks for `url`; asserts a reply of the proxy's own with this status, and whether it ends the connection.
async fn assert_reply(wire: &mut Wire, url: &str, status: u16, reason: &str, closes: bool) {
    let answer = wire.ask(format!("GET {url} HTTP/1.1\r\nHost: h.test\r\n\r\n")).await;
    assert_eq!(answer.status, status, "{url}: {}", answer.head);
    assert!(
        answer.head.starts_with(&format!("HTTP/1.1 {status} {reason}\r\n")),
        "{url}: {}",
        answer.head
    );
    assert_eq!(
        answer.header("content-type"),
        Some("text/html"),
        "{url}: {}",
        answer.head
    );
    let page = String::from_utf8_lossy(&answer.body);
    assert!(
        page.contains(&status.to_string()) && page.contains(reason),
        "{url}: {page}"
    );
    assert_eq!(
        answer.header("connection"),
        closes.then_some("close"),
        "{url}: {}",
        answer.head
    );
    if closes {
        wire.assert_closed().await;
    }
}

#[tokio::test]
async fn failures_to_connect_have_their_statuses_and_keep_the_client_connection() {
    let hole = BlackHole::on("127.0.0.1:0");
    let origin = Origin::hello("hi");
    // The origin takes a ClientHello for the beginning of a request, and waits.
    let resolverd = Daemon::resolverd(&proxy(
        "tls_client: {handshake_timeout: 300ms}",
        "tcp_connect: {max_retry: 0, each_timeout: 200ms}",
    ))
    .start()
    .await;
    let daemon = resolverd.group().proxyd().await;
    let mut wire = daemon.connect("http").await;
    for (url, status, reason) in [
        (format!("http://{}/", nobody()), 521, "Web Server Is Down"),
        (format!("https://{}/", nobody()), 521, "Web Server Is Down"),
        ("http://255.255.255.255/".into(), 523, "Origin Is Unreachable"),
        (format!("http://{}/", hole.addr()), 504, "Gateway Timeout"),
        ("http://nowhere.test/".into(), 530, "Origin DNS Error"),
        (format!("https://{}/", origin.addr()), 525, "SSL Handshake Failed"),
    ] {
        assert_reply(&mut wire, &url, status, reason, false).await;
    }
    let last = wire
        .ask(format!("GET http://{}/ HTTP/1.1\r\n\r\n", origin.addr()))
        .await;
    assert_eq!((last.status, last.body.as_slice()), (200, &b"hi"[..]));
    drop(wire);
    daemon.stop().await.assert_clean();
    resolverd.stop().await.assert_clean();
}

#[tokio::test]
async fn curl_sees_the_same() {
    let daemon = started("", "").await;
    let down = nobody();
    let answer = curl(&format!("http://{down}/")).proxy(daemon.addr("http")).run().await;
    assert_eq!((answer.exit, answer.status), (0, 521));
    let answer = curl(&format!("http://{down}/"))
        .proxy(daemon.addr("http"))
        .arg("-I")
        .run()
        .await;
    assert_eq!((answer.exit, answer.status), (0, 521));
    let answer = curl(&format!("https://{down}/")).proxy(daemon.addr("http")).run().await;
    assert_eq!((answer.exit, answer.connect_status), (56, 521));
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_failure_ends_the_connection_while_a_body_is_pending() {
    let daemon = started("", "").await;
    let down = nobody();
    for framing in [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut wire = daemon.connect("http").await;
        let answer = wire.ask(format!("POST http://{down}/ HTTP/1.1\r\n{framing}")).await;
        assert_eq!((answer.status, answer.header("connection")), (521, Some("close")));
        wire.assert_closed().await;
    }
    // An empty body is none, and the reply to HEAD has none.
    let mut wire = daemon.connect("http").await;
    let empty = format!("POST http://{down}/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(wire.ask(empty).await.header("connection"), None);
    for _ in 0..2 {
        wire.send(format!("HEAD http://{down}/ HTTP/1.1\r\n\r\n")).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 521 "));
    }
    // To an HTTP/1.0 client it says what becomes of it.
    let old = format!("GET http://{down}/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = wire.ask(old).await;
    assert_eq!(
        answer.header("connection").map(str::to_ascii_lowercase).as_deref(),
        Some("keep-alive")
    );
    let answer = wire.ask(format!("GET http://{down}/ HTTP/1.0\r\n\r\n")).await;
    assert_eq!(answer.header("connection"), Some("close"));
    wire.assert_closed().await;
    drop(wire);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn what_is_not_served_at_all_ends_the_connection() {
    let daemon = started("", "").await;
    for (url, status, reason) in [
        ("ftp://h.test/x", 501, "Not Implemented"),
        ("gopher://h.test/", 501, "Not Implemented"),
        ("/local", 501, "Not Implemented"),
        ("/.well-known/masque/udp/h.test/53/", 501, "Not Implemented"),
        ("/.well-known/easy-proxy/http/h.test", 400, "Bad Request"),
        ("http://0.0.0.0/", 403, "Forbidden"),
        ("http://[::]/", 403, "Forbidden"),
    ] {
        assert_reply(&mut daemon.connect("http").await, url, status, reason, true).await;
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn an_address_that_the_escaper_forbids_is_a_403_that_ends_the_connection() {
    let daemon = Daemon::proxyd(&guarded_proxy("", "")).start().await;
    for url in [
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://169.254.1.1/",
        "https://127.9.9.9/",
    ] {
        assert_reply(&mut daemon.connect("http").await, url, 403, "Forbidden", true).await;
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn an_origin_that_fails_before_its_answer_is_a_502() {
    let daemon = started("", "").await;
    for reset in [true, false] {
        let origin = Origin::script(move |conn| {
            conn.head()?;
            if reset { conn.reset() } else { Ok(()) }
        });
        let url = format!("http://{}/", origin.addr());
        assert_reply(&mut daemon.connect("http").await, &url, 502, "Bad Gateway", true).await;
        // Nobody has heard it on a fresh connection either, but only a kept one is a reason to try again.
        assert_eq!(origin.accepted(), 1);
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn heads_have_their_limits() {
    let origin = Origin::http(|request| {
        let long = "y".repeat(if request.target() == "/long" { 1500 } else { 10 });
        format!("HTTP/1.1 200 OK\r\nX: {long}\r\nContent-Length: 2\r\n\r\nok").into_bytes()
    });
    let daemon = started("req_header_max_size: 1KiB, rsp_header_max_size: 1KiB", "").await;
    let base = format!("http://{}/", origin.addr());
    curl(&base).proxy(daemon.addr("http")).run().await.assert(200, "ok");
    let mut wire = daemon.connect("http").await;
    let reason = "Request Header Fields Too Large";
    assert_reply(&mut wire, &format!("{base}{}", "x".repeat(1000)), 431, reason, true).await;
    let mut wire = daemon.connect("http").await;
    // One that never ends is noticed as soon as the limit is reached.
    wire.send(format!("GET {base} HTTP/1.1\r\nX: {}", "x".repeat(1000)))
        .await;
    assert_eq!(wire.answer().await.status, 431);
    assert_reply(
        &mut daemon.connect("http").await,
        &format!("{base}long"),
        502,
        "Bad Gateway",
        true,
    )
    .await;
    drop(wire);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_client_too_slow_with_its_head_gets_408() {
    let daemon = started("req_header_recv_timeout: 200ms", "").await;
    let mut wire = daemon.connect("http").await;
    wire.send("GET http://h.test/ HTTP/1.1\r\nHos").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    wire.assert_closed().await;
    drop(wire);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_client_without_a_request_is_closed_without_a_word() {
    let origin = Origin::hello("hi");
    let daemon = started("pipeline_read_idle_timeout: 200ms", "").await;
    let mut wire = daemon.connect("http").await;
    wire.assert_closed().await;
    let mut wire = daemon.connect("http").await;
    let answer = wire
        .ask(format!("GET http://{}/ HTTP/1.1\r\n\r\n", origin.addr()))
        .await;
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    wire.assert_closed().await;
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn an_origin_too_slow_with_its_answer_is_a_504() {
    let origin = Origin::silent();
    let daemon = started("rsp_header_recv_timeout: 200ms", "").await;
    let url = format!("http://{}/", origin.addr());
    assert_reply(&mut daemon.connect("http").await, &url, 504, "Gateway Timeout", true).await;
    // The time runs from the end of the request.
    let mut wire = daemon.connect("http").await;
    wire.send(format!("POST {url} HTTP/1.1\r\nContent-Length: 2\r\n\r\na"))
        .await;
    assert_eventually!(origin.received_text().ends_with("\r\n\r\na"));
    wire.send("b").await;
    assert_eq!(wire.answer().await.status, 504);
    drop(wire);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_transfer_that_stands_still_ends() {
    let origin = Origin::script(|conn| {
        conn.head()?;
        conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")?;
        while conn.some()?.is_some() {}
        Ok(())
    });
    let silent = Origin::silent();
    let daemon = started("task_idle_check_interval: 100ms, task_idle_max_count: 1", "").await;
    let mut down = daemon.connect("http").await;
    down.send(format!("GET http://{}/ HTTP/1.1\r\n\r\n", origin.addr()))
        .await;
    let mut up = daemon.connect("http").await;
    up.send(format!(
        "POST http://{}/ HTTP/1.1\r\nContent-Length: 100\r\n\r\nsome",
        silent.addr()
    ))
    .await;
    assert!(down.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(down.rest().await, b"some");
    up.assert_closed().await;
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let reasons: Vec<_> = stopped
        .log_records("Task")
        .iter()
        .map(|task| task["reason"].clone())
        .collect();
    assert_eq!(reasons, ["Idle", "Idle"]);
}

#[tokio::test]
async fn with_allow_custom_host_off_the_host_field_must_agree() {
    let origin = Origin::hello("hi");
    let daemon = started("allow_custom_host: false", "").await;
    let addr = origin.addr();
    for (host, status) in [
        (format!("Host: {addr}\r\n"), 200),
        ("Host: 127.0.0.1\r\n".into(), 200),
        ("Host: 127.0.0.1:1\r\n".into(), 200),
        (String::new(), 200),
        ("Host:\r\n".into(), 200),
        ("Host: 127.0.0.2\r\n".into(), 409),
        ("Host: h.test\r\n".into(), 409),
    ] {
        let mut wire = daemon.connect("http").await;
        let answer = wire.ask(format!("GET http://{addr}/ HTTP/1.1\r\n{host}\r\n")).await;
        assert_eq!(answer.status, status, "{host}");
    }
    assert_eq!(origin.received_text().matches("GET ").count(), 5);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn with_no_early_error_reply_a_bad_request_is_closed_without_a_word() {
    let daemon = started("no_early_error_reply: true, req_header_recv_timeout: 200ms", "").await;
    for bad in [
        "GET http://h.test/ HTTP/1.1\r\nX : y\r\n\r\n",
        "\x16\x03\x01\r\n\r\n",
        "GET gopher://h.test/ HTTP/1.1\r\n\r\n",
        "GET http://h.test/ HTT",
    ] {
        let mut wire = daemon.connect("http").await;
        wire.send(bad).await;
        wire.assert_closed().await;
    }
    // What is understood is answered.
    let mut wire = daemon.connect("http").await;
    assert_reply(
        &mut wire,
        &format!("http://{}/", nobody()),
        521,
        "Web Server Is Down",
        false,
    )
    .await;
    drop(wire);
    daemon.stop().await.assert_clean();
}
