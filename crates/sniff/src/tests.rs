use super::*;
use crate::hello::{ClientHello, HelloError};

/// A ClientHello as `openssl s_client -connect o.example:443 -servername o.example -alpn h2,http/1.1` sends it, its long
/// lists cut short.
fn hello() -> Vec<u8> {
    let mut extensions = Vec::new();
    let mut extension = |kind: u16, content: &[u8]| {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
        extensions.extend(content);
    };
    extension(0, b"\x00\x0c\x00\x00\x09o.example");
    extension(16, b"\x00\x0c\x02h2\x08http/1.1");
    extension(43, b"\x04\x03\x04\x03\x03");
    extension(0xfe0d, &[7; 40]);
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.extend([32]);
    body.extend([8; 32]);
    body.extend(b"\x00\x04\x13\x01\x13\x02\x01\x00");
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1];
    message.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
    message.extend(body);
    message
}

/// A short one, with this version and these extensions.
fn hello_of(version: &[u8; 2], extensions: &[u8]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend([9; 32]);
    body.extend(b"\x00\x00\x02\x00\x2f\x01\x00");
    if !extensions.is_empty() {
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
    }
    let mut message = vec![1];
    message.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
    message.extend(body);
    message
}

/// `message` in records of `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| {
        let mut record = vec![0x16, 3, 1];
        record.extend(u16::try_from(fragment.len()).unwrap().to_be_bytes());
        record.extend(fragment);
        record
    };
    message.chunks(size).flat_map(record).collect()
}

fn client(bytes: &[u8]) -> Verdict {
    of_client(bytes, Hints::default(), &Limits::default())
}

fn server(bytes: &[u8]) -> Verdict {
    of_server(bytes, Hints::default(), &Limits::default())
}

fn hinted(protocol: Protocol) -> (Vec<Protocol>, Limits) {
    (vec![protocol], Limits::default())
}

fn client_at(protocol: Protocol, bytes: &[u8]) -> Verdict {
    let (protocols, limits) = hinted(protocol);
    let hints = Hints {
        protocols: &protocols,
        tls_first: false,
    };
    of_client(bytes, hints, &limits)
}

fn server_at(protocol: Protocol, bytes: &[u8]) -> Verdict {
    let (protocols, limits) = hinted(protocol);
    let hints = Hints {
        protocols: &protocols,
        tls_first: false,
    };
    of_server(bytes, hints, &limits)
}

/// The verdict on the whole, which no shorter part contradicts.
fn in_pieces(bytes: &[u8], look: impl Fn(&[u8]) -> Verdict) -> Verdict {
    let whole = look(bytes);
    for end in 0..bytes.len() {
        let verdict = look(&bytes[..end]);
        assert!(
            verdict == Verdict::More || verdict == whole,
            "{verdict:?} after {end} bytes, {whole:?} after all"
        );
    }
    whole
}

