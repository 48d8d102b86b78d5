//! Where the certificates of TLS interception come from: many of them, none for want of certgend or by its rules, another
//! generator's, and the one key that proxyd must not have.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rustix::process::Signal;
use sluice_testkit::{Ca, CurlAnswer, Nginx, assert_eventually};
use sluice_tests::rig::{Keys, Rig, nginx, private};
use tokio::process::Command;

fn alert_of(answer: &CurlAnswer) -> String {
    let last = answer.stderr.rsplit("alert ").next().unwrap_or_default();
    last.trim().to_ascii_lowercase()
}

#[tokio::test]
async fn a_thousand_hosts_that_nobody_has_seen_are_served_without_a_failure() {
    let (rig, nginx) = Rig::and_nginx(&["*.hosts.test"], Keys::default()).await;
    let mut client = Command::new("curl");
    client
        .args([
            "-q",
            "-sS",
            "--max-time",
            "55",
            "-Z",
            "--parallel-max",
            "20",
            "--no-progress-meter",
        ])
        .args(["-o", "/dev/null", "-w", "%{http_code} %{exitcode}\n"])
        .arg("--cacert")
        .arg(&rig.trust)
        .arg("-x")
        .arg(format!("http://{}", rig.proxyd.addr("http")))
        .arg("--connect-to")
        .arg(format!("::{}", nginx.tls_addr()))
        .arg("https://h[1-1000].hosts.test/hello.txt");
    let output = client.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let good = text.lines().filter(|line| *line == "200 0").count();
    assert_eq!(good, 1000, "{}", String::from_utf8_lossy(&output.stderr));
    let status = rig.proxyd.status().await;
    assert_eq!(status["auditors"]["audit"]["certificates_cached"], 1000, "{status}");
    rig.stop().await;
}

/// A new host's connection to a proxy whose certgend does not answer.
async fn new_host(rig: &Rig, nginx: &Nginx, name: &str) -> CurlAnswer {
    let both = rig.proxyd.group().dir().join("both.pem");
    let text = ["ca.pem", "mint.pem"].map(|file| std::fs::read_to_string(rig.proxyd.group().dir().join(file)).unwrap());
    std::fs::write(&both, text.concat()).unwrap();
    rig.untrusting(name, nginx, "/hello.txt")
        .trust(&both)
        .arg("-v")
        .run()
        .await
}

fn issuer(answer: &CurlAnswer) -> &str {
    let line = answer.stderr.lines().find(|line| line.contains("issuer:"));
    if line.is_some_and(|line| line.contains("Interception CA")) {
        "ours"
    } else {
        "upstream"
    }
}

