use super::*;

/// A v2 header from its parts, with the length that they have.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, body].concat()
}

/// The address block of a TCP connection over IPv4 from 192.0.2.1:40000 to 192.0.2.9:8080.
const IPV4: &[u8] = b"\xc0\0\x02\x01\xc0\0\x02\x09\x9c\x40\x1f\x90";

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

fn addresses(client: &str, server: &str) -> Addresses {
    Addresses {
        client: client.parse().unwrap(),
        server: server.parse().unwrap(),
    }
}

/// The addresses of a header that is all of `bytes`.
fn parsed(bytes: &[u8], version: Version) -> Result<Option<Addresses>, HeaderError> {
    let (header, len) = parse_header(bytes, version)?.expect("complete");
    assert_eq!(len, bytes.len());
    Ok(header.addresses)
}

fn line(text: &str) -> Result<Option<Addresses>, HeaderError> {
    parsed(format!("{text}\r\n").as_bytes(), Version::V1)
}

fn assert_needs_all(bytes: &[u8], version: Version) {
    for len in 0..bytes.len() {
        assert_eq!(parse_header(&bytes[..len], version), Ok(None), "{len} bytes");
    }
    let longer = [bytes, b"\r\nnext"].concat();
    let (_, len) = parse_header(&longer, version).unwrap().unwrap();
    assert_eq!(len, bytes.len());
}

#[test]
fn lines_of_version_1_parse_in_every_split_pp_01() {
    for (text, expected) in [
        (
            "PROXY TCP4 192.0.2.1 192.0.2.9 40000 8080",
            Some(addresses("192.0.2.1:40000", "192.0.2.9:8080")),
        ),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535",
            Some(addresses("255.255.255.255:65535", "255.255.255.255:65535")),
        ),
        (
            "PROXY TCP6 2001:db8::1 2001:db8::2 0 443",
            Some(addresses("[2001:db8::1]:0", "[2001:db8::2]:443")),
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.9 1 2",
            Some(addresses("192.0.2.1:1", "192.0.2.9:2")),
        ),
        ("PROXY UNKNOWN", None),
        ("PROXY UNKNOWN ", None),
        ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535", None),
    ] {
        assert_eq!(line(text), Ok(expected), "{text}");
        assert_needs_all(format!("{text}\r\n").as_bytes(), Version::V1);
    }
}

#[test]
fn the_longest_line_has_107_bytes() {
    let longest =
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535";
    assert_eq!(longest.len() + 2, 107);
    assert_eq!(line(longest), Ok(None));
    assert_eq!(line(&format!("{longest}x")), Err(HeaderError::LineTooLong));
    // It is not waited for.
    assert_eq!(
        parse_header(&[longest.as_bytes(), b"xx"].concat(), Version::V1),
        Err(HeaderError::LineTooLong)
    );
}

#[test]
fn malformed_lines_are_refused_pp_01() {
    for (text, part) in [
        ("PROXY ", Part::Family),
        ("PROXY TCP5 192.0.2.1 192.0.2.9 1 2", Part::Family),
        ("PROXY tcp4 192.0.2.1 192.0.2.9 1 2", Part::Family),
        ("PROXY UNKNOWNS", Part::Family),
        ("PROXY  TCP4 192.0.2.1 192.0.2.9 1 2", Part::Family),
        ("PROXY TCP4", Part::Client),
        ("PROXY TCP4 ", Part::Client),
        ("PROXY TCP4 2001:db8::1 2001:db8::2 1 2", Part::Client),
        ("PROXY TCP6 192.0.2.1 192.0.2.9 1 2", Part::Client),
        ("PROXY TCP4 192.0.2.01 192.0.2.9 1 2", Part::Client),
        ("PROXY TCP4  192.0.2.1 192.0.2.9 1 2", Part::Client),
        ("PROXY TCP6 fe80::1%eth0 fe80::2 1 2", Part::Client),
        ("PROXY TCP4 192.0.2.1", Part::Server),
        ("PROXY TCP4 192.0.2.1 o.example 1 2", Part::Server),
        ("PROXY TCP4 192.0.2.1 192.0.2.9", Part::ClientPort),
        ("PROXY TCP4 192.0.2.1 192.0.2.9 65536 2", Part::ClientPort),
        ("PROXY TCP4 192.0.2.1 192.0.2.9 -1 2", Part::ClientPort),
        ("PROXY TCP4 192.0.2.1 192.0.2.9 1", Part::ServerPort),
        ("PROXY TCP4 192.0.2.1 192.0.2.9 1 ", Part::ServerPort),
        ("PROXY TCP4 192.0.2.1 192.0.2.9 1 +2", Part::ServerPort),
        ("PROXY TCP4 192.0.2.1 192.0.2.9 1 02", Part::ServerPort),
        ("PROXY TCP4 192.0.2.1 192.0.2.9 1 2 ", Part::End),
        ("PROXY TCP4 192.0.2.1 192.0.2.9 1 2 3", Part::End),
        ("PROXY TCP4 192.0.2.1\0 192.0.2.9 1 2", Part::Client),
    ] {
        assert_eq!(line(text), Err(HeaderError::Part { part }), "{text}");
    }
    assert_eq!(
        parse_header(b"PROXY TCP4 \xff\xff", Version::V1),
        Ok(None),
        "the end of the line is awaited"
    );
    assert_eq!(
        parse_header(b"PROXY TCP4 \xff\xff\r\n", Version::V1),
        Err(HeaderError::Part { part: Part::Client })
    );
    for text in [
        "PROXY UNKNOWN\n",
        "PROXY TCP4 192.0.2.1 192.0.2.9 1 2\n",
        "PROXY TCP4\rx",
        "PROXY UNKNOWN\r\r\n",
    ] {
        assert_eq!(
            parse_header(text.as_bytes(), Version::V1),
            Err(HeaderError::LineEnd),
            "{text:?}"
        );
    }
}

