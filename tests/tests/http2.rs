//! HTTP/2 inside of intercepted TLS, with clients and servers that were not written here.

use sluice_testkit::{Ca, assert_eventually, python};
use sluice_tests::noise;
use sluice_tests::rig::{Keys, Rig, nginx};

#[tokio::test]
async fn curl_speaks_http2_with_nginx() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test"]).await;
    nginx.write("big", noise(5 << 20));
    let rig = Rig::start(&ca, Keys::default()).await;
    let answer = rig.curl("a.test", &nginx, "/hello.txt?q=1").arg("--http2").run().await;
    answer.assert(200, "hello\n");
    assert_eq!(answer.header("x-protocol"), Some("HTTP/2.0"));
    let big = rig.curl("a.test", &nginx, "/big").arg("--http2").run().await;
    assert!(big.exit == 0 && big.body == noise(5 << 20));
    let body = noise(3 << 20);
    let file = rig.proxyd.group().dir().join("body");
    std::fs::write(&file, &body).unwrap();
    let put = rig
        .curl("a.test", &nginx, "/put/x")
        .arg("--http2")
        .arg("-T")
        .arg(&file)
        .run()
        .await;
    assert_eq!(put.status, 201, "{put:?}");
    assert!(rig.curl("a.test", &nginx, "/put/x").arg("--http2").run().await.body == body);

    assert_eventually!(rig.intercepted("H2StreamForward").len() == 4);
    let records = rig.intercepted("H2StreamForward");
    let first = &records[0];
    assert_eq!(first["method"], "GET");
    assert_eq!(first["uri"], "https://a.test/hello.txt?q=1");
    assert_eq!(
        (&first["rsp_status"], &first["origin_status"]),
        (&200.into(), &200.into())
    );
    assert_eq!((&first["clt_stream"], &first["ups_stream"]), (&1.into(), &1.into()));
    assert_eq!(first["msg"], "finished");
    assert_eventually!(rig.intercepted("H2Connection").len() == 4);
    assert_eq!(rig.intercepted("H2Connection")[0]["total_sub_task"], 1);
    let inspected = rig.proxyd.log_records("Inspect");
    let source = |record: &&serde_json::Value| record["source"] == "tls alpn" && record["protocol"] == "http_2";
    assert_eq!(inspected.iter().filter(source).count(), 4, "{inspected:?}");
    rig.stop().await;
}

#[tokio::test]
async fn the_client_gets_the_protocol_that_the_upstream_chose() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test"]).await;
    let rig = Rig::start(&ca, Keys::default()).await;
    for (flag, protocol) in [
        ("--http1.1", "HTTP/1.1"),
        ("--http2", "HTTP/2.0"),
        ("--no-alpn", "HTTP/1.1"),
    ] {
        let answer = rig.curl("a.test", &nginx, "/hello.txt").arg(flag).run().await;
        answer.assert(200, "hello\n");
        assert_eq!(answer.header("x-protocol"), Some(protocol), "{flag}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn many_streams_at_a_time_are_all_answered() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test"]).await;
    let rig = Rig::start(&ca, Keys::default()).await;
    let many = rig
        .curl("a.test", &nginx, "/hello.txt?[1-500]")
        .args(["--http2", "-Z", "--parallel-max", "100"]);
    let many = many.run().await;
    assert_eq!(many.exit, 0, "{}", many.stderr);
    assert_eventually!(nginx.access().len() == 500);
    assert_eventually!(rig.intercepted("H2StreamForward").len() == 500);
    let records = rig.intercepted("H2StreamForward");
    let done = |record: &serde_json::Value| record["msg"] == "finished" && record["rsp_status"] == 200;
    assert!(records.iter().all(done));
    rig.stop().await;
}

/// gRPC: unary, and streams both ways at once whose messages must not wait for each other; status in trailers.
/// Arguments: proxy, the interception's certificate, the server's certificate and key.
const GRPC: &str = r#"
import queue, sys
from concurrent import futures
import grpc

proxy, trust, cert, key = sys.argv[1:]
raw = dict(request_deserializer=None, response_serializer=None)

def echo(requests, context):
    for message in requests:
        yield message[::-1]
    context.set_trailing_metadata((("x-count", "3"),))

def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")

handlers = grpc.method_handlers_generic_handler("t.T", {
    "Echo": grpc.stream_stream_rpc_method_handler(echo, **raw),
    "Big": grpc.unary_unary_rpc_method_handler(lambda request, context: request * 2, **raw),
    "Fail": grpc.unary_unary_rpc_method_handler(fail, **raw),
})
size = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[handlers], options=size)
read = lambda name: open(name, "rb").read()
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(read(key), read(cert))]))
server.start()
options = [("grpc.http_proxy", f"http://{proxy}"), ("grpc.ssl_target_name_override", "a.test"), *size]
with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(read(trust)), options) as channel:
    waiting = queue.Queue()
    call = channel.stream_stream("/t.T/Echo")(iter(waiting.get, None), timeout=20)
    for message in [b"one", b"two", b"three"]:
        waiting.put(message)
        assert next(call) == message[::-1]
    waiting.put(None)
    assert list(call) == [] and ("x-count", "3") in [tuple(pair) for pair in call.trailing_metadata()]
    big = bytes(range(256)) * 16384
    assert channel.unary_unary("/t.T/Big")(big, timeout=20) == big * 2
    try:
        channel.unary_unary("/t.T/Fail")(b"", timeout=20)
        raise SystemExit("no error")
    except grpc.RpcError as error:
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not today")
server.stop(0)
print("done")
"#;

#[tokio::test]
async fn grpc_streams_both_ways() {
    let ca = Ca::new();
    let rig = Rig::start(&ca, Keys::default()).await;
    ca.issue(&["a.test", "127.0.0.1"])
        .write(rig.proxyd.group().dir(), "grpc");
    let file = |name: &str| rig.proxyd.group().dir().join(name).to_str().unwrap().to_owned();
    let proxy = rig.proxyd.addr("http").to_string();
    let run = python(
        GRPC,
        &[
            &proxy,
            rig.trust.to_str().unwrap(),
            &file("grpc.pem"),
            &file("grpc.key"),
        ],
    )
    .await;
    assert_eq!(run.stdout.trim(), "done", "{run:?}");
    assert_eventually!(rig.intercepted("H2StreamForward").len() == 3);
    rig.stop().await;
}

#[tokio::test]
async fn a_policy_blocks_or_bypasses_http2() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test"]).await;
    // A blocked protocol is not offered to the upstream as long as there is another one.
    let rig = Rig::start(
        &ca,
        Keys {
            auditor: "h2_inspect_policy: block",
            ..Keys::default()
        },
    )
    .await;
    let answer = rig.curl("a.test", &nginx, "/hello.txt").arg("--http2").run().await;
    answer.assert(200, "hello\n");
    assert_eq!(answer.header("x-protocol"), Some("HTTP/1.1"));
    rig.stop().await;
    let rig = Rig::start(
        &ca,
        Keys {
            auditor: "h2_inspect_policy: bypass",
            ..Keys::default()
        },
    )
    .await;
    let answer = rig.curl("a.test", &nginx, "/hello.txt").arg("--http2").run().await;
    answer.assert(200, "hello\n");
    assert_eq!(answer.header("x-protocol"), Some("HTTP/2.0"));
    assert!(rig.intercepted("H2StreamForward").is_empty());
    rig.stop().await;
}
