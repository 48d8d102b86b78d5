//! TLS towards clients: certificates, client certificates, rules.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::{Command, Stdio};

use sluice_testkit::{Ca, Group, Origin, Statsd, assert_eventually, curl};
use sluice_tests::{config_with, finished};

const TLS: &str = "tls_server: {cert_pairs: {certificate: '%dir%/front.pem', private_key: '%dir%/front.key'}}";

/// What `openssl s_client` with these arguments says; it sends what the proxy refuses, and reads to the end.
fn s_client(port: u16, args: &[&str]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-ign_eof"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A client that was refused is not there to take it.
    let _ = child.stdin.take().unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n");
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
}

/// TLS-05.
#[tokio::test]
async fn clients_with_certificates_resume_their_sessions_again_and_again() {
    let ca = Ca::new();
    let demands = |more: &str| {
        TLS.replace(
            "cert_pairs",
            &format!("enable_client_auth: true, ca_certificate: '%dir%/ca.pem', {more} cert_pairs"),
        )
    };
    let (tickets, cache) = (demands(""), demands("no_session_ticket: true,"));
    let group = Group::new(&config_with(&format!(
        "  - {{name: http, type: http_proxy, escaper: out}}
  - {{name: rustls, type: plain_tls_port, listen: '127.0.0.1:%rustls%', server: http, {tickets}}}
  - {{name: openssl, type: native_tls_port, listen: '127.0.0.1:%openssl%', server: http, {tickets}}}
  - {{name: cache, type: native_tls_port, listen: '127.0.0.1:%cache%', server: http, {cache}}}
  - {{name: own, type: http_proxy, listen: '127.0.0.1:%own%', escaper: out, {tickets}}}"
    )));
    ca.write(group.dir());
    ca.issue(&["localhost"]).write(group.dir(), "front");
    ca.issue(&["client.test"]).write(group.dir(), "client");
    let daemon = group.proxyd().await;
    let file = |name: &str| group.dir().join(name).to_string_lossy().into_owned();
    let identity = ["-cert", &file("client.pem"), "-key", &file("client.key")];
    for port in ["rustls", "openssl", "cache", "own"] {
        for version in ["-tls1_2", "-tls1_3"] {
            let session = file(&format!("{port}{version}"));
            let connect =
                |flag: &str| s_client(group.port(port), &[&[version, flag, &session], &identity[..]].concat());
            assert!(connect("-sess_out").contains("\nNew, "), "{port} {version}");
            for time in ["first", "second"] {
                let said = connect("-sess_in");
                assert!(
                    said.contains("\nReused, "),
                    "{port} {version} for the {time} time: {said}"
                );
                assert!(said.contains("HTTP/1.1 "), "{port} {version}: {said}");
            }
        }
    }
    daemon.stop().await.assert_clean();
}

