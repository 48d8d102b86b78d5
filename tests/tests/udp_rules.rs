//! UDP ASSOCIATE through the real proxyd: filters, limits, users, and what is told of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sluice_testkit::{
    Daemon, Dnsmasq, Group, Statsd, UdpAssociation, UdpEcho, assert_eventually, udp_header, udp_header_of_name,
};
use sluice_tests::udp::{ANY_V4, SEVERAL, associate, record, reply, server, start};
use sluice_tests::{config_with, finished, resolving_with};
use tokio::net::UdpSocket;
use tokio::time::timeout;

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
async fn datagrams_that_cannot_go_on_are_counted_with_their_reason() {
    let origin = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to_origin = udp_header(origin.local_addr().unwrap());
    let dns = Dnsmasq::new().start().await;
    let statsd = Statsd::start();
    let group = Group::new(&(resolving_with(dns.addr(), &server(SEVERAL)) + &statsd.section()));
    let (resolverd, daemon) = (group.daemon("resolverd").start().await, group.proxyd().await);
    let a = associate(&daemon).await;
    a.ask(&to_origin, &[1; 4097]).await; // when there is no way out yet
    a.ask(&to_origin, b"first").await;
    a.ask(&to_origin, &[1; 4097]).await;
    a.ask(&to_origin, &[1; 9000]).await;
    a.ask(&udp_header("127.255.255.255:9".parse().unwrap()), b"to all")
        .await;
    a.ask(&udp_header_of_name("none.test", 53), b"lost").await;
    let mut buf = [0; 10];
    let (n, remote) = origin.recv_from(&mut buf).await.unwrap();
    assert_eq!(&buf[..n], b"first");
    origin.send_to(&[2; 4097], remote).await.unwrap();
    for (reason, count) in [("too_long", 4.0), ("not_sent", 1.0), ("unresolved", 1.0)] {
        let tags = [("server", "socks"), ("transport", "udp"), ("reason", reason)];
        let dropped = || statsd.total("sluice.server.traffic.drop.packets", &tags);
        assert_eventually!(dropped() == count, "{reason}: {} of {count}", dropped());
    }
    drop(a);
    record(&daemon).await;
    daemon.stop().await.assert_clean();
    resolverd.stop().await.assert_clean();
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
