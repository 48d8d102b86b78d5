//! The single values and the certificate pairs.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer};
use sluice_config::value::{OneOrMany, Secret};

/// A TLS version, as `min_tls_version` and its like take it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TlsVersion {
    /// TLS 1.0 (RFC 2246).
    Tls1_0,
    /// TLS 1.1 (RFC 4346).
    Tls1_1,
    /// TLS 1.2 (RFC 5246).
    Tls1_2,
    /// TLS 1.3 (RFC 8446).
    Tls1_3,
}

impl TlsVersion {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        Some(match text.strip_prefix("tls").unwrap_or(&text) {
            "1" | "1.0" | "10" | "1_0" => Self::Tls1_0,
            "1.1" | "11" | "1_1" => Self::Tls1_1,
            "1.2" | "12" | "1_2" => Self::Tls1_2,
            "1.3" | "13" | "1_3" => Self::Tls1_3,
            _ => return None,
        })
    }
}

impl<'de> Deserialize<'de> for TlsVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format_args!(
                "no TLS version is named `{text}`: expected `tls1.0`, `tls1.1`, `tls1.2` or `tls1.3`"
            ))
        })
    }
}

impl JsonSchema for TlsVersion {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TlsVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": ["tls1.0", "tls1.1", "tls1.2", "tls1.3", 1.0, 1.1, 1.2, 1.3]})
    }
}

/// The one version that `protocol` pins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OpensslProtocol {
    /// SSL 3.0, which no library here speaks any more.
    Ssl3,
    /// TLCP (GB/T 38636), spoken by Tongsuo alone.
    Tlcp,
    /// A version of TLS.
    Tls(TlsVersion),
}

impl<'de> Deserialize<'de> for OpensslProtocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.to_ascii_lowercase().as_str() {
            "ssl3" | "ssl30" | "ssl3.0" | "ssl3_0" => Self::Ssl3,
            "tlcp" | "tlcp1.1" | "tlcp11" | "tlcp1_1" => Self::Tlcp,
            name => match TlsVersion::parse(name) {
                Some(version) if name.starts_with("tls") => Self::Tls(version),
                _ => {
                    return Err(de::Error::custom(format_args!(
                        "no protocol is named `{text}`: expected `tls1.0`, `tls1.1`, `tls1.2`, `tls1.3` or `tlcp`"
                    )));
                }
            },
        })
    }
}

impl JsonSchema for OpensslProtocol {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OpensslProtocol".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": ["tls1.0", "tls1.1", "tls1.2", "tls1.3", "tlcp"]})
    }
}

/// OpenSSL names of ciphers: one string joined by `:`, or a list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ciphers(pub String);

impl<'de> Deserialize<'de> for Ciphers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = OneOrMany::<String>::deserialize(deserializer)?.0;
        if names.iter().all(|name| name.is_empty()) {
            return Err(de::Error::custom("no cipher is named"));
        }
        Ok(Self(names.join(":")))
    }
}

impl JsonSchema for Ciphers {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Ciphers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]})
    }
}

/// Where PEM text is: a file, or the value itself if it starts with `--`.
#[derive(Clone, Debug, PartialEq)]
pub enum PemSource {
    /// A file; a relative path starts at the folder of the file that names it.
    File(PathBuf),
    /// The text itself.
    Inline(Secret<String>),
}

impl<'de> Deserialize<'de> for PemSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Err(de::Error::custom(
                "expected a file or inline PEM, found an empty string",
            ));
        }
        Ok(if text.starts_with("--") {
            Self::Inline(Secret::new(text))
        } else {
            Self::File(text.into())
        })
    }
}

impl JsonSchema for PemSource {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PemSource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "description": "a file, or inline PEM"})
    }
}

/// Certificates from one or more files, each of one or more certificates.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificates(pub Vec<PemSource>);

impl<'de> Deserialize<'de> for Certificates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sources = OneOrMany::deserialize(deserializer)?.0;
        if sources.is_empty() {
            return Err(de::Error::custom("no certificate is named"));
        }
        Ok(Self(sources))
    }
}

impl JsonSchema for Certificates {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Certificates".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let source = PemSource::json_schema(generator);
        json_schema!({"anyOf": [source, {"type": "array", "items": source, "minItems": 1}]})
    }
}

/// A certificate with its chain, and its private key.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct CertPairConfig {
    /// The leaf first, then the rest of the chain.
    #[serde(alias = "cert")]
    pub certificate: Certificates,
    /// The leaf's key: PKCS#8 or traditional PEM; the first in the file.
    #[serde(alias = "key")]
    pub private_key: PemSource,
}

/// The two pairs of a TLCP side: one signs, one encrypts.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TlcpCertPairConfig {
    /// The encryption leaf, then its chain.
    #[serde(alias = "enc_cert")]
    pub enc_certificate: Certificates,
    /// The encryption leaf's key.
    #[serde(alias = "enc_key")]
    pub enc_private_key: PemSource,
    /// The signing leaf, then its chain.
    #[serde(alias = "sign_cert")]
    pub sign_certificate: Certificates,
    /// The signing leaf's key.
    #[serde(alias = "sign_key")]
    pub sign_private_key: PemSource,
}
