//! HTTP/1 interception: requests found inside of a tunnel go on as they came, as strictly framed as everywhere.

use serde_json::{Value, json};
use sluice_testkit::{Daemon, Origin, Wire, assert_eventually};
use sluice_tests::{chunked, finished, noise, proxy};

/// A proxy that looks into tunnels, with more keys of its auditor.
async fn looking(keys: &str) -> Daemon {
    let yaml = format!("{}auditor:\n  - {{name: audit, {keys}}}\n", proxy("auditor: audit", ""));
    Daemon::proxyd(&yaml).start().await
}

/// A tunnel to `origin`.
async fn tunnel(proxyd: &Daemon, origin: &Origin) -> Wire {
    proxyd.http_connect(origin.addr()).await
}

fn intercepted(proxyd: &Daemon, kind: &str) -> Vec<Value> {
    let mut records = proxyd.log_records("Intercept");
    records.retain(|record| record["intercept_type"] == kind);
    records
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// H1-01, H1-18.
#[tokio::test]
async fn targets_go_on_as_they_came() {
    let origin = Origin::http(|_| ok(""));
    let proxyd = looking("").await;
    let addr = origin.addr();
    for (sent, received) in [
        ("GET /a?b HTTP/1.1", "GET /a?b HTTP/1.1"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"),
        (&format!("OPTIONS http://{addr} HTTP/1.1"), "OPTIONS * HTTP/1.1"),
        (&format!("GET http://{addr}/x HTTP/1.1"), "GET /x HTTP/1.1"),
        ("GET http://other.test/x HTTP/1.1", "GET http://other.test/x HTTP/1.1"),
        ("BREW /pot HTTP/1.1", "BREW /pot HTTP/1.1"),
        ("GET /old HTTP/1.0", "GET /old HTTP/1.1"),
    ] {
        let mut wire = tunnel(&proxyd, &origin).await;
        let answer = wire
            .ask(format!("{sent}\r\nHost: {addr}\r\nX-A: 1\r\nX-A: 2\r\n\r\n"))
            .await;
        assert_eq!(answer.status, 200, "{sent}");
        let got = String::from_utf8(origin.received().pop().unwrap()).unwrap();
        assert!(got.starts_with(&format!("{received}\r\n")), "{sent}: {got}");
        assert!(got.contains(&format!("Host: {addr}\r\nX-A: 1\r\nX-A: 2\r\n")), "{got}");
    }
    let mut wire = tunnel(&proxyd, &origin).await;
    assert_eq!(wire.ask("GET / HTTP/1.1\r\nHost:\r\n\r\n").await.status, 200);
    proxyd.stop().await.assert_clean();
}

/// H1-02.
#[tokio::test]
async fn bodies_trailers_and_pipelines_stay_in_step() {
    let body = noise(300_000);
    let answer = body.clone();
    let origin = Origin::script(move |conn| {
        while let Some(request) = conn.request()? {
            assert!(request.body == answer || request.body.is_empty());
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n";
            conn.write(head.as_bytes())?;
            conn.write(&chunked(&answer, 5000, "X-T: end\r\n"))?;
        }
        Ok(())
    });
    let proxyd = looking("").await;
    let mut wire = tunnel(&proxyd, &origin).await;
    let post = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    wire.send(post).await;
    wire.send(chunked(&body, 777, "X-U: 1\r\nX-V: 2\r\n")).await;
    assert!(wire.answer().await.body == body);
    // Sent ahead, answered in turn.
    wire.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    for _ in 0..3 {
        assert!(wire.answer().await.body == body);
    }
    assert_eq!(origin.accepted(), 1);
    let text = origin.received_text();
    assert!(text.contains("X-U: 1\r\nX-V: 2\r\n"));
    drop(wire);
    assert_eventually!(intercepted(&proxyd, "HttpForward").len() == 4);
    let record = &intercepted(&proxyd, "HttpForward")[3];
    assert_eq!(
        (&record["request_id"], &record["uri"], &record["host"], &record["depth"]),
        (&json!(4), &json!("/3"), &json!("a"), &json!(1))
    );
    assert_eventually!(finished(&proxyd).len() == 1);
    let task = &finished(&proxyd)[0];
    assert!(task["c_wr_bytes"].as_u64().unwrap() > 4 * 300_000, "{task}");
    assert!(task["r_rd_bytes"].as_u64().unwrap() > 4 * 300_000, "{task}");
    let connection = &intercepted(&proxyd, "H1Connection")[0];
    assert_eq!(
        (&connection["current_req_id"], &connection["msg"]),
        (&json!(4), &json!("finished"))
    );
    proxyd.stop().await.assert_clean();
}

/// H1-09, H1-12.
#[tokio::test]
async fn interim_responses_expectations_and_empty_answers_pass() {
    let origin = Origin::script(|conn| {
        while let Some(head) = conn.head()? {
            if head.starts_with("PUT") {
                conn.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                conn.exactly(5)?;
                conn.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")?;
            } else if head.starts_with("HEAD") {
                conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n")?;
            } else {
                conn.write(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")?;
            }
        }
        Ok(())
    });
    let proxyd = looking("").await;
    let mut wire = tunnel(&proxyd, &origin).await;
    wire.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .await;
    assert!(wire.head().await.starts_with("HTTP/1.1 100 "));
    wire.send("12345").await;
    assert!(wire.head().await.starts_with("HTTP/1.1 103 "));
    assert!(wire.head().await.starts_with("HTTP/1.1 204 "));
    wire.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(wire.head().await.contains("Content-Length: 50"));
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(wire.head().await.starts_with("HTTP/1.1 304 "));
    assert_eq!(origin.accepted(), 1);
    proxyd.stop().await.assert_clean();
}

/// H1-04, H1-05: nothing of it is sent on.
#[tokio::test]
async fn a_request_that_could_be_read_in_two_ways_is_refused() {
    let origin = Origin::http(|_| ok("secret"));
    let proxyd = looking("").await;
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        // No ALPN says that this is HTTP, and some servers take it.
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\n\r\n GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\n",
    ] {
        let mut wire = tunnel(&proxyd, &origin).await;
        let answer = wire.ask(request).await;
        assert_eq!(
            (answer.status, answer.header("connection")),
            (400, Some("close")),
            "{request}"
        );
        wire.assert_closed().await;
    }
    assert!(origin.received_text().is_empty(), "{}", origin.received_text());
    proxyd.stop().await.assert_clean();
}

/// H1-06, H1-10.
#[tokio::test]
async fn an_answer_without_a_known_end_ends_with_its_connection() {
    let origin = Origin::script(|conn| {
        conn.request()?;
        conn.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 3\r\n\r\nlonger than three")
    });
    let proxyd = looking("").await;
    let mut wire = tunnel(&proxyd, &origin).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    let rest = String::from_utf8(wire.rest().await).unwrap();
    assert!(rest.ends_with("\r\n\r\nlonger than three"), "{rest}");
    assert!(!rest.contains("Content-Length"), "{rest}");
    proxyd.stop().await.assert_clean();
}

#[tokio::test]
async fn an_upstream_that_closes_between_requests_is_a_close_to_the_client() {
    let origin = Origin::script(|conn| {
        conn.request()?;
        conn.write(&ok("one"))
    });
    let proxyd = looking("").await;
    let mut wire = tunnel(&proxyd, &origin).await;
    assert_eq!(wire.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 200);
    wire.assert_closed().await;
    // One that says so beforehand has said so to the client, too.
    let origin = Origin::http(|_| b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec());
    let mut wire = tunnel(&proxyd, &origin).await;
    let answer = wire.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    wire.assert_closed().await;
    proxyd.stop().await.assert_clean();
}

#[tokio::test]
async fn what_is_no_answer_is_a_502_and_silence_a_504() {
    let proxyd = looking("h1_interception: {rsp_header_recv_timeout: 300ms, req_header_recv_timeout: 300ms}").await;
    let junk = Origin::script(|conn| {
        conn.request()?;
        conn.write(b"SSH-2.0-nonsense\r\n")
    });
    let silent = Origin::script(|conn| {
        conn.request()?;
        conn.request().map(drop)
    });
    for (origin, status) in [(&junk, 502), (&silent, 504)] {
        let mut wire = tunnel(&proxyd, origin).await;
        assert_eq!(wire.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, status);
        wire.assert_closed().await;
    }
    let mut wire = tunnel(&proxyd, &silent).await;
    wire.send("GET / HTTP/1.1\r\nHost: ").await;
    assert_eq!(wire.answer().await.status, 408);
    proxyd.stop().await.assert_clean();
}

/// CU-02, CU-03.
#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_and_a_refused_one_leaves_the_connection_in_step() {
    let origin = Origin::script(|conn| {
        while let Some(request) = conn.request()? {
            match request.target() {
                "/ws" => {
                    assert_eq!(request.header("upgrade"), Some("websocket"));
                    conn.write(
                        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                          Sec-WebSocket-Protocol: chat\r\n\r\nfirst",
                    )?;
                    while let Some(bytes) = conn.some()? {
                        conn.write(&bytes)?;
                    }
                }
                "/h2c" => {
                    assert_eq!(request.header("upgrade"), None);
                    conn.write(&ok("no h2c"))?;
                }
                "/no" => conn.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope")?,
                _ => conn.write(&ok("plain"))?,
            }
        }
        Ok(())
    });
    let proxyd = looking("").await;
    let mut wire = tunnel(&proxyd, &origin).await;
    let upgrade = |path: &str, to: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {to}\r\nOrigin: http://b\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        )
    };
    let refused = wire.ask(upgrade("/no", "websocket")).await;
    assert_eq!((refused.status, refused.body.as_slice()), (403, &b"nope"[..]));
    assert_eq!(wire.ask(upgrade("/h2c", "h2c")).await.body, b"no h2c");
    assert_eq!(wire.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.body, b"plain");
    wire.send(upgrade("/ws", "websocket")).await;
    let head = wire.head().await;
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.contains("Upgrade: websocket"),
        "{head}"
    );
    assert_eq!(wire.exactly(5).await, b"first");
    assert_eq!(wire.echo(b"\x81\x05hello").await, b"\x81\x05hello");
    // What the server still has to say comes behind the client's end.
    wire.send(b"\x81\x02by").await;
    wire.finish().await;
    assert_eq!(wire.rest().await, b"\x81\x02by");
    assert_eventually!(finished(&proxyd).len() == 1);
    let websocket = intercepted(&proxyd, "H1Websocket");
    let said: Vec<_> = websocket.iter().map(|record| &record["msg"]).collect();
    assert_eq!(said, ["half-closed by client", "closed by client"]);
    let told = |record: &Value| {
        ["ws_resource_name", "ws_origin", "ws_sub_protocol", "ws_version"].map(|key| record[key].clone())
    };
    assert_eq!(told(&websocket[1]), ["/ws", "http://b", "chat", "13"].map(Value::from));
    let record = &intercepted(&proxyd, "HttpUpgrade")[0];
    assert_eq!(
        (&record["next_protocol"], &record["uri"], &record["rsp_status"]),
        (&json!("websocket"), &json!("/ws"), &json!(101))
    );
    let found: Vec<_> = proxyd
        .log_records("Inspect")
        .iter()
        .map(|r| r["protocol"].clone())
        .collect();
    assert_eq!(found, ["http_1", "websocket"]);
    proxyd.stop().await.assert_clean();

    let proxyd = looking("websocket_inspect_policy: block").await;
    for name in ["websocket", "WebSocket/13", "x, websocket"] {
        let mut wire = tunnel(&proxyd, &origin).await;
        assert_eq!(wire.ask(upgrade("/ws", name)).await.status, 403, "{name}");
    }
    proxyd.stop().await.assert_clean();
}

