//! Domain names as text and on the wire.

use hickory_proto::rr::Name;

use super::ResolveError;

/// The longest domain name as text, without a final dot (RFC 1035 §2.3.4: 255 bytes on the wire).
const MAX_DOMAIN: usize = 253;

/// The wire form of `domain`, fully qualified; a final dot makes no difference.
///
/// Labels may hold any graphic ASCII character, `_` among them; their case is kept.
///
/// # Errors
/// [`ResolveError::EmptyDomain`] for an empty name or the root, [`ResolveError::BadName`] for one that DNS can not hold.
pub fn name_of(domain: &str) -> Result<Name, ResolveError> {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    if domain.is_empty() {
        return Err(ResolveError::EmptyDomain);
    }
    if domain.len() > MAX_DOMAIN || !domain.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ResolveError::BadName);
    }
    if domain.split('.').any(str::is_empty) {
        return Err(ResolveError::BadName);
    }
    Name::from_labels(domain.split('.').map(str::as_bytes)).map_err(|_| ResolveError::BadName)
}

/// Checks that a domain can be asked for.
///
/// # Errors
/// As of [`name_of`].
pub fn check_domain(domain: &str) -> Result<(), ResolveError> {
    name_of(domain).map(drop)
}

/// The text of `name` in lower case, without the final dot.
///
/// `None` for the root and for labels with bytes that [`name_of`] would not take back.
pub fn domain_of(name: &Name) -> Option<String> {
    let mut domain = String::with_capacity(name.len());
    for label in name.iter() {
        if !domain.is_empty() {
            domain.push('.');
        }
        if label.is_empty() {
            return None;
        }
        for &byte in label {
            if !byte.is_ascii_graphic() || byte == b'.' {
                return None;
            }
            domain.push(char::from(byte.to_ascii_lowercase()));
        }
    }
    (!domain.is_empty()).then_some(domain)
}
