//! CONNECT inside of an intercepted HTTP/2 connection: the server is a proxy, whose tunnels are looked into, each as a
//! layer of its own.

use std::path::Path;

use serde_json::Value;
use sluice_testkit::{Ca, Daemon, Origin, assert_eventually, python};
use sluice_tests::icap::Pair;
use sluice_tests::rig::{Keys, Rig, nginx};

/// A client and a proxy that speak HTTP/2.
const PEERS: &str = concat!(
    include_str!("../programs/h2peer.py"),
    "\n",
    include_str!("../programs/h2tunnel.py")
);

/// Runs a Python program that has the `server` and a `client()` of it through proxyd, and the arguments as `args`.
async fn run(proxyd: &Daemon, args: &[&str], program: &str) {
    let program = format!(
        "{PEERS}\nargs = sys.argv[2:]\nserver = Proxy()\nclient = lambda: Client(sys.argv[1], server.address)\n{program}\nprint('done')\n"
    );
    let addr = proxyd.addr("http").to_string();
    let all: Vec<&str> = [addr.as_str()].into_iter().chain(args.iter().copied()).collect();
    let run = python(&program, &all).await;
    assert_eq!(
        run.stdout.lines().last(),
        Some("done"),
        "{}\n{}",
        run.stderr,
        proxyd.stderr()
    );
}

fn intercepted(proxyd: &Daemon, kind: &str) -> Vec<Value> {
    let mut records = proxyd.log_records("Intercept");
    records.retain(|record| record["intercept_type"] == kind);
    records
}

fn origin() -> Origin {
    Origin::http(|request| {
        let seen = request.header("x-seen").unwrap_or("no");
        let body = format!("{} {seen}\n", request.target());
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    })
}

#[tokio::test]
async fn tunnels_are_looked_into_and_services_see_them() {
    let origin = origin();
    let pair = Pair::start(Some("edit"), Some("edit"), "").await;
    run(
        &pair.proxyd,
        &[&origin.addr().to_string()],
        r#"
c = client()
port = args[0].rsplit(":", 1)[1]
refused = Tunnel(c, "closed.test:80", [("proxy-authorization", "Basic YTpi")])
answer = c.end(refused.stream)
assert (answer.status, answer.body) == (407, b"who"), vars(answer)
assert (answer.head["proxy-authenticate"], answer.head["x-seen"]) == ("Basic realm=x", "yes"), answer.head
# Two at once.
one, two = Tunnel(c, "one.test:" + port), Tunnel(c, "two.test:" + port, [("host", "two.test:" + port)])
for tunnel, path in [(one, b"/1"), (two, b"/2"), (one, b"/3")]:
    answer = tunnel.ask(b"GET " + path + b" HTTP/1.1\r\nHost: in.test\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n" + path + b" yes\n"), answer
    assert b"\r\nX-Seen: yes\r\n" in answer, answer
answer = two.ask(b"GET /bad HTTP/1.1\r\nHost: in.test\r\n\r\n" )
assert answer.startswith(b"HTTP/1.1 451 "), answer
one.send(b"", end=True)
assert c.end(one.stream).reset is None
heads = server.heads
assert [head[":authority"].split(":")[0] for head in heads] == ["closed.test", "one.test", "two.test"], heads
assert all(head["x-seen"] == "yes" for head in heads), heads
assert (heads[0]["proxy-authorization"], "host" in heads[1], "host" in heads[2]) == ("Basic YTpi", False, True), heads
"#,
    )
    .await;
    assert_eventually!(intercepted(&pair.proxyd, "H2Connect").len() == 3);
    assert_eventually!(pair.proxyd.log_records("Task").len() == 1);
    let task = &pair.proxyd.log_records("Task")[0];
    let requests = intercepted(&pair.proxyd, "HttpForward");
    assert_eq!(requests.len(), 4, "{requests:?}");
    for request in &requests {
        assert_eq!((&request["depth"], &request["task_id"]), (&2.into(), &task["task_id"]));
    }
    let connects = intercepted(&pair.proxyd, "H2Connect");
    assert_eq!(
        (&connects[0]["next_upstream"], &connects[0]["rsp_status"]),
        (&"closed.test:80".into(), &407.into())
    );
    let inner = |record: &&Value| record["depth"] == 2 && record["protocol"] == "http_1";
    assert_eq!(pair.proxyd.log_records("Inspect").iter().filter(inner).count(), 2);
    assert_eq!(pair.proxyd.status().await["tasks_alive"], 0);
    pair.stop().await;
}

/// What passes through a tunnel that nobody can look into passes as it came, in both directions and past the windows.
#[tokio::test]
async fn a_tunnel_of_unknown_bytes_passes() {
    let origin = Origin::script(|conn| {
        let mut all = Vec::new();
        while let Some(bytes) = conn.some()? {
            all.extend(bytes);
        }
        conn.write(&all)
    });
    let proxyd = Daemon::proxyd(&sluice_tests::icap::audited(None, None, ""))
        .start()
        .await;
    run(
        &proxyd,
        &[&origin.addr().to_string()],
        r#"
c = client()
tunnel = Tunnel(c, args[0])
data = bytes(i * i % 251 for i in range(3 << 20))
tunnel.send(data, end=True)
answer = c.end(tunnel.stream)
assert (answer.reset, answer.body == data) == (None, True), (answer.reset, len(answer.body))
# One whose client goes in the middle leaves nothing behind.
tunnel = Tunnel(c, args[0])
tunnel.send(b"\0\1\2")
c.peer.conn.reset_stream(tunnel.stream, 8)
c.peer.flush()
server.wait(lambda: server.resets)
"#,
    )
    .await;
    assert_eventually!(proxyd.log_records("Task").len() == 1);
    let connects = intercepted(&proxyd, "H2Connect");
    let first = |record: &&Value| record["clt_stream"] == 1 && record["msg"] == "closed by client";
    assert_eq!(connects.iter().filter(first).count(), 1, "{connects:?}");
    proxyd.stop().await.assert_clean();
}

#[tokio::test]
async fn tls_in_a_tunnel_is_opened() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test"]).await;
    let rig = Rig::start(&ca, Keys::default()).await;
    let trust = Path::new(&rig.trust).display().to_string();
    run(
        &rig.proxyd,
        &[&nginx.tls_addr().to_string(), &trust],
        r#"
c = client()
tls = Tls(Tunnel(c, "a.test:" + args[0].rsplit(":", 1)[1]), "a.test", args[1])
answer = tls.ask(b"GET /hello.txt HTTP/1.1\r\nHost: a.test\r\n\r\n")
assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"hello\n"), answer
"#,
    )
    .await;
    let handshake = rig.handshake().await;
    assert_eq!(
        (&handshake["tls_server_verify"], &handshake["depth"]),
        (&"ok".into(), &2.into()),
        "{handshake}"
    );
    assert_eventually!(!rig.intercepted("HttpForward").is_empty());
    assert_eq!(rig.intercepted("HttpForward")[0]["depth"], 3);
    rig.stop().await;
}
