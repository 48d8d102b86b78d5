//! Requests that are answered by a real CA, and what OpenSSL reads in the answers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use openssl::stack::Stack;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::extension::{ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Extension, X509NameBuilder, X509StoreContext};
use sluice_config::Load;
use sluice_config::value::HistogramMetrics;

use super::*;
use crate::properties;

mod authority;
mod mirror;

const DAY: i64 = 86_400;

/// A CA in a folder of its own, and what mints with it.
struct Bench {
    _folder: tempfile::TempDir,
    mint: Mint,
    ca: X509,
    stats: Stats,
    keys: RsaPool,
}

/// How a CA of the tests is made.
struct CaParts<'a> {
    key: PKey<Private>,
    subject: &'a [(&'a str, &'a str)],
    valid: (i64, i64),
}

impl Default for CaParts<'_> {
    fn default() -> Self {
        Self {
            key: ec_key(Nid::X9_62_PRIME256V1),
            subject: &[("O", "Sluice"), ("CN", "Test CA")],
            valid: (-400 * DAY, 3650 * DAY),
        }
    }
}

fn ec_key(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

fn digest_for(key: &PKey<Private>) -> MessageDigest {
    match key.id() {
        Id::ED25519 => MessageDigest::null(),
        _ => MessageDigest::sha256(),
    }
}

fn name_of(entries: &[(&str, &str)]) -> openssl::x509::X509Name {
    let mut name = X509NameBuilder::new().unwrap();
    for (field, text) in entries {
        name.append_entry_by_text(field, text).unwrap();
    }
    name.build()
}

impl CaParts<'_> {
    fn make(&self) -> X509 {
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let name = name_of(self.subject);
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        let serial = BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap();
        builder.set_serial_number(&serial).unwrap();
        let at = |offset| Asn1Time::from_unix(now() + offset).unwrap();
        builder.set_not_before(&at(self.valid.0)).unwrap();
        builder.set_not_after(&at(self.valid.1)).unwrap();
        builder.set_pubkey(&self.key).unwrap();
        builder
            .append_extension(BasicConstraints::new().critical().ca().build().unwrap())
            .unwrap();
        let id = SubjectKeyIdentifier::new()
            .build(&builder.x509v3_context(None, None))
            .unwrap();
        builder.append_extension(id).unwrap();
        builder.sign(&self.key, digest_for(&self.key)).unwrap();
        builder.build()
    }
}

impl Bench {
    fn new(keys: &str) -> Self {
        Self::with(&CaParts::default(), keys)
    }

    fn with(parts: &CaParts<'_>, keys: &str) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let ca = parts.make();
        let key = folder.path().join("ca.key");
        fs::write(folder.path().join("ca.crt"), ca.to_pem().unwrap()).unwrap();
        fs::write(&key, parts.key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let config = read(folder.path(), keys);
        Self {
            mint: Mint::build(&config, false).unwrap(),
            _folder: folder,
            ca,
            stats: Stats::new(HistogramMetrics::default()),
            keys: RsaPool::default(),
        }
    }

    fn make(&self, request: &MintRequest) -> Result<Leaf, MintError> {
        let done = self.mint.make(request, now(), &self.keys, &self.stats)?;
        Ok(Leaf::new(&done))
    }

    fn mirror(&self, upstream: &X509, host: &str) -> Leaf {
        self.make(&mirroring(upstream, host)).unwrap()
    }

    fn verifies(&self, leaf: &X509) -> bool {
        let mut store = X509StoreBuilder::new().unwrap();
        store.add_cert(self.ca.clone()).unwrap();
        let mut context = X509StoreContext::new().unwrap();
        let chain = Stack::new().unwrap();
        context
            .init(&store.build(), leaf, &chain, |context| context.verify_cert())
            .unwrap()
    }
}

fn read(folder: &Path, keys: &str) -> Config {
    let (config, load) = checked(folder, keys);
    load.finish().unwrap();
    config
}

fn checked(folder: &Path, keys: &str) -> (Config, Load) {
    let file = folder.join("main.yml");
    // Keys of the section itself stand behind those of its backend, on a line of their own.
    let (backend, own) = keys.split_once('\n').unwrap_or((keys, ""));
    let backend = format!("{{ca_certificate: ca.crt, ca_private_key: ca.key{backend}}}");
    let yaml = format!("certgend:\n  backend: {backend}\n{own}\n");
    fs::write(&file, yaml).unwrap();
    let mut load = Load::open(&file);
    let config = Config::read(&mut load);
    (config, load)
}

fn mirroring(upstream: &X509, host: &str) -> MintRequest {
    MintRequest {
        cert: Some(Certificate::Der(upstream.to_der().unwrap())),
        ..MintRequest::new(host)
    }
}

/// A certificate as OpenSSL reads it.
struct Leaf {
    cert: X509,
    key: PKey<Private>,
    fallback: Vec<&'static str>,
    text: String,
}

impl Leaf {
    fn new(done: &Done) -> Self {
        let cert = X509::from_pem(done.ready.chain.as_bytes()).unwrap();
        let key = PKey::private_key_from_der(&done.ready.key).unwrap();
        assert!(cert.public_key().unwrap().public_eq(&key));
        assert_eq!(cert.digest(MessageDigest::sha256()).unwrap().as_ref(), done.fingerprint);
        Self {
            text: String::from_utf8_lossy(&cert.to_text().unwrap()).into_owned(),
            cert,
            key,
            fallback: done.plan.fallback.clone(),
        }
    }

