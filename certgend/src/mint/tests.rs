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

#[test]
fn a_certificate_without_a_model_is_for_the_host_alone() {
    let bench = Bench::new("");
    for (host, names) in [
        ("www.example.com", ["www.example.com"]),
        ("WWW.Example.com.", ["www.example.com"]),
        ("*.example.com", ["*.example.com"]),
        ("192.0.2.7", ["[192, 0, 2, 7]"]),
        ("2001:db8::1", ["[32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]"]),
        ("bücher.example", ["xn--bcher-kva.example"]),
    ] {
        let leaf = bench.make(&MintRequest::new(host)).unwrap();
        assert_eq!(leaf.names(), names, "{host}");
        assert!(bench.verifies(&leaf.cert), "{host}");
        assert_eq!(leaf.key.id(), Id::EC);
        for said in [
            "CA:FALSE",
            "TLS Web Server Authentication",
            "Key Agreement",
            "X509v3 Authority Key",
        ] {
            assert!(leaf.text.contains(said), "{said}\n{}", leaf.text);
        }
        assert!((198 * DAY - 60..=198 * DAY).contains(&leaf.left()), "{}", leaf.text);
    }
    let long = format!("{}.example", "a".repeat(60));
    let leaf = bench.make(&MintRequest::new(long.as_str())).unwrap();
    assert_eq!((leaf.subject(), leaf.names()), (vec![], vec![long]));
    assert!(bench.verifies(&leaf.cert));
}

#[test]
fn what_is_no_host_gets_no_certificate() {
    let bench = Bench::new("");
    for host in ["a b", "*", "*.*.example", "a/b", &"a.".repeat(200)] {
        let error = bench.make(&MintRequest::new(host)).err().unwrap();
        assert_eq!(error.code, ErrorCode::BadRequest, "{host}");
    }
}

#[test]
fn a_mirrored_certificate_says_what_the_upstream_s_says() {
    let bench = Bench::new("");
    let upstream = Upstream::default().make();
    let leaf = bench.mirror(&upstream, "www.example.com");
    assert_eq!(leaf.subject(), subject(&upstream));
    assert_eq!(leaf.names(), ["www.example.com", "example.com"]);
    assert_eq!(leaf.cert.not_after(), upstream.not_after());
    assert_eq!(leaf.cert.not_before(), upstream.not_before());
    assert!(bench.verifies(&leaf.cert), "{}", leaf.text);
    assert!(leaf.text.contains("TLS Web Client Authentication"), "{}", leaf.text);
    assert_eq!(
        leaf.cert.authority_key_id().unwrap().as_slice(),
        bench.ca.subject_key_id().unwrap().as_slice()
    );
    assert_ne!(
        leaf.cert.subject_key_id().unwrap().as_slice(),
        upstream.subject_key_id().unwrap().as_slice()
    );
    assert_ne!(
        leaf.cert.serial_number().to_bn().unwrap(),
        upstream.serial_number().to_bn().unwrap()
    );
}

#[test]
fn no_mirrored_certificate_is_a_ca() {
    let bench = Bench::new("");
    let leaf = bench.mirror(&Upstream::default().make(), "www.example.com");
    assert!(
        leaf.text.contains("CA:FALSE") && !leaf.text.contains("Certificate Sign"),
        "{}",
        leaf.text
    );
    assert_eq!(leaf.fallback, ["key_usage"]);
}

#[test]
fn a_bare_certificate_is_mirrored_bare() {
    let bench = Bench::new("");
    let upstream = Upstream {
        bare: true,
        ..Upstream::default()
    };
    let leaf = bench.mirror(&upstream.make(), "www.example.com");
    assert_eq!(leaf.subject(), subject(&upstream.make()));
    for absent in ["Alternative Name", "Key Usage", "Key Identifier"] {
        assert!(!leaf.text.contains(absent), "{}", leaf.text);
    }
    assert!(bench.verifies(&leaf.cert) && leaf.fallback.is_empty());
}

#[test]
fn the_kind_of_the_key_is_mirrored() {
    let bench = Bench::new("");
    let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    for (key, id, bits, fallback) in [
        (rsa, Id::RSA, 2048, vec!["key_usage"]),
        (ec_key(Nid::SECP384R1), Id::EC, 256, vec!["key_usage"]),
        (PKey::generate_ed25519().unwrap(), Id::ED25519, 256, vec!["key_usage"]),
    ] {
        let upstream = Upstream {
            key,
            ..Upstream::default()
        };
        let leaf = bench.mirror(&upstream.make(), "www.example.com");
        assert_eq!((leaf.key.id(), leaf.fallback.clone()), (id, fallback));
        assert_eq!(leaf.key.bits(), if id == Id::ED25519 { leaf.key.bits() } else { bits });
        assert!(bench.verifies(&leaf.cert), "{}", leaf.text);
    }
}

