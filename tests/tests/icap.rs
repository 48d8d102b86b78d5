//! Messages that ICAP services adapt: proxyd with icap-stub.

use std::fs;

use serde_json::Value;
use sluice_testkit::{Origin, assert_eventually, curl};
use sluice_tests::icap::{Pair, mirror, post};
use sluice_tests::{Gate, chunked, finished, nobody, noise};

#[tokio::test]
async fn curl_sees_what_rules_do_to_requests_and_responses() {
    let origin = mirror();
    let pair = Pair::start(Some("edit"), Some("edit"), "").await;
    let addr = pair.proxyd.addr("http");
    let get = |path: &str| curl(&format!("http://{}{path}", origin.addr())).proxy(addr).run();
    let seen = get("/a").await;
    assert_eq!(
        (seen.status, seen.header("x-origin-saw"), seen.header("x-seen")),
        (200, Some("yes"), Some("yes"))
    );
    let blocked = get("/bad").await;
    blocked.assert(451, "<p>no</p>");
    assert_eq!(blocked.header("x-method"), None);
    get("/page").await.assert(403, "<p>bad page</p>");
    let new = get("/new").await;
    new.assert(200, "new body");
    assert_eq!(new.header("x-new"), Some("1"));
    get("/slow").await.assert(200, "");
    for path in ["/close", "/fail"] {
        assert_eq!(get(path).await.status, 500, "{path}");
    }
    assert_eventually!(finished(&pair.proxyd).len() == 7, "{:?}", finished(&pair.proxyd));
    let reasons: Vec<Value> = finished(&pair.proxyd)
        .iter()
        .map(|task| task["reason"].clone())
        .collect();
    assert_eq!(reasons[5..], ["InternalAdapterError", "InternalAdapterError"]);
    assert!(reasons[..5].iter().all(|reason| reason == "Finished"), "{reasons:?}");
    // What a kept connection was closed upon is asked once more on a new one.
    let status = pair.stub.status().await;
    assert_eq!(
        (&status["requests"]["reqmod"], &status["answers"]["blocked"]),
        (&8.into(), &2.into()),
        "{status}"
    );
    pair.stop().await;
}

#[tokio::test]
async fn bodies_of_every_size_pass_unchanged_by_every_kind_of_service() {
    // IC-01, IC-03, IC-04
    let origin = mirror();
    for service in ["same", "echo", "zero", "four", "whole"] {
        let pair = Pair::start(Some(service), Some(service), "").await;
        let mut wire = pair.proxyd.connect("http").await;
        for size in (0..=100).chain([1023, 1024, 1025, 4096, 70_000]) {
            let body = noise(size);
            let by_length = post(&mut wire, &origin, &format!("Content-Length: {size}\r\n"), &body).await;
            assert!(by_length.status == 200 && by_length.body == body, "{service} {size}");
            let in_chunks = chunked(&body, 999, "");
            let by_chunks = post(&mut wire, &origin, "Transfer-Encoding: chunked\r\n", &in_chunks).await;
            assert!(
                by_chunks.status == 200 && by_chunks.body == body,
                "{service} {size} in chunks"
            );
        }
        // All on the same connections.
        let status = pair.stub.status().await;
        assert!(
            status["connections"].as_u64().is_some_and(|count| count <= 4),
            "{service}: {status}"
        );
        drop(wire);
        pair.stop().await;
    }
}

#[tokio::test]
async fn much_more_than_fits_anywhere_passes_both_ways_at_once() {
    let origin = Origin::http(|request| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        [head, chunked(&request.body, 60_000, "")].concat()
    });
    for service in ["echo", "whole"] {
        let pair = Pair::start(Some(service), Some(service), "").await;
        let body = noise(20_000_000);
        let file = pair.proxyd.group().dir().join("large");
        fs::write(&file, &body).unwrap();
        let answer = curl(&format!("http://{}/", origin.addr()))
            .proxy(pair.proxyd.addr("http"))
            .arg("-T")
            .arg(&file)
            .run()
            .await;
        assert!(
            answer.status == 200 && answer.body == body,
            "{service}: {}",
            answer.stderr
        );
        pair.stop().await;
    }
}

