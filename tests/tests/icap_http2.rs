//! Streams of HTTP/2 that ICAP services adapt: proxyd with icap-stub, c-icap and servers that misbehave, asked by the
//! library `h2` and by curl.

use std::fs;

use serde_json::Value;
use sluice_testkit::{Ca, Daemon, Exited, Nginx, assert_eventually, python};
use sluice_tests::icap::{CIcap, Pair, audited, server, sharing};
use sluice_tests::rig::{Keys, Rig, nginx};
use sluice_tests::{nobody, noise};

/// A client and a server.
const PEERS: &str = include_str!("../programs/h2peer.py");

/// Runs a Python program with a server and a client of its own, `server` and `c`; `proxy` is the name of the proxy
/// between them.
async fn run(proxyd: &Daemon, program: &str) -> Exited {
    let program = format!(
        "{PEERS}\nproxy = sys.argv[1]\nserver = Server()\nc = Client(proxy, server.address)\n{program}\nprint('done')\n"
    );
    let addr = proxyd.addr("http").to_string();
    let run = python(&program, &[&addr]).await;
    assert_eq!(
        run.stdout.lines().last(),
        Some("done"),
        "{}\n{}",
        run.stderr,
        proxyd.stderr()
    );
    run
}

/// Runs such a program with this service of icap-stub for both kinds of messages.
async fn adapted(service: &str, program: &str) {
    let pair = Pair::start(Some(service), Some(service), "").await;
    run(&pair.proxyd, program).await;
    pair.stop().await;
}

fn streams(proxyd: &Daemon) -> Vec<Value> {
    let mut records = proxyd.log_records("Intercept");
    records.retain(|record| record["intercept_type"] == "H2StreamForward");
    records
}

#[tokio::test]
async fn rules_are_applied_to_requests_and_responses_on_one_connection() {
    let pair = Pair::start(Some("edit"), Some("edit"), "").await;
    run(
        &pair.proxyd,
        r#"
answer = c.ask(path="/a")
assert (answer.status, answer.head["x-seen-by-origin"], answer.head["x-seen"]) == (200, "yes", "yes"), answer.head
assert [v for n, v in answer.fields if n == "set-cookie"] == ["a=1", "b=2"], answer.fields
answer = c.ask(path="/bad")
assert (answer.status, answer.body, answer.reset) == (451, b"<p>no</p>", None), vars(answer)
assert "x-method" not in answer.head
answer = c.ask(path="/page")
assert (answer.status, answer.body) == (403, b"<p>bad page</p>"), vars(answer)
answer = c.ask(path="/new")
assert (answer.status, answer.body, answer.head["x-new"]) == (200, b"new body", "1"), vars(answer)
for path in ["/close", "/fail"]:
    answer = c.ask(path=path)
    assert (answer.status, answer.body) == (500, b""), vars(answer)
# A body that nobody waits for is not in the way of the page.
stream = c.begin("POST", "/bad", end=False)
c.peer.send(stream, bytes(3000))
answer = c.end(stream)
assert (answer.status, answer.body) == (451, b"<p>no</p>"), vars(answer)
assert c.ask("POST", "/a", body=b"x").body == b"x"
assert [head[":path"] for head in server.heads] == ["/a", "/page", "/new", "/a"], server.heads
"#,
    )
    .await;
    assert_eventually!(streams(&pair.proxyd).len() == 8, "{:?}", streams(&pair.proxyd));
    let record = |path: &str| {
        let mut records = streams(&pair.proxyd);
        records.retain(|record| record["uri"].as_str().is_some_and(|uri| uri.ends_with(path)));
        records.remove(0)
    };
    let bad = record("/bad");
    assert_eq!(
        (&bad["rsp_status"], &bad["origin_status"], &bad["msg"]),
        (&451.into(), &0.into(), &"finished".into()),
        "{bad}"
    );
    let page = record("/page");
    assert_eq!(
        (&page["rsp_status"], &page["origin_status"]),
        (&403.into(), &200.into()),
        "{page}"
    );
    let failed = record("/fail");
    assert_eq!(failed["rsp_status"], 500);
    assert_eq!(failed["msg"], "the ICAP service answers with status 503");
    pair.stop().await;
}