    fn names(&self) -> Vec<String> {
        let names = self.cert.subject_alt_names().into_iter().flatten();
        names
            .map(|name| match (name.dnsname(), name.ipaddress()) {
                (Some(name), _) => name.to_owned(),
                (None, Some(ip)) => format!("{ip:?}"),
                _ => "other".to_owned(),
            })
            .collect()
    }

    /// Seconds that it is valid from now on.
    fn left(&self) -> i64 {
        let left = Asn1Time::from_unix(now()).unwrap().diff(self.cert.not_after()).unwrap();
        i64::from(left.days) * DAY + i64::from(left.secs)
    }

    fn subject(&self) -> Vec<(String, String)> {
        subject(&self.cert)
    }
}

fn subject(cert: &X509) -> Vec<(String, String)> {
    let entries = cert.subject_name().entries();
    let entries = entries.map(|entry| {
        let text = entry.data().to_string().unwrap();
        (entry.object().nid().short_name().unwrap().to_owned(), text)
    });
    entries.collect()
}

/// An upstream's certificate.
struct Upstream<'a> {
    key: PKey<Private>,
    subject: &'a [(&'a str, &'a str)],
    names: &'a [&'a str],
    valid: (i64, i64),
    bare: bool,
}

impl Default for Upstream<'_> {
    fn default() -> Self {
        Self {
            key: ec_key(Nid::X9_62_PRIME256V1),
            subject: &[("C", "CH"), ("O", "Example"), ("CN", "www.example.com")],
            names: &["www.example.com", "example.com"],
            valid: (-30 * DAY, 60 * DAY),
            bare: false,
        }
    }
}

impl Upstream<'_> {
    fn make(&self) -> X509 {
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_subject_name(&name_of(self.subject)).unwrap();
        builder.set_issuer_name(&name_of(&[("CN", "Some CA")])).unwrap();
        let serial = BigNum::from_u32(0x1234).unwrap().to_asn1_integer().unwrap();
        builder.set_serial_number(&serial).unwrap();
        let at = |offset| Asn1Time::from_unix(now() + offset).unwrap();
        builder.set_not_before(&at(self.valid.0)).unwrap();
        builder.set_not_after(&at(self.valid.1)).unwrap();
        builder.set_pubkey(&self.key).unwrap();
        if !self.bare {
            let mut names = SubjectAlternativeName::new();
            for name in self.names {
                match name.parse::<std::net::IpAddr>() {
                    Ok(_) => names.ip(name),
                    Err(_) => names.dns(name),
                };
            }
            let context = builder.x509v3_context(None, None);
            let extensions = [
                names.build(&context).unwrap(),
                KeyUsage::new()
                    .critical()
                    .digital_signature()
                    .key_cert_sign()
                    .build()
                    .unwrap(),
                ExtendedKeyUsage::new().server_auth().client_auth().build().unwrap(),
                SubjectKeyIdentifier::new().build(&context).unwrap(),
                BasicConstraints::new().critical().ca().build().unwrap(),
            ];
            for extension in extensions {
                builder.append_extension(extension).unwrap();
            }
            let id = Extension::authority_key_id(&[7; 20]);
            let oid = openssl::asn1::Asn1Object::from_str("2.5.29.35").unwrap();
            let value = openssl::asn1::Asn1OctetString::new_from_bytes(&id.value).unwrap();
            builder
                .append_extension(X509Extension::new_from_der(&oid, false, &value).unwrap())
                .unwrap();
        }
        builder.sign(&self.key, digest_for(&self.key)).unwrap();
        builder.build()
    }
}
