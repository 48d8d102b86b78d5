//! The acceptor of intercepted connections, and what either side is told when something is wrong.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::Alert;
use crate::client::Site;
use crate::config::{OpensslProtocol, TicketerConfig, TlsVersion};
use crate::intercept::{Hello, InterceptionAcceptor, Leaf, LeafError, LeafKey, refuse};
use crate::server::Ticketer;

pub(super) fn acceptor() -> InterceptionAcceptor {
    let ticketer = Ticketer::new(&TicketerConfig::default()).unwrap();
    InterceptionAcceptor::new(Duration::from_secs(10), ticketer).unwrap()
}

fn leaf(ca: &Ca, names: &[&str]) -> Leaf {
    leaf_of(&ca.issue(names))
}

fn leaf_of(pair: &CertPairConfig) -> Leaf {
    Leaf::new(
        pem_text(pair.certificate.0.first().unwrap()),
        LeafKey::Pem(pem_text(&pair.private_key)),
    )
    .unwrap()
}

/// Reads as far as the end of the ClientHello, a few bytes at a time.
pub(super) async fn read_hello(io: &mut DuplexStream) -> Hello {
    let mut bytes = Vec::new();
    loop {
        let mut few = [0; 100];
        let n = io.read(&mut few).await.unwrap();
        assert_ne!(n, 0, "the client has left");
        bytes.extend_from_slice(&few[..n]);
        if let Some(hello) = Hello::read(&bytes).unwrap() {
            return hello;
        }
    }
}

async fn intercept(
    connector: &Connector,
    name: &str,
    offer: &[&[u8]],
    acceptor: &InterceptionAcceptor,
    leaf: &Leaf,
    chosen: Option<&[u8]>,
) -> Ends {
    let (near, mut far) = duplex(64 * 1024);
    let name = host(name);
    let server = async {
        let hello = read_hello(&mut far).await;
        let asked: Vec<_> = hello.alpn().iter().map(Vec::as_slice).collect();
        assert_eq!(asked, offer);
        acceptor.accept(hello, far, leaf, chosen).await
    };
    tokio::join!(sent(connector.connect(near, &name, 443, offer)), server)
}

#[tokio::test]
async fn each_version_gets_the_leaf_and_the_protocol_that_the_upstream_chose() {
    let ca = Ca::new("ca");
    let leaf = leaf(&ca, &["a.test"]);
    let acceptor = acceptor();
    for version in [TlsVersion::Tls1_2, TlsVersion::Tls1_3] {
        let client = connector(&OpensslClientConfig {
            protocol: Some(OpensslProtocol::Tls(version)),
            ..ca.client()
        });
        for chosen in [Some(&b"http/1.1"[..]), Some(b"h2"), None] {
            let ends = intercept(&client, "a.test", &[b"h2", b"http/1.1"], &acceptor, &leaf, chosen).await;
            let (mut client, mut server) = (ends.0.unwrap(), ends.1.unwrap());
            assert_eq!(client.alpn(), chosen);
            assert_eq!(server.server_name(), Some("a.test"));
            client.write_all(b"ping").await.unwrap();
            client.flush().await.unwrap();
            let mut bytes = [0; 4];
            server.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"ping");
        }
    }
}

