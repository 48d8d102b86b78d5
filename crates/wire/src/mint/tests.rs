use std::fs;

use bytes::{BufMut, BytesMut};

use super::*;

/// The example of the protocol: `example.com`, http, tls_server, no certificate.
const EXAMPLE: &[u8] = b"\x83\x01\xabexample.com\x02\x00\x04\x00";

fn put(request: &MintRequest, form: Form) -> BytesMut {
    let mut out = BytesMut::new();
    put_request(&mut out, request, form).unwrap();
    out
}

fn put_answer(response: &MintResponse, form: Form) -> BytesMut {
    let mut out = BytesMut::new();
    put_response(&mut out, response, form).unwrap();
    out
}

fn datagram(message: &[u8]) -> Result<MintRequest, Problem> {
    MintRequest::take(message, Form::Datagram).map_err(|rejected| rejected.problem)
}

fn minted() -> MintResponse {
    MintResponse {
        id: None,
        host: "a.example".to_owned(),
        service: Service::Smtp,
        usage: Usage::TlsServerTongsuo,
        outcome: Ok(Minted {
            chain: "PEM\n".to_owned(),
            key: PrivateKey::Der(vec![0x30, 0x00]),
            ttl: 86_400,
        }),
    }
}

fn error_of(code: ErrorCode, text: &str) -> MintResponse {
    MintResponse {
        id: None,
        host: "example.com".to_owned(),
        service: Service::Http,
        usage: Usage::TlsServer,
        outcome: Err(MintError {
            code,
            text: text.to_owned(),
        }),
    }
}

#[test]
fn the_example_is_written_and_read_byte_for_byte() {
    let request = MintRequest::new("example.com");
    assert_eq!(put(&request, Form::Datagram), EXAMPLE);
    assert_eq!(datagram(EXAMPLE).unwrap(), request);
}

#[test]
fn the_documented_messages_are_ours() {
    let path = "../../doc/mint-protocol.md";
    let doc = fs::read_to_string(path).unwrap();
    let mut request = MintRequest::new("example.com");
    request.id = Some(1);
    for form in [Form::Datagram, Form::Stream] {
        let bytes = put(&request, form)
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect::<Vec<_>>();
        assert!(doc.contains(&format!("`{}`", bytes.join(" "))), "{}", bytes.join(" "));
    }
    for code in ErrorCode::ALL {
        assert!(
            doc.contains(&format!("| {} | `{}` |", code.id(), code.name())),
            "{code:?}"
        );
    }
}

#[test]
fn a_request_with_a_certificate_has_it_last() {
    let mut request = MintRequest::new("192.0.2.7");
    request.service = Service::Imap;
    request.usage = Usage::TlcpServerEncryption;
    request.cert = Some(Certificate::Der(vec![1, 2, 3]));
    let expected = b"\x84\x01\xa9192.0.2.7\x02\x02\x04\x0c\x03\xc4\x03\x01\x02\x03";
    assert_eq!(put(&request, Form::Datagram), &expected[..]);
    assert_eq!(datagram(expected).unwrap(), request);
}

#[test]
fn a_response_is_written_and_read_byte_for_byte() {
    let expected = b"\x86\x01\xa9a.example\x02\x01\x06\x01\x03\xa4PEM\n\x04\xc4\x02\x30\x00\x05\xce\x00\x01\x51\x80";
    assert_eq!(put_answer(&minted(), Form::Datagram), &expected[..]);
    assert_eq!(MintResponse::take(expected, Form::Datagram).unwrap(), minted());
}

#[test]
fn a_stream_has_our_own_keys_and_lengths() {
    let mut request = MintRequest::new("a");
    request.id = Some(300);
    let expected = b"\x00\x00\x00\x0e\x85\x11\x01\x10\xcd\x01\x2c\x01\xa1a\x02\x00\x04\x00";
    assert_eq!(put(&request, Form::Stream), &expected[..]);
    let message = take_frame(&mut BytesMut::from(&expected[..])).unwrap().unwrap();
    assert_eq!(MintRequest::take(&message, Form::Stream).unwrap(), request);

    let mut response = error_of(ErrorCode::NeverMint, "no");
    response.id = Some(1);
    let expected = b"\x00\x00\x00\x1c\x87\x11\x01\x10\x01\x01\xabexample.com\x02\x00\x06\x00\x12\x02\x13\xa2no";
    assert_eq!(put_answer(&response, Form::Stream), &expected[..]);
    let message = take_frame(&mut BytesMut::from(&expected[..])).unwrap().unwrap();
    assert_eq!(MintResponse::take(&message, Form::Stream).unwrap(), response);
}

