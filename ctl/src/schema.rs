//! `sluicectl schema`: every daemon's `--schema`, joined into one.

use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use tokio::process::Command;

use crate::{daemons, output};

/// Prints the schema of a group's main file.
pub(crate) async fn run() -> anyhow::Result<ExitCode> {
    let mut joined = Joined::default();
    for daemon in daemons::ALL {
        let binary = daemons::binary(daemon)?;
        let done = Command::new(&binary).arg("--schema").output().await;
        let done = done.with_context(|| format!("cannot run `{}`", binary.display()))?;
        if !done.status.success() {
            bail!("{daemon} --schema ended with {}", done.status);
        }
        let schema = serde_json::from_slice(&done.stdout).with_context(|| format!("{daemon} --schema is not JSON"))?;
        joined.add(daemon, schema)?;
    }
    output::json(&joined.finish());
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Default)]
struct Joined {
    properties: Map<String, Value>,
    definitions: Map<String, Value>,
}

impl Joined {
    /// Takes one daemon's part. A definition that differs from another daemon's of the same name is renamed.
    fn add(&mut self, daemon: &str, mut schema: Value) -> anyhow::Result<()> {
        let clash = |(name, definition): (&String, &Value)| {
            self.definitions
                .get(name)
                .is_some_and(|known| known != definition)
                .then(|| name.clone())
        };
        let clashes: Vec<String> = schema["$defs"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(clash)
            .collect();
        for name in clashes {
            rename(&mut schema, &name, &format!("{daemon}-{name}"));
        }
        if let Some(definitions) = schema["$defs"].as_object() {
            self.definitions.extend(definitions.clone());
        }
        let Some(properties) = schema["properties"].as_object() else {
            bail!("{daemon} --schema has no properties");
        };
        for (key, property) in properties {
            self.properties.entry(key.clone()).or_insert_with(|| property.clone());
        }
        Ok(())
    }

    fn finish(self) -> Value {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Sluice configuration",
            "type": "object",
            "properties": self.properties,
            "additionalProperties": false,
            "$defs": self.definitions,
        })
    }
}

/// Renames a definition and what refers to it.
fn rename(schema: &mut Value, from: &str, to: &str) {
    if let Some(definitions) = schema["$defs"].as_object_mut()
        && let Some(definition) = definitions.shift_remove(from)
    {
        definitions.insert(to.to_owned(), definition);
    }
    let (from, to) = (format!("#/$defs/{from}"), format!("#/$defs/{to}"));
    redirect(schema, &from, &to);
}

fn redirect(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if key == "$ref" && value == from {
                    *value = Value::String(to.to_owned());
                } else {
                    redirect(value, from, to);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redirect(item, from, to)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_that_differ_both_stay() {
        let part = |section: &str, kind: &str| {
            json!({
                "properties": { section: { "$ref": "#/$defs/Common" }, "log": { "$ref": "#/$defs/Same" } },
                "$defs": { "Common": { "type": kind }, "Same": { "type": "string" } },
            })
        };
        let mut joined = Joined::default();
        joined.add("a", part("x", "string")).unwrap();
        joined.add("b", part("y", "integer")).unwrap();
        let joined = joined.finish();
        assert_eq!(joined["properties"]["y"]["$ref"], "#/$defs/b-Common");
        assert_eq!(joined["$defs"]["b-Common"]["type"], "integer");
        assert_eq!(joined["$defs"].as_object().unwrap().len(), 3);
    }
}