/// Servers may send their SETTINGS before they have heard the client: that is no way past the services.
#[tokio::test]
async fn a_server_that_speaks_first_is_known_too() {
    adapted(
        "edit",
        r#"
eager = Server(speaks_first=True)
for waits in [True, False]:
    answer = Client(proxy, eager.address, waits).ask(path="/a")
    assert (answer.status, answer.head["x-seen-by-origin"], answer.head["x-seen"]) == (200, "yes", "yes"), answer.head
"#,
    )
    .await;
}

/// IC-01, IC-03, IC-04.
#[tokio::test]
async fn bodies_of_every_size_pass_unchanged_by_every_kind_of_service() {
    for service in ["same", "echo", "zero", "four", "whole"] {
        adapted(
            service,
            r#"
import random
for size in [*range(101), 1023, 1024, 1025, 4096, 70000, 1000000]:
    body = random.Random(size).randbytes(size)
    answer = c.ask("POST", "/a", [("content-length", str(size))], body)
    assert (answer.status, answer.body == body) == (200, True), (size, vars(answer))
    answer = c.ask("POST", "/a", [], body, [("x-up", "1")])
    assert (answer.status, answer.body == body, answer.trailers) == (200, True, {"x-up": "1"}), (size, answer.head)
# All in small pieces, at the same time.
streams = {}
for size in range(40):
    stream = c.begin("POST", "/stream", end=False)
    streams[stream] = bytes([size]) * size
for at in range(40):
    for stream, body in streams.items():
        if at < len(body):
            c.peer.send(stream, body[at:at + 1])
for stream, body in streams.items():
    c.peer.send(stream, b"", None, True)
    answer = c.end(stream)
    assert (answer.status, answer.body) == (200, body), vars(answer)
"#,
        )
        .await;
    }
}

#[tokio::test]
async fn what_is_changed_says_how_long_it_is() {
    adapted(
        "edit",
        r#"
answer = c.ask("POST", "/new", [("content-length", "5")], b"12345")
assert answer.body == b"new body" and answer.head.get("content-length") in (None, "8"), vars(answer)
answer = c.ask("HEAD", "/a")
assert (answer.status, answer.head["content-length"], answer.body) == (200, "7", b""), vars(answer)
for path, status in [("/204", 204), ("/304", 304)]:
    answer = c.ask(path=path)
    assert (answer.status, answer.body, answer.reset) == (status, b"", None), vars(answer)
"#,
    )
    .await;
}

#[tokio::test]
async fn heads_keep_what_belongs_to_http2() {
    let (proxyd, icap) = sharing().await;
    run(
        &proxyd,
        r#"
answer = c.ask("PUT", "/a?b", [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("x-y", "z")])
assert answer.status == 200, vars(answer)
# Services would judge another host.
answer = c.ask(path="/x", fields=[("host", "other.test")])
assert answer.status == 400, vars(answer)
answer = c.ask(path="/x", fields=[("host", server.address)])
assert answer.status == 200, vars(answer)
assert [head.get("te") for head in server.heads] == ["trailers", None], server.heads
assert [head.get("host") for head in server.heads] == [None, server.address], server.heads
stream = c.websocket("/chat")
c.peer.send(stream, b"bye", None, True)
assert c.end(stream).body == b"bye"
"#,
    )
    .await;
    let heard = icap.received_text();
    let request = "PUT /a?b HTTP/1.1\r\nhost: 127.0.0.1:";
    assert!(
        heard.contains(request) && heard.contains("\r\nx-y: z\r\ncookie: a=1; b=2\r\n\r\n"),
        "{heard}"
    );
    assert!(!heard.contains("other.test") && !heard.contains("trailers"), "{heard}");
    assert!(
        heard.contains("\r\nX-Transformed-From: HTTP/2.0\r\nX-Client-IP: 127.0.0.1\r\n"),
        "{heard}"
    );
    // IC-12.
    assert_eq!(heard.matches("\r\nX-HTTP-Upgrade: websocket\r\n").count(), 1, "{heard}");
    assert!(
        heard.contains("\r\n\r\nGET /chat HTTP/1.1\r\nhost: 127.0.0.1:"),
        "{heard}"
    );
    let respmod = &heard[heard.find("RESPMOD ").unwrap()..];
    assert!(respmod.contains("\r\nx-rule: seven\r\n"), "{respmod}");
    assert!(
        respmod.contains("\r\n\r\nHTTP/1.1 200 OK\r\nx-seen-by-origin: no\r\n"),
        "{respmod}"
    );
    proxyd.stop().await.assert_clean();
}

