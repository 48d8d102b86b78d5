//! UDP ASSOCIATE through the real proxyd: other people's clients, and datagrams made byte by byte.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_testkit::{
    Daemon, Dnsmasq, Group, Process, Statsd, UdpAssociation, UdpEcho, Wire, assert_eventually, python, udp_header,
    udp_header_of_name,
};
use sluice_tests::{config_with, finished, resolving_with};
use tokio::net::UdpSocket;
use tokio::process::Command;
use tokio::time::timeout;

const SEVERAL: &str = "use_udp_associate: true";

fn server(keys: &str) -> String {
    format!("  - {{name: socks, type: socks_proxy, listen: '127.0.0.1:%socks%', escaper: out, {keys}}}")
}

async fn start(keys: &str) -> Daemon {
    Daemon::proxyd(&config_with(&server(keys))).start().await
}

async fn reply(daemon: &Daemon, expected: &[u8]) -> (Wire, Vec<u8>) {
    UdpAssociation::ask_for(daemon.connect("socks").await, expected).await
}

async fn associate(daemon: &Daemon) -> UdpAssociation {
    UdpAssociation::begin(daemon.connect("socks").await).await
}

/// What is asked for by a client that does not say where its datagrams come from.
const ANY_V4: &[u8] = &[1, 0, 0, 0, 0, 0, 0];

async fn record(daemon: &Daemon) -> Value {
    assert_eventually!(finished(daemon).len() == 1);
    finished(daemon).remove(0)
}

/// CU-08, SK-02, SK-03, UDP-08.
#[tokio::test]
async fn an_association_reaches_targets_of_every_kind_and_survives_every_datagram() {
    let echoes = [UdpEcho::on("127.0.0.1:0"), UdpEcho::on("[::1]:0")];
    let [v4, v6] = [0, 1].map(|i| echoes[i].addr());
    let longest = format!("{}.test", ["a"; 124].join("."));
    assert_eq!(longest.len(), 252);
    let dns = Dnsmasq::new()
        .host("www.test", &["127.0.0.1"])
        .host("six.test", &["::1"])
        .host(&longest, &["127.0.0.1"])
        .start()
        .await;
    let group = Group::new(&resolving_with(dns.addr(), &server(SEVERAL)));
    let (resolverd, daemon) = (group.daemon("resolverd").start().await, group.proxyd().await);
    let a = associate(&daemon).await;
    for payload in [&b"ping"[..], b"", &[7; 1472], b"x", &[8; 4096], b""] {
        a.echoed(&udp_header(v4), payload, v4).await;
        a.echoed(&udp_header(v6), payload, v6).await;
    }
    for name in ["www.test", "WWW.Test", &longest] {
        a.echoed(&udp_header_of_name(name, v4.port()), b"by name", v4).await;
        a.echoed(&udp_header_of_name(name, v4.port()), b"", v4).await;
    }
    a.echoed(&udp_header_of_name("six.test", v6.port()), b"by name", v6)
        .await;
    a.echoed(&udp_header_of_name("127.0.0.1", v4.port()), b"no name", v4)
        .await;
    let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", v4.port()).parse().unwrap();
    a.echoed(&udp_header(mapped), b"mapped", v4).await;
    // A name that does not exist costs nobody but its own datagrams.
    a.ask(&udp_header_of_name("none.test", 53), b"lost").await;
    a.ask(&udp_header_of_name("www.other", 53), b"lost").await;
    // After a long one: whatever is too short, in parts, of another kind, or too long.
    a.ask(&udp_header(v6), &[9; 4096]).await;
    assert_eq!(a.next().await.1.len(), 4096);
    let whole = [udp_header(v6), b"payload".to_vec()].concat();
    for len in 0..22 {
        a.send(&whole[..len]).await;
    }
    for fragment in [1, 0x80, 0xff] {
        let mut part = whole.clone();
        part[2] = fragment;
        a.send(&part).await;
    }
    a.send(b"\x00\x00\x00\x02\x7f\x00\x00\x01\x00\x35payload").await;
    a.send(b"\x00\x00\x00\x03\x00\x00\x35payload").await;
    a.ask(&udp_header(v4), &[1; 4097]).await;
    a.ask(&udp_header(v4), &[1; 9000]).await;
    a.echoed(&udp_header(v4), b"still here", v4).await;
    let is_unresolved = |record: &Value| {
        record["escape_type"] == "UdpSendto"
            && record["reason"] == "DomainNotResolved"
            && record["upstream"] == "none.test:53"
    };
    assert_eventually!(daemon.log_records("Escape").iter().any(is_unresolved));
    drop(a);
    let task = record(&daemon).await;
    assert_eq!(
        (&task["task_type"], &task["reason"]),
        (&"UdpAssociate".into(), &"ClosedByClient".into())
    );
    assert_eq!(task["initial_peer"], v4.to_string().as_str());
    daemon.stop().await.assert_clean();
    resolverd.stop().await.assert_clean();
}