#[test]
fn other_bytes_and_the_other_version_are_refused_at_once() {
    let missing = |version| Err(HeaderError::Missing { version });
    let second = v2(0x21, 0x11, IPV4);
    for bytes in [
        &b"G"[..],
        b"GET / HTTP/1.1\r\n",
        b"\x05\x01\0",
        b"PROXYTCP4",
        b"proxy ",
        b"\0",
        &second,
    ] {
        assert_eq!(parse_header(bytes, Version::V1), missing(Version::V1), "{bytes:?}");
    }
    for bytes in [
        &b"P"[..],
        b"PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n",
        b"\r\nG",
        b"\r\n\r\n\0\r\nQUIT\r",
        b"\x16\x03",
    ] {
        assert_eq!(parse_header(bytes, Version::V2), missing(Version::V2), "{bytes:?}");
    }
}

#[test]
fn headers_of_version_2_parse_in_every_split() {
    let ipv6 = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\0\x01\x01\x02";
    let mapped = b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x01\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x09\0\x01\x01\x02";
    for (family, body, expected) in [
        (0x11, IPV4, addresses("192.0.2.1:40000", "192.0.2.9:8080")),
        (0x21, ipv6, addresses("[2001:db8::1]:1", "[2001:db8::2]:258")),
        (0x21, mapped, addresses("192.0.2.1:1", "192.0.2.9:258")),
    ] {
        let bytes = v2(0x21, family, body);
        assert_eq!(parsed(&bytes, Version::V2), Ok(Some(expected)));
        assert_needs_all(&bytes, Version::V2);
    }
}

#[test]
fn local_keeps_the_sockets_addresses_whatever_follows_pp_02() {
    let tlvs = [tlv(0x04, b"pad"), tlv(0xe0, b"own")].concat();
    for (family, body) in [
        (0x00, &b""[..]),
        (0x00, &tlvs),
        (0x11, IPV4),
        (0x11, b"no block"),
        (0xff, b"\x01\xff\xff not even a TLV"),
    ] {
        let bytes = v2(0x20, family, body);
        assert_eq!(parsed(&bytes, Version::V2), Ok(None));
        assert_eq!(parse_header(&bytes, Version::V2).unwrap().unwrap().0.tlvs.count(), 0);
        assert_needs_all(&bytes, Version::V2);
    }
}

#[test]
fn what_is_no_tcp_over_ip_keeps_the_sockets_addresses_and_has_its_tlvs() {
    for (family, block) in [
        (0x00, 0),
        (0x01, 0),
        (0x10, 12),
        (0x12, 12),
        (0x20, 36),
        (0x22, 36),
        (0x30, 216),
        (0x31, 216),
        (0x32, 216),
    ] {
        let bytes = v2(0x21, family, &[vec![0xff; block], tlv(0x02, b"o.example")].concat());
        let (header, _) = parse_header(&bytes, Version::V2).unwrap().unwrap();
        assert_eq!(header.addresses, None, "{family:#x}");
        assert!(header.tlvs.eq([Tlv::Authority("o.example")]), "{family:#x}");
    }
}

