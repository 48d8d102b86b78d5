//! TLCP, in both builds: refused by name, or spoken.

use super::*;
use crate::config::{OpensslProtocol, OpensslServerConfig, TlcpCertPairConfig};

#[cfg(not(feature = "tongsuo"))]
#[test]
fn tlcp_is_refused_by_name_where_the_library_has_it_not() {
    let pem = || PemSource::File("x.pem".into());
    let pair = TlcpCertPairConfig {
        sign_certificate: Certificates(vec![pem()]),
        sign_private_key: pem(),
        enc_certificate: Certificates(vec![pem()]),
        enc_private_key: pem(),
    };
    let client = |config| {
        Connector::build(&config, here(), SessionCache::OneSite)
            .unwrap_err()
            .to_string()
    };
    let none = OpensslClientConfig::default;
    let protocol = client(OpensslClientConfig {
        protocol: Some(OpensslProtocol::Tlcp),
        ..none()
    });
    assert_eq!(protocol, "`protocol`: TLCP needs a build with the feature `tongsuo`");
    let cert_pair = client(OpensslClientConfig {
        tlcp_cert_pair: Some(pair.clone()),
        ..none()
    });
    assert_eq!(
        cert_pair,
        "`tlcp_cert_pair`: TLCP needs a build with the feature `tongsuo`"
    );
    let config = OpensslServerConfig {
        tlcp_cert_pairs: OneOrMany(vec![pair]),
        ..OpensslServerConfig::default()
    };
    let server = TlsServerParams::from_openssl(&config, here()).unwrap_err().to_string();
    assert_eq!(
        server,
        "`tlcp_cert_pairs`: TLCP needs a build with the feature `tongsuo`"
    );
}

#[cfg(feature = "tongsuo")]
mod spoken {
    use openssl::asn1::Asn1Time;
    use openssl::bn::{BigNum, MsbOption};
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::{PKey, Private};
    use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
    use openssl::x509::{X509, X509Name};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::Ciphers;

    fn key() -> PKey<Private> {
        let group = EcGroup::from_curve_name(Nid::SM2).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    }

    fn certificate(
        name: &str,
        key: &PKey<Private>,
        issuer: Option<(&X509, &PKey<Private>)>,
        usage: openssl::x509::X509Extension,
    ) -> X509 {
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let mut serial = BigNum::new().unwrap();
        serial.rand(120, MsbOption::MAYBE_ZERO, false).unwrap();
        builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
        let mut subject = X509Name::builder().unwrap();
        subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
        let subject = subject.build();
        builder.set_subject_name(&subject).unwrap();
        builder.set_pubkey(key).unwrap();
        match issuer {
            Some((ca, _)) => {
                builder.set_issuer_name(ca.subject_name()).unwrap();
                let names = SubjectAlternativeName::new()
                    .dns(name)
                    .build(&builder.x509v3_context(Some(ca), None));
                builder.append_extension(names.unwrap()).unwrap();
            }
            None => {
                builder.set_issuer_name(&subject).unwrap();
                builder
                    .append_extension(BasicConstraints::new().critical().ca().build().unwrap())
                    .unwrap();
            }
        }
        builder.append_extension(usage).unwrap();
        let signer = issuer.map_or(key, |(_, key)| key);
        builder.sign(signer, MessageDigest::from_name("SM3").unwrap()).unwrap();
        builder.build()
    }

    struct Sm2Ca {
        key: PKey<Private>,
        certificate: X509,
    }

    impl Sm2Ca {
        fn new() -> Self {
            let key = key();
            let certificate = certificate("ca", &key, None, KeyUsage::new().key_cert_sign().build().unwrap());
            Self { key, certificate }
        }

        fn issue(&self, name: &str) -> TlcpCertPairConfig {
            let issuer = Some((&self.certificate, &self.key));
            let (sign, enc) = (key(), key());
            let signing = certificate(
                name,
                &sign,
                issuer,
                KeyUsage::new().digital_signature().build().unwrap(),
            );
            let usage = KeyUsage::new()
                .key_encipherment()
                .data_encipherment()
                .key_agreement()
                .build()
                .unwrap();
            let encrypting = certificate(name, &enc, issuer, usage);
            let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap();
            TlcpCertPairConfig {
                sign_certificate: certificates(&text(signing.to_pem().unwrap())),
                sign_private_key: inline(&text(sign.private_key_to_pem_pkcs8().unwrap())),
                enc_certificate: certificates(&text(encrypting.to_pem().unwrap())),
                enc_private_key: inline(&text(enc.private_key_to_pem_pkcs8().unwrap())),
            }
        }

