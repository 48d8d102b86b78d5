//! Strings with a rule.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Visitor};

use crate::decode::token;

/// A string of ASCII characters; a number is taken as its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct AsciiStr(#[schemars(regex(pattern = r"^[\x00-\x7f]*$"))] String);

impl AsciiStr {
    /// A string of ASCII characters; `None` if there are others.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        text.is_ascii().then_some(Self(text))
    }
}

impl TryFrom<String> for AsciiStr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_ascii() {
            Ok(Self(text))
        } else {
            Err(format!("expected ASCII characters only, found `{text}`"))
        }
    }
}

impl Deref for AsciiStr {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AsciiStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value that no message, log or control answer shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for its use.
    pub fn reveal(&self) -> &T {
        &self.0
    }

    /// The value, for its use.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hidden<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Hidden<T> {
            type Value = Secret<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Secret<T>, D::Error> {
                T::deserialize(deserializer).map(Secret)
            }
        }

        deserializer.deserialize_newtype_struct(token::SECRET, Hidden(std::marker::PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Secret<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn ascii_strings_take_numbers_and_no_other_letters() {
        assert_eq!(decode::<AsciiStr>("proxy").as_deref(), Ok("proxy"));
        assert_eq!(decode::<AsciiStr>("1.10").as_deref(), Ok("1.10"));
        assert!(decode::<AsciiStr>("bücher").is_err());
        assert!(decode::<AsciiStr>("true").is_err());
    }

    #[test]
    fn a_secret_is_in_no_message() {
        let secret = decode::<Secret<u16>>("70000");
        assert_eq!(secret.unwrap_err(), "expected an integer from 0 to 65535");
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "(hidden)");
        assert_eq!(decode::<Secret<String>>("hunter2").unwrap().reveal(), "hunter2");
    }
}
