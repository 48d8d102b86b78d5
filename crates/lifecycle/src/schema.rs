//! The JSON Schema of the sections that a daemon reads, for `--schema`.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use sluice_config::value::OneOrMany;
use sluice_telemetry::metrics::StatConfig;
use sluice_telemetry::{LogConfig, Naming};

use crate::config::{ControllerSection, RuntimeSection, WorkerConfig};
use crate::{Daemon, schema_of};

/// A schema of the main file's root with the sections of this daemon.
pub(crate) fn of<D: Daemon>() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let own_name = D::NAME.replace('-', "_");
    let mut properties = D::schema(&mut generator);
    let mut shared = Map::new();
    shared.insert("log".to_owned(), schema_of::<LogConfig>(&mut generator));
    shared.insert("stat".to_owned(), schema_of::<StatConfig>(&mut generator));
    shared.insert(
        "controller".to_owned(),
        schema_of::<OneOrMany<ControllerSection>>(&mut generator),
    );
    let mut own = shared.clone();
    shared.insert("naming".to_owned(), schema_of::<Naming>(&mut generator));
    own.insert("runtime".to_owned(), schema_of::<RuntimeSection>(&mut generator));
    own.insert("worker".to_owned(), schema_of::<WorkerConfig>(&mut generator));

    if D::DATA_PLANE {
        shared.insert("runtime".to_owned(), own["runtime"].clone());
        shared.insert("worker".to_owned(), own["worker"].clone());
    }
    let section = properties.remove(&own_name);
    properties.extend(shared);
    properties.insert(own_name, own_section(&mut generator, section, own));
    let definitions = Value::Object(generator.take_definitions(true).into_iter().collect());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("Sluice configuration: {}", D::NAME),
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// The map under the daemon's own name: its own keys and those of every daemon.
fn own_section(generator: &mut SchemaGenerator, section: Option<Value>, common: Map<String, Value>) -> Value {
    let mut section = match section {
        Some(Value::Object(section)) => resolve(generator, section),
        _ => Map::new(),
    };
    section.insert("type".to_owned(), json!(["object", "null"]));
    section.insert("additionalProperties".to_owned(), Value::Bool(false));
    let properties = section.entry("properties").or_insert_with(|| json!({}));
    if let Value::Object(properties) = properties {
        for (key, schema) in common {
            properties.entry(key).or_insert(schema);
        }
    }
    Value::Object(section)
}

/// The definition that `{"$ref": "#/$defs/…"}` points to, which is about to get more properties.
fn resolve(generator: &SchemaGenerator, section: Map<String, Value>) -> Map<String, Value> {
    let name = section
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|r| r.strip_prefix("#/$defs/"));
    match name.and_then(|name| generator.definitions().get(name)) {
        Some(Value::Object(definition)) => definition.clone(),
        _ => section,
    }
}
