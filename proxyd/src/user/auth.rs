//! User names and tokens.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub(crate) struct Username(#[schemars(with = "String")] Box<str>);

impl Username {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Username {
    type Error = Cow<'static, str>;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.len() {
            0 => Err("expected a user name, found an empty string".into()),
            1..=255 => Ok(Self(text.into())),
            _ => Err("a user name has at most 255 bytes".into()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged)]
pub(crate) enum Token {
    Null(()),
    Map(Sha1),
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub(crate) struct Sha1 {
    salt: String,
    sha1: String,
}

impl Token {
    pub(crate) fn is_slow(&self) -> bool {
        false
    }

    pub(crate) fn verify(&self, password: &str) -> bool {
        match self {
            Self::Null(()) => true,
            Self::Map(hash) => {
                let salt: Vec<u8> = (0..hash.salt.len() / 2)
                    .filter_map(|at| u8::from_str_radix(&hash.salt[2 * at..2 * at + 2], 16).ok())
                    .collect();
                let bytes = [password.as_bytes(), &salt].concat();
                let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &bytes);
                let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                hex == hash.sha1
            }
        }
    }
}
