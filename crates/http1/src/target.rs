//! Request targets (RFC 9112 §3.2) and the authorities in them (RFC 3986 §3.2).

use std::fmt;
use std::net::Ipv6Addr;

use sluice_addr::{Host, Upstream};

use crate::fields::{is_tchar, put_decimal};
use crate::method::Method;

/// A request target, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'b> {
    /// `http://host:port/path?query`: what a proxy is asked for.
    Absolute(Absolute<'b>),
    /// `*`, of OPTIONS only.
    Asterisk,
    /// `host:port`, of CONNECT only.
    Authority(Authority<'b>),
    /// `/path?query`: what an origin server is asked for.
    Origin(&'b str),
}

impl<'b> Target<'b> {
    /// Takes the target of a request with this method apart.
    ///
    /// # Errors
    /// [`TargetError`], see its variants.
    pub fn parse(method: Method<'_>, raw: &'b str) -> Result<Self, TargetError> {
        if !is_target(raw.as_bytes()) {
            return Err(TargetError::Malformed);
        }
        if method == Method::Connect {
            return Authority::parse(raw).map(Self::Authority);
        }
        if raw.starts_with('/') {
            return Ok(Self::Origin(raw));
        }
        if raw == "*" {
            return if method == Method::Options {
                Ok(Self::Asterisk)
            } else {
                Err(TargetError::Malformed)
            };
        }
        Absolute::parse(raw).map(Self::Absolute)
    }
}

/// The schemes that can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `ftp`: FTP over an HTTP proxy.
    Ftp,
    /// `http`.
    Http,
    /// `https`: the proxy itself speaks TLS to the origin.
    Https,
}

impl Scheme {
    /// Takes the scheme and `://` off the front of a URL.
    fn split(raw: &str) -> Result<(Self, &str), TargetError> {
        let starts = |prefix: &str| {
            raw.split_at_checked(prefix.len())
                .filter(|(start, _)| start.eq_ignore_ascii_case(prefix))
                .map(|(_, rest)| rest)
        };
        if let Some(rest) = starts("http://") {
            return Ok((Self::Http, rest));
        }
        if let Some(rest) = starts("https://") {
            return Ok((Self::Https, rest));
        }
        if let Some(rest) = starts("ftp://") {
            return Ok((Self::Ftp, rest));
        }
        match raw.split_once(':') {
            // `http:/a` is broken, and `GET example.com:80` an authority-form where none belongs.
            Some((name, _))
                if ["http", "https", "ftp"]
                    .iter()
                    .any(|known| name.eq_ignore_ascii_case(known)) =>
            {
                Err(TargetError::Malformed)
            }
            Some((name, rest)) if is_scheme(name) && !rest.bytes().all(|b| b.is_ascii_digit()) => {
                Err(TargetError::UnsupportedScheme)
            }
            _ => Err(TargetError::Malformed),
        }
    }

    /// The name, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ftp => "ftp",
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port meant where none is written.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Ftp => 21,
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A target in absolute-form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absolute<'b> {
    /// Its scheme.
    pub scheme: Scheme,
    /// `user:password` before the `@`: never forwarded (RFC 9110 §4.2.4), used for FTP alone.
    pub userinfo: Option<&'b str>,
    /// Host and port.
    pub authority: Authority<'b>,
    /// Path and query as sent: empty, or starting with `/` or `?`.
    pub path: &'b str,
}

impl<'b> Absolute<'b> {
    /// Takes an absolute URI apart.
    ///
    /// # Errors
    /// [`TargetError`], see its variants.
    pub fn parse(raw: &'b str) -> Result<Self, TargetError> {
        let (scheme, rest) = Scheme::split(raw)?;
        let path_at = rest
            .bytes()
            .position(|b| matches!(b, b'/' | b'?'))
            .unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(path_at).ok_or(TargetError::Malformed)?;
        let (userinfo, authority) = match authority.bytes().position(|b| b == b'@') {
            None => (None, authority),
            Some(at) => {
                let (userinfo, rest) = authority.split_at_checked(at).ok_or(TargetError::Malformed)?;
                if !is_userinfo(userinfo) {
                    return Err(TargetError::Malformed);
                }
                // A second `@` stays in the host and is refused there: programs disagree about which one counts.
                (Some(userinfo), rest.strip_prefix('@').unwrap_or(rest))
            }
        };
        Ok(Self {
            scheme,
            userinfo,
            authority: Authority::parse(authority)?,
            path,
        })
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.authority.port.unwrap_or_else(|| self.scheme.default_port())
    }

    /// Appends the target as the origin server gets it: origin-form, or `*` for OPTIONS without a path.
    pub fn put_origin_form(&self, method: Method<'_>, out: &mut Vec<u8>) {
        if self.path.is_empty() && method == Method::Options {
            out.push(b'*');
            return;
        }
        if !self.path.starts_with('/') {
            out.push(b'/');
        }
        out.extend_from_slice(self.path.as_bytes());
    }

    /// Appends the target as another proxy gets it: absolute-form, without userinfo unless the scheme is ftp.
    pub fn put_absolute_form(&self, method: Method<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.scheme.as_str().as_bytes());
        out.extend_from_slice(b"://");
        if let (Scheme::Ftp, Some(userinfo)) = (self.scheme, self.userinfo) {
            out.extend_from_slice(userinfo.as_bytes());
            out.push(b'@');
        }
        out.extend_from_slice(self.authority.text.as_bytes());
        // RFC 9112 §3.2.4: the last proxy turns `OPTIONS http://host` into `*`, so no slash is added before it.
        let stays_empty = self.path.is_empty() && method == Method::Options;
        if !stays_empty && !self.path.starts_with('/') {
            out.push(b'/');
        }
        out.extend_from_slice(self.path.as_bytes());
    }
}

