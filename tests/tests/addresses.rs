//! Hosts in URLs and Host fields: IPv6 literals, mapped addresses, default ports, nothing at all.

use serde_json::Value;
use sluice_testkit::{Daemon, Origin, Wire, assert_eventually, curl};
use sluice_tests::{finished, proxy};

async fn started(server: &str, escaper: &str) -> Daemon {
    Daemon::proxyd(&proxy(server, escaper)).start().await
}

fn hello_on(addr: &str) -> Origin {
    Origin::script_on(addr, |conn| {
        while conn.head()?.is_some() {
            conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")?;
        }
        Ok(())
    })
}

/// The `Host` fields that an origin has got.
fn hosts(origin: &Origin) -> Vec<String> {
    let text = origin.received_text();
    let hosts = text.lines().filter_map(|line| line.strip_prefix("Host: "));
    hosts.map(str::to_owned).collect()
}

/// H1-19.
#[tokio::test]
async fn ipv6_literals_work_with_curl_in_every_method() {
    let origin = hello_on("[::1]:0");
    let daemon = started("", "").await;
    let proxy = daemon.addr("http");
    let url = format!("http://{}/", origin.addr());
    curl(&url).arg("-g").proxy(proxy).run().await.assert(200, "hello");
    curl(&url).arg("-g").tunnel(proxy).run().await.assert(200, "hello");
    assert_eq!(hosts(&origin), [origin.addr().to_string(), origin.addr().to_string()]);
    daemon.stop().await.assert_clean();
}

/// H1-19.
#[tokio::test]
async fn an_ipv6_literal_without_a_port_means_the_default_one() {
    let daemon = started("", "").await;
    let mut wire = daemon.connect("http").await;
    // Whoever listens on port 80 of this host or not, it is there that the request goes.
    for (request, upstream) in [
        ("GET http://[::1]/ HTTP/1.1\r\nHost: [::1]\r\n\r\n", "[::1]:80"),
        ("GET https://[::1]/ HTTP/1.1\r\nHost: [::1]\r\n\r\n", "[::1]:443"),
        ("CONNECT [::1] HTTP/1.1\r\n\r\n", "[::1]:443"),
    ] {
        wire.try_send(request).await;
        wire.head().await;
        wire = daemon.connect("http").await;
        assert_eventually!(finished(&daemon).iter().any(|task| task["upstream"] == upstream));
    }
    drop(wire);
    daemon.stop().await.assert_clean();
}

/// H1-18.
#[tokio::test]
async fn an_empty_host_field_counts_as_absent() {
    let origin = hello_on("127.0.0.1:0");
    let daemon = started("local_server_name: proxy.test", "").await;
    let addr = origin.addr();
    for (target, status) in [
        (format!("http://{addr}/"), 200),
        ("/".into(), 400),
        ("/.well-known/x".into(), 400),
    ] {
        for host in ["Host:", "Host: ", "Host:\t"] {
            let mut wire = daemon.connect("http").await;
            let answer = wire.ask(format!("GET {target} HTTP/1.1\r\n{host}\r\n\r\n")).await;
            assert_eq!(answer.status, status, "{target} {host:?}");
        }
    }
    let mut wire = daemon.connect("http").await;
    wire.send(format!("CONNECT {addr} HTTP/1.1\r\nHost:\r\n\r\n")).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(hosts(&origin), vec![addr.to_string(); 3]);
    drop(wire);
    daemon.stop().await.assert_clean();
}

