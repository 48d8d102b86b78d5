//! The client of interceptions: which library asks whom.

use openssl::ssl::{Ssl, SslContext, SslMethod, SslOptions, SslVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::client::Site;
use crate::config::TlsVersion;
use crate::intercept::InterceptionConnector;
use crate::openssl_stream::{OpensslStream, Side};
use crate::pem::Identity;
use crate::stream::Inner;

const NOBODY: Option<std::future::Ready<Option<DuplexStream>>> = None;

fn interception(config: &OpensslClientConfig) -> InterceptionConnector {
    InterceptionConnector::build(config, here()).unwrap()
}

fn site(name: &str, named: bool) -> Site {
    Site {
        name: host(name),
        port: 443,
        named,
    }
}

fn is_rustls(stream: &TlsStream<DuplexStream>) -> bool {
    matches!(stream.0, Inner::Rustls(_))
}

/// What the client got, and how often the server was connected to.
async fn asked<F>(
    connector: &InterceptionConnector,
    site: &Site,
    alpn: &[&[u8]],
    serve: impl Fn(DuplexStream) -> F,
) -> (Shaken, usize)
where
    F: Future<Output = ()>,
{
    let (near, far) = duplex(64 * 1024);
    let (second_near, second_far) = duplex(64 * 1024);
    let (redialled, redial) = tokio::sync::oneshot::channel();
    let again = async {
        redialled.send(()).unwrap();
        Some(second_near)
    };
    let servers = async {
        serve(far).await;
        match redial.await {
            Ok(()) => {
                serve(second_far).await;
                2
            }
            Err(_) => 1,
        }
    };
    let client = async {
        let mut client = connector.connect(near, site, alpn, Some(again)).await?;
        // The last flight, and a ticket if there is one.
        client.flush().await.map_err(HandshakeError::Io)?;
        client.read_exact(&mut [0]).await.map_err(HandshakeError::Io)?;
        Ok(client)
    };
    tokio::join!(client, servers)
}

/// Shakes hands and says a byte.
async fn greet(acceptor: &TlsAcceptor, io: DuplexStream) {
    if let Ok(mut stream) = acceptor.accept(io).await {
        // The client may not want it.
        let _ = stream.write_all(b"x").await;
        let _ = stream.flush().await;
    }
}

#[tokio::test]
async fn servers_of_today_are_asked_by_rustls_and_resume() {
    let ca = Ca::new("ca");
    let acceptors = backends(&params(&ca.server(&["a.test", "127.0.0.1"])));
    for (backend, acceptor) in acceptors {
        let connector = interception(&ca.client());
        for (name, named) in [("a.test", true), ("a.test", false), ("127.0.0.1", true)] {
            for resumed in [false, true] {
                let (client, connections) = asked(&connector, &site(name, named), &[], |io| greet(&acceptor, io)).await;
                let client = client.unwrap();
                assert!(is_rustls(&client), "{backend} {name}");
                assert_eq!(
                    (client.resumed(), connections),
                    (resumed, 1),
                    "{backend} {name} {named}"
                );
                assert!(client.verify_error().is_none() && client.peer_certificate_der().is_some());
            }
        }
        let other_port = Site {
            port: 444,
            ..site("a.test", true)
        };
        let (client, _) = asked(&connector, &other_port, &[], |io| greet(&acceptor, io)).await;
        assert!(!client.unwrap().resumed(), "{backend}");
        let without = interception(&OpensslClientConfig {
            no_session_cache: true,
            ..ca.client()
        });
        for _ in 0..2 {
            let (client, _) = asked(&without, &site("a.test", true), &[], |io| greet(&acceptor, io)).await;
            assert!(!client.unwrap().resumed(), "{backend}");
        }
    }
}

/// Shakes hands by OpenSSL's `context`, and says a byte.
async fn greet_by_openssl(context: &SslContext, io: DuplexStream) {
    let ssl = Ssl::new(context).unwrap();
    if let Ok(stream) = OpensslStream::handshake(ssl, io, Vec::new(), Side::Server).await {
        let mut stream = TlsStream::openssl(stream);
        stream.write_all(b"x").await.unwrap();
        stream.flush().await.unwrap();
    }
}

#[cfg(not(boring))]
#[tokio::test]
async fn an_old_server_is_asked_again_by_openssl_and_by_openssl_alone_after_that() {
    let ca = Ca::new("ca");
    let identity = Identity::load(&ca.issue_rsa(&["a.test"]), here(), "").unwrap();
    let mut context = SslContext::builder(SslMethod::tls_server()).unwrap();
    crate::client::set_common(&mut context);
    context.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
    context.set_cipher_list("AES128-GCM-SHA256").unwrap();
    crate::client::use_identity(&mut context, &identity, "").unwrap();
    let context = context.build();
    let connector = interception(&ca.client());
    for expected in [2, 1] {
        let (client, connections) = asked(&connector, &site("a.test", true), &[], |io| {
            greet_by_openssl(&context, io)
        })
        .await;
        let client = client.unwrap();
        assert!(!is_rustls(&client));
        assert_eq!((client.version(), connections), ("TLSv1.2", expected));
    }
}

#[tokio::test]
async fn sessions_of_tls_1_2_are_resumed_by_ticket_and_by_id() {
    let ca = Ca::new("ca");
    let identity = Identity::load(&ca.issue(&["a.test"]), here(), "").unwrap();
    for options in [SslOptions::empty(), SslOptions::NO_TICKET] {
        let mut context = SslContext::builder(SslMethod::tls_server()).unwrap();
        crate::client::set_common(&mut context);
        context.set_options(options);
        context.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
        context.set_session_id_context(b"x").unwrap();
        crate::client::use_identity(&mut context, &identity, "").unwrap();
        let context = context.build();
        let connector = interception(&ca.client());
        for resumed in [false, true, true] {
            let (client, _) = asked(&connector, &site("a.test", true), &[], |io| {
                greet_by_openssl(&context, io)
            })
            .await;
            let client = client.unwrap();
            assert!(is_rustls(&client));
            assert_eq!(
                (client.version(), client.resumed()),
                ("TLSv1.2", resumed),
                "{options:?}"
            );
        }
    }
}

#[tokio::test]
async fn versions_go_by_the_configuration() {
    let ca = Ca::new("ca");
    let acceptor = params(&ca.server(&["a.test"])).openssl().unwrap();
    for (min, max, version) in [
        (Some(TlsVersion::Tls1_0), None, "TLSv1.3"),
        (Some(TlsVersion::Tls1_2), Some(TlsVersion::Tls1_3), "TLSv1.3"),
        (Some(TlsVersion::Tls1_3), None, "TLSv1.3"),
        (None, Some(TlsVersion::Tls1_2), "TLSv1.2"),
    ] {
        let config = OpensslClientConfig {
            min_tls_version: min,
            max_tls_version: max,
            ..ca.client()
        };
        let connector = interception(&config);
        let (client, _) = asked(&connector, &site("a.test", true), &[], |io| greet(&acceptor, io)).await;
        let client = client.unwrap();
        assert_eq!(
            (is_rustls(&client), client.version()),
            (true, version),
            "{min:?} {max:?}"
        );
    }
    let old = interception(&OpensslClientConfig {
        max_tls_version: Some(TlsVersion::Tls1_1),
        ..ca.client()
    });
    let (client, connections) = asked(&old, &site("a.test", true), &[], |io| greet(&acceptor, io)).await;
    assert_eq!((client.is_err(), connections), (true, 1), "{client:?}");
}

#[tokio::test]
async fn who_is_wrong_is_told_by_openssl() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    for (backend, acceptor) in backends(&params(&ca.server(&["a.test"]))) {
        for (config, site, code) in [
            (other.client(), site("a.test", true), 20),
            (other.client(), site("a.test", false), 20),
            (ca.client(), site("b.test", true), 62),
            (ca.client(), site("127.0.0.1", true), 64),
        ] {
            let connector = interception(&config);
            for expected in [2, 1] {
                let (client, connections) = asked(&connector, &site, &[], |io| greet(&acceptor, io)).await;
                let Err(HandshakeError::Verify(error)) = client else {
                    panic!("{backend} {site:?}: {client:?}")
                };
                assert_eq!((error.code(), connections), (code, expected), "{backend} {site:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_without_a_protocol_in_common_is_asked_once() {
    let ca = Ca::new("ca");
    let connector = interception(&ca.client());
    let identity = ca.issue(&["a.test"]);
    let server = crate::intercept::Leaf::new(
        pem_text(identity.certificate.0.first().unwrap()),
        crate::intercept::LeafKey::Pem(pem_text(&identity.private_key)),
    )
    .unwrap();
    let acceptor = intercept::acceptor();
    let (client, connections) = asked(&connector, &site("a.test", true), &[b"h2"], |mut io| {
        let (server, acceptor) = (&server, &acceptor);
        async move {
            let hello = intercept::read_hello(&mut io).await;
            let _ = acceptor.accept(hello, io, server, Some(b"http/1.1")).await;
        }
    })
    .await;
    assert!(
        matches!(
            client,
            Err(HandshakeError::Alert(crate::Alert::NO_APPLICATION_PROTOCOL))
        ),
        "{client:?}"
    );
    assert_eq!(connections, 1);
}

#[tokio::test]
async fn a_request_for_a_certificate_is_noted_and_such_a_session_is_not_resumed() {
    let ca = Ca::new("ca");
    let connector = interception(&ca.client());
    let identity = Identity::load(&ca.issue(&["a.test"]), here(), "").unwrap();
    let anchor = openssl::x509::X509::from_pem(ca.pem.as_bytes()).unwrap();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for insists in [false, true] {
            let mut context = SslContext::builder(SslMethod::tls_server()).unwrap();
            crate::client::set_common(&mut context);
            context.set_max_proto_version(Some(version)).unwrap();
            context.set_session_id_context(b"x").unwrap();
            crate::client::use_identity(&mut context, &identity, "").unwrap();
            context.add_client_ca(&anchor).unwrap();
            let mut mode = openssl::ssl::SslVerifyMode::PEER;
            mode.set(openssl::ssl::SslVerifyMode::FAIL_IF_NO_PEER_CERT, insists);
            context.set_verify(mode);
            let context = context.build();
            for _ in 0..2 {
                let (client, connections) = asked(&connector, &site("a.test", true), &[], |io| {
                    greet_by_openssl(&context, io)
                })
                .await;
                assert_eq!(connections, 1);
                match client {
                    Ok(client) => {
                        assert!(!insists && is_rustls(&client));
                        assert!(client.asked_for_certificate() && !client.resumed());
                    }
                    // With TLS 1.3 the handshake is over by then: the read fails.
                    Err(HandshakeError::Io(error)) => {
                        assert!(insists && version == SslVersion::TLS1_3, "{error}");
                    }
                    Err(HandshakeError::WithoutCertificate(error)) => {
                        assert!(insists && version == SslVersion::TLS1_2, "{error}");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn openssl_asks_where_there_is_no_second_connection_or_a_key_is_its_own() {
    let ca = Ca::new("ca");
    let acceptor = params(&ca.server(&["a.test"])).rustls().unwrap();
    let own_key = OpensslClientConfig {
        supported_groups: Some("P-256".into()),
        ..ca.client()
    };
    let own_key = interception(&own_key);
    let (client, _) = asked(&own_key, &site("a.test", true), &[], |io| greet(&acceptor, io)).await;
    assert!(!is_rustls(&client.unwrap()));
    let (near, far) = duplex(64 * 1024);
    let (connector, site) = (interception(&ca.client()), site("a.test", true));
    let client = sent(connector.connect(near, &site, &[], NOBODY));
    let (client, _) = tokio::join!(client, greet(&acceptor, far));
    assert!(!is_rustls(&client.unwrap()));
}
