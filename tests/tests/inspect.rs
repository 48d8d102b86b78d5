//! What tunnels turn out to be, through the real proxyd: by other people's clients and servers, and byte by byte.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_testkit::{Ca, Daemon, Nginx, Origin, Port, Process, Statsd, Wire, assert_eventually, curl};
use sluice_tests::{finished, noise, proxy};
use tokio::process::Command;

/// A proxy with an auditor; more keys of the auditor and of the server.
fn audited(auditor: &str, server: &str) -> String {
    let server = proxy(&format!("auditor: watch, {server}"), "");
    format!("{server}auditor:\n  - {{name: watch, {auditor}}}\n")
}

async fn started(auditor: &str) -> Daemon {
    Daemon::proxyd(&audited(auditor, "")).start().await
}

/// The protocols of the tunnels that were inspected, in order.
fn found(daemon: &Daemon) -> Vec<String> {
    let records = daemon.log_records("Inspect");
    records
        .iter()
        .map(|record| record["protocol"].as_str().unwrap().to_owned())
        .collect()
}

/// Asserts what the only tunnel turned out to be, once its task has ended for this reason.
async fn assert_one(daemon: Daemon, protocol: &str, reason: &str) -> Value {
    assert_eventually!(finished(&daemon).len() == 1);
    assert_eq!(found(&daemon), [protocol]);
    let task = finished(&daemon).remove(0);
    assert_eq!(task["reason"], reason, "{task}");
    daemon.stop().await.assert_clean();
    task
}

/// An origin that sends this at once, then answers every message by itself.
fn greets(greeting: &'static [u8]) -> Origin {
    Origin::script(move |conn| {
        conn.write(greeting)?;
        while let Some(bytes) = conn.some()? {
            conn.write(&bytes)?;
        }
        Ok(())
    })
}

