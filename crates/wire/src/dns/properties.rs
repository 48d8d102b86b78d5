//! What holds for any bytes, for tests and the fuzz target.

#![expect(clippy::unwrap_used, reason = "a panic here is a finding")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;
use hickory_proto::op::Message;

use super::{
    Family, MAX_TTL, Origin, Outcome, ParseError, Rejected, Reply, Request, ResolveError, domain_of, name_of,
    put_reply, take_frame,
};

/// Reads `data` as a stream, as a query and as a reply; what can be read is answered and read again.
pub fn message(data: &[u8]) {
    stream(data);
    query(data);
    reply(data);
}

/// However a stream is cut, the same messages come out of it.
fn stream(data: &[u8]) {
    let mut whole = BytesMut::from(data);
    let mut pieces = BytesMut::new();
    let mut rest = data.iter();
    loop {
        let expected = take_frame(&mut whole, 4096);
        let got = loop {
            match take_frame(&mut pieces, 4096) {
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

fn query(data: &[u8]) {
    let request = match Request::take(data) {
        Ok(request) => request,
        Err(Rejected::Ignored) => return,
        Err(Rejected::Answered { reply, .. }) => {
            Message::from_vec(&reply).unwrap();
            return;
        }
    };
    assert_eq!(
        domain_of(&name_of(&request.domain).unwrap()).as_deref(),
        Some(&*request.domain)
    );
    let address: IpAddr = match request.family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let addresses = [address; 64];
    for count in [0, 1, addresses.len()] {
        let addresses = addresses.get(..count).unwrap();
        let outcome = Outcome::Addresses {
            addresses,
            ttl: 60,
            stale: count == 1,
        };
        let short = put_reply(&request, &outcome, 512);
        assert!(short.len() <= 512);
        assert!(Reply::take(&short).unwrap().is_about(&request.domain, request.family));
        let reply = Reply::take(&put_reply(&request, &outcome, 65_535)).unwrap();
        assert!(!reply.is_truncated() && reply.is_about(&request.domain, request.family));
        let answer = reply.answer(Origin::Resolverd).unwrap();
        assert_eq!((&*answer.addresses, answer.ttl), (addresses, Some(60)));
    }
    for &error in ResolveError::ALL {
        let outcome = Outcome::Failed {
            error,
            text: "why",
            ttl: 60,
        };
        let reply = Reply::take(&put_reply(&request, &outcome, 65_535)).unwrap();
        assert!(reply.is_about(&request.domain, request.family));
        assert_eq!(
            reply.answer(Origin::Resolverd).is_ok(),
            error == ResolveError::EmptyResult
        );
    }
}

fn reply(data: &[u8]) {
    let reply = match Reply::take(data) {
        Ok(reply) => reply,
        Err(ParseError::Malformed { .. }) => {
            assert!(data.len() >= 12);
            return;
        }
        Err(ParseError::NotAReply) => return,
    };
    assert!(reply.negative_ttl().is_none_or(|ttl| ttl <= MAX_TTL));
    reply.extended_error();
    for origin in [Origin::Resolverd, Origin::Server] {
        if let Ok(answer) = reply.answer(origin) {
            assert!(answer.ttl.is_none_or(|ttl| ttl <= MAX_TTL));
            assert!(
                answer
                    .alias
                    .is_none_or(|alias| answer.addresses.is_empty() && name_of(&alias).is_ok())
            );
        }
    }
}
