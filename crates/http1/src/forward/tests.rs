use super::*;
use crate::{Awaits, Limits, Target, parse_request, parse_response, put_field};

fn forward(client: &str, how: impl Fn(ForwardRequest<'_>) -> ForwardRequest<'_>) -> String {
    let head = parse_request(client.as_bytes(), &Limits::default()).unwrap().unwrap();
    let Target::Absolute(url) = head.target().unwrap() else {
        panic!("no URL")
    };
    let mut out = Vec::new();
    head.forward(&how(ForwardRequest::new(TargetLine::Origin(&url))), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_default_port_leaves_host_but_never_an_address_h1_21() {
    let cases = [
        ("a", 80, "a"),
        ("a:80", 80, "a"),
        ("a:443", 80, "a:443"),
        ("a:443", 443, "a"),
        ("a:8080", 80, "a:8080"),
        ("[2001:db8::443]", 443, "[2001:db8::443]"),
        ("[2001:db8::443]:443", 443, "[2001:db8::443]"),
        ("[::80]:80", 80, "[::80]"),
        ("[::80]", 80, "[::80]"),
    ];
    for (host, port, expected) in cases {
        let client = format!("GET http://a/ HTTP/1.1\r\nX: y\r\nHost: {host}\r\n\r\n");
        let sent = forward(&client, |how| ForwardRequest {
            host: HostLine::WithoutPort(port),
            ..how
        });
        assert!(sent.contains(&format!("Host: {expected}\r\n")), "{host} {port}: {sent}");
        assert_eq!(sent.matches("Host").count(), 1);
    }
}

#[test]
fn host_is_replaced_in_front() {
    let client = "GET http://a/ HTTP/1.1\r\nX: y\r\nHost: b\r\nConnection: z\r\nY: z\r\n\r\n";
    let sent = forward(client, |how| ForwardRequest {
        host: HostLine::Replace("c:81"),
        ..how
    });
    assert_eq!(sent, "GET / HTTP/1.1\r\nHost: c:81\r\nX: y\r\nY: z\r\n\r\n");
}

#[test]
fn connection_lines_are_as_told() {
    let client = "GET http://a/ HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nTE: trailers\r\n\r\n";
    let with = |connection| forward(client, |how| ForwardRequest { connection, ..how });
    let tail = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n");
    assert_eq!(with(Connection::Implied), tail("Connection: TE\r\nTE: trailers\r\n"));
    assert_eq!(
        with(Connection::Close),
        tail("Connection: close, TE\r\nTE: trailers\r\n")
    );
    assert_eq!(
        with(Connection::KeepAlive),
        tail("Connection: keep-alive, TE\r\nTE: trailers\r\n")
    );
    assert_eq!(
        with(Connection::Upgrade),
        tail("Connection: Upgrade, TE\r\nTE: trailers\r\nUpgrade: websocket\r\n")
    );
    let plain = forward("GET http://a/ HTTP/1.1\r\n\r\n", |how| ForwardRequest {
        connection: Connection::Upgrade,
        ..how
    });
    assert_eq!(plain, "GET / HTTP/1.1\r\n\r\n");
}

#[test]
fn a_parent_gets_absolute_form_and_more_lines() {
    let client = "GET HTTP://u:p@[::1]:81?q HTTP/1.1\r\nX: y\r\n\r\n";
    let head = parse_request(client.as_bytes(), &Limits::default()).unwrap().unwrap();
    let Target::Absolute(url) = head.target().unwrap() else {
        panic!("no URL")
    };
    let mut extra = Vec::new();
    put_field(&mut extra, "Proxy-Authorization", b"Basic Og==").unwrap();
    let mut out = Vec::new();
    let how = ForwardRequest {
        host: HostLine::Replace(url.authority.text),
        extra: &extra,
        ..ForwardRequest::new(TargetLine::Absolute(&url))
    };
    head.forward(&how, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "GET http://[::1]:81/?q HTTP/1.1\r\nHost: [::1]:81\r\nX: y\r\nProxy-Authorization: Basic Og==\r\n\r\n"
    );
}

#[test]
fn a_line_that_would_be_two_is_refused() {
    let mut out = Vec::new();
    assert_eq!(put_field(&mut out, "X", b"a\r\nY: b"), Err(crate::InvalidField));
    assert_eq!(put_field(&mut out, "X ", b"a"), Err(crate::InvalidField));
    assert_eq!(put_field(&mut out, "", b"a"), Err(crate::InvalidField));
    assert!(out.is_empty());
    put_field(&mut out, "X", " ü ".as_bytes()).unwrap();
    assert_eq!(out, "X: ü\r\n".as_bytes());
}

#[test]
fn response_framing_changes_as_told() {
    let forward = |origin: &[u8], body| {
        let head = parse_response(origin, &Limits::default(), Awaits::Other)
            .unwrap()
            .unwrap();
        let mut out = Vec::new();
        head.forward(
            &ForwardResponse {
                connection: Connection::Close,
                body,
                extra: b"X: y\r\n",
            },
            &mut out,
        );
        String::from_utf8(out).unwrap()
    };
    let tail = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}X: y\r\n\r\n");
    let (chunked, until_close) = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    );
    assert_eq!(forward(chunked, BodyOut::UntilClose), tail("Connection: close\r\n"));
    assert_eq!(
        forward(until_close, BodyOut::Chunked),
        tail("Transfer-Encoding: chunked\r\nConnection: close\r\n")
    );
    assert_eq!(forward(until_close, BodyOut::AsReceived), tail("Connection: close\r\n"));
}

#[test]
fn a_switch_of_protocols_goes_on_only_if_told() {
    let origin = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nA: b\r\n\r\n";
    let head = parse_response(origin, &Limits::default(), Awaits::Other)
        .unwrap()
        .unwrap();
    let mut out = Vec::new();
    head.forward(
        &ForwardResponse {
            connection: Connection::Upgrade,
            ..ForwardResponse::default()
        },
        &mut out,
    );
    assert_eq!(
        out,
        b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
}
