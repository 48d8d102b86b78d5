//! The headers in which the proxy tells of the way to the upstream, those that steer it, and requests for itself.

use std::net::SocketAddr;

use sluice_testkit::{Answer, Daemon, Origin, curl};
use sluice_tests::{nobody, proxy};

async fn started(server: &str, escaper: &str) -> Daemon {
    Daemon::proxyd(&proxy(server, escaper)).start().await
}

/// Answers with the address that the connection came from, and fields of its own.
fn telling(fields: &'static str) -> Origin {
    Origin::script(move |conn| {
        let peer = conn.stream().peer_addr()?.to_string();
        while conn.head()?.is_some() {
            let length = peer.len();
            conn.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{fields}\r\n{peer}").as_bytes())?;
        }
        Ok(())
    })
}

fn get(origin: SocketAddr, fields: &str) -> String {
    format!("GET http://{origin}/ HTTP/1.1\r\n{fields}\r\n")
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// All values of a header, in order.
fn values(head: &str, name: &str) -> Vec<String> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    lines
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.to_owned())
        .collect()
}

const TALKATIVE: &str = "server_id: p1, http_forward_mark_upstream: true, echo_chained_info: true";

/// H1-23.
#[tokio::test]
async fn responses_tell_how_the_upstream_was_reached() {
    let origin = telling("");
    let daemon = started(TALKATIVE, "bind_ip: 127.0.0.7").await;
    let mut wire = daemon.connect("http").await;
    // A new connection and a kept one.
    for _ in 0..2 {
        let answer = wire.ask(get(origin.addr(), "")).await;
        let (peer, remote) = (text(&answer), origin.addr().to_string());
        assert!(peer.starts_with("127.0.0.7:"), "{peer}");
        assert_eq!(answer.header("x-bd-upstream-id"), Some("p1"));
        assert_eq!(answer.header("x-bd-upstream-addr"), Some(remote.as_str()));
        assert_eq!(answer.header("x-bd-outgoing-ip"), Some("127.0.0.7"));
        let info = format!("p1; bind=127.0.0.7; local={peer}; remote={remote}");
        assert_eq!(values(&answer.head, "x-bd-remote-connection-info"), [info]);
    }
    drop(wire);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn the_proxy_nearest_to_the_upstream_has_the_word() {
    let fields = "X-BD-Upstream-Id: far\r\nX-BD-Upstream-Addr: 192.0.2.1:80\r\nX-BD-Outgoing-IP: 192.0.2.2\r\n\
                  X-BD-Remote-Connection-Info: far; remote=192.0.2.1:80\r\n";
    let origin = telling(fields);
    let daemon = started(TALKATIVE, "").await;
    let head = daemon.connect("http").await.ask(get(origin.addr(), "")).await.head;
    assert_eq!(values(&head, "x-bd-upstream-id"), ["far"]);
    assert_eq!(values(&head, "x-bd-upstream-addr"), ["192.0.2.1:80"]);
    assert_eq!(values(&head, "x-bd-outgoing-ip"), ["192.0.2.2"]);
    let infos = values(&head, "x-bd-remote-connection-info");
    assert!(
        infos.len() == 2 && infos[0].starts_with("far;") && infos[1].starts_with("p1;"),
        "{infos:?}"
    );
    daemon.stop().await.assert_clean();
}

/// CU-01.
#[tokio::test]
async fn the_200_of_connect_and_errors_of_connecting_tell_it_too() {
    let origin = Origin::echo();
    let down = nobody();
    for log in ["", "log: discard\n"] {
        let yaml = proxy(TALKATIVE, "") + log;
        let daemon = Daemon::proxyd(&yaml).start().await;
        let mut wire = daemon.connect("http").await;
        for request in [format!("CONNECT {down} HTTP/1.1\r\n\r\n"), get(down, "")] {
            let answer = wire.ask(request).await;
            assert_eq!(answer.status, 521);
            assert_eq!(values(&answer.head, "x-bd-upstream-addr"), [down.to_string()], "{log}");
            assert_eq!(
                values(&answer.head, "x-bd-remote-connection-info"),
                [format!("p1; remote={down}")]
            );
            // Nothing came from there.
            assert_eq!(answer.header("x-bd-upstream-id"), None);
        }
        wire.send(format!("CONNECT {} HTTP/1.1\r\n\r\n", origin.addr())).await;
        let head = wire.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(values(&head, "x-bd-upstream-addr"), [origin.addr().to_string()]);
        assert_eq!(values(&head, "x-bd-outgoing-ip"), ["127.0.0.1"]);
        let info = values(&head, "x-bd-remote-connection-info");
        assert!(info.len() == 1 && info[0].starts_with("p1; local=127.0.0.1:"), "{head}");
        assert_eq!(values(&head, "x-bd-upstream-id"), [""; 0]);
        assert_eq!(wire.echo(b"ping").await, b"ping");
        drop(wire);
        daemon.stop().await.assert_clean();
    }
}

#[tokio::test]
async fn refusals_tell_nothing() {
    let daemon = started(&format!("{TALKATIVE}, dst_port_filter: [80]"), "").await;
    for (request, status) in [
        ("GET http://127.0.0.1:81/ HTTP/1.1\r\n\r\n", 403),
        ("GET http://127.0.0.1:0/ HTTP/1.1\r\n\r\n", 400),
        ("CONNECT 127.0.0.1:22 HTTP/1.1\r\n\r\n", 403),
    ] {
        let answer = daemon.connect("http").await.ask(request).await;
        assert_eq!(answer.status, status);
        assert!(!answer.head.to_ascii_lowercase().contains("x-bd-"), "{}", answer.head);
    }
    daemon.stop().await.assert_clean();
}

/// RT-01.
#[tokio::test]
async fn a_request_header_chooses_among_the_local_addresses() {
    let origin = Origin::script(|conn| {
        let peer = conn.stream().peer_addr()?.ip().to_string();
        while conn.head()?.is_some() {
            conn.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{peer}", peer.len()).as_bytes())?;
        }
        Ok(())
    });
    let binds = "bind_ip: [127.0.0.2, 127.0.0.3, 127.0.0.4]";
    let server = "egress_path_selection_header: X-Path";
    let daemon = started(server, &format!("{binds}, enable_path_selection: true")).await;
    let addr = origin.addr();
    let mut wire = daemon.connect("http").await;
    for (index, ip) in [
        ("1", "127.0.0.2"),
        ("3", "127.0.0.4"),
        ("0", "127.0.0.4"),
        ("2", "127.0.0.3"),
        ("4", "127.0.0.2"),
        ("18446744073709551615", "127.0.0.4"),
        ("1", "127.0.0.2"),
    ] {
        // The connection of one path does not serve another one.
        let answer = wire.ask(get(addr, &format!("X-PATH: {index}\r\n"))).await;
        assert_eq!((answer.status, text(&answer)), (200, ip.into()), "{index}");
        let mut tunnel = daemon.connect("http").await;
        tunnel
            .send(format!("CONNECT {addr} HTTP/1.1\r\nx-path: {index}\r\n\r\n"))
            .await;
        assert!(tunnel.head().await.starts_with("HTTP/1.1 200 "));
        let answer = tunnel.ask("GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!(text(&answer), ip, "{index}");
    }
    assert!(!origin.received_text().to_ascii_lowercase().contains("x-path"));
    for bad in ["", "-1", "x", "1.5", "18446744073709551616"] {
        let mut wire = daemon.connect("http").await;
        let answer = wire.ask(get(addr, &format!("X-Path: {bad}\r\n"))).await;
        assert_eq!(answer.status, 400, "{bad:?}");
        let mut wire = daemon.connect("http").await;
        let answer = wire
            .ask(format!("CONNECT {addr} HTTP/1.1\r\nX-Path: {bad}\r\n\r\n"))
            .await;
        assert_eq!(answer.status, 400, "{bad:?}");
    }
    drop(wire);
    daemon.stop().await.assert_clean();

    // An escaper that does not have it switched on takes any of them; the header stays here all the same.
    let daemon = started(server, binds).await;
    let answer = daemon.connect("http").await.ask(get(addr, "X-Path: 1\r\n")).await;
    assert!(text(&answer).starts_with("127.0.0."));
    assert!(!origin.received_text().to_ascii_lowercase().contains("x-path"));
    daemon.stop().await.assert_clean();
}

/// H1-22.
#[tokio::test]
async fn forwarding_headers_of_the_client_go_on_unless_they_are_stolen() {
    let fields = "Forwarded: for=192.0.2.1\r\nA: 1\r\nX-Forwarded-For: 192.0.2.1\r\nforwarded: for=192.0.2.2\r\n\
                  x-forwarded-for: 192.0.2.2\r\nX-Forwarded-Proto: http\r\n";
    for steal in [false, true] {
        let origin = telling("");
        let daemon = started(&format!("steal_forwarded_for: {steal}"), "").await;
        let addr = origin.addr();
        let answer = daemon
            .connect("http")
            .await
            .ask(get(addr, &format!("Host: {addr}\r\n{fields}")))
            .await;
        assert_eq!(answer.status, 200);
        let kept = if steal {
            "A: 1\r\nX-Forwarded-Proto: http\r\n"
        } else {
            fields
        };
        assert_eq!(
            origin.received_text(),
            format!("GET / HTTP/1.1\r\nHost: {addr}\r\n{kept}\r\n")
        );
        daemon.stop().await.assert_clean();
    }
}

#[tokio::test]
async fn well_known_uris_of_the_proxy_name_another_one() {
    let origin = Origin::http(|request| {
        let text = format!("{} {}", request.header("host").unwrap_or_default(), request.target());
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
    });
    let daemon = started("", "").await;
    let (addr, port) = (origin.addr(), origin.port());
    let proxy = daemon.addr("http");
    for (path, wanted) in [
        (format!("easy-proxy/http/127.0.0.1/{port}/a/b?c=d"), "/a/b?c=d"),
        (format!("easy-proxy/http/127.0.0.1/{port}/"), "/"),
        (format!("easy-proxy/http/127.0.0.1/{port}"), "/"),
        (format!("easy-proxy/HTTP/127.0.0.1/{port}/%2e"), "/%2e"),
        (
            format!("masque/http/http%3A%2F%2F127.0.0.1%3A{port}%2Fa%3Fb%3Dc/"),
            "/a?b=c",
        ),
        (format!("masque/http/http%3a%2f%2f127.0.0.1%3a{port}%2f"), "/"),
    ] {
        // curl asks the proxy as if it were a server.
        let answer = curl(&format!("http://{proxy}/.well-known/{path}"))
            .arg("--path-as-is")
            .run()
            .await;
        answer.assert(200, &format!("{addr} {wanted}"));
    }
    for (path, status) in [
        ("easy-proxy/http/127.0.0.1/0/", 400),
        ("easy-proxy/http/127.0.0.1/x/", 400),
        ("easy-proxy/ftp/127.0.0.1/21/", 501),
        ("easy-proxy/gopher/127.0.0.1/70/", 501),
        ("easy-proxy/", 400),
        ("masque/http/", 400),
        ("masque/http/http%3A%2F%2Fa%0D%0AX%3A%20y/", 400),
        ("masque/http/http%3A%2F%2F127.0.0.1%2F%20HTTP%2F1.1/", 400),
        ("masque/http/%ff/", 400),
        ("masque/ip/", 501),
        ("security.txt", 501),
    ] {
        let answer = curl(&format!("http://{proxy}/.well-known/{path}")).run().await;
        assert_eq!((answer.exit, answer.status), (0, status), "{path}");
    }
    assert_eq!(origin.accepted(), 1);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn well_known_uris_name_ipv6_origins() {
    let origin = Origin::script_on("[::1]:0", |conn| {
        while conn.head()?.is_some() {
            conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nv6")?;
        }
        Ok(())
    });
    let daemon = started("", "").await;
    let port = origin.port();
    for host in ["::1", "[::1]", "%3A%3A1", "%5B::1%5D"] {
        let path = format!("/.well-known/easy-proxy/http/{host}/{port}/");
        let answer = daemon
            .connect("http")
            .await
            .ask(format!("GET {path} HTTP/1.1\r\nHost: proxy.test\r\n\r\n"))
            .await;
        assert_eq!((answer.status, text(&answer)), (200, "v6".into()), "{host}");
    }
    assert_eq!(
        origin
            .received_text()
            .matches(&format!("Host: [::1]:{port}\r\n"))
            .count(),
        4
    );
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn with_names_of_its_own_the_host_field_decides_what_is_for_the_proxy_itself() {
    let origin = telling("");
    let daemon = started("local_server_name: [proxy.test, 127.0.0.9]", "").await;
    let addr = origin.addr();
    let well_known = format!("/.well-known/easy-proxy/http/127.0.0.1/{}/", addr.port());
    for (target, host, status) in [
        (well_known.clone(), "Host: proxy.test", 200),
        (well_known.clone(), "Host: PROXY.test:8080", 200),
        (format!("http://proxy.test{well_known}"), "Host: proxy.test", 200),
        (well_known.clone(), "Host: 127.0.0.9", 200),
        (well_known.clone(), "Host: other.test", 400),
        (well_known.clone(), "X: y", 400),
        ("/".into(), "Host: proxy.test", 501),
        // A request for an origin all the same.
        (format!("http://{addr}/"), "Host: other.test", 200),
        (format!("http://{addr}{well_known}"), "X: y", 200),
    ] {
        let answer = daemon
            .connect("http")
            .await
            .ask(format!("GET {target} HTTP/1.1\r\n{host}\r\n\r\n"))
            .await;
        assert_eq!(answer.status, status, "{target} {host}");
    }
    // CONNECT is never local.
    let mut wire = daemon.connect("http").await;
    wire.send(format!("CONNECT {addr} HTTP/1.1\r\nHost: proxy.test\r\n\r\n"))
        .await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    drop(wire);
    daemon.stop().await.assert_clean();
}
