//! What is counted for known traffic, to StatsD and on the page for scrapers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use sluice_testkit::{Ca, Daemon, Dnsmasq, Group, Nginx, Origin, Statsd, Wire, assert_eventually, curl};
use sluice_tests::{BlackHole, finished, guarded_proxy, nobody, noise, proxy, resolving_proxy};

/// Numbers of one daemon, in both places.
struct Numbers {
    statsd: Statsd,
    group: Group,
}

impl Numbers {
    /// A group that is counted.
    fn of(yaml: impl Fn(&str) -> String) -> Self {
        let statsd = Statsd::start();
        let stat = format!(
            "stat: {{target: {{udp: '{}'}}, emit_interval: 50ms, openmetrics: {{listen: '127.0.0.1:%page%'}}}}\n",
            statsd.addr()
        );
        let group = Group::new(&yaml(&stat));
        Self { statsd, group }
    }

    /// Waits until a counter has this value, for StatsD and on the page.
    async fn assert(&self, name: &str, tags: &[(&str, &str)], value: u64) {
        let wanted = value as f64;
        let full = format!("sluice.{name}");
        assert_eventually!(
            self.statsd.total(&full, tags) == wanted,
            "{name} {tags:?}: {} instead of {value}",
            self.statsd.total(&full, tags)
        );
        let found = self.on_page(&full.replace('.', "_"), tags).await;
        assert_eq!(found, wanted, "{name} {tags:?} on the page");
    }