#[test]
fn a_key_that_can_not_be_mirrored_is_replaced_and_noted() {
    let bench = Bench::new("");
    let mut builder = X509::builder().unwrap();
    let key = PKey::generate_x25519().unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_subject_name(&name_of(&[("CN", "x")])).unwrap();
    builder
        .set_not_before(&Asn1Time::from_unix(now() - DAY).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::from_unix(now() + DAY).unwrap())
        .unwrap();
    let ec = ec_key(Nid::X9_62_PRIME256V1);
    builder.sign(&ec, MessageDigest::sha256()).unwrap();
    let leaf = bench.mirror(&builder.build(), "x.example");
    assert_eq!((leaf.key.id(), leaf.fallback), (Id::EC, vec!["key_type"]));
}

#[test]
fn what_is_no_certificate_gets_one_for_the_host() {
    let bench = Bench::new("");
    for cert in [Certificate::Der(vec![1, 2, 3]), Certificate::Pem("nonsense".to_owned())] {
        let request = MintRequest {
            cert: Some(cert),
            ..MintRequest::new("a.example")
        };
        let leaf = bench.make(&request).unwrap();
        assert_eq!(
            (leaf.names(), leaf.fallback),
            (vec!["a.example".to_owned()], vec!["certificate"])
        );
    }
}

#[test]
fn names_that_some_clients_cut_short_are_left_out() {
    let bench = Bench::new("");
    let upstream = Upstream {
        names: &["a.example", "bank.exampleX.a.example"],
        ..Upstream::default()
    };
    let mut der = upstream.make().to_der().unwrap();
    let at = der.windows(13).position(|bytes| bytes == b"bank.exampleX").unwrap();
    der[at + 12] = 0;
    let request = MintRequest {
        cert: Some(Certificate::Der(der)),
        ..MintRequest::new("a.example")
    };
    let leaf = bench.make(&request).unwrap();
    assert_eq!(leaf.names(), ["a.example"]);
    assert_eq!(leaf.fallback, ["subject_alt_name", "key_usage"]);
}

