//! Messages that ICAP services adapt: proxyd with icap-stub, with c-icap, and with servers that misbehave; c-icap-client
//! with icap-stub.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use sluice_testkit::{Daemon, Group, Origin, Wire, assert_eventually, curl};
use sluice_tests::icap::{CIcap, Pair, STUB, audited};
use sluice_tests::{BlackHole, Gate, chunked, finished, nobody, noise};
use tokio::process::Command;

/// Sends back the body of a request, by its length, and what it was asked for.
fn mirror() -> Origin {
    Origin::http(|request| {
        let seen = request.header("x-seen").unwrap_or("no");
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Method: {} {}\r\nX-Origin-Saw: {seen}\r\n\r\n",
            request.body.len(),
            request.method(),
            request.target()
        );
        [head.as_bytes(), &request.body].concat()
    })
}

async fn post(wire: &mut Wire, origin: &Origin, framing: &str, body: &[u8]) -> sluice_testkit::Answer {
    let head = format!(
        "POST http://{0}/a HTTP/1.1\r\nHost: {0}\r\n{framing}\r\n",
        origin.addr()
    );
    wire.send([head.as_bytes(), body].concat()).await;
    wire.answer().await
}

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

#[tokio::test]
async fn a_unix_socket_serves_too() {
    let origin = mirror();
    let pair = Pair::start(Some("edit"), None, "use_unix_socket: '%dir%/icap.sock'").await;
    let url = format!("http://{}/a", origin.addr());
    let seen = curl(&url).proxy(pair.proxyd.addr("http")).run().await;
    assert_eq!((seen.status, seen.header("x-origin-saw")), (200, Some("yes")));
    pair.stop().await;
}

#[tokio::test]
async fn who_asks_is_told_and_what_reqmod_answers_is_repeated_to_respmod() {
    let icap = Origin::script(|conn| {
        while let Some(head) = conn.head()? {
            if head.starts_with("OPTIONS ") {
                conn.write(b"ICAP/1.0 200 OK\r\nISTag: a\r\nMethods: RESPMOD, REQMOD\r\nAllow: 204\r\n\r\n")?;
                continue;
            }
            conn.head()?;
            if head.starts_with("RESPMOD ") {
                conn.until("0\r\n\r\n")?;
            }
            conn.write(b"ICAP/1.0 204 No\r\nX-Rule: seven\r\nISTag: a\r\n\r\n")?;
        }
        Ok(())
    });
    let origin = Origin::hello("hello");
    let url = format!("icap://joe:pw@{}/s", icap.addr());
    let mut yaml = audited(Some(&url), Some(&url), "");
    yaml = yaml.replacen(
        "min_idle_count: 0}",
        "min_idle_count: 0}, respond_shared_names: X-Rule",
        1,
    );
    let proxyd = Daemon::proxyd(&yaml).start().await;
    let answer = curl(&format!("http://{}/", origin.addr()))
        .proxy(proxyd.addr("http"))
        .run()
        .await;
    answer.assert(200, "hello");
    let heard = icap.received_text();
    assert!(heard.contains("\r\nHost: 127.0.0.1:"), "{heard}");
    assert!(
        heard.contains("\r\nX-Client-IP: 127.0.0.1\r\nX-Client-Port: "),
        "{heard}"
    );
    let respmod = &heard[heard.find("RESPMOD ").unwrap()..];
    assert!(respmod.contains("\r\nx-rule: seven\r\n"), "{respmod}");
    assert!(
        heard.contains("\r\nAuthorization: Basic am9lOnB3\r\n") && !heard.contains("joe"),
        "{heard}"
    );
    proxyd.stop().await.assert_clean();
}

#[tokio::test]
async fn a_service_that_is_away_is_bypassed_or_not_as_configured() {
    // IC-09
    let origin = Origin::hello("hello");
    let hole = BlackHole::on("127.0.0.1:0");
    for address in [nobody(), hole.addr()] {
        let url = format!("icap://{address}/s");
        for (more, status) in [("bypass: true", 200), ("bypass: false", 500)] {
            let proxyd = Daemon::proxyd(&audited(Some(&url), Some(&url), more)).start().await;
            let start = Instant::now();
            let answer = curl(&format!("http://{}/", origin.addr()))
                .proxy(proxyd.addr("http"))
                .run()
                .await;
            assert_eq!(answer.status, status, "{url} {more}");
            assert!(start.elapsed() < Duration::from_secs(5), "{url} {more}");
            proxyd.stop().await.assert_clean();
        }
    }
}

