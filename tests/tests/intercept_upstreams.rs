//! Upstreams of intercepted TLS that are not what they should be: what their clients are told, and what is logged.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use sluice_testkit::{Ca, Origin, Port, Process, assert_eventually, curl};
use sluice_tests::finished;
use sluice_tests::rig::{Keys, Rig, openssl, s_server};

/// A web server with the certificate `leaf.pem`, which its library need not like.
async fn serve(dir: &Path) -> (Process, Port) {
    let weak = ["-www", "-cipher", "DEFAULT@SECLEVEL=0", "-alpn", "h2,http/1.1"];
    s_server(dir, "leaf", &weak).await
}

struct Case {
    what: &'static str,
    /// Of the certificate's key.
    key: &'static str,
    /// Of its signature; `None`: it signs itself.
    signed: Option<&'static str>,
    extensions: &'static str,
    /// The alert in curl's words.
    told: &'static str,
    /// `tls_server_verify`.
    verify: &'static str,
}

const EC: &str = "ec -pkeyopt ec_paramgen_curve:P-256";
const NAME: &str = "subjectAltName=DNS:a.test";

/// TLS-09: what is wrong with the upstream reaches the client as what it is, whatever the client would speak inside.
#[tokio::test]
async fn what_is_wrong_with_the_upstreams_certificate_is_told_to_the_client_and_logged() {
    let cases = [
        Case {
            what: "signed by nobody else",
            key: EC,
            signed: None,
            extensions: NAME,
            told: "alert unknown ca",
            verify: "self-signed certificate",
        },
        Case {
            what: "signed by a stranger",
            key: EC,
            signed: Some("-CA stranger.pem -CAkey stranger.key -days 10"),
            extensions: NAME,
            told: "alert unknown ca",
            verify: "unable to get local issuer certificate",
        },
        Case {
            what: "of another name",
            key: EC,
            signed: Some("-CA ca.pem -CAkey ca.key -days 10"),
            extensions: "subjectAltName=DNS:other.test",
            told: "alert bad certificate",
            verify: "hostname mismatch",
        },
        Case {
            what: "over",
            key: EC,
            signed: Some("-CA ca.pem -CAkey ca.key -days -1"),
            extensions: NAME,
            // curl has words of its own for this alert.
            told: "certificate verification failed",
            verify: "certificate has expired",
        },
        Case {
            what: "of a key that is too short",
            key: "rsa:1024",
            signed: Some("-CA ca.pem -CAkey ca.key -days 10"),
            extensions: NAME,
            told: "alert bad certificate",
            verify: "ee certificate key too weak",
        },
        Case {
            what: "for another purpose",
            key: EC,
            signed: Some("-CA ca.pem -CAkey ca.key -days 10"),
            extensions: "subjectAltName=DNS:a.test\nextendedKeyUsage=clientAuth",
            told: "alert unsupported certificate",
            verify: "unsuitable certificate purpose",
        },
    ];
    let (ca, stranger) = (Ca::new(), Ca::named("Another CA"));
    let rig = Rig::start(&ca, Keys::default()).await;
    let dir = rig.proxyd.group().dir();
    for (name, text) in [
        ("ca.key", ca.key_pem()),
        ("stranger.key", stranger.key_pem()),
        ("stranger.pem", stranger.pem()),
    ] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    for (count, case) in cases.iter().enumerate() {
        std::fs::write(dir.join("extensions"), case.extensions).unwrap();
        openssl(
            dir,
            &format!(
                "req -new -newkey {} -nodes -keyout leaf.key -out leaf.csr -subj /CN=leaf",
                case.key
            ),
        );
        let signed = case.signed.unwrap_or("-key leaf.key -days 10");
        openssl(
            dir,
            &format!("x509 -req -in leaf.csr -extfile extensions -out leaf.pem {signed}"),
        );
        let (mut server, port) = serve(dir).await;
        for protocol in ["--http1.1", "--http2"] {
            let answer = curl("https://a.test/")
                .proxy(rig.proxyd.addr("http"))
                .args([protocol, "--connect-to"])
                .arg(format!("::{}", port.addr()))
                .trust(&rig.trust)
                .run()
                .await;
            let what = case.what;
            assert!(answer.exit != 0 && answer.status == 0, "{what}: {answer:?}");
            assert!(answer.stderr.contains(case.told), "{what}: {}", answer.stderr);
        }
        let so_far = 2 * (count + 1);
        assert_eventually!(finished(&rig.proxyd).len() == so_far);
        assert_eq!(finished(&rig.proxyd)[so_far - 1]["reason"], "InterceptionError");
        let records = rig.intercepted("TlsHandshake");
        assert_eq!(records.len(), so_far);
        for record in &records[so_far - 2..] {
            let verify = record["tls_server_verify"].as_str().unwrap().to_lowercase();
            assert_eq!(verify, case.verify, "{}: {record}", case.what);
            let message = record["msg"].as_str().unwrap();
            assert!(message.starts_with("handshake with the upstream: "), "{record}");
        }
        server.kill().await;
    }
    rig.stop().await;
}

