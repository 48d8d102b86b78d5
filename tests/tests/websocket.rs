//! WebSocket inside of intercepted TLS, over HTTP/1.1 and HTTP/2, with clients and servers that were not written here.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;
use sluice_testkit::{Ca, assert_eventually, python};
use sluice_tests::finished;
use sluice_tests::rig::{Keys, Rig};

/// Runs a program that is a server and its clients: proxy, what vouches for it, certificate and key of the server,
/// and the argument.
async fn both_ends(rig: &Rig, ca: &Ca, program: &str, argument: &str) -> String {
    let dir = rig.proxyd.group().dir();
    let (cert, key) = ca.issue(&["a.test", "127.0.0.1"]).write(dir, "server");
    let run = python(
        program,
        &[
            &rig.proxyd.addr("http").to_string(),
            rig.trust.to_str().unwrap(),
            cert.to_str().unwrap(),
            key.to_str().unwrap(),
            argument,
        ],
    )
    .await;
    assert_eq!(run.code, Some(0), "{}\n{}", run.stdout, run.stderr);
    run.stdout.trim().to_owned()
}

const CASES: &str = include_str!("../programs/websocket_cases.py");

#[tokio::test]
async fn each_byte_of_frames_good_and_bad_passes_over_http1() {
    let ca = Ca::new();
    let rig = Rig::start(&ca, Keys::default()).await;
    let cases: usize = both_ends(&rig, &ca, CASES, "1").await.parse().unwrap();
    assert!(cases > 70, "{cases}");
    assert_eventually!(finished(&rig.proxyd).len() == cases);
    let upgrades = rig.intercepted("HttpUpgrade");
    assert_eq!(upgrades.len(), cases);
    let good = |record: &&serde_json::Value| record["next_protocol"] == "websocket" && record["rsp_status"] == 101;
    assert_eq!(upgrades.iter().filter(good).count(), cases);
    rig.stop().await;
}

#[tokio::test]
async fn each_byte_of_frames_good_and_bad_passes_over_http2() {
    let ca = Ca::new();
    let rig = Rig::start(&ca, Keys::default()).await;
    let cases: usize = both_ends(&rig, &ca, CASES, "2").await.parse().unwrap();
    assert!(cases > 70, "{cases}");
    assert_eventually!(finished(&rig.proxyd).len() == cases);
    assert_eventually!(rig.intercepted("H2Websocket").len() == cases);
    let connects = rig.intercepted("H2ExtendedConnect");
    assert_eq!(connects.len(), cases);
    assert!(
        connects.iter().all(|record| record["rsp_status"] == json!(200)),
        "{connects:?}"
    );
    rig.stop().await;
}

#[tokio::test]
async fn libraries_with_their_own_servers_agree_on_everything_through_it() {
    let ca = Ca::new();
    let rig = Rig::start(&ca, Keys::default()).await;
    let program = include_str!("../programs/websocket_libraries.py");
    assert_eq!(both_ends(&rig, &ca, program, "").await, "done");
    assert_eventually!(finished(&rig.proxyd).len() == 5);
    let statuses: Vec<_> = rig
        .intercepted("HttpUpgrade")
        .iter()
        .map(|record| record["rsp_status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [101, 101, 101, 101]);
    // One that is refused is a request like any other.
    assert_eq!(rig.intercepted("HttpForward")[0]["rsp_status"], 403);
    rig.stop().await;
}