#[tokio::test]
async fn trailers_pass_with_their_bodies() {
    let origin = Origin::script(|conn| {
        while let Some(head) = conn.head()? {
            assert!(head.contains("Transfer-Encoding: chunked"), "{head}");
            let body = conn.until("\r\n\r\n")?.unwrap_or_default();
            assert!(body.ends_with("0\r\nX-Up: 1\r\n\r\n"), "{body}");
            conn.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Down: 2\r\n\r\n")?;
        }
        Ok(())
    });
    for service in ["same", "echo", "zero"] {
        let pair = Pair::start(Some(service), Some(service), "").await;
        let mut wire = pair.proxyd.connect("http").await;
        let head = format!(
            "POST http://{0}/ HTTP/1.1\r\nHost: {0}\r\nTransfer-Encoding: chunked\r\n\r\n",
            origin.addr()
        );
        wire.send([head.as_bytes(), b"3\r\nabc\r\n0\r\nX-Up: 1\r\n\r\n"].concat())
            .await;
        wire.head().await;
        assert_eq!(
            wire.until("\r\n\r\n").await,
            "2\r\nok\r\n0\r\nX-Down: 2\r\n\r\n",
            "{service}"
        );
        drop(wire);
        pair.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_and_one_that_is_late_lose_nothing() {
    // IC-05
    let origin = mirror();
    let pair = Pair::start(Some("edit"), None, "").await;
    let url = format!("http://{}/a", origin.addr());
    let answer = curl(&url)
        .proxy(pair.proxyd.addr("http"))
        .args(["-H", "Expect: 100-continue", "-d", "x=1"])
        .run()
        .await;
    answer.assert(200, "x=1");
    let mut wire = pair.proxyd.connect("http").await;
    let head = format!("POST {url} HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n");
    wire.send(head).await;
    assert_eq!(wire.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    wire.send("abc").await;
    wire.send("def").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"abcdef"[..]));
    assert!(!origin.received_text().to_lowercase().contains("expect"));
    drop(wire);
    pair.stop().await;
}

#[tokio::test]
async fn events_of_a_response_are_not_held_back() {
    for service in ["zero", "whole"] {
        let gate = Gate::new();
        let pass = gate.clone();
        let origin = Origin::script(move |conn| {
            conn.head()?;
            conn.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            conn.write(b"9\r\ndata: 1\n\n\r\n")?;
            pass.pass()?;
            conn.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
        });
        let pair = Pair::start(None, Some(service), "").await;
        let mut wire = pair.proxyd.connect("http").await;
        let head = format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr());
        wire.send(head).await;
        wire.head().await;
        assert_eq!(wire.until("data: 1\n\n\r\n").await, "9\r\ndata: 1\n\n\r\n");
        gate.open();
        assert_eq!(wire.until("0\r\n\r\n").await, "9\r\ndata: 2\n\n\r\n0\r\n\r\n");
        drop(wire);
        pair.stop().await;
    }
}

#[tokio::test]
async fn requests_inside_of_a_tunnel_are_adapted_too() {
    let origin = mirror();
    let pair = Pair::start(Some("edit"), Some("edit"), "").await;
    let addr = pair.proxyd.addr("http");
    let get = |path: &str| curl(&format!("http://{}{path}", origin.addr())).tunnel(addr).run();
    let seen = get("/a").await;
    assert_eq!(
        (seen.status, seen.header("x-origin-saw"), seen.header("x-seen")),
        (200, Some("yes"), Some("yes"))
    );
    get("/bad").await.assert(451, "<p>no</p>");
    get("/new").await.assert(200, "new body");
    pair.stop().await;
}

