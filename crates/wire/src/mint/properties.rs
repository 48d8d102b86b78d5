//! What holds for any bytes, for tests and the fuzz target.

#![expect(clippy::unwrap_used, reason = "a panic here is a finding")]

use bytes::BytesMut;

use super::{Form, MAX_FRAME, MAX_HOST, MintRequest, MintResponse, put_request, put_response, take_frame};

/// Reads `data` as a stream, as a request and as a response; what can be read is written and read again.
pub fn message(data: &[u8]) {
    stream(data);
    for form in [Form::Datagram, Form::Stream] {
        request(data, form);
        response(data, form);
    }
}

/// However a stream is cut, the same messages come out of it.
fn stream(data: &[u8]) {
    let mut whole = BytesMut::from(data);
    let mut pieces = BytesMut::new();
    let mut rest = data.iter();
    loop {
        let expected = take_frame(&mut whole);
        let got = loop {
            match take_frame(&mut pieces) {
                Ok(None) => match rest.next() {
                    Some(&byte) => pieces.extend_from_slice(&[byte]),
                    None => break Ok(None),
                },
                other => break other,
            }
        };
        assert_eq!(got, expected);
        if !matches!(expected, Ok(Some(_))) {
            return;
        }
    }
}

/// The one message in `out`, which is framed on a stream.
fn only(mut out: BytesMut, form: Form) -> BytesMut {
    match form {
        Form::Datagram => out,
        Form::Stream => {
            let message = take_frame(&mut out).unwrap().unwrap();
            assert!(out.is_empty());
            message
        }
    }
}

fn request(data: &[u8], form: Form) {
    let Ok(request) = MintRequest::take(data, form) else {
        return;
    };
    assert!(!request.host.is_empty() && request.host.len() <= MAX_HOST);
    assert!(form == Form::Stream || request.id.is_none());
    let mut out = BytesMut::new();
    if put_request(&mut out, &request, form).is_err() {
        assert!(data.len() + 64 > MAX_FRAME);
        return;
    }
    let again = MintRequest::take(&only(out, form), form).unwrap();
    let expected = MintRequest {
        id: (form == Form::Stream).then_some(request.id.unwrap_or_default()),
        ..request
    };
    assert_eq!(again, expected);
}

fn response(data: &[u8], form: Form) {
    let Ok(response) = MintResponse::take(data, form) else {
        return;
    };
    let mut out = BytesMut::new();
    if put_response(&mut out, &response, form).is_err() {
        assert!(data.len() + 64 > MAX_FRAME);
        return;
    }
    let again = MintResponse::take(&only(out, form), form).unwrap();
    match (&again.outcome, &response.outcome) {
        (Err(short), Err(whole)) => {
            assert_eq!(short.code, whole.code);
            assert!(whole.text.starts_with(&short.text));
        }
        (short, whole) => assert_eq!(short, whole),
    }
    assert_eq!((again.id, again.host), (response.id, response.host));
    assert_eq!((again.service, again.usage), (response.service, response.usage));
}