    /// The sum of a metric on the page.
    async fn on_page(&self, name: &str, tags: &[(&str, &str)]) -> f64 {
        let page = curl(&format!("http://{}/metrics", self.group.addr("page")))
            .run()
            .await
            .text();
        assert!(page.ends_with("# EOF\n"), "{page}");
        let samples = page.lines().filter_map(|line| line.strip_prefix(name));
        let samples = samples.filter_map(|line| {
            line.strip_prefix("_total")
                .unwrap_or(line)
                .strip_prefix('{')?
                .split_once("} ")
        });
        samples
            .filter(|(found, _)| {
                tags.iter()
                    .filter(|(_, value)| !value.is_empty())
                    .all(|(key, value)| found.split(',').any(|tag| tag == format!("{key}=\"{value}\"")))
            })
            .map(|(_, value)| value.split(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }
}

const SERVER: &[(&str, &str)] = &[("server", "http")];
const ESCAPER: &[(&str, &str)] = &[("escaper", "out")];
const SERVER_TCP: &[(&str, &str)] = &[("server", "http"), ("transport", "tcp")];
const ESCAPER_TCP: &[(&str, &str)] = &[("escaper", "out"), ("transport", "tcp")];

fn len(bytes: &[u8]) -> u64 {
    bytes.len().try_into().unwrap()
}

fn bytes(task: &Value) -> [u64; 4] {
    ["c_rd_bytes", "c_wr_bytes", "r_rd_bytes", "r_wr_bytes"].map(|key| task[key].as_u64().unwrap())
}

/// OB-07, OB-08: a megabyte each way over one connection, and a request whose upstream cannot be connected.
#[tokio::test]
async fn forwarded_bytes_count_once_at_each_of_server_escaper_and_task() {
    let body = noise(1_000_000);
    let answer = [&b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"[..], &body].concat();
    let sent = answer.clone();
    let origin = Origin::http(move |_| sent.clone());
    let numbers = Numbers::of(|stat| proxy("", "") + stat);
    let daemon = numbers.group.proxyd().await;
    let mut wire = daemon.connect("http").await;
    let addr = origin.addr();
    let head = format!("POST http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\nContent-Length: 1000000\r\n\r\n");
    let request = [head.as_bytes(), &body].concat();
    let mut received = 0;
    for _ in 0..2 {
        let got = wire.ask(&request).await;
        assert_eq!(got.body, body);
        received += len(got.head.as_bytes()) + len(&got.body);
    }
    let at_origin = len(&origin.received().concat());
    assert!(at_origin > 2_000_000 && at_origin < 2 * len(&request), "{at_origin}");
    numbers
        .assert("server.traffic.in.bytes", SERVER_TCP, 2 * len(&request))
        .await;
    numbers.assert("server.traffic.out.bytes", SERVER_TCP, received).await;
    numbers
        .assert("escaper.traffic.out.bytes", ESCAPER_TCP, at_origin)
        .await;
    numbers
        .assert("escaper.traffic.in.bytes", ESCAPER_TCP, 2 * len(&answer))
        .await;
    assert_eventually!(finished(&daemon).len() == 2);
    let expected = [len(&request), received / 2, len(&answer), at_origin / 2];
    for task in finished(&daemon) {
        assert_eq!(bytes(&task), expected, "{task}");
    }
    // One that leads nowhere: its bytes are the server's alone.
    let get = format!("GET http://{}/ HTTP/1.1\r\n\r\n", nobody());
    let failed = wire.ask(&get).await;
    assert_eq!(failed.status, 521);
    let told = len(failed.head.as_bytes()) + len(&failed.body);
    numbers
        .assert(
            "server.traffic.in.bytes",
            SERVER_TCP,
            2 * len(&request) + len(get.as_bytes()),
        )
        .await;
    numbers
        .assert("server.traffic.out.bytes", SERVER_TCP, received + told)
        .await;
    numbers
        .assert("escaper.traffic.out.bytes", ESCAPER_TCP, at_origin)
        .await;
    for (name, tags, value) in [
        ("server.connection.total", SERVER, 1),
        ("server.task.total", SERVER, 3),
        ("listen.accepted", SERVER, 1),
        ("escaper.task.total", ESCAPER, 3),
        ("escaper.connection.attempt", ESCAPER, 2),
        ("escaper.connection.establish", ESCAPER, 1),
        ("escaper.tcp.connect.attempt", ESCAPER, 2),
        ("escaper.tcp.connect.success", ESCAPER, 1),
        ("escaper.tcp.connect.establish", ESCAPER, 1),
        ("escaper.tcp.connect.error", ESCAPER, 1),
        ("escaper.tcp.connect.timeout", ESCAPER, 0),
    ] {
        numbers.assert(name, tags, value).await;
    }
    drop(wire);
    daemon.stop().await.assert_clean();
}

/// OB-08, OB-09: what a tunnel carries is payload, CONNECT and its answer are not; bytes right behind the CONNECT count
/// once.
#[tokio::test]
async fn a_tunnels_bytes_count_without_its_negotiation() {
    let origin = Origin::echo();
    for early in [0, 517, 100_000] {
        let numbers = Numbers::of(|stat| proxy("", "") + stat);
        let daemon = numbers.group.proxyd().await;
        let mut wire = daemon.connect("http").await;
        let connect = format!("CONNECT {} HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr());
        let payload = noise(early + 1000);
        wire.send([connect.as_bytes(), &payload[..early]].concat()).await;
        let head = wire.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        wire.send(&payload[early..]).await;
        assert_eq!(wire.exactly(payload.len()).await, payload);
        wire.finish().await;
        wire.assert_closed().await;
        let n = len(&payload);
        numbers
            .assert("server.traffic.in.bytes", SERVER_TCP, len(connect.as_bytes()) + n)
            .await;
        numbers
            .assert("server.traffic.out.bytes", SERVER_TCP, len(head.as_bytes()) + n)
            .await;
        numbers.assert("escaper.traffic.in.bytes", ESCAPER_TCP, n).await;
        numbers.assert("escaper.traffic.out.bytes", ESCAPER_TCP, n).await;
        assert_eventually!(finished(&daemon).len() == 1);
        assert_eq!(bytes(&finished(&daemon)[0]), [n; 4]);
        daemon.stop().await.assert_clean();
    }
}

/// OB-08: an `https:` URL's bytes are those within TLS.
#[tokio::test]
async fn tls_framing_does_not_count() {
    let ca = Ca::new();
    let nginx = Nginx::start_tls(&ca.issue(&["127.0.0.1"])).await;
    let numbers = Numbers::of(|stat| proxy("tls_client: {ca_certificate: '%dir%/ca.pem'}", "") + stat);
    numbers.group.write_file("ca.pem", ca.pem());
    let daemon = numbers.group.proxyd().await;
    let mut wire = daemon.connect("http").await;
    let get = format!(
        "GET https://{}/hello.txt HTTP/1.1\r\nHost: h.test\r\n\r\n",
        nginx.tls_addr()
    );
    let answer = wire.ask(&get).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hello\n"[..]));
    numbers
        .assert("server.traffic.in.bytes", SERVER_TCP, len(get.as_bytes()))
        .await;
    let to_origin = len(b"GET /hello.txt HTTP/1.1\r\nHost: h.test\r\n\r\n");
    numbers
        .assert("escaper.traffic.out.bytes", ESCAPER_TCP, to_origin)
        .await;
    let told = numbers.on_page("sluice_escaper_traffic_in_bytes", ESCAPER_TCP).await;
    assert!(told > 100.0 && told < 500.0, "{told}");
    drop(wire);
    daemon.stop().await.assert_clean();
}

/// OB-11.
#[tokio::test]
async fn a_connect_that_times_out_is_no_error_and_one_refused_is_no_timeout() {
    let hole = BlackHole::on("127.0.0.1:0");
    let numbers = Numbers::of(|stat| proxy("", "tcp_connect: {max_retry: 0, each_timeout: 100ms}") + stat);
    let daemon = numbers.group.proxyd().await;
    let mut wire = daemon.connect("http").await;
    for (addr, status) in [(hole.addr(), 504), (nobody(), 521), (hole.addr(), 504)] {
        let answer = wire.ask(format!("GET http://{addr}/ HTTP/1.1\r\n\r\n")).await;
        assert_eq!(answer.status, status);
    }
    numbers.assert("escaper.tcp.connect.timeout", ESCAPER, 2).await;
    numbers.assert("escaper.tcp.connect.error", ESCAPER, 1).await;
    numbers.assert("escaper.tcp.connect.attempt", ESCAPER, 3).await;
    numbers.assert("escaper.tcp.connect.success", ESCAPER, 0).await;
    drop(wire);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn refusals_are_counted_where_they_are_made_with_the_tags_of_the_configuration() {
    let server = "dst_port_filter: [80], extra_metrics_tags: {site: berlin}, \
                  ingress_network_filter: {default: forbid, allow: 127.0.0.2}";
    let numbers = Numbers::of(|stat| guarded_proxy(server, "extra_metrics_tags: {site: rome}") + stat);
    let daemon = numbers.group.proxyd().await;
    let mut asked = 0;
    for (url, status) in [
        ("http://127.0.0.1:81/", 403),
        ("http://h.test:8080/", 403),
        ("http://127.0.0.1/", 403),
        ("gopher://h.test/", 501),
        ("http://h.test/ bad", 400),
    ] {
        let request = format!("GET {url} HTTP/1.1\r\n\r\n");
        asked += len(request.as_bytes());
        assert_eq!(daemon.connect("http").await.ask(request).await.status, status, "{url}");
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.3:0".parse().unwrap()).unwrap();
    Wire::from_stream(socket.connect(daemon.addr("http")).await.unwrap())
        .assert_closed()
        .await;
    let berlin = [
        ("server", "http"),
        ("site", "berlin"),
        ("online", "y"),
        ("daemon_group", ""),
    ];
    numbers.assert("server.forbidden.dest_denied", &berlin, 2).await;
    numbers.assert("server.task.total", &berlin, 1).await;
    numbers
        .assert(
            "escaper.forbidden.ip_blocked",
            &[("escaper", "out"), ("site", "rome")],
            1,
        )
        .await;
    // What is refused has been read.
    numbers.assert("server.traffic.in.bytes", SERVER_TCP, asked).await;
    // Extra tags are none of a listener's.
    numbers.assert("listen.accepted", SERVER, 6).await;
    numbers.assert("listen.dropped", SERVER, 1).await;
    numbers.assert("listen.dropped", &berlin, 0).await;
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn tasks_alive_and_listeners_are_gauges() {
    let origin = Origin::echo();
    let numbers = Numbers::of(|stat| proxy("", "") + stat);
    let daemon = numbers.group.proxyd().await;
    let mut tunnels = Vec::new();
    for _ in 0..3 {
        tunnels.push(daemon.http_connect(origin.addr()).await);
    }
    let alive = |count| numbers.statsd.last("sluice.server.task.alive", SERVER) == Some(count);
    assert_eventually!(alive(3.0));
    assert_eq!(numbers.on_page("sluice_server_task_alive", SERVER).await, 3.0);
    tunnels.pop();
    assert_eventually!(alive(2.0));
    drop(tunnels);
    assert_eventually!(alive(0.0));
    assert_eq!(numbers.statsd.last("sluice.listen.instance.count", SERVER), Some(1.0));
    daemon.stop().await.assert_clean();
    // The last values leave before the end.
    assert_eventually!(numbers.statsd.last("sluice.listen.instance.count", SERVER) == Some(0.0));
}

/// Each query counts where it was answered: by proxyd, by resolverd, or by the name server, with what that said.
#[tokio::test]
async fn name_queries_are_counted_by_both_daemons() {
    let origin = Origin::hello("hi");
    let dns = Dnsmasq::new().host("a.test", &["127.0.0.1"]).ttl(600).start().await;
    let statsd = Statsd::start();
    // dnsmasq refuses what is not under `test.`.
    let yaml = resolving_proxy(dns.addr(), "", "resolve_strategy: ipv4_only") + &statsd.section();
    let resolverd = Daemon::resolverd(&yaml).start().await;
    let proxyd = resolverd.group().proxyd().await;
    for (host, status) in [
        ("a.test", 200),
        ("a.test", 200),
        ("a.test", 200),
        ("none.test", 530),
        ("a.other", 530),
    ] {
        let get = format!(
            "GET http://{host}:{}/ HTTP/1.1\r\nConnection: close\r\n\r\n",
            origin.port()
        );
        assert_eq!(proxyd.connect("http").await.ask(get).await.status, status, "{host}");
    }
    let tags = [("resolver", "dns"), ("rr_type", "A")];
    // The second and third time the connection is a kept one, so no name is asked for.
    for (name, value) in [
        ("query.total", 3.0),
        ("query.driver.total", 3.0),
        ("query.server.not_found", 1.0),
        ("query.server.refused", 1.0),
    ] {
        assert_eventually!(
            statsd.total(&format!("sluice.resolver.{name}"), &tags) == value,
            "{name}: {}",
            statsd.total(&format!("sluice.resolver.{name}"), &tags)
        );
    }
    // A connection of its own for each: proxyd knows the answer.
    for _ in 0..2 {
        let mut wire = proxyd.connect("http").await;
        wire.send(format!("CONNECT a.test:{} HTTP/1.1\r\n\r\n", origin.port()))
            .await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    }
    assert_eventually!(statsd.total("sluice.resolver.query.cached", &tags) == 2.0);
    assert_eventually!(statsd.total("sluice.resolver.query.total", &tags) == 5.0);
    assert_eq!(statsd.total("sluice.resolver.query.driver.total", &tags), 3.0);
    assert_eq!(statsd.total("sluice.resolver.query.total", &[("rr_type", "AAAA")]), 0.0);
    proxyd.stop().await.assert_clean();
    resolverd.stop().await.assert_clean();
}
