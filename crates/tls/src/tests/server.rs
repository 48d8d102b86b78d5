//! One table of cases for both acceptors.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::config::{OpensslProtocol, OpensslServerConfig, TicketerConfig, TlsVersion};
use crate::server::Ticketer;
use crate::{Alert, BuildError};

#[tokio::test]
async fn the_servers_order_of_protocols_wins_and_strangers_are_refused() {
    let ca = Ca::new("ca");
    let connector = connector(&ca.client());
    let params = params(&ca.server(&["a.test"])).with_alpn(&[b"h2", b"http/1.1"]);
    for (backend, acceptor) in backends(&params) {
        for (offered, chosen) in [
            (&[&b"http/1.1"[..], b"h2"][..], Some(&b"h2"[..])),
            (&[b"spdy/3", b"http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ] {
            let (client, server) = shake(&connector, "a.test", offered, &acceptor).await;
            assert_eq!(client.unwrap().alpn(), chosen, "{backend}");
            assert_eq!(server.unwrap().alpn(), chosen, "{backend}");
        }
        let (client, server) = shake(&connector, "a.test", &[b"spdy/3"], &acceptor).await;
        assert!(
            matches!(client, Err(HandshakeError::Alert(Alert(120)))),
            "{backend}: {client:?}"
        );
        assert!(
            matches!(server, Err(HandshakeError::Protocol(_))),
            "{backend}: {server:?}"
        );
    }
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name_then_by_what_the_client_can_verify() {
    let ca = Ca::new("ca");
    let config = RustlsServerConfig {
        cert_pairs: OneOrMany(vec![
            ca.issue(&["a.test", "127.0.0.1"]),
            ca.issue(&["*.b.test"]),
            ca.issue_rsa(&["a.test"]),
        ]),
        ..RustlsServerConfig::default()
    };
    let client = OpensslClientConfig {
        insecure: true,
        ..ca.client()
    };
    let only = |suite: &str| OpensslClientConfig {
        protocol: Some(OpensslProtocol::Tls(TlsVersion::Tls1_2)),
        ciphers: Some(crate::config::Ciphers(suite.to_owned())),
        ..client.clone()
    };
    let rsa_only = only("ECDHE-RSA-AES128-GCM-SHA256");
    let ec_only = only("ECDHE-ECDSA-AES128-GCM-SHA256");
    for (backend, acceptor) in backends(&params(&config)) {
        for (config, name, subject, rsa) in [
            (&client, "a.test", "a.test", false),
            (&client, "x.b.test", "*.b.test", false),
            (&client, "stranger.test", "a.test", false),
            (&client, "127.0.0.1", "a.test", false),
            (&rsa_only, "a.test", "a.test", true),
            (&rsa_only, "stranger.test", "a.test", true),
            (&ec_only, "a.test", "a.test", false),
        ] {
            let (client, _server) = connected(&connector(config), name, &acceptor).await;
            assert_eq!(client.peer_common_name().as_deref(), Some(subject), "{backend} {name}");
            let leaf = openssl::x509::X509::from_der(&client.peer_certificate_der().unwrap()).unwrap();
            assert_eq!(leaf.public_key().unwrap().rsa().is_ok(), rsa, "{backend} {name}");
        }
        let (client, server) = shake(&connector(&rsa_only), "x.b.test", &[], &acceptor).await;
        assert!(client.is_err() && server.is_err(), "{backend}");
    }
}

#[tokio::test]
async fn a_client_must_have_a_certificate_of_the_right_authority_if_one_is_demanded() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let config = RustlsServerConfig {
        enable_client_auth: true,
        ca_certificate: Some(ca.certificates()),
        ..ca.server(&["a.test"])
    };
    for version in [TlsVersion::Tls1_2, TlsVersion::Tls1_3] {
        let client = OpensslClientConfig {
            protocol: Some(OpensslProtocol::Tls(version)),
            ..ca.client()
        };
        for (backend, acceptor) in backends(&params(&config)) {
            let bare = shake(&connector(&client), "a.test", &[], &acceptor).await.1;
            assert!(
                matches!(bare, Err(HandshakeError::Verify(_) | HandshakeError::Protocol(_))),
                "{backend} {version:?}: {bare:?}"
            );
            let stranger = OpensslClientConfig {
                cert_pair: Some(other.issue(&["client"])),
                ..client.clone()
            };
            let refused = shake(&connector(&stranger), "a.test", &[], &acceptor).await.1;
            assert!(
                matches!(refused, Err(HandshakeError::Verify(_))),
                "{backend} {version:?}: {refused:?}"
            );
            let friend = OpensslClientConfig {
                cert_pair: Some(ca.issue(&["client"])),
                ..client.clone()
            };
            let (_, server) = shake(&connector(&friend), "a.test", &[], &acceptor).await;
            assert_eq!(
                server.unwrap().peer_common_name().as_deref(),
                Some("client"),
                "{backend} {version:?}"
            );
        }
    }
}

/// Connects, and says whether a session was resumed and the client's certificate is known all the same.
async fn visit(connector: &Connector, acceptor: &TlsAcceptor) -> (bool, bool) {
    let (mut client, mut server) = connected(connector, "a.test", acceptor).await;
    server.write_all(b"x").await.unwrap();
    server.shutdown().await.unwrap();
    client.read_to_end(&mut Vec::new()).await.unwrap();
    client.shutdown().await.unwrap();
    server.read_to_end(&mut Vec::new()).await.unwrap();
    (server.resumed(), server.peer_certificate_der().is_some())
}

#[tokio::test]
async fn sessions_are_resumed_by_ticket_or_cache_as_configured_with_client_certificates_too() {
    let ca = Ca::new("ca");
    for demanded in [false, true] {
        for version in [TlsVersion::Tls1_2, TlsVersion::Tls1_3] {
            for (no_ticket, no_cache, resumes) in [
                (false, false, true),
                (true, false, true),
                (false, true, true),
                (true, true, false),
            ] {
                let config = RustlsServerConfig {
                    no_session_ticket: no_ticket,
                    no_session_cache: no_cache,
                    enable_client_auth: demanded,
                    ca_certificate: demanded.then(|| ca.certificates()),
                    ..ca.server(&["a.test"])
                };
                let client = OpensslClientConfig {
                    protocol: Some(OpensslProtocol::Tls(version)),
                    cert_pair: demanded.then(|| ca.issue(&["client"])),
                    ..ca.client()
                };
                for (backend, acceptor) in backends(&params(&config)) {
                    // rustls keeps no TLS 1.3 state but in its tickets.
                    let resumes = resumes && !(backend == "rustls" && no_ticket && version == TlsVersion::Tls1_3);
                    let connector = connector(&client);
                    let case = format!("{backend} {version:?} demanded={demanded} {no_ticket} {no_cache}");
                    assert_eq!(visit(&connector, &acceptor).await, (false, demanded), "{case}");
                    assert_eq!(visit(&connector, &acceptor).await, (resumes, demanded), "{case}");
                    assert_eq!(visit(&connector, &acceptor).await, (resumes, demanded), "{case}");
                }
            }
        }
    }
}

/// TLS-06: keys are known by their names.
#[tokio::test]
async fn a_shared_ticketer_keeps_tickets_good_over_a_rebuild_and_another_one_does_not() {
    let ca = Ca::new("ca");
    let config = RustlsServerConfig {
        no_session_cache: true,
        ..ca.server(&["a.test"])
    };
    let ticketer = || Ticketer::new(&TicketerConfig::default()).unwrap();
    for version in [TlsVersion::Tls1_2, TlsVersion::Tls1_3] {
        let client = OpensslClientConfig {
            protocol: Some(OpensslProtocol::Tls(version)),
            ..ca.client()
        };
        let (kept, other) = (ticketer(), ticketer());
        let build = |ticketer: &std::sync::Arc<Ticketer>| backends(&params(&config).with_ticketer(ticketer.clone()));
        for (((backend, old), (_, new)), (_, strange)) in build(&kept).into_iter().zip(build(&kept)).zip(build(&other))
        {
            let connector = connector(&client);
            assert!(!visit(&connector, &old).await.0, "{backend}");
            assert!(visit(&connector, &new).await.0, "{backend} {version:?}");
            assert!(!visit(&connector, &strange).await.0, "{backend} {version:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_in_its_hello_is_timed_out() {
    let ca = Ca::new("ca");
    for (backend, acceptor) in backends(&params(&ca.server(&["a.test"]))) {
        for sent in [&b""[..], &[22, 3, 1, 0, 100, 1, 0]] {
            let (mut near, far) = duplex(4096);
            near.write_all(sent).await.unwrap();
            let start = tokio::time::Instant::now();
            let error = acceptor.accept(far).await.unwrap_err();
            assert!(matches!(error, HandshakeError::Timeout(_)), "{backend}: {error}");
            assert_eq!(start.elapsed().as_secs(), 10, "{backend}");
        }
    }
}

#[tokio::test]
async fn what_is_no_hello_is_refused() {
    let ca = Ca::new("ca");
    // A hello that claims 16 MiB, and one of empty records without end, are no reason to go on reading.
    let mut endless = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    endless.resize(5 + 0x4000, 0);
    let empty = [22, 3, 1, 0, 0].repeat(100);
    for (backend, acceptor) in backends(&params(&ca.server(&["a.test"]))) {
        for (what, sent) in [
            ("endless", &endless[..]),
            ("http", b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            ("empty", &empty),
            ("oversized record", &[22, 3, 1, 0xff, 0xff, 1]),
        ] {
            let (mut near, far) = duplex(64 * 1024);
            near.write_all(sent).await.unwrap();
            let error = acceptor.accept(far).await.unwrap_err();
            assert!(
                matches!(error, HandshakeError::Protocol(_)),
                "{backend} {what}: {error:?}"
            );
        }
        let (near, far) = duplex(4096);
        drop(near);
        let error = acceptor.accept(far).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Closed), "{backend}: {error:?}");
        let stranger = connector(&Ca::new("other").client());
        let error = shake(&stranger, "a.test", &[], &acceptor).await.1.unwrap_err();
        assert!(
            matches!(error, HandshakeError::Alert(Alert(48))),
            "{backend}: {error:?}"
        );
    }
}

#[test]
fn a_server_needs_a_pair_and_both_halves_of_it() {
    let ca = Ca::new("ca");
    let pair = ca.issue(&["a.test"]);
    let none = RustlsServerConfig::default;
    let cases = [
        (none(), "`a TLS server` needs `cert_pairs`"),
        (
            RustlsServerConfig {
                certificate: Some(pair.certificate.clone()),
                ..none()
            },
            "`certificate` needs `private_key`",
        ),
        (
            RustlsServerConfig {
                no_session_ticket: true,
                use_session_ticket: Some(true),
                ..ca.server(&["a.test"])
            },
            "`no_session_ticket` and `use_session_ticket` exclude each other",
        ),
        (
            RustlsServerConfig {
                cert_pairs: OneOrMany(vec![
                    pair.clone(),
                    CertPairConfig {
                        certificate: pair.certificate.clone(),
                        private_key: ca.issue(&["b"]).private_key,
                    },
                ]),
                ..none()
            },
            "`cert_pairs[1].private_key`: inline PEM is not the key of the certificate in inline PEM",
        ),
    ];
    for (config, message) in cases {
        let error: BuildError = TlsServerParams::from_rustls(&config, here()).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let error = TlsServerParams::from_openssl(&OpensslServerConfig::default(), here()).unwrap_err();
    assert_eq!(error.to_string(), "`a TLS server` needs `cert_pairs`");
}
