//! ClientHellos of all kinds, by clients that were not written here: which are intercepted, which pass, which are refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use sluice_testkit::{Ca, Origin, Port, Process, assert_eventually, python};
use sluice_tests::rig::{Keys, Rig, nginx, nginx_of, s_server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;

const BROWSERS: [&str; 12] = [
    "edge101",
    "chrome110",
    "chrome124",
    "chrome131_android",
    "chrome152",
    "safari153",
    "safari180_ios",
    "safari270",
    "firefox133",
    "firefox147",
    "firefox155",
    "tor145",
];

#[tokio::test]
async fn the_hellos_of_browsers_are_intercepted() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test"]).await;
    let keys = Keys {
        escaper: "resolve_redirection: {a.test: 127.0.0.1}",
        ..Keys::default()
    };
    let rig = Rig::start(&ca, keys).await;
    let proxy = rig.proxyd.addr("http").to_string();
    let url = format!("https://a.test:{}/hello.txt", nginx.tls_addr().port());
    let mut args = vec![proxy.as_str(), rig.trust.to_str().unwrap(), &url];
    args.extend(BROWSERS);
    let run = python(include_str!("../programs/browser_hellos.py"), &args).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    let expected: String = BROWSERS
        .iter()
        .map(|browser| format!("{browser} 2 200\n").repeat(2))
        .collect();
    assert_eq!(run.stdout, expected);
    assert_eventually!(rig.intercepted("H2StreamForward").len() == 2 * BROWSERS.len());
    rig.stop().await;
}

/// A rig, and a file of both CAs, so that clients go on whoever answers.
async fn rig(ca: &Ca) -> Rig {
    let rig = Rig::start(ca, Keys::default()).await;
    let dir = rig.proxyd.group().dir();
    let both = ["ca.pem", "mint.pem"].map(|file| fs::read_to_string(dir.join(file)).unwrap());
    fs::write(dir.join("both.pem"), both.concat()).unwrap();
    rig
}

/// What `openssl s_client` says of a connection through the proxy to `upstream`, with this on its standard input.
async fn s_client(rig: &Rig, upstream: SocketAddr, args: &[&str], input: &str) -> String {
    let proxy = rig.proxyd.addr("http").to_string();
    s_client_at(
        rig.proxyd.group().dir(),
        upstream,
        &[&["-proxy", &proxy, "-ign_eof"], args].concat(),
        input,
    )
    .await
}

async fn s_client_at(dir: &Path, upstream: SocketAddr, args: &[&str], input: &str) -> String {
    s_client_in_steps(dir, upstream, args, &[input]).await
}

/// With steps of input, each of which is given once the client has said something about the one before.
async fn s_client_in_steps(dir: &Path, upstream: SocketAddr, args: &[&str], steps: &[&str]) -> String {
    let mut client = Command::new("openssl");
    client
        .args(["s_client", "-connect", &upstream.to_string(), "-CAfile", "both.pem"])
        .args(["-servername", "a.test", "-verify_return_error"])
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = client.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let mut said = Vec::new();
    let talk = async {
        for (index, step) in steps.iter().enumerate() {
            // One that has ended already reads nothing.
            let _ = stdin.write_all(step.as_bytes()).await;
            if index + 1 < steps.len() {
                while !said.ends_with(b"KEYUPDATE\n") && stderr.read_buf(&mut said).await.unwrap() > 0 {}
            }
        }
        stdout.read_to_end(&mut said).await.unwrap();
        stderr.read_to_end(&mut said).await.unwrap();
        child.wait().await.unwrap();
    };
    timeout(Duration::from_secs(30), talk).await.unwrap();
    drop(stdin);
    String::from_utf8_lossy(&said).into_owned()
}

const GET: &str = "GET /hello.txt HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

/// An upstream that answers with a page about the connection.
async fn pages(rig: &Rig, ca: &Ca, args: &[&str]) -> (Process, Port) {
    let dir = rig.proxyd.group().dir();
    ca.issue(&["a.test"]).write(dir, "upstream");
    s_server(dir, "upstream", &[&["-quiet", "-www"], args].concat()).await
}