/// What was good ten years ago is good still, although it takes another connection to find out.
#[tokio::test]
async fn servers_and_certificates_of_old_are_spoken_to() {
    let ca = Ca::new();
    let rig = Rig::start(&ca, Keys::default()).await;
    let dir = rig.proxyd.group().dir();
    std::fs::write(dir.join("ca.key"), ca.key_pem()).unwrap();
    openssl(
        dir,
        "req -new -newkey rsa:2048 -nodes -keyout leaf.key -out leaf.csr -subj /CN=a.test",
    );
    let mut so_far = 0;
    for (what, extensions, flags) in [
        ("no ephemeral keys", NAME, &["-tls1_2", "-cipher", "AES128-SHA"][..]),
        (
            "a cipher of another mode",
            NAME,
            &["-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA"],
        ),
        ("a name as a subject only", "basicConstraints=CA:FALSE", &[]),
        (
            "an authority as a server",
            &format!("{NAME}\nbasicConstraints=CA:TRUE"),
            &[],
        ),
    ] {
        std::fs::write(dir.join("extensions"), extensions).unwrap();
        openssl(
            dir,
            "x509 -req -in leaf.csr -extfile extensions -out leaf.pem -CA ca.pem -CAkey ca.key -days 10",
        );
        let (mut server, port) = s_server(dir, "leaf", &[&["-www"], flags].concat()).await;
        for _ in 0..2 {
            let answer = curl("https://a.test/")
                .proxy(rig.proxyd.addr("http"))
                .args(["--http1.1", "--connect-to"])
                .arg(format!("::{}", port.addr()))
                .trust(&rig.trust)
                .run()
                .await;
            assert_eq!((answer.exit, answer.status), (0, 200), "{what}: {}", answer.stderr);
        }
        so_far += 2;
        assert_eventually!(finished(&rig.proxyd).len() == so_far);
        let tasks = finished(&rig.proxyd);
        // The record tells of the connection that was of use.
        assert!(
            tasks.iter().all(|task| task["reason"] == "Finished"),
            "{what}: {tasks:?}"
        );
        server.kill().await;
    }
    for record in rig.intercepted("TlsHandshake") {
        assert_eq!(
            (&record["msg"], &record["tls_server_verify"]),
            (&"ok".into(), &"ok".into()),
            "{record}"
        );
    }
    rig.stop().await;
}

/// How long each thread of a process but the first has run.
fn times_of_threads(pid: u32) -> Vec<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let others = threads
        .map(|entry| entry.unwrap())
        .filter(|entry| *entry.file_name() != *pid.to_string());
    let time = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path().join("schedstat")).ok()?;
        Some(Duration::from_nanos(
            text.split_ascii_whitespace().next()?.parse().ok()?,
        ))
    };
    others.filter_map(time).collect()
}

/// An RSA signature takes a millisecond, in which a worker's other connections would stand still.
#[tokio::test]
async fn rsa_keys_of_certificates_sign_on_threads_of_their_own() {
    let ca = Ca::new();
    let rig = Rig::start(&ca, Keys::default()).await;
    let dir = rig.proxyd.group().dir();
    std::fs::write(dir.join("ca.key"), ca.key_pem()).unwrap();
    std::fs::write(dir.join("extensions"), NAME).unwrap();
    openssl(
        dir,
        "req -new -newkey rsa:2048 -nodes -keyout leaf.key -out leaf.csr -subj /CN=leaf",
    );
    openssl(
        dir,
        "x509 -req -in leaf.csr -extfile extensions -out leaf.pem -CA ca.pem -CAkey ca.key -days 10",
    );
    let (mut server, port) = serve(dir).await;
    // Each version; and a client whose first guess of a group is none of ours.
    for flags in [&["--tls-max", "1.2"][..], &["--tlsv1.3"], &["--curves", "P-521:P-256"]] {
        let answer = curl("https://a.test/?[1-25]")
            .proxy(rig.proxyd.addr("http"))
            .args(["--http1.1", "--no-sessionid", "-H", "Connection: close", "--connect-to"])
            .arg(format!("::{}", port.addr()))
            .args(flags)
            .trust(&rig.trust)
            .run()
            .await;
        let good = answer.head.matches("HTTP/1.1 200 ok").count();
        assert_eq!((answer.exit, good), (0, 25), "{flags:?}: {}", answer.stderr);
    }
    let minted = rig.certgend.as_ref().unwrap().log_records("Mint");
    assert!(
        minted.iter().all(|record| record["key_type"] == "rsa2048"),
        "{minted:?}"
    );
    // 50 signatures and some.
    let busiest = times_of_threads(rig.proxyd.pid()).into_iter().max().unwrap();
    assert!(busiest > Duration::from_millis(20), "{busiest:?}");
    server.kill().await;
    rig.stop().await;
}

#[tokio::test]
async fn an_upstream_that_is_no_tls_server_ends_the_connection() {
    let ca = Ca::new();
    let origin = Origin::script(|conn| {
        conn.some()?;
        conn.write(b"220 this is no TLS server\r\n")
    });
    let rig = Rig::start(&ca, Keys::default()).await;
    let answer = curl("https://a.test/")
        .proxy(rig.proxyd.addr("http"))
        .trust(&rig.trust)
        .arg("--connect-to")
        .arg(format!("::{}", origin.addr()))
        .run()
        .await;
    assert_eq!((answer.exit, answer.connect_status), (35, 200), "{answer:?}");
    assert!(rig.handshake().await["msg"].as_str().unwrap().contains("upstream"));
    rig.stop().await;
}
