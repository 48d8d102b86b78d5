//! How rules are written.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use sluice_config::value::OneOrMany;

use crate::Action;

/// A rule as it is written: one record, a list of records, or a map of actions to records.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleForm<R> {
    /// The action where no record matches, if the rule says so.
    pub default: Option<Action>,
    /// Records in file order; without an action they have that of their type.
    pub records: Vec<(Option<Action>, R)>,
}

/// The words that a map of actions can have as keys.
const KEYS: &[&str] = &[
    "default",
    "forbid_log",
    "deny_log",
    "reject_log",
    "forbid",
    "deny",
    "reject",
    "permit_log",
    "allow_log",
    "accept_log",
    "permit",
    "allow",
    "accept",
];

#[derive(serde::Deserialize)]
#[serde(rename = "config::shape", rename_all = "snake_case", bound = "R: Deserialize<'de>")]
enum Shape<R> {
    Map(ActionMap<R>),
    Other(OneOrMany<R>),
}

struct ActionMap<R>(RuleForm<R>);

/// `default`, or an action.
struct ActionKey(Option<Action>);

impl<'de> Deserialize<'de> for ActionKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl Visitor<'_> for KeyVisitor {
            type Value = ActionKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`default` or an action")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<ActionKey, E> {
                match Action::of_word(word) {
                    None if word == "default" => Ok(ActionKey(None)),
                    None => Err(E::unknown_field(word, KEYS)),
                    action => Ok(ActionKey(action)),
                }
            }
        }

        deserializer.deserialize_identifier(KeyVisitor)
    }
}

impl<'de, R: Deserialize<'de>> Deserialize<'de> for ActionMap<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor<R>(PhantomData<R>);

        impl<'de, R: Deserialize<'de>> Visitor<'de> for MapVisitor<R> {
            type Value = ActionMap<R>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of actions to records")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut form = RuleForm {
                    default: None,
                    records: Vec::new(),
                };
                while let Some(ActionKey(action)) = map.next_key()? {
                    if action.is_none() {
                        form.default = Some(map.next_value()?);
                        continue;
                    }
                    let records: OneOrMany<R> = map.next_value()?;
                    form.records.extend(records.into_iter().map(|record| (action, record)));
                }
                Ok(ActionMap(form))
            }
        }

        deserializer.deserialize_map(MapVisitor(PhantomData))
    }
}

impl<'de, R: Deserialize<'de>> Deserialize<'de> for RuleForm<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Shape::deserialize(deserializer)? {
            Shape::Map(ActionMap(form)) => form,
            Shape::Other(records) => Self {
                default: None,
                records: records.into_iter().map(|record| (None, record)).collect(),
            },
        })
    }
}

impl<R: JsonSchema> JsonSchema for RuleForm<R> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("RuleOf{}", R::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let records = generator.subschema_for::<OneOrMany<R>>();
        let action = generator.subschema_for::<Action>();
        let keys = KEYS
            .iter()
            .map(|key| (*key, if *key == "default" { &action } else { &records }));
        let properties: serde_json::Map<String, serde_json::Value> = keys
            .map(|(key, schema)| (key.to_owned(), schema.clone().to_value()))
            .collect();
        json_schema!({
            "anyOf": [records, {"type": "object", "properties": properties, "additionalProperties": false}],
        })
    }
}

#[cfg(test)]
pub(crate) use tests::{decode, errors};

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use sluice_config::decode_text;

    /// Decodes what has to be right.
    pub(crate) fn decode<T: DeserializeOwned>(yaml: &str) -> T {
        decode_text(yaml).unwrap_or_else(|errors| panic!("{yaml}: {errors:?}"))
    }

    /// The errors of what has to be wrong.
    pub(crate) fn errors<T: DeserializeOwned + std::fmt::Debug>(yaml: &str) -> String {
        decode_text::<T>(yaml).unwrap_err().join("; ")
    }
}
