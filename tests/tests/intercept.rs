//! TLS interception with the real daemons: what clients and upstreams that know nothing of it make of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::json;
use sluice_testkit::{Ca, Nginx, Origin, assert_eventually, curl};
use sluice_tests::rig::{Keys, Rig, nginx, nginx_of, s_server};
use sluice_tests::{Gate, finished, noise};
use tokio::process::Command;

#[tokio::test]
async fn curl_fetches_over_https_and_the_records_tell_what() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test", "127.0.0.1"]).await;
    nginx.write("big", noise(5 << 20));
    let rig = Rig::start(&ca, Keys::default()).await;
    let answer = rig.curl("a.test", &nginx, "/hello.txt?q=1").arg("-v").run().await;
    answer.assert(200, "hello\n");
    assert_eq!(answer.header("x-name"), Some("a.test"));
    assert!(answer.stderr.contains("CN=Interception CA") || answer.stderr.contains("CN = Interception CA"));
    let big = rig.curl("a.test", &nginx, "/big").run().await;
    assert!(big.exit == 0 && big.body == noise(5 << 20));
    let body = noise(3 << 20);
    std::fs::write(rig.proxyd.group().dir().join("body"), &body).unwrap();
    let put = rig.curl("a.test", &nginx, "/put/x").arg("-T");
    let put = put.arg(rig.proxyd.group().dir().join("body")).run().await;
    assert_eq!(put.status, 201, "{put:?}");
    assert!(rig.curl("a.test", &nginx, "/put/x").run().await.body == body);
    // An upstream without a name is checked by its address.
    let by_address = curl(&format!("https://{}/hello.txt", nginx.tls_addr()));
    let by_address = by_address
        .proxy(rig.proxyd.addr("http"))
        .trust(&rig.trust)
        .arg("--http1.1")
        .run()
        .await;
    by_address.assert(200, "hello\n");

    assert_eventually!(finished(&rig.proxyd).len() == 5);
    let handshakes = rig.intercepted("TlsHandshake");
    assert_eq!(handshakes.len(), 5);
    let first = &handshakes[0];
    let task = &finished(&rig.proxyd)[0];
    assert_eq!(
        (&first["auditor_name"], &first["tls_server_verify"], &first["msg"]),
        (&json!("audit"), &json!("ok"), &json!("ok"))
    );
    assert_eq!(
        (&first["task_id"], &first["upstream"]),
        (&task["task_id"], &task["upstream"])
    );
    let requests = rig.intercepted("HttpForward");
    assert_eq!(requests.len(), 5);
    let first = &requests[0];
    assert_eq!(
        [
            &first["method"],
            &first["uri"],
            &first["host"],
            &first["rsp_status"],
            &first["origin_status"],
            &first["request_id"],
            &first["task_id"],
        ],
        [
            &json!("GET"),
            &json!("/hello.txt?q=1"),
            &json!("a.test"),
            &json!(200),
            &json!(200),
            &json!(1),
            &task["task_id"],
        ]
    );
    assert!(requests[2]["dur_req_send_all"].is_string(), "{}", requests[2]);
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_serves_many_requests_over_one_upstream_connection() {
    let (rig, nginx) = Rig::and_nginx(&["a.test"], Keys::default()).await;
    let answer = rig
        .curl("a.test", &nginx, "/hello.txt")
        .args([
            "https://a.test/hello.txt",
            "https://a.test/none",
            "-o",
            "/dev/null",
            "-o",
            "/dev/null",
        ])
        .run()
        .await;
    assert_eq!(answer.exit, 0, "{answer:?}");
    let connections: std::collections::BTreeSet<_> = answer
        .head
        .lines()
        .filter_map(|line| line.strip_prefix("X-Connection: "))
        .collect();
    assert_eq!(connections.len(), 1, "{}", answer.head);
    assert_eventually!(rig.intercepted("HttpForward").len() == 3);
    let ids: Vec<_> = rig
        .intercepted("HttpForward")
        .iter()
        .map(|r| r["request_id"].clone())
        .collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(rig.intercepted("TlsHandshake").len(), 1);
    rig.stop().await;
}

