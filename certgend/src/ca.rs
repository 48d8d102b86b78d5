//! The CA: its files, read and checked.

mod init;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sluice_tls::config::PemSource;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::config::{BackendConfig, Config};
use crate::plan::key_id;
use crate::sign::Signer;

pub(crate) use init::command;

/// The largest file of certificates or of a key.
const LARGEST: u64 = 256_000;

/// The most bytes of PEM that the CA adds to each answer: with the leaf and its key they fit into one message.
const LARGEST_CHAIN: usize = 48 * 1024;

/// A CA that can sign.
pub(crate) struct Ca {
    pub(crate) signer: Signer,
    /// The certificates that are sent after the leaf, as PEM.
    pub(crate) chain: String,
    /// The key identifier of the CA.
    pub(crate) key_id: Vec<u8>,
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    /// Seconds since 1970.
    pub(crate) not_after: i64,
    /// Who it is, for people.
    pub(crate) subject: String,
    /// What an operator should look at.
    pub(crate) warnings: Vec<String>,
}

/// Why there is no CA.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaError {
    /// Nobody has said which.
    #[error("`{key}` is not set: there is no CA to sign with")]
    NotSet { key: String },
    /// The file is not there, or not yet.
    #[error("`{key}`: there is no `{}` (`sluicectl certgend ca init` makes a CA)", path.display())]
    Missing { key: String, path: PathBuf },
    /// The file can not be read.
    #[error("`{key}`: `{}` can not be read", path.display())]
    Read {
        key: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Others may read the key.
    #[error("`{key}`: `{}` has mode {mode:04o}, so that others may read the key: `chmod 600` it", path.display())]
    Loose { key: String, path: PathBuf, mode: u32 },
    /// Another user may change the key, or look at it.
    #[error("`{key}`: `{}` belongs to uid {uid}, not to the one that certgend runs as, nor to root", path.display())]
    Foreign { key: String, path: PathBuf, uid: u32 },
    /// What is there is no certificate or key.
    #[error("`{key}`: {detail}")]
    BadPem { key: String, detail: String },
    /// The key is another one.
    #[error("`{key}` does not belong to the first certificate of `{certificate}`")]
    Mismatch { key: String, certificate: String },
    /// The answers would be too long.
    #[error("`{key}`: the certificates have {length} bytes, more than the {LARGEST_CHAIN} that an answer has room for")]
    TooLong { key: String, length: usize },
    /// It can not sign.
    #[error("`{key}` can not be used to sign: {detail}")]
    Unusable { key: String, detail: String },
}

impl CaError {
    /// Whether nothing is wrong but that the CA was not made or not named so far.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::NotSet { .. } | Self::Missing { .. })
    }

    /// Whether nothing is wrong but that whoever looks is not certgend's user.
    pub(crate) fn is_of_reader(&self) -> bool {
        match self {
            Self::Foreign { .. } => true,
            Self::Read { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }

    /// The path of the key that is wrong.
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::NotSet { key }
            | Self::Missing { key, .. }
            | Self::Read { key, .. }
            | Self::Loose { key, .. }
            | Self::Foreign { key, .. }
            | Self::BadPem { key, .. }
            | Self::Mismatch { key, .. }
            | Self::TooLong { key, .. }
            | Self::Unusable { key, .. } => key,
        }
    }
}

impl Ca {
    /// Reads the CA that the configuration names.
    pub(crate) fn load(config: &Config) -> Result<Self, CaError> {
        let certificate = config.path_of("ca_certificate");
        let private_key = config.path_of("ca_private_key");
        let Some(backend) = &config.own.backend else {
            return Err(CaError::NotSet { key: certificate });
        };
        let certs = certificates(backend, config.base(), &certificate)?;
        let mut warnings = Vec::new();
        let key = key(backend, config, &private_key, &mut warnings)?;
        let first = certs.first().filter(|cert| {
            let public = cert.public_key();
            public.is_ok_and(|public| public.public_eq(&key))
        });
        let Some(first) = first else {
            return Err(CaError::Mismatch {
                key: private_key,
                certificate,
            });
        };
        let bad = |error: &dyn std::fmt::Display| CaError::BadPem {
            key: certificate.clone(),
            detail: format!("not a certificate: {error}"),
        };
        let der = first.to_der().map_err(|error| bad(&error))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| bad(&error))?;
        let signer = Signer::new(first.clone(), &parsed, key).map_err(|error| CaError::Unusable {
            key: private_key,
            detail: error.to_string(),
        })?;
        if !parsed.is_ca() {
            warnings.push(format!(
                "`{certificate}` is not marked as a CA: clients will refuse what it signs"
            ));
        }
        let chain = match backend.no_append_ca_cert {
            true => String::new(),
            false => pem_of(&certs, &certificate)?,
        };
        Ok(Self {
            signer,
            chain,
            key_id: own_key_id(&parsed),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            subject: parsed.subject().to_string(),
            warnings,
        })
    }
}