/// A host with an optional port, as in a target in authority-form or in a Host field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'b> {
    /// The whole as written, brackets included.
    pub text: &'b str,
    /// The host: an IPv6 address without its brackets, else an IPv4 address or a name. Never empty.
    pub host: &'b str,
    /// Whether `host` is an IPv6 address (it stood in brackets).
    pub is_ipv6: bool,
    /// The port if one is written.
    pub port: Option<u16>,
}

impl<'b> Authority<'b> {
    /// Takes `host[:port]` apart. An empty port (`host:`) counts as none (RFC 3986 §3.2.3).
    ///
    /// # Errors
    /// [`TargetError::BadHost`] or [`TargetError::BadPort`].
    pub fn parse(text: &'b str) -> Result<Self, TargetError> {
        let (host, is_ipv6, rest) = if let Some(inner) = text.strip_prefix('[') {
            let (host, rest) = inner.split_once(']').ok_or(TargetError::BadHost)?;
            host.parse::<Ipv6Addr>().map_err(|_| TargetError::BadHost)?;
            (host, true, rest)
        } else {
            let end = text.bytes().position(|b| !is_host_byte(b)).unwrap_or(text.len());
            let (host, rest) = text.split_at_checked(end).ok_or(TargetError::BadHost)?;
            if host.is_empty() {
                return Err(TargetError::BadHost);
            }
            (host, false, rest)
        };
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return Err(TargetError::BadHost),
            Some("") => None,
            Some(digits) => Some(parse_port(digits)?),
        };
        Ok(Self {
            text,
            host,
            is_ipv6,
            port,
        })
    }

    /// The host and port to connect to, in the form that rules and logs compare.
    ///
    /// # Errors
    /// [`TargetError::BadHost`] if the host is no name after all, e.g. for an empty or too long label.
    pub fn to_upstream(&self, default_port: u16) -> Result<Upstream, TargetError> {
        let host = Host::parse(self.host).map_err(|_| TargetError::BadHost)?;
        Ok(Upstream::new(host, self.port.unwrap_or(default_port)))
    }

    /// `text` without its port if that is `port`.
    pub fn without_port(&self, port: u16) -> &'b str {
        match self.port {
            Some(own) if own == port => self.without_any_port(),
            _ => self.text,
        }
    }

    /// `text` up to the colon of the port, if there is one. The colons inside brackets stay (H1-21).
    fn without_any_port(&self) -> &'b str {
        let host_end = self.host.len() + if self.is_ipv6 { 2 } else { 0 };
        self.text.get(..host_end).unwrap_or(self.text)
    }

    /// Appends host and port, the port always written.
    pub fn put_with_port(&self, default_port: u16, out: &mut Vec<u8>) {
        out.extend_from_slice(self.without_any_port().as_bytes());
        out.push(b':');
        put_decimal(out, u64::from(self.port.unwrap_or(default_port)));
    }
}

