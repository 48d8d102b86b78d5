use super::*;

fn request(bytes: &[u8]) -> Result<Option<(Command, String, usize)>, RequestError> {
    let parsed = parse_request(bytes)?;
    Ok(parsed.map(|(request, len)| (request.command, request.target.to_string(), len)))
}

fn target(text: &str) -> Request<'static> {
    Request {
        command: Command::Connect,
        target: text.parse().unwrap(),
        user_id: b"",
    }
}

#[test]
fn the_examples_of_both_memoranda_parse() {
    assert_eq!(
        request(b"\x04\x01\x00\x50\x42\x66\x07\x63Fred\0"),
        Ok(Some((Command::Connect, "66.102.7.99:80".to_owned(), 13)))
    );
    assert_eq!(
        request(b"\x04\x01\x01\xbb\0\0\0\x01Fred\0o.Example\0tunnel"),
        Ok(Some((Command::Connect, "o.example:443".to_owned(), 23)))
    );
    assert_eq!(
        request(b"\x04\x02\x00\x15\xc0\0\x02\x01\0"),
        Ok(Some((Command::Bind, "192.0.2.1:21".to_owned(), 9)))
    );
}

#[test]
fn every_beginning_of_a_request_asks_for_more() {
    for whole in [
        &b"\x04\x01\x00\x50\x42\x66\x07\x63Fred\0"[..],
        b"\x04\x01\x00\x50\0\0\0\x09Fred\0o.example\0",
    ] {
        for len in 0..whole.len() {
            assert_eq!(parse_request(&whole[..len]), Ok(None), "{len} bytes");
        }
        assert!(parse_request(whole).unwrap().is_some());
    }
}

#[test]
fn only_0_0_0_x_means_a_domain() {
    assert_eq!(
        request(b"\x04\x01\x00\x50\0\0\0\0\0"),
        Ok(Some((Command::Connect, "0.0.0.0:80".to_owned(), 9)))
    );
    assert_eq!(
        request(b"\x04\x01\x00\x50\0\0\x01\0\0"),
        Ok(Some((Command::Connect, "0.0.1.0:80".to_owned(), 9)))
    );
    assert_eq!(request(b"\x04\x01\x00\x50\0\0\0\xff\0"), Ok(None));
}

#[test]
fn an_address_in_the_place_of_a_domain_is_that_address() {
    assert_eq!(
        request(b"\x04\x01\x00\x50\0\0\0\x01\x00::ffff:10.0.0.1\0").map(|parsed| parsed.unwrap().1),
        Ok("10.0.0.1:80".to_owned())
    );
}

#[test]
fn a_user_id_has_at_most_511_bytes() {
    let of = |length| [b"\x04\x01\x00\x50\x0a\0\0\x01", &*vec![b'u'; length]].concat();
    let mut longest = of(MAX_USER_ID);
    assert_eq!(parse_request(&longest), Ok(None));
    longest.push(0);
    assert_eq!(parse_request(&longest).unwrap().unwrap().0.user_id.len(), 511);
    // It is not waited for: a NUL cannot come in time any more.
    assert_eq!(parse_request(&of(512)), Err(RequestError::UserIdTooLong));
}

#[test]
fn a_domain_has_one_to_255_bytes() {
    let of = |name: &[u8]| [b"\x04\x01\x00\x50\0\0\0\x01\0", name].concat();
    assert_eq!(
        parse_request(&of(b"\0")),
        Err(RequestError::Host(ParseHostError::Empty))
    );
    assert_eq!(parse_request(&of(&[b'a'; 255])), Ok(None));
    assert_eq!(parse_request(&of(&[b'a'; 256])), Err(RequestError::DomainTooLong));
    let mut long = of(&[b'a'; 255]);
    long.push(0);
    assert_eq!(parse_request(&long), Err(RequestError::Host(ParseHostError::TooLong)));
    for name in ["a b\0", "a/b\0", "\u{0}", "[::1]\0"] {
        assert!(
            matches!(parse_request(&of(name.as_bytes())), Err(RequestError::Host(_))),
            "{name:?}"
        );
    }
    assert!(matches!(parse_request(&of(b"\xff\xfe\0")), Err(RequestError::Host(_))));
}

#[test]
fn another_command_is_read_to_its_end_and_refused() {
    assert_eq!(parse_request(b"\x04\x03\x00\x50\x0a\0\0\x01u"), Ok(None));
    assert_eq!(
        parse_request(b"\x04\x03\x00\x50\x0a\0\0\x01u\0"),
        Err(RequestError::Command { code: 3 })
    );
    assert_eq!(parse_request(b"\x05"), Err(RequestError::Version { version: 5 }));
}

#[test]
fn requests_are_written_as_they_are_read() {
    let mut out = Vec::new();
    let request = Request {
        user_id: b"Fred",
        ..target("192.0.2.1:80")
    };
    put_request(&request, &mut out).unwrap();
    assert_eq!(out, b"\x04\x01\x00\x50\xc0\0\x02\x01Fred\0");
    out.clear();
    put_request(&target("o.example:443"), &mut out).unwrap();
    assert_eq!(out, b"\x04\x01\x01\xbb\0\0\0\x01\0o.example\0");
}

#[test]
fn what_socks4_cannot_say_is_not_written() {
    let mut out = b"kept".to_vec();
    for text in ["[2001:db8::1]:80", "0.0.0.7:80"] {
        assert!(
            matches!(
                put_request(&target(text), &mut out),
                Err(PutRequestError::Address { .. })
            ),
            "{text}"
        );
    }
    for user_id in [&b"a\0b"[..], &[b'u'; 512]] {
        let request = Request {
            user_id,
            ..target("192.0.2.1:80")
        };
        assert_eq!(
            put_request(&request, &mut out),
            Err(PutRequestError::UserId { length: user_id.len() })
        );
    }
    let mut request = target("[::1]:80");
    request.target.host = Host::Domain("a".repeat(256).into());
    assert_eq!(
        put_request(&request, &mut out),
        Err(PutRequestError::DomainTooLong(DomainTooLong { length: 256 }))
    );
    assert_eq!(out, b"kept");
}

#[test]
fn a_reply_has_its_port_before_its_address_sk_08() {
    let mut out = Vec::new();
    let bound = SocketAddrV4::new([192, 0, 2, 1].into(), 0x1234);
    let reply = Reply {
        code: ReplyCode::Granted,
        bound,
    };
    reply.put(&mut out);
    assert_eq!(out, [0, 90, 0x12, 0x34, 192, 0, 2, 1]);
    assert_eq!(parse_reply(&out), Ok(Some((bound, REPLY))));
    for len in 0..out.len() {
        assert_eq!(parse_reply(&out[..len]), Ok(None), "{len} bytes");
    }
}

#[test]
fn a_refusal_has_a_zeroed_address_and_is_known_by_its_code() {
    for code in [ReplyCode::Rejected, ReplyCode::NoIdentd, ReplyCode::OtherUser] {
        let mut out = Vec::new();
        Reply::new(code).put(&mut out);
        assert_eq!(out, [0, code.code(), 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse_reply(&out[..2]), Err(ReplyError::Refused(code)));
    }
}

#[test]
fn other_replies_are_refused() {
    assert!(parse_reply(b"\x04\x5a\0\0\0\0\0\0").unwrap().is_some());
    assert_eq!(parse_reply(b"\x05"), Err(ReplyError::Version { version: 5 }));
    assert_eq!(parse_reply(b"\0\0"), Err(ReplyError::UnknownCode { code: 0 }));
    assert_eq!(parse_reply(b"\0\x5e"), Err(ReplyError::UnknownCode { code: 94 }));
}
