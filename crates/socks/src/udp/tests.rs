use sluice_addr::Host;

use super::*;

fn datagram(upstream: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_header(&upstream.parse().unwrap(), &mut out).unwrap();
    out.extend_from_slice(payload);
    out
}

#[test]
fn headers_of_every_type_are_built_and_parsed_sk_02() {
    let longest = format!("{}:53", "a.".repeat(126) + "a");
    for (upstream, header) in [
        ("192.0.2.1:53", 10),
        ("[2001:db8::1]:53", 22),
        ("o.example:53", 7 + 9),
        (&*longest, 7 + 253),
    ] {
        for payload in [&b""[..], b"payload"] {
            let bytes = datagram(upstream, payload);
            assert_eq!(bytes.len(), header + payload.len(), "{upstream}");
            assert_eq!(parse_datagram(&bytes), Ok((upstream.parse().unwrap(), payload)));
        }
    }
}

#[test]
fn a_datagram_shorter_than_its_header_is_an_error_at_every_length_sk_03() {
    // A buffer that held a longer datagram before: its old bytes may complete nothing.
    let buffer = datagram("[2001:db8::1]:53", b"an earlier payload");
    for length in 0..22 {
        assert_eq!(parse_datagram(&buffer[..length]), Err(DatagramError::Short { length }));
    }
    assert_eq!(parse_datagram(&buffer[..22]).unwrap().1, b"");
    let buffer = datagram("o.example:53", b"");
    for length in 0..buffer.len() {
        assert_eq!(parse_datagram(&buffer[..length]), Err(DatagramError::Short { length }));
    }
}

#[test]
fn fragments_are_an_error_of_their_own() {
    for number in [1, 0x7f, 0x80, 0xff] {
        let mut bytes = datagram("192.0.2.1:53", b"x");
        bytes[2] = number;
        assert_eq!(parse_datagram(&bytes), Err(DatagramError::Fragment { number }));
        assert_eq!(parse_datagram(&bytes[..3]), Err(DatagramError::Fragment { number }));
    }
}

#[test]
fn other_types_and_malformed_domains_are_refused() {
    assert_eq!(
        parse_datagram(b"\0\0\0\x02\0\0\0\0\0\0"),
        Err(DatagramError::AddressType { code: 2 })
    );
    assert_eq!(
        parse_datagram(b"\0\0\0\x03\0\0\x35x"),
        Err(DatagramError::Host(ParseHostError::Empty))
    );
    assert_eq!(
        parse_datagram(b"\0\0\0\x03\x02a \0\x35x"),
        Err(DatagramError::Host(ParseHostError::Invalid))
    );
}

#[test]
fn a_reply_names_the_address_that_it_comes_from() {
    let peer: std::net::SocketAddr = "[::ffff:192.0.2.1]:53".parse().unwrap();
    let mut out = Vec::new();
    put_header(&Upstream::from(peer), &mut out).unwrap();
    assert_eq!(out, b"\0\0\0\x01\xc0\0\x02\x01\0\x35");
}

#[test]
fn a_name_that_does_not_fit_leaves_no_trace() {
    let upstream = Upstream {
        host: Host::Domain("a".repeat(300).into()),
        port: 1,
    };
    let mut out = b"kept".to_vec();
    assert_eq!(put_header(&upstream, &mut out), Err(DomainTooLong { length: 300 }));
    assert_eq!(out, b"kept");
}