/// TLS-08.
#[tokio::test]
async fn every_certificate_of_a_list_serves_those_who_want_it() {
    let ca = Ca::new();
    let group = Group::new("server: []\n");
    ca.write(group.dir());
    ca.issue(&["localhost", "ec.test"]).write(group.dir(), "front");
    ca.issue(&["other.test"]).write(group.dir(), "other");
    let rsa = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .arg("-keyout")
        .arg(group.dir().join("rsa.key"))
        .arg("-out")
        .arg(group.dir().join("rsa.pem"))
        .output()
        .unwrap();
    assert!(rsa.status.success(), "{}", String::from_utf8_lossy(&rsa.stderr));
    let pair = |name: &str| format!("{{certificate: '%dir%/{name}.pem', private_key: '%dir%/{name}.key'}}");
    let list = format!(
        "tls_server: {{cert_pairs: [{}, {}, {}]}}",
        pair("front"),
        pair("rsa"),
        pair("other")
    );
    let map = format!("tls_server: {{cert_pairs: {}}}", pair("rsa"));
    group.rewrite(&config_with(&format!(
        "  - {{name: http, type: http_proxy, listen: '127.0.0.1:%own%', escaper: out, {list}}}
  - {{name: rustls, type: plain_tls_port, listen: '127.0.0.1:%rustls%', server: http, {list}}}
  - {{name: openssl, type: native_tls_port, listen: '127.0.0.1:%openssl%', server: http, {list}}}
  - {{name: map, type: native_tls_port, listen: '127.0.0.1:%map%', server: http, {map}}}"
    )));
    let daemon = group.proxyd().await;
    let shown = |port: &str, args: &[&str]| {
        let said = s_client(group.port(port), args);
        let line = said
            .lines()
            .find(|line| line.starts_with("Peer signature type") || line.starts_with("subject="));
        let kind = said.lines().find(|line| line.starts_with("Peer signature type"));
        (line.unwrap_or(&said).to_owned(), kind.unwrap_or(&said).to_owned())
    };
    for port in ["own", "rustls", "openssl"] {
        for version in ["-tls1_2", "-tls1_3"] {
            let ec = shown(
                port,
                &[
                    version,
                    "-servername",
                    "localhost",
                    "-sigalgs",
                    "ecdsa_secp256r1_sha256",
                ],
            );
            assert!(ec.1.to_lowercase().contains("ecdsa"), "{port} {version} {ec:?}");
            let rsa = shown(
                port,
                &[version, "-servername", "localhost", "-sigalgs", "rsa_pss_rsae_sha256"],
            );
            assert!(rsa.1.to_lowercase().contains("rsa"), "{port} {version} {rsa:?}");
            let other = shown(port, &[version, "-servername", "other.test"]);
            assert!(other.0.contains("other.test"), "{port} {version} {other:?}");
        }
    }
    assert!(shown("map", &["-tls1_3"]).1.to_lowercase().contains("rsa"));
    daemon.stop().await.assert_clean();
}

/// TLS-08.
#[tokio::test]
async fn a_certificate_that_is_none_or_has_no_key_is_refused() {
    let ca = Ca::new();
    for (kind, next) in [
        ("http_proxy", "escaper: out"),
        ("plain_tls_port", "server: next"),
        ("native_tls_port", "server: next"),
    ] {
        for (pair, says) in [
            (
                "{certificate: '%dir%/nonsense.pem', private_key: '%dir%/front.key'}",
                "nonsense.pem",
            ),
            (
                "{certificate: '%dir%/front.pem', private_key: '%dir%/nonsense.pem'}",
                "nonsense.pem",
            ),
            (
                "{certificate: '%dir%/missing.pem', private_key: '%dir%/front.key'}",
                "missing.pem",
            ),
            (
                "{certificate: '%dir%/front.pem', private_key: '%dir%/other.key'}",
                "private_key",
            ),
            ("{certificate: '%dir%/front.pem'}", "private_key"),
            ("{private_key: '%dir%/front.key'}", "certificate"),
            // Behind one that is right.
            (
                "[{certificate: '%dir%/front.pem', private_key: '%dir%/front.key'}, \
                 {certificate: '%dir%/other.pem', private_key: '%dir%/front.key'}]",
                "cert_pairs[1]",
            ),
        ] {
            let group = Group::new(&config_with(&format!(
                "  - {{name: next, type: http_proxy, escaper: out}}
  - {{name: tls, type: {kind}, listen: '127.0.0.1:%tls%', {next}, tls_server: {{cert_pairs: {pair}}}}}"
            )));
            ca.issue(&["localhost"]).write(group.dir(), "front");
            ca.issue(&["localhost"]).write(group.dir(), "other");
            group.write_file(
                "nonsense.pem",
                "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n",
            );
            let exited = group.daemon("proxyd").arg("-t").run().await;
            assert_ne!(exited.code, Some(0), "{kind} {pair}");
            assert!(exited.stderr.contains(says), "{kind} {pair}: {}", exited.stderr);
        }
    }
}