fn certificates(backend: &BackendConfig, base: &Path, key: &str) -> Result<Vec<X509>, CaError> {
    let mut all = Vec::new();
    for source in &backend.ca_certificate.0 {
        let text = match source {
            PemSource::Inline(text) => text.reveal().as_bytes().to_vec(),
            PemSource::File(path) => read(File::open(base.join(path)), &base.join(path), key)?,
        };
        let before = all.len();
        let bad = |detail: String| CaError::BadPem {
            key: key.to_owned(),
            detail,
        };
        for der in CertificateDer::pem_slice_iter(&text) {
            let der = der.map_err(|error| bad(error.to_string()))?;
            all.push(X509::from_der(&der).map_err(|error| bad(format!("not a certificate: {error}")))?);
        }
        if all.len() == before {
            return Err(bad(format!("there is no certificate in {}", origin(source, base))));
        }
    }
    Ok(all)
}

fn origin(source: &PemSource, base: &Path) -> String {
    match source {
        PemSource::File(path) => format!("`{}`", base.join(path).display()),
        PemSource::Inline(_) => "the inline PEM".to_owned(),
    }
}

fn key(
    backend: &BackendConfig,
    config: &Config,
    key: &str,
    warnings: &mut Vec<String>,
) -> Result<PKey<Private>, CaError> {
    let text = match &backend.ca_private_key {
        PemSource::Inline(text) => text.reveal().as_bytes().to_vec(),
        PemSource::File(path) => {
            let path = config.base().join(path);
            let file = File::open(&path);
            if let Ok(file) = &file
                && let Err(error) = guarded(file, &path, key)
            {
                // Files of others are as loose as they always were.
                match config.stand_alone {
                    true => warnings.push(error.to_string()),
                    false => return Err(error),
                }
            }
            read(file, &path, key)?
        }
    };
    let bad = |detail: String| CaError::BadPem {
        key: key.to_owned(),
        detail,
    };
    let der = match PrivateKeyDer::from_pem_slice(&text) {
        Ok(der) => der,
        Err(rustls_pki_types::pem::Error::NoItemsFound) => {
            let sealed = String::from_utf8_lossy(&text).contains("ENCRYPTED");
            let what = if sealed {
                "the private key is encrypted"
            } else {
                "there is no private key in it"
            };
            return Err(bad(what.to_owned()));
        }
        Err(error) => return Err(bad(error.to_string())),
    };
    PKey::private_key_from_der(der.secret_der()).map_err(|error| bad(format!("not a private key: {error}")))
}

/// Whether nobody but us and root can read or change the key's file, which is open already.
fn guarded(file: &File, path: &Path, key: &str) -> Result<(), CaError> {
    let (key, path) = (key.to_owned(), path.to_owned());
    let meta = match file.metadata() {
        Ok(meta) => meta,
        Err(source) => return Err(CaError::Read { key, path, source }),
    };
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CaError::Loose { key, path, mode });
    }
    let uid = meta.uid();
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(CaError::Foreign { key, path, uid });
    }
    Ok(())
}

fn read(file: io::Result<File>, path: &Path, key: &str) -> Result<Vec<u8>, CaError> {
    let read = || {
        let file = file?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut text = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut text)?;
        if text.len() as u64 > LARGEST {
            return Err(io::Error::other(format!("larger than {LARGEST} bytes")));
        }
        Ok(text)
    };
    read().map_err(|source| {
        let (key, path) = (key.to_owned(), path.to_owned());
        match source.kind() {
            io::ErrorKind::NotFound => CaError::Missing { key, path },
            _ => CaError::Read { key, path, source },
        }
    })
}

fn pem_of(certs: &[X509], key: &str) -> Result<String, CaError> {
    let mut chain = String::new();
    for cert in certs {
        let pem = cert.to_pem().map_err(|error| CaError::BadPem {
            key: key.to_owned(),
            detail: error.to_string(),
        })?;
        chain.push_str(&String::from_utf8_lossy(&pem));
    }
    match chain.len() {
        length if length > LARGEST_CHAIN => Err(CaError::TooLong {
            key: key.to_owned(),
            length,
        }),
        _ => Ok(chain),
    }
}

/// The identifier that the CA's certificate has, or one made of its key.
fn own_key_id(ca: &X509Certificate<'_>) -> Vec<u8> {
    let own = ca
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
    own.unwrap_or_else(|| key_id(&ca.public_key().subject_public_key.data))
}