        fn certificates(&self) -> Certificates {
            certificates(&String::from_utf8(self.certificate.to_pem().unwrap()).unwrap())
        }

        fn client(&self) -> OpensslClientConfig {
            OpensslClientConfig {
                protocol: Some(OpensslProtocol::Tlcp),
                ca_certificate: Some(self.certificates()),
                no_default_ca_certificate: true,
                ..OpensslClientConfig::default()
            }
        }
    }

    fn acceptor(config: &OpensslServerConfig) -> TlsAcceptor {
        TlsServerParams::from_openssl(config, here())
            .unwrap()
            .openssl()
            .unwrap()
    }

    async fn echoed(connector: &Connector, name: &str, acceptor: &TlsAcceptor) -> TlsStream<DuplexStream> {
        let (mut client, mut server) = connected(connector, name, acceptor).await;
        let mut buf = [0; 5];
        client.write_all(b"hello").await.unwrap();
        client.flush().await.unwrap();
        server.read_exact(&mut buf).await.unwrap();
        server.write_all(&buf).await.unwrap();
        server.shutdown().await.unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"hello");
        client
    }

    #[tokio::test]
    async fn a_server_of_tlcp_alone_and_one_of_both_are_spoken_to() {
        let (ca, tls_ca) = (Sm2Ca::new(), Ca::new("ca"));
        let alone = OpensslServerConfig {
            tlcp_cert_pairs: OneOrMany(vec![ca.issue("a.test"), ca.issue("b.test")]),
            ..OpensslServerConfig::default()
        };
        let both = OpensslServerConfig {
            cert_pairs: OneOrMany(vec![tls_ca.issue(&["a.test"])]),
            ..alone.clone()
        };
        for config in [&alone, &both] {
            for cipher in ["ECC-SM2-SM4-GCM-SM3", "ECC-SM2-SM4-CBC-SM3"] {
                let client = OpensslClientConfig {
                    ciphers: Some(Ciphers(cipher.into())),
                    ..ca.client()
                };
                for name in ["a.test", "b.test"] {
                    let client = echoed(&connector(&client), name, &acceptor(config)).await;
                    assert_eq!(client.peer_common_name().as_deref(), Some(name));
                }
            }
            let stranger = Sm2Ca::new().client();
            let (client, _) = shake(&connector(&stranger), "a.test", &[], &acceptor(config)).await;
            assert!(matches!(client, Err(HandshakeError::Verify(_))), "{client:?}");
        }
        let client = echoed(&connector(&tls_ca.client()), "a.test", &acceptor(&both)).await;
        assert_eq!(client.version(), "TLSv1.3");
    }

    #[tokio::test]
    async fn both_sides_have_certificates_with_ecdhe() {
        let ca = Sm2Ca::new();
        let server = OpensslServerConfig {
            tlcp_cert_pairs: OneOrMany(vec![ca.issue("a.test")]),
            enable_client_auth: true,
            ca_certificate: Some(ca.certificates()),
            ..OpensslServerConfig::default()
        };
        let client = OpensslClientConfig {
            tlcp_cert_pair: Some(ca.issue("client")),
            ciphers: Some(Ciphers("ECDHE-SM2-SM4-GCM-SM3".into())),
            ..ca.client()
        };
        echoed(&connector(&client), "a.test", &acceptor(&server)).await;
        let defaults = OpensslClientConfig {
            ciphers: None,
            ..client
        };
        echoed(&connector(&defaults), "a.test", &acceptor(&server)).await;
    }

    #[test]
    fn a_pair_for_tls_does_not_go_with_tlcp() {
        let config = OpensslClientConfig {
            cert_pair: Some(Ca::new("ca").issue(&["a"])),
            ..Sm2Ca::new().client()
        };
        let error = Connector::build(&config, here(), SessionCache::OneSite).unwrap_err();
        assert_eq!(error.to_string(), "`cert_pair` and `protocol: tlcp` exclude each other");
    }
}
