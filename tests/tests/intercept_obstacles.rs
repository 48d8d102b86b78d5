//! Peers that cannot live with TLS interception: upstreams that want to know who their client is, clients that do not
//! take our certificates. What becomes of them follows a policy.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use serde_json::{Value, json};
use sluice_testkit::{Ca, CurlAnswer, Nginx, Port, Process, Statsd, assert_eventually, curl};
use sluice_tests::finished;
use sluice_tests::rig::{Keys, Rig, nginx_of, s_server};

/// nginx that asks for a certificate of `clients` and says in `X-Client` what it thinks of it.
async fn asking(ca: &Ca, clients: &Path, names: &[&str]) -> Nginx {
    let directives = format!(
        "add_header X-Client $ssl_client_verify; ssl_verify_client optional; ssl_client_certificate {};",
        clients.display()
    );
    nginx_of(&ca.issue(names), &directives).await
}

/// An upstream that ends the handshake of a client without a certificate, and answers as a web server.
async fn demanding(ca: &Ca, dir: &Path, version: &str) -> (Process, Port) {
    ca.issue(&["a.test"]).write(dir, "upstream");
    let strict = [
        "-www",
        "-Verify",
        "1",
        "-verify_return_error",
        "-CAfile",
        "ca.pem",
        version,
    ];
    s_server(dir, "upstream", &strict).await
}

/// What the records of handshakes say, the latest last, once there are `count` of them.
async fn told(rig: &Rig, count: usize) -> Vec<String> {
    assert_eventually!(rig.intercepted("TlsHandshake").len() == count);
    let records = rig.intercepted("TlsHandshake");
    records.iter().map(|r| r["msg"].as_str().unwrap().to_owned()).collect()
}

/// A client with a certificate that it shows to whoever asks, and that trusts the upstream's CA alone.
async fn known_client(rig: &Rig, ca: &Ca, address: std::net::SocketAddr) -> CurlAnswer {
    let dir = rig.proxyd.group().dir();
    let (certificate, key) = ca.issue(&["client.test"]).write(dir, "client");
    curl("https://a.test/hello.txt")
        .proxy(rig.proxyd.addr("http"))
        .args(["--http1.1", "--connect-to"])
        .arg(format!("::{address}"))
        .trust(dir.join("ca.pem"))
        .arg("--cert")
        .arg(certificate)
        .arg("--key")
        .arg(key)
        .run()
        .await
}

const ASKED: &str = "ok, without the client certificate that the upstream asks for";

/// The default: the upstream is left to say what it wants without.
#[tokio::test]
async fn an_upstream_that_asks_gets_no_certificate_and_the_record_says_so() {
    let ca = Ca::new();
    let rig = Rig::start(&ca, Keys::default()).await;
    let nginx = asking(&ca, &rig.proxyd.group().dir().join("ca.pem"), &["a.test"]).await;
    for _ in 0..2 {
        let answer = rig.curl("a.test", &nginx, "/hello.txt").run().await;
        answer.assert(200, "hello\n");
        assert_eq!(answer.header("x-client"), Some("NONE"));
        // It would not ask again in a session that is resumed.
        assert_eq!(answer.header("x-resumed"), Some("."));
    }
    assert_eq!(told(&rig, 2).await, [ASKED, ASKED]);
    rig.stop().await;
}

#[tokio::test]
async fn an_upstream_that_asks_is_refused_where_the_policy_says_so() {
    let ca = Ca::new();
    let keys = Keys {
        auditor: "certificate_request_policy: {exact_match: {block: a.test}}",
        ..Keys::default()
    };
    let rig = Rig::start(&ca, keys).await;
    let nginx = asking(&ca, &rig.proxyd.group().dir().join("ca.pem"), &["a.test", "b.test"]).await;
    for _ in 0..2 {
        let answer = rig.curl("a.test", &nginx, "/hello.txt").run().await;
        assert_eq!(answer.exit, 35, "{answer:?}");
        assert!(
            answer.stderr.to_lowercase().contains("access denied"),
            "{}",
            answer.stderr
        );
    }
    rig.curl("b.test", &nginx, "/hello.txt")
        .run()
        .await
        .assert(200, "hello\n");
    let refused = "the upstream asks for a client certificate";
    assert_eq!(told(&rig, 3).await, [refused, refused, ASKED]);
    assert_eventually!(finished(&rig.proxyd).len() == 3);
    assert_eq!(finished(&rig.proxyd)[0]["reason"], "InterceptionError");
    rig.stop().await;
}

