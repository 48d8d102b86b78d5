//! SOCKS4, 4a and 5 through the real proxyd: other people's clients, and every reply to the byte.

use sluice_testkit::{Daemon, Dnsmasq, Group, Nginx, Origin, Process, Statsd, Wire, assert_eventually, curl, python};
use sluice_tests::{config_with, finished, noise, resolving_with};
use tokio::process::Command;

/// A `socks_proxy` on the port named `socks`, with more keys.
fn socks(keys: &str) -> String {
    config_with(&server(keys))
}

fn server(keys: &str) -> String {
    format!("  - {{name: socks, type: socks_proxy, listen: '127.0.0.1:%socks%', escaper: out, {keys}}}")
}

/// Greeting without authentication, and a CONNECT to an IPv4 address.
fn connect_v5(port: u16) -> Vec<u8> {
    [
        &b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01"[..],
        &port.to_be_bytes(),
    ]
    .concat()
}

fn connect_v4(port: u16) -> Vec<u8> {
    [&b"\x04\x01"[..], &port.to_be_bytes(), b"\x7f\x00\x00\x01me\x00"].concat()
}

async fn asked(daemon: &Daemon, bytes: &[u8]) -> Wire {
    let mut wire = daemon.connect("socks").await;
    wire.try_send(bytes).await;
    wire
}

#[tokio::test]
async fn curl_speaks_every_version() {
    let nginx = Nginx::start().await;
    nginx.write("big", noise(3 << 20));
    let dns = Dnsmasq::new().host("www.test", &["127.0.0.1"]).start().await;
    let group = Group::new(&resolving_with(dns.addr(), &server("")));
    let (resolverd, daemon) = (group.daemon("resolverd").start().await, group.proxyd().await);
    let proxy = |scheme: &str| format!("{scheme}://127.0.0.1:{}", group.port("socks"));
    let port = nginx.addr().port();
    for scheme in ["socks4", "socks4a", "socks5", "socks5h"] {
        let host = if scheme.ends_with(['a', 'h']) {
            "www.test"
        } else {
            "127.0.0.1"
        };
        let url = format!("http://{host}:{port}");
        let answer = curl(&format!("{url}/hello.txt"))
            .args(["-x", &proxy(scheme)])
            .run()
            .await;
        answer.assert(200, "hello\n");
        let big = curl(&format!("{url}/big")).args(["-x", &proxy(scheme)]).run().await;
        assert!(big.body == noise(3 << 20), "{scheme}");
        let file = daemon.group().write_file("up", &"x".repeat(300_000));
        let put = curl(&format!("{url}/put/{scheme}"))
            .args(["-x", &proxy(scheme)])
            .arg("-T")
            .arg(&file)
            .run()
            .await;
        assert_eq!((put.exit, put.status), (0, 201), "{scheme}");
    }
    let missing = curl("http://nowhere.test/").args(["-x", &proxy("socks5h")]).run().await;
    assert_eq!(missing.exit, 97);
    assert_eventually!(finished(&daemon).len() == 13);
    let tasks = finished(&daemon);
    daemon.stop().await.assert_clean();
    assert!(
        tasks
            .iter()
            .all(|task| task["server_type"] == "SocksProxy" && task["task_type"] == "TcpConnect")
    );
    assert_eq!(
        tasks
            .iter()
            .filter(|task| task["upstream"] == format!("www.test:{port}").as_str())
            .count(),
        6
    );
    resolverd.stop().await.assert_clean();
}

