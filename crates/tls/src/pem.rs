//! Reads the certificates and keys that a configuration names, for either library.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{CertPairConfig, Certificates, PemSource};
use crate::error::BuildError;

const MAX_CERTIFICATES: u64 = 4_000_000;
const MAX_KEY: u64 = 256_000;

/// A leaf certificate, its chain, and its key, which is known to belong to it.
pub(crate) struct Identity {
    pub(crate) chain: Vec<X509>,
    pub(crate) key: PKey<Private>,
}

impl Identity {
    /// Reads a pair; `prefix` is the path of the key that holds it, with a dot, or nothing.
    pub(crate) fn load(pair: &CertPairConfig, base: &Path, prefix: &str) -> Result<Self, BuildError> {
        Self::load_split(
            &pair.certificate,
            &pair.private_key,
            base,
            prefix,
            ["certificate", "private_key"],
        )
    }

    pub(crate) fn load_split(
        certificate: &Certificates,
        private_key: &PemSource,
        base: &Path,
        prefix: &str,
        keys: [&str; 2],
    ) -> Result<Self, BuildError> {
        let [certificate_key, private_key_key] = keys.map(|key| format!("{prefix}{key}"));
        let chain = load_certificates(certificate, base, &certificate_key)?;
        let key = load_key(private_key, base, &private_key_key)?;
        let matches = chain
            .first()
            .and_then(|leaf| leaf.public_key().ok())
            .is_some_and(|public| public.public_eq(&key));
        if !matches {
            return Err(BuildError::KeyMismatch {
                key: private_key_key,
                origin: private_key.origin(base),
                certificate: certificate
                    .0
                    .first()
                    .map(|source| source.origin(base))
                    .unwrap_or_default(),
            });
        }
        Ok(Self { chain, key })
    }

    /// The chain and key as rustls takes them.
    pub(crate) fn to_rustls(
        &self,
        key: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), BuildError> {
        let chain = self
            .chain
            .iter()
            .map(|certificate| certificate.to_der().map(CertificateDer::from))
            .collect::<Result<_, _>>()?;
        let der = self
            .key
            .private_key_to_pkcs8()
            .map_err(|e| BuildError::refused(key, e))?;
        Ok((chain, PrivateKeyDer::Pkcs8(der.into())))
    }
}

/// Reads all certificates that `sources` name; there is at least one.
pub(crate) fn load_certificates(sources: &Certificates, base: &Path, key: &str) -> Result<Vec<X509>, BuildError> {
    let mut all = Vec::new();
    for source in &sources.0 {
        let bad = |detail: String| BuildError::BadPem {
            key: key.to_owned(),
            origin: source.origin(base),
            detail,
        };
        let text = source.read(base, key, MAX_CERTIFICATES)?;
        let before = all.len();
        for der in CertificateDer::pem_slice_iter(&text) {
            let der = der.map_err(|error| bad(error.to_string()))?;
            all.push(X509::from_der(&der).map_err(|error| bad(format!("not a certificate: {error}")))?);
        }
        if all.len() == before {
            return Err(bad("no certificate in it".to_owned()));
        }
    }
    if all.is_empty() {
        return Err(BuildError::BadPem {
            key: key.to_owned(),
            origin: "the list".to_owned(),
            detail: "no certificate in it".to_owned(),
        });
    }
    Ok(all)
}

fn load_key(source: &PemSource, base: &Path, key: &str) -> Result<PKey<Private>, BuildError> {
    let bad = |detail: String| BuildError::BadPem {
        key: key.to_owned(),
        origin: source.origin(base),
        detail,
    };
    let text = source.read(base, key, MAX_KEY)?;
    // The first key counts; other items (a certificate, EC parameters) may stand before it.
    let der = match PrivateKeyDer::from_pem_slice(&text) {
        Ok(der) => der,
        Err(rustls_pki_types::pem::Error::NoItemsFound) => {
            let text = String::from_utf8_lossy(&text);
            let sealed = text.contains("ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED");
            return Err(bad(if sealed {
                "the private key is encrypted"
            } else {
                "no private key in it"
            }
            .to_owned()));
        }
        Err(error) => return Err(bad(error.to_string())),
    };
    PKey::private_key_from_der(der.secret_der()).map_err(|error| bad(format!("not a private key: {error}")))
}

impl PemSource {
    /// How messages name it.
    pub(crate) fn origin(&self, base: &Path) -> String {
        match self {
            Self::File(path) => format!("`{}`", base.join(path).display()),
            Self::Inline(_) => "inline PEM".to_owned(),
        }
    }

    fn read(&self, base: &Path, key: &str, limit: u64) -> Result<Vec<u8>, BuildError> {
        let path: PathBuf = match self {
            Self::Inline(text) => return Ok(text.reveal().as_bytes().to_vec()),
            Self::File(path) => base.join(path),
        };
        read_bounded(&path, limit).map_err(|source| BuildError::Read {
            key: key.to_owned(),
            origin: self.origin(base),
            source,
        })
    }
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    file.take(limit + 1).read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::other(format!("larger than {limit} bytes")));
    }
    Ok(text)
}
