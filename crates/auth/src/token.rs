//! What a user's password is checked against.

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::value::Secret;
use sluice_config::{Misfit, schema_as};

use crate::crypt::CryptHash;
use crate::fast::{FastHash, Hex};

/// The value of a user's `token`. Read it as `#[serde(default)]`: a key that is absent is not the same as one that is null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Secret<Form>")]
pub enum Token {
    /// null: any password will do.
    Any,
    /// A crypt(5) string.
    Crypt(CryptHash),
    /// Digests.
    Fast(FastHash),
    /// No key: no password will do.
    #[default]
    Never,
}

impl Token {
    /// Whether this is the user's password. One of more than 255 bytes never is.
    pub fn verify(&self, password: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Crypt(hash) => hash.verify(password),
            Self::Fast(hash) => hash.verify(password),
            Self::Never => false,
        }
    }

    /// Whether [`verify`](Self::verify) takes so long (a millisecond, or as long as `rounds=` makes it) that a thread
    /// that serves others must not do it.
    pub const fn is_slow(&self) -> bool {
        matches!(self, Self::Crypt(_))
    }
}

/// `token: ~`, a crypt(5) string, or a map.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "Token")]
enum Form {
    /// Any password is accepted.
    Null,
    /// A crypt(5) string of MD5-crypt, SHA256-crypt or SHA512-crypt.
    Str(CryptText),
    Map(Box<TokenMap>),
}

schema_as!(Token => Form);

/// The text of a [`CryptHash`].
#[derive(Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(inline)]
struct CryptText(#[schemars(with = "String", regex(pattern = r"^\$[156]\$"))] CryptHash);

impl TryFrom<String> for CryptText {
    type Error = crate::CryptError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        CryptHash::parse(&text).map(Self)
    }
}

/// A map, by its type.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct TokenMap {
    /// What the other keys are.
    #[serde(default, rename = "type")]
    kind: Kind,
    /// xcrypt_hash: a crypt(5) string.
    value: Option<CryptText>,
    /// fast_hash: what was appended to the password.
    salt: Option<Hex<8>>,
    /// fast_hash: the MD5 digest.
    md5: Option<Hex<16>>,
    /// fast_hash: the SHA-1 digest.
    sha1: Option<Hex<20>>,
    /// fast_hash: the BLAKE3 digest.
    #[serde(alias = "b3")]
    blake3: Option<Hex<32>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Kind {
    /// Digests of password and salt.
    #[default]
    FastHash,
    /// A crypt(5) string.
    XcryptHash,
}

impl TryFrom<Secret<Form>> for Token {
    type Error = Misfit;

    fn try_from(form: Secret<Form>) -> Result<Self, Misfit> {
        match form.into_inner() {
            Form::Null => Ok(Self::Any),
            Form::Str(CryptText(hash)) => Ok(Self::Crypt(hash)),
            Form::Map(map) => match map.kind {
                Kind::FastHash => map.fast().map(Self::Fast),
                Kind::XcryptHash => map.crypt().map(Self::Crypt),
            },
        }
    }
}

impl TokenMap {
    fn fast(self) -> Result<FastHash, Misfit> {
        if self.value.is_some() {
            return Err(Misfit::at("value", "only a map of type `xcrypt_hash` has it"));
        }
        if self.md5.is_none() && self.sha1.is_none() && self.blake3.is_none() {
            return Err(Misfit::new("one of `md5`, `sha1` and `blake3` is needed"));
        }
        Ok(FastHash {
            salt: self.salt.ok_or_else(|| Misfit::new("`salt` is missing"))?,
            md5: self.md5,
            sha1: self.sha1,
            blake3: self.blake3,
        })
    }

    fn crypt(self) -> Result<CryptHash, Misfit> {
        let others = [
            ("salt", self.salt.is_some()),
            ("md5", self.md5.is_some()),
            ("sha1", self.sha1.is_some()),
            ("blake3", self.blake3.is_some()),
        ];
        if let Some((key, _)) = others.into_iter().find(|(_, is_there)| *is_there) {
            return Err(Misfit::at(key, "only a map of type `fast_hash` has it"));
        }
        let CryptText(hash) = self.value.ok_or_else(|| Misfit::new("`value` is missing"))?;
        Ok(hash)
    }
}

#[cfg(test)]
mod tests;
