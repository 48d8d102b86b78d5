//! Methods that this client does not know: the daemon describes them.

use anyhow::{Context, bail};
use schemars::Schema;
use serde_json::{Map, Value};
use sluice_control::{Client, Description, NoParams};

use crate::call::Call;

/// Makes a call of `words`: a method's name, its dots as they are or as spaces, then its parameters in order or as
/// `name=value`.
///
/// # Errors
/// If the daemon has no such method, or not so many parameters, or none of that name.
pub(crate) async fn call(client: &mut Client, words: &[String]) -> anyhow::Result<Call> {
    let methods: Vec<Description> = client.call("rpc.describe", NoParams {}).await?;
    make(&methods, words)
}

fn make(methods: &[Description], words: &[String]) -> anyhow::Result<Call> {
    // The longest name wins: `cache flush` before `cache`.
    let found = (1..=words.len()).rev().find_map(|n| {
        let name = words[..n].join(".");
        methods.iter().find(|m| m.name == name).map(|m| (m, &words[n..]))
    });
    let Some((method, arguments)) = found else {
        bail!(
            "the daemon has no method `{}`, `describe` lists what it has",
            words.first().map_or("", String::as_str)
        );
    };
    let mut params = Map::new();
    let mut in_order = properties(method).map(|(name, _)| name.as_str());
    for argument in arguments {
        let by_name = argument
            .split_once('=')
            .filter(|(name, _)| properties(method).any(|(known, _)| known == name));
        let (name, text) = match by_name {
            Some(by_name) => by_name,
            None => {
                let next = in_order.find(|name| !params.contains_key(*name));
                (
                    next.with_context(|| format!("`{}` has no parameter for `{argument}`", method.name))?,
                    argument.as_str(),
                )
            }
        };
        params.insert(name.to_owned(), value(method, name, text)?);
    }
    Ok(Call::new(&method.name, Value::Object(params)))
}

fn properties(method: &Description) -> impl Iterator<Item = (&String, &Value)> {
    method
        .params
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

/// `text` as the type that the schema has: a string as it is, anything else as JSON.
fn value(method: &Description, name: &str, text: &str) -> anyhow::Result<Value> {
    let schema = properties(method)
        .find(|(known, _)| *known == name)
        .map(|(_, schema)| schema);
    if schema.is_none_or(|schema| takes_text(&method.params, schema)) {
        return Ok(Value::String(text.to_owned()));
    }
    serde_json::from_str(text).with_context(|| format!("`{name}` of `{}` takes JSON, not `{text}`", method.name))
}

fn takes_text(root: &Schema, schema: &Value) -> bool {
    let mut at = schema;
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/"))
        && let Some(definition) = root.get("$defs").and_then(|defs| defs.get(name))
    {
        at = definition;
    }
    let is_text = |kind: &Value| kind == "string";
    match &at["type"] {
        Value::Array(kinds) => kinds.iter().any(is_text),
        Value::Null => {
            let variants = ["anyOf", "oneOf"]
                .iter()
                .filter_map(|key| at[*key].as_array())
                .flatten();
            at.get("enum").is_some() || variants.into_iter().any(|v| takes_text(root, v))
        }
        kind => is_text(kind),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn methods() -> Vec<Description> {
        let described = json!([
            { "name": "cache", "summary": "", "params": { "type": "object" } },
            { "name": "cache.flush", "summary": "", "params": {
                "properties": {
                    "resolver": { "type": "string" },
                    "limit": { "type": ["integer", "null"] },
                    "kind": { "anyOf": [{ "$ref": "#/$defs/Kind" }, { "type": "null" }] },
                },
                "$defs": { "Kind": { "enum": ["a", "aaaa"] } },
            } },
        ]);
        serde_json::from_value(described).unwrap()
    }

    fn made(line: &str) -> anyhow::Result<(String, Value)> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        make(&methods(), &words).map(|call| (call.method, call.params))
    }

    #[test]
    fn words_become_a_method_and_its_parameters() {
        assert_eq!(made("cache").unwrap(), ("cache".to_owned(), json!({})));
        let flush = |params| ("cache.flush".to_owned(), params);
        assert_eq!(
            made("cache.flush r1 5").unwrap(),
            flush(json!({"resolver": "r1", "limit": 5}))
        );
        let mixed = made("cache flush limit=5 kind=aaaa 12").unwrap();
        assert_eq!(mixed, flush(json!({"limit": 5, "kind": "aaaa", "resolver": "12"})));
        assert_eq!(made("cache flush a=b").unwrap(), flush(json!({"resolver": "a=b"})));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        assert!(made("cash").unwrap_err().to_string().contains("no method `cash`"));
        assert!(
            made("cache x")
                .unwrap_err()
                .to_string()
                .contains("no parameter for `x`")
        );
        assert!(
            made("cache.flush r1 five")
                .unwrap_err()
                .to_string()
                .contains("takes JSON")
        );
    }
}
