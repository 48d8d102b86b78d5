use std::net::IpAddr;

use sluice_addr::{Host, ParseHostError, Upstream};

use super::*;
use crate::DomainTooLong;

fn target(bytes: &[u8]) -> Result<String, RequestError> {
    let (request, len) = parse_request(bytes)?.expect("complete");
    assert_eq!(len, bytes.len());
    Ok(request.target.to_string())
}

#[test]
fn methods_are_offered_and_chosen() {
    let (greeting, len) = parse_greeting(b"\x05\x02\x00\x02next").unwrap().unwrap();
    assert_eq!((greeting.methods, len), (&b"\x00\x02"[..], 4));
    assert!(greeting.offers(Method::NoAuth) && greeting.offers(Method::UserPassword));
    let (greeting, len) = parse_greeting(b"\x05\x00").unwrap().unwrap();
    assert_eq!((greeting.offers(Method::NoAuth), len), (false, 2));
    for len in 0..4 {
        assert_eq!(parse_greeting(&b"\x05\x02\x00\x02"[..len]), Ok(None), "{len} bytes");
    }
    assert_eq!(parse_greeting(b"\x04"), Err(GreetingError::Version { version: 4 }));

    let mut out = Vec::new();
    put_greeting(&[Method::NoAuth, Method::UserPassword], &mut out);
    put_choice(Some(Method::UserPassword), &mut out);
    put_choice(None, &mut out);
    assert_eq!(out, b"\x05\x02\x00\x02\x05\x02\x05\xff");
}

#[test]
fn only_a_method_that_was_offered_may_be_chosen() {
    let offered = [Method::NoAuth];
    assert_eq!(parse_choice(b"\x05\x00", &offered), Ok(Some((Method::NoAuth, 2))));
    assert_eq!(parse_choice(b"\x05", &offered), Ok(None));
    assert_eq!(parse_choice(b"\x05\xff", &offered), Err(ChoiceError::NoneAcceptable));
    for code in [1, 2, 0x80] {
        assert_eq!(
            parse_choice(&[5, code], &offered),
            Err(ChoiceError::NotOffered { code })
        );
    }
    assert_eq!(
        parse_choice(b"\x01", &offered),
        Err(ChoiceError::Version { version: 1 })
    );
}

#[test]
fn credentials_are_two_texts() {
    let bytes = "\u{1}\u{3}ü1\u{3}a:bnext".as_bytes();
    let (credentials, len) = parse_credentials(bytes).unwrap().unwrap();
    assert_eq!((credentials.user, credentials.password, len), ("ü1", "a:b", 9));
    for len in 0..9 {
        assert_eq!(parse_credentials(&bytes[..len]), Ok(None), "{len} bytes");
    }
    let empty = parse_credentials(b"\x01\x00\x00").unwrap().unwrap();
    assert_eq!((empty.0.user, empty.0.password, empty.1), ("", "", 3));
    assert_eq!(parse_credentials(b"\x01\x01\xff\x00"), Err(CredentialsError::NotUtf8));
    assert_eq!(
        parse_credentials(b"\x05"),
        Err(CredentialsError::Version { version: 5 })
    );
}

#[test]
fn credentials_of_255_bytes_fit_and_longer_ones_do_not() {
    let (longest, longer) = ("p".repeat(255), "p".repeat(256));
    let of = |user, password| Credentials { user, password };
    let mut out = Vec::new();
    put_credentials(&of(&longest, &longest), &mut out).unwrap();
    assert_eq!(out.len(), MAX_CREDENTIALS);
    assert_eq!(
        parse_credentials(&out),
        Ok(Some((of(&longest, &longest), MAX_CREDENTIALS)))
    );
    for (user, password) in [(&*longer, "p"), ("u", &*longer)] {
        let too_long = put_credentials(&of(user, password), &mut out).unwrap_err();
        assert_eq!((too_long.user, too_long.password), (user.len(), password.len()));
    }
    assert_eq!(out.len(), MAX_CREDENTIALS);
}

#[test]
fn debug_hides_the_password() {
    let (user, password) = ("u", "hunter2");
    assert!(!format!("{:?}", Credentials { user, password }).contains("hunter2"));
}

