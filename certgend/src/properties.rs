//! What holds for any certificate of an upstream, for tests and the fuzz target.

#![expect(clippy::unwrap_used, reason = "a panic here is a finding")]

use std::path::PathBuf;
use std::sync::LazyLock;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sluice_config::value::HistogramMetrics;
use sluice_wire::mint::{Certificate, ErrorCode, MintRequest, Usage};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::config::{CertgendConfig, Config};
use crate::keys::{KeyKind, LeafKey, RsaPool};
use crate::mint::Mint;
use crate::stats::Stats;

/// A CA in memory, its key in the file's text as g3fcgen allows it.
static MINT: LazyLock<(Mint, RsaPool, Stats)> = LazyLock::new(|| {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let quoted = |pem: String| serde_json::to_string(&pem).unwrap();
    let cert = quoted(params.self_signed(&key).unwrap().pem());
    let backend = format!(
        "{{ca_certificate: {cert}, ca_private_key: {}}}",
        quoted(key.serialize_pem())
    );
    let own: CertgendConfig =
        sluice_config::decode_text(&format!("{{backend: {backend}, never_mint: [bank.example]}}")).unwrap();
    let config = Config {
        own,
        stand_alone: true,
        base: PathBuf::new(),
    };
    let keys = RsaPool::default();
    keys.put(LeafKey::generate(KeyKind::Rsa).unwrap().into());
    let stats = Stats::new(HistogramMetrics::default());
    (Mint::build(&config, false).unwrap(), keys, stats)
});

fn is_bank(name: &str) -> bool {
    name.eq_ignore_ascii_case("bank.example") || name.to_ascii_lowercase().ends_with(".bank.example")
}

/// Mirrors `data`: what comes out is a certificate, never of a CA, never for what is never minted.
pub fn certificate(data: &[u8]) {
    let (mint, keys, stats) = &*MINT;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    for usage in Usage::ALL {
        let request = MintRequest {
            cert: Some(Certificate::Der(data.to_vec())),
            usage,
            ..MintRequest::new("www.example.com")
        };
        let ready = match mint.make(&request, now, keys, stats) {
            Ok(done) => done.ready,
            Err(error) => {
                assert!(
                    matches!(error.code, ErrorCode::Failed | ErrorCode::NeverMint),
                    "{error}"
                );
                continue;
            }
        };
        let leaf = CertificateDer::from_pem_slice(ready.chain.as_bytes()).unwrap();
        let (rest, leaf) = X509Certificate::from_der(&leaf).unwrap();
        assert!(rest.is_empty() && !leaf.is_ca());
        for extension in leaf.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::KeyUsage(usage) => assert!(!usage.key_cert_sign() && !usage.crl_sign()),
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        assert!(!matches!(name, GeneralName::DNSName(name) if is_bank(name)));
                    }
                }
                _ => {}
            }
        }
        if let Ok((_, upstream)) = X509Certificate::from_der(data) {
            // Other bytes may differ where the upstream's are read, but are not DER.
            let values = |cert: &X509Certificate<'_>| -> Vec<Vec<u8>> {
                let attributes = cert.subject().iter_attributes();
                attributes.map(|attribute| attribute.as_slice().to_vec()).collect()
            };
            assert_eq!(values(&leaf), values(&upstream));
        }
    }
}
