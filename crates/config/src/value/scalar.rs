//! What values that are one word or one number have in common.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserializer, Visitor};

use crate::node::shorten;

/// A plain value as the file has it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Raw<'a> {
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(&'a str),
}

/// A value that is one word or one number.
pub(crate) trait Scalar: Sized {
    /// What messages say was expected.
    const EXPECTED: &'static str;

    /// Reads the value; the error is the reason, or empty where what was expected says it all.
    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>>;
}

/// No reason beyond what was expected.
pub(crate) const UNFIT: Cow<'static, str> = Cow::Borrowed("");

pub(crate) fn deserialize<'de, T: Scalar, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(ScalarVisitor(PhantomData))
}

struct ScalarVisitor<T>(PhantomData<T>);

impl<T: Scalar> ScalarVisitor<T> {
    fn read<E: de::Error>(self, raw: Raw<'_>) -> Result<T, E> {
        T::read(raw).map_err(|why| {
            let found = match raw {
                Raw::Bool(value) => format!("`{value}`"),
                Raw::Int(value) => format!("`{value}`"),
                Raw::Float(value) => format!("`{value}`"),
                Raw::Str("") => "an empty string".to_owned(),
                Raw::Str(text) => format!("`{}`", shorten(text)),
            };
            let joint = if why.is_empty() { "" } else { ": " };
            E::invalid_value(de::Unexpected::Other(&format!("{found}{joint}{why}")), &self)
        })
    }
}

impl<T: Scalar> Visitor<'_> for ScalarVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        self.read(Raw::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        self.read(Raw::Int(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        self.read(Raw::Int(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<T, E> {
        self.read(Raw::Int(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
        self.read(Raw::Float(value))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        self.read(Raw::Str(text))
    }
}

/// Gives a [`Scalar`] its serde and schema sides.
macro_rules! scalar {
    ($Type:ident, $($schema:tt)+) => {
        impl<'de> serde::Deserialize<'de> for $Type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::value::scalar::deserialize(deserializer)
            }
        }

        impl schemars::JsonSchema for $Type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($Type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($($schema)+)
            }
        }
    };
}
pub(crate) use scalar;

/// Decodes YAML text for tests of values: the value, or the errors joined by `; `.
#[cfg(test)]
pub(crate) fn decode<T: de::DeserializeOwned>(yaml: &str) -> Result<T, String> {
    crate::decode_text(yaml).map_err(|errors| errors.join("; "))
}
