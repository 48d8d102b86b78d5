//! A certificate that mirrors another one.
//!
//! What the mirrored one lacks is left out; what can not be kept is replaced and noted. Never kept: that it is a CA, and
//! what asks for more than we have (stapled OCSP, transparency, policies, where its revocation is told).

use std::net::IpAddr;

use sluice_wire::mint::{ErrorCode, MintError, Usage};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate, X509Extension};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{Bounds, Extension, Plan, der, key_usage_of, oid, random_serial};
use crate::keys::KeyKind;
use crate::never::{Never, covers_ip, covers_name};

/// The bits of the key usage that only a CA has, and those that X.509 does not know: kept are the others.
const LEAF_BITS: u16 = 0b1111_1001_1000_0000;

/// The longest serial number (RFC 5280 §4.1.2.2).
const LONGEST_SERIAL: usize = 20;

/// What a certificate shall say that mirrors `upstream`, in DER. `None` if that is no certificate.
///
/// # Errors
/// If the host that its subject names is on the list and no alternative name says more.
pub(crate) fn mirror(
    upstream: &[u8],
    usage: Usage,
    keep_serial: bool,
    never: &[Never],
    bounds: &Bounds,
) -> Result<Option<Plan>, MintError> {
    let Ok((_, upstream)) = X509Certificate::from_der(upstream) else {
        return Ok(None);
    };
    let mut fallback = Vec::new();
    let key = key_kind(upstream.public_key(), &mut fallback);
    let (not_before, not_after) = bounds.clamp(
        upstream.validity().not_before.timestamp(),
        upstream.validity().not_after.timestamp(),
    );
    let mut mirroring = Mirroring {
        upstream: &upstream,
        extensions: Vec::new(),
        fallback,
    };
    let constraints = mirroring.find(oid::BASIC_CONSTRAINTS);
    mirroring
        .extensions
        .push(der::end_entity(constraints.is_some_and(|own| own.critical)));
    mirroring.alt_names(never)?;
    mirroring.key_usage(usage, key);
    mirroring.extended_key_usage();
    let key_ids = (
        mirroring.find(oid::SUBJECT_KEY_ID).is_some(),
        mirroring.find(oid::AUTHORITY_KEY_ID).is_some(),
    );
    let serial = mirroring.serial(keep_serial)?;
    Ok(Some(Plan {
        subject: upstream.subject().as_raw().to_vec(),
        serial,
        not_before,
        not_after,
        extensions: mirroring.extensions,
        key_ids,
        key,
        fallback: mirroring.fallback,
    }))
}

struct Mirroring<'a> {
    upstream: &'a X509Certificate<'a>,
    extensions: Vec<Extension>,
    fallback: Vec<&'static str>,
}

impl<'a> Mirroring<'a> {
    fn find(&self, oid: &[u64]) -> Option<&'a X509Extension<'a>> {
        let is_it = |own: &&X509Extension<'_>| own.oid.iter().is_some_and(|own| own.eq(oid.iter().copied()));
        self.upstream.extensions().iter().find(is_it)
    }

    fn push(&mut self, oid: &'static [u64], critical: bool, value: Vec<u8>) {
        self.extensions.push(Extension { oid, critical, value });
    }

    /// Alternative names, without those that no certificate is made for.
    fn alt_names(&mut self, never: &[Never]) -> Result<(), MintError> {
        let Some(own) = self.find(oid::SUBJECT_ALT_NAME) else {
            return self.common_name(never);
        };
        let Some(names) = der::sequence(own.value) else {
            self.fallback.push("subject_alt_name");
            return self.common_name(never);
        };
        let all = names.len();
        let (sound, odd): (Vec<_>, Vec<_>) = names.into_iter().partition(is_sound);
        if !odd.is_empty() {
            self.fallback.push("subject_alt_name");
        }
        let before = sound.len();
        let kept: Vec<&[u8]> = sound
            .into_iter()
            .filter(|name| !is_never(name, never))
            .map(|name| name.whole)
            .collect();
        if kept.len() < before {
            self.fallback.push("never_mint");
        }
        if kept.is_empty() {
            return match before {
                0 => self.common_name(never),
                _ => Err(refused("all names of the upstream's certificate")),
            };
        }
        let value = if kept.len() == all {
            own.value.to_vec()
        } else {
            der::put_sequence(kept)
        };
        let is_nameless = self.upstream.subject().as_raw().len() <= 2;
        self.push(oid::SUBJECT_ALT_NAME, is_nameless, value);
        Ok(())
    }