/// H1-20.
#[tokio::test]
async fn a_mapped_address_is_an_ipv4_address_to_rules_routes_and_logs() {
    let origin = hello_on("127.0.0.1:0");
    let port = origin.port();
    // IPv6 is switched off at the escaper, and the target filter knows an IPv4 network only.
    let server = "dst_host_filter_set: {subnet_match: {default: forbid, allow: 127.0.0.0/8}}";
    let daemon = started(server, "no_ipv6: true").await;
    for host in ["[::ffff:127.0.0.1]", "[::ffff:7f00:1]"] {
        let mut wire = daemon.connect("http").await;
        let answer = wire.ask(format!("GET http://{host}:{port}/ HTTP/1.1\r\n\r\n")).await;
        assert_eq!(answer.status, 200, "{host}");
        let mut wire = daemon.connect("http").await;
        wire.send(format!("CONNECT {host}:{port} HTTP/1.1\r\n\r\n")).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200 "), "{host}");
    }
    let mut wire = daemon.connect("http").await;
    let answer = wire
        .ask(format!("GET http://[::ffff:10.0.0.1]:{port}/ HTTP/1.1\r\n\r\n"))
        .await;
    assert_eq!(answer.status, 403);
    drop(wire);
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let mut tasks = stopped.log_records("Task");
    tasks.retain(|task| task["task_event"] == "Finished");
    let upstreams: Vec<_> = tasks.iter().map(|task| task["upstream"].clone()).collect();
    assert_eq!(upstreams, vec![Value::from(format!("127.0.0.1:{port}")); 4]);
}

/// H1-20.
#[tokio::test]
async fn a_client_at_a_dual_stack_listener_is_an_ipv4_client() {
    let origin = hello_on("127.0.0.1:0");
    let yaml = proxy(
        "ingress_network_filter: {default: forbid, allow: 127.0.0.3}",
        "use_proxy_protocol: 1",
    )
    .replace("listen: '127.0.0.1:%http%'", "listen: '[::]:%http%'");
    let daemon = Daemon::proxyd(&yaml).start().await;
    let port = daemon.addr("http").port();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.3:0".parse().unwrap()).unwrap();
    let mut wire = Wire::from_stream(socket.connect(daemon.addr("http")).await.unwrap());
    let client = wire.local_addr();
    let answer = wire
        .ask(format!("GET http://{}/ HTTP/1.1\r\n\r\n", origin.addr()))
        .await;
    assert_eq!(answer.status, 200);
    let header = format!("PROXY TCP4 127.0.0.3 127.0.0.1 {} {port}\r\nGET / ", client.port());
    assert!(
        origin.received_text().starts_with(&header),
        "{}",
        origin.received_text()
    );
    drop(wire);
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let task = stopped.log_records("Task").pop().unwrap();
    assert_eq!(task["client_addr"], client.to_string());
    assert_eq!(task["server_addr"], format!("127.0.0.1:{port}"));
}

/// H1-21.
#[tokio::test]
async fn a_default_port_is_dropped_from_host_and_nothing_else_is() {
    let origin = hello_on("127.0.0.1:0");
    let daemon = started("drop_default_port_in_host: true", "").await;
    let addr = origin.addr();
    let rows = [
        ("h.test:80", "h.test"),
        ("h.test:443", "h.test:443"),
        ("h.test:8080", "h.test:8080"),
        ("h.test", "h.test"),
        ("[2001:db8::443]", "[2001:db8::443]"),
        ("[2001:db8::80]", "[2001:db8::80]"),
        ("[::80]:80", "[::80]"),
        ("[::80]:443", "[::80]:443"),
        ("127.0.0.1:80", "127.0.0.1"),
    ];
    let mut wire = daemon.connect("http").await;
    for (host, _) in rows {
        let answer = wire
            .ask(format!("GET http://{addr}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert_eq!(answer.status, 200, "{host}");
    }
    // Where the URL's authority is taken, its port is not the default one.
    wire.ask(format!("GET http://{addr}/ HTTP/1.1\r\n\r\n")).await;
    let mut wanted: Vec<_> = rows.iter().map(|(_, sent)| (*sent).to_owned()).collect();
    wanted.push(addr.to_string());
    assert_eq!(hosts(&origin), wanted);
    drop(wire);
    daemon.stop().await.assert_clean();
}
