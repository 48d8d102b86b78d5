//! The OpenSSL client: trust, names, versions, sessions.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::BuildError;
use crate::config::{Ciphers, OpensslProtocol, TlsVersion};

async fn verdict(config: &OpensslClientConfig, name: &str, acceptor: &TlsAcceptor) -> Result<(), String> {
    match shake(&connector(config), name, &[], acceptor).await.0 {
        Ok(_) => Ok(()),
        Err(HandshakeError::Verify(error)) => Err(error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_server_must_prove_the_very_name_to_an_authority_we_trust() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    for (backend, acceptor) in backends(&params(&ca.server(&["a.test", "*.b.test", "127.0.0.1", "::1"]))) {
        for (name, ok) in [
            ("a.test", true),
            ("A.test.", true),
            ("x.b.test", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("c.test", false),
            ("x.y.b.test", false),
            ("b.test", false),
            ("127.0.0.2", false),
        ] {
            let result = verdict(&ca.client(), name, &acceptor).await;
            assert_eq!(result.is_ok(), ok, "{backend} {name}: {result:?}");
            let result = verdict(&other.client(), name, &acceptor).await;
            assert!(result.is_err(), "{backend} {name}");
        }
    }
}

#[tokio::test]
async fn insecure_goes_on_and_tells_what_was_wrong() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let config = OpensslClientConfig {
        insecure: true,
        ..other.client()
    };
    for (backend, acceptor) in backends(&params(&ca.server(&["a.test"]))) {
        let (client, _server) = connected(&connector(&config), "a.test", &acceptor).await;
        assert!(client.verify_error().is_some(), "{backend}");
        let config = OpensslClientConfig {
            insecure: true,
            ..ca.client()
        };
        let (client, _server) = connected(&connector(&config), "b.test", &acceptor).await;
        assert_eq!(
            client.verify_error().unwrap().reason(),
            "hostname mismatch",
            "{backend}"
        );
        let (client, _server) = connected(&connector(&config), "a.test", &acceptor).await;
        assert_eq!(client.verify_error(), None, "{backend}");
    }
}

#[tokio::test]
async fn versions_and_ciphers_are_those_asked_for() {
    use TlsVersion::{Tls1_2, Tls1_3};
    let ca = Ca::new("ca");
    let none = OpensslClientConfig::default;
    let ciphers = |name: &str| Some(Ciphers(name.to_owned()));
    let cases = [
        (none(), "TLSv1.3", None),
        (
            OpensslClientConfig {
                max_tls_version: Some(Tls1_2),
                ..none()
            },
            "TLSv1.2",
            None,
        ),
        (
            OpensslClientConfig {
                min_tls_version: Some(Tls1_3),
                ..none()
            },
            "TLSv1.3",
            None,
        ),
        (
            OpensslClientConfig {
                protocol: Some(OpensslProtocol::Tls(Tls1_2)),
                ..none()
            },
            "TLSv1.2",
            None,
        ),
        (
            OpensslClientConfig {
                protocol: Some(OpensslProtocol::Tls(Tls1_2)),
                ciphers: ciphers("ECDHE-ECDSA-CHACHA20-POLY1305"),
                ..none()
            },
            "TLSv1.2",
            Some("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
        ),
        (
            OpensslClientConfig {
                protocol: Some(OpensslProtocol::Tls(Tls1_3)),
                ciphers: ciphers("TLS_CHACHA20_POLY1305_SHA256"),
                ..none()
            },
            "TLSv1.3",
            Some("TLS_CHACHA20_POLY1305_SHA256"),
        ),
        (
            OpensslClientConfig {
                supported_groups: Some("P-256".into()),
                ..none()
            },
            "TLSv1.3",
            None,
        ),
        (
            OpensslClientConfig {
                use_ocsp_stapling: true,
                enable_sct: true,
                ..none()
            },
            "TLSv1.3",
            None,
        ),
    ];
    for (backend, acceptor) in backends(&params(&ca.server(&["a.test"]))) {
        for (config, version, cipher) in &cases {
            let config = OpensslClientConfig {
                ca_certificate: Some(ca.certificates()),
                no_default_ca_certificate: true,
                ..config.clone()
            };
            let (client, server) = connected(&connector(&config), "a.test", &acceptor).await;
            assert_eq!(client.version(), *version, "{backend}");
            assert_eq!(server.version(), *version, "{backend}");
            if let Some(cipher) = cipher {
                assert_eq!(client.cipher(), Some(*cipher), "{backend}");
            }
        }
    }
}

#[tokio::test]
async fn the_name_is_sent_unless_it_is_an_address_or_switched_off() {
    let ca = Ca::new("ca");
    let silent = OpensslClientConfig {
        disable_sni: true,
        ..ca.client()
    };
    for (backend, acceptor) in backends(&params(&ca.server(&["a.test", "127.0.0.1"]))) {
        for (config, name, sent) in [
            (&ca.client(), "a.test", Some("a.test")),
            (&ca.client(), "127.0.0.1", None),
            (&silent, "a.test", None),
        ] {
            let (_client, server) = connected(&connector(config), name, &acceptor).await;
            assert_eq!(server.server_name(), sent, "{backend} {name}");
        }
    }
}

/// Connects, and lets the tickets that follow the handshake arrive.
async fn visit(connector: &Connector, name: &str, port: u16, acceptor: &TlsAcceptor) -> bool {
    let (near, far) = duplex(64 * 1024);
    let name = host(name);
    let (client, server) = tokio::join!(sent(connector.connect(near, &name, port, &[])), acceptor.accept(far));
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    server.write_all(b"x").await.unwrap();
    server.shutdown().await.unwrap();
    client.read_to_end(&mut Vec::new()).await.unwrap();
    client.resumed()
}

#[tokio::test]
async fn sessions_are_resumed_for_the_same_name_and_port_only() {
    let ca = Ca::new("ca");
    for version in [TlsVersion::Tls1_2, TlsVersion::Tls1_3] {
        let config = OpensslClientConfig {
            protocol: Some(OpensslProtocol::Tls(version)),
            ..ca.client()
        };
        for (backend, acceptor) in backends(&params(&ca.server(&["a.test", "b.test"]))) {
            let connector = connector(&config);
            assert!(!visit(&connector, "a.test", 443, &acceptor).await, "{backend}");
            assert!(
                visit(&connector, "a.test", 443, &acceptor).await,
                "{backend} {version:?}"
            );
            assert!(!visit(&connector, "a.test", 444, &acceptor).await, "{backend}");
            assert!(!visit(&connector, "b.test", 443, &acceptor).await, "{backend}");
        }
    }
}

#[tokio::test]
async fn without_a_session_cache_nothing_is_resumed() {
    let ca = Ca::new("ca");
    for config in [
        OpensslClientConfig {
            no_session_cache: true,
            ..ca.client()
        },
        OpensslClientConfig {
            use_builtin_session_cache: true,
            ..ca.client()
        },
    ] {
        for (backend, acceptor) in backends(&params(&ca.server(&["a.test"]))) {
            let connector = connector(&config);
            for _ in 0..2 {
                assert!(!visit(&connector, "a.test", 443, &acceptor).await, "{backend}");
            }
        }
    }
}

#[tokio::test]
async fn a_tls_1_3_session_is_resumed_once() {
    let ca = Ca::new("ca");
    let config = OpensslClientConfig {
        session_cache_each_capacity: 1,
        ..ca.client()
    };
    let acceptor = params(&ca.server(&["a.test"])).openssl().unwrap();
    let connector = connector(&config);
    visit(&connector, "a.test", 443, &acceptor).await;
    let shake = || shake(&connector, "a.test", &[], &acceptor);
    // The second one comes before the first has read its new tickets.
    let (first, second) = (shake().await, shake().await);
    assert!(first.0.unwrap().resumed());
    assert!(!second.0.unwrap().resumed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_ends_the_handshake_in_time() {
    let ca = Ca::new("ca");
    let (near, _far) = duplex(4096);
    let start = tokio::time::Instant::now();
    let error = connector(&ca.client())
        .connect(near, &host("a.test"), 443, &[])
        .await
        .unwrap_err();
    assert!(matches!(error, HandshakeError::Timeout(_)), "{error}");
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn an_answer_that_is_not_tls_is_told_from_a_closed_connection() {
    let ca = Ca::new("ca");
    let (near, mut far) = duplex(4096);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let error = connector(&ca.client())
        .connect(near, &host("a.test"), 443, &[])
        .await
        .unwrap_err();
    assert!(matches!(error, HandshakeError::Protocol(_)), "{error}");
    let (near, far) = duplex(4096);
    drop(far);
    let error = connector(&ca.client())
        .connect(near, &host("a.test"), 443, &[])
        .await
        .unwrap_err();
    assert!(
        matches!(error, HandshakeError::Closed | HandshakeError::Io(_)),
        "{error}"
    );
}

#[test]
fn what_cannot_work_is_refused_at_load() {
    let ca = Ca::new("ca");
    let pair = ca.issue(&["a.test"]);
    let none = OpensslClientConfig::default;
    let cases: Vec<(OpensslClientConfig, &str)> = vec![
        (
            OpensslClientConfig {
                ciphers: Some(Ciphers("AES".into())),
                ..none()
            },
            "`ciphers` needs `protocol`",
        ),
        (
            OpensslClientConfig {
                min_tls_version: Some(TlsVersion::Tls1_3),
                max_tls_version: Some(TlsVersion::Tls1_2),
                ..none()
            },
            "`min_tls_version`: is above `max_tls_version`",
        ),
        (
            OpensslClientConfig {
                protocol: Some(OpensslProtocol::Tls(TlsVersion::Tls1_2)),
                ciphers: Some(Ciphers("NO-SUCH".into())),
                ..none()
            },
            "`ciphers`: ",
        ),
        (
            OpensslClientConfig {
                supported_groups: Some("nonsense".into()),
                ..none()
            },
            "`supported_groups`: ",
        ),
        (
            OpensslClientConfig {
                certificate: Some(pair.certificate.clone()),
                ..none()
            },
            "`certificate` needs `private_key`",
        ),
        (
            OpensslClientConfig {
                private_key: Some(pair.private_key.clone()),
                ..none()
            },
            "`private_key` needs `certificate`",
        ),
        (
            OpensslClientConfig {
                cert_pair: Some(pair.clone()),
                certificate: Some(pair.certificate.clone()),
                private_key: Some(pair.private_key.clone()),
                ..none()
            },
            "`cert_pair` and `certificate` exclude each other",
        ),
    ];
    for (config, message) in cases {
        let error: BuildError = Connector::build(&config, here(), SessionCache::ManySites).unwrap_err();
        assert!(error.to_string().starts_with(message), "{error}");
    }
}

#[tokio::test]
async fn either_form_of_the_clients_pair_is_shown_to_the_server() {
    let ca = Ca::new("ca");
    let pair = ca.issue(&["client.test"]);
    let mut config = ca.server(&["a.test"]);
    config.enable_client_auth = true;
    config.ca_certificate = Some(ca.certificates());
    let nested = OpensslClientConfig {
        cert_pair: Some(pair.clone()),
        ..ca.client()
    };
    let flat = OpensslClientConfig {
        certificate: Some(pair.certificate),
        private_key: Some(pair.private_key),
        ..ca.client()
    };
    for (backend, acceptor) in backends(&params(&config)) {
        for config in [&nested, &flat] {
            let (_client, server) = connected(&connector(config), "a.test", &acceptor).await;
            assert_eq!(server.peer_common_name().as_deref(), Some("client.test"), "{backend}");
        }
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_in_vain_is_noticed() {
    let ca = Ca::new("ca");
    let mut config = ca.server(&["a.test"]);
    config.enable_client_auth = true;
    config.ca_certificate = Some(ca.certificates());
    let of = |version, pair| OpensslClientConfig {
        protocol: Some(OpensslProtocol::Tls(version)),
        cert_pair: pair,
        ..ca.client()
    };
    let pair = || Some(ca.issue(&["client.test"]));
    for (backend, acceptor) in backends(&params(&config)) {
        let with_none = connector(&of(TlsVersion::Tls1_2, None));
        let error = shake(&with_none, "a.test", &[], &acceptor).await.0.unwrap_err();
        let HandshakeError::WithoutCertificate(error) = error else {
            panic!("{backend}: {error}")
        };
        assert!(matches!(*error, HandshakeError::Alert(_)), "{backend}: {error}");
        // The server says what it thinks of it after the handshake.
        let with_none = connector(&of(TlsVersion::Tls1_3, None));
        let client = shake(&with_none, "a.test", &[], &acceptor).await.0.unwrap();
        assert!(client.asked_for_certificate(), "{backend}");
        for version in [TlsVersion::Tls1_2, TlsVersion::Tls1_3] {
            let (client, _server) = connected(&connector(&of(version, pair())), "a.test", &acceptor).await;
            assert!(!client.asked_for_certificate(), "{backend} {version:?}");
        }
        let stranger = OpensslClientConfig {
            ca_certificate: None,
            ..of(TlsVersion::Tls1_3, None)
        };
        let untrusted = shake(&connector(&stranger), "a.test", &[], &acceptor)
            .await
            .0
            .unwrap_err();
        assert!(matches!(untrusted, HandshakeError::Verify(_)), "{backend}: {untrusted}");
    }
    for (backend, acceptor) in backends(&params(&ca.server(&["a.test"]))) {
        let (client, _server) = connected(&connector(&ca.client()), "a.test", &acceptor).await;
        assert!(!client.asked_for_certificate(), "{backend}");
    }
}

/// The types of the extensions of a ClientHello in one record (RFC 8446 §4.1.2, §4.2).
fn extensions(record: &[u8]) -> Vec<u16> {
    fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (front, back) = rest.split_at(length);
        *rest = back;
        front
    }
    fn counted<'a>(rest: &mut &'a [u8], width: usize) -> &'a [u8] {
        let length = take(rest, width)
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
        take(rest, length)
    }
    let mut rest = record;
    // Record and handshake headers, version, random.
    take(&mut rest, 5 + 4 + 2 + 32);
    for width in [1, 2, 1] {
        counted(&mut rest, width); // session id, suites, compression
    }
    let mut list = counted(&mut rest, 2);
    let mut types = Vec::new();
    while !list.is_empty() {
        let [high, low] = take(&mut list, 2).try_into().unwrap();
        types.push(u16::from_be_bytes([high, low]));
        counted(&mut list, 2);
    }
    types
}

/// TLS-10: no library here takes compressed certificates, so no server is told that it may send one (RFC 8879 §3).
#[tokio::test]
async fn compressed_certificates_are_not_asked_for() {
    const SERVER_NAME: u16 = 0;
    const COMPRESS_CERTIFICATE: u16 = 27;
    let ca = Ca::new("ca");
    let (near, mut far) = duplex(64 * 1024);
    let hello = async {
        let mut record = Vec::new();
        while record.len() < 5 || record.len() < 5 + usize::from(u16::from_be_bytes([record[3], record[4]])) {
            assert_ne!(far.read_buf(&mut record).await.unwrap(), 0);
        }
        drop(far);
        record
    };
    let (client, name) = (connector(&ca.client()), host("a.test"));
    let (outcome, hello) = tokio::join!(client.connect(near, &name, 443, &[b"h2"]), hello);
    assert!(outcome.is_err());
    let types = extensions(&hello);
    assert!(types.contains(&SERVER_NAME), "{types:?}");
    assert!(!types.contains(&COMPRESS_CERTIFICATE), "{types:?}");
}
