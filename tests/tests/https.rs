//! `https://` URLs: the proxy does TLS with the origin.

use sluice_testkit::{Answer, Ca, Daemon, Group, Leaf, Nginx, Origin, Wire};
use sluice_tests::{noise, proxy};

/// A proxy that trusts `ca` alone, with more keys of `tls_client`.
async fn trusting(ca: &Ca, keys: &str) -> Daemon {
    let tls = format!("{{ca_certificate: '%dir%/ca.pem', no_default_ca_certificate: true, {keys}}}");
    let group = Group::new(&proxy(&format!("tls_client: {tls}"), ""));
    ca.write(group.dir());
    group.proxyd().await
}

/// nginx that tells the number of a connection, and whether its TLS session was resumed.
async fn nginx(leaf: &Leaf, directives: &str) -> Nginx {
    let telling = "add_header X-Connection $connection; add_header X-Resumed $ssl_session_reused;";
    Nginx::start_with(&format!("{telling}{directives}"), Some(leaf)).await
}

async fn get(wire: &mut Wire, url: &str) -> Answer {
    wire.ask(format!("GET {url} HTTP/1.1\r\n\r\n")).await
}

/// H1-19, TLS-09.
#[tokio::test]
async fn an_origin_by_address_is_reached_over_tls_and_its_connection_kept() {
    let ca = Ca::new();
    let nginx = nginx(&ca.issue(&["127.0.0.1"]), "").await;
    nginx.write("big", noise(5 << 20));
    let daemon = trusting(&ca, "").await;
    let base = format!("https://{}", nginx.tls_addr());
    let mut wire = daemon.connect("http").await;
    let first = get(&mut wire, &format!("{base}/hello.txt")).await;
    assert_eq!((first.status, first.body.as_slice()), (200, &b"hello\n"[..]));
    let mut other = daemon.connect("http").await;
    let second = get(&mut other, &format!("{base}/hello.txt")).await;
    assert_eq!(second.status, 200);
    assert_eq!(first.header("x-connection"), second.header("x-connection"));
    let body = noise(3 << 20);
    other
        .send(format!(
            "PUT {base}/put/x HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ))
        .await;
    other.send(&body).await;
    assert_eq!(other.answer().await.status, 201);
    assert!(get(&mut wire, &format!("{base}/put/x")).await.body == body);
    assert!(get(&mut wire, &format!("{base}/big")).await.body == noise(5 << 20));
    drop((wire, other));
    daemon.stop().await.assert_clean();
}

/// TLS-09.
#[tokio::test]
async fn an_authority_or_a_name_that_does_not_fit_is_a_525_and_logged() {
    let (ca, stranger) = (Ca::new(), Ca::named("Another CA"));
    for (leaf, insecure) in [
        (stranger.issue(&["127.0.0.1"]), false),
        (ca.issue(&["other.test"]), false),
        (ca.issue(&["127.0.0.2"]), false),
        (stranger.issue(&["other.test"]), true),
    ] {
        let nginx = nginx(&leaf, "").await;
        let daemon = trusting(&ca, if insecure { "insecure: true" } else { "" }).await;
        let mut wire = daemon.connect("http").await;
        let url = format!("https://{}/hello.txt", nginx.tls_addr());
        for _ in 0..2 {
            let answer = get(&mut wire, &url).await;
            let status = if insecure { 200 } else { 525 };
            assert_eq!((answer.status, answer.header("connection")), (status, None));
        }
        drop(wire);
        let stopped = daemon.stop().await;
        stopped.assert_clean();
        let reasons: Vec<_> = stopped
            .log_records("Task")
            .iter()
            .map(|task| task["reason"].clone())
            .collect();
        let escapes = stopped.log_records("Escape");
        if insecure {
            assert_eq!(
                (reasons, escapes.len()),
                (vec!["Finished".into(), "Finished".into()], 0)
            );
            continue;
        }
        assert_eq!(reasons, ["UpstreamTlsHandshakeFailed", "UpstreamTlsHandshakeFailed"]);
        assert_eq!(escapes.len(), 2);
        for escape in escapes {
            assert_eq!(escape["escape_type"], "TlsHandshake", "{escape}");
            assert_eq!(escape["tls_name"], "127.0.0.1", "{escape}");
            assert_eq!(escape["tls_peer"], nginx.tls_addr().to_string(), "{escape}");
            assert_eq!(escape["tls_application"], "HttpForward", "{escape}");
        }
    }
}

#[tokio::test]
async fn a_handshake_that_stalls_is_a_525_after_its_time() {
    let origin = Origin::silent();
    let daemon = trusting(&Ca::new(), "handshake_timeout: 200ms").await;
    let mut wire = daemon.connect("http").await;
    let answer = get(&mut wire, &format!("https://{}/", origin.addr())).await;
    assert_eq!((answer.status, answer.header("connection")), (525, None));
    drop(wire);
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let task = stopped.log_records("Task").pop().unwrap();
    assert_eq!(task["reason"], "UpstreamTlsHandshakeTimeout", "{task}");
}

/// TLS-03.
#[tokio::test]
async fn a_second_connection_resumes_the_session() {
    let ca = Ca::new();
    let nginx = nginx(
        &ca.issue(&["127.0.0.1"]),
        "keepalive_timeout 0; ssl_session_cache shared:s:1m;",
    )
    .await;
    let daemon = trusting(&ca, "").await;
    let mut wire = daemon.connect("http").await;
    let url = format!("https://{}/hello.txt", nginx.tls_addr());
    let mut resumed = Vec::new();
    for _ in 0..3 {
        let answer = get(&mut wire, &url).await;
        resumed.push(answer.header("x-resumed").unwrap_or_default().to_owned());
    }
    assert_eq!(resumed, [".", "r", "r"]);
    drop(wire);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let ca = Ca::new();
    let group = Group::new(&proxy(
        "tls_client: {ca_certificate: '%dir%/ca.pem', certificate: '%dir%/client.pem', private_key: '%dir%/client.key'}",
        "",
    ));
    let trusted = ca.write(group.dir());
    ca.issue(&["client.test"]).write(group.dir(), "client");
    let directives = format!("ssl_client_certificate {}; ssl_verify_client on;", trusted.display());
    let nginx = nginx(&ca.issue(&["127.0.0.1"]), &directives).await;
    let daemon = group.proxyd().await;
    let url = format!("https://{}/hello.txt", nginx.tls_addr());
    let answer = get(&mut daemon.connect("http").await, &url).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hello\n"[..]));
    daemon.stop().await.assert_clean();
}