#[test]
fn a_mangled_certificate_never_does_harm() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/certgend_mirror");
    let mut seeds = 0;
    for seed in fs::read_dir(corpus).unwrap() {
        properties::certificate(&fs::read(seed.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds >= 8, "{seeds}");
    let upstream = Upstream::default().make().to_der().unwrap();
    for at in 0..upstream.len() {
        properties::certificate(&upstream[..at]);
        for flip in [0x01, 0x80, 0xff] {
            let mut der = upstream.clone();
            der[at] ^= flip;
            properties::certificate(&der);
        }
    }
}

#[test]
fn a_certificate_as_pem_is_mirrored_too() {
    let bench = Bench::new("");
    let pem = Upstream::default().make().to_pem().unwrap();
    let request = MintRequest {
        cert: Some(Certificate::Pem(String::from_utf8(pem).unwrap())),
        ..MintRequest::new("www.example.com")
    };
    assert_eq!(bench.make(&request).unwrap().names().len(), 2);
}

#[test]
fn a_subject_that_rcgen_can_not_hold_is_kept_by_openssl() {
    let bench = Bench::new("");
    let subject_of_two: &[(&str, &str)] = &[("O", "Example"), ("OU", "one"), ("OU", "two"), ("CN", "a.example")];
    let upstream = Upstream {
        subject: subject_of_two,
        ..Upstream::default()
    };
    let leaf = bench.mirror(&upstream.make(), "a.example");
    assert_eq!(leaf.subject(), subject(&upstream.make()));
    assert!(bench.verifies(&leaf.cert), "{}", leaf.text);
    assert!(leaf.text.contains("CA:FALSE") && leaf.text.contains("DNS:example.com"));
}

#[test]
fn a_ca_of_any_kind_signs_and_is_named_as_it_is() {
    let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let keys = [
        rsa,
        ec_key(Nid::SECP384R1),
        ec_key(Nid::SECP521R1),
        PKey::generate_ed25519().unwrap(),
    ];
    for key in keys {
        let parts = CaParts {
            key,
            subject: &[("O", "Sluice"), ("OU", "one"), ("OU", "two"), ("CN", "CA")],
            ..CaParts::default()
        };
        let bench = Bench::with(&parts, "");
        let leaf = bench.mirror(&Upstream::default().make(), "www.example.com");
        assert!(bench.verifies(&leaf.cert), "{}", leaf.text);
        let parts = CaParts {
            subject: CaParts::default().subject,
            ..parts
        };
        let bench = Bench::with(&parts, "");
        let leaf = bench.make(&MintRequest::new("a.example")).unwrap();
        assert!(bench.verifies(&leaf.cert), "{}", leaf.text);
    }
}

#[test]
fn validity_and_ttl_count_days_of_86400_seconds() {
    let bench = Bench::new(", max_ttl: 100000000\n  max_validity: 199d");
    for (days, ttl) in [(1, DAY), (90, 90 * DAY), (500, 198 * DAY)] {
        let upstream = Upstream {
            valid: (-DAY, days * DAY),
            ..Upstream::default()
        };
        let leaf = bench.mirror(&upstream.make(), "www.example.com");
        let request = mirroring(&upstream.make(), "www.example.com");
        let done = bench.mint.make(&request, now(), &bench.keys, &bench.stats).unwrap();
        let told = i64::from(sent(&done.ready, now(), bench.mint.max_ttl).ttl);
        assert!((ttl - 60..=ttl).contains(&told), "{days}: {told}");
        assert!((ttl - 60..=ttl).contains(&leaf.left()), "{}", leaf.text);
    }
}

#[test]
fn an_expired_certificate_is_mirrored_as_expired_and_is_not_to_be_kept() {
    let bench = Bench::new("");
    for (begin, end) in [(-400, -2), (-30, -1), (2, 30), (2, 400)] {
        let upstream = Upstream {
            valid: (begin * DAY, end * DAY),
            ..Upstream::default()
        };
        let leaf = bench.mirror(&upstream.make(), "www.example.com");
        assert!(!bench.verifies(&leaf.cert), "{begin} {end}");
        let whole = leaf.cert.not_before().diff(leaf.cert.not_after()).unwrap();
        assert!(whole.days <= 199, "{begin} {end}");
        let done = bench
            .mint
            .make(
                &mirroring(&upstream.make(), "www.example.com"),
                now(),
                &bench.keys,
                &bench.stats,
            )
            .unwrap();
        assert_eq!(sent(&done.ready, now(), u32::MAX).ttl == 0, end < 0);
    }
}

#[test]
fn no_certificate_outlives_its_ca() {
    let parts = CaParts {
        valid: (-DAY, 10 * DAY),
        ..CaParts::default()
    };
    let bench = Bench::with(&parts, "");
    let leaf = bench.mirror(&Upstream::default().make(), "www.example.com");
    assert_eq!(leaf.cert.not_after(), bench.ca.not_after());
    let parts = CaParts {
        valid: (-10 * DAY, -DAY),
        ..CaParts::default()
    };
    let error = Bench::with(&parts, "")
        .make(&MintRequest::new("a.example"))
        .err()
        .unwrap();
    assert_eq!(error.code, ErrorCode::NoCa);
    assert!(error.text.contains("expired"), "{}", error.text);
}

#[test]
fn each_certificate_has_a_serial_of_its_own_unless_it_is_to_be_kept() {
    let bench = Bench::new("");
    let serial = |leaf: Leaf| {
        leaf.cert
            .serial_number()
            .to_bn()
            .unwrap()
            .to_hex_str()
            .unwrap()
            .to_string()
    };
    let upstream = Upstream::default().make();
    let all: std::collections::HashSet<String> = ["a.example", "b.example", "a.example"]
        .map(|host| serial(bench.mirror(&upstream, host)))
        .into();
    assert_eq!(all.len(), 3);
    let bench = Bench::new(", keep_serial: true");
    assert_eq!(serial(bench.mirror(&upstream, "a.example")), "1234");
    assert_ne!(serial(bench.make(&MintRequest::new("a.example")).unwrap()), "1234");
}

#[test]
fn usages_choose_the_key_usage() {
    let bench = Bench::new("");
    let mut request = mirroring(&Upstream::default().make(), "www.example.com");
    for (usage, said) in [
        (Usage::TlsServer, "Digital Signature\n"),
        (
            Usage::TlsServerTongsuo,
            "Digital Signature, Key Encipherment, Key Agreement\n",
        ),
        (Usage::TlcpServerSignature, "Digital Signature, Non Repudiation\n"),
        (
            Usage::TlcpServerEncryption,
            "Key Encipherment, Data Encipherment, Key Agreement\n",
        ),
    ] {
        request.usage = usage;
        let leaf = bench.make(&request).unwrap();
        assert!(
            leaf.text
                .contains(&format!("X509v3 Key Usage: critical\n                {said}")),
            "{}",
            leaf.text
        );
    }
}

#[test]
fn hosts_that_are_never_minted_are_refused_and_not_slipped_in_beside_others() {
    let bench = Bench::new("\n  never_mint: [bank.example, 192.0.2.0/24]");
    for host in [
        "bank.example",
        "www.BANK.example",
        "*.bank.example",
        "*.example",
        "192.0.2.9",
    ] {
        assert_eq!(
            bench.make(&MintRequest::new(host)).err().unwrap().code,
            ErrorCode::NeverMint,
            "{host}"
        );
    }
    let shared = Upstream {
        names: &["cdn.example", "bank.example", "*.example", "192.0.2.9", "198.51.100.1"],
        ..Upstream::default()
    };
    let leaf = bench.mirror(&shared.make(), "cdn.example");
    assert_eq!(leaf.names(), ["cdn.example", "[198, 51, 100, 1]"]);
    assert!(leaf.fallback.contains(&"never_mint"));
    let only = Upstream {
        names: &["bank.example"],
        ..Upstream::default()
    };
    let error = bench.make(&mirroring(&only.make(), "cdn.example")).err().unwrap();
    assert_eq!(error.code, ErrorCode::NeverMint);
    let by_common_name = Upstream {
        subject: &[("CN", "bank.example")],
        bare: true,
        ..Upstream::default()
    };
    let error = bench
        .make(&mirroring(&by_common_name.make(), "cdn.example"))
        .err()
        .unwrap();
    assert_eq!(error.code, ErrorCode::NeverMint);
}

#[test]
fn the_chain_of_the_ca_follows_the_leaf_unless_it_shall_not() {
    let certificates = |bench: &Bench| {
        let done = bench
            .mint
            .make(&MintRequest::new("a.example"), now(), &bench.keys, &bench.stats)
            .unwrap();
        X509::stack_from_pem(done.ready.chain.as_bytes()).unwrap()
    };
    let bench = Bench::new("");
    let chain = certificates(&bench);
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1].to_der().unwrap(), bench.ca.to_der().unwrap());
    assert_eq!(certificates(&Bench::new(", no_append_ca_cert: true")).len(), 1);
}

