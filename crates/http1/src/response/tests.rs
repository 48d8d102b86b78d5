use super::*;
use crate::cases::{self, ResponseExpect};
use crate::{BodyScanner, Connection, ForwardResponse, properties};

fn parse(bytes: &[u8]) -> ResponseHead<'_> {
    parse_response(bytes, &Limits::default(), Awaits::Other)
        .unwrap()
        .expect("complete")
}

fn awaits(method: &str) -> Awaits {
    if method == "HEAD" { Awaits::Head } else { Awaits::Other }
}

/// What a proxy does with an origin's bytes: those for the client, and which connections stay; `None` for 502.
fn proxied(mut origin: &[u8], closes: bool, awaits: Awaits) -> Option<(Vec<u8>, bool, bool)> {
    let limits = Limits::default();
    let mut client = Vec::new();
    loop {
        let head = parse_response(origin, &limits, awaits).ok()?.expect("a complete head");
        if head.is_interim() {
            head.forward(&ForwardResponse::default(), &mut client);
            origin = &origin[head.len..];
            continue;
        }
        let body = &origin[head.len..];
        let mut scanner = BodyScanner::new(head.framing, &limits);
        let scan = scanner.scan(body).ok()?;
        assert_eq!(scan.forward, body.len(), "bytes after the body");
        assert!(
            if closes { scanner.finish().is_ok() } else { scan.done },
            "an incomplete body"
        );
        let keeps_client = !head.taints && head.framing != BodyFraming::UntilClose;
        let connection = if keeps_client {
            Connection::Implied
        } else {
            Connection::Close
        };
        head.forward(
            &ForwardResponse {
                connection,
                ..ForwardResponse::default()
            },
            &mut client,
        );
        client.extend_from_slice(body);
        return Some((client, keeps_client, head.keep_alive));
    }
}

#[test]
fn every_case_is_refused_or_forwarded_as_it_must_be() {
    let cases = cases::responses();
    assert!(cases.len() > 80, "{}", cases.len());
    for case in cases {
        match (proxied(&case.origin, case.closes, awaits(case.method)), case.expect) {
            (
                Some(got),
                ResponseExpect::Forward {
                    client,
                    keeps_client,
                    keeps_upstream,
                },
            ) => {
                assert_eq!(
                    String::from_utf8_lossy(&got.0),
                    String::from_utf8_lossy(&client),
                    "{}",
                    case.name
                );
                assert_eq!((got.1, got.2), (keeps_client, keeps_upstream), "{}", case.name);
            }
            (None, ResponseExpect::BadGateway) => {}
            (got, expected) => panic!("{}: {got:?} instead of {expected:?}", case.name),
        }
    }
}

#[test]
fn every_case_parses_the_same_at_every_split() {
    for case in cases::responses() {
        properties::response(&case.origin);
    }
}

#[test]
fn interim_responses_are_told_from_switching() {
    assert!(parse(b"HTTP/1.1 100 Continue\r\n\r\n").is_interim());
    assert!(parse(b"HTTP/1.1 103 Early Hints\r\n\r\n").is_interim());
    let switching = parse(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(!switching.is_interim());
    assert_eq!(switching.upgrade(), Some(&b"websocket"[..]));
    assert_eq!(switching.framing, BodyFraming::None);
}

#[test]
fn a_tunnel_has_no_body_and_a_refused_one_has_cu_02() {
    let connect = |bytes| {
        parse_response(bytes, &Limits::default(), Awaits::Connect)
            .unwrap()
            .unwrap()
            .framing
    };
    assert_eq!(
        connect(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        BodyFraming::None
    );
    assert_eq!(
        connect(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        BodyFraming::None
    );
    assert_eq!(
        connect(b"HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\n"),
        BodyFraming::Length(5)
    );
}

#[test]
fn a_put_right_head_reports_the_bytes_it_took() {
    let bytes = b"HTTP/1.1 200 OK\nX : a\n b\nContent-Length:\t2\n\nhi";
    let head = parse(bytes);
    assert_eq!(head.len, bytes.len() - 2);
    assert_eq!(head.framing, BodyFraming::Length(2));
    assert_eq!(head.reason(), b"OK");
    assert_eq!(head.field("x").unwrap().value, b"a b");
}

#[test]
fn a_removed_field_stays_here() {
    let mut head = parse(b"HTTP/1.1 200 OK\r\nVia: a\r\nX: y\r\nvia: b\r\nContent-Length: 0\r\n\r\n");
    assert!(head.remove("Via"));
    let mut out = Vec::new();
    head.forward(&ForwardResponse::default(), &mut out);
    assert_eq!(out, b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn limits_hold_to_the_byte() {
    let bytes = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
    let limit = |head_max, fields_max| Limits {
        head_max,
        fields_max,
        ..Limits::default()
    };
    let parse = |limits: Limits| parse_response(bytes, &limits, Awaits::Other).map(|head| head.is_some());
    assert_eq!(parse(limit(25, 1)), Ok(true));
    assert_eq!(parse(limit(24, 1)), Err(ResponseError::TooLarge));
    assert_eq!(parse(limit(25, 0)), Err(ResponseError::TooManyFields));
}

#[test]
fn many_fields_parse_clean_and_put_right() {
    for end in ["\r\n", "\n"] {
        let lines: String = (0..300).map(|n| format!("X-{n}: y{end}")).collect();
        let text = format!("HTTP/1.1 200 OK{end}{lines}{end}");
        assert_eq!(parse(text.as_bytes()).fields().count(), 300);
    }
}
