//! Signing: by rcgen where it can write what is asked for, else by OpenSSL, which is slower.
//!
//! rcgen holds one value for each kind of attribute of a name, writes no name of other forms, and signs with the keys
//! that ring knows. OpenSSL does what is left: a subject with two organisational units, a CA with a P-521 key.

use openssl::asn1::{Asn1Integer, Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::BigNum;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private};
use openssl::x509::{X509, X509Extension, X509Name};
use rcgen::string::{BmpString, Ia5String, PrintableString, TeletexString, UniversalString};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519, PublicKeyData, SerialNumber,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use time::OffsetDateTime;
use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name as ParsedName;

use crate::keys::LeafKey;
use crate::plan::{Extension, Plan};

/// A certificate could not be signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    /// OpenSSL refuses.
    #[error("OpenSSL refuses: {0}")]
    Openssl(#[from] ErrorStack),
    /// rcgen refuses.
    #[error("rcgen refuses: {0}")]
    Rcgen(#[from] rcgen::Error),
    /// A moment that no certificate can name.
    #[error("the validity can not be written")]
    Validity,
}

/// A CA's name and key, for either library.
pub(crate) struct Signer {
    cert: X509,
    key: PKey<Private>,
    digest: MessageDigest,
    /// `None` if rcgen can not write the CA's name, or not sign with its key.
    rcgen: Option<Issuer<'static, KeyPair>>,
}

impl Signer {
    /// `cert` and `parsed` are the same certificate.
    pub(crate) fn new(cert: X509, parsed: &X509Certificate<'_>, key: PKey<Private>) -> Result<Self, SignError> {
        let digest = match key.id() {
            Id::ED25519 | Id::ED448 => MessageDigest::null(),
            Id::SM2 => MessageDigest::sm3(),
            _ => MessageDigest::sha256(),
        };
        let pkcs8 = key.private_key_to_pkcs8()?;
        let pair = KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8)).ok();
        let rcgen = distinguished_name(parsed.subject()).zip(pair).map(|(name, pair)| {
            let mut params = CertificateParams::default();
            params.distinguished_name = name;
            Issuer::new(params, pair)
        });
        Ok(Self {
            cert,
            key,
            digest,
            rcgen,
        })
    }

    /// Whether a signature takes microseconds. One of RSA takes a millisecond.
    pub(crate) fn is_quick(&self) -> bool {
        let algorithm = self.rcgen.as_ref().map(|issuer| issuer.key().algorithm());
        algorithm.is_some_and(|algorithm| [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519].contains(&algorithm))
    }

    /// The signed certificate, in DER. `extensions` are all that it has.
    pub(crate) fn sign(&self, plan: &Plan, key: &LeafKey, extensions: &[Extension]) -> Result<Vec<u8>, SignError> {
        let name = ParsedName::from_der(&plan.subject).ok();
        let name = name.and_then(|(_, name)| distinguished_name(&name));
        match (&self.rcgen, name) {
            (Some(issuer), Some(name)) => by_rcgen(issuer, name, plan, key, extensions),
            _ => self.by_openssl(plan, key, extensions),
        }
    }

    fn by_openssl(&self, plan: &Plan, key: &LeafKey, extensions: &[Extension]) -> Result<Vec<u8>, SignError> {
        let mut builder = X509::builder()?;
        builder.set_version(2)?;
        let serial = BigNum::from_slice(&plan.serial)?;
        builder.set_serial_number(&*Asn1Integer::from_bn(&serial)?)?;
        builder.set_issuer_name(self.cert.subject_name())?;
        builder.set_subject_name(&*X509Name::from_der(&plan.subject)?)?;
        builder.set_not_before(&*Asn1Time::from_unix(plan.not_before)?)?;
        builder.set_not_after(&*Asn1Time::from_unix(plan.not_after)?)?;
        builder.set_pubkey(&*PKey::public_key_from_der(&key.subject_public_key_info())?)?;
        for extension in extensions {
            let oid: Vec<String> = extension.oid.iter().map(u64::to_string).collect();
            let oid = Asn1Object::from_str(&oid.join("."))?;
            let value = Asn1OctetString::new_from_bytes(&extension.value)?;
            builder.append_extension(X509Extension::new_from_der(&oid, extension.critical, &value)?)?;
        }
        builder.sign(&self.key, self.digest)?;
        Ok(builder.build().to_der()?)
    }
}

fn by_rcgen(
    issuer: &Issuer<'static, KeyPair>,
    name: DistinguishedName,
    plan: &Plan,
    key: &LeafKey,
    extensions: &[Extension],
) -> Result<Vec<u8>, SignError> {
    let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| SignError::Validity);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from_slice(&plan.serial));
    params.not_before = at(plan.not_before)?;
    params.not_after = at(plan.not_after)?;
    params.custom_extensions = extensions
        .iter()
        .map(|extension| {
            let mut custom = CustomExtension::from_oid_content(extension.oid, extension.value.clone());
            custom.set_criticality(extension.critical);
            custom
        })
        .collect();
    Ok(params.signed_by(key, issuer)?.der().to_vec())
}

/// The name as rcgen holds it; `None` if it would not write the very same bytes.
fn distinguished_name(name: &ParsedName<'_>) -> Option<DistinguishedName> {
    let mut own = DistinguishedName::new();
    for rdn in name.iter_rdn() {
        let mut attributes = rdn.iter();
        let (attribute, None) = (attributes.next()?, attributes.next()) else {
            return None;
        };
        let oid: Vec<u64> = attribute.attr_type().iter()?.collect();
        // rcgen panics at others, which a certificate may well hold.
        if !matches!(oid.as_slice(), [0 | 1, 0..=39, ..] | [2, ..]) {
            return None;
        }
        let kind = DnType::CustomDnType(oid);
        if own.get(&kind).is_some() {
            return None;
        }
        let value = attribute.attr_value();
        let text = || std::str::from_utf8(value.data).ok();
        let value = match value.tag() {
            Tag::BmpString => DnValue::BmpString(BmpString::from_utf16be(value.data.to_vec()).ok()?),
            Tag::Ia5String => DnValue::Ia5String(Ia5String::try_from(text()?).ok()?),
            Tag::PrintableString => DnValue::PrintableString(PrintableString::try_from(text()?).ok()?),
            Tag::T61String => DnValue::TeletexString(TeletexString::try_from(text()?).ok()?),
            Tag::UniversalString => DnValue::UniversalString(UniversalString::from_utf32be(value.data.to_vec()).ok()?),
            Tag::Utf8String => DnValue::Utf8String(text()?.to_owned()),
            _ => return None,
        };
        own.push(kind, value);
    }
    Some(own)
}