/// SK-04.
#[tokio::test]
async fn filters_look_at_every_datagram_of_a_burst() {
    let echoes = [UdpEcho::on("127.0.0.1:0"), UdpEcho::on("127.0.0.9:0")];
    let [good, bad] = [0, 1].map(|i| echoes[i].addr());
    let statsd = Statsd::start();
    let keys = format!(
        "{SEVERAL}, dst_port_filter: {{default: allow, deny: 25}}, dst_host_filter_set: {{child: {{default: allow, deny: bad.test}}, \
         subnet: {{default: allow, allow: 127.0.0.0/8, deny: 127.0.0.9/32}}}}"
    );
    let daemon = Daemon::proxyd(&(config_with(&server(&keys)) + &statsd.section()))
        .start()
        .await;
    let a = associate(&daemon).await;
    a.echoed(&udp_header(good), b"first", good).await;
    // In one burst, so that they come in one batch.
    for turn in 0..8_u8 {
        a.ask(&udp_header(good), &[turn]).await;
        a.ask(&udp_header(bad), &[turn]).await;
        a.ask(&udp_header("127.0.0.1:25".parse().unwrap()), &[turn]).await;
        a.ask(&udp_header_of_name("a.bad.test", good.port()), &[turn]).await;
    }
    for turn in 0..8_u8 {
        assert_eq!(a.next().await, (good, vec![turn]));
    }
    assert_eventually!(statsd.total("sluice.server.forbidden.dest_denied", &[("server", "socks")]) == 24.0);
    drop(a);
    let task = record(&daemon).await;
    assert_eq!(task["c_rd_packets"], 9);
    // With one target, the first one decides.
    daemon.stop().await.assert_clean();
    let keys = "dst_host_filter_set: {subnet: {default: allow, allow: 127.0.0.0/8, deny: 127.0.0.9/32}}";
    let daemon = start(keys).await;
    let mut a = associate(&daemon).await;
    a.ask(&udp_header(bad), b"x").await;
    a.control.assert_closed().await;
    assert_eq!(record(&daemon).await["reason"], "ForbiddenByRule");
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn by_default_an_association_has_one_target() {
    let echoes = [UdpEcho::on("127.0.0.1:0"), UdpEcho::on("127.0.0.1:0")];
    let [one, two] = [0, 1].map(|i| echoes[i].addr());
    let daemon = start("flush_task_log_on_created: true, flush_task_log_on_connected: true").await;
    let mut a = associate(&daemon).await;
    a.echoed(&udp_header(one), b"", one).await;
    a.echoed(&udp_header(one), b"ping", one).await;
    a.ask(&udp_header(two), b"ping").await;
    a.control.assert_closed().await;
    let task = record(&daemon).await;
    assert_eq!(task["task_type"], "UdpConnect");
    assert_eq!(task["reason"], "InvalidClientProtocol");
    assert_eq!(task["upstream"], one.to_string().as_str());
    assert_eq!(task["next_peer_addr"], one.to_string().as_str());
    assert!(task["next_bound_addr"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(
        task["udp_client_addr"],
        a.socket.local_addr().unwrap().to_string().as_str()
    );
    for key in ["udp_server_addr", "udp_listen_addr"] {
        assert_eq!(task[key], a.relay.to_string().as_str(), "{key}");
    }
    assert_eq!(task["tcp_client_addr"], a.control.local_addr().to_string().as_str());
    assert_eq!(task["escaper"], "out");
    for (key, value) in [
        ("c_rd_bytes", 4),
        ("c_wr_bytes", 4),
        ("r_rd_bytes", 4),
        ("r_wr_bytes", 4),
        ("c_rd_packets", 2),
        ("c_wr_packets", 2),
        ("r_rd_packets", 2),
        ("r_wr_packets", 2),
    ] {
        assert_eq!(task[key], value, "{key}");
    }
    let events: Vec<_> = daemon
        .log_records("Task")
        .iter()
        .map(|record| (record["task_event"].clone(), record["stage"].clone()))
        .collect();
    let expected = [
        ("Created", "Created"),
        ("Connected", "Connected"),
        ("Finished", "Relaying"),
    ];
    assert_eq!(events, expected.map(|(event, stage)| (event.into(), stage.into())));
    daemon.stop().await.assert_clean();
}

/// The answer of the network to a datagram ends nothing.
#[tokio::test]
async fn a_target_that_does_not_listen_yet_is_reached_later() {
    let port = sluice_testkit::Port::free();
    let target = port.addr();
    for keys in ["", SEVERAL] {
        let daemon = start(keys).await;
        let a = associate(&daemon).await;
        for _ in 0..3 {
            a.ask(&udp_header(target), b"anybody there?").await;
        }
        let origin = UdpSocket::bind(target).await.unwrap();
        let mut buf = [0; 100];
        let got = async {
            loop {
                a.ask(&udp_header(target), b"now?").await;
                if let Ok(received) = timeout(Duration::from_millis(100), origin.recv_from(&mut buf)).await {
                    return received.unwrap();
                }
            }
        };
        let (n, from) = timeout(Duration::from_secs(10), got).await.unwrap();
        origin.send_to(&buf[..n], from).await.unwrap();
        assert_eq!(a.next().await.0, target);
        drop(a);
        assert_eq!(record(&daemon).await["reason"], "ClosedByClient");
        daemon.stop().await.assert_clean();
    }
}

fn open_files(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).map_or(0, Iterator::count)
}

/// SK-05.
#[tokio::test]
async fn everything_closes_with_the_tcp_connection_and_it_carries_nothing_more() {
    let origin = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = origin.local_addr().unwrap();
    for keys in ["", SEVERAL] {
        for byte in [false, true] {
            let daemon = start(keys).await;
            // Once for what stays open after a first task.
            drop(associate(&daemon).await);
            assert_eventually!(finished(&daemon).len() == 1);
            let before = open_files(&daemon);
            let mut a = associate(&daemon).await;
            a.ask(&udp_header(target), b"ping").await;
            let mut buf = [0; 100];
            origin.recv_from(&mut buf).await.unwrap();
            assert_eq!(open_files(&daemon), before + 3);
            if byte {
                a.control.send(b"x").await;
                a.control.assert_closed().await;
            }
            drop(a);
            assert_eventually!(finished(&daemon).len() == 2);
            assert_eq!(finished(&daemon)[1]["reason"], "ClosedByClient");
            // Connection and both sockets are gone.
            assert_eventually!(open_files(&daemon) == before);
            daemon.stop().await.assert_clean();
        }
    }
}

/// SK-07.
#[tokio::test]
async fn the_reply_names_an_address_of_the_family_that_the_client_needs() {
    let echoes = [UdpEcho::on("127.0.0.1:0"), UdpEcho::on("[::1]:0")];
    let [v4, v6] = [0, 1].map(|i| echoes[i].addr());
    let daemon = Daemon::proxyd(&config_with(&format!(
        "  - {{name: both, type: socks_proxy, listen: '[::]:%both%', escaper: out, {SEVERAL}}}
  - {{name: four, type: socks_proxy, listen: '[::]:%four%', escaper: out, {SEVERAL}, udp_bind_ipv4: [127.0.0.1]}}"
    )))
    .start()
    .await;
    for (server, client, expected, family) in [
        ("both", "127.0.0.1", "0.0.0.0:0", "127.0.0.1"),
        ("both", "::1", "0.0.0.0:0", "::1"),
        ("both", "::1", "[::]:0", "::1"),
        ("four", "::1", "0.0.0.0:0", "127.0.0.1"),
        ("four", "::1", "[::]:0", "::1"),
        ("four", "127.0.0.1", "0.0.0.0:0", "127.0.0.1"),
    ] {
        let address = SocketAddr::new(client.parse().unwrap(), daemon.group().port(server));
        let wanted = &udp_header(expected.parse().unwrap())[3..];
        let (control, told) = UdpAssociation::ask_for(Wire::connect(address).await, wanted).await;
        let relay = UdpAssociation::bound(&told);
        assert_eq!(relay.ip().to_string(), family, "{server} {client} {expected}");
        let a = UdpAssociation::new(control, relay).await;
        // Either family is reached from either.
        a.echoed(&udp_header(v4), b"four", v4).await;
        a.echoed(&udp_header(v6), b"six", v6).await;
        drop(a);
    }
    // A client whose datagrams come from a family that there is no address for.
    let control = Wire::connect(SocketAddr::new([127, 0, 0, 1].into(), daemon.group().port("both"))).await;
    let wanted = &udp_header("[::1]:4000".parse().unwrap())[3..];
    let (control, refused) = UdpAssociation::ask_for(control, wanted).await;
    assert_eq!(refused, b"\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00");
    drop(control);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn the_first_datagram_has_its_time_and_comes_from_where_the_client_said() {
    let echo = UdpEcho::on("127.0.0.1:0");
    let origin = echo.addr();
    let daemon = start("udp_client_initial_timeout: 300ms").await;
    let mut a = associate(&daemon).await;
    a.send(b"no header").await;
    a.control.assert_closed().await;
    assert_eq!(record(&daemon).await["reason"], "ClientAppTimeout");
    daemon.stop().await.assert_clean();

    let keys = format!("{SEVERAL}, ingress_network_filter: {{default: allow, deny: 127.0.0.3/32}}");
    let daemon = start(&keys).await;
    let mine = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let stated = udp_header(mine.local_addr().unwrap());
    let (control, told) = reply(&daemon, &stated[3..]).await;
    let relay = UdpAssociation::bound(&told);
    let others = ["127.0.0.1:0", "127.0.0.2:0"];
    for address in others {
        let other = UdpSocket::bind(address).await.unwrap();
        other
            .send_to(&[udp_header(origin), b"other".to_vec()].concat(), relay)
            .await
            .unwrap();
    }
    let a = UdpAssociation {
        control,
        socket: mine,
        relay,
    };
    a.echoed(&udp_header(origin), b"mine", origin).await;
    // Later on, too.
    for address in others {
        let other = UdpSocket::bind(address).await.unwrap();
        let _ = other
            .send_to(&[udp_header(origin), b"other".to_vec()].concat(), relay)
            .await;
    }
    a.echoed(&udp_header(origin), b"mine again", origin).await;
    drop(a);
    assert_eq!(record(&daemon).await["c_rd_packets"], 2);

    // One that may not come at all.
    let a = associate(&daemon).await;
    let denied = UdpSocket::bind("127.0.0.3:0").await.unwrap();
    denied
        .send_to(&[udp_header(origin), b"denied".to_vec()].concat(), a.relay)
        .await
        .unwrap();
    a.echoed(&udp_header(origin), b"allowed", origin).await;
    drop(a);
    // A name in the place of the client's address.
    let (_, refused) = reply(&daemon, b"\x03\x06a.test\x00\x35").await;
    assert_eq!(refused[..2], [5, 8]);
    let (_, told) = reply(&daemon, b"\x03\x010\x00\x00").await;
    assert_eq!(UdpAssociation::bound(&told).ip().to_string(), "127.0.0.1");
    daemon.stop().await.assert_clean();
}

/// UDP-05, CU-09.
#[tokio::test]
async fn a_packet_limit_delays_datagrams_and_loses_none() {
    let origin = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = origin.local_addr().unwrap();
    let daemon = start("udp_sock_speed_limit: {shift: 9, upload_packets: 10}").await;
    let a = associate(&daemon).await;
    let start = Instant::now();
    for i in 0..40_u8 {
        a.ask(&udp_header(target), &[i]).await;
    }
    let mut buf = [0; 10];
    for i in 0..40_u8 {
        let received = timeout(Duration::from_secs(10), origin.recv_from(&mut buf)).await;
        assert_eq!(received.unwrap().unwrap().0, 1);
        assert_eq!(buf[0], i);
        // Ten in each 512 ms, the first ten at once.
        let slice = u128::from(i / 10) * 512;
        assert!(start.elapsed().as_millis() >= slice, "{i} after {:?}", start.elapsed());
    }
    assert!(
        start.elapsed() < Duration::from_millis(3 * 512 + 400),
        "{:?}",
        start.elapsed()
    );
    drop(a);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn an_address_that_the_escaper_forbids_gets_nothing_and_gives_nothing() {
    let origin = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let forbidden = UdpSocket::bind("127.0.0.9:0").await.unwrap();
    let dns = Dnsmasq::new()
        .host("mixed.test", &["127.0.0.9", "127.0.0.1"])
        .host("bad.test", &["127.0.0.9"])
        .start()
        .await;
    let statsd = Statsd::start();
    let yaml = format!(
        "resolver:
  - {{name: dns, type: hickory, server: {}, server_port: {}}}
escaper:
  - {{name: out, type: direct_fixed, resolver: dns, no_ipv6: true,
     egress_network_filter: {{default: allow, allow: 127.0.0.1/32, deny: 127.0.0.9/32}}}}
server:
{}
",
        dns.addr().ip(),
        dns.addr().port(),
        server(SEVERAL)
    );
    let group = Group::new(&(yaml + &statsd.section()));
    let (resolverd, daemon) = (group.daemon("resolverd").start().await, group.proxyd().await);
    let a = associate(&daemon).await;
    let (good, bad) = (origin.local_addr().unwrap(), forbidden.local_addr().unwrap());
    for _ in 0..3 {
        a.ask(&udp_header(bad), b"no").await;
        a.ask(&udp_header("[::1]:9".parse().unwrap()), b"no").await;
        a.ask(&udp_header("169.254.169.254:80".parse().unwrap()), b"no").await;
    }
    a.ask(&udp_header_of_name("bad.test", bad.port()), b"no").await;
    a.ask(&udp_header_of_name("mixed.test", good.port()), b"yes").await;
    let mut buf = [0; 10];
    let (n, remote) = origin.recv_from(&mut buf).await.unwrap();
    assert_eq!(&buf[..n], b"yes");
    // Nor does the client hear from there.
    forbidden.send_to(b"unasked", remote).await.unwrap();
    origin.send_to(b"answer", remote).await.unwrap();
    assert_eq!(a.next().await, (good, b"answer".to_vec()));
    assert!(
        timeout(Duration::from_millis(50), forbidden.recv(&mut buf))
            .await
            .is_err()
    );
    drop(a);
    record(&daemon).await;
    let records = daemon.log_records("Escape");
    for (reason, upstream) in [
        ("ForbiddenTargetIpAddress", bad.to_string()),
        ("AddressNotSupported", "[::1]:9".into()),
        ("ForbiddenTargetIpAddress", "169.254.169.254:80".into()),
    ] {
        assert!(
            records
                .iter()
                .any(|record| record["reason"] == reason && record["upstream"] == upstream.as_str()),
            "{reason} {upstream}: {records:?}"
        );
    }
    // However much is sent in vain, a few records tell of it.
    assert!(records.len() <= 8, "{}", records.len());
    assert_eventually!(statsd.total("sluice.escaper.forbidden.ip_blocked", &[("escaper", "out")]) >= 7.0);
    daemon.stop().await.assert_clean();
    resolverd.stop().await.assert_clean();
}

/// OB-08.
#[tokio::test]
async fn datagrams_are_counted_where_they_count() {
    let echo = UdpEcho::on("127.0.0.1:0");
    let origin = echo.addr();
    let statsd = Statsd::start();
    let daemon = Daemon::proxyd(&(config_with(&server(SEVERAL)) + &statsd.section()))
        .start()
        .await;
    let a = associate(&daemon).await;
    for _ in 0..10 {
        a.echoed(&udp_header(origin), &[1; 90], origin).await;
    }
    a.send(b"junk").await;
    a.echoed(&udp_header(origin), b"", origin).await;
    drop(a);
    let task = record(&daemon).await;
    assert_eq!((&task["c_rd_bytes"], &task["c_rd_packets"]), (&900.into(), &11.into()));
    let udp = [("transport", "udp")];
    for (name, value) in [
        ("server.traffic.in.bytes", 1000.0 + 4.0 + 10.0),
        ("server.traffic.in.packets", 12.0),
        ("server.traffic.out.bytes", 1010.0),
        ("server.traffic.out.packets", 11.0),
        ("escaper.traffic.in.bytes", 900.0),
        ("escaper.traffic.in.packets", 11.0),
        ("escaper.traffic.out.bytes", 900.0),
        ("escaper.traffic.out.packets", 11.0),
    ] {
        assert_eventually!(statsd.total(&format!("sluice.{name}"), &udp) == value);
    }
    assert_eventually!(statsd.last("sluice.server.task.alive", &[("server", "socks")]) == Some(0.0));
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn clients_are_told_what_the_configuration_says() {
    let echo = UdpEcho::on("127.0.0.1:0");
    let origin = echo.addr();
    let port = sluice_testkit::Port::free().number();
    let port = port.min(65_000);
    let keys = format!(
        "{SEVERAL}, transmute_udp_echo_ip: {{127.0.0.1: 192.0.2.7}}, udp_bind_port_range: {port}-{}, \
         udp_socket_buffer: 200K, udp_misc_opts: {{tos: 16}}",
        port + 500
    );
    let daemon = start(&keys).await;
    let (control, told) = reply(&daemon, ANY_V4).await;
    let told = UdpAssociation::bound(&told);
    assert_eq!(told.ip().to_string(), "192.0.2.7");
    assert!((port..=port + 500).contains(&told.port()), "{told}");
    let a = UdpAssociation::new(control, SocketAddr::new([127, 0, 0, 1].into(), told.port())).await;
    a.echoed(&udp_header(origin), b"there", origin).await;
    drop(a);
    daemon.stop().await.assert_clean();
    let daemon = start("auto_reply_local_ip_map: true").await;
    let (_, told) = reply(&daemon, ANY_V4).await;
    assert_eq!(UdpAssociation::bound(&told).ip().to_string(), "0.0.0.0");
    daemon.stop().await.assert_clean();
}

/// UDP-06.
#[tokio::test]
async fn answers_leave_from_the_address_that_the_client_sends_to() {
    let echo = UdpEcho::on("127.0.0.1:0");
    let origin = echo.addr();
    let any_v6 = [&[4][..], &[0; 18]].concat();
    for (keys, wanted, ours) in [
        ("udp_bind_ipv4: 0.0.0.0", ANY_V4, &["127.0.0.1", "127.0.0.2"][..]),
        ("udp_bind_ipv6: '::'", &any_v6, &["127.0.0.1", "127.0.0.2", "::1"]),
    ] {
        let daemon = start(keys).await;
        for ours in ours {
            let (control, told) = reply(&daemon, wanted).await;
            let told = UdpAssociation::bound(&told);
            assert!(told.ip().is_unspecified());
            // The client takes datagrams from nowhere else.
            let relay = SocketAddr::new(ours.parse().unwrap(), told.port());
            let a = UdpAssociation::new(control, relay).await;
            a.echoed(&udp_header(origin), b"one", origin).await;
            a.echoed(&udp_header(origin), b"two", origin).await;
        }
        daemon.stop().await.assert_clean();
    }
}

#[tokio::test]
async fn an_escaper_without_datagrams_says_so() {
    let yaml = "escaper: [{name: deny, type: dummy_deny}]
server: [{name: socks, type: socks_proxy, listen: '127.0.0.1:%socks%', escaper: deny}]
";
    let daemon = Daemon::proxyd(yaml).start().await;
    let (_, refused) = reply(&daemon, ANY_V4).await;
    assert_eq!(refused[..2], [5, 2]);
    assert_eq!(record(&daemon).await["reason"], "ForbiddenByRule");
    daemon.stop().await.assert_clean();
}

/// UDP-03.
#[tokio::test]
async fn traffic_in_one_direction_keeps_an_association_and_silence_ends_it() {
    let origin = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = origin.local_addr().unwrap();
    let daemon = start("task_idle_check_interval: 200ms, task_idle_max_count: 1").await;
    let mut a = associate(&daemon).await;
    let mut buf = [0; 10];
    a.ask(&udp_header(target), b"0").await;
    let (_, remote) = origin.recv_from(&mut buf).await.unwrap();
    let mut every = tokio::time::interval(Duration::from_millis(200));
    for _ in 0..8 {
        every.tick().await;
        origin.send_to(b"down", remote).await.unwrap();
        a.next().await;
    }
    for _ in 0..8 {
        every.tick().await;
        a.ask(&udp_header(target), b"up").await;
        origin.recv_from(&mut buf).await.unwrap();
    }
    a.control.assert_closed().await;
    assert_eq!(record(&daemon).await["reason"], "Idle");
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn users_have_rules_limits_and_numbers_for_datagrams() {
    let echoes = [UdpEcho::on("127.0.0.1:0"), UdpEcho::on("127.0.0.2:0")];
    let [one, two] = [0, 1].map(|i| echoes[i].addr());
    let statsd = Statsd::start();
    let users = "user_group:
  - name: staff
    static_users:
      - name: ann
        token: ~
        socks_use_udp_associate: true
        dst_host_filter_set: {subnet: {default: allow, allow: 127.0.0.0/8, deny: 127.0.0.2/32}}
        udp_all_upload_speed_limit: {replenish_packets: 10}
        udp_remote_misc_opts: {ttl: 9}
        udp_client_misc_opts: {ttl: 8}
      - {name: bob, token: ~, proxy_request_filter: {deny: SocksUdpAssociate, default: allow}}
";
    let yaml = config_with(&server("user_group: staff")) + users + &statsd.section();
    let daemon = Daemon::proxyd(&yaml).start().await;
    let login = async |name: &str| {
        let mut control = daemon.connect("socks").await;
        let len = u8::try_from(name.len()).unwrap();
        let credentials = [&[1, len][..], name.as_bytes(), b"\x01x"].concat();
        control
            .send([&b"\x05\x01\x02"[..], &credentials, b"\x05\x03\x00", ANY_V4].concat())
            .await;
        assert_eq!(control.exactly(4).await, b"\x05\x02\x01\x00");
        let reply = control.exactly(10).await;
        (control, reply)
    };
    let (_, refused) = login("bob").await;
    assert_eq!(refused[..2], [5, 2]);
    let mut associations = Vec::new();
    for _ in 0..2 {
        let (control, told) = login("ann").await;
        associations.push(UdpAssociation::new(control, UdpAssociation::bound(&told)).await);
    }
    // Both together have ten packets at once, then ten in a second.
    let start = Instant::now();
    for turn in 0..10_u8 {
        for a in &associations {
            a.ask(&udp_header(two), b"denied").await;
            a.ask(&udp_header(one), &[turn]).await;
        }
    }
    for turn in 0..10_u8 {
        for a in &associations {
            assert_eq!(a.next().await, (one, vec![turn]));
        }
    }
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_millis(1800)).contains(&took),
        "{took:?}"
    );
    drop(associations);
    assert_eventually!(finished(&daemon).len() == 3);
    assert_eq!(finished(&daemon).iter().filter(|task| task["user"] == "ann").count(), 2);
    let user = |name: &str, more: &[(&str, &str)]| {
        let tags = [&[("user", "ann")], more].concat();
        statsd.total(&format!("sluice.user.{name}"), &tags)
    };
    let kind = [("request", "socks_udp_associate")];
    assert_eventually!(user("request.total", &kind) == 2.0);
    assert_eventually!(user("request.ready", &kind) == 2.0);
    assert_eventually!(user("traffic.in.packets", &kind) == 20.0);
    assert_eventually!(user("traffic.in.bytes", &kind) == 20.0);
    assert_eventually!(user("traffic.out.packets", &kind) == 20.0);
    assert_eventually!(user("upstream.traffic.out.packets", &[("transport", "udp")]) == 20.0);
    assert_eventually!(user("forbidden.dest_denied", &[]) == 20.0);
    assert_eventually!(statsd.total("sluice.user.forbidden.proto_banned", &[("user", "bob")]) == 1.0);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn pysocks_and_dante_send_datagrams_through() {
    let dns = Dnsmasq::new().host("www.test", &["192.0.2.80"]).start().await;
    for keys in ["", SEVERAL] {
        let daemon = start(keys).await;
        let (socks, port) = (daemon.group().port("socks"), dns.addr().port());
        let script = format!(
            "import socks, socket, struct
s = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
s.set_proxy(socks.SOCKS5, '127.0.0.1', {socks})
s.settimeout(10)
query = b'\\x12\\x34\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x03www\\x04test\\x00\\x00\\x01\\x00\\x01'
for _ in range(3):
    s.sendto(query, ('127.0.0.1', {port}))
    answer, peer = s.recvfrom(2000)
    assert peer == ('127.0.0.1', {port}), peer
    assert answer[:2] == query[:2] and answer[-4:] == bytes([192, 0, 2, 80]), answer
"
        );
        let exited = python(&script, &[]).await;
        assert_eq!(exited.code, Some(0), "{}", exited.stderr);
        assert_eventually!(finished(&daemon).len() == 1);
        let dante = daemon.group().write_file(
            "socks.conf",
            &format!(
                "route {{\n  from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = {socks}\n  \
                 proxyprotocol: socks_v5\n  protocol: udp tcp\n  command: connect udpassociate\n}}\n"
            ),
        );
        // dig itself sends by a system call that dante's library does not know.
        let script = format!(
            "import socket
query = b'\\x12\\x34\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x03www\\x04test\\x00\\x00\\x01\\x00\\x01'
one, two = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
two.connect(('127.0.0.1', {port}))
for s in (one, two):
    s.settimeout(10)
    for _ in range(3):
        if s is one:
            s.sendto(query, ('127.0.0.1', {port}))
        else:
            s.send(query)
        answer, peer = s.recvfrom(2000)
        assert answer[:2] == query[:2] and answer[-4:] == bytes([192, 0, 2, 80]), answer
print('fine')
"
        );
        let mut dante_client = Command::new("socksify");
        dante_client
            .env("SOCKS_CONF", &dante)
            .env("SOCKS_AUTOADD_LANROUTES", "no")
            .args(["python3", "-c", &script]);
        let mut process = Process::start("socksify", dante_client, daemon.group().dir());
        process.wait().await;
        assert_eq!(process.stdout(), "fine\n", "{}", process.stderr());
        assert_eventually!(finished(&daemon).len() == 3);
        let tasks = finished(&daemon);
        assert!(
            tasks
                .iter()
                .all(|task| task["c_rd_packets"] == 3 && task["c_wr_packets"] == 3),
            "{tasks:?}"
        );
        daemon.stop().await.assert_clean();
    }
}