#[tokio::test]
async fn without_certgend_known_hosts_go_on_and_new_ones_follow_the_policy() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test", "b.test", "c.test", "d.test"]).await;
    for policy in ["block", "bypass"] {
        let auditor = format!("on_certgend_failure: {policy}");
        let keys = Keys {
            auditor: &auditor,
            agent: "query_wait_timeout: 600ms, cache_request_timeout: 600ms",
            ..Keys::default()
        };
        let mut rig = Rig::start(&ca, keys).await;
        rig.curl("a.test", &nginx, "/hello.txt")
            .run()
            .await
            .assert(200, "hello\n");
        let check = async |rig: &Rig, name: &str| {
            rig.curl("a.test", &nginx, "/hello.txt")
                .run()
                .await
                .assert(200, "hello\n");
            let answer = new_host(rig, &nginx, name).await;
            if policy == "block" {
                assert_eq!((answer.exit, answer.status), (35, 0), "{answer:?}");
                assert!(alert_of(&answer).contains("internal error"), "{}", answer.stderr);
            } else {
                assert_eq!((answer.status, issuer(&answer)), (200, "upstream"), "{answer:?}");
            }
        };
        // Stuck, then gone.
        let certgend = rig.certgend.take().unwrap();
        certgend.signal(Signal::STOP);
        check(&rig, "b.test").await;
        // Who reads the log learns what is wrong, where, and what to do.
        let said = || rig.proxyd.stderr();
        let warnings = || said().matches("no certificates for new hosts").count();
        assert_eventually!(warnings() == 1, "{}", said());
        assert!(
            said().contains("certgend.mint, error: the certificate generator gives no answer within 600ms"),
            "{}",
            said()
        );
        let status = rig.proxyd.status().await;
        let error = &status["auditors"]["audit"]["last_error"];
        assert_eq!(error, "the certificate generator gives no answer within 600ms");
        certgend.signal(Signal::CONT);
        let group = certgend.kill9().await;
        check(&rig, "c.test").await;
        // And back.
        rig.certgend = Some(group.daemon("certgend").start().await);
        assert_eventually!({
            let answer = new_host(&rig, &nginx, "d.test").await;
            answer.status == 200 && issuer(&answer) == "ours"
        });
        assert_eventually!(
            said().contains("there are certificates for new hosts again"),
            "{}",
            said()
        );
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_host_that_no_certificate_is_made_for_is_blocked_whatever_the_policy() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["bank.test"]).await;
    for policy in ["block", "bypass"] {
        let auditor = format!("on_certgend_failure: {policy}");
        let keys = Keys {
            auditor: &auditor,
            certgend: "never_mint: [bank.test]",
            ..Keys::default()
        };
        let rig = Rig::start(&ca, keys).await;
        for _ in 0..2 {
            let answer = rig.curl("bank.test", &nginx, "/hello.txt").run().await;
            assert_eq!(answer.exit, 35, "{answer:?}");
            assert!(alert_of(&answer).contains("access denied"), "{}", answer.stderr);
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_generator_of_g3proxys_datagrams_will_do() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test"]).await;
    let keys = Keys {
        agent: "query_peer_addr: '127.0.0.1:%mint%'",
        ..Keys::default()
    };
    let group = Rig::group(&ca, &keys);
    let ours = Ca::named("Interception CA");
    group.write_file("mint.pem", ours.pem());
    private(&group.write_file("mint.key", ours.key_pem()));
    let address = group.addr("mint").to_string();
    let certgend = group.daemon("certgend").env("UDP_LISTEN_ADDR", &address).start().await;
    let proxyd = group.proxyd().await;
    let trust = group.dir().join("mint.pem");
    let rig = Rig {
        ours,
        certgend: Some(certgend),
        proxyd,
        trust,
    };
    rig.curl("a.test", &nginx, "/hello.txt")
        .run()
        .await
        .assert(200, "hello\n");
    rig.stop().await;
}

/// The CA's key is in certgend alone.
#[tokio::test]
async fn the_key_of_the_ca_is_nowhere_in_proxyd() {
    let (rig, nginx) = Rig::and_nginx(&["a.test"], Keys::default()).await;
    rig.curl("a.test", &nginx, "/hello.txt")
        .run()
        .await
        .assert(200, "hello\n");
    let pem = rig.ours.key_pem();
    let body: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
    let der = decode_base64(&body);
    // The scalar of a P-256 key in PKCS#8 follows its tag and length (RFC 5915 §3).
    let at = der.windows(2).position(|tag| tag == [4, 32]).unwrap() + 2;
    let secret = &der[at..at + 32];
    // A leaf's certificate is there, so the scan sees what there is.
    assert!(is_in_memory(rig.proxyd.pid(), b"Interception CA"));
    assert!(!is_in_memory(rig.proxyd.pid(), secret));
    assert!(!is_in_memory(rig.proxyd.pid(), &body.as_bytes()[body.len() / 2..]));
    for entry in std::fs::read_dir(format!("/proc/{}/fd", rig.proxyd.pid())).unwrap() {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap_or_default();
        assert!(!target.ends_with("mint.key"), "{target:?}");
    }
    rig.stop().await;
}

fn decode_base64(text: &str) -> Vec<u8> {
    let value = |b: u8| match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::new();
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four.iter().fold(0_u32, |bits, &b| bits << 6 | u32::from(value(b))) << (6 * (4 - four.len()));
        out.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    out
}

/// Whether these bytes are anywhere in the memory of a process that it may write to.
fn is_in_memory(pid: u32, wanted: &[u8]) -> bool {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut seen = 0;
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else {
            continue;
        };
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap().min(256 << 20)];
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            seen += bytes.len();
            if bytes.windows(wanted.len()).any(|window| window == wanted) {
                return true;
            }
        }
    }
    assert!(seen > 1 << 20, "the memory of {pid} was read");
    false
}