#[tokio::test]
async fn what_is_modern_is_intercepted_whatever_else_it_says() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test"]).await;
    let rig = rig(&ca).await;
    // Longer than what a record may hold, so that the hello comes in several.
    let long = format!("{0},{0},http/1.1", "x".repeat(250));
    let cases: [(&[&str], &str); 16] = [
        (&["-tls1_2"], "TLSv1.2"),
        (&["-tls1_3"], "TLSv1.3"),
        (&["-max_send_frag", "512", "-alpn", &long], "ALPN protocol: http/1.1"),
        (&["-no_ticket"], "TLSv1.3"),
        // The key share of the first one is of no use: the client is asked for another one.
        (&["-groups", "P-521:P-384"], "TLSv1.3"),
        (&["-tls1_2", "-groups", "P-256"], "TLSv1.2"),
        (
            &["-no_middlebox", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
            "TLS_CHACHA20_POLY1305_SHA256",
        ),
        (
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
            "ECDHE-ECDSA-AES128-GCM-SHA256",
        ),
        (&["-sigalgs", "ECDSA+SHA256"], "TLSv1.3"),
        (&["-status"], "OCSP response: no response sent"),
        (&["-tls1_2", "-legacy_renegotiation"], "TLSv1.2"),
        (&["-tls1_2", "-nextprotoneg", "http/1.1,spdy/3"], "No ALPN negotiated"),
        (&["-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
        (&["-alpn", "http/1.0"], "ALPN protocol: http/1.0"),
        (&["-alpn", "unheard-of,http/1.1"], "ALPN protocol: http/1.1"),
        (&["-alpn", "h2c,spdy/3,http/1.1"], "ALPN protocol: http/1.1"),
    ];
    for (args, said) in cases {
        let text = s_client(&rig, nginx.tls_addr(), args, GET).await;
        for part in ["issuer=CN = Interception CA", "HTTP/1.1 200 OK", said] {
            assert!(text.contains(part), "{args:?}: {part}: {text}");
        }
    }
    assert_eventually!(rig.intercepted("HttpForward").len() == cases.len());
    rig.stop().await;
}

#[tokio::test]
async fn what_has_nothing_in_common_is_refused_with_the_alert_for_it() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test"]).await;
    let rig = rig(&ca).await;
    let (client, upstream) = ("handshake with the client: ", "handshake with the upstream: ");
    let cases: [(&[&str], &str, &str); 7] = [
        (&["-groups", "X448"], "alert handshake failure", client),
        (&["-groups", "ffdhe2048"], "alert handshake failure", client),
        (&["-tls1_2", "-cipher", "AES128-SHA"], "alert handshake failure", client),
        (&["-sigalgs", "RSA-PSS+SHA256"], "alert handshake failure", client),
        // It knows by the server's random number that it could have had more.
        (&["-tls1_2", "-fallback_scsv"], "inappropriate fallback", client),
        (&["-alpn", "h2c"], "alert no application protocol", upstream),
        (&["-alpn", "unheard-of"], "alert no application protocol", upstream),
    ];
    for (index, (args, alert, side)) in cases.into_iter().enumerate() {
        let text = s_client(&rig, nginx.tls_addr(), args, GET).await;
        assert!(text.contains(alert), "{args:?}: {text}");
        assert_eventually!(rig.intercepted("TlsHandshake").len() == index + 1);
        let told = rig.intercepted("TlsHandshake")[index]["msg"].clone();
        assert!(told.as_str().unwrap().starts_with(side), "{args:?}: {told}");
    }
    rig.stop().await;
}

/// The protocol that client and upstream have agreed on is theirs, though nobody else knows it.
#[tokio::test]
async fn a_protocol_of_both_sides_is_chosen_though_nobody_else_knows_it() {
    let ca = Ca::new();
    let rig = rig(&ca).await;
    let (_server, port) = pages(&rig, &ca, &["-alpn", "h2c,http/1.0,unheard-of"]).await;
    let upstream = port.addr();
    for (offered, chosen) in [
        ("h2c", "ALPN protocol: h2c"),
        ("http/1.0", "ALPN protocol: http/1.0"),
        ("unheard-of,h3", "ALPN protocol: unheard-of"),
    ] {
        let text = s_client(&rig, upstream, &["-alpn", offered], "GET / HTTP/1.0\r\n\r\n").await;
        assert!(
            text.contains("issuer=CN = Interception CA") && text.contains(chosen),
            "{offered}: {text}"
        );
        assert!(text.contains(" 200 ok"), "{offered}: {text}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn what_is_older_passes_untouched() {
    let ca = Ca::new();
    let rig = rig(&ca).await;
    let old = ["-cipher", "ALL:@SECLEVEL=0"];
    let (_server, port) = pages(&rig, &ca, &old).await;
    let upstream = port.addr();
    for version in ["-tls1", "-tls1_1"] {
        let text = s_client(
            &rig,
            upstream,
            &[&[version], &old[..]].concat(),
            "GET / HTTP/1.0\r\n\r\n",
        )
        .await;
        assert!(
            text.contains("issuer=CN = Sluice Test CA") && text.contains("HTTP/1.0 200 ok"),
            "{version}: {text}"
        );
    }
    // A hello as of SSL 2 that leads to TLS (RFC 5246 appendix E.2).
    let hello =
        b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10\x01\0\x80\x03\0\x80\x07\0\xc0\0\0\x35\0\0\x2f\0\0\x0a0123456789abcdef";
    let origin = Origin::echo();
    let mut wire = rig.proxyd.http_connect(origin.addr()).await;
    assert_eq!(wire.echo(hello).await, hello);
    drop(wire);
    assert_eventually!(rig.proxyd.log_records("Inspect").len() == 3);
    let found: Vec<_> = rig
        .proxyd
        .log_records("Inspect")
        .iter()
        .map(|record| record["protocol"].clone())
        .collect();
    assert_eq!(found, ["tls_legacy", "tls_legacy", "ssl_legacy"]);
    assert!(rig.intercepted("TlsHandshake").is_empty());
    rig.stop().await;
}

/// A client that has met the upstream without us sends its request with its hello; we do not know the ticket, and what
/// comes early is skipped, as if it had not been sent.
#[tokio::test]
async fn early_data_is_skipped_and_sent_again_by_the_client() {
    let ca = Ca::new();
    let nginx = nginx_of(&ca.issue(&["a.test"]), "ssl_protocols TLSv1.3; ssl_early_data on;").await;
    let rig = rig(&ca).await;
    let dir = rig.proxyd.group().dir();
    for early in [
        GET.to_owned(),
        format!(
            "GET /hello.txt HTTP/1.1\r\nHost: a.test\r\nX-Long: {}\r\n\r\n",
            "x".repeat(10_000)
        ),
    ] {
        let direct = s_client_at(dir, nginx.tls_addr(), &["-ign_eof", "-sess_out", "session"], GET).await;
        assert!(direct.contains("Max Early Data: 16384"), "{direct}");
        fs::write(dir.join("early"), &early).unwrap();
        let text = s_client(
            &rig,
            nginx.tls_addr(),
            &["-sess_in", "session", "-early_data", "early"],
            GET,
        )
        .await;
        for part in [
            "Early data was rejected",
            "issuer=CN = Interception CA",
            "HTTP/1.1 200 OK",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    assert_eventually!(rig.intercepted("HttpForward").len() == 2);
    // Our own tickets do not allow it.
    s_client(&rig, nginx.tls_addr(), &["-sess_out", "session"], GET).await;
    let text = s_client(
        &rig,
        nginx.tls_addr(),
        &["-sess_in", "session", "-early_data", "early"],
        GET,
    )
    .await;
    assert!(
        text.contains("Reused, TLSv1.3") && text.contains("Early data was not sent"),
        "{text}"
    );
    assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
    rig.stop().await;
}

/// Also when nobody has anything else to say.
#[tokio::test]
async fn a_client_that_wants_to_renegotiate_is_told_that_it_may_not() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test"]).await;
    let rig = rig(&ca).await;
    let proxy = rig.proxyd.addr("http").to_string();
    // Where the end of the input is no end, it takes no commands.
    let args = ["-proxy", &proxy, "-tls1_2"];
    let text = s_client_at(rig.proxyd.group().dir(), nginx.tls_addr(), &args, "R\n").await;
    assert!(
        text.contains("RENEGOTIATING") && text.contains("no renegotiation"),
        "{text}"
    );
    rig.stop().await;
}

#[tokio::test]
async fn keys_are_changed_in_between() {
    let ca = Ca::new();
    let nginx = nginx_of(&ca.issue(&["a.test"]), "ssl_protocols TLSv1.3;").await;
    let rig = rig(&ca).await;
    let proxy = rig.proxyd.addr("http").to_string();
    let args = ["-proxy", &proxy, "-tls1_3", "-alpn", "http/1.1"];
    // Each command is a read of its own, so the request comes once the keys are new.
    let text = s_client_in_steps(rig.proxyd.group().dir(), nginx.tls_addr(), &args, &["K\n", GET]).await;
    assert!(text.contains("KEYUPDATE") && text.contains("HTTP/1.1 200 OK"), "{text}");
    rig.stop().await;
}