#[test]
fn other_versions_commands_families_and_transports_are_refused() {
    for (command, family, error) in [
        (0x11, 0x11, HeaderError::Version { number: 1 }),
        (0x31, 0x11, HeaderError::Version { number: 3 }),
        (0x22, 0x11, HeaderError::Command { code: 2 }),
        (0x2f, 0x11, HeaderError::Command { code: 15 }),
        (0x21, 0x41, HeaderError::Family { code: 4 }),
        (0x21, 0xf1, HeaderError::Family { code: 15 }),
        (0x21, 0x13, HeaderError::Transport { code: 3 }),
    ] {
        // The head tells; the rest is not waited for.
        let bytes = v2(command, family, IPV4);
        assert_eq!(parse_header(&bytes[..16], Version::V2), Err(error));
    }
}

#[test]
fn the_length_is_bounded_pp_02() {
    let head = |length: u16| [&v2(0x21, 0x11, b"")[..14], &length.to_be_bytes()].concat();
    assert_eq!(
        parse_header(&head(65535), Version::V2),
        Err(HeaderError::TooLong { length: 65535 })
    );
    assert_eq!(
        parse_header(&head(4097), Version::V2),
        Err(HeaderError::TooLong { length: 4097 })
    );
    let longest = v2(0x21, 0x11, &[IPV4, &tlv(0x04, &vec![0; 4096 - 12 - 3])].concat());
    assert_eq!(longest.len(), MAX_HEADER);
    assert_eq!(parse_header(&longest[..MAX_HEADER - 1], Version::V2), Ok(None));
    assert!(parsed(&longest, Version::V2).unwrap().is_some());
    // A LOCAL header is held too before it is skipped.
    let local = [&v2(0x20, 0x00, b"")[..14], b"\xff\xff"].concat();
    assert_eq!(
        parse_header(&local, Version::V2),
        Err(HeaderError::TooLong { length: 65535 })
    );
}

#[test]
fn addresses_that_do_not_fit_are_refused() {
    for (family, block) in [(0x11, 12), (0x12, 12), (0x21, 36), (0x31, 216)] {
        for length in [0, block - 1] {
            assert_eq!(
                parsed(&v2(0x21, family, &vec![0; length]), Version::V2),
                Err(HeaderError::AddressesShort { length }),
                "{family:#x}"
            );
        }
    }
}

#[test]
fn known_tlvs_can_be_read_and_unknown_ones_are_skipped_pp_02() {
    let ssl = [
        &b"\x07\0\0\0\0"[..],
        &tlv(0x21, b"TLSv1.3"),
        &tlv(0x22, "Käthe".as_bytes()),
        &tlv(0x23, b"TLS_AES_128_GCM_SHA256"),
        &tlv(0x24, b"SHA256"),
        &tlv(0x25, b"RSA2048"),
        &tlv(0x99, b"?"),
    ]
    .concat();
    let body = [
        IPV4,
        &tlv(0xe5, b"\0\x01"),
        &tlv(0x01, b"h2"),
        &tlv(0x02, b"o.example"),
        &tlv(0x04, b"\0\0\0"),
        &tlv(0x05, b"id"),
        &tlv(0x20, &ssl),
        &tlv(0x30, b"blue"),
        &tlv(0xfe, b""),
    ]
    .concat();
    let bytes = v2(0x21, 0x11, &body);
    let (header, len) = parse_header(&bytes, Version::V2).unwrap().unwrap();
    assert_eq!(len, bytes.len());
    let tlvs: Vec<_> = header.tlvs.collect();
    let [
        first,
        Tlv::Alpn(b"h2"),
        Tlv::Authority("o.example"),
        Tlv::Noop,
        Tlv::UniqueId(b"id"),
        Tlv::Ssl(ssl),
        Tlv::NetNs("blue"),
        last,
    ] = &tlvs[..]
    else {
        panic!("{tlvs:?}");
    };
    let other = |kind, value| Tlv::Other { kind, value };
    assert_eq!((*first, *last), (other(0xe5, b"\0\x01"), other(0xfe, b"")));
    assert!(ssl.is_tls() && ssl.certificate_on_connection() && ssl.certificate_in_session() && ssl.is_verified());
    assert_eq!(
        [
            ssl.version(),
            ssl.common_name(),
            ssl.cipher(),
            ssl.signature_algorithm(),
            ssl.key_algorithm()
        ],
        ["TLSv1.3", "Käthe", "TLS_AES_128_GCM_SHA256", "SHA256", "RSA2048"].map(Some)
    );
}

#[test]
fn without_a_certificate_nothing_is_verified() {
    for (value, tls, verified) in [
        (b"\x00\0\0\0\0", false, false),
        (b"\x01\0\0\0\0", true, false),
        (b"\x05\0\0\0\0", true, true),
        (b"\x05\0\0\0\x12", true, false),
    ] {
        let bytes = v2(0x21, 0x11, &[IPV4, &tlv(0x20, value)].concat());
        let (mut header, _) = parse_header(&bytes, Version::V2).unwrap().unwrap();
        let Some(Tlv::Ssl(ssl)) = header.tlvs.next() else {
            panic!()
        };
        assert_eq!((ssl.is_tls(), ssl.is_verified()), (tls, verified), "{value:?}");
        assert_eq!(ssl.version(), None);
    }
}