#[test]
fn keys_may_be_names_in_any_spelling_and_values_too() {
    let message = b"\x84\xa4Host\xa1a\xa7SERVICE\xa4SMTP\xa5usage\xb5TLCP_server_signature\xa4cert\xa3pem";
    let request = datagram(message).unwrap();
    assert_eq!(request.service, Service::Smtp);
    assert_eq!(request.usage, Usage::TlcpServerSignature);
    assert_eq!(request.cert, Some(Certificate::Pem("pem".to_owned())));
    for (name, usage) in [
        ("tlsserver", Usage::TlsServer),
        ("TLS_SERVER_TONGSUO", Usage::TlsServerTongsuo),
        ("tlcp_server_sign", Usage::TlcpServerSignature),
        ("tlcpserverenc", Usage::TlcpServerEncryption),
    ] {
        let mut message = b"\x82\x01\xa1a\x04".to_vec();
        message.push(0xa0 | u8::try_from(name.len()).unwrap());
        message.extend_from_slice(name.as_bytes());
        assert_eq!(datagram(&message).unwrap().usage, usage, "{name}");
    }
}

#[test]
fn a_host_alone_is_a_request_and_may_be_bytes_or_a_number() {
    assert_eq!(datagram(b"\xaaexample.io").unwrap(), MintRequest::new("example.io"));
    assert_eq!(datagram(b"\x81\x01\xc4\x01a").unwrap().host, "a");
    assert_eq!(datagram(b"\x81\x01\xcd\x01\x00").unwrap().host, "256");
}

#[test]
fn integers_of_any_width_are_read() {
    for number in [
        &b"\x01"[..],
        b"\xcc\x01",
        b"\xcd\x00\x01",
        b"\xce\x00\x00\x00\x01",
        b"\xcf\x00\x00\x00\x00\x00\x00\x00\x01",
        b"\xd0\x01",
        b"\xd1\x00\x01",
        b"\xd2\x00\x00\x00\x01",
        b"\xd3\x00\x00\x00\x00\x00\x00\x00\x01",
    ] {
        let mut message = b"\x82\x01\xa1a\x02".to_vec();
        message.extend_from_slice(number);
        assert_eq!(datagram(&message).unwrap().service, Service::Smtp, "{number:x?}");
    }
}

#[test]
fn what_is_no_request_is_refused_by_what_is_wrong() {
    let too_long = {
        let mut message = b"\x81\x01\xda\x01\x00".to_vec();
        message.extend_from_slice(&[b'a'; 256]);
        message
    };
    for (message, problem) in [
        (&b""[..], Problem::NotMsgpack),
        (b"\xc1", Problem::NotMsgpack),
        (b"\x83\x01\xa1a", Problem::NotMsgpack),
        (b"\x07", Problem::NotAMap),
        (b"\x80", Problem::Missing { key: "host" }),
        (b"\x81\x01\xa0", Problem::Missing { key: "host" }),
        (b"\x81\x01\xa1\xff", Problem::BadValue { key: "host" }),
        (b"\x82\x01\xa1a\x02\x03", Problem::BadValue { key: "service" }),
        (b"\x82\x01\xa1a\x04\x02", Problem::BadValue { key: "usage" }),
        (b"\x82\x01\xa1a\x04\xff", Problem::BadValue { key: "usage" }),
        (b"\x82\x01\xa1a\x03\xc0", Problem::BadValue { key: "cert" }),
        (b"\x82\x01\xa1a\x09\x00", Problem::UnknownKey),
        (b"\x82\x01\xa1a\x10\x00", Problem::UnknownKey),
        (b"\x81\x01\xa1a\x00", Problem::Trailing),
        (&too_long, Problem::TooLongHost { length: 256 }),
    ] {
        assert_eq!(datagram(message), Err(problem), "{message:x?}");
    }
}

#[test]
fn unknown_keys_are_skipped_on_a_stream_whatever_they_hold() {
    let mut message = b"\x83\x01\xa1a".to_vec();
    message.extend_from_slice(b"\x92\x01\x91\xc0\x82\xa1x\x93\x01\xcb\0\0\0\0\0\0\0\0\xd4\x01\x00\x02\xc7\x01\x09\x00");
    message.extend_from_slice(b"\x10\x05");
    let request = MintRequest::take(&message, Form::Stream).unwrap();
    assert_eq!((request.host.as_str(), request.id), ("a", Some(5)));
}

#[test]
fn arrays_that_announce_more_than_there_is_end_with_the_input() {
    let deep = [&b"\x81\x63"[..], &[0x91; 10_000]].concat();
    let wide = b"\x81\x63\xdd\xff\xff\xff\xff".to_vec();
    for message in [deep, wide] {
        let rejected = MintRequest::take(&message, Form::Stream).unwrap_err();
        assert_eq!(rejected.problem, Problem::NotMsgpack);
    }
}