/// TLS-18.
#[tokio::test]
async fn clients_that_are_not_let_in_do_not_come_in_by_tls_either() {
    let ca = Ca::new();
    let statsd = Statsd::start();
    let origin = Origin::hello("hi");
    let deny = "ingress_network_filter: {deny: 127.0.0.1, allow: 127.0.0.2}";
    let yaml = config_with(&format!(
        "  - {{name: own, type: http_proxy, listen: '127.0.0.1:%own%', escaper: out, {deny}, {TLS}}}
  - {{name: open, type: http_proxy, escaper: out}}
  - {{name: port, type: plain_tls_port, listen: '127.0.0.1:%port%', server: open, {deny}, {TLS}}}
  - {{name: guarded, type: http_proxy, escaper: out, {deny}}}
  - {{name: before, type: native_tls_port, listen: '127.0.0.1:%before%', server: guarded, {TLS}}}"
    ));
    let group = Group::new(&(yaml + &statsd.section()));
    ca.write(group.dir());
    ca.issue(&["localhost"]).write(group.dir(), "front");
    let daemon = group.proxyd().await;
    for (port, refuses) in [("own", "own"), ("port", "port"), ("before", "guarded")] {
        for (client, is_let_in) in [("127.0.0.1", false), ("127.0.0.2", true)] {
            let answer = curl(&format!("http://{}/", origin.addr()))
                .args(["--proxy", &format!("https://localhost:{}", group.port(port))])
                .arg("--proxy-cacert")
                .arg(group.dir().join("ca.pem"))
                .args(["--interface", client])
                .run()
                .await;
            assert_eq!(answer.exit == 0, is_let_in, "{port} {client}");
        }
        assert_eventually!(statsd.total("sluice.listen.dropped", &[("server", refuses)]) == 1.0);
    }
    assert_eventually!(finished(&daemon).len() == 3);
    assert_eq!(origin.accepted(), 1);
    daemon.stop().await.assert_clean();
}

/// TLS-06: a ticket whose key is gone costs a full handshake, nothing else.
#[tokio::test]
async fn a_ticket_of_a_key_that_is_too_old_is_no_ticket() {
    let ticketer = "tls_ticketer: {check_interval: 10ms, local_lifetime: 1}";
    let group = Group::new(&config_with(&format!(
        "  - {{name: http, type: http_proxy, escaper: out}}
  - {{name: rustls, type: plain_tls_port, listen: '127.0.0.1:%rustls%', server: http, {TLS}, {ticketer}}}
  - {{name: openssl, type: native_tls_port, listen: '127.0.0.1:%openssl%', server: http, {TLS}, {ticketer}}}"
    )));
    Ca::new().issue(&["localhost"]).write(group.dir(), "front");
    let daemon = group.proxyd().await;
    for port in ["rustls", "openssl"] {
        let session = group.dir().join(port).to_string_lossy().into_owned();
        // With this version a client shows its ticket however old it is.
        let connect = |flag: &str| s_client(group.port(port), &["-tls1_2", flag, &session]);
        assert!(connect("-sess_out").contains("\nNew, TLSv1.2"), "{port}");
        assert_eventually!({
            let said = connect("-sess_in");
            assert!(said.contains("HTTP/1.1 501"), "{port}: {said}");
            said.contains("\nNew, TLSv1.2")
        });
    }
    daemon.stop().await.assert_clean();
}

/// TLS-06: keys that are shared over Redis are not taken yet, and not made up either.
#[tokio::test]
async fn a_source_of_shared_ticket_keys_is_refused_by_name() {
    let source = "source: {type: redis, addr: 127.0.0.1, enc_key: a, dec_set: b}";
    let port = format!(
        "  - {{name: http, type: http_proxy, escaper: out}}
  - {{name: p, type: plain_tls_port, listen: '127.0.0.1:%p%', server: http, {TLS}, tls_ticketer: {{{source}}}}}"
    );
    let auditor = format!(
        "  - {{name: http, type: http_proxy, escaper: out, listen: '127.0.0.1:%http%', auditor: a}}
auditor: [{{name: a, tls_cert_agent: {{}}, tls_ticketer: {{{source}}}}}]"
    );
    for (config, path) in [(port, "server[1]"), (auditor, "auditor[0]")] {
        let group = Group::new(&config_with(&config));
        Ca::new().issue(&["localhost"]).write(group.dir(), "front");
        let exited = group.daemon("proxyd").arg("-t").run().await;
        assert_eq!(exited.code, Some(78), "{}", exited.stderr);
        let said = exited.stderr.lines().find(|line| line.contains("not built yet"));
        assert!(
            said.is_some_and(|line| line.contains("source")),
            "{path}: {}",
            exited.stderr
        );
        assert!(exited.stderr.contains(path), "{path}: {}", exited.stderr);
    }
}