/// CU-02, CU-03: the server inside is a proxy.
#[tokio::test]
async fn a_connect_inside_is_a_tunnel_that_is_looked_into_again() {
    let origin = Origin::script(|conn| {
        while let Some(request) = conn.request()? {
            match (request.method(), request.header("proxy-authorization")) {
                ("CONNECT", Some("Basic YTpi")) => conn.write(b"HTTP/1.1 200 Go\r\n\r\n")?,
                ("CONNECT", _) => conn.write(
                    b"HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 3\r\n\r\nwho",
                )?,
                _ => conn.write(&ok(request.target()))?,
            }
        }
        Ok(())
    });
    let proxyd = looking("").await;
    let mut wire = tunnel(&proxyd, &origin).await;
    let refused = wire
        .ask("CONNECT inner.test:80 HTTP/1.1\r\nHost: inner.test:80\r\n\r\n")
        .await;
    assert_eq!((refused.status, refused.body.as_slice()), (407, &b"who"[..]));
    assert_eq!(refused.header("proxy-authenticate"), Some("Basic realm=\"x\""));
    wire.send("CONNECT inner.test:80 HTTP/1.1\r\nHost: inner.test:80\r\nProxy-Authorization: Basic YTpi\r\n\r\n")
        .await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(
        wire.ask("GET /deep HTTP/1.1\r\nHost: inner.test\r\n\r\n").await.body,
        b"/deep"
    );
    drop(wire);
    assert_eventually!(finished(&proxyd).len() == 1);
    let connects = intercepted(&proxyd, "HttpConnect");
    assert_eq!(connects.len(), 2);
    assert_eq!(connects[1]["next_upstream"], "inner.test:80");
    let request = &intercepted(&proxyd, "HttpForward")[0];
    assert_eq!((&request["uri"], &request["depth"]), (&json!("/deep"), &json!(2)));
    proxyd.stop().await.assert_clean();
}

