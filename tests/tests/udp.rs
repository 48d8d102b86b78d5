//! UDP ASSOCIATE through the real proxyd: what passes, between whom, and until when. Other people's clients, and datagrams
//! made byte by byte.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use sluice_testkit::{
    Daemon, Dnsmasq, Group, Process, UdpAssociation, UdpEcho, Wire, assert_eventually, python, udp_header,
    udp_header_of_name,
};
use sluice_tests::udp::{ANY_V4, SEVERAL, associate, record, reply, server, start};
use sluice_tests::{config_with, finished, resolving_with};
use tokio::net::UdpSocket;
use tokio::process::Command;
use tokio::time::timeout;

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