#[tokio::test]
async fn http_and_tls_of_curl_pass_and_are_logged() {
    let ca = Ca::new();
    let nginx = Nginx::start_tls(&ca.issue(&["127.0.0.1"])).await;
    nginx.write("big", noise(20 << 20));
    let daemon = started("").await;
    let file = ca.write(daemon.group().dir());
    for (url, args) in [
        (format!("http://{}/hello.txt", nginx.addr()), &[][..]),
        (format!("https://{}/hello.txt", nginx.tls_addr()), &["--http1.1"]),
        (format!("https://{}/hello.txt", nginx.tls_addr()), &["--http2"]),
    ] {
        let answer = curl(&url)
            .tunnel(daemon.addr("http"))
            .trust(&file)
            .args(args)
            .run()
            .await;
        answer.assert(200, "hello\n");
    }
    let big = curl(&format!("http://{}/big", nginx.addr()))
        .tunnel(daemon.addr("http"))
        .run()
        .await;
    assert!(big.body == noise(20 << 20));
    assert_eventually!(finished(&daemon).len() == 4);
    assert_eq!(found(&daemon), ["http_1", "tls_modern", "tls_modern", "http_1"]);
    let record = daemon.log_records("Inspect").remove(0);
    let fields: Vec<_> = record.as_object().unwrap().keys().map(String::as_str).collect();
    let (of_every_record, own) = (
        ["daemon_name", "log_type", "msg", "pid", "time"],
        ["auditor_name", "depth", "protocol", "source", "task_id"],
    );
    assert!(
        own.iter().chain(&of_every_record).all(|key| fields.contains(key)),
        "{record}"
    );
    assert_eq!(fields.len(), own.len() + of_every_record.len(), "{record}");
    let task = finished(&daemon).remove(0);
    for (key, value) in [
        ("auditor_name", json!("watch")),
        ("depth", json!(1)),
        ("source", json!("stream inspection")),
        ("task_id", task["task_id"].clone()),
    ] {
        assert_eq!(record[key], value, "{key}: {record}");
    }
    // What was read to find out is counted once, on both sides.
    let task = finished(&daemon).remove(3);
    assert!(task["c_rd_bytes"].as_u64().unwrap() > 50, "{task}");
    assert_eq!(task["c_rd_bytes"], task["r_wr_bytes"], "{task}");
    // The head is written anew, without `Connection: keep-alive`.
    let kept = |key: &str| task[key].as_u64().unwrap();
    assert_eq!(kept("r_rd_bytes") - kept("c_wr_bytes"), 24, "{task}");
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn every_way_into_a_tunnel_is_inspected() {
    let nginx = Nginx::start().await;
    let yaml = format!(
        "{}auditor: [{{name: watch}}]\n",
        sluice_tests::config_with(
            "  - {name: http, type: http_proxy, listen: '127.0.0.1:%http%', escaper: out, auditor: watch}
  - {name: socks, type: socks_proxy, listen: '127.0.0.1:%socks%', escaper: out, auditor: watch}"
        )
    );
    let daemon = Daemon::proxyd(&yaml).start().await;
    let url = format!("http://{}/hello.txt", nginx.addr());
    for scheme in ["socks4", "socks5"] {
        let proxy = format!("{scheme}://{}", daemon.addr("socks"));
        curl(&url).args(["-x", &proxy]).run().await.assert(200, "hello\n");
    }
    curl(&url)
        .tunnel(daemon.addr("http"))
        .run()
        .await
        .assert(200, "hello\n");
    // No tunnel.
    curl(&url).proxy(daemon.addr("http")).run().await.assert(200, "hello\n");
    assert_eventually!(finished(&daemon).len() == 4);
    assert_eq!(found(&daemon), ["http_1"; 3]);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn openssl_speaks_every_version_through_it() {
    let ca = Ca::new();
    let nginx = Nginx::start_tls(&ca.issue(&["127.0.0.1"])).await;
    let daemon = started("").await;
    // Versions that the server refuses are recognised too.
    let cases = [
        (&["-tls1_3"][..], "tls_modern"),
        (&["-tls1_2", "-servername", "o.test", "-alpn", "h2"], "tls_modern"),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "tls_legacy"),
        (&["-tls1", "-cipher", "ALL:@SECLEVEL=0"], "tls_legacy"),
    ];
    for (index, (args, _)) in cases.iter().enumerate() {
        let mut openssl = Command::new("openssl");
        openssl
            .args(["s_client", "-brief", "-proxy", &daemon.addr("http").to_string()])
            .args(["-connect", &nginx.tls_addr().to_string()])
            .args(*args)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        openssl.output().await.unwrap();
        assert_eventually!(found(&daemon).len() == index + 1);
    }
    assert_eq!(found(&daemon), cases.map(|(_, protocol)| protocol));
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn curl_speaks_ftp_with_vsftpd_through_it() {
    let dir = tempfile::Builder::new().prefix("sluice-ftp-").tempdir().unwrap();
    let files = dir.path().join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("hello.txt"), "hello\n").unwrap();
    let port = Port::free();
    // The one user is whoever runs the tests.
    let conf = format!(
        "listen=YES\nlisten_address=127.0.0.1\nlisten_port={}\nbackground=NO\nanonymous_enable=YES\n\
         anon_root={}\nno_anon_password=YES\nseccomp_sandbox=NO\nsecure_chroot_dir={}\nxferlog_enable=NO\n\
         run_as_launching_user=YES\n",
        port.number(),
        files.display(),
        files.display(),
    );
    let conf_file = dir.path().join("vsftpd.conf");
    fs::write(&conf_file, conf).unwrap();
    let mut command = Command::new("/usr/sbin/vsftpd");
    command.arg(&conf_file);
    let server = Process::start("vsftpd", command, dir.path());
    assert_listens(port.addr()).await;
    let daemon = started("").await;
    let url = format!("ftp://{}/hello.txt", port.addr());
    let answer = curl(&url).tunnel(daemon.addr("http")).run().await;
    assert_eq!(
        (answer.exit, answer.text().as_str()),
        (0, "hello\n"),
        "{}",
        server.tail()
    );
    // The connection for data has no protocol of its own.
    assert_eventually!(finished(&daemon).len() == 2);
    assert_eq!(found(&daemon), ["ftp_control", "_unknown"]);
    daemon.stop().await.assert_clean();
}

async fn assert_listens(addr: SocketAddr) {
    assert_eventually!(std::net::TcpStream::connect(addr).is_ok());
}

#[tokio::test]
async fn a_nats_server_speaks_first() {
    let dir = tempfile::Builder::new().prefix("sluice-nats-").tempdir().unwrap();
    let port = Port::free();
    let mut command = Command::new("/usr/sbin/nats-server");
    command.args(["-a", "127.0.0.1", "-p", &port.number().to_string()]);
    let _server = Process::start("nats-server", command, dir.path());
    assert_listens(port.addr()).await;
    let daemon = started("").await;
    let mut wire = daemon.http_connect(port.addr()).await;
    assert!(wire.until("\r\n").await.starts_with("INFO {"));
    wire.send("CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPUB a 5\r\nhello\r\n")
        .await;
    assert_eq!(wire.until("hello\r\n").await, "MSG a 1 5\r\nhello\r\n");
    drop(wire);
    assert_one(daemon, "nats", "ClosedByClient").await;
}

#[tokio::test]
async fn servers_that_greet_are_known_by_it() {
    for (greeting, protocol) in [
        (&b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"[..], "ssh"),
        (b"SSH-1.5-old\n", "ssh_legacy"),
        (b"220 (vsFTPd 3.0.3)\r\n", "ftp_control"),
        (b"220 mail.test ESMTP\r\n", "smtp"),
        (b"RFB 003.008\n", "_unknown"),
    ] {
        let origin = greets(greeting);
        let daemon = started("").await;
        let mut wire = daemon.http_connect(origin.addr()).await;
        assert_eq!(wire.exactly(greeting.len()).await, greeting);
        assert_eq!(wire.echo(b"answer").await, b"answer");
        drop(wire);
        let task = assert_one(daemon, protocol, "ClosedByClient").await;
        assert_eq!(task["r_rd_bytes"], greeting.len() + 6, "{task}");
        assert_eq!(task["c_wr_bytes"], greeting.len() + 6, "{task}");
    }
}

#[tokio::test]
async fn clients_that_speak_first_are_known_by_it() {
    let mqtt = "server_tcp_portmap: {%port%: mqtt}";
    for (bytes, protocol, auditor) in [
        (
            &b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbb"[..],
            "bittorrent",
            "",
        ),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "http_2",
            "h2_inspect_policy: bypass",
        ),
        (b"SSH-2.0-client\r\n", "ssh", ""),
        (b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04id12", "_unknown", ""),
        (b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04id12", "mqtt", mqtt),
    ] {
        let origin = Origin::echo();
        let daemon = started(&auditor.replace("%port%", &origin.port().to_string())).await;
        let mut wire = daemon.http_connect(origin.addr()).await;
        // One byte first: what follows is waited for.
        wire.send(&bytes[..1]).await;
        wire.send(&bytes[1..]).await;
        assert_eq!(wire.exactly(bytes.len()).await, bytes);
        drop(wire);
        assert_one(daemon, protocol, "ClosedByClient").await;
    }
}

/// TLS-11: a ClientHello of one byte a record is TLS, and passes as it came.
#[tokio::test]
async fn a_hello_in_many_records_is_known_and_passes_untouched() {
    let hello = b"\x01\x00\x00\x2b\x03\x03";
    let bytes: Vec<u8> = hello.iter().flat_map(|byte| [0x16, 3, 1, 0, 1, *byte]).collect();
    let origin = Origin::echo();
    let daemon = started("").await;
    let mut wire = daemon.http_connect(origin.addr()).await;
    for byte in &bytes {
        wire.send([*byte]).await;
    }
    assert_eq!(wire.exactly(bytes.len()).await, bytes);
    drop(wire);
    assert_one(daemon, "tls_modern", "ClosedByClient").await;
}

/// TLS-12.
#[tokio::test]
async fn junk_is_unknown_and_passes_untouched() {
    let junk = noise(64 << 10);
    let origin = Origin::echo();
    let daemon = started("").await;
    let mut wire = daemon.http_connect(origin.addr()).await;
    wire.send(&junk).await;
    assert!(wire.exactly(junk.len()).await == junk);
    drop(wire);
    let task = assert_one(daemon, "_unknown", "ClosedByClient").await;
    assert_eq!(task["c_rd_bytes"], junk.len(), "{task}");
}

/// TLS-12: what may still become an HTTP request ends at its limit.
#[tokio::test]
async fn a_request_that_does_not_end_is_unknown_at_its_limit() {
    let line = [b"GET /".as_slice(), &vec![b'a'; 64 << 10]].concat();
    let origin = Origin::echo();
    let daemon = started("protocol_inspection: {data0_read_timeout: 60s}").await;
    let mut wire = daemon.http_connect(origin.addr()).await;
    wire.send(&line).await;
    assert!(wire.exactly(line.len()).await == line);
    drop(wire);
    assert_one(daemon, "_unknown", "ClosedByClient").await;
}

/// TLS-12.
#[tokio::test]
async fn an_end_before_the_first_byte_is_its_sides() {
    let origin = Origin::silent();
    let daemon = started("").await;
    let mut wire = daemon.http_connect(origin.addr()).await;
    wire.finish().await;
    wire.assert_closed().await;
    assert_eventually!(finished(&daemon).len() == 1);
    assert_eq!(finished(&daemon)[0]["reason"], "ClosedByClient");
    let origin = Origin::script(|_| Ok(()));
    let mut wire = daemon.http_connect(origin.addr()).await;
    wire.assert_closed().await;
    assert_eventually!(finished(&daemon).len() == 2);
    assert_eq!(finished(&daemon)[1]["reason"], "ClosedByUpstream");
    assert!(found(&daemon).is_empty());
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_client_that_has_sent_all_still_gets_the_answer() {
    let origin = Origin::script(|conn| {
        let mut all = Vec::new();
        while let Some(bytes) = conn.some()? {
            all.extend(bytes);
        }
        conn.write(format!("{} bytes", all.len()).as_bytes())
    });
    let daemon = started("protocol_inspection: {data0_read_timeout: 60s}").await;
    // `GE` could become a request, until the end.
    for (len, sent) in [(2, &b"GE"[..]), (13, b"SSH-2.0-abc\r\n")] {
        let mut wire = daemon.http_connect(origin.addr()).await;
        wire.send(sent).await;
        wire.finish().await;
        assert_eq!(wire.rest().await, format!("{len} bytes").as_bytes());
    }
    assert_eventually!(finished(&daemon).len() == 2);
    assert_eq!(found(&daemon), ["_unknown", "ssh"]);
    daemon.stop().await.assert_clean();
}

/// TLS-07.
#[tokio::test]
async fn silence_ends_as_idle_and_slow_bytes_as_timeout() {
    let keys = "protocol_inspection: {data0_wait_timeout: 300ms, data0_read_timeout: 400ms}";
    let origin = Origin::echo();
    let daemon = started(keys).await;
    let mut wire = daemon.http_connect(origin.addr()).await;
    wire.assert_closed().await;
    assert_eventually!(finished(&daemon).len() == 1);
    assert_eq!(finished(&daemon)[0]["reason"], "Idle");
    assert!(found(&daemon).is_empty());
    // Half a hello: passed on when it is clear that no more comes.
    let mut wire = daemon.http_connect(origin.addr()).await;
    let began = Instant::now();
    wire.send(b"\x16\x03\x01").await;
    assert_eq!(wire.exactly(3).await, b"\x16\x03\x01");
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert_eq!(wire.echo(b"more").await, b"more");
    drop(wire);
    assert_eventually!(finished(&daemon).len() == 2);
    assert_eq!(found(&daemon), ["_timeout"]);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn the_first_byte_may_take_its_time() {
    let gate = sluice_tests::Gate::new();
    let opened = gate.clone();
    let origin = Origin::script(move |conn| {
        opened.pass()?;
        conn.write(b"SSH-2.0-late\r\n")?;
        while conn.some()?.is_some() {}
        Ok(())
    });
    let daemon = started("protocol_inspection: {data0_read_timeout: 100ms}").await;
    let mut wire = daemon.http_connect(origin.addr()).await;
    // Another one has its first byte, and its time for more runs out.
    let echo = Origin::echo();
    let mut other = daemon.http_connect(echo.addr()).await;
    assert_eq!(other.echo(b"G").await, b"G");
    drop(other);
    assert_eventually!(finished(&daemon).len() == 1);
    assert_eq!(found(&daemon), ["_timeout"]);
    gate.open();
    assert_eq!(wire.until("\n").await, "SSH-2.0-late\r\n");
    drop(wire);
    assert_eventually!(finished(&daemon).len() == 2);
    assert_eq!(found(&daemon), ["_timeout", "ssh"]);
    daemon.stop().await.assert_clean();
}

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