#[tokio::test]
async fn a_service_that_dies_or_stands_still_is_used_again_when_it_is_back() {
    let origin = mirror();
    let pair = Pair::start(Some("edit"), None, "").await;
    let addr = pair.proxyd.addr("http");
    let url = format!("http://{}/a", origin.addr());
    assert_eq!(curl(&url).proxy(addr).run().await.header("x-origin-saw"), Some("yes"));
    let Pair { proxyd, stub } = pair;
    let group = stub.kill9().await;
    assert_eq!(curl(&url).proxy(addr).run().await.status, 500);
    let stub = group.daemon("icap-stub").start().await;
    assert_eq!(curl(&url).proxy(addr).run().await.header("x-origin-saw"), Some("yes"));
    stub.signal(Signal::STOP);
    let mut wire = proxyd.connect("http").await;
    wire.send(format!("GET {url} HTTP/1.1\r\nHost: {}\r\n\r\n", origin.addr()))
        .await;
    stub.signal(Signal::CONT);
    assert_eq!(wire.answer().await.status, 200);
    drop(wire);
    proxyd.stop().await.assert_clean();
    stub.stop().await.assert_clean();
}

#[tokio::test]
async fn connections_are_kept_ready() {
    let origin = mirror();
    let yaml = audited(Some("icap://127.0.0.1:%icap%/same"), None, "")
        .replace("min_idle_count: 0", "min_idle_count: 3, check_interval: 100ms");
    let group = Group::new(&format!("{yaml}{STUB}"));
    let stub = group.daemon("icap-stub").start().await;
    let proxyd = group.proxyd().await;
    let url = format!("http://{}/a", origin.addr());
    curl(&url).proxy(proxyd.addr("http")).run().await.assert(200, "");
    assert_eventually!(stub.status().await["connections"] == 3, "{}", stub.status().await);
    proxyd.stop().await.assert_clean();
    stub.stop().await.assert_clean();
}

#[tokio::test]
async fn keys_that_would_do_nothing_are_refused() {
    for (keys, told) in [
        (
            "icap_reqmod_service: 'http://h/x'",
            "icap_reqmod_service.url: is neither `icap://",
        ),
        ("icap_reqmod_service: 'icap://u@h/x'", "needs a password"),
        (
            "icap_reqmod_service: 'icap://h:0/x'",
            "icap_reqmod_service.url: has port 0",
        ),
        (
            "icap_respmod_service: {url: 'icap://h/x', respond_shared_names: a}",
            "is for `icap_reqmod_service`",
        ),
        (
            "icap_respmod_service: {url: 'icap://h/x', tls_name: a}",
            "needs `tls_client`, or `icaps`",
        ),
        ("icap_respmod_service: {bypass: true}", "url"),
    ] {
        let yaml = format!("auditor: [{{name: a, {keys}}}]\n");
        let refused = Daemon::proxyd(&yaml).arg("-t").run().await;
        assert!(
            refused.code == Some(78) && refused.stderr.contains(told),
            "{keys}: {}",
            refused.stderr
        );
    }
}

#[tokio::test]
async fn c_icap_echoes_requests_and_responses() {
    let origin = mirror();
    let c_icap = CIcap::start().await;
    let url = c_icap.url();
    for more in ["", "no_preview: true"] {
        let proxyd = Daemon::proxyd(&audited(Some(&url), Some(&url), more)).start().await;
        let mut wire = proxyd.connect("http").await;
        for size in [0, 1, 2, 50, 1023, 1024, 1025, 4096, 200_000] {
            let body = noise(size);
            let answer = post(&mut wire, &origin, &format!("Content-Length: {size}\r\n"), &body).await;
            assert!(answer.status == 200 && answer.body == body, "{more} {size}");
            let in_chunks = chunked(&body, 777, "");
            let answer = post(&mut wire, &origin, "Transfer-Encoding: chunked\r\n", &in_chunks).await;
            assert!(answer.status == 200 && answer.body == body, "{more} {size} in chunks");
        }
        drop(wire);
        let get = curl(&format!("http://{}/a", origin.addr()))
            .proxy(proxyd.addr("http"))
            .run()
            .await;
        get.assert(200, "");
        proxyd.stop().await.assert_clean();
    }
}

