//! Clients that go away, or stop reading, at the wrong moment.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use sluice_testkit::{Ca, Daemon, Group, Origin, Statsd, assert_eventually, python};
use sluice_tests::{BlackHole, config_with, finished};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SERVERS: &str = "  - {name: http, type: http_proxy, listen: '127.0.0.1:%http%', escaper: out}
  - {name: socks, type: socks_proxy, listen: '127.0.0.1:%socks%', escaper: out}
";

/// What asks for a tunnel to a port of 127.0.0.1: by which server, with which bytes.
fn requests(port: u16) -> [(&'static str, Vec<u8>); 3] {
    let number = port.to_be_bytes();
    [
        (
            "http",
            format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n").into_bytes(),
        ),
        (
            "socks",
            [&b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01"[..], &number].concat(),
        ),
        ("socks", [&b"\x04\x01"[..], &number, b"\x7f\x00\x00\x01\x00"].concat()),
    ]
}

async fn asked(daemon: &Daemon, server: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.addr(server)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn the_connection_of_a_tunnel_is_given_up_when_its_client_goes() {
    let hole = BlackHole::on("127.0.0.1:0");
    let daemon = Daemon::proxyd(&config_with(SERVERS)).start().await;
    let mut gone = 0;
    for (server, bytes) in requests(hole.addr().port()) {
        let early = [bytes.as_slice(), b"early"].concat();
        for (bytes, resets, reason) in [
            (&bytes, false, "ClosedByClient"),
            (&bytes, true, "ClientTcpReadFailed"),
            (&early, true, "ClientTcpReadFailed"),
        ] {
            let mut stream = asked(&daemon, server, bytes).await;
            if bytes.starts_with(b"\x05") {
                // Closing with bytes unread would be a reset.
                stream.read_exact(&mut [0; 2]).await.unwrap();
            }
            assert_eventually!(daemon.status().await["tasks_alive"] == 1);
            if resets {
                reset(stream);
            } else {
                drop(stream);
            }
            gone += 1;
            assert_eventually!(finished(&daemon).len() == gone, "{server} {reason}");
            let task = &finished(&daemon)[gone - 1];
            assert_eq!(
                (&task["reason"], &task["stage"]),
                (&reason.into(), &"Connecting".into()),
                "{task}"
            );
        }
    }
    assert_eq!(daemon.status().await["tasks_alive"], 0);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_client_that_has_sent_all_it_has_may_end_its_side_and_is_served() {
    let origin = Origin::echo();
    let daemon = Daemon::proxyd(&config_with(SERVERS)).start().await;
    for (server, bytes) in requests(origin.port()) {
        for _ in 0..50 {
            let mut stream = asked(&daemon, server, &[bytes.as_slice(), b"all I have"].concat()).await;
            stream.shutdown().await.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            assert!(got.ends_with(b"all I have"), "{server}: {got:x?}");
        }
    }
    daemon.stop().await.assert_clean();
}

/// A reset that unread bytes provoke could overtake the refusal.
#[tokio::test]
async fn a_socks_refusal_reaches_a_client_that_is_still_sending() {
    let daemon = Daemon::proxyd(&config_with(SERVERS)).start().await;
    let refused = |code: u8| [b"\x05\x00\x05", &[code][..], b"\x00\x01\x00\x00\x00\x00\x00\x00"].concat();
    for (bytes, answer) in [
        (&b"\x05\x01\x02"[..], b"\x05\xff".to_vec()),
        (b"\x05\x01\x00\x05\x01\x00\x09\x00\x00", refused(8)),
        (b"\x05\x01\x00\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", refused(7)),
        (b"\x05\x01\x00\x05\x01\x00\x01\x00\x00\x00\x00\x00\x50", refused(2)),
        (
            b"\x04\x09\x00\x50\x7f\x00\x00\x01\x00",
            b"\x00\x5b\x00\x00\x00\x00\x00\x00".to_vec(),
        ),
    ] {
        let stream = asked(&daemon, "socks", bytes).await;
        let (mut reader, mut writer) = stream.into_split();
        let send = async {
            let _ = writer.write_all(&[b'x'; 600_000]).await;
            let _ = writer.shutdown().await;
        };
        let mut got = Vec::new();
        let (read, ()) = tokio::join!(reader.read_to_end(&mut got), send);
        read.unwrap_or_else(|error| panic!("{bytes:x?}: {error}"));
        assert_eq!(got, answer, "{bytes:x?}");
    }
    daemon.stop().await.assert_clean();
}

/// TLS-04, TLS-07.
#[tokio::test]
async fn tls_clients_that_stop_at_any_stage_cost_no_time_and_end() {
    let ca = Ca::new();
    let statsd = Statsd::start();
    let origin = Origin::script(|conn| {
        conn.head()?;
        conn.write(b"HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            conn.write(&[b'x'; 65536])?;
        }
    });
    let tls = "tls_server: {handshake_timeout: 500ms, \
               cert_pairs: {certificate: '%dir%/front.pem', private_key: '%dir%/front.key'}}";
    let keys = "pipeline_read_idle_timeout: 1s, task_idle_check_interval: 1s, task_idle_max_count: 0";
    let yaml = config_with(&format!(
        "  - {{name: http, type: http_proxy, listen: '127.0.0.1:%own%', escaper: out, {keys}, {tls}}}
  - {{name: rustls, type: plain_tls_port, listen: '127.0.0.1:%rustls%', server: http, {tls}}}
  - {{name: openssl, type: native_tls_port, listen: '127.0.0.1:%openssl%', server: http, {tls}}}
"
    ));
    let group = Group::new(&(yaml + &statsd.section()));
    ca.issue(&["localhost"]).write(group.dir(), "front");
    let daemon = group.proxyd().await;
    let script = format!(
        "import socket, ssl, sys, time
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
def cpu():
    fields = open('/proc/{pid}/stat').read().rsplit(')', 1)[1].split()
    return int(fields[11]) + int(fields[12])
def hello():
    read, write = ssl.MemoryBIO(), ssl.MemoryBIO()
    try: context.wrap_bio(read, write).do_handshake()
    except ssl.SSLWantReadError: return write.read()
def ends(sock):
    sock.settimeout(8)
    try:
        while sock.recv(65536): pass
    except (ConnectionResetError, ssl.SSLError): pass
held = []
for port in ({ports}):
    connect = lambda: socket.create_connection(('127.0.0.1', port))
    mute, half = connect(), connect()
    half.sendall(hello()[:100])
    idle = context.wrap_socket(connect())
    held += [mute, half, idle]
    full = socket.socket()
    full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    full.connect(('127.0.0.1', port))
    full = context.wrap_socket(full)
    full.sendall(b'GET http://{origin}/ HTTP/1.1\\r\\nHost: o\\r\\n\\r\\n')
    held.append(full)
time.sleep(1)
before = cpu()
time.sleep(2.5)
spent = cpu() - before
assert spent <= 20, f'{{spent}} ticks in a time in which nothing happens'
for sock in held: ends(sock)
",
        pid = daemon.pid(),
        origin = origin.addr(),
        ports = ["own", "rustls", "openssl"]
            .map(|port| group.port(port).to_string())
            .join(", ")
    );
    let exited = python(&script, &[]).await;
    assert_eq!(exited.code, Some(0), "{}", exited.stderr);
    for server in ["http", "rustls", "openssl"] {
        assert_eventually!(statsd.total("sluice.listen.timeout", &[("server", server)]) == 2.0);
    }
    assert_eventually!(finished(&daemon).len() == 3);
    assert!(finished(&daemon).iter().all(|task| task["reason"] == "Idle"));
    daemon.stop().await.assert_clean();
}
