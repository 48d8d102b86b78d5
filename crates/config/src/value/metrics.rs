//! Names and tags that metrics carry.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use super::scalar::{Raw, Scalar, UNFIT, scalar};

/// Whether a character may stand in a name or tag.
fn is_fine(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')
}

/// The first character that may not stand in a name or tag.
fn check(text: &str) -> Result<(), Cow<'static, str>> {
    match text.chars().find(|c| !is_fine(*c)) {
        None => Ok(()),
        Some(c) => Err(format!("{c:?} is none of letters, digits, `-`, `_`, `.`, `/`").into()),
    }
}

/// The name of a server, an escaper and so on: letters, digits, `-`, `_`, `.`, `/`; a string, never a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Box<str>);

impl NodeName {
    /// A name of this text.
    ///
    /// # Errors
    /// Why the text is none, for a message.
    pub fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        if text.is_empty() {
            return Err("it is empty".into());
        }
        check(text)?;
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for NodeName {
    const EXPECTED: &'static str = "a name";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Str("") => Err(UNFIT),
            Raw::Str(text) => Self::parse(text),
            Raw::Bool(_) | Raw::Float(_) | Raw::Int(_) => Err("in quotes it would be one".into()),
        }
    }
}

scalar!(NodeName, {"type": "string", "pattern": r"^[\p{L}\p{N}\-_./]+$"});

impl Deref for NodeName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tags added to metrics: names to values, in file order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TagMap(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for TagMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TagsVisitor;

        impl<'de> Visitor<'de> for TagsVisitor {
            type Value = TagMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tag names to tag values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TagMap, A::Error> {
                let mut tags = Vec::new();
                while let Some(Tag::<Named>(name, _)) = map.next_key()? {
                    let Tag::<Valued>(value, _) = map.next_value()?;
                    tags.push((name, value));
                }
                Ok(TagMap(tags))
            }
        }

        deserializer.deserialize_map(TagsVisitor)
    }
}

/// One side of a tag.
struct Tag<Side>(String, PhantomData<Side>);
struct Named;
struct Valued;

/// Whether an empty text is fine.
trait Side {
    const EMPTY: bool;
}

impl Side for Named {
    const EMPTY: bool = false;
}

impl Side for Valued {
    const EMPTY: bool = true;
}

impl<'de, S: Side> Deserialize<'de> for Tag<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() && !S::EMPTY {
            return Err(de::Error::custom("the name of a tag is empty"));
        }
        check(&text).map_err(|why| de::Error::custom(format!("`{text}` is no tag: {why}")))?;
        Ok(Self(text, PhantomData))
    }
}

impl JsonSchema for TagMap {
    fn schema_name() -> Cow<'static, str> {
        "TagMap".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": {"pattern": r"^[\p{L}\p{N}\-_./]+$"},
            "additionalProperties": {"type": ["string", "number"], "pattern": r"^[\p{L}\p{N}\-_./]*$"},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn names_are_strings_of_few_characters() {
        for yaml in ["http-1", "a.b/c", "名_2", "'123'"] {
            assert!(decode::<NodeName>(yaml).is_ok(), "{yaml}");
        }
        for yaml in ["a b", "a=b", "''", "123", "1.5", "true", "~", "[a]"] {
            assert!(decode::<NodeName>(yaml).is_err(), "{yaml}");
        }
        assert_eq!(
            decode::<NodeName>("123").unwrap_err(),
            "expected a name, found `123`: in quotes it would be one"
        );
    }

    #[test]
    fn tags_keep_spelling_and_order() {
        let tags = decode::<TagMap>("{My-Tag: a, b: 1, c: 1.10, d: ''}").unwrap();
        let expected = [("My-Tag", "a"), ("b", "1"), ("c", "1.10"), ("d", "")];
        assert_eq!(
            tags.0,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn bad_tags_are_refused() {
        for yaml in ["{a: 'x y'}", "{'a b': x}", "{'': x}", "{a: true}", "{1: x}", "[]"] {
            assert!(decode::<TagMap>(yaml).is_err(), "{yaml}");
        }
    }
}
