use super::*;
use crate::cases::{self, RequestExpect};
use crate::{BodyScanner, ForwardRequest, HostLine, TargetLine, properties};

fn parse(bytes: &[u8]) -> RequestHead<'_> {
    parse_request(bytes, &Limits::default()).unwrap().expect("complete")
}

fn refusal(bytes: &[u8]) -> RequestError {
    parse_request(bytes, &Limits::default()).unwrap_err()
}

/// What a proxy does with a client's bytes: the bytes for the origin, or the status of the refusal.
fn proxied(client: &[u8]) -> Result<Vec<u8>, u16> {
    let limits = Limits::default();
    let head = parse_request(client, &limits)
        .map_err(RequestError::status)?
        .expect("a complete head");
    let Target::Absolute(url) = head.target().map_err(TargetError::status)? else {
        panic!("no URL");
    };
    let body = &client[head.len..];
    let scan = BodyScanner::new(head.framing, &limits)
        .scan(body)
        .map_err(crate::BodyError::request_status)?;
    assert!(scan.done, "an incomplete body");
    assert_eq!(scan.forward, body.len(), "bytes after the body");
    let host = match head.host_authority() {
        Some(_) => HostLine::AsSent,
        None => HostLine::Replace(url.authority.text),
    };
    let mut out = Vec::new();
    head.forward(
        &ForwardRequest {
            host,
            ..ForwardRequest::new(TargetLine::Origin(&url))
        },
        &mut out,
    );
    out.extend_from_slice(body);
    Ok(out)
}

#[test]
fn every_case_is_refused_or_forwarded_as_it_must_be() {
    let cases = cases::requests();
    assert!(cases.len() > 150, "{}", cases.len());
    for case in cases {
        match (proxied(&case.client), case.expect) {
            (Ok(sent), RequestExpect::Forward(origin)) => {
                assert_eq!(
                    String::from_utf8_lossy(&sent),
                    String::from_utf8_lossy(&origin),
                    "{}",
                    case.name
                );
            }
            (Err(status), RequestExpect::Refuse(expected)) => assert_eq!(status, expected, "{}", case.name),
            (got, expected) => panic!("{}: {got:?} instead of {expected:?}", case.name),
        }
    }
}