#[test]
fn a_status_is_zero_or_a_refusal() {
    let mut out = Vec::new();
    put_status(true, &mut out);
    put_status(false, &mut out);
    assert_eq!(out, b"\x01\x00\x01\x01");
    assert_eq!(parse_status(&out), Ok(Some(((), 2))));
    assert_eq!(parse_status(b"\x05\x00"), Ok(Some(((), 2))));
    assert_eq!(parse_status(&out[..1]), Ok(None));
    assert_eq!(parse_status(&out[2..]), Err(StatusError::Refused { status: 1 }));
}

#[test]
fn addresses_of_every_type_parse_in_every_split_sk_01() {
    for (bytes, shown) in [
        (&b"\x05\x01\x00\x01\xc0\0\x02\x01\0\x50"[..], "192.0.2.1:80"),
        (
            b"\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50",
            "[2001:db8::1]:80",
        ),
        (b"\x05\x01\x00\x03\x09o.Example\x01\xbb", "o.example:443"),
        (
            b"\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\x01\0\x50",
            "10.0.0.1:80",
        ),
        (b"\x05\x01\x00\x03\x08127.0.0.1\0\x50", ""),
        (b"\x05\x01\x00\x03\x09127.0.0.1\0\x50", "127.0.0.1:80"),
        (b"\x05\x01\x00\x03\x0f::ffff:10.0.0.1\0\x50", "10.0.0.1:80"),
        (b"\x05\x01\x77\x01\0\0\0\0\0\0", "0.0.0.0:0"),
    ] {
        if shown.is_empty() {
            // The length is a byte short: what is left over is not the request's.
            assert_eq!(parse_request(bytes).unwrap().unwrap().1, bytes.len() - 1);
            continue;
        }
        assert_eq!(target(bytes).as_deref(), Ok(shown));
        for len in 0..bytes.len() {
            assert_eq!(parse_request(&bytes[..len]), Ok(None), "{shown}, {len} bytes");
        }
        let longer = [bytes, b"next"].concat();
        assert_eq!(parse_request(&longer).unwrap().unwrap().1, bytes.len());
    }
}

#[test]
fn malformed_domains_are_refused_once_all_is_there_sk_01() {
    let of = |name: &[u8]| {
        [
            b"\x05\x01\x00\x03",
            &[u8::try_from(name.len()).unwrap()][..],
            name,
            b"\0\x50",
        ]
        .concat()
    };
    for (name, why) in [
        (&b""[..], ParseHostError::Empty),
        (b".", ParseHostError::Empty),
        (b"a b", ParseHostError::Invalid),
        (b"a\0b", ParseHostError::Invalid),
        (b"[::1]", ParseHostError::Invalid),
        (b"\xff\xff", ParseHostError::Invalid),
        (&[b'a'; 64], ParseHostError::TooLong),
        (&[b'a'; 255], ParseHostError::TooLong),
    ] {
        let bytes = of(name);
        let error = RequestError::Host(why);
        assert_eq!(parse_request(&bytes), Err(error), "{name:?}");
        assert_eq!(error.reply(), Some(ReplyCode::GeneralFailure));
        assert_eq!(parse_request(&bytes[..bytes.len() - 1]), Ok(None), "{name:?}");
    }
}

#[test]
fn other_commands_types_and_versions_are_refused() {
    let command = RequestError::Command { code: 0xf0 };
    assert_eq!(parse_request(b"\x05\xf0\x00\x01\x0a\0\0\x01\0\x50"), Err(command));
    assert_eq!(parse_request(b"\x05\xf0\x00\x01\x0a\0\0\x01\0"), Ok(None));
    let kind = RequestError::AddressType { code: 2 };
    assert_eq!(parse_request(b"\x05\x01\x00\x02"), Err(kind));
    let version = RequestError::Version { version: 4 };
    assert_eq!(parse_request(b"\x04"), Err(version));
    assert_eq!(
        [command, kind, version].map(RequestError::reply),
        [
            Some(ReplyCode::CommandNotSupported),
            Some(ReplyCode::AddressTypeNotSupported),
            None
        ]
    );
}

#[test]
fn requests_are_written_as_they_are_read() {
    for (text, bytes) in [
        ("192.0.2.1:80", &b"\x05\x02\x00\x01\xc0\0\x02\x01\0\x50"[..]),
        (
            "[2001:db8::1]:80",
            b"\x05\x02\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50",
        ),
        ("o.example:443", b"\x05\x02\x00\x03\x09o.example\x01\xbb"),
    ] {
        let request = Request {
            command: Command::Bind,
            target: text.parse().unwrap(),
        };
        let mut out = Vec::new();
        put_request(&request, &mut out).unwrap();
        assert_eq!(out, bytes);
        assert_eq!(parse_request(&out), Ok(Some((request, bytes.len()))));
    }
}

