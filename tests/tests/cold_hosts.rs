//! Many hosts that nobody has seen, while the one that makes their certificates is killed, stands still or is slow.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Stdio;

use rustix::process::Signal;
use sluice_testkit::{Ca, Nginx, Process, assert_eventually};
use sluice_tests::rig::{Keys, Rig, nginx};
use tokio::process::{Child, Command};

/// What has become of a request.
struct Outcome {
    status: u32,
    exit: u32,
    time: f64,
}

/// curl that asks for `hello.txt` at so many hosts, twenty at a time.
fn hosts(count: usize, rig: &Rig, nginx: &Nginx) -> Child {
    let dir = rig.proxyd.group().dir();
    let both = ["ca.pem", "mint.pem"].map(|file| std::fs::read_to_string(dir.join(file)).unwrap());
    std::fs::write(dir.join("both.pem"), both.concat()).unwrap();
    Command::new("curl")
        .args(["-q", "-sS", "--max-time", "55", "-Z", "--parallel-max", "20"])
        .args([
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{exitcode} %{time_total}\n",
            "--http1.1",
        ])
        .arg("--cacert")
        .arg(dir.join("both.pem"))
        .arg("-x")
        .arg(format!("http://{}", rig.proxyd.addr("http")))
        .arg("--connect-to")
        .arg(format!("::{}", nginx.tls_addr()))
        .arg(format!("https://h[1-{count}].hosts.test/hello.txt"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn outcomes(curl: Child) -> Vec<Outcome> {
    let output = curl.wait_with_output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            Outcome {
                status: words[0].parse().unwrap(),
                exit: words[1].parse().unwrap(),
                time: words[2].parse().unwrap(),
            }
        })
        .collect()
}

/// Asserts that all were served, each within these seconds.
fn assert_all_served(outcomes: &[Outcome], count: usize, within: f64) {
    assert_eq!(outcomes.len(), count);
    let bad = outcomes.iter().filter(|outcome| outcome.status != 200).count();
    assert_eq!(
        bad,
        0,
        "exit codes {:?}",
        outcomes
            .iter()
            .map(|o| o.exit)
            .collect::<std::collections::BTreeSet<_>>()
    );
    let slowest = outcomes.iter().map(|outcome| outcome.time).fold(0.0, f64::max);
    assert!(slowest < within, "{slowest} s");
}

async fn cached(rig: &Rig) -> u64 {
    let status = rig.proxyd.status().await;
    status["auditors"]["audit"]["certificates_cached"].as_u64().unwrap()
}

fn keys(auditor: &str) -> Keys<'_> {
    Keys {
        auditor,
        agent: "query_wait_timeout: 1s, cache_request_timeout: 1s",
        ..Keys::default()
    }
}

const POLICIES: [&str; 2] = ["on_certgend_failure: block", "on_certgend_failure: bypass"];

/// Each time another one is there at once; what had not been answered is asked again.
#[tokio::test]
async fn a_certgend_that_is_killed_and_started_again_costs_no_host_anything() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["*.hosts.test"]).await;
    for policy in POLICIES {
        let mut rig = Rig::start(&ca, keys(policy)).await;
        let curl = hosts(1000, &rig, &nginx);
        for at in [100, 300, 500] {
            assert_eventually!(cached(&rig).await > at);
            let group = rig.certgend.take().unwrap().kill9().await;
            rig.certgend = Some(group.daemon("certgend").start().await);
        }
        assert_all_served(&outcomes(curl).await, 1000, 10.0);
        rig.stop().await;
    }
}

#[tokio::test]
async fn while_certgend_stands_still_new_hosts_are_refused_soon_or_pass_untouched() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["*.hosts.test"]).await;
    for policy in POLICIES {
        let mut rig = Rig::start(&ca, keys(policy)).await;
        let curl = hosts(400, &rig, &nginx);
        assert_eventually!(cached(&rig).await > 100);
        let certgend = rig.certgend.take().unwrap();
        certgend.signal(Signal::STOP);
        // Until some have come to feel it.
        assert_eventually!(
            rig.intercepted("TlsHandshake")
                .iter()
                .filter(|record| record["msg"] != "ok")
                .count()
                > 20
        );
        certgend.signal(Signal::CONT);
        let outcomes = outcomes(curl).await;
        rig.certgend = Some(certgend);
        let refused = rig
            .intercepted("TlsHandshake")
            .iter()
            .filter(|record| record["msg"] != "ok")
            .count();
        if policy.ends_with("bypass") {
            assert_all_served(&outcomes, 400, 10.0);
        } else {
            let bad: Vec<_> = outcomes.iter().filter(|outcome| outcome.status != 200).collect();
            assert!(bad.iter().all(|outcome| outcome.exit == 35 && outcome.time < 10.0));
            assert_eq!(bad.len(), refused);
            // Those that came while it stood, and nobody after.
            assert!(bad.len() < 200, "{}", bad.len());
        }
        rig.stop().await;
    }
}

/// Stands between proxyd and certgend: hands on what proxyd asks at once, and what certgend answers in small pieces with
/// pauses between them, so that the answers of many are always on their way. Arguments: its socket, certgend's.
const SLOW: &str = r#"
import asyncio, sys

async def serve(reader, writer):
    far_reader, far_writer = await asyncio.open_unix_connection(sys.argv[2])

    async def up():
        while data := await reader.read(65536):
            far_writer.write(data)
        far_writer.close()

    going_up = asyncio.ensure_future(up())
    while data := await far_reader.read(1500):
        writer.write(data[:1])
        await asyncio.sleep(0.001)
        writer.write(data[1:])
    writer.close()

async def main():
    async with await asyncio.start_unix_server(serve, sys.argv[1]) as server:
        await server.serve_forever()

asyncio.run(main())
"#;

#[tokio::test]
async fn a_slow_certgend_makes_new_hosts_wait_and_fails_none() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["*.hosts.test"]).await;
    for policy in POLICIES {
        let keys = Keys {
            auditor: policy,
            sections: "peers: {certgend: '%dir%/slow'}\n",
            ..Keys::default()
        };
        let group = Rig::group(&ca, &keys);
        let (slow, socket) = (group.dir().join("slow"), group.runtime_dir().join("certgend.mint"));
        let mut between = Command::new("python3");
        between.args(["-c", SLOW]).arg(&slow).arg(&socket);
        let _between = Process::start("between", between, group.dir());
        assert_eventually!(slow.exists());
        let rig = Rig::start_in(group).await;
        assert_all_served(&outcomes(hosts(400, &rig, &nginx)).await, 400, 10.0);
        assert_eq!(cached(&rig).await, 400);
        rig.stop().await;
    }
}