/// Why a request target or an authority is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The host is empty, holds a byte that no host has, or is a broken IPv6 literal: 400.
    #[error("bad host in the request target or Host field")]
    BadHost,
    /// The port is no number from 1 to 65535: 400.
    #[error("bad port in the request target or Host field")]
    BadPort,
    /// None of the four forms, or not the one its method asks for: 400.
    #[error("malformed request target")]
    Malformed,
    /// An absolute URI of a scheme that is not forwarded: 501.
    #[error("unsupported scheme in the request target")]
    UnsupportedScheme,
}

impl TargetError {
    /// The HTTP status to answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadHost | Self::BadPort | Self::Malformed => 400,
            Self::UnsupportedScheme => 501,
        }
    }
}

/// Shows a raw request target with the password of its userinfo hidden, cut after `max_chars`.
#[derive(Clone, Copy, Debug)]
pub struct Redacted<'b> {
    raw: &'b str,
    max_chars: usize,
}

impl<'b> Redacted<'b> {
    /// `raw` for a log line.
    pub const fn new(raw: &'b str, max_chars: usize) -> Self {
        Self { raw, max_chars }
    }

    /// What stands before the password, and what follows it; `None` if there is no password.
    fn around_password(raw: &str) -> Option<(&str, &str)> {
        let authority_at = raw.find("://")? + 3;
        let authority_len = raw
            .get(authority_at..)?
            .find(['/', '?', '#'])
            .unwrap_or(raw.len() - authority_at);
        let authority = raw.get(authority_at..authority_at + authority_len)?;
        // The last `@`, so that nothing of a password with an `@` in it shows, whatever else the target is.
        let at = authority.rfind('@')?;
        let colon = authority.get(..at)?.find(':')?;
        Some((raw.get(..=authority_at + colon)?, raw.get(authority_at + at..)?))
    }
}

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = |text: &str, max: usize| text.char_indices().nth(max).map_or(text.len(), |(at, _)| at);
        let Some((before, after)) = Self::around_password(self.raw) else {
            return f.write_str(self.raw.get(..cut(self.raw, self.max_chars)).unwrap_or_default());
        };
        let mut left = self.max_chars;
        for part in [before, "***", after] {
            let part = part.get(..cut(part, left)).unwrap_or_default();
            f.write_str(part)?;
            left -= part.chars().count().min(left);
        }
        Ok(())
    }
}

/// Whether `raw` holds only bytes that may stand in a target, and no fragment.
///
/// Besides those of RFC 3986, browsers send `"<>\^{|}` and the backtick unescaped in paths and queries, so these pass.
pub(crate) fn is_target(raw: &[u8]) -> bool {
    // Without a branch per byte, so that it is done sixteen at a time.
    !raw.is_empty()
        && !raw
            .iter()
            .fold(false, |bad, &b| bad | !(0x21..=0x7e).contains(&b) | (b == b'#'))
}

/// Whether `b` stands in names that can be looked up, or in IPv4 addresses; percent-encoding and RFC 3986's sub-delims do not.
#[inline]
#[expect(clippy::indexing_slicing, reason = "a u8 is always below 256")]
const fn is_host_byte(b: u8) -> bool {
    HOST_BYTE[b as usize]
}

const HOST_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0u8;
    while b < 128 {
        #[expect(clippy::indexing_slicing, reason = "a u8 is always below 256")]
        {
            table[b as usize] = b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        }
        b += 1;
    }
    table
};

fn is_scheme(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn is_userinfo(text: &str) -> bool {
    text.bytes()
        .all(|b| is_tchar(b) && !matches!(b, b'#' | b'^' | b'`' | b'|') || b"():,;=".contains(&b))
}

fn parse_port(digits: &str) -> Result<u16, TargetError> {
    if digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TargetError::BadPort);
    }
    match digits.parse() {
        Ok(port @ 1..) => Ok(port),
        _ => Err(TargetError::BadPort),
    }
}

#[cfg(test)]
mod tests;