#[test]
fn cases_have_names_of_their_own() {
    let mut names: Vec<_> = cases::requests().iter().map(|case| case.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn every_case_parses_the_same_at_every_split() {
    for case in cases::requests() {
        properties::request(&case.client);
    }
}

#[test]
fn a_head_in_pieces_asks_for_more() {
    let bytes = b"\r\nGET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n";
    for len in 0..bytes.len() {
        assert!(
            parse_request(&bytes[..len], &Limits::default()).unwrap().is_none(),
            "{len}"
        );
    }
    assert_eq!(parse(bytes).len, bytes.len());
}

#[test]
fn the_next_request_in_the_buffer_is_left_alone() {
    let head = parse(b"GET http://a/ HTTP/1.1\r\n\r\nGET http://b/ HTTP/1.1\r\n\r\n");
    assert_eq!(head.len, 26);
    assert_eq!(head.raw_target, "http://a/");
}

#[test]
fn persistence_follows_version_and_connection_options_h1_08() {
    let keeps = |version: &str, lines: &str| {
        parse_request(format!("GET / {version}\r\n{lines}\r\n").as_bytes(), &Limits::default())
            .unwrap()
            .unwrap()
            .keep_alive
    };
    assert!(keeps("HTTP/1.1", ""));
    assert!(keeps("HTTP/1.1", "Connection: x\r\n"));
    assert!(!keeps("HTTP/1.1", "Connection: close\r\n"));
    assert!(!keeps("HTTP/1.1", "connection: x\r\nCONNECTION: , CLOSE\r\n"));
    assert!(!keeps("HTTP/1.1", "Proxy-Connection: close\r\n"));
    assert!(!keeps("HTTP/1.1", "Connection: keep-alive, close\r\n"));
    assert!(!keeps("HTTP/1.0", ""));
    assert!(keeps("HTTP/1.0", "Connection: Keep-Alive, X-Foo\r\n"));
    assert!(keeps("HTTP/1.0", "Proxy-Connection: keep-alive\r\n"));
    assert!(!keeps("HTTP/1.0", "Keep-Alive: 300\r\n"));
}

#[test]
fn expect_continue_needs_http_1_1_and_a_body_h1_12() {
    let expects = |bytes: &[u8]| parse(bytes).expect_continue;
    assert!(expects(
        b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n"
    ));
    assert!(expects(
        b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    assert!(!expects(
        b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"
    ));
    assert!(!expects(b"GET / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n"));
    assert!(!expects(
        b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    ));
    assert!(!expects(b"POST / HTTP/1.1\r\nExpect: x\r\nContent-Length: 1\r\n\r\n"));
}

#[test]
fn upgrade_needs_its_connection_option_and_http_1_1() {
    let upgrade = |text: &str| {
        let bytes = text.as_bytes().to_vec();
        parse(&bytes).upgrade.map(<[u8]>::to_vec)
    };
    let websocket = Some(b"websocket".to_vec());
    assert_eq!(
        upgrade("GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: keep-alive, UPGRADE\r\n\r\n"),
        websocket
    );
    assert_eq!(upgrade("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"), None);
    assert_eq!(upgrade("GET / HTTP/1.1\r\nConnection: upgrade\r\n\r\n"), None);
    assert_eq!(
        upgrade("GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
        None
    );
    let two = "GET / HTTP/1.1\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n";
    assert_eq!(upgrade(two), None);
}

#[test]
fn the_host_field_is_reported_empty_or_absent_h1_18() {
    assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n").host, None);
    assert_eq!(parse(b"GET / HTTP/1.1\r\nHost:\r\n\r\n").host, Some(""));
    assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: \t \r\n\r\n").host_authority(), None);
    let head = parse(b"GET / HTTP/1.1\r\nHost: [::1]:81\r\n\r\n");
    let host = head.host_authority().unwrap();
    assert_eq!((host.host, host.is_ipv6, host.port), ("::1", true, Some(81)));
}

#[test]
fn host_can_be_required_of_http_1_1() {
    let limits = Limits {
        require_host: true,
        ..Limits::default()
    };
    let missing = parse_request(b"GET / HTTP/1.1\r\n\r\n", &limits).unwrap_err();
    assert_eq!((missing, missing.status()), (RequestError::MissingHost, 400));
    assert!(parse_request(b"GET / HTTP/1.0\r\n\r\n", &limits).unwrap().is_some());
    assert!(
        parse_request(b"GET / HTTP/1.1\r\nHost:\r\n\r\n", &limits)
            .unwrap()
            .is_some()
    );
}

#[test]
fn credentials_are_found() {
    let head = parse(b"GET / HTTP/1.1\r\nauthorization: Bearer x\r\nProxy-Authorization: Basic Og==\r\n\r\n");
    assert_eq!(head.authorization, Some(&b"Bearer x"[..]));
    assert_eq!(head.proxy_authorization, Some(&b"Basic Og=="[..]));
}

#[test]
fn fields_tell_what_stays_here() {
    let mut head = parse(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a\r\nX-B: 1\r\nX-A: 2\r\nx-b: 3\r\nContent-Length: 0\r\n\r\n",
    );
    let stays = |head: &RequestHead<'_>| head.fields().map(|field| field.stays).collect::<Vec<_>>();
    assert_eq!(stays(&head), [false, true, false, true, false, true]);
    assert_eq!(head.field("x-B").unwrap().value, b"1");
    assert!(head.field("X").is_none());
    assert!(head.remove("X-b"));
    assert!(!head.remove("X"));
    assert_eq!(stays(&head), [false, true, true, true, true, true]);
}

#[test]
fn heads_beyond_the_stack_array_parse_too() {
    for count in [0, 1, 95, 96, 97, 200, 512] {
        let lines: String = (0..count)
            .map(|n| format!("X-{n}: y\r\nConnection: x-{n}\r\n"))
            .take(count)
            .collect();
        let text = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        match parse_request(
            text.as_bytes(),
            &Limits {
                fields_max: 1024,
                ..Limits::default()
            },
        ) {
            Ok(head) => {
                let head = head.unwrap();
                assert_eq!(head.fields().count(), 2 * count);
                assert!(head.fields().all(|field| field.stays));
            }
            // Only so many fields can be named.
            Err(error) => assert!(error == RequestError::Connection && count > MAX_NAMED),
        }
    }
}

#[test]
fn limits_hold_to_the_byte() {
    let bytes = b"GET / HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n";
    let limits = Limits {
        head_max: 30,
        fields_max: 2,
        ..Limits::default()
    };
    assert!(parse_request(bytes, &limits).unwrap().is_some());
    let smaller = Limits { head_max: 29, ..limits };
    assert_eq!(parse_request(bytes, &smaller).unwrap_err(), RequestError::TooLarge);
    assert_eq!(
        parse_request(&bytes[..29], &smaller).unwrap_err(),
        RequestError::TooLarge
    );
    assert!(parse_request(&bytes[..28], &smaller).unwrap().is_none());
    let fewer = Limits {
        fields_max: 1,
        ..limits
    };
    assert_eq!(parse_request(bytes, &fewer).unwrap_err().status(), 431);
}

#[test]
fn a_bare_lf_is_refused_before_the_head_is_complete() {
    assert_eq!(refusal(b"GET / HTTP/1.1\nHost: a\n"), RequestError::BareLf);
    assert_eq!(refusal(b"GET / HTTP/1.1\r\nHost: a\n"), RequestError::BareLf);
}

#[test]
fn an_unspoken_version_is_told_from_nonsense_once_it_is_complete() {
    let line = b"GET / HTTP/3.0\r\n";
    for len in 1..line.len() {
        let early = parse_request(&line[..len], &Limits::default());
        assert!(matches!(early, Ok(None)), "{len}: {early:?}");
    }
    assert_eq!(refusal(line).status(), 505);
    assert_eq!(refusal(b"GET / HTTP/3.0x").status(), 400);
    assert_eq!(refusal(b"GET / HTTQ").status(), 400);
}
