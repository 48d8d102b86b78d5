//! User names and passwords.

use std::borrow::{Borrow, Cow};
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use sluice_config::value::Secret;
use thiserror::Error;

/// The longest user name, in bytes.
pub const MAX_USERNAME: usize = 255;

/// The longest password, in bytes. It also bounds what hashing one costs.
pub const MAX_PASSWORD: usize = 255;

/// The name of a user, at most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Username(Box<str>);

/// Why a text is no user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UsernameError {
    /// A colon, which Basic credentials (RFC 7617) cannot have in a name.
    #[error("a user name that a client sends has no colon")]
    Colon,
    /// There is nothing.
    #[error("expected the name of a user, found an empty string")]
    Empty,
    /// More than 255 bytes.
    #[error("a user name has at most 255 bytes")]
    TooLong,
}

impl Username {
    /// A name of the configuration.
    ///
    /// # Errors
    /// [`UsernameError::Empty`] and [`UsernameError::TooLong`].
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, UsernameError> {
        let text = text.into();
        match text.len() {
            0 => Err(UsernameError::Empty),
            1..=MAX_USERNAME => Ok(Self(text)),
            _ => Err(UsernameError::TooLong),
        }
    }

    /// A name that a client sent.
    ///
    /// # Errors
    /// [`UsernameError`], see its variants.
    pub fn from_client(text: &str) -> Result<Self, UsernameError> {
        if text.contains(':') {
            return Err(UsernameError::Colon);
        }
        Self::new(text)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that a map with names as keys can be asked for a text.
impl Borrow<str> for Username {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Username {
    type Error = UsernameError;

    fn try_from(text: String) -> Result<Self, UsernameError> {
        Self::new(text)
    }
}

impl JsonSchema for Username {
    fn schema_name() -> Cow<'static, str> {
        "Username".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number"], "minLength": 1, "maxLength": MAX_USERNAME})
    }
}

/// A password of the configuration, at most 255 bytes, which no message shows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Secret<String>")]
pub struct Password(Secret<String>);

impl Password {
    /// The password, for its use.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

impl TryFrom<Secret<String>> for Password {
    type Error = &'static str;

    fn try_from(text: Secret<String>) -> Result<Self, &'static str> {
        if text.reveal().len() > MAX_PASSWORD {
            return Err("a password has at most 255 bytes");
        }
        Ok(Self(text))
    }
}

impl JsonSchema for Password {
    fn schema_name() -> Cow<'static, str> {
        "Password".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number"], "maxLength": MAX_PASSWORD})
    }
}

#[cfg(test)]
mod tests {
    use sluice_config::decode_text;

    use super::*;

    #[test]
    fn names_have_1_to_255_bytes() {
        for text in ["a", "Käthe", "a:b", "a b", &"n".repeat(255)] {
            assert_eq!(Username::new(text).unwrap().as_str(), text);
        }
        assert_eq!(Username::new(""), Err(UsernameError::Empty));
        assert_eq!(Username::new("n".repeat(256)), Err(UsernameError::TooLong));
        assert_eq!(Username::new("ä".repeat(128)), Err(UsernameError::TooLong));
    }

    #[test]
    fn a_client_can_send_no_colon() {
        assert_eq!(Username::from_client("a:b"), Err(UsernameError::Colon));
        assert_eq!(Username::from_client("a"), Username::new("a"));
        assert_eq!(Username::from_client(""), Err(UsernameError::Empty));
    }

    #[test]
    fn names_and_passwords_are_strings_or_numbers_in_the_configuration() {
        assert_eq!(decode_text::<Username>("12").unwrap().as_str(), "12");
        assert_eq!(
            decode_text::<Username>("''"),
            Err(vec!["expected the name of a user, found an empty string".to_owned()])
        );
        assert!(decode_text::<Username>("[a]").is_err());
        let password = decode_text::<Password>("hunter2").unwrap();
        assert_eq!(password.reveal(), "hunter2");
        assert!(!format!("{password:?}").contains("hunter2"));
        assert_eq!(
            decode_text::<Password>(&"p".repeat(256)),
            Err(vec!["a password has at most 255 bytes".to_owned()])
        );
    }
}
