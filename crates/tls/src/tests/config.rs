//! The forms as a file has them.

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use sluice_config::Load;
use sluice_config::value::Span;

use super::*;
use crate::RustlsClientConfig;
use crate::config::{Ciphers, OpensslProtocol, OpensslServerConfig, TicketerConfig, TlsVersion};

/// Reads `yaml` as a section of a file: the value, or the message of every error.
fn read<T: DeserializeOwned + Default + Debug>(yaml: &str) -> Result<T, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("main.yml");
    let lines: String = yaml.lines().map(|line| format!("  {line}\n")).collect();
    std::fs::write(&file, format!("controller:\n{lines}")).unwrap();
    let mut load = Load::open(&file);
    let value = load.section("controller");
    load.finish().map_err(|errors| errors.to_string())?;
    Ok(value.expect("a section without errors is there"))
}

#[test]
fn every_spelling_of_a_client_key_is_taken() {
    let full: OpensslClientConfig = read(
        "protocol: tls1.2\nciphers: [A, B]\ndisable-sni: on\nCertificate: c.pem\nkey: k.pem\nserver_auth_cert: [a.pem, b.pem]\n\
         no_default_ca_cert: yes\nnegotiation_timeout: 5s\ndisable_session_cache: true\nsession_cache_lru_max_sites: 7\n\
         session_cache_each_cap: 3\nsupported_groups: P-256:X25519\nuse_ocsp_stapling: true\nenable_sct: true\n\
         enable_grease: true\npermute_extensions: true\ninsecure: true",
    )
    .unwrap();
    let expected = OpensslClientConfig {
        protocol: Some(OpensslProtocol::Tls(TlsVersion::Tls1_2)),
        ciphers: Some(Ciphers("A:B".into())),
        disable_sni: true,
        certificate: Some(Certificates(vec![PemSource::File("c.pem".into())])),
        private_key: Some(PemSource::File("k.pem".into())),
        ca_certificate: Some(Certificates(vec![
            PemSource::File("a.pem".into()),
            PemSource::File("b.pem".into()),
        ])),
        no_default_ca_certificate: true,
        handshake_timeout: Span::secs(5),
        no_session_cache: true,
        session_cache_lru_max_sites: 7,
        session_cache_each_capacity: 3,
        supported_groups: Some("P-256:X25519".into()),
        use_ocsp_stapling: true,
        enable_sct: true,
        enable_grease: true,
        permute_extensions: true,
        insecure: true,
        ..OpensslClientConfig::default()
    };
    assert_eq!(full, expected);
    assert_eq!(full.without_effect(), ["enable_grease", "permute_extensions"]);
    assert_eq!(
        read::<OpensslClientConfig>("{}").unwrap(),
        OpensslClientConfig::default()
    );
    assert_eq!(read::<RustlsClientConfig>("{}").unwrap(), RustlsClientConfig::default());
}

#[test]
fn versions_and_protocols_have_many_spellings() {
    use TlsVersion::{Tls1_0, Tls1_1, Tls1_2, Tls1_3};
    for (text, version) in [
        ("1.0", Tls1_0),
        ("tls1.0", Tls1_0),
        ("TLS1.1", Tls1_1),
        ("1.2", Tls1_2),
        ("'1.2'", Tls1_2),
        ("tls12", Tls1_2),
        ("tls1_3", Tls1_3),
        ("1.3", Tls1_3),
    ] {
        let config: OpensslClientConfig = read(&format!("tls_version_min: {text}")).unwrap();
        assert_eq!(config.min_tls_version, Some(version), "{text}");
    }
    for (text, protocol) in [
        ("tls1", OpensslProtocol::Tls(Tls1_0)),
        ("Tls1_2", OpensslProtocol::Tls(Tls1_2)),
        ("tls1.3", OpensslProtocol::Tls(Tls1_3)),
        ("ssl3.0", OpensslProtocol::Ssl3),
        ("tlcp", OpensslProtocol::Tlcp),
        ("TLCP1_1", OpensslProtocol::Tlcp),
    ] {
        let config: OpensslClientConfig = read(&format!("protocol: {text}")).unwrap();
        assert_eq!(config.protocol, Some(protocol), "{text}");
    }
}

#[test]
fn a_server_takes_one_pair_or_a_list() {
    let one: RustlsServerConfig = read("cert_pairs:\n  cert: a.pem\n  private-key: a.key").unwrap();
    let many: OpensslServerConfig =
        read("cert_pairs:\n- {certificate: a.pem, key: a.key}\n- {cert: b.pem, key: b.key}").unwrap();
    assert_eq!(one.cert_pairs.len(), 1);
    assert_eq!(many.cert_pairs.len(), 2);
    assert_eq!(one.cert_pairs.first(), many.cert_pairs.first());
    let ticketer: TicketerConfig = read("check_interval: 1m\nlocal_lifetime: 600").unwrap();
    assert_eq!(
        (ticketer.check_interval, ticketer.local_lifetime),
        (Span::secs(60), 600)
    );
}

#[test]
fn inline_pem_is_told_from_a_file() {
    let config: OpensslClientConfig =
        read("ca_cert: |\n  -----BEGIN CERTIFICATE-----\n  AA==\n  -----END CERTIFICATE-----").unwrap();
    assert!(matches!(&config.ca_certificate.unwrap().0[..], [PemSource::Inline(_)]));
}

#[test]
fn what_is_no_such_value_is_an_error_that_names_it() {
    for (yaml, part) in [
        ("protocol: tls2", "no protocol is named `tls2`"),
        ("protocol: 1.2", "no protocol is named `1.2`"),
        ("min_tls_version: 2.0", "no TLS version is named `2"),
        ("ciphers: []", "no cipher is named"),
        ("ca_certificate: []", "no certificate is named"),
        ("certificate: ''", "expected a file or inline PEM"),
        ("cert_pair: {cert: a.pem}", "private_key"),
        ("verify: false", "verify"),
        ("handshake_timeout: 10sec", "handshake_timeout"),
    ] {
        let error = read::<OpensslClientConfig>(yaml).unwrap_err();
        assert!(error.contains(part), "{yaml}: {error}");
    }
    let error = read::<TicketerConfig>("source: {type: redis}").unwrap_err();
    assert!(error.contains("not built yet"), "{error}");
}

#[test]
fn an_error_shows_no_key() {
    let secret = "-----BEGIN PRIVATE KEY-----";
    let error = read::<OpensslClientConfig>(&format!("protocol: tls9\nprivate_key: '{secret}'")).unwrap_err();
    assert!(!error.contains("PRIVATE"), "{error}");
}