#[tokio::test]
async fn an_upstream_that_asks_is_let_alone_from_then_on_where_the_policy_says_so() {
    let statsd = Statsd::start();
    let stat = format!("stat: {{target_udp: {}, emit_interval: 50ms}}\n", statsd.addr());
    let ca = Ca::new();
    let keys = Keys {
        auditor: "certificate_request_policy: bypass",
        sections: &stat,
        ..Keys::default()
    };
    let rig = Rig::start(&ca, keys).await;
    let nginx = asking(&ca, &rig.proxyd.group().dir().join("ca.pem"), &["a.test", "b.test"]).await;
    let answer = rig.curl("a.test", &nginx, "/hello.txt").run().await;
    answer.assert(200, "hello\n");
    let answer = known_client(&rig, &ca, nginx.tls_addr()).await;
    answer.assert(200, "hello\n");
    assert_eq!(answer.header("x-client"), Some("SUCCESS"));
    // What is learned of one host says nothing of another one at the same address.
    rig.curl("b.test", &nginx, "/hello.txt")
        .run()
        .await
        .assert(200, "hello\n");
    let passes = "bypassed: its upstream has asked for a client certificate";
    let first = format!("{ASKED}; the next ones pass");
    assert_eq!(told(&rig, 3).await, [&first, passes, &first]);
    // A reload that changes nothing of it forgets nothing.
    rig.proxyd.reload().await.unwrap();
    let status = rig.proxyd.status().await;
    let bypassed = &status["auditors"]["audit"]["bypassed"];
    assert_eq!(bypassed["count"], 2, "{status}");
    let host = &bypassed["first"][0];
    assert_eq!(
        (&host["upstream"], &host["name"], &host["client"], &host["reason"]),
        (
            &json!(nginx.tls_addr().to_string()),
            &json!("a.test"),
            &Value::Null,
            &json!("certificate_request")
        )
    );
    let tags = [("auditor", "audit"), ("reason", "certificate_request")];
    assert_eventually!(statsd.total("sluice.auditor.tls.obstacle", &tags) == 2.0);
    assert_eventually!(statsd.total("sluice.auditor.tls.bypass", &tags) == 1.0);
    rig.stop().await;
}