#[test]
fn clients_are_known_by_what_they_send_on_any_port() {
    let mut ssl2 = b"\x80\x2b\x01\x00\x02\x00\x12\x00\x00\x00\x10".to_vec();
    ssl2.extend([5; 18 + 16]);
    for (bytes, protocol) in [
        (&b"GET / HTTP/1.1\r\nHost: o\r\n\r\n"[..], P::Http1),
        (b"\r\nPOST http://o/a%20b HTTP/1.0\r\n", P::Http1),
        (b"M-SEARCH * HTTP/1.1\r\n", P::Http1),
        (b"PRI * HTTP/1.1\r\n", P::Http1),
        // No good requests, but some servers take each of these for one.
        (b"GET  / HTTP/1.1\r\n", P::Http1),
        (b" GET / HTTP/1.1\r\n", P::Http1),
        (b"\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n", P::Http1),
        (b"GET\t/ HTTP/1.1\r\n", P::Http1),
        (b"GET /a b HTTP/1.1\r\n", P::Http1),
        (b"GET /\0 HTTP/1.1\r\n", P::Http1),
        (b"GET / http/1.1\r\n", P::Http1),
        (b"GET / HTTP/2.0\r\n", P::Http1),
        (b"GET  HTTP/1.1\r\n", P::Http1),
        (b"GET /index.html\r\n", P::Http1),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", P::Http2),
        (b"SSH-2.0-OpenSSH_9.9\r\n", P::Ssh),
        (b"SSH-1.99-Cisco-1.25\n", P::Ssh),
        (b"SSH-1.5-1.2.27\n", P::SshLegacy),
        (
            b"\x00\x00\x00\x1f\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x01user\0pw\0\0\x34\0\0\0",
            P::Smpp,
        ),
        (b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05", P::BitTorrent),
        (&records(&hello(), 16 << 10), P::TlsModern),
        (&records(&hello(), 1), P::TlsModern),
        (&records(&hello_of(b"\x03\x01", b""), 16 << 10), P::TlsLegacy),
        (
            &records(&hello_of(b"\x03\x02", b"\x00\x2b\x00\x05\x04\x03\x02\x03\x01"), 1),
            P::TlsLegacy,
        ),
        (&records(&hello_of(b"\x03\x00", b""), 16 << 10), P::SslLegacy),
        // What the list of versions says counts more, and so does what is too long for its age.
        (
            &records(&hello_of(b"\x03\x02", b"\x00\x2b\x00\x03\x02\x03\x04"), 1),
            P::TlsModern,
        ),
        (
            &records(
                &hello_of(b"\x03\x00", b"\x00\x2b\x00\x05\x04\x03\x01\x03\x03"),
                16 << 10,
            ),
            P::TlsModern,
        ),
        (b"\x16\x03\x01\x20\x00\x01\x00\x1f\xfc\x03\x01", P::TlsModern),
        // Servers take each of these.
        (b"\x16\x03\x01\x00\x00", P::TlsModern),
        (b"\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x00", P::TlsModern),
        (b"\x16\x03\xff\x00\x60\x01\x00\x00\x5c\x03\x03", P::TlsModern),
        (b"\x16\x03\x01\x40\x00\x01\x01\x00\x5c\x03\x03", P::TlsModern),
        (b"\x16\x01\x01\x00\x60\x01\x00\x00\x5c\x01\x01", P::TlsTlcp),
        (&ssl2, P::SslLegacy),
    ] {
        assert_eq!(
            in_pieces(bytes, client),
            Verdict::Is(protocol),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn servers_are_known_by_what_they_send_on_any_port() {
    for (bytes, protocol) in [
        (&b"SSH-2.0-dropbear\r\n"[..], P::Ssh),
        (b"220 (vsFTPd 3.0.3)\r\n", P::Ftp),
        (b"220-Welcome to the FTP server\r\n220 ready\r\n", P::Ftp),
        (b"220 mail.example ESMTP Postfix\r\n", P::Smtp),
        (
            b"INFO {\"server_id\":\"NDX\",\"version\":\"2.10.4\",\"max_payload\":1048576} \r\n",
            P::Nats,
        ),
        (b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0", P::BitTorrent),
        (b"\0\0\0\x04\0\0\0\0\0", P::Http2),
        (b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64", P::Http2),
    ] {
        assert_eq!(
            in_pieces(bytes, server),
            Verdict::Is(protocol),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn where_they_are_expected_clients_need_to_say_less() {
    for (bytes, protocol) in [
        (
            &b"\x00\x1d\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01o\x07example\x00\x00\x01\x00\x01"[..],
            P::Dns,
        ),
        (b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00", P::Ldap),
        (b"\x30\x84\x00\x00\x00\x10\x02\x01\x05\x63\x07", P::Ldap),
        (b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04id12", P::Mqtt),
        (b"\x10\x12\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x04id12", P::Mqtt),
        (b"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x55\x66", P::Rtmp),
        (b"DESCRIBE rtsp://o/movie RTSP/1.0\r\n", P::Rtsp),
        (b"CONNECT\naccept-version:1.2\n\n\0", P::Stomp),
        (b"STOMP\r\nhost:o\r\n\r\n\0", P::Stomp),
    ] {
        let verdict = in_pieces(bytes, |bytes| client_at(protocol, bytes));
        assert_eq!(verdict, Verdict::Is(protocol), "{}", bytes.escape_ascii());
    }
    for (bytes, protocol) in [
        (&b"220 ready\r\n"[..], P::Ftp),
        (b"220 ready\r\n", P::Smtp),
        (b"554 no service\r\n", P::Smtp),
        (b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n", P::Imap),
        (b"* preauth hello\r\n", P::Imap),
        (b"+OK POP3 ready <1@o>\r\n", P::Pop3),
        (b"200 news.example InterNetNews\r\n", P::Nntp),
        (b"201 read only\r\n", P::Nnsp),
        (
            b"\x00\x00\x00\x14\x00\x00\x00\x0b\x00\x00\x00\x00\x00\x00\x00\x01a\0b\0",
            P::Smpp,
        ),
    ] {
        let verdict = in_pieces(bytes, |bytes| server_at(protocol, bytes));
        assert_eq!(verdict, Verdict::Is(protocol), "{}", bytes.escape_ascii());
    }
}

#[test]
fn what_is_nothing_known_is_told_so_at_once() {
    let junk: Vec<u8> = (0..64 << 10)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 1)
        .collect();
    for bytes in [
        &b"\0\0\0\0"[..],
        b"\x05\x01\x00",
        b"hello, world\r\n",
        b"HELO o.example\r\n",
        b"GET index.html\r\n",
        b"get /index.html\r\n",
        b"GETS / HTTP\r\n",
        b"G(T / HTTP/1.1\r\n",
        b"LIST HTTP HTTPS\r\n",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x60\x02",
        b"\x15\x03\x01\x00\x02\x02\x28",
        &junk,
    ] {
        assert_eq!(
            client(bytes),
            Verdict::Not,
            "{}",
            bytes[..bytes.len().min(40)].escape_ascii()
        );
    }
    for bytes in [
        &b"\0\x01"[..],
        b"\0\0\x07",
        b"\0\0\x06\x04\x01",
        b"\0\0\x08\x06\0\0\0\0\0",
        b"\0\0\0\x04\0\0\0\0\x01",
        b"\x4a\0\0\0\x0a",
        b"220 hello\r\n",
        b"RFB 003.008\n",
        b"INFO of ours\r\n",
        &junk,
    ] {
        assert_eq!(
            server(bytes),
            Verdict::Not,
            "{}",
            bytes[..bytes.len().min(40)].escape_ascii()
        );
    }
}

#[test]
fn a_message_over_its_limit_is_none() {
    let limits = Limits::default();
    let get = |uri: usize| [b"GET /".as_slice(), &vec![b'a'; uri - 1], b" HTTP/1.1\r\n"].concat();
    assert_eq!(in_pieces(&get(limits.http_uri), client), Verdict::Is(P::Http1));
    assert_eq!(client(&get(limits.http_uri + 1)), Verdict::Not);
    assert_eq!(client(&get(limits.http_uri + 1)[..limits.http_uri + 10]), Verdict::Not);
    let greeting = |n: usize| [b"220 FTP ".as_slice(), &vec![b'a'; n - 10], b"\r\n"].concat();
    assert_eq!(server(&greeting(limits.ftp_greeting)), Verdict::Is(P::Ftp));
    assert_eq!(server(&greeting(limits.ftp_greeting + 1)), Verdict::Not);
    let mut ldap = b"\x30\x82\x04\x01\x02\x01\x01\x60".to_vec();
    assert_eq!(client_at(P::Ldap, &ldap), Verdict::Not);
    ldap[3] = 0;
    assert_eq!(client_at(P::Ldap, &ldap), Verdict::Is(P::Ldap));
}

/// TLS-13.
#[test]
fn dns_in_tls_is_tls_first() {
    let hello = records(&hello(), 16 << 10);
    let hints = Hints {
        protocols: &[P::Dns],
        tls_first: true,
    };
    let look = |bytes: &[u8]| of_client(bytes, hints, &Limits::default());
    assert_eq!(in_pieces(&hello, look), Verdict::Is(P::TlsModern));
    assert_eq!(look(b"\x00"), Verdict::More);
}

/// TLS-11.
#[test]
fn a_hello_is_put_together_from_records_of_any_size() {
    let message = hello();
    for size in [1, 2, 3, 5, 40, message.len()] {
        let bytes = records(&message, size);
        for end in 0..bytes.len() {
            assert_eq!(ClientHello::read(&bytes[..end], 1 << 14), Ok(None), "{size}, {end}");
        }
        let hello = ClientHello::read(&[&bytes[..], b"more"].concat(), 1 << 14)
            .unwrap()
            .unwrap();
        assert_eq!(hello.legacy_version, (3, 3));
        assert_eq!(hello.server_name.as_deref(), Some("o.example"));
        assert_eq!(hello.alpn, [b"h2".as_slice().into(), b"http/1.1".as_slice().into()]);
        assert_eq!(hello.versions, [0x304, 0x303]);
    }
}

/// TLS-11.
#[test]
fn a_hello_of_nothing_or_of_too_much_is_refused() {
    let message = hello();
    let empty = [&records(&message[..9], 9)[..], b"\x16\x03\x01\x00\x00"].concat();
    assert_eq!(ClientHello::read(&empty, 1 << 14), Err(HelloError::EmptyRecord));
    let long = records(b"\x01\x00\x42\x68\x03\x03", 6);
    assert_eq!(
        ClientHello::read(&long, 1 << 14),
        Err(HelloError::TooLong { limit: 1 << 14 })
    );
    let alert = [&records(&message[..9], 9)[..], b"\x15\x03\x01\x00\x02"].concat();
    assert_eq!(ClientHello::read(&alert, 1 << 14), Err(HelloError::Record));
}

#[test]
fn a_hello_that_contradicts_itself_is_refused() {
    let good = hello();
    assert!(ClientHello::read(&records(&good, 1 << 14), 1 << 14).unwrap().is_some());
    // The length of the session id, of the ciphers, of the extensions, of a name.
    let at = |part: &[u8]| good.windows(part.len()).position(|bytes| bytes == part).unwrap();
    for (place, value) in [(38, 33), (72, 3), (at(b"\x00\x0c\x00\x00\x09"), 1), (at(b"\x02h2"), 0)] {
        let mut bad = good.clone();
        bad[place] = value;
        let read = ClientHello::read(&records(&bad, 1 << 14), 1 << 14);
        assert_eq!(read, Err(HelloError::Malformed), "{place}");
    }
}

#[test]
fn protocols_are_listed_by_number_with_names_of_their_own() {
    let names: std::collections::BTreeSet<_> = Protocol::ALL.iter().map(|protocol| protocol.as_str()).collect();
    assert_eq!(names.len(), Protocol::ALL.len());
    assert!(
        Protocol::ALL
            .iter()
            .enumerate()
            .all(|(at, protocol)| *protocol as usize == at)
    );
}

#[test]
fn seeds_of_the_fuzz_target_hold() {
    let corpus = "../../fuzz/corpus/sniff_stream";
    let mut seeds = 0;
    for file in std::fs::read_dir(corpus).unwrap() {
        properties::check(&std::fs::read(file.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds > 10, "{seeds}");
}