    /// Without alternative names some clients take the common name for the host's.
    fn common_name(&self, never: &[Never]) -> Result<(), MintError> {
        let names = self.upstream.subject().iter_common_name();
        let mut names = names.filter_map(|name| name.as_str().ok());
        match names.any(|name| covers_name(never, name)) {
            true => Err(refused("the name of the upstream's certificate")),
            false => Ok(()),
        }
    }

    fn key_usage(&mut self, usage: Usage, key: KeyKind) {
        if let Some(asked) = key_usage_of(usage, key) {
            self.extensions.push(asked);
            return;
        }
        let Some(own) = self.find(oid::KEY_USAGE) else { return };
        let ParsedExtension::KeyUsage(bits) = own.parsed_extension() else {
            self.fallback.push("key_usage");
            return;
        };
        let flags = bits.flags.reverse_bits();
        if flags & !LEAF_BITS != 0 {
            self.fallback.push("key_usage");
        }
        if flags & LEAF_BITS != 0 {
            self.push(oid::KEY_USAGE, own.critical, der::bit_string(flags & LEAF_BITS));
        }
    }

    fn extended_key_usage(&mut self) {
        let Some(own) = self.find(oid::EXTENDED_KEY_USAGE) else {
            return;
        };
        match own.parsed_extension() {
            ParsedExtension::ExtendedKeyUsage(_) => {
                self.push(oid::EXTENDED_KEY_USAGE, own.critical, own.value.to_vec());
            }
            _ => self.fallback.push("extended_key_usage"),
        }
    }

    fn serial(&mut self, keep: bool) -> Result<Vec<u8>, MintError> {
        if !keep {
            return random_serial();
        }
        let own = self.upstream.raw_serial();
        let is_negative = own.first().is_none_or(|first| first & 0x80 != 0);
        if is_negative || own.len() > LONGEST_SERIAL + 1 {
            self.fallback.push("serial");
            return random_serial();
        }
        Ok(own.to_vec())
    }
}

/// Whether a name is one that no client could take for another: some end it at a NUL.
fn is_sound(name: &der::Element<'_>) -> bool {
    name.tag != der::DNS_NAME || name.content.iter().all(u8::is_ascii_graphic)
}

fn is_never(name: &der::Element<'_>, never: &[Never]) -> bool {
    match name.tag {
        der::DNS_NAME => std::str::from_utf8(name.content).is_ok_and(|name| covers_name(never, name)),
        der::IP_ADDRESS => ip(name.content).is_some_and(|ip| covers_ip(never, ip)),
        _ => false,
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn refused(what: &str) -> MintError {
    MintError {
        code: ErrorCode::NeverMint,
        text: format!("`never_mint` covers {what}"),
    }
}

/// The kind of key that a minted certificate has for this one.
fn key_kind(upstream: &SubjectPublicKeyInfo<'_>, fallback: &mut Vec<&'static str>) -> KeyKind {
    let is = |oid: &[u64]| {
        upstream
            .algorithm
            .algorithm
            .iter()
            .is_some_and(|own| own.eq(oid.iter().copied()))
    };
    if is(&[1, 2, 840, 113_549, 1, 1, 1]) || is(&[1, 2, 840, 113_549, 1, 1, 10]) {
        return KeyKind::Rsa;
    }
    if is(&[1, 3, 101, 112]) {
        return KeyKind::Ed25519;
    }
    let curve = upstream
        .algorithm
        .parameters
        .as_ref()
        .and_then(|curve| curve.as_oid().ok());
    let sm2: &[u64] = &[1, 2, 156, 10_197, 1, 301];
    let is_sm2 = curve.is_some_and(|curve| curve.iter().is_some_and(|own| own.eq(sm2.iter().copied())));
    if !is(&[1, 2, 840, 10_045, 2, 1]) || is_sm2 {
        fallback.push("key_type");
    }
    KeyKind::P256
}