#[tokio::test]
async fn streams_flow_both_ways_through_services() {
    for service in ["zero", "whole"] {
        adapted(
            service,
            r#"
stream = c.begin("POST", "/stream", end=False)
for word in [b"one", b"two", b"three"]:
    c.peer.send(stream, word)
    c.until(lambda: c.answers[stream].body.endswith(word))
c.peer.send(stream, b"", [("x-up", "1")], True)
answer = c.end(stream)
assert (answer.body, answer.trailers, answer.reset) == (b"onetwothree", {"x-up": "1"}, None), vars(answer)
# Much more than all windows and buffers, beside others.
big = bytes(range(256)) * 80000
stream = c.begin("POST", "/stream", end=False)
c.peer.send(stream, big, None, True)
for _ in range(20):
    assert c.ask("POST", "/a", body=b"small").body == b"small"
answer = c.end(stream)
assert answer.body == big
"#,
        )
        .await;
    }
}

/// IC-12.
#[tokio::test]
async fn a_websocket_is_asked_about_once_and_passes() {
    adapted("edit", r#"
stream = c.websocket("/ws")
for word in [b"ping", b"pong"]:
    c.peer.send(stream, word)
    c.until(lambda: c.answers[stream].body.endswith(word))
answer = c.answers[stream]
assert (answer.status, answer.head["x-seen-by-origin"], answer.head.get("x-seen")) == (200, "yes", None), vars(answer)
c.peer.send(stream, b"", None, True)
assert c.end(stream).body == b"pingpong"
answer = c.end(c.websocket("/bad"))
assert (answer.status, answer.body) == (451, b"<p>no</p>"), vars(answer)
assert [(head[":method"], head[":protocol"], head[":path"]) for head in server.heads] == [("CONNECT", "websocket", "/ws")]
"#).await;
}

#[tokio::test]
async fn a_stream_that_is_reset_frees_its_service() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = |name: &str| dir.path().join(name);
    let [heard, ended] = ["heard", "ended"].map(pipe);
    let icap = server(move |conn, _| {
        fs::write(&heard, "")?;
        // No answer: what comes next is the end.
        assert!(conn.some()?.is_none());
        fs::write(&ended, "")
    });
    let url = format!("icap://{}/s", icap.addr());
    let proxyd = Daemon::proxyd(&audited(Some(&url), None, "")).start().await;
    let program = r#"
import os
os.mkfifo("%dir%/heard")
os.mkfifo("%dir%/ended")
stream = c.begin(path="/a")
open("%dir%/heard").read()
c.peer.conn.reset_stream(stream, 8)
c.peer.flush()
open("%dir%/ended").read()
"#;
    run(&proxyd, &program.replace("%dir%", &dir.path().display().to_string())).await;
    assert_eventually!(streams(&proxyd).len() == 1);
    assert_eq!(
        streams(&proxyd)[0]["msg"],
        "reset by the client: stream no longer needed"
    );
    proxyd.stop().await.assert_clean();
}

/// A rig with these services for both kinds of messages, and nginx at its back.
async fn rig(url: &str, more: &str) -> (Rig, Nginx) {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test"]).await;
    let service = format!("{{url: '{url}', icap_connection_pool: {{min_idle_count: 0}}, {more}}}");
    let rig = Rig::start(
        &ca,
        Keys {
            auditor: &format!("icap_reqmod_service: {service}\n    icap_respmod_service: {service}"),
            ..Keys::default()
        },
    )
    .await;
    (rig, nginx)
}