/// TLS-01, TLS-02.
#[tokio::test]
async fn the_protocol_is_the_upstreams_choice_and_without_one_it_is_found_out() {
    let (rig, nginx) = Rig::and_nginx(&["a.test"], Keys::default()).await;
    for flags in [
        &["--http1.1"][..],
        &["--no-alpn"],
        &["--http2"],
        &["--http2-prior-knowledge"],
    ] {
        let answer = rig.curl("a.test", &nginx, "/hello.txt").args(flags).run().await;
        answer.assert(200, "hello\n");
    }
    assert_eventually!(finished(&rig.proxyd).len() == 4);
    assert_eq!(rig.intercepted("HttpForward").len(), 2);
    assert_eq!(rig.intercepted("H2StreamForward").len(), 2);
    rig.stop().await;
}

/// A client that offers nothing else is not let past a policy by the upstream's choice.
#[tokio::test]
async fn http_2_that_is_blocked_is_refused_inside_of_tls() {
    let keys = Keys {
        auditor: "h2_inspect_policy: block",
        ..Keys::default()
    };
    let (rig, nginx) = Rig::and_nginx(&["a.test"], keys).await;
    // Beside another one it is not offered to the upstream.
    let both = rig.curl("a.test", &nginx, "/hello.txt").arg("--http2").run().await;
    both.assert(200, "hello\n");
    let mut client = Command::new("openssl");
    client
        .args(["s_client", "-quiet", "-ign_eof", "-servername", "a.test", "-alpn", "h2"])
        .args(["-connect", &nginx.tls_addr().to_string()])
        .args(["-proxy", &rig.proxyd.addr("http").to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let alone = client.output().await.unwrap();
    // SETTINGS, and GOAWAY with HTTP_1_1_REQUIRED.
    let refusal = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0d";
    assert_eq!(alone.stdout, refusal, "{}", String::from_utf8_lossy(&alone.stderr));
    assert_eventually!(finished(&rig.proxyd).len() == 2);
    assert_eq!(finished(&rig.proxyd)[1]["reason"], "ForbiddenByRule");
    let last = rig.proxyd.log_records("Inspect").pop().unwrap();
    assert_eq!(last["protocol"], "http_2", "{last}");
    assert_eq!(
        (&last["source"], &last["depth"]),
        (&json!("tls alpn"), &json!(2)),
        "{last}"
    );
    rig.stop().await;
}

/// Lets bytes through in both directions.
fn pump(mut one: &TcpStream, mut other: &TcpStream) -> io::Result<()> {
    let (mut back, mut forth) = (other.try_clone()?, one.try_clone()?);
    std::thread::spawn(move || io::copy(&mut back, &mut forth));
    io::copy(&mut one, &mut other).map(drop)
}

/// Whoever is on the way to the upstream can send something before its handshake; no TLS has protected that.
#[tokio::test]
async fn what_comes_before_the_handshake_of_an_upstream_is_no_answer_to_a_client() {
    let ca = Ca::new();
    let nginx = nginx_of(&ca.issue(&["a.test"]), "").await;
    let upstream = nginx.tls_addr();
    let said = Gate::new();
    let has_said = said.clone();
    let between = Origin::script(move |conn| {
        conn.write(b"220 ")?; // may become the greeting of several protocols
        said.open();
        pump(conn.stream(), &TcpStream::connect(upstream)?)
    });
    let rig = Rig::start(&ca, Keys::default()).await;
    let proxy = rig.proxyd.addr("http");
    // Lets no hello through before that.
    let front = Origin::script(move |conn| {
        let mut there = TcpStream::connect(proxy)?;
        there.write_all(conn.head()?.unwrap_or_default().as_bytes())?;
        let mut established = [0; b"HTTP/1.1 200 Connection Established\r\n\r\n".len()];
        there.read_exact(&mut established)?;
        conn.write(&established)?;
        has_said.pass()?;
        pump(conn.stream(), &there)
    });
    let answer = curl("https://a.test/hello.txt")
        .proxy(front.addr())
        .args(["--http1.1", "--connect-to"])
        .arg(format!("::{}", between.addr()))
        .trust(&rig.trust)
        .run()
        .await;
    assert_eq!((answer.status, answer.body.as_slice()), (0, &b""[..]), "{answer:?}");
    let record = rig.handshake().await;
    let said = record["msg"].as_str().unwrap();
    assert!(said.starts_with("handshake with the upstream: "), "{said}");
    rig.stop().await;
}

#[tokio::test]
async fn an_insecure_client_goes_on_and_the_record_says_what_was_wrong() {
    let (ca, stranger) = (Ca::new(), Ca::named("Another CA"));
    let nginx = nginx(&stranger, &["a.test"]).await;
    let keys = Keys {
        client: "insecure: true",
        ..Keys::default()
    };
    let rig = Rig::start(&ca, keys).await;
    rig.curl("a.test", &nginx, "/hello.txt")
        .run()
        .await
        .assert(200, "hello\n");
    let record = rig.handshake().await;
    assert_eq!(record["tls_server_verify"], "unable to get local issuer certificate");
    assert_eq!(record["msg"], "ok");
    rig.stop().await;
}

/// Of `open sesame`.
const TOKEN: &str = "$5$saltsalt12345678$goDNvcrNj8LWxZUR8xlOdUf7utTe2wtzGpTUpwir9L1";

/// A user's site has TLS settings of its own; a user who is not looked into sees the upstream's own certificate.
#[tokio::test]
async fn what_a_user_says_of_a_site_counts_in_place_of_the_auditors_client() {
    let (ca, other) = (Ca::new(), Ca::named("Another CA"));
    let nginx = nginx(&other, &["a.test"]).await;
    let user = |name: &str, more: &str| format!("{{name: {name}, token: {TOKEN}, {more}}}");
    let site = "explicit_sites: [{id: s, exact_match: 127.0.0.1, tls_client: {ca_certificate: '%dir%/other.pem'}}]";
    let users = [
        user("ali", &format!("audit: {{enable_protocol_inspection: true}}, {site}")),
        user("bob", "audit: {enable_protocol_inspection: true}"),
        user("carla", ""),
    ];
    let sections = format!("user_group: [{{name: staff, static_users: [{}]}}]\n", users.join(", "));
    let keys = Keys {
        server: "user_group: staff",
        sections: &sections,
        ..Keys::default()
    };
    let group = Rig::group(&ca, &keys);
    group.write_file("other.pem", other.pem());
    let rig = Rig::start_in(group).await;
    for (name, exit, trust) in [
        ("ali", 0, "mint.pem"),
        ("bob", 35, "mint.pem"),
        ("carla", 0, "other.pem"),
    ] {
        let answer = rig
            .untrusting("a.test", &nginx, "/hello.txt")
            .trust(rig.proxyd.group().dir().join(trust))
            .args(["-U", &format!("{name}:open sesame")])
            .run()
            .await;
        assert_eq!(answer.exit, exit, "{name}: {answer:?}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_trust_us_is_logged_with_its_alert() {
    let (rig, nginx) = Rig::and_nginx(&["a.test"], Keys::default()).await;
    let answer = rig
        .untrusting("a.test", &nginx, "/hello.txt")
        .trust(rig.proxyd.group().dir().join("ca.pem"))
        .run()
        .await;
    assert_eq!(answer.exit, 60, "{answer:?}");
    let record = rig.handshake().await;
    assert_eq!(
        record["msg"],
        "handshake with the client: the peer sent the alert unknown_ca"
    );
    assert_eq!(record["tls_server_verify"], "ok");
    rig.stop().await;
}

/// TLS-11: servers take all of these, so they must be no way around the interception.
#[tokio::test]
async fn a_hello_that_no_client_should_send_is_refused_unseen_by_the_upstream() {
    let origin = Origin::echo();
    let rig = Rig::start(&Ca::new(), Keys::default()).await;
    let hello = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03";
    let random = [7; 41];
    let empty_record_first = [b"\x16\x03\x01\x00\x00", &hello[..], &random].concat();
    let empty_record_between = [b"\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x00", &hello[6..], &random].concat();
    let version_of_record = [b"\x16\x03\xff\x00\x2f", &hello[5..], &random].concat();
    let more = [b"\x16\x03\x01\x40\x00", &[7; 1 << 14][..]].concat().repeat(4);
    let large = [b"\x16\x03\x01\x00\x06\x01\x01\x00\x00\x03\x03", &more[..]].concat();
    let rows = [empty_record_first, empty_record_between, version_of_record, large];
    for (count, bytes) in rows.iter().enumerate() {
        let mut wire = rig.proxyd.http_connect(origin.addr()).await;
        wire.try_send(bytes).await;
        // A fatal alert.
        let answer = wire.rest().await;
        assert!(
            answer.len() == 7 && answer[0] == 21 && answer[5] == 2,
            "row {count}: {answer:?}"
        );
        assert_eventually!(rig.intercepted("TlsHandshake").len() == count + 1);
    }
    assert!(origin.received().concat().is_empty());
    rig.stop().await;
}

/// TLS-07.
#[tokio::test]
async fn a_client_that_stops_in_its_handshake_is_timed_out() {
    let keys = Keys {
        auditor: "tls_interception_server: {accept_timeout: 300ms}
    protocol_inspection: {data0_wait_timeout: 300ms, data0_read_timeout: 300ms}",
        ..Keys::default()
    };
    let (rig, nginx) = Rig::and_nginx(&["a.test"], keys).await;
    let target = nginx.tls_addr();
    // Nothing at all, and half a hello.
    for bytes in [&b""[..], &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]] {
        let mut wire = rig.proxyd.http_connect(target).await;
        wire.send(bytes).await;
        wire.rest().await;
    }
    // A handshake, and then nothing.
    let mut client = Command::new("openssl");
    client
        .args(["s_client", "-servername", "a.test", "-connect"])
        .arg(target.to_string())
        .arg("-proxy")
        .arg(rig.proxyd.addr("http").to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut client = client.spawn().unwrap();
    let stdin = client.stdin.take();
    client.wait().await.unwrap();
    drop(stdin);
    assert_eventually!(finished(&rig.proxyd).len() == 3);
    let handshakes = rig.intercepted("TlsHandshake");
    let told: Vec<_> = handshakes.iter().map(|record| record["msg"].clone()).collect();
    assert_eq!(told, ["the client's hello is not complete after 300ms", "ok"]);
    assert_eq!(finished(&rig.proxyd)[2]["reason"], "Idle");
    rig.stop().await;
}

/// What `openssl s_client` says that saves or uses a session, and fetches.
async fn s_client(rig: &Rig, nginx: &Nginx, flag: &str) -> String {
    let mut client = Command::new("openssl");
    client
        .args(["s_client", "-servername", "a.test", "-verify_return_error", "-ign_eof"])
        .arg("-connect")
        .arg(nginx.tls_addr().to_string())
        .arg("-proxy")
        .arg(rig.proxyd.addr("http").to_string())
        .arg("-CAfile")
        .arg(&rig.trust)
        .arg(flag)
        .arg(rig.proxyd.group().dir().join("session"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = client.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let request = b"GET /hello.txt HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stdin, request).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    drop(stdin);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("hello\n"), "{output:?}");
    text
}

#[tokio::test]
async fn sessions_are_resumed_on_both_sides() {
    let (rig, nginx) = Rig::and_nginx(&["a.test"], Keys::default()).await;
    for (flag, resumed) in [("-sess_out", false), ("-sess_in", true)] {
        let text = s_client(&rig, &nginx, flag).await;
        assert_eq!(text.contains("Reused, TLSv1.3"), resumed, "{text}");
        // The upstream's session is ours, whoever the client was.
        assert_eq!(text.contains("X-Resumed: r"), resumed, "{text}");
    }
    rig.stop().await;
}

/// TLS-17.
#[tokio::test]
async fn a_reload_leaves_tickets_and_certificates_good() {
    let (mut rig, nginx) = Rig::and_nginx(&["a.test"], Keys::default()).await;
    s_client(&rig, &nginx, "-sess_out").await;
    rig.proxyd.reload().await.unwrap();
    // Nobody is there who could make another one.
    rig.certgend.take().unwrap().kill9().await;
    let text = s_client(&rig, &nginx, "-sess_in").await;
    assert!(text.contains("Reused, TLSv1.3"), "{text}");
    rig.curl("a.test", &nginx, "/hello.txt")
        .run()
        .await
        .assert(200, "hello\n");
    rig.stop().await;
}

#[tokio::test]
async fn a_socks_client_is_intercepted_too() {
    let (rig, nginx) = Rig::and_nginx(&["a.test"], Keys::default()).await;
    let answer = curl("https://a.test/hello.txt")
        .arg("-x")
        .arg(format!("socks5://{}", rig.proxyd.addr("socks")))
        .arg("--connect-to")
        .arg(format!("::{}", nginx.tls_addr()))
        .trust(&rig.trust)
        .arg("--http1.1")
        .run()
        .await;
    answer.assert(200, "hello\n");
    assert_eventually!(rig.intercepted("HttpForward").len() == 1);
    rig.stop().await;
}

/// TLS-01: what is inside and nobody knows passes, to its end.
#[tokio::test]
async fn a_protocol_that_nobody_knows_passes_inside_of_tls() {
    let ca = Ca::new();
    let rig = Rig::start(&ca, Keys::default()).await;
    let dir = rig.proxyd.group().dir();
    ca.issue(&["a.test"]).write(dir, "upstream");
    let (mut server, port) = s_server(dir, "upstream", &["-rev"]).await;
    let mut client = Command::new("openssl");
    client
        .args([
            "s_client",
            "-quiet",
            "-no_ign_eof",
            "-servername",
            "a.test",
            "-verify_return_error",
            "-connect",
        ])
        .arg(port.addr().to_string())
        .arg("-proxy")
        .arg(rig.proxyd.addr("http").to_string())
        .arg("-CAfile")
        .arg(&rig.trust)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut client = client.spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    let mut stdout = client.stdout.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"hello inside\n")
        .await
        .unwrap();
    let mut answer = [0; 13];
    tokio::io::AsyncReadExt::read_exact(&mut stdout, &mut answer)
        .await
        .unwrap();
    assert_eq!(&answer, b"edisni olleh\n");
    drop(stdin);
    client.wait().await.unwrap();
    assert_eventually!(finished(&rig.proxyd).len() == 1);
    let task = finished(&rig.proxyd).remove(0);
    assert_eq!(
        (&task["reason"], &task["c_rd_bytes"], &task["c_wr_bytes"]),
        (&json!("ClosedByClient"), &json!(13), &json!(13)),
        "{task}"
    );
    let found: Vec<_> = rig
        .proxyd
        .log_records("Inspect")
        .iter()
        .map(|r| r["protocol"].clone())
        .collect();
    assert_eq!(found, ["tls_modern", "_unknown"]);
    server.kill().await;
    rig.stop().await;
}

/// Without SNI the client alone can tell whether the upstream is the one that it wants, from a leaf that says what the
/// upstream's says; a leaf of another server at the same address does not come in between.
#[tokio::test]
async fn a_client_that_gives_no_name_checks_the_upstreams_own() {
    let ca = Ca::new();
    let right = nginx(&ca, &["127.0.0.1"]).await;
    let wrong = nginx(&ca, &["other.test"]).await;
    let rig = Rig::start(&ca, Keys::default()).await;
    let get = |nginx: &Nginx| {
        curl(&format!("https://{}/hello.txt", nginx.tls_addr()))
            .proxy(rig.proxyd.addr("http"))
            .trust(&rig.trust)
    };
    for _ in 0..2 {
        get(&right).run().await.assert(200, "hello\n");
        let answer = get(&wrong).run().await;
        assert!(answer.exit == 60 && answer.body.is_empty(), "{}", answer.stderr);
    }
    rig.stop().await;
}
