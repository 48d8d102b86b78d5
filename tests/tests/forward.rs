//! Requests forwarded to an origin: methods, bodies both ways, however they are framed and whoever breaks off.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_testkit::{Daemon, Nginx, Origin, assert_eventually, curl};
use sluice_tests::{Gate, chunked, noise, proxy};

async fn started() -> Daemon {
    Daemon::proxyd(&proxy("", "")).start().await
}

fn reply(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes(), body].concat()
}

fn by_length(body: &[u8]) -> Vec<u8> {
    reply(&format!("Content-Length: {}\r\n", body.len()), body)
}

#[tokio::test]
async fn curl_gets_heads_posts_and_puts() {
    let origin = Origin::http(|request| {
        let body = String::from_utf8_lossy(&request.body);
        let text = format!("{} {} [{body}]", request.method(), request.target());
        let body = if request.method() == "HEAD" { "" } else { &text };
        reply(
            &format!("Content-Length: {}\r\nX-It: 1\r\n", text.len()),
            body.as_bytes(),
        )
    });
    let daemon = started().await;
    let addr = daemon.addr("http");
    let url = format!("http://{}/a?b=c", origin.addr());
    curl(&url).proxy(addr).run().await.assert(200, "GET /a?b=c []");
    let head = curl(&url).proxy(addr).arg("-I").run().await;
    assert_eq!((head.exit, head.status), (0, 200));
    assert_eq!(
        (head.header("x-it"), head.header("content-length")),
        (Some("1"), Some("14"))
    );
    let post = curl(&url).proxy(addr).args(["-d", "x=1&y=2"]).run().await;
    post.assert(200, "POST /a?b=c [x=1&y=2]");
    let file = daemon.group().write_file("small", "content");
    let put = curl(&url).proxy(addr).arg("-T").arg(&file).run().await;
    put.assert(200, "PUT /a?b=c [content]");
    for method in ["DELETE", "PATCH", "OPTIONS", "BREW"] {
        let answer = curl(&url).proxy(addr).args(["-X", method]).run().await;
        answer.assert(200, &format!("{method} /a?b=c []"));
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn nginx_serves_and_takes_files() {
    let nginx = Nginx::start().await;
    let daemon = started().await;
    let addr = daemon.addr("http");
    let base = format!("http://{}", nginx.addr());
    curl(&format!("{base}/hello.txt"))
        .proxy(addr)
        .run()
        .await
        .assert(200, "hello\n");
    let range = curl(&format!("{base}/hello.txt"))
        .proxy(addr)
        .args(["-r", "1-3"])
        .run()
        .await;
    range.assert(206, "ell");
    let missing = curl(&format!("{base}/missing")).proxy(addr).run().await;
    assert_eq!((missing.exit, missing.status), (0, 404));
    let file = daemon.group().write_file("up", "kept");
    let put = curl(&format!("{base}/put/x"))
        .proxy(addr)
        .arg("-T")
        .arg(&file)
        .run()
        .await;
    assert_eq!((put.exit, put.status), (0, 201));
    curl(&format!("{base}/put/x"))
        .proxy(addr)
        .run()
        .await
        .assert(200, "kept");
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn ten_megabytes_go_up_by_length_and_in_chunks() {
    let body = Arc::new(noise(10 << 20));
    let wanted = Arc::clone(&body);
    let origin = Origin::http(move |request| {
        let framing = request
            .header("transfer-encoding")
            .or_else(|| request.header("content-length"));
        let same = if request.body == *wanted { "same" } else { "another" };
        by_length(format!("{same} {}", framing.unwrap_or("none")).as_bytes())
    });
    let daemon = started().await;
    let addr = daemon.addr("http");
    let file = daemon.group().dir().join("body");
    fs::write(&file, &*body).unwrap();
    let url = format!("http://{}/", origin.addr());
    let put = curl(&url).proxy(addr).arg("-T").arg(&file).run().await;
    put.assert(200, "same 10485760");
    let put = curl(&url)
        .proxy(addr)
        .header("Transfer-Encoding: chunked")
        .arg("-T")
        .arg(&file)
        .run()
        .await;
    put.assert(200, "same chunked");
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn fifty_megabytes_come_down_by_length_in_chunks_and_until_close() {
    let body = Arc::new(noise(50 << 20));
    let sent = Arc::clone(&body);
    let origin = Origin::http(move |request| match request.target() {
        "/length" => by_length(&sent),
        "/chunks" => reply("Transfer-Encoding: chunked\r\n", &chunked(&sent, 65_521, "")),
        _ => reply("Connection: close\r\n", &sent),
    });
    let daemon = started().await;
    for target in ["/length", "/chunks", "/close"] {
        let answer = curl(&format!("http://{}{target}", origin.addr()))
            .proxy(daemon.addr("http"))
            .run()
            .await;
        assert_eq!(
            (answer.exit, answer.status, answer.body.len()),
            (0, 200, body.len()),
            "{target}"
        );
        assert!(answer.body == *body, "{target}: other bytes");
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn chunks_go_both_ways_at_once() {
    let body = noise(3 << 20);
    let origin = Origin::http(|request| {
        reply(
            "Transfer-Encoding: chunked\r\n",
            &chunked(&request.body, 1000, "X-Sum: 1\r\n"),
        )
    });
    let daemon = started().await;
    let addr = origin.addr();
    let mut wire = daemon.connect("http").await;
    for size in [777, 100_000] {
        wire.send(format!(
            "POST http://{addr}/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        ))
        .await;
        wire.send(chunked(&body, size, "X-Up: 1\r\n")).await;
        let answer = wire.answer().await;
        assert!(answer.body == body && answer.trailers == "X-Sum: 1\r\n");
    }
    assert_eq!(origin.accepted(), 1);
    daemon.stop().await.assert_clean();
}

/// H1-02, H1-03.
#[tokio::test]
async fn trailers_pass_byte_by_byte_and_the_connections_stay_in_step() {
    let request_body = "5;x\r\nhello\r\n0\r\nA: 1\r\nB: 2\r\n\r\n";
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nC: 3\r\nD: 4\r\n\r\n";
    let origin = Origin::script(move |conn| {
        while conn.until(request_body)?.is_some() {
            conn.write_pieces(response.as_bytes().chunks(1))?;
        }
        Ok(())
    });
    let daemon = started().await;
    let addr = origin.addr();
    let mut wire = daemon.connect("http").await;
    let head = format!("POST http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        for byte in head.bytes().chain(request_body.bytes()) {
            wire.send([byte]).await;
        }
        assert_eq!(String::from_utf8_lossy(&wire.exactly(response.len()).await), response);
    }
    let got = format!("POST / HTTP/1.1\r\nHost: {addr}\r\nTransfer-Encoding: chunked\r\n\r\n{request_body}");
    assert_eq!(origin.received_text(), got.repeat(3));
    assert_eq!(origin.accepted(), 1);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_response_may_begin_before_the_request_ends() {
    let origin = Origin::script(|conn| {
        conn.head()?;
        conn.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        while let Some(line) = conn.until("\r\n")?.filter(|line| line != "0\r\n") {
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let bytes = conn.exactly(size + 2)?;
            conn.write(&[line.as_bytes(), &bytes].concat())?;
        }
        conn.until("\r\n")?;
        conn.write(b"0\r\n\r\n")
    });
    let daemon = started().await;
    let mut wire = daemon.connect("http").await;
    wire.send(format!(
        "POST http://{}/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        origin.addr()
    ))
    .await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for piece in ["3\r\nabc\r\n", "5\r\nhello\r\n", "1\r\n!\r\n"] {
        assert_eq!(wire.echo(piece.as_bytes()).await, piece.as_bytes());
    }
    wire.send("0\r\n\r\n").await;
    assert_eq!(wire.exactly(5).await, b"0\r\n\r\n");
    daemon.stop().await.assert_clean();
}

/// H1-10.
#[tokio::test]
async fn a_body_that_ends_by_close_is_forwarded_as_it_comes_and_to_its_end() {
    let gate = Gate::new();
    let waits = gate.clone();
    let origin = Origin::script(move |conn| {
        conn.head()?;
        conn.write(b"HTTP/1.1 200 OK\r\n\r\nfirst")?;
        waits.pass()?;
        conn.write(b" and last")
    });
    let daemon = started().await;
    let mut wire = daemon.connect("http").await;
    wire.send(format!("GET http://{}/ HTTP/1.1\r\n\r\n", origin.addr()))
        .await;
    assert_eq!(wire.head().await, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    assert_eq!(wire.exactly(5).await, b"first");
    gate.open();
    assert_eq!(wire.rest().await, b" and last");
    daemon.stop().await.assert_clean();
}

/// H1-10.
#[tokio::test]
async fn a_client_that_goes_away_inside_the_body_takes_the_upstream_connection_along() {
    let gone = Arc::new(AtomicBool::new(false));
    let noticed = Arc::clone(&gone);
    let origin = Origin::script(move |conn| {
        conn.head()?;
        conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")?;
        let piece = vec![b'x'; 64 << 10];
        while conn.write(&piece).is_ok() {}
        noticed.store(true, Ordering::SeqCst);
        Ok(())
    });
    let daemon = started().await;
    let mut wire = daemon.connect("http").await;
    wire.send(format!("GET http://{}/ HTTP/1.1\r\n\r\n", origin.addr()))
        .await;
    wire.exactly(1 << 20).await;
    drop(wire);
    assert_eventually!(gone.load(Ordering::SeqCst));
    assert_eventually!(
        daemon
            .log_records("Task")
            .iter()
            .any(|task| task["reason"] == "ClientTcpWriteFailed")
    );
    daemon.stop().await.assert_clean();
}

/// H1-10.
#[tokio::test]
async fn a_client_that_goes_away_inside_its_upload_takes_the_upstream_connection_along() {
    let gone = Arc::new(AtomicBool::new(false));
    let noticed = Arc::clone(&gone);
    let origin = Origin::script(move |conn| {
        while conn.some()?.is_some() {}
        noticed.store(true, Ordering::SeqCst);
        Ok(())
    });
    let daemon = started().await;
    let mut wire = daemon.connect("http").await;
    wire.send(format!(
        "POST http://{}/ HTTP/1.1\r\nContent-Length: 100\r\n\r\nhello",
        origin.addr()
    ))
    .await;
    assert_eventually!(origin.received_text().ends_with("hello"));
    drop(wire);
    assert_eventually!(gone.load(Ordering::SeqCst));
    assert_eventually!(
        daemon
            .log_records("Task")
            .iter()
            .any(|task| task["reason"] == "ClosedEarlyByClient")
    );
    daemon.stop().await.assert_clean();
}

/// H1-11.
#[tokio::test]
async fn a_response_reaches_the_client_as_far_as_it_came_before_a_reset() {
    let gate = Gate::new();
    let waits = gate.clone();
    let origin = Origin::script(move |conn| {
        let target = conn.head()?.unwrap_or_default();
        conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")?;
        if target.contains("/late") {
            waits.pass()?;
        }
        conn.reset()
    });
    let daemon = started().await;
    for target in ["/late", "/at-once"] {
        let mut wire = daemon.connect("http").await;
        wire.send(format!("GET http://{}{target} HTTP/1.1\r\n\r\n", origin.addr()))
            .await;
        let head = wire.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(wire.exactly(4).await, b"some");
        gate.open();
        wire.assert_closed().await;
    }
    let daemon = daemon.stop().await;
    daemon.assert_clean();
    for task in daemon.log_records("Task") {
        assert!(
            ["UpstreamReadFailed", "ClosedByUpstream"].contains(&task["reason"].as_str().unwrap()),
            "{task}"
        );
    }
}

/// H1-11.
#[tokio::test]
async fn an_early_refusal_reaches_a_client_that_is_still_sending() {
    let origin = Origin::script(|conn| {
        let head = conn.head()?.unwrap_or_default();
        conn.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nsmall")?;
        if head.contains("/reset") { conn.reset() } else { Ok(()) }
    });
    let daemon = started().await;
    let file = daemon.group().dir().join("body");
    fs::write(&file, noise(10 << 20)).unwrap();
    for target in ["/reset", "/close"] {
        let put = curl(&format!("http://{}{target}", origin.addr()))
            .proxy(daemon.addr("http"))
            .header("Expect:")
            .arg("-T")
            .arg(&file)
            .run()
            .await;
        assert_eq!((put.status, put.text().as_str()), (413, "small"), "{target}: {put:?}");
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_refusal_waits_for_a_client_that_sends_all_before_it_reads() {
    let daemon = started().await;
    let body = noise(16 << 20);
    let mut wire = daemon.connect("http").await;
    wire.send(format!(
        "PUT http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ))
    .await;
    wire.send(&body).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 5"));
    drop(wire);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn an_http_1_0_client_gets_chunks_as_a_body_until_close() {
    let body = noise(100_000);
    let response = reply(
        "Transfer-Encoding: chunked\r\nX-It: 1\r\n",
        &chunked(&body, 333, "T: 1\r\n"),
    );
    let origin = Origin::http(move |_| response.clone());
    let daemon = started().await;
    for connection in ["", "Connection: keep-alive\r\n"] {
        let mut wire = daemon.connect("http").await;
        wire.send(format!("GET http://{}/ HTTP/1.0\r\n{connection}\r\n", origin.addr()))
            .await;
        assert_eq!(
            wire.head().await,
            "HTTP/1.1 200 OK\r\nX-It: 1\r\nConnection: close\r\n\r\n"
        );
        assert!(wire.rest().await == body);
    }
    let old = curl(&format!("http://{}/", origin.addr()))
        .proxy(daemon.addr("http"))
        .arg("-0")
        .run()
        .await;
    assert_eq!((old.exit, old.status), (0, 200));
    assert!(old.body == body);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn an_http_1_0_client_keeps_its_connection_if_it_asks_and_the_length_is_known() {
    let origin = Origin::hello("hi");
    let daemon = started().await;
    let addr = origin.addr();
    let mut wire = daemon.connect("http").await;
    for _ in 0..3 {
        let answer = wire
            .ask(format!("GET http://{addr}/ HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"))
            .await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hi"[..]));
        assert_eq!(
            answer.header("connection").map(str::to_ascii_lowercase).as_deref(),
            Some("keep-alive")
        );
    }
    let answer = wire.ask(format!("GET http://{addr}/ HTTP/1.0\r\n\r\n")).await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    wire.assert_closed().await;
    drop(wire);
    daemon.stop().await.assert_clean();
}
