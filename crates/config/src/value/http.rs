//! What HTTP servers and clients are told.

use std::borrow::Cow;
use std::ops::Deref;

use schemars::JsonSchema;
use serde::Deserialize;

use super::scalar::{Raw, Scalar, UNFIT, scalar};
use super::time::Span;

/// Whether and how long unused connections to an upstream are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(from = "KeepaliveForm")]
pub struct HttpKeepalive {
    /// Whether connections are kept at all.
    pub enable: bool,
    /// A connection idle for longer is dropped.
    pub idle_expire: Span,
}

impl HttpKeepalive {
    /// What holds under two settings: kept if both say so, for the shorter time.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            enable: self.enable && other.enable,
            idle_expire: self.idle_expire.min(other.idle_expire),
        }
    }
}

impl Default for HttpKeepalive {
    fn default() -> Self {
        Self {
            enable: true,
            idle_expire: Span::secs(60),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "HttpKeepalive")]
enum KeepaliveForm {
    Map(KeepaliveMap),
    Bool(bool),
    Other(Span),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct KeepaliveMap {
    enable: bool,
    idle_expire: Span,
}

impl Default for KeepaliveMap {
    fn default() -> Self {
        let HttpKeepalive { enable, idle_expire } = HttpKeepalive::default();
        Self { enable, idle_expire }
    }
}

impl From<KeepaliveForm> for HttpKeepalive {
    fn from(form: KeepaliveForm) -> Self {
        match form {
            KeepaliveForm::Map(KeepaliveMap { enable, idle_expire }) => Self { enable, idle_expire },
            KeepaliveForm::Bool(enable) => Self {
                enable,
                ..Self::default()
            },
            KeepaliveForm::Other(idle_expire) => Self {
                idle_expire,
                ..Self::default()
            },
        }
    }
}

/// The name that a proxy gives itself in headers: printable ASCII without `;` and `,`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpServerId(Box<str>);

impl Scalar for HttpServerId {
    const EXPECTED: &'static str = "printable ASCII characters without `;` and `,`";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let text = match raw {
            Raw::Str(text) => text.to_owned(),
            Raw::Int(number) => number.to_string(),
            Raw::Bool(_) | Raw::Float(_) => return Err(UNFIT),
        };
        let fine = text
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && byte != b';' && byte != b',');
        if fine && !text.is_empty() {
            Ok(Self(text.into()))
        } else {
            Err(UNFIT)
        }
    }
}

scalar!(HttpServerId, {"type": "string", "pattern": r"^[\x20-\x2b\x2d-\x3a\x3c-\x7e]+$"});

impl Deref for HttpServerId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocolVersion {
    /// One line of text.
    V1,
    /// Binary, with TLVs.
    V2,
}

impl Scalar for ProxyProtocolVersion {
    const EXPECTED: &'static str = "a version of the PROXY protocol: `1`, `2`, `v1` or `v2`";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Int(1) | Raw::Str("1" | "v1" | "V1") => Ok(Self::V1),
            Raw::Int(2) | Raw::Str("2" | "v2" | "V2") => Ok(Self::V2),
            _ => Err(UNFIT),
        }
    }
}

scalar!(ProxyProtocolVersion, {"enum": [1, 2, "1", "2", "v1", "v2"]});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    fn keepalive(enable: bool, secs: u64) -> HttpKeepalive {
        HttpKeepalive {
            enable,
            idle_expire: Span::secs(secs),
        }
    }

    #[test]
    fn keepalive_is_a_switch_a_time_or_a_map() {
        for (yaml, expected) in [
            ("true", keepalive(true, 60)),
            ("false", keepalive(false, 60)),
            ("10", keepalive(true, 10)),
            ("1m30s", keepalive(true, 90)),
            ("{}", keepalive(true, 60)),
            ("{idle-expire: 5s}", keepalive(true, 5)),
            ("{enable: off, idle_expire: 5}", keepalive(false, 5)),
        ] {
            assert_eq!(decode::<HttpKeepalive>(yaml), Ok(expected), "{yaml}");
        }
        for yaml in ["yes", "[]", "~", "{idle: 5}", "-1"] {
            assert!(decode::<HttpKeepalive>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn two_keepalives_agree_on_the_shorter() {
        assert_eq!(keepalive(true, 10).and(keepalive(true, 20)), keepalive(true, 10));
        assert_eq!(keepalive(true, 10).and(keepalive(false, 5)), keepalive(false, 5));
    }

    #[test]
    fn a_server_id_fits_a_header() {
        assert!(decode::<HttpServerId>("proxy 1").is_ok());
        assert!(decode::<HttpServerId>("7").is_ok());
        for yaml in ["'a;b'", "'a,b'", "bücher", "''", "\"a\\tb\"", "true"] {
            assert!(decode::<HttpServerId>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn proxy_protocol_has_two_versions() {
        for yaml in ["1", "'1'", "v1"] {
            assert_eq!(
                decode::<ProxyProtocolVersion>(yaml),
                Ok(ProxyProtocolVersion::V1),
                "{yaml}"
            );
        }
        for yaml in ["2", "'2'", "v2"] {
            assert_eq!(
                decode::<ProxyProtocolVersion>(yaml),
                Ok(ProxyProtocolVersion::V2),
                "{yaml}"
            );
        }
        for yaml in ["0", "3", "v3", "true", "1.0"] {
            assert!(decode::<ProxyProtocolVersion>(yaml).is_err(), "{yaml}");
        }
    }
}