#[tokio::test]
async fn a_connection_goes_on_after_a_blocked_request() {
    let origin = mirror();
    let pair = Pair::start(Some("edit"), None, "").await;
    let mut wire = pair.proxyd.connect("http").await;
    for (path, status) in [("/bad", 451), ("/a", 200), ("/bad", 451), ("/b", 200)] {
        let head = format!("GET http://{0}{path} HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr());
        assert_eq!(wire.ask(head).await.status, status);
    }
    // A body that nobody has read ends it.
    let head = format!(
        "POST http://{0}/bad HTTP/1.1\r\nHost: {0}\r\nContent-Length: 100000\r\n\r\n",
        origin.addr()
    );
    let answer = wire.ask([head.as_bytes(), &noise(3000)].concat()).await;
    assert_eq!((answer.status, answer.header("connection")), (451, Some("close")));
    drop(wire);
    pair.stop().await;
}

#[tokio::test]
async fn a_request_that_is_not_let_through_opens_no_connection() {
    let origin = mirror();
    let pair = Pair::start(Some("edit"), Some("edit"), "").await;
    let url = |path: &str| format!("http://{}{path}", origin.addr());
    let mut wire = pair.proxyd.connect("http").await;
    for (path, status) in [("/bad", 451), ("/bad", 451), ("/fail", 500)] {
        let head = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", url(path), origin.addr());
        assert_eq!(wire.ask(head).await.status, status);
    }
    assert_eq!(origin.accepted(), 0);
    assert_eventually!(finished(&pair.proxyd).len() == 3);
    let blocked = &finished(&pair.proxyd)[0];
    assert_eq!(
        (&blocked["reason"], &blocked["rsp_status"], &blocked["origin_status"]),
        (&"Finished".into(), &451.into(), &0.into()),
        "{blocked}"
    );
    // An upstream that is not there is told as without services, and only for what may go there.
    let gone = nobody();
    let get = |path: &str| {
        curl(&format!("http://{gone}{path}"))
            .proxy(pair.proxyd.addr("http"))
            .run()
    };
    get("/bad").await.assert(451, "<p>no</p>");
    assert_eq!(get("/a").await.status, 521);
    pair.stop().await;
}

#[tokio::test]
async fn a_request_goes_where_its_client_wants_whatever_host_a_service_names() {
    let origin = mirror();
    let pair = Pair::start(Some("edit"), None, "").await;
    let answer = curl(&format!("http://{}/host", origin.addr()))
        .proxy(pair.proxyd.addr("http"))
        .run()
        .await;
    answer.assert(200, "");
    let heard = origin.received_text();
    assert!(heard.contains("\r\nHost: other.test\r\n"), "{heard}");
    pair.stop().await;
}

#[tokio::test]
async fn a_request_that_a_dead_connection_has_lost_is_sent_again_without_asking_twice() {
    let origin = Origin::script(|conn| {
        conn.head()?;
        conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        // It is kept, and closed on the next request without a word.
        conn.head()?;
        Ok(())
    });
    let pair = Pair::start(Some("same"), None, "").await;
    let mut wire = pair.proxyd.connect("http").await;
    let head = |method: &str| format!("{method} http://{0}/a HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr());
    for _ in 0..2 {
        assert_eq!(wire.ask(head("GET")).await.status, 200);
    }
    assert_eq!(origin.accepted(), 2);
    assert_eq!(pair.stub.status().await["requests"]["reqmod"], 2);
    // What may not be sent twice is not.
    assert_eq!(wire.ask(head("POST")).await.status, 502);
    assert_eq!(origin.accepted(), 2);
    drop(wire);
    pair.stop().await;
}

#[tokio::test]
async fn heads_without_bodies_stay_without() {
    let origin = Origin::http(|request| match request.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n".to_vec(),
    });
    for service in ["same", "echo", "edit"] {
        let pair = Pair::start(Some(service), Some(service), "").await;
        let mut wire = pair.proxyd.connect("http").await;
        for (method, path, status, length) in [
            ("HEAD", "/", 200, Some("7")),
            ("GET", "/204", 204, None),
            ("GET", "/304", 304, Some("7")),
        ] {
            wire.send(format!(
                "{method} http://{0}{path} HTTP/1.1\r\nHost: {0}\r\n\r\n",
                origin.addr()
            ))
            .await;
            let head = wire.head().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{service}: {head}");
            let has = length.is_none_or(|length| head.contains(&format!("Content-Length: {length}\r\n")));
            assert!(has && !head.contains("Transfer-Encoding"), "{service}: {head}");
        }
        drop(wire);
        pair.stop().await;
    }
}

#[tokio::test]
async fn websockets_pass_and_the_service_is_told() {
    // IC-12
    let origin = Origin::script(|conn| {
        let head = conn.head()?.unwrap_or_default();
        assert!(
            head.contains("Upgrade: websocket\r\n") && head.contains("X-Seen: yes\r\n"),
            "{head}"
        );
        conn.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi")?;
        let bytes = conn.exactly(4)?;
        conn.write(&bytes)
    });
    let pair = Pair::start(Some("edit"), Some("edit"), "").await;
    let mut wire = pair.proxyd.connect("http").await;
    let head = format!(
        "GET http://{0}/ws HTTP/1.1\r\nHost: {0}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        origin.addr()
    );
    wire.send(head).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(wire.exactly(2).await, b"hi");
    assert_eq!(wire.echo(b"ping").await, b"ping");
    drop(wire);
    pair.stop().await;
}
