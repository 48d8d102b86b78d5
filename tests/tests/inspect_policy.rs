//! What follows from what tunnels turn out to be, and which of them are looked into: policies, users, shares, reloads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_testkit::{Daemon, Origin, Statsd, Wire, assert_eventually, curl};
use sluice_tests::inspect::{assert_one, audited, found, greets, started};
use sluice_tests::{finished, proxy};

#[tokio::test]
async fn a_blocked_protocol_is_refused_in_its_own_words() {
    let goaway = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0d";
    for (greeting, request, protocol, answer, policy) in [
        (
            &b"220 mail.test ESMTP\r\n"[..],
            &b""[..],
            "smtp",
            &b"554 5.7.1 refused by policy\r\n"[..],
            "smtp_inspect_policy: {default: bypass, subnet: {block: 127.0.0.0/8}}",
        ),
        (
            b"* OK IMAP4rev1 ready\r\n",
            b"",
            "imap",
            b"* BYE refused by policy\r\n",
            "imap_inspect_policy: block, server_tcp_portmap: {%port%: imap}",
        ),
        (
            b"",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            "http_2",
            goaway,
            "h2_inspect_policy: block",
        ),
    ] {
        let origin = greets(greeting);
        let daemon = started(&policy.replace("%port%", &origin.port().to_string())).await;
        let mut wire = daemon.http_connect(origin.addr()).await;
        wire.send(request).await;
        assert_eq!(wire.rest().await, answer, "{protocol}");
        let task = assert_one(daemon, protocol, "ForbiddenByRule").await;
        assert_eq!(task["c_rd_bytes"], request.len(), "{task}");
        assert_eq!(task["c_wr_bytes"], answer.len(), "{task}");
        assert!(origin.received().concat().is_empty(), "the origin got some of it");
    }
}

#[tokio::test]
async fn curl_is_told_that_http_2_is_blocked() {
    let origin = Origin::echo();
    let daemon = started("h2_inspect_policy: {default: bypass, exact: {block: 127.0.0.1}}").await;
    let url = format!("http://{}/", origin.addr());
    let answer = curl(&url)
        .tunnel(daemon.addr("http"))
        .arg("--http2-prior-knowledge")
        .run()
        .await;
    assert_ne!((answer.exit, answer.connect_status), (0, 200));
    assert_eq!(answer.connect_status, 200);
    assert_one(daemon, "http_2", "ForbiddenByRule").await;
}

#[tokio::test]
async fn what_is_found_and_what_is_blocked_is_counted_over_a_reload() {
    let statsd = Statsd::start();
    let stat = format!("stat: {{target_udp: {}, emit_interval: 50ms}}\n", statsd.addr());
    let yaml = |chars: u32| audited(&format!("smtp_inspect_policy: block, log_uri_max_chars: {chars}"), "") + &stat;
    let daemon = Daemon::proxyd(&yaml(10)).start().await;
    let smtp = greets(b"220 mail.test ESMTP\r\n");
    let echo = Origin::echo();
    for yaml in [yaml(20), yaml(20)] {
        let mut wire = daemon.http_connect(smtp.addr()).await;
        wire.rest().await;
        let mut wire = daemon.http_connect(echo.addr()).await;
        assert_eq!(wire.echo(b"SSH-2.0-x\r\n").await, b"SSH-2.0-x\r\n");
        daemon.reload_with(&yaml).await;
    }
    for (name, protocol, sum) in [
        ("total", "smtp", 2.0),
        ("blocked", "smtp", 2.0),
        ("total", "ssh", 2.0),
        ("blocked", "ssh", 0.0),
    ] {
        let name = format!("sluice.auditor.inspect.{name}");
        let tags = [("auditor", "watch"), ("protocol", protocol)];
        assert_eventually!(statsd.total(&name, &tags) == sum);
    }
    daemon.stop().await.assert_clean();
}

const TOKEN: &str = "$5$saltsalt12345678$goDNvcrNj8LWxZUR8xlOdUf7utTe2wtzGpTUpwir9L1";

/// A proxy with an auditor and the user `ali`, who says this about being audited.
fn with_user(auditor: &str, audit: &str) -> String {
    format!(
        "{}user_group:\n  - name: staff\n    static_users: [{{name: ali, token: {TOKEN}, audit: {audit}}}]\n",
        audited(auditor, "user_group: staff")
    )
}

async fn connect_as_ali(daemon: &Daemon, target: SocketAddr) -> Wire {
    let mut wire = daemon.connect("http").await;
    // `ali:open sesame`
    wire.send(format!(
        "CONNECT {target} HTTP/1.1\r\nProxy-Authorization: Basic YWxpOm9wZW4gc2VzYW1l\r\n\r\n"
    ))
    .await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    wire
}

