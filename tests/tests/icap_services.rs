//! proxyd and ICAP services as servers: how they are reached, what they are told, what happens without them; with
//! icap-stub, c-icap, and servers that misbehave.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use sluice_testkit::{Daemon, Group, Origin, assert_eventually, curl};
use sluice_tests::icap::{CIcap, Pair, STUB, audited, mirror, post, sharing};
use sluice_tests::{BlackHole, chunked, nobody, noise};

#[tokio::test]
async fn a_unix_socket_serves_too() {
    let origin = mirror();
    let pair = Pair::start(Some("edit"), None, "use_unix_socket: '%dir%/icap.sock'").await;
    let url = format!("http://{}/a", origin.addr());
    let seen = curl(&url).proxy(pair.proxyd.addr("http")).run().await;
    assert_eq!((seen.status, seen.header("x-origin-saw")), (200, Some("yes")));
    pair.stop().await;
}

#[tokio::test]
async fn who_asks_is_told_and_what_reqmod_answers_is_repeated_to_respmod() {
    let (proxyd, icap) = sharing().await;
    let origin = Origin::hello("hello");
    let answer = curl(&format!("http://{}/", origin.addr()))
        .proxy(proxyd.addr("http"))
        .run()
        .await;
    answer.assert(200, "hello");
    let heard = icap.received_text();
    assert!(heard.contains("\r\nHost: 127.0.0.1:"), "{heard}");
    assert!(
        heard.contains("\r\nX-Client-IP: 127.0.0.1\r\nX-Client-Port: "),
        "{heard}"
    );
    let respmod = &heard[heard.find("RESPMOD ").unwrap()..];
    assert!(respmod.contains("\r\nx-rule: seven\r\n"), "{respmod}");
    assert!(
        heard.contains("\r\nAuthorization: Basic am9lOnB3\r\n") && !heard.contains("joe"),
        "{heard}"
    );
    proxyd.stop().await.assert_clean();
}

#[tokio::test]
async fn a_service_that_is_away_is_bypassed_or_not_as_configured() {
    // IC-09
    let origin = Origin::hello("hello");
    let hole = BlackHole::on("127.0.0.1:0");
    for address in [nobody(), hole.addr()] {
        let url = format!("icap://{address}/s");
        for (more, status) in [("bypass: true", 200), ("bypass: false", 500)] {
            let proxyd = Daemon::proxyd(&audited(Some(&url), Some(&url), more)).start().await;
            let start = Instant::now();
            let answer = curl(&format!("http://{}/", origin.addr()))
                .proxy(proxyd.addr("http"))
                .run()
                .await;
            assert_eq!(answer.status, status, "{url} {more}");
            assert!(start.elapsed() < Duration::from_secs(5), "{url} {more}");
            proxyd.stop().await.assert_clean();
        }
    }
}

#[tokio::test]
async fn a_service_that_dies_or_stands_still_is_used_again_when_it_is_back() {
    let origin = mirror();
    let pair = Pair::start(Some("edit"), None, "").await;
    let addr = pair.proxyd.addr("http");
    let url = format!("http://{}/a", origin.addr());
    assert_eq!(curl(&url).proxy(addr).run().await.header("x-origin-saw"), Some("yes"));
    let Pair { proxyd, stub } = pair;
    let group = stub.kill9().await;
    assert_eq!(curl(&url).proxy(addr).run().await.status, 500);
    let stub = group.daemon("icap-stub").start().await;
    assert_eq!(curl(&url).proxy(addr).run().await.header("x-origin-saw"), Some("yes"));
    stub.signal(Signal::STOP);
    let mut wire = proxyd.connect("http").await;
    wire.send(format!("GET {url} HTTP/1.1\r\nHost: {}\r\n\r\n", origin.addr()))
        .await;
    stub.signal(Signal::CONT);
    assert_eq!(wire.answer().await.status, 200);
    drop(wire);
    proxyd.stop().await.assert_clean();
    stub.stop().await.assert_clean();
}

#[tokio::test]
async fn connections_are_kept_ready() {
    let origin = mirror();
    let yaml = audited(Some("icap://127.0.0.1:%icap%/same"), None, "")
        .replace("min_idle_count: 0", "min_idle_count: 3, check_interval: 100ms");
    let group = Group::new(&format!("{yaml}{STUB}"));
    let stub = group.daemon("icap-stub").start().await;
    let proxyd = group.proxyd().await;
    let url = format!("http://{}/a", origin.addr());
    curl(&url).proxy(proxyd.addr("http")).run().await.assert(200, "");
    assert_eventually!(stub.status().await["connections"] == 3, "{}", stub.status().await);
    proxyd.stop().await.assert_clean();
    stub.stop().await.assert_clean();
}

#[tokio::test]
async fn keys_that_would_do_nothing_are_refused() {
    for (keys, told) in [
        (
            "icap_reqmod_service: 'http://h/x'",
            "icap_reqmod_service.url: is neither `icap://",
        ),
        ("icap_reqmod_service: 'icap://u@h/x'", "needs a password"),
        (
            "icap_reqmod_service: 'icap://h:0/x'",
            "icap_reqmod_service.url: has port 0",
        ),
        (
            "icap_respmod_service: {url: 'icap://h/x', respond_shared_names: a}",
            "is for `icap_reqmod_service`",
        ),
        (
            "icap_respmod_service: {url: 'icap://h/x', tls_name: a}",
            "needs `tls_client`, or `icaps`",
        ),
        ("icap_respmod_service: {bypass: true}", "url"),
    ] {
        let yaml = format!("auditor: [{{name: a, {keys}}}]\n");
        let refused = Daemon::proxyd(&yaml).arg("-t").run().await;
        assert!(
            refused.code == Some(78) && refused.stderr.contains(told),
            "{keys}: {}",
            refused.stderr
        );
    }
}

#[tokio::test]
async fn c_icap_echoes_requests_and_responses() {
    let origin = mirror();
    let c_icap = CIcap::start().await;
    let url = c_icap.url();
    for more in ["", "no_preview: true"] {
        let proxyd = Daemon::proxyd(&audited(Some(&url), Some(&url), more)).start().await;
        let mut wire = proxyd.connect("http").await;
        for size in [0, 1, 2, 50, 1023, 1024, 1025, 4096, 200_000] {
            let body = noise(size);
            let answer = post(&mut wire, &origin, &format!("Content-Length: {size}\r\n"), &body).await;
            assert!(answer.status == 200 && answer.body == body, "{more} {size}");
            let in_chunks = chunked(&body, 777, "");
            let answer = post(&mut wire, &origin, "Transfer-Encoding: chunked\r\n", &in_chunks).await;
            assert!(answer.status == 200 && answer.body == body, "{more} {size} in chunks");
        }
        drop(wire);
        let get = curl(&format!("http://{}/a", origin.addr()))
            .proxy(proxyd.addr("http"))
            .run()
            .await;
        get.assert(200, "");
        proxyd.stop().await.assert_clean();
    }
}