#[tokio::test]
async fn a_client_resumes_with_its_ticket_for_the_same_name_only() {
    let ca = Ca::new("ca");
    let leaf = leaf(&ca, &["a.test", "b.test"]);
    let acceptor = acceptor();
    for version in [TlsVersion::Tls1_2, TlsVersion::Tls1_3] {
        let client = connector(&OpensslClientConfig {
            protocol: Some(OpensslProtocol::Tls(version)),
            ..ca.client()
        });
        let mut resumed = Vec::new();
        for name in ["a.test", "a.test", "b.test"] {
            let ends = intercept(&client, name, &[], &acceptor, &leaf, None).await;
            let (mut client, mut server) = (ends.0.unwrap(), ends.1.unwrap());
            server.write_all(b"x").await.unwrap();
            server.flush().await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
            resumed.push(server.resumed());
        }
        assert_eq!(resumed, [false, true, false], "{version:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_authority_says_so_with_its_alert() {
    let (ours, other) = (Ca::new("ours"), Ca::new("other"));
    let leaf = leaf(&ours, &["a.test"]);
    let (client, server) = intercept(&connector(&other.client()), "a.test", &[], &acceptor(), &leaf, None).await;
    assert!(matches!(client, Err(HandshakeError::Verify(_))), "{client:?}");
    assert!(
        matches!(server, Err(HandshakeError::Alert(Alert::UNKNOWN_CA))),
        "{server:?}"
    );
}

#[tokio::test]
async fn a_refused_client_sees_the_alert() {
    let ca = Ca::new("ca");
    let (near, mut far) = duplex(64 * 1024);
    let server = async {
        read_hello(&mut far).await;
        refuse(&mut far, Alert::CERTIFICATE_EXPIRED).await.unwrap();
    };
    let connector = connector(&ca.client());
    let name = host("a.test");
    let (client, ()) = tokio::join!(sent(connector.connect(near, &name, 443, &[])), server);
    assert!(
        matches!(client, Err(HandshakeError::Alert(Alert::CERTIFICATE_EXPIRED))),
        "{client:?}"
    );
}

/// TLS-11: nothing but a ClientHello is taken for one, and none that never ends.
#[test]
fn what_is_no_hello_is_refused_with_an_alert() {
    assert!(Hello::read(b"").unwrap().is_none());
    assert!(Hello::read(&[22, 3, 1]).unwrap().is_none());
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[22, 3, 1, 0, 4, 2, 0, 0, 0],
        &[22, 3, 1, 0, 4, 1, 0, 0, 0],
    ] {
        let error = Hello::read(bytes).unwrap_err();
        assert_eq!(error.reply.get(..6), Some(&[21, 3, 3, 0, 2, 2][..]), "{error}");
    }
    let mut endless = vec![];
    for _ in 0..40 {
        endless.extend_from_slice(&[22, 3, 1, 0x20, 0]);
        endless.extend_from_slice(&[1; 0x2000]);
    }
    assert!(Hello::read(&endless).is_err());
}

#[test]
fn a_leaf_is_refused_that_no_client_could_be_shown() {
    let ca = Ca::new("ca");
    let (pair, other) = (ca.issue(&["a.test"]), ca.issue(&["b.test"]));
    let chain = pem_text(pair.certificate.0.first().unwrap());
    let key = pem_text(&pair.private_key);
    let other = pem_text(&other.private_key);
    assert!(matches!(Leaf::new("", LeafKey::Pem(key)), Err(LeafError::Chain)));
    assert!(matches!(
        Leaf::new(&chain.repeat(17), LeafKey::Pem(key)),
        Err(LeafError::Chain)
    ));
    assert!(matches!(Leaf::new(chain, LeafKey::Pem("")), Err(LeafError::Key)));
    assert!(matches!(Leaf::new(chain, LeafKey::Der(b"key")), Err(LeafError::Key)));
    assert!(matches!(
        Leaf::new(chain, LeafKey::Pem(other)),
        Err(LeafError::Refused(_))
    ));
    let parsed = openssl::pkey::PKey::private_key_from_pem(key.as_bytes()).unwrap();
    for der in [
        parsed.private_key_to_pkcs8().unwrap(),
        parsed.ec_key().unwrap().private_key_to_der().unwrap(),
    ] {
        Leaf::new(chain, LeafKey::Der(&der)).unwrap();
    }
}

#[test]
fn a_leaf_is_told_from_others_as_openssl_tells_it() {
    let ca = Ca::new("ca");
    for _ in 0..8 {
        let pair = ca.issue(&["a.test"]);
        let certificate =
            openssl::x509::X509::from_pem(pem_text(pair.certificate.0.first().unwrap()).as_bytes()).unwrap();
        let identity = leaf_of(&pair).identity().unwrap();
        let serial = certificate.serial_number().to_bn().unwrap().to_hex_str().unwrap();
        assert_eq!(identity.serial, serial.to_string());
        let digest = certificate.digest(openssl::hash::MessageDigest::sha256()).unwrap();
        let digest: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(identity.fingerprint, digest);
    }
}

/// TLS-03, TLS-09: without a name nothing is sent and the chain alone is checked; what was not checked vouches for nothing.
#[tokio::test]
async fn a_server_of_no_name_is_checked_by_its_chain_and_resumed_for_no_name() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let server = params(&ca.server(&["other.test"])).openssl().unwrap();
    let connector = connector(&ca.client());
    let site = Site {
        name: host("a.test"),
        port: 443,
        named: false,
    };
    for resumed in [false, true] {
        let (near, far) = duplex(64 * 1024);
        let (client, server) = tokio::join!(sent(connector.connect_to(near, &site, &[])), server.accept(far));
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        assert_eq!((client.resumed(), server.server_name()), (resumed, None));
        server.write_all(b"x").await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
    }
    let (client, _) = shake(&connector, "a.test", &[], &server).await;
    let Err(HandshakeError::Verify(error)) = client else {
        panic!("{client:?}")
    };
    assert_eq!(error.alert(), Alert::BAD_CERTIFICATE);
    let stranger = params(&other.server(&["a.test"])).openssl().unwrap();
    let (client, _) = shake(&connector, "a.test", &[], &stranger).await;
    let Err(HandshakeError::Verify(error)) = client else {
        panic!("{client:?}")
    };
    assert_eq!(error.alert(), Alert::UNKNOWN_CA);
}

#[tokio::test]
async fn a_key_of_rsa_signs_in_the_first_half_of_the_handshake_on_any_thread() {
    let ca = Ca::new("ca");
    assert!(!leaf(&ca, &["a.test"]).signs_slowly());
    let leaf = leaf_of(&ca.issue_rsa(&["a.test"]));
    assert!(leaf.signs_slowly());
    for version in [TlsVersion::Tls1_2, TlsVersion::Tls1_3] {
        let client = connector(&OpensslClientConfig {
            protocol: Some(OpensslProtocol::Tls(version)),
            ..ca.client()
        });
        let (near, mut far) = duplex(64 * 1024);
        let (acceptor, leaf) = (acceptor(), leaf.clone());
        let server = async {
            let hello = read_hello(&mut far).await;
            let answer = tokio::task::spawn_blocking(move || acceptor.answer(hello, far, &leaf, None));
            answer.await.unwrap().finish().await
        };
        let name = host("a.test");
        let (client, server) = tokio::join!(sent(client.connect(near, &name, 443, &[])), server);
        assert_eq!(server.unwrap().version(), client.unwrap().version());
    }
}