#[tokio::test]
async fn a_client_that_has_sent_all_still_gets_its_answer() {
    let origin = Origin::http(|_| ok("answer"));
    let proxyd = looking("").await;
    let mut wire = tunnel(&proxyd, &origin).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wire.finish().await;
    let rest = String::from_utf8(wire.rest().await).unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 ") && rest.ends_with("answer"), "{rest}");
    assert_eventually!(finished(&proxyd).len() == 1);
    assert_eq!(finished(&proxyd)[0]["reason"], "Finished");
    proxyd.stop().await.assert_clean();
}

/// H1-22.
#[tokio::test]
async fn forwarding_fields_are_dropped_only_where_that_is_asked_for() {
    let origin = Origin::http(|_| ok(""));
    for (keys, kept) in [("", true), ("h1_interception: {steal_forwarded_for: true}", false)] {
        let proxyd = looking(keys).await;
        let mut wire = tunnel(&proxyd, &origin).await;
        let request = "GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n";
        assert_eq!(wire.ask(request).await.status, 200);
        let got = origin
            .received()
            .pop()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(got.unwrap().contains("1.2.3.4"), kept);
        proxyd.stop().await.assert_clean();
    }
}

/// A stop does not wait for connections that wait for a request.
#[tokio::test]
async fn an_idle_connection_does_not_hold_a_stop_up() {
    let origin = Origin::http(|_| ok(""));
    let proxyd = looking("").await;
    let mut wire = tunnel(&proxyd, &origin).await;
    assert_eq!(wire.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 200);
    let began = std::time::Instant::now();
    proxyd.stop().await.assert_clean();
    assert!(began.elapsed().as_secs() < 5);
    wire.assert_closed().await;
}
