//! What is wrong with a request's head though it came as HTTP/2 (RFC 9113 §8.2 and §8.3).
//!
//! The library refuses what breaks the syntax of fields and the order of pseudo-fields. What it leaves is checked here:
//! two readers must not see two hosts in one request, nor fields that change as they are written as HTTP/1.

use http::header::HOST;
use http::{HeaderMap, Method, Uri, request};
use sluice_http1::Authority;
use thiserror::Error;

/// Why a request is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Malformed {
    #[error("`:authority` is not a host with or without a port")]
    Authority,
    #[error("`host` is not a host with or without a port")]
    Host,
    #[error("`host` and `:authority` are not the same")]
    HostMismatch,
    #[error("a request without a host")]
    NoHost,
    #[error("`:path` is `*` in a request other than OPTIONS")]
    Asterisk,
    #[error("two `host`")]
    TwoHosts,
    #[error("a field's value begins or ends with white space")]
    WhiteSpace,
}

/// Checks what the library has let through.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn check(head: &request::Parts) -> Result<(), Malformed> {
    let authority = match head.uri.authority() {
        None => None,
        Some(authority) => Some(Authority::parse(authority.as_str()).map_err(|_| Malformed::Authority)?),
    };
    let host = host(&head.headers)?;
    match (&authority, &host) {
        (Some(authority), Some(host)) if !is_same(authority, host, &head.uri) => return Err(Malformed::HostMismatch),
        // A CONNECT names its target in `:authority` alone (RFC 9113 §8.5).
        (None, _) if head.method == Method::CONNECT => return Err(Malformed::NoHost),
        (None, None) => return Err(Malformed::NoHost),
        _ => {}
    }
    if head.uri.path() == "*" && head.method != Method::OPTIONS {
        return Err(Malformed::Asterisk);
    }
    let is_padded = |value: &[u8]| value.trim_ascii().len() != value.len();
    if head.headers.values().any(|value| is_padded(value.as_bytes())) {
        return Err(Malformed::WhiteSpace);
    }
    Ok(())
}

/// The one `host`, if there is one.
fn host(headers: &HeaderMap) -> Result<Option<Authority<'_>>, Malformed> {
    let mut all = headers.get_all(HOST).iter();
    let Some(host) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(Malformed::TwoHosts);
    }
    let host = host.to_str().map_err(|_| Malformed::Host)?;
    Authority::parse(host).map(Some).map_err(|_| Malformed::Host)
}

/// Whether both name one place, the scheme's port written or not.
fn is_same(authority: &Authority<'_>, host: &Authority<'_>, uri: &Uri) -> bool {
    let default = match uri.scheme_str() {
        Some("http") => 80,
        _ => 443,
    };
    let port = |of: &Authority<'_>| of.port.unwrap_or(default);
    authority.host.eq_ignore_ascii_case(host.host) && port(authority) == port(host)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Request};

    use super::*;

    fn checked(method: &str, uri: &str, fields: &[(&'static str, &[u8])]) -> Result<(), Malformed> {
        let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value).unwrap();
            request.headers_mut().append(HeaderName::from_static(name), value);
        }
        check(&request.into_parts().0)
    }

    #[test]
    fn a_request_has_one_host() {
        let https = "https://a.test/";
        for (uri, hosts, wanted) in [
            (https, &[][..], Ok(())),
            (https, &["a.test"], Ok(())),
            (https, &["A.Test:443"], Ok(())),
            ("http://a.test:80/", &["a.test"], Ok(())),
            ("https://[::1]:8443/", &["[::1]:8443"], Ok(())),
            ("/", &["a.test"], Ok(())),
            (https, &["b.test"], Err(Malformed::HostMismatch)),
            (https, &["a.test:80"], Err(Malformed::HostMismatch)),
            (https, &["a.test", "a.test"], Err(Malformed::TwoHosts)),
            ("/", &["a.test", "b.test"], Err(Malformed::TwoHosts)),
            (https, &[""], Err(Malformed::Host)),
            (https, &["a b"], Err(Malformed::Host)),
            ("/", &["a.test/x"], Err(Malformed::Host)),
            ("/", &["u@a.test"], Err(Malformed::Host)),
            ("/", &[], Err(Malformed::NoHost)),
            ("https://u:p@a.test/", &[], Err(Malformed::Authority)),
            ("https://a.test:99999/", &[], Err(Malformed::Authority)),
        ] {
            let fields: Vec<_> = hosts.iter().map(|host| ("host", host.as_bytes())).collect();
            assert_eq!(checked("GET", uri, &fields), wanted, "{uri} {hosts:?}");
        }
        assert_eq!(checked("CONNECT", "a.test:443", &[]), Ok(()));
        assert_eq!(checked("CONNECT", "/", &[("host", b"a.test")]), Err(Malformed::NoHost));
    }

    #[test]
    fn an_asterisk_is_for_options() {
        let host = [("host", &b"a.test"[..])];
        assert_eq!(checked("OPTIONS", "*", &host), Ok(()));
        assert_eq!(checked("GET", "*", &host), Err(Malformed::Asterisk));
    }

    #[test]
    fn values_have_no_white_space_around_them() {
        for (value, wanted) in [
            (&b"a b"[..], Ok(())),
            (b"", Ok(())),
            (b" a", Err(Malformed::WhiteSpace)),
            (b"a\t", Err(Malformed::WhiteSpace)),
        ] {
            assert_eq!(checked("GET", "https://a.test/", &[("x", value)]), wanted, "{value:?}");
        }
    }
}
