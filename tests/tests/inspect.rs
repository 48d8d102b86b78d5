//! What tunnels turn out to be, through the real proxyd: by other people's clients and servers, and byte by byte.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_testkit::{Ca, Daemon, Nginx, Origin, Port, Process, assert_eventually, curl};
use sluice_tests::inspect::{assert_one, found, greets, started};
use sluice_tests::{finished, noise};
use tokio::process::Command;

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