#[test]
fn known_tlvs_with_other_values_are_shown_as_they_are() {
    for (kind, value) in [
        (0x02, &b"\xff"[..]),
        (0x05, &[b'i'; 129]),
        (0x20, b"\x01\0\0\0"),
        (0x20, b"\x01\0\0\0\0\x21\0\x09TLSv1.3"),
        (0x30, b"\xff"),
    ] {
        let bytes = v2(0x21, 0x11, &[IPV4, &tlv(kind, value)].concat());
        let (header, _) = parse_header(&bytes, Version::V2).unwrap().unwrap();
        assert!(header.tlvs.eq([Tlv::Other { kind, value }]), "{kind:#x}");
    }
}

#[test]
fn tlvs_that_are_cut_off_are_refused() {
    let whole = [tlv(0x01, b"h2"), tlv(0x02, b"o.example")].concat();
    for len in (1..whole.len()).filter(|len| *len != 5) {
        let body = [IPV4, &whole[..len]].concat();
        assert_eq!(
            parsed(&v2(0x21, 0x11, &body), Version::V2),
            Err(HeaderError::Tlv),
            "{len} bytes"
        );
    }
}

#[test]
fn a_checksum_is_checked_if_there_is_one() {
    let with = |crc: &[u8]| {
        v2(
            0x21,
            0x11,
            &[IPV4, &tlv(0x02, b"o.example"), &tlv(0x03, crc), &tlv(0x01, b"h2")].concat(),
        )
    };
    let crc = crc32c::crc32c(with(&[0; 4])).to_be_bytes();
    let good = with(&crc);
    let (header, _) = parse_header(&good, Version::V2).unwrap().unwrap();
    let shown: Vec<_> = header.tlvs.collect();
    assert_eq!(shown[1], Tlv::Crc32c(u32::from_be_bytes(crc)));
    // The type of the checksum itself is left out: with another one there is none.
    let own = good.len() - 5 - 4 - 3;
    assert_eq!(good[own], 0x03);
    for at in (16..good.len()).filter(|at| *at != own) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(parse_header(&bad, Version::V2).is_err(), "byte {at}");
    }
    assert_eq!(parsed(&with(&[0; 4]), Version::V2), Err(HeaderError::Checksum));
    assert_eq!(parsed(&with(&[0; 3]), Version::V2), Err(HeaderError::ChecksumForm));
    let twice = v2(0x21, 0x11, &[IPV4, &tlv(0x03, &crc), &tlv(0x03, &crc)].concat());
    assert_eq!(parsed(&twice, Version::V2), Err(HeaderError::ChecksumForm));
}

#[test]
fn version_1_is_sent_as_one_line() {
    let mut out = Vec::new();
    put_header(Version::V1, &addresses("192.0.2.1:40000", "192.0.2.9:8080"), &mut out).unwrap();
    put_header(Version::V1, &addresses("[2001:db8::1]:1", "[2001:db8::2]:2"), &mut out).unwrap();
    let lines = "PROXY TCP4 192.0.2.1 192.0.2.9 40000 8080\r\nPROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n";
    assert_eq!(str::from_utf8(&out), Ok(lines));
}

#[test]
fn version_2_is_sent_in_binary_with_both_addresses() {
    let mut out = Vec::new();
    let ends = addresses("[2001:db8::1]:1", "[2001:db8::2]:258");
    put_header(Version::V2, &ends, &mut out).unwrap();
    assert_eq!(out[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24");
    assert_eq!(out.len(), 16 + 36);
    assert_eq!(out[48..], [0, 1, 1, 2]);
    assert_eq!(parsed(&out, Version::V2), Ok(Some(ends)));

    out.clear();
    let mapped = addresses("[::ffff:192.0.2.1]:40000", "192.0.2.9:8080");
    put_header(Version::V2, &mapped, &mut out).unwrap();
    assert_eq!(out, v2(0x21, 0x11, IPV4));
}

#[test]
fn two_families_cannot_be_told() {
    let ends = addresses("192.0.2.1:1", "[2001:db8::2]:2");
    let mut out = b"kept".to_vec();
    for version in [Version::V1, Version::V2] {
        assert_eq!(put_header(version, &ends, &mut out), Err(FamiliesDiffer(ends)));
    }
    assert_eq!(out, b"kept");
}