#[tokio::test]
async fn users_are_inspected_if_they_say_so_and_may_be_held_to_what_is_known() {
    let soon = "protocol_inspection: {data0_read_timeout: 300ms}";
    for (audit, sent, protocol, passes) in [
        ("{}", &b"GET / HTTP/1.1\r\n\r\n"[..], None, true),
        ("{task_audit_ratio: 1}", b"GET / HTTP/1.1\r\n\r\n", None, true),
        (
            "{enable_protocol_inspection: true, task_audit_ratio: 0}",
            b"GET / HTTP/1.1\r\n\r\n",
            None,
            true,
        ),
        (
            "{enable_protocol_inspection: true}",
            b"SSH-2.0-abc\r\n",
            Some("ssh"),
            true,
        ),
        (
            "{enable_protocol_inspection: true}",
            b"\0\0\0\0",
            Some("_unknown"),
            true,
        ),
        (
            "{enable_protocol_inspection: true, prohibit_unknown_protocol: true}",
            b"\0\0\0\0",
            Some("_unknown"),
            false,
        ),
        ("{enable_protocol_inspection: true}", b"GET", Some("_timeout"), false),
        (
            "{enable_protocol_inspection: true, prohibit_timeout_protocol: false}",
            b"GET",
            Some("_timeout"),
            true,
        ),
    ] {
        let origin = Origin::echo();
        let daemon = Daemon::proxyd(&with_user(soon, audit)).start().await;
        let mut wire = connect_as_ali(&daemon, origin.addr()).await;
        wire.send(sent).await;
        if passes {
            assert_eq!(wire.exactly(sent.len()).await, sent, "{audit}");
        } else {
            wire.assert_closed().await;
        }
        drop(wire);
        assert_eventually!(finished(&daemon).len() == 1);
        let protocols: Vec<_> = protocol.map(str::to_owned).into_iter().collect();
        assert_eq!(found(&daemon), protocols, "{audit}");
        let task = finished(&daemon).remove(0);
        let reason = if passes { "ClosedByClient" } else { "ForbiddenByRule" };
        assert_eq!(
            (&task["reason"], &task["user"]),
            (&json!(reason), &json!("ali")),
            "{audit}: {task}"
        );
        daemon.stop().await.assert_clean();
    }
}

/// LM-07.
#[tokio::test]
async fn a_share_of_the_tunnels_is_inspected() {
    let origin = Arc::new(Origin::echo());
    let daemon = started("task_audit_ratio: 1/2").await;
    for _ in 0..80 {
        let mut wire = daemon.http_connect(origin.addr()).await;
        assert_eq!(wire.echo(b"SSH-2.0-x\r\n").await, b"SSH-2.0-x\r\n");
    }
    assert_eventually!(finished(&daemon).len() == 80);
    let inspected = found(&daemon).len();
    // Outside of this range once in ten million runs.
    assert!((17..=63).contains(&inspected), "{inspected}");
    daemon.reload_with(&audited("task_audit_ratio: 0", "")).await;
    for _ in 0..40 {
        let mut wire = daemon.http_connect(origin.addr()).await;
        assert_eq!(wire.echo(b"SSH-2.0-x\r\n").await, b"SSH-2.0-x\r\n");
    }
    assert_eventually!(finished(&daemon).len() == 120);
    assert_eq!(found(&daemon).len(), inspected);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn an_auditor_of_no_depth_knows_nothing() {
    let origin = Origin::echo();
    let daemon = started("protocol_inspection: {inspect_max_depth: 0}").await;
    let mut wire = daemon.http_connect(origin.addr()).await;
    assert_eq!(wire.echo(b"GET / HTTP/1.1\r\n\r\n").await, b"GET / HTTP/1.1\r\n\r\n");
    drop(wire);
    assert_one(daemon, "_unknown", "ClosedByClient").await;
}

#[tokio::test]
async fn a_reload_brings_an_auditor_and_takes_it_away() {
    let origin = Origin::echo();
    let ssh = b"SSH-2.0-x\r\n";
    let daemon = Daemon::proxyd(&proxy("", "")).start().await;
    let tunnel = async || {
        let mut wire = daemon.http_connect(origin.addr()).await;
        assert_eq!(wire.echo(ssh).await, ssh);
    };
    tunnel().await;
    for (yaml, sum) in [
        (audited("", ""), 1),
        (audited("task_audit_ratio: 0", ""), 1),
        (audited("", ""), 2),
        (proxy("", ""), 2),
    ] {
        daemon.reload_with(&yaml).await;
        tunnel().await;
        assert_eventually!(daemon.log_records("Inspect").len() >= sum);
        assert_eq!(found(&daemon).len(), sum, "{yaml}");
    }
    let names = daemon.call("list", json!({"kind": "auditor"})).await.unwrap();
    assert_eq!(names, json!([]), "{names}");
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_silent_tunnel_that_is_told_to_quit() {
    let origin = Origin::silent();
    let daemon = started("").await;
    let mut wire = daemon.http_connect(origin.addr()).await;
    let began = Instant::now();
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    assert!(began.elapsed() < Duration::from_secs(20));
    let task = stopped.log_records("Task").pop().unwrap();
    assert_eq!(task["reason"], "CanceledAsServerQuit", "{task}");
    wire.assert_closed().await;
}

#[tokio::test]
async fn what_an_auditor_cannot_be_is_told() {
    for (auditor, server, message) in [
        ("", "auditor: other", "no auditor is named `other`"),
        ("smtp_inspect_policy: intercept", "", "`intercept` is not built yet"),
        (
            "imap_inspect_policy: {exact: {block: a.test}}",
            "",
            "`intercept` is not built yet",
        ),
        (
            "h2_inspect_policy: {exact: {detour: a.test}}",
            "",
            "`detour` is not built yet",
        ),
        ("smtp_interception: {}", "", "smtp_interception"),
        ("stream_detour_service: 2888", "", "stream_detour_service"),
        (
            "protocol_inspection: {data0_wait_timeout: 0s}",
            "",
            "must be more than 0",
        ),
        ("h2_interception: {ping_interval: 0s}", "", "must be more than 0"),
        ("task_audit_ratio: 2", "", "a share from 0 to 1"),
        ("inspect_policy: block", "", "h2_inspect_policy"),
    ] {
        let server = if server.is_empty() { "auditor: watch" } else { server };
        let yaml = format!("{}auditor:\n  - {{name: watch, {auditor}}}\n", proxy(server, ""));
        let exited = Daemon::proxyd(&yaml).arg("-t").run().await;
        assert_eq!(exited.code, Some(78), "{auditor}: {}", exited.stderr);
        assert!(exited.stderr.contains(message), "{auditor}: {}", exited.stderr);
    }
}