#[tokio::test]
async fn c_icap_echoes_what_curl_and_nginx_say_to_each_other() {
    let c_icap = CIcap::start().await;
    for more in ["", "no_preview: true"] {
        let (rig, nginx) = rig(&c_icap.url(), more).await;
        let get = rig.curl("a.test", &nginx, "/hello.txt").arg("--http2").run().await;
        get.assert(200, "hello\n");
        assert_eq!(get.header("x-protocol"), Some("HTTP/2.0"));
        for size in [0, 1, 1023, 1024, 1025, 3 << 20] {
            let body = noise(size);
            let file = rig.proxyd.group().dir().join("body");
            fs::write(&file, &body).unwrap();
            let path = format!("/put/{size}");
            let put = rig
                .curl("a.test", &nginx, &path)
                .arg("--http2")
                .arg("-T")
                .arg(&file)
                .run()
                .await;
            assert_eq!(put.status, 201, "{more} {size}: {put:?}");
            let got = rig.curl("a.test", &nginx, &path).arg("--http2").run().await;
            assert!(got.status == 200 && got.body == body, "{more} {size}: {}", got.stderr);
        }
        assert_eventually!(rig.intercepted("H2StreamForward").len() == 13);
        rig.stop().await;
    }
}

#[tokio::test]
async fn many_streams_at_a_time_are_all_adapted() {
    let c_icap = CIcap::start().await;
    let (rig, nginx) = rig(&c_icap.url(), "").await;
    let many = rig
        .curl("a.test", &nginx, "/hello.txt?[1-200]")
        .args(["--http2", "-Z", "--parallel-max", "20"])
        .run()
        .await;
    assert_eq!(many.exit, 0, "{}", many.stderr);
    assert_eventually!(rig.intercepted("H2StreamForward").len() == 200);
    let records = rig.intercepted("H2StreamForward");
    let done = |record: &Value| record["msg"] == "finished" && record["rsp_status"] == 200;
    assert!(records.iter().all(done));
    rig.stop().await;
}

/// IC-09.
#[tokio::test]
async fn a_service_that_is_away_is_bypassed_or_not_as_configured() {
    let url = format!("icap://{}/s", nobody());
    for (more, status) in [("bypass: true", 200), ("bypass: false", 500)] {
        let (rig, nginx) = rig(&url, more).await;
        let answer = rig.curl("a.test", &nginx, "/hello.txt").arg("--http2").run().await;
        assert_eq!((answer.status, answer.exit), (status, 0), "{more}");
        assert_eventually!(rig.intercepted("H2StreamForward").len() == 1);
        let record = &rig.intercepted("H2StreamForward")[0];
        let said = record["msg"].as_str().unwrap();
        match status {
            200 => assert_eq!(said, "finished"),
            _ => assert!(said.starts_with("connect to the ICAP service at `127.0.0.1:"), "{said}"),
        }
        assert_eq!(nginx.access().len(), usize::from(status == 200));
        rig.stop().await;
    }
}

/// H2-04, IC-10: what breaks off within a body is not taken for its end.
#[tokio::test]
async fn a_body_that_breaks_off_is_told_to_the_other_side() {
    for service in ["zero", "whole"] {
        adapted(
            service,
            r#"
answer = c.ask(path="/part")
assert answer.reset is not None, vars(answer)
stream = c.begin("POST", "/stream", [("content-length", "1000")], end=False)
c.peer.send(stream, b"some")
c.until(lambda: c.answers[stream].body == b"some")
c.peer.conn.reset_stream(stream, 8)
c.peer.flush()
server.wait(lambda: [path for path, code in server.resets] == ["/stream"])
stream = c.begin("POST", "/hang", end=False)
c.peer.send(stream, b"some")
server.wait(lambda: "/hang" in [head[":path"] for head in server.heads])
c.peer.conn.reset_stream(stream, 8)
c.peer.flush()
server.wait(lambda: [path for path, code in server.resets] == ["/stream", "/hang"])
assert c.ask("POST", "/a", body=b"x").body == b"x"
"#,
        )
        .await;
    }
}