#[tokio::test]
async fn python_and_proxychains_and_dante_come_through() {
    let nginx = Nginx::start().await;
    let daemon = Daemon::proxyd(&socks("")).start().await;
    let group = daemon.group();
    let (port, socks) = (nginx.addr().port(), group.port("socks"));
    let script = format!(
        "import socks, sys
for kind in (socks.SOCKS4, socks.SOCKS5):
    s = socks.socksocket()
    s.set_proxy(kind, '127.0.0.1', {socks})
    s.connect(('127.0.0.1', {port}))
    s.sendall(b'GET /hello.txt HTTP/1.0\\r\\n\\r\\n')
    data = b''
    while (more := s.recv(4096)):
        data += more
    assert data.endswith(b'\\r\\n\\r\\nhello\\n'), data
"
    );
    let exited = python(&script, &[]).await;
    assert_eq!(exited.code, Some(0), "{}", exited.stderr);
    let url = format!("http://127.0.0.1:{port}/hello.txt");
    let chains = group.write_file(
        "proxychains.conf",
        &format!("strict_chain\nquiet_mode\n[ProxyList]\nsocks5 127.0.0.1 {socks}\n"),
    );
    let dante = group.write_file(
        "socks.conf",
        &format!(
            "route {{\n  from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = {socks}\n  \
             proxyprotocol: socks_v5\n  command: connect\n}}\n"
        ),
    );
    let mut proxychains = Command::new("proxychains4");
    proxychains
        .arg("-f")
        .arg(&chains)
        .args(["curl", "-s", "--noproxy", "*", &url]);
    let mut socksify = Command::new("socksify");
    socksify
        .env("SOCKS_CONF", &dante)
        .env("SOCKS_AUTOADD_LANROUTES", "no")
        .args(["curl", "-s", "--noproxy", "*", &url]);
    for (name, command) in [("proxychains", proxychains), ("socksify", socksify)] {
        let mut process = Process::start(name, command, group.dir());
        process.wait().await;
        assert_eq!(process.stdout(), "hello\n", "{name}: {}", process.stderr());
    }
    assert_eventually!(finished(&daemon).len() == 4);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_reply_tells_the_bound_address_and_what_follows_is_the_tunnels() {
    let origin = Origin::echo();
    let daemon = Daemon::proxyd(&socks("")).start().await;
    // The client does not wait: its first bytes come with the request, in one segment and in single bytes.
    let mut whole = connect_v5(origin.port());
    whole.extend_from_slice(b"ping");
    for size in [whole.len(), 1] {
        let mut wire = daemon.connect("socks").await;
        for piece in whole.chunks(size) {
            wire.send(piece).await;
        }
        assert_eq!(wire.exactly(2).await, b"\x05\x00");
        let reply = wire.exactly(10).await;
        assert_eq!(reply[..8], *b"\x05\x00\x00\x01\x7f\x00\x00\x01");
        assert_ne!(reply[8..], [0, 0]);
        assert_eq!(wire.exactly(4).await, b"ping");
    }
    let mut wire = asked(&daemon, &[connect_v4(origin.port()).as_slice(), b"ping"].concat()).await;
    assert_eq!(wire.exactly(12).await, b"\x00\x5a\x00\x00\x00\x00\x00\x00ping");
    wire.finish().await;
    wire.assert_closed().await;
    daemon.stop().await.assert_clean();
}

/// SK-01.
#[tokio::test]
async fn addresses_come_in_every_form() {
    let v6 = Origin::script_on("[::1]:0", |conn| conn.write(b"six"));
    let v4 = Origin::script(|conn| conn.write(b"four"));
    let daemon = Daemon::proxyd(&socks("")).start().await;
    let (p4, p6) = (v4.port().to_be_bytes(), v6.port().to_be_bytes());
    let mapped = [[0; 10].as_slice(), &[0xff, 0xff, 127, 0, 0, 1], &p4].concat();
    let loopback = [[0; 15].as_slice(), &[1], &p6].concat();
    let domain = |text: &str, port: [u8; 2]| [&[text.len() as u8], text.as_bytes(), &port].concat();
    let cases = [
        (4, loopback, "six"),
        (4, mapped, "four"),
        (3, domain("127.0.0.1", p4), "four"),
        (3, domain("::1", p6), "six"),
    ];
    for (kind, address, text) in &cases {
        let bytes = [&b"\x05\x02\x02\x00\x05\x01\x00"[..], &[*kind], address].concat();
        let mut wire = daemon.connect("socks").await;
        for byte in bytes.chunks(1) {
            wire.send(byte).await;
        }
        let rest = wire.rest().await;
        assert!(
            rest.starts_with(b"\x05\x00\x05\x00\x00") && rest.ends_with(text.as_bytes()),
            "{rest:x?}"
        );
    }
    let upstreams: Vec<_> = finished(&daemon)
        .iter()
        .map(|task| task["upstream"].to_string())
        .collect();
    assert!(
        upstreams.iter().all(|upstream| !upstream.contains("ffff")),
        "{upstreams:?}"
    );
    daemon.stop().await.assert_clean();
}

/// The codes of client-protocol.md §5.
#[tokio::test]
async fn failures_have_their_codes() {
    let origin = Origin::echo();
    let closed = sluice_testkit::Port::free();
    let group = Group::new(&socks(
        "dst_port_filter: {default: allow, deny: 25}, dst_host_filter_set: {child: {default: allow, deny: bad.test}, \
         subnet: {default: allow, allow: 127.0.0.0/8, deny: 127.0.0.9/32}}",
    ));
    // It denies every name.
    let (resolverd, daemon) = (group.daemon("resolverd").start().await, group.proxyd().await);
    let v5 = |tail: &[u8]| [&b"\x05\x01\x00\x05"[..], tail].concat();
    let port = origin.port().to_be_bytes();
    let ip4 = |ip: [u8; 4], port: [u8; 2]| [&[1, 0, 1], &ip[..], &port].concat();
    let refused = |code: u8| [&b"\x05\x00\x05"[..], &[code], b"\x00\x01\x00\x00\x00\x00\x00\x00"].concat();
    for (bytes, answer) in [
        (v5(&ip4([127, 0, 0, 1], closed.number().to_be_bytes())), refused(5)),
        (v5(&ip4([127, 0, 0, 9], port)), refused(2)),
        (v5(&ip4([127, 0, 0, 1], [0, 25])), refused(2)),
        (v5(&ip4([0, 0, 0, 0], port)), refused(2)),
        (v5(&[&b"\x01\x00\x03\x08bad.test"[..], &port].concat()), refused(2)),
        (v5(&[&b"\x01\x00\x03\x06a.test"[..], &port].concat()), refused(4)),
        // BIND, no command, no type, no domain.
        (v5(&[&[2], &ip4([127, 0, 0, 1], port)[1..]].concat()), refused(7)),
        (v5(&[&[9], &ip4([127, 0, 0, 1], port)[1..]].concat()), refused(7)),
        (v5(&[1, 0, 9, 0, 0]), refused(8)),
        (v5(&[1, 0, 3, 0, 0, 80]), refused(1)),
        // No method in common.
        (b"\x05\x01\x02".to_vec(), b"\x05\xff".to_vec()),
        (b"\x05\x00".to_vec(), b"\x05\xff".to_vec()),
        // SOCKS4: refused, BIND.
        (
            connect_v4(closed.number()),
            b"\x00\x5b\x00\x00\x00\x00\x00\x00".to_vec(),
        ),
        (
            [&b"\x04\x02"[..], &port, b"\x7f\x00\x00\x01\x00"].concat(),
            b"\x00\x5b\x00\x00\x00\x00\x00\x00".to_vec(),
        ),
        // No SOCKS at all.
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Vec::new()),
        (b"\x06\x01\x00".to_vec(), Vec::new()),
    ] {
        let mut wire = asked(&daemon, &bytes).await;
        assert_eq!(wire.rest().await, answer, "{bytes:x?}");
    }
    let long_id = [&connect_v4(origin.port())[..8], &[b'x'; 600]].concat();
    let mut wire = asked(&daemon, &long_id).await;
    assert_eq!(wire.rest().await, b"\x00\x5b\x00\x00\x00\x00\x00\x00");
    let forbidden = || {
        let tasks = finished(&daemon);
        tasks.iter().filter(|task| task["reason"] == "ForbiddenByRule").count()
    };
    assert_eventually!(forbidden() == 4);
    assert_eq!(origin.accepted(), 0);
    daemon.stop().await.assert_clean();
    resolverd.stop().await.assert_clean();
}

