//! JSON Schemas of sections, for editors that complete and check.

mod aliases;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::kinds::{self, Kinds};

/// The schema of a hybrid section: a list of nodes, or of paths of files that hold some.
pub fn nodes<T: Kinds>(generator: &mut SchemaGenerator) -> Schema {
    let mut kinds: Vec<Value> = Vec::new();
    for kind in T::kinds() {
        let mut config = (kind.schema)(generator).to_value();
        aliases::add(&mut config, generator.definitions_mut(), &|decoder| {
            (kind.decode)(decoder).err()
        });
        kinds.push(node::<T>(kind.name, config));
    }
    json_schema!({
        "anyOf": [
            {"type": "string", "description": "the path of a file or folder that holds the nodes"},
            {
                "type": "array",
                "items": {"anyOf": [{"type": "string", "description": "the path of a file or folder"}, {"anyOf": kinds}]},
            },
        ],
    })
}

/// The schema of a plain section, every name of its keys included.
pub fn section<T: JsonSchema + DeserializeOwned>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<T>().to_value();
    aliases::add(&mut schema, generator.definitions_mut(), &|decoder| {
        T::deserialize(decoder).err()
    });
    Schema::try_from(schema).unwrap_or_default()
}

/// The schema of one kind's config, and `name` and `type` beside its keys.
fn node<T: Kinds>(kind: &str, config: Value) -> Value {
    let Value::Object(mut object) = config else {
        return config;
    };
    object.entry("type").or_insert_with(|| json!("object"));
    let mut properties = Map::new();
    properties.insert(
        "name".to_owned(),
        json!({"type": "string", "description": "unique among its kind"}),
    );
    let mut required = vec![json!("name")];
    if kinds::is_typed::<T>() {
        properties.insert("type".to_owned(), json!({"const": kind}));
        if T::UNTYPED != Some(kind) {
            required.push(json!("type"));
        }
    }
    if let Some(Value::Object(own)) = object.remove("properties") {
        properties.extend(own);
    }
    if let Some(Value::Array(own)) = object.remove("required") {
        required.extend(own);
    }
    object.insert("properties".to_owned(), Value::Object(properties));
    object.insert("required".to_owned(), Value::Array(required));
    Value::Object(object)
}

/// Gives a type the schema of the form that it is read through, as `#[serde(from = "…")]` names it.
#[macro_export]
macro_rules! schema_as {
    ($Type:ty => $Form:ty) => {
        impl $crate::schemars::JsonSchema for $Type {
            fn inline_schema() -> bool {
                <$Form as $crate::schemars::JsonSchema>::inline_schema()
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                <$Form as $crate::schemars::JsonSchema>::schema_name()
            }

            fn json_schema(generator: &mut $crate::schemars::SchemaGenerator) -> $crate::schemars::Schema {
                <$Form as $crate::schemars::JsonSchema>::json_schema(generator)
            }
        }
    };
}

#[cfg(test)]
mod tests;