#[tokio::test]
async fn an_upstream_that_insists_is_let_alone_after_its_first_connection() {
    let ca = Ca::new();
    for (version, first) in [
        (
            "-tls1_2",
            "handshake with the upstream: the peer sent the alert handshake_failure when it was given no client \
             certificate; the next ones pass",
        ),
        (
            "-tls1_3",
            "ok, without the client certificate that the upstream asks for; the next ones pass",
        ),
    ] {
        let keys = Keys {
            auditor: "certificate_request_policy: bypass",
            ..Keys::default()
        };
        let rig = Rig::start(&ca, keys).await;
        let (mut server, port) = demanding(&ca, rig.proxyd.group().dir(), version).await;
        let answer = curl("https://a.test/")
            .proxy(rig.proxyd.addr("http"))
            .args(["--http1.1", "--connect-to"])
            .arg(format!("::{}", port.addr()))
            .trust(&rig.trust)
            .run()
            .await;
        // In TLS 1.3 the upstream's alert comes behind the handshakes: before the client has asked for anything the connection
        // is closed, else it gets a page.
        let is_told = match (version, answer.exit, answer.status) {
            ("-tls1_3", 0, 502) | ("-tls1_3", 52 | 56, 0) => true,
            (version, exit, _) => version == "-tls1_2" && exit == 35,
        };
        assert!(is_told, "{version}: {answer:?}");
        let answer = known_client(&rig, &ca, port.addr()).await;
        assert_eq!(answer.status, 200, "{version}: {answer:?}");
        let passes = "bypassed: its upstream has asked for a client certificate";
        assert_eq!(told(&rig, 2).await, [first, passes]);
        server.kill().await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_refuses_our_certificates_is_let_alone_where_the_policy_says_so() {
    let keys = Keys {
        auditor: "certificate_refusal_policy: bypass
    learned_bypass: {refusals: 2}",
        ..Keys::default()
    };
    let (rig, nginx) = Rig::and_nginx(&["a.test", "b.test"], keys).await;
    let stranger = async |name: &str| {
        let trust = rig.proxyd.group().dir().join("ca.pem");
        let client = rig.untrusting(name, &nginx, "/hello.txt").trust(trust);
        client.run().await
    };
    for _ in 0..2 {
        assert_eq!(stranger("a.test").await.exit, 60);
    }
    stranger("a.test").await.assert(200, "hello\n");
    // Another host has its own count.
    assert_eq!(stranger("b.test").await.exit, 60);
    let refused = "handshake with the client: the peer sent the alert unknown_ca";
    assert_eq!(
        told(&rig, 4).await,
        [
            refused,
            &format!("{refused}; the next ones pass"),
            "bypassed: its client has refused the certificates for it",
            refused
        ]
    );
    let status = rig.proxyd.status().await;
    let bypassed = &status["auditors"]["audit"]["bypassed"];
    assert_eq!(
        (&bypassed["count"], &bypassed["first"][0]["client"]),
        (&json!(1), &json!("127.0.0.1"))
    );
    // Other rules, other lessons.
    let text = std::fs::read_to_string(rig.proxyd.group().dir().join("main.yml")).unwrap();
    rig.proxyd
        .reload_with(&text.replace(
            "certificate_refusal_policy: bypass",
            "certificate_refusal_policy: intercept",
        ))
        .await;
    assert_eq!(stranger("a.test").await.exit, 60);
    rig.stop().await;
}

#[tokio::test]
async fn policies_that_cannot_be_are_refused_at_load() {
    let ca = Ca::new();
    for (auditor, message) in [
        ("certificate_refusal_policy: block", "there is nothing to `block`"),
        ("certificate_request_policy: detour", "`detour` is not built yet"),
        ("learned_bypass: {refusals: 0}", "learned_bypass.refusals"),
        ("learned_bypass: {lifetime: 0s}", "learned_bypass.lifetime"),
    ] {
        let keys = Keys {
            auditor,
            ..Keys::default()
        };
        let exited = Rig::group(&ca, &keys).daemon("proxyd").arg("-t").run().await;
        assert!(exited.stderr.contains(message), "{message}: {}", exited.stderr);
        assert_eq!(exited.code, Some(78));
    }
}

/// An upstream that wants to know who its client is cannot be told, and the record says what it did then.
#[tokio::test]
async fn an_upstream_that_demands_a_certificate_is_logged_with_its_alert() {
    let ca = Ca::new();
    for (version, alert) in [("-tls1_2", "handshake_failure"), ("-tls1_3", "certificate_required")] {
        let rig = Rig::start(&ca, Keys::default()).await;
        let (mut server, port) = demanding(&ca, rig.proxyd.group().dir(), version).await;
        let answer = curl("https://a.test/")
            .proxy(rig.proxyd.addr("http"))
            .arg("--connect-to")
            .arg(format!("::{}", port.addr()))
            .trust(&rig.trust)
            .run()
            .await;
        assert_ne!(answer.status, 200, "{answer:?}");
        assert_eventually!(finished(&rig.proxyd).len() == 1);
        // With TLS 1.3 the handshake is over by then.
        let kind = if version == "-tls1_2" { "Intercept" } else { "Task" };
        let records = rig.proxyd.log_records(kind);
        let told = records[0]["msg"].as_str().unwrap();
        assert!(told.contains(alert), "{alert}: {records:?}");
        server.kill().await;
        rig.stop().await;
    }
}
