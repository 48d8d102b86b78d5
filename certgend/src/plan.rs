//! What a certificate shall say, before anybody signs it.

mod der;
mod mirror;

use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use sluice_addr::Host;
use sluice_wire::mint::{ErrorCode, MintError, Usage};

use crate::keys::KeyKind;

pub(crate) use der::key_id;
pub(crate) use mirror::mirror;

/// How long before now a certificate begins that mirrors none.
const BACKDATE: i64 = 86_400;

/// How long a certificate is valid that mirrors none, from now on.
const DAYS_AHEAD: i64 = 365 * 86_400;

/// The longest common name (RFC 5280, ub-common-name).
const LONGEST_COMMON_NAME: usize = 64;

/// Object identifiers of extensions (RFC 5280 §4.2.1).
pub(crate) mod oid {
    pub(crate) const SUBJECT_KEY_ID: &[u64] = &[2, 5, 29, 14];
    pub(crate) const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
    pub(crate) const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
    pub(crate) const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
    pub(crate) const AUTHORITY_KEY_ID: &[u64] = &[2, 5, 29, 35];
    pub(crate) const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
}

/// An extension of a certificate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Extension {
    pub(crate) oid: &'static [u64],
    pub(crate) critical: bool,
    /// DER.
    pub(crate) value: Vec<u8>,
}

/// What a certificate shall say.
#[derive(Debug)]
pub(crate) struct Plan {
    /// DER of the whole name.
    pub(crate) subject: Vec<u8>,
    /// Unsigned, big-endian.
    pub(crate) serial: Vec<u8>,
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    /// Seconds since 1970.
    pub(crate) not_after: i64,
    /// All but the key identifiers, which depend on the key and the CA.
    pub(crate) extensions: Vec<Extension>,
    /// Whether it shall have identifiers of its own key and of the CA's.
    pub(crate) key_ids: (bool, bool),
    pub(crate) key: KeyKind,
    /// What of the mirrored certificate could not be kept.
    pub(crate) fallback: Vec<&'static str>,
}

/// What bounds every certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Seconds since 1970, like the others.
    pub(crate) now: i64,
    pub(crate) ca_not_before: i64,
    pub(crate) ca_not_after: i64,
    /// The longest validity in seconds.
    pub(crate) max_validity: i64,
}

impl Bounds {
    /// The validity of a certificate that mirrors one of this validity.
    ///
    /// Whether it is valid now is kept, also that it is not: a client shall see what it would have seen. The end is at
    /// most the CA's.
    fn clamp(&self, not_before: i64, not_after: i64) -> (i64, i64) {
        let mut end = not_after.min(self.ca_not_after);
        let mut begin = not_before;
        if end < self.now || begin > self.now {
            // Expired, or not yet valid: the side that says so stays where it is.
            if end < self.now {
                begin = begin.max(end.saturating_sub(self.max_validity));
            } else {
                end = end.min(begin.saturating_add(self.max_validity));
            }
            return (begin, end.max(begin));
        }
        begin = begin.max(self.ca_not_before.min(self.now));
        if end.saturating_sub(begin) > self.max_validity {
            begin = begin.max(self.now - self.max_validity.min(BACKDATE));
            end = end.min(begin.saturating_add(self.max_validity));
        }
        (begin, end)
    }
}

/// A certificate for a host, which mirrors nothing.
pub(crate) fn for_host(host: &Host, name: &str, bounds: &Bounds) -> Result<Plan, MintError> {
    let (not_before, not_after) = bounds.clamp(bounds.now - BACKDATE, bounds.now + DAYS_AHEAD);
    let common_name = Some(name).filter(|name| name.len() <= LONGEST_COMMON_NAME);
    let alt_name = match host {
        Host::Ip(ip) => der::alt_name_ip(*ip),
        Host::Domain(_) => der::alt_name_dns(name),
    };
    Ok(Plan {
        subject: der::common_name(common_name),
        serial: random_serial()?,
        not_before,
        not_after,
        extensions: vec![
            der::end_entity(true),
            Extension {
                oid: oid::SUBJECT_ALT_NAME,
                critical: common_name.is_none(),
                value: alt_name,
            },
            der::key_usage(&[DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, KEY_AGREEMENT]),
            der::server_auth(),
        ],
        key_ids: (true, true),
        key: KeyKind::P256,
        fallback: Vec::new(),
    })
}

/// Bits of the key usage (RFC 5280 §4.2.1.3).
const DIGITAL_SIGNATURE: u8 = 0;
const NON_REPUDIATION: u8 = 1;
const KEY_ENCIPHERMENT: u8 = 2;
const DATA_ENCIPHERMENT: u8 = 3;
const KEY_AGREEMENT: u8 = 4;

/// The key usage that a usage asks for; `None` if it is the upstream's.
fn key_usage_of(usage: Usage, key: KeyKind) -> Option<Extension> {
    let bits: &[u8] = match (usage, key) {
        (Usage::TlsServer, _) => return None,
        (Usage::TlsServerTongsuo, KeyKind::Ed25519) => &[DIGITAL_SIGNATURE],
        (Usage::TlsServerTongsuo, KeyKind::P256 | KeyKind::Rsa) => {
            &[DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, KEY_AGREEMENT]
        }
        (Usage::TlcpServerSignature, _) => &[DIGITAL_SIGNATURE, NON_REPUDIATION],
        (Usage::TlcpServerEncryption, _) => &[KEY_ENCIPHERMENT, DATA_ENCIPHERMENT, KEY_AGREEMENT],
    };
    Some(der::key_usage(bits))
}

/// A random serial number of 128 bits, never 0 and never negative.
pub(crate) fn random_serial() -> Result<Vec<u8>, MintError> {
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| MintError {
        code: ErrorCode::Failed,
        text: "the system has no random numbers".to_owned(),
    })?;
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    Ok(serial.to_vec())
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}
