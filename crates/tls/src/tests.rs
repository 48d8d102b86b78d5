//! Clients and servers of this crate against each other and against other people's.

mod certificates;
mod client;
mod config;
mod connector;
mod intercept;
mod peers;
mod server;
mod stream;
mod tlcp;

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use sluice_addr::Host;
use sluice_config::value::{OneOrMany, Secret};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use crate::client::{Connector, SessionCache};
use crate::config::{CertPairConfig, Certificates, OpensslClientConfig, PemSource, RustlsServerConfig};
use crate::server::{TlsAcceptor, TlsServerParams};
use crate::{HandshakeError, TlsStream};

/// A certificate authority of one test.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A leaf for `names`, each a DNS name or an IP address, with a P-256 key.
    fn issue(&self, names: &[&str]) -> CertPairConfig {
        self.issue_for(names, &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    fn issue_rsa(&self, names: &[&str]) -> CertPairConfig {
        let key = openssl::pkey::PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
        let pem = String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        self.issue_for(names, &KeyPair::from_pem(&pem).unwrap())
    }

    fn issue_for(&self, names: &[&str], key: &KeyPair) -> CertPairConfig {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, *names.first().unwrap());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        CertPairConfig {
            certificate: certificates(&certificate.pem()),
            private_key: inline(&key.serialize_pem()),
        }
    }

    fn certificates(&self) -> Certificates {
        certificates(&self.pem)
    }

    /// A client that trusts this authority alone.
    fn client(&self) -> OpensslClientConfig {
        OpensslClientConfig {
            ca_certificate: Some(self.certificates()),
            no_default_ca_certificate: true,
            ..OpensslClientConfig::default()
        }
    }

    fn server(&self, names: &[&str]) -> RustlsServerConfig {
        RustlsServerConfig {
            cert_pairs: OneOrMany(vec![self.issue(names)]),
            ..RustlsServerConfig::default()
        }
    }
}

fn inline(pem: &str) -> PemSource {
    PemSource::Inline(Secret::new(pem.to_owned()))
}

fn certificates(pem: &str) -> Certificates {
    Certificates(vec![inline(pem)])
}

fn pem_text(source: &PemSource) -> &str {
    match source {
        PemSource::Inline(text) => text.reveal(),
        PemSource::File(_) => panic!("not inline"),
    }
}

fn here() -> &'static Path {
    Path::new(".")
}

fn host(name: &str) -> Host {
    Host::parse(name).unwrap()
}

fn connector(config: &OpensslClientConfig) -> Connector {
    Connector::build(config, here(), SessionCache::ManySites).unwrap()
}

fn params(config: &RustlsServerConfig) -> TlsServerParams {
    TlsServerParams::from_rustls(config, here()).unwrap()
}

/// The two acceptors of one set of parameters, with their names.
fn backends(params: &TlsServerParams) -> [(&'static str, TlsAcceptor); 2] {
    [
        ("openssl", params.openssl().unwrap()),
        ("rustls", params.rustls().unwrap()),
    ]
}

type Shaken = Result<TlsStream<DuplexStream>, HandshakeError>;
type Ends = (Shaken, Shaken);

/// A client's handshake with its last flight, which would otherwise wait for what the client says first.
async fn sent(handshake: impl Future<Output = Shaken>) -> Shaken {
    let mut client = handshake.await?;
    client.flush().await.map_err(HandshakeError::Io)?;
    Ok(client)
}

/// One handshake in memory: what the client got, what the server got.
async fn shake(connector: &Connector, name: &str, alpn: &[&[u8]], acceptor: &TlsAcceptor) -> Ends {
    let (near, far) = duplex(64 * 1024);
    let name = host(name);
    tokio::join!(sent(connector.connect(near, &name, 443, alpn)), acceptor.accept(far))
}

async fn connected(
    connector: &Connector,
    name: &str,
    acceptor: &TlsAcceptor,
) -> (TlsStream<DuplexStream>, TlsStream<DuplexStream>) {
    let (client, server) = shake(connector, name, &[], acceptor).await;
    (client.unwrap(), server.unwrap())
}
