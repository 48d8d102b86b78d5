//! resolverd as a process, with dnsmasq behind it and other people's clients before it.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails its test")]

#[path = "../src/nameserver.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "made for the unit tests, which use more of it"
)]
mod nameserver;

use std::{net::SocketAddr, process::Output};

use nameserver::{Listens, NameServer, Says, a};
use serde_json::{Value, json};
use sluice_testkit::{Daemon, Dnsmasq, Group, assert_eventually};
use sluice_wire::dns::{Family, Origin, Query, Reply, put_frame, put_query, take_frame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::Command,
};

async fn dns() -> Dnsmasq {
    Dnsmasq::new()
        .host("both.test", &["192.0.2.1", "2001:db8::1"])
        .host("four.test", &["192.0.2.4"])
        .host("_x.mid.test", &["192.0.2.5"])
        .alias("www.test", "_x.mid.test")
        .ttl(600)
        .start()
        .await
}

/// A resolver of each kind, and one port for other programs.
fn config(dns: &Dnsmasq) -> String {
    let port = dns.addr().port();
    format!(
        "log: {{resolve: {{stdout: {{format: json}}}}}}\n\
         resolver:\n\
         - {{name: main, type: hickory, server: 127.0.0.1, server_port: {port}, retry_interval: 100ms, each_timeout: 1s}}\n\
         - {{name: ares, type: c_ares, server: \"127.0.0.1:{port}\", each_timeout: 100}}\n\
         - {{name: pair, type: fail_over, primary: main, standby: ares}}\n\
         - {{name: none, type: deny_all}}\n\
         resolverd: {{listen: {{address: \"127.0.0.1:%dns%\", resolver: pair}}}}\n"
    )
}

async fn query(daemon: &Daemon, resolver: &str, domain: &str, strategy: &str) -> Result<Value, String> {
    let params = json!({"resolver": resolver, "domain": domain, "strategy": strategy});
    let answer = daemon.call("resolver.query", params).await;
    answer
        .map(|answer| answer["addresses"].clone())
        .map_err(|error| error.message)
}

async fn dig(server: SocketAddr, words: &[&str]) -> String {
    let Output { stdout, .. } = Command::new("dig")
        .args([
            &format!("@{}", server.ip()),
            "-p",
            &server.port().to_string(),
            "+tries=1",
            "+noall",
        ])
        .args(words)
        .output()
        .await
        .unwrap();
    String::from_utf8(stdout).unwrap()
}