#[tokio::test]
async fn c_icap_client_is_served_by_icap_stub() {
    let group = Group::new(STUB.trim_start());
    let stub = group.daemon("icap-stub").start().await;
    let file = group.write_file("body", "hello body\n");
    let run = async |args: &[&str]| {
        let out = group.dir().join("out");
        let _ = fs::remove_file(&out);
        let mut command = Command::new("c-icap-client");
        command.args(["-i", "127.0.0.1", "-p", &group.port("icap").to_string(), "-v"]);
        command.args(args).arg("-o").arg(&out);
        let said = command.output().await.unwrap();
        (
            String::from_utf8_lossy(&said.stderr).into_owned(),
            fs::read_to_string(&out).unwrap_or_default(),
        )
    };
    let body = file.to_str().unwrap();
    let (said, _) = run(&["-s", "same"]).await;
    assert!(
        said.contains("Allow 204: Yes") && said.contains("Preview: 1024"),
        "{said}"
    );
    let (said, _) = run(&["-s", "same", "-f", body, "-req", "http://good.example/"]).await;
    assert!(said.contains("204 No Modifications Needed"), "{said}");
    let (said, out) = run(&["-s", "echo", "-f", body, "-req", "http://good.example/"]).await;
    assert_eq!(out, "hello body\n", "{said}");
    let (said, out) = run(&["-s", "echo", "-f", body, "-resp", "http://good.example/"]).await;
    assert_eq!(out, "hello body\n", "{said}");
    let (said, out) = run(&["-s", "edit", "-f", body, "-resp", "http://good.example/new"]).await;
    assert!(out == "new body" && said.contains("X-New: 1"), "{said}{out}");
    stub.stop().await.assert_clean();
}

#[tokio::test]
async fn icap_stub_takes_other_rules_by_a_reload() {
    let group = Group::new(STUB.trim_start());
    let stub = group.daemon("icap-stub").start().await;
    let options = |service: &str| format!("OPTIONS icap://h/{service} ICAP/1.0\r\nHost: h\r\n\r\n");
    let mut old = stub.connect("icap").await;
    old.send(options("same")).await;
    assert!(old.head().await.starts_with("ICAP/1.0 200 OK\r\n"));
    stub.reload_with(
        "icap_stub: {listen: \"127.0.0.1:%icap%\", services: {name: other, options_ttl: 5s, \
         rules: [{path: /echo, answer: echo}]}}",
    )
    .await;
    // The same connection sees the new services.
    old.send(options("other")).await;
    assert!(old.head().await.contains("\r\nOptions-TTL: 5\r\n"));
    old.send(options("same")).await;
    assert!(old.head().await.starts_with("ICAP/1.0 404 "));
    old.assert_closed().await;
    assert!(!group.dir().join("icap.sock").exists());
    for (sent, status) in [
        ("NONSENSE\r\n\r\n", 400),
        ("LOGMOD icap://h/other ICAP/1.0\r\n\r\n", 405),
        // A preview that goes on for ever is not kept for ever.
        (
            "REQMOD icap://h/other ICAP/1.0\r\nPreview: 2\r\nEncapsulated: req-hdr=0, req-body=23\r\n\r\n\
             POST /echo HTTP/1.1\r\n\r\n3\r\nabc\r\n",
            400,
        ),
    ] {
        let mut wire = stub.connect("icap").await;
        wire.send(sent).await;
        assert!(wire.head().await.starts_with(&format!("ICAP/1.0 {status} ")), "{sent}");
        wire.assert_closed().await;
    }
    stub.stop().await.assert_clean();
}