#[test]
fn the_longest_name_fits_and_what_is_longer_leaves_no_trace() {
    let mut request = Request {
        command: Command::Connect,
        target: Upstream {
            host: Host::parse(&"a.".repeat(127)).unwrap(),
            port: 1,
        },
    };
    let mut out = Vec::new();
    put_request(&request, &mut out).unwrap();
    assert_eq!(out.len(), 5 + 253 + 2);
    request.target.host = Host::Domain("a".repeat(256).into());
    assert_eq!(put_request(&request, &mut out), Err(DomainTooLong { length: 256 }));
    assert_eq!(out.len(), 5 + 253 + 2);
}

#[test]
fn a_udp_client_may_not_know_its_address() {
    let of = |host: &str, port| {
        let request = Request {
            command: Command::UdpAssociate,
            target: Upstream {
                host: Host::parse(host).unwrap(),
                port,
            },
        };
        request.udp_client().map(|client| (client.ip, client.port))
    };
    let known = Some(IpAddr::from([192, 0, 2, 1]));
    assert_eq!(of("192.0.2.1", 53), Ok((known, Some(53))));
    assert_eq!(of("192.0.2.1", 0), Ok((known, None)));
    assert_eq!(of("0.0.0.0", 53), Ok((None, Some(53))));
    assert_eq!(of("::", 0), Ok((None, None)));
    assert_eq!(of("0", 0), Ok((None, None)));
    for host in ["o.example", "00", "1"] {
        assert_eq!(of(host, 0), Err(DomainOfClient), "{host}");
    }
    assert_eq!(target(b"\x05\x03\x00\x03\x010\0\0").as_deref(), Ok("0:0"));
}

#[test]
fn replies_are_written_with_the_bound_address() {
    for (bound, bytes) in [
        ("192.0.2.1:258", &b"\x05\x00\x00\x01\xc0\0\x02\x01\x01\x02"[..]),
        ("[::ffff:192.0.2.1]:258", b"\x05\x00\x00\x01\xc0\0\x02\x01\x01\x02"),
        (
            "[2001:db8::1]:258",
            b"\x05\x00\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\x02",
        ),
    ] {
        let mut out = Vec::new();
        Reply::succeeded(bound.parse().unwrap()).put(&mut out);
        assert_eq!(out, bytes, "{bound}");
        let (parsed, len) = parse_reply(&out).unwrap().unwrap();
        assert_eq!((parsed, len), (Some(bound.parse().unwrap()), bytes.len()));
        for len in 0..bytes.len() {
            assert_eq!(parse_reply(&out[..len]), Ok(None), "{bound}, {len} bytes");
        }
    }
}

#[test]
fn refusals_have_their_number_and_no_address() {
    for (code, reply) in [
        (1, ReplyCode::GeneralFailure),
        (2, ReplyCode::NotAllowed),
        (3, ReplyCode::NetworkUnreachable),
        (4, ReplyCode::HostUnreachable),
        (5, ReplyCode::ConnectionRefused),
        (6, ReplyCode::TtlExpired),
        (7, ReplyCode::CommandNotSupported),
        (8, ReplyCode::AddressTypeNotSupported),
        (9, ReplyCode::TimedOut),
    ] {
        let mut out = Vec::new();
        Reply::refused(reply).put(&mut out);
        assert_eq!(out, [5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse_reply(&out[..2]), Err(ReplyError::Refused(reply)));
    }
    assert_eq!(parse_reply(b"\x05\x0a"), Err(ReplyError::UnknownCode { code: 10 }));
    assert_eq!(parse_reply(b"\x00"), Err(ReplyError::Version { version: 0 }));
    assert_eq!(
        parse_reply(b"\x05\x00\x00\x05"),
        Err(ReplyError::AddressType { code: 5 })
    );
}

#[test]
fn a_bound_domain_that_is_none_is_passed_over() {
    assert_eq!(parse_reply(b"\x05\x00\x00\x03\x00\x00"), Ok(None));
    assert_eq!(parse_reply(b"\x05\x00\x00\x03\x00\x00\x00next"), Ok(Some((None, 7))));
    assert_eq!(
        parse_reply(b"\x05\x00\x00\x03\x01a\x00\x01"),
        Ok(Some((Some("a:1".parse().unwrap()), 8)))
    );
}