#[tokio::test]
async fn every_kind_answers() {
    let dns = dns().await;
    let daemon = Daemon::resolverd(&config(&dns)).start().await;
    for resolver in ["main", "ares", "pair"] {
        for (domain, strategy, expected) in [
            ("both.test", "ipv4_first", json!(["192.0.2.1", "2001:db8::1"])),
            ("both.test", "Ipv6First", json!(["2001:db8::1", "192.0.2.1"])),
            ("both.test", "ipv6-only", json!(["2001:db8::1"])), // DNS-09
            ("four.test", "ipv6_first", json!(["192.0.2.4"])),  // DNS-01
            ("www.test.", "ipv4only", json!(["192.0.2.5"])),    // DNS-03
        ] {
            let answer = query(&daemon, resolver, domain, strategy).await;
            assert_eq!(answer, Ok(expected), "{resolver} {domain} {strategy}");
        }
        let denied = query(&daemon, resolver, "nowhere.test", "ipv4_only").await;
        assert_eq!(denied, Err("the name does not exist".to_owned()), "{resolver}");
    }
    let refused = query(&daemon, "none", "both.test", "ipv4_only").await;
    assert_eq!(refused, Err("no resolver is set for this".to_owned()));
    let unknown = query(&daemon, "mian", "both.test", "ipv4_only").await;
    assert_eq!(unknown, Err("no resolver is named `mian`".to_owned()));
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn failures_are_logged_and_counted_and_explained() {
    let mut dns = dns().await;
    let daemon = Daemon::resolverd(&config(&dns)).start().await;
    dns.kill().await;
    let answer = dig(daemon.addr("dns"), &["+comments", "both.test"]).await;
    assert!(answer.contains("status: SERVFAIL"), "{answer}");
    assert!(answer.contains("EDE: 23 (Network Error)"), "{answer}");
    assert!(query(&daemon, "main", "both.test", "ipv4_only").await.is_err());
    assert_eventually!(daemon.log_records("Resolve").len() == 2, "{}", daemon.stdout());
    let records = daemon.log_records("Resolve");
    let of = |name: &str| records.iter().find(|record| record["resolver_name"] == name).unwrap();
    let (pair, main) = (of("pair"), of("main"));
    assert_eq!(pair["resolver_type"], "fail-over");
    assert_eq!(
        (&pair["next_primary"], &pair["next_standby"]),
        (&json!("main"), &json!("ares"))
    );
    for (key, value) in [
        ("resolver_type", "hickory"),
        ("resolver_name", "main"),
        ("query_type", "A"),
        ("rr_source", "cache"),
        ("error_type", "DriverError"),
        ("error_subtype", "ConnRefused"),
        ("domain", "both.test"),
        ("server", "127.0.0.1"),
    ] {
        assert_eq!(main[key], value, "{key}: {main}");
    }
    assert!(main["duration"].is_string(), "{main}");
    let upstreams = daemon
        .call("resolver.upstreams", json!({"resolver": "main"}))
        .await
        .unwrap();
    assert_eq!(upstreams[0]["failed_in_a_row"], 1, "{upstreams}");
    daemon.stop().await.assert_clean();
}

/// Asks over the group's socket.
async fn ask(stream: &mut UnixStream, domain: &str) -> Reply {
    let query = Query {
        id: 9,
        domain,
        family: Family::V4,
        resolver: Some("main"),
    };
    let mut bytes = bytes::BytesMut::new();
    put_frame(&mut bytes, &put_query(&query).unwrap()).unwrap();
    stream.write_all(&bytes).await.unwrap();
    bytes.clear();
    loop {
        if let Some(frame) = take_frame(&mut bytes, 65535).unwrap() {
            return Reply::take(&frame).unwrap();
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_reload_swaps_resolvers_under_open_connections() {
    let (old, new) = (
        dns().await,
        Dnsmasq::new().host("new.test", &["192.0.2.99"]).start().await,
    );
    let daemon = Daemon::resolverd(&config(&old)).start().await;
    let path = daemon.group().runtime_dir().join("resolverd.dns");
    let mut stream = UnixStream::connect(&path).await.unwrap();
    assert!(ask(&mut stream, "both.test").await.answer(Origin::Resolverd).is_ok());
    daemon.reload_with(&config(&new)).await;
    let answer = ask(&mut stream, "new.test").await.answer(Origin::Resolverd).unwrap();
    assert_eq!(answer.addresses[0].to_string(), "192.0.2.99");
    // what was learnt is kept over a change in place
    assert!(ask(&mut stream, "both.test").await.answer(Origin::Resolverd).is_ok());
    daemon
        .group()
        .rewrite("resolver: [{name: main, type: hickory, server: nowhere}]");
    let error = daemon.reload().await.unwrap_err();
    assert!(
        error.message.contains("`nowhere` is not an IP address"),
        "{}",
        error.message
    );
    assert!(ask(&mut stream, "new.test").await.answer(Origin::Resolverd).is_ok());
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn the_graph_shows_who_asks_whom() {
    let dns = dns().await;
    let graph = Group::new(&config(&dns))
        .daemon("resolverd")
        .arg("-g=mermaid")
        .run()
        .await;
    assert_eq!(graph.code, Some(0), "{}", graph.stderr);
    assert!(
        graph.stdout.contains("flowchart") && graph.stdout.contains("-->"),
        "{}",
        graph.stdout
    );
}

#[tokio::test]
async fn every_encrypted_transport_works_as_configured() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), nameserver::ca().pem()).unwrap();
    for (listens, protocol) in [
        (Listens::Tls, "dot"),
        (Listens::Https, "dns-over-https"),
        (Listens::H3, "h3"),
        (Listens::Quic, "dns_over_quic"),
    ] {
        let server = NameServer::start_at("127.0.0.1:0", listens, |_| Says::Records(vec![("a.test", 60, a(7))])).await;
        let yaml = format!(
            "resolver:\n\
             - name: main\n\
             \x20 type: hickory\n\
             \x20 server: 127.0.0.1\n\
             \x20 server_port: {}\n\
             \x20 encryption:\n\
             \x20   tls_name: dns.example.net\n\
             \x20   protocol: {protocol}\n\
             \x20   tls_client: {{no_default_ca_certificate: true, ca_certificate: {}/ca.pem}}\n",
            server.address.port(),
            dir.path().display(),
        );
        let daemon = Daemon::resolverd(&yaml).start().await;
        let answer = query(&daemon, "main", "a.test", "ipv4_only").await;
        assert_eq!(answer, Ok(json!(["192.0.2.7"])), "{protocol}: {:?}", server.asked());
        daemon.stop().await.assert_clean();
        // without the CA it is an error of that resolver, not of the process
        let distrustful = yaml.replace(&format!(", ca_certificate: {}/ca.pem", dir.path().display()), "");
        let daemon = Daemon::resolverd(&distrustful).start().await;
        assert!(query(&daemon, "main", "a.test", "ipv4_only").await.is_err());
        daemon.stop().await.assert_clean();
    }
}