#[test]
fn a_ca_that_is_wrong_is_told_by_what_is_wrong() {
    let bench = Bench::new("");
    let folder = bench._folder.path();
    let key = folder.join("ca.key");
    let told = |may_lack| {
        let (config, load) = checked(folder, "");
        match Mint::build(&config, may_lack) {
            Ok(mint) => mint.ca().err().unwrap_or_default().to_owned(),
            Err(error) => {
                // Who checks the file is told, too, and where.
                let found = load.finish().err().map(|errors| errors.to_string()).unwrap_or_default();
                assert_eq!(
                    !error.is_absence(),
                    found.contains(&format!("{}: ", error.key())),
                    "{found}"
                );
                format!("! {error}")
            }
        }
    };
    assert_eq!(told(false), "");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(
        told(true).starts_with("! `certgend.backend.ca_private_key`: `"),
        "{}",
        told(true)
    );
    assert!(told(true).contains("has mode 0640"), "{}", told(true));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "nonsense").unwrap();
    assert!(told(true).contains("no private key"), "{}", told(true));
    let other = ec_key(Nid::X9_62_PRIME256V1);
    fs::write(&key, other.private_key_to_pem_pkcs8().unwrap()).unwrap();
    assert!(told(true).contains("does not belong"), "{}", told(true));
    let sealed = other
        .private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_128_cbc(), b"secret")
        .unwrap();
    fs::write(&key, sealed).unwrap();
    assert!(told(true).contains("encrypted"), "{}", told(true));
    fs::remove_file(&key).unwrap();
    assert!(
        told(true).starts_with("`certgend.backend.ca_private_key`: there is no"),
        "{}",
        told(true)
    );
    assert!(told(false).starts_with('!'));
}
