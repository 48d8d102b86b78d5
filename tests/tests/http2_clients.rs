//! HTTP/2 inside of intercepted TLS with nghttp, h2load, httpx and gRPC.

use std::net::SocketAddr;

use sluice_testkit::{Ca, Exited, Hypercorn, Process, assert_eventually, python};
use sluice_tests::noise;
use sluice_tests::rig::{Keys, Rig, nginx, nginx_of};
use tokio::process::Command;

/// A program that knows of no proxy, sent through the SOCKS port.
async fn chained(rig: &Rig, program: &str, args: &[&str]) -> Exited {
    let group = rig.proxyd.group();
    let chain = format!(
        "strict_chain\nquiet_mode\n[ProxyList]\nsocks5 127.0.0.1 {}\n",
        group.port("socks")
    );
    let chains = group.write_file("proxychains.conf", &chain);
    let mut command = Command::new("proxychains4");
    command
        .arg("-f")
        .arg(&chains)
        .arg(program)
        .args(args)
        .current_dir(group.dir());
    let mut process = Process::start(program, command, group.dir());
    let code = process.wait().await.code();
    Exited {
        code,
        stdout: process.stdout(),
        stderr: process.stderr(),
    }
}

fn url(upstream: SocketAddr, path: &str) -> String {
    format!("https://{upstream}{path}")
}

#[tokio::test]
async fn nghttp_is_served_whatever_it_asks_of_the_protocol() {
    let ca = Ca::new();
    let nginx = nginx_of(&ca.issue(&["a.test"]), "large_client_header_buffers 4 64k;").await;
    nginx.write("big", noise(2 << 20));
    let rig = Rig::start(&ca, Keys::default()).await;
    std::fs::write(rig.proxyd.group().dir().join("body"), noise(300_000)).unwrap();
    let (hello, big) = (url(nginx.tls_addr(), "/hello.txt"), url(nginx.tls_addr(), "/big"));
    // With the number of requests that each makes.
    let cases: &[(usize, &[&str])] = &[
        (1, &[&hello]),
        (100, &["-m", "100", &hello]),
        // The smallest windows, and large ones.
        (1, &["-w", "10", "-W", "10", &big]),
        (1, &["-w", "30", "-W", "30", &big]),
        // No table for header compression; padded frames; a head over many frames.
        (2, &["-c", "0", &hello, &big]),
        (1, &["-b", "255", "-d", "body", &hello]),
        (1, &["--continuation", &hello]),
        // Weights and dependencies are for nobody here.
        (2, &["-p", "256", &hello, &big]),
        (1, &["--no-dep", &hello]),
        (6, &["-M", "1", "-m", "2", &hello, &big, &hello]),
    ];
    let mut requests = 0;
    for (count, case) in cases {
        let args: Vec<&str> = ["-y", "-n", "-H", ":authority: a.test"]
            .iter()
            .chain(*case)
            .copied()
            .collect();
        let run = chained(&rig, "nghttp", &args).await;
        assert_eq!(run.code, Some(0), "{case:?}: {}", run.stderr);
        requests += count;
        assert_eventually!(
            nginx.access().len() == requests,
            "{case:?}: {} instead of {requests}",
            nginx.access().len()
        );
    }
    assert_eventually!(rig.intercepted("H2StreamForward").len() == requests);
    for (line, record) in nginx.access().iter().zip(rig.intercepted("H2StreamForward")) {
        assert_eq!(
            (&record["msg"], line.contains("HTTP/2.0")),
            (&"finished".into(), true),
            "{record} {line}"
        );
    }
    rig.stop().await;
}

#[tokio::test]
async fn h2load_finds_no_request_unanswered() {
    let ca = Ca::new();
    let nginx = nginx(&ca, &["a.test"]).await;
    nginx.write("kilobytes", noise(30_000));
    let rig = Rig::start(&ca, Keys::default()).await;
    let connect = format!("--connect-to={}", nginx.tls_addr());
    let args = [
        "-n",
        "3000",
        "-c",
        "10",
        "-m",
        "30",
        &connect,
        "https://a.test/kilobytes",
    ];
    let run = chained(&rig, "h2load", &args).await;
    assert!(
        run.stdout
            .contains("3000 total, 3000 started, 3000 done, 3000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{run:?}"
    );
    assert_eq!(nginx.access().len(), 3000);
    assert_eventually!(rig.intercepted("H2StreamForward").len() == 3000);
    rig.stop().await;
}

#[tokio::test]
async fn httpx_asks_for_much_at_a_time_and_streams() {
    let ca = Ca::new();
    let site = Hypercorn::start(include_str!("../programs/site.py"), &ca.issue(&["127.0.0.1"])).await;
    let rig = Rig::start(&ca, Keys::default()).await;
    let program = include_str!("../programs/httpx_http2.py");
    let proxy = rig.proxyd.addr("http").to_string();
    let run = python(program, &[&proxy, rig.trust.to_str().unwrap(), &url(site.addr(), "")]).await;
    assert_eq!(run.stdout.trim(), "done", "{}", run.stderr);
    rig.stop().await;
}

#[tokio::test]
async fn grpc_deadlines_cancellations_and_slow_readers_reach_the_other_side() {
    let ca = Ca::new();
    let rig = Rig::start(&ca, Keys::default()).await;
    let (cert, key) = ca
        .issue(&["a.test", "127.0.0.1"])
        .write(rig.proxyd.group().dir(), "grpc");
    let proxy = rig.proxyd.addr("http").to_string();
    let files = [&rig.trust, &cert, &key].map(|file| file.to_str().unwrap());
    let run = python(
        include_str!("../programs/grpc_control.py"),
        &[&[proxy.as_str()], &files[..]].concat(),
    )
    .await;
    assert_eq!(run.stdout.trim(), "done", "{run:?}");
    rig.stop().await;
}
