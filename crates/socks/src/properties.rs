//! What holds for any bytes whatever; called by the fuzz target, and by a unit test over its corpus.

use std::fmt::Debug;
use std::net::IpAddr;

use sluice_addr::{Host, Upstream};

use crate::v5::Method;
use crate::{udp, v4, v5};

/// No message is longer; what follows it cannot matter.
const MAX: usize = 1024;

/// Reads the bytes as every message: the verdict is the same in every split, and what was understood is understood again
/// in the form that is sent here.
///
/// # Panics
/// If not.
pub fn message(data: &[u8]) {
    let data = data.get(..MAX).unwrap_or(data);
    if let Some(request) = verdict(data, v4::MAX_REQUEST, v4::parse_request) {
        check_host(&request.target);
        // An IPv6 address in the place of a domain has no form that is certain to be understood.
        if !request.target.host.ip().is_some_and(|ip| ip.is_ipv6() || is_mark(ip)) {
            let out = sent(|out| v4::put_request(&request, out));
            let len = out.len();
            assert_eq!(v4::parse_request(&out), Ok(Some((request, len))));
        }
    }
    verdict(data, v4::REPLY, v4::parse_reply);
    if let Some(greeting) = verdict(data, v5::MAX_GREETING, v5::parse_greeting) {
        let offered = [Method::NoAuth, Method::UserPassword].map(|method| greeting.offers(method));
        assert!(!greeting.methods.is_empty() || offered == [false; 2]);
    }
    verdict(data, v5::CHOICE, |buf| v5::parse_choice(buf, &[Method::UserPassword]));
    if let Some(credentials) = verdict(data, v5::MAX_CREDENTIALS, v5::parse_credentials) {
        let out = sent(|out| v5::put_credentials(&credentials, out));
        let len = out.len();
        assert_eq!(v5::parse_credentials(&out), Ok(Some((credentials, len))));
    }
    verdict(data, v5::STATUS, v5::parse_status);
    if let Some(request) = verdict(data, v5::MAX_REQUEST, v5::parse_request) {
        check_host(&request.target);
        let _ = request.udp_client();
        let out = sent(|out| v5::put_request(&request, out));
        let len = out.len();
        assert_eq!(v5::parse_request(&out), Ok(Some((request, len))));
    }
    verdict(data, v5::MAX_REPLY, v5::parse_reply);
    datagram(data);
}

/// What `parse` says of the bytes. It must say it of every beginning that it calls complete, or wrong, too, and must do
/// either once there are `max` bytes.
fn verdict<'d, T: Debug + PartialEq, E: Debug + PartialEq>(
    data: &'d [u8],
    max: usize,
    parse: impl Fn(&'d [u8]) -> Result<Option<(T, usize)>, E>,
) -> Option<T> {
    let whole = parse(data);
    assert!(whole != Ok(None) || data.len() < max, "{max} bytes and no verdict");
    for prefix in (0..data.len()).filter_map(|len| data.get(..len)) {
        let early = parse(prefix);
        match &early {
            Ok(None) => continue,
            Ok(Some((_, len))) => assert!(*len == prefix.len() && *len <= max, "{len} of {} bytes", prefix.len()),
            Err(_) => {}
        }
        assert_eq!(early, whole, "after {} of {} bytes", prefix.len(), data.len());
        break;
    }
    whole.ok().flatten().map(|(message, _)| message)
}

/// What is sent for a message.
fn sent<E: Debug>(put: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(put(&mut out).is_ok(), "what was parsed cannot be sent");
    out
}

/// Whether SOCKS4a takes the address for a sign that a domain follows.
fn is_mark(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if matches!(ip.octets(), [0, 0, 0, 1..=255]))
}

fn check_host(upstream: &Upstream) {
    assert_eq!(Host::parse(&upstream.host.to_string()), Ok(upstream.host.clone()));
}

fn datagram(data: &[u8]) {
    let Ok((upstream, payload)) = udp::parse_datagram(data) else {
        return;
    };
    check_host(&upstream);
    assert!(data.ends_with(payload) && data.len() - payload.len() <= udp::MAX_HEADER);
    let mut out = Vec::new();
    assert_eq!(udp::put_header(&upstream, &mut out), Ok(()));
    assert!(out.len() <= udp::MAX_HEADER);
    out.extend_from_slice(payload);
    assert_eq!(udp::parse_datagram(&out), Ok((upstream, payload)));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_sample_of_the_fuzz_corpus_holds() {
        let corpus = Path::new("../../fuzz/corpus/socks_message");
        let mut samples = 0;
        for entry in fs::read_dir(corpus).unwrap() {
            super::message(&fs::read(entry.unwrap().path()).unwrap());
            samples += 1;
        }
        assert!(samples > 20, "there are {samples} samples");
    }
}