#[test]
fn the_number_of_a_bad_request_is_known_as_far_as_it_was_read() {
    let rejected = MintRequest::take(b"\x83\x10\x07\x01\xa1a\x02\x09", Form::Stream).unwrap_err();
    assert_eq!(rejected.id, Some(7));
    assert_eq!(rejected.problem, Problem::BadValue { key: "service" });
}

#[test]
fn a_chain_may_be_text_or_bytes_or_a_list_of_both() {
    for (cert, chain) in [
        (&b"\xa3one"[..], "one"),
        (b"\xc4\x03one", "one"),
        (b"\x92\xa4one\n\xc4\x03two", "one\ntwo\n"),
    ] {
        let message = [&b"\x83\x01\xa1a\x04\xa3key\x03"[..], cert].concat();
        let response = MintResponse::take(&message, Form::Datagram).unwrap();
        let expected = Minted {
            chain: chain.to_owned(),
            key: PrivateKey::Pem("key".to_owned()),
            ttl: 0,
        };
        assert_eq!(response.outcome, Ok(expected));
    }
    let endless = [&b"\x83\x01\xa1a\x04\xa3key\x03\xdc\x00\x41"[..], &[0xa0; 65]].concat();
    assert_eq!(
        MintResponse::take(&endless, Form::Datagram),
        Err(Problem::BadValue { key: "cert" })
    );
}

#[test]
fn a_response_without_its_parts_is_none() {
    for (message, key) in [
        (&b"\x82\x03\xa1c\x04\xa1k"[..], "host"),
        (b"\x82\x01\xa1a\x04\xa1k", "cert"),
        (b"\x82\x01\xa1a\x03\xa1c", "key"),
    ] {
        assert_eq!(
            MintResponse::take(message, Form::Datagram),
            Err(Problem::Missing { key })
        );
    }
}

#[test]
fn ttl_may_be_decimal_text() {
    for ttl in [&b"\xa3300"[..], b"\xc4\x03300", b"\xcd\x01\x2c"] {
        let message = [&b"\x84\x01\xa1a\x03\xa1c\x04\xa1k\x05"[..], ttl].concat();
        let response = MintResponse::take(&message, Form::Datagram).unwrap();
        assert_eq!(response.outcome.unwrap().ttl, 300);
    }
}

#[test]
fn an_error_has_no_form_in_a_datagram() {
    assert_eq!(
        put_answer(&error_of(ErrorCode::OverRate, "no"), Form::Datagram),
        &b""[..]
    );
}

#[test]
fn every_error_comes_back_as_it_was_and_a_later_one_as_a_failure() {
    for code in ErrorCode::ALL {
        let mut out = put_answer(&error_of(code, "why"), Form::Stream);
        let message = take_frame(&mut out).unwrap().unwrap();
        let error = MintResponse::take(&message, Form::Stream).unwrap().outcome.unwrap_err();
        assert_eq!((error.code, error.text.as_str()), (code, "why"));
    }
    let later = MintResponse::take(b"\x82\x12\xcc\xc8\x13\xa3new", Form::Stream).unwrap();
    let error = later.outcome.unwrap_err();
    assert_eq!((error.code, error.text.as_str()), (ErrorCode::Failed, "new"));
}

#[test]
fn a_long_text_of_an_error_is_cut_between_characters() {
    let mut out = put_answer(&error_of(ErrorCode::Failed, &"é".repeat(600)), Form::Stream);
    let message = take_frame(&mut out).unwrap().unwrap();
    let error = MintResponse::take(&message, Form::Stream).unwrap().outcome.unwrap_err();
    assert_eq!(error.text, "é".repeat(512));
}

#[test]
fn frames_of_no_or_too_many_bytes_end_the_stream() {
    assert_eq!(take_frame(&mut BytesMut::from(&[0; 4][..])), Err(FrameError::Empty));
    let mut buf = BytesMut::new();
    buf.put_u32(65_537);
    assert_eq!(take_frame(&mut buf), Err(FrameError::TooLong { length: 65_537 }));
    let mut request = MintRequest::new("a");
    request.cert = Some(Certificate::Der(vec![0; MAX_FRAME]));
    let mut out = BytesMut::from(&b"before"[..]);
    assert!(matches!(
        put_request(&mut out, &request, Form::Stream),
        Err(FrameError::TooLong { .. })
    ));
    assert_eq!(out, &b"before"[..]);
}

#[test]
fn a_private_key_is_never_shown() {
    let response = format!("{:?}", minted());
    assert!(
        response.contains("Der(\"…\")") && !response.contains("48"),
        "{response}"
    );
}

#[test]
fn the_corpus_holds_what_holds_for_any_bytes() {
    let corpus = "../../fuzz/corpus/wire_mint";
    let mut replayed = 0;
    for seed in fs::read_dir(corpus).unwrap() {
        properties::message(&fs::read(seed.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 12, "{replayed} seeds");
}