#[tokio::test]
async fn a_negotiation_has_its_time() {
    let statsd = Statsd::start();
    let daemon = Daemon::proxyd(&(socks("negotiation_timeout: 300ms") + &statsd.section()))
        .start()
        .await;
    for bytes in [&b""[..], b"\x05", b"\x05\x01\x00", b"\x05\x01\x00\x05\x01\x00\x01\x7f"] {
        let mut wire = asked(&daemon, bytes).await;
        let rest = wire.rest().await;
        assert!(rest.is_empty() || rest == b"\x05\x00");
    }
    assert_eventually!(statsd.total("sluice.listen.timeout", &[("server", "socks")]) == 4.0);
    daemon.stop().await.assert_clean();
}

/// SK-05, OB-08.
#[tokio::test]
async fn bytes_are_counted_and_both_ends_close_together() {
    let statsd = Statsd::start();
    let origin = Origin::script(|conn| {
        conn.exactly(1000)?;
        conn.write(&noise(2000))?;
        // Until the client goes.
        while conn.some()?.is_some() {}
        Ok(())
    });
    let daemon = Daemon::proxyd(&(socks("") + &statsd.section())).start().await;
    let mut wire = asked(&daemon, &connect_v5(origin.port())).await;
    wire.exactly(12).await;
    wire.send(noise(1000)).await;
    assert!(wire.exactly(2000).await == noise(2000));
    drop(wire);
    assert_eventually!(finished(&daemon).len() == 1);
    let task = &finished(&daemon)[0];
    for (field, bytes) in [
        ("c_rd_bytes", 1000),
        ("c_wr_bytes", 2000),
        ("r_rd_bytes", 2000),
        ("r_wr_bytes", 1000),
    ] {
        assert_eq!(task[field], bytes, "{field}");
    }
    let tcp = [("transport", "tcp")];
    assert_eventually!(statsd.total("sluice.server.traffic.in.bytes", &tcp) == 1013.0);
    assert_eventually!(statsd.total("sluice.server.traffic.out.bytes", &tcp) == 2012.0);
    assert_eventually!(statsd.total("sluice.escaper.traffic.in.bytes", &tcp) == 2000.0);
    assert_eventually!(statsd.total("sluice.escaper.traffic.out.bytes", &tcp) == 1000.0);
    assert_eventually!(statsd.last("sluice.server.task.alive", &[("server", "socks")]) == Some(0.0));
    daemon.stop().await.assert_clean();
}
