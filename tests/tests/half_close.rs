//! Clients that close their side of the connection as soon as they have sent all they have: they get their answers.

use std::time::{Duration, Instant};

use sluice_testkit::{Ca, Daemon, Origin, Wire, assert_eventually, python};
use sluice_tests::icap::Pair;
use sluice_tests::rig::{Keys, Rig, nginx};
use sluice_tests::{Gate, finished, noise, proxy};

/// An origin that answers with what it was sent, not before the gate is open.
fn late(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::script(move |conn| {
        while let Some(request) = conn.request()? {
            gate.pass()?;
            let answer = [request.target().as_bytes(), &request.body].concat();
            conn.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len()).as_bytes())?;
            conn.write(&answer)?;
        }
        Ok(())
    })
}

/// Sends requests and closes; takes the answers, and the end that follows them at once. `url` stands before each path.
async fn ask_and_close(mut wire: Wire, url: &str, gate: &Gate) {
    let body = noise(100_000);
    wire.send(format!("GET {url}/1 HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
    wire.send(format!(
        "POST {url}/2 HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ))
    .await;
    wire.send(&body).await;
    wire.send(format!("GET {url}/3 HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
    wire.finish().await;
    gate.open();
    assert_eq!(wire.answer().await.body, b"/1");
    assert!(wire.answer().await.body == [&b"/2"[..], &body].concat());
    assert_eq!(wire.answer().await.body, b"/3");
    let answered = Instant::now();
    wire.assert_closed().await;
    assert!(answered.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn requests_to_a_forward_proxy_are_answered() {
    let gate = Gate::new();
    let origin = late(&gate);
    let proxyd = Daemon::proxyd(&proxy("", "")).start().await;
    let url = format!("http://{}", origin.addr());
    ask_and_close(proxyd.connect("http").await, &url, &gate).await;
    assert_eventually!(finished(&proxyd).len() == 3);
    assert!(finished(&proxyd).iter().all(|task| task["reason"] == "Finished"));
    proxyd.stop().await.assert_clean();
}

#[tokio::test]
async fn requests_inside_of_a_tunnel_are_answered() {
    let gate = Gate::new();
    let origin = late(&gate);
    let yaml = format!("{}auditor: [{{name: audit}}]\n", proxy("auditor: audit", ""));
    let proxyd = Daemon::proxyd(&yaml).start().await;
    ask_and_close(proxyd.http_connect(origin.addr()).await, "", &gate).await;
    assert_eventually!(finished(&proxyd).len() == 1);
    assert_eq!(finished(&proxyd)[0]["reason"], "Finished");
    proxyd.stop().await.assert_clean();
}

#[tokio::test]
async fn requests_that_services_see_are_answered() {
    for service in ["same", "echo", "whole"] {
        let pair = Pair::start(Some(service), Some(service), "").await;
        let gate = Gate::new();
        let origin = late(&gate);
        let url = format!("http://{}", origin.addr());
        ask_and_close(pair.proxyd.connect("http").await, &url, &gate).await;
        let gate = Gate::new();
        let origin = late(&gate);
        ask_and_close(pair.proxyd.http_connect(origin.addr()).await, "", &gate).await;
        pair.stop().await;
    }
}

/// A body that ends before its end is no request.
#[tokio::test]
async fn a_request_that_is_cut_off_is_sent_nowhere_as_whole() {
    let gate = Gate::new();
    gate.open();
    let origin = late(&gate);
    let pair = Pair::start(Some("whole"), Some("whole"), "").await;
    for in_tunnel in [false, true] {
        let (mut wire, url) = match in_tunnel {
            false => (pair.proxyd.connect("http").await, format!("http://{}", origin.addr())),
            true => (pair.proxyd.http_connect(origin.addr()).await, String::new()),
        };
        wire.send(format!(
            "POST {url}/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n12345"
        ))
        .await;
        wire.finish().await;
        wire.assert_closed().await;
    }
    assert_eventually!(finished(&pair.proxyd).len() == 2);
    let reasons: Vec<_> = finished(&pair.proxyd)
        .iter()
        .map(|task| task["reason"].clone())
        .collect();
    assert_eq!(reasons, ["ClosedEarlyByClient", "ClosedEarlyByClient"]);
    pair.stop().await;
}

/// Arguments: proxy, target, file of the CA. `tidy` says good-bye in TLS first.
const TLS_CLIENT: &str = r#"
import socket, ssl, sys
proxy, target, trust = sys.argv[1:]
for tidy in [False, True]:
    host, port = proxy.rsplit(":", 1)
    sock = socket.create_connection((host, int(port)), 20)
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=trust)
    tls = context.wrap_bio(incoming, outgoing, server_hostname="a.test")
    def turn(step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                if pending := outgoing.read():
                    sock.sendall(pending)
                data = sock.recv(65536)
                incoming.write(data) if data else incoming.write_eof()
    turn(tls.do_handshake)
    tls.write(b"GET /hello.txt HTTP/1.1\r\nHost: a.test\r\n\r\n")
    if tidy:
        try:
            tls.unwrap()
        except ssl.SSLWantReadError:
            pass
    sock.sendall(outgoing.read())
    sock.shutdown(socket.SHUT_WR)
    if tidy:
        # The library reads nothing behind its own good-bye: that an answer comes is all that it tells.
        data = b""
        while part := sock.recv(65536):
            data += part
        assert len(data) > 200, data
        continue
    answer = b""
    while not answer.endswith(b"hello\n"):
        answer += turn(lambda: tls.read(65536))
    assert answer.startswith(b"HTTP/1.1 200 "), answer
print("done")
"#;

#[tokio::test]
async fn a_request_inside_of_tls_is_answered() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test"]).await;
    let rig = Rig::start(&ca, Keys::default()).await;
    let run = python(
        TLS_CLIENT,
        &[
            &rig.proxyd.addr("http").to_string(),
            &nginx.tls_addr().to_string(),
            &rig.trust.display().to_string(),
        ],
    )
    .await;
    assert_eq!(run.stdout.trim(), "done", "{}", run.stderr);
    assert_eventually!(rig.intercepted("HttpForward").len() == 2);
    let said: Vec<_> = rig
        .intercepted("HttpForward")
        .iter()
        .map(|record| record["msg"].clone())
        .collect();
    assert_eq!(said, ["ok", "ok"]);
    rig.stop().await;
}
