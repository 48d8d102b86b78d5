//! Keys that the reference has and this version has not.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Visitor};

use crate::decode::token;

/// The type of a key that is not built yet: any value is an error that says so.
///
/// Used as `#[serde(default)] #[schemars(skip)] auditor: Option<NotYet>`, which is always `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotYet(Infallible);

impl<'de> Deserialize<'de> for NotYet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Never;

        impl Visitor<'_> for Never {
            type Value = NotYet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("nothing, since this key is not built yet in this version")
            }
        }

        deserializer.deserialize_newtype_struct(token::NOT_BUILT, Never)
    }
}

impl JsonSchema for NotYet {
    fn schema_name() -> Cow<'static, str> {
        "NotYet".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!(false)
    }
}
