//! Certificates and keys from files: what is taken, and what each mistake is told as.

use std::fs;
use std::path::PathBuf;

use super::*;

fn build(dir: &Path, certificate: &str, key: &str) -> Result<(), String> {
    let config = RustlsServerConfig {
        certificate: Some(Certificates(vec![PemSource::File(certificate.into())])),
        private_key: Some(PemSource::File(key.into())),
        ..RustlsServerConfig::default()
    };
    TlsServerParams::from_rustls(&config, dir)
        .map(|_| ())
        .map_err(|error| error.to_string().replace(&dir.display().to_string(), "DIR"))
}

#[test]
fn every_form_of_key_is_read_and_mistakes_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).unwrap();
    let ca = Ca::new("ca");
    let (pair, other) = (ca.issue(&["a.test"]), ca.issue(&["b.test"]));
    let certificate = match &pair.certificate.0[..] {
        [PemSource::Inline(text)] => text.reveal().clone(),
        _ => unreachable!(),
    };
    let key = pem_text(&pair.private_key);
    let parsed = openssl::pkey::PKey::private_key_from_pem(key.as_bytes()).unwrap();
    let sec1 = parsed.ec_key().unwrap().private_key_to_pem().unwrap();
    let sealed = parsed
        .private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_256_cbc(), b"secret")
        .unwrap();
    write("cert.pem", certificate.as_bytes());
    write("chain.pem", format!("{certificate}{}", ca.pem).as_bytes());
    write("key.pem", key.as_bytes());
    write("sec1.pem", &sec1);
    write("both.pem", format!("{certificate}{key}").as_bytes());
    write("two.pem", format!("{key}{}", pem_text(&other.private_key)).as_bytes());
    write("other.pem", pem_text(&other.private_key).as_bytes());
    write("sealed.pem", &sealed);
    write("empty.pem", b"");
    write("text.pem", b"hello\n");
    write(
        "garbage.pem",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    write(
        "broken.pem",
        b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
    );
    write("huge.pem", &vec![b'\n'; 300_000]);
    for (certificate, key) in [
        ("cert.pem", "key.pem"),
        ("chain.pem", "sec1.pem"),
        ("both.pem", "both.pem"),
        ("cert.pem", "two.pem"),
    ] {
        assert_eq!(build(dir.path(), certificate, key), Ok(()), "{certificate} {key}");
    }
    for (certificate, key, message) in [
        (
            "cert.pem",
            "other.pem",
            "`private_key`: `DIR/other.pem` is not the key of the certificate in `DIR/cert.pem`",
        ),
        (
            "empty.pem",
            "key.pem",
            "`certificate`: `DIR/empty.pem`: no certificate in it",
        ),
        (
            "key.pem",
            "key.pem",
            "`certificate`: `DIR/key.pem`: no certificate in it",
        ),
        (
            "cert.pem",
            "text.pem",
            "`private_key`: `DIR/text.pem`: no private key in it",
        ),
        (
            "cert.pem",
            "sealed.pem",
            "`private_key`: `DIR/sealed.pem`: the private key is encrypted",
        ),
        (
            "cert.pem",
            "huge.pem",
            "`private_key`: `DIR/huge.pem`: larger than 256000 bytes",
        ),
        (
            "cert.pem",
            "none.pem",
            "`private_key`: `DIR/none.pem`: No such file or directory (os error 2)",
        ),
        (".", "key.pem", "`certificate`: `DIR/.`: not a regular file"),
    ] {
        assert_eq!(build(dir.path(), certificate, key), Err(message.to_owned()));
    }
    for certificate in ["garbage.pem", "broken.pem"] {
        let error = build(dir.path(), certificate, "key.pem").unwrap_err();
        assert!(
            error.starts_with(&format!("`certificate`: `DIR/{certificate}`: ")),
            "{error}"
        );
    }
}

#[test]
fn an_absolute_path_does_not_start_at_the_folder() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let source = PemSource::File(PathBuf::from(file.path()));
    assert_eq!(
        source.origin(Path::new("/elsewhere")),
        format!("`{}`", file.path().display())
    );
}

#[test]
fn keys_are_not_in_debug_output() {
    let ca = Ca::new("ca");
    let config = OpensslClientConfig {
        cert_pair: Some(ca.issue(&["a.test"])),
        ..ca.client()
    };
    assert!(!format!("{config:?}").contains("BEGIN"));
}
