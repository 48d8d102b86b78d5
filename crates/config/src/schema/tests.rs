use serde::Deserialize;

use super::*;
use crate::value::{OneOrMany, SpeedLimitTcp, TcpListen};
use crate::{NotYet, kinds};

kinds! {
    /// What a server of the tests is.
    #[expect(dead_code, reason = "read by the schema alone")]
    enum Server: "server" untyped "plain" {
        /// Plain.
        Plain(Plain) = "plain",
    }
    not built { "fancy" }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the schema alone")]
struct Plain {
    /// Where it listens.
    #[serde(alias = "port")]
    listen: TcpListen,
    next: Option<OneOrMany<Next>>,
    #[serde(default)]
    #[schemars(skip)]
    auditor: Option<NotYet>,
    limit: Option<SpeedLimitTcp>,
    way: Option<Way>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Way {
    /// Through.
    #[serde(alias = "across")]
    StraightOn,
    Back,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the schema alone")]
struct Next {
    #[serde(alias = "target")]
    to: String,
    #[serde(alias = "next", alias = "then")]
    after: Option<Box<Self>>,
}

/// The schema of a server, and the definitions.
fn schema() -> (Value, Value) {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let nodes = nodes::<Server>(&mut generator).to_value();
    let node = nodes.pointer("/anyOf/1/items/anyOf/1/anyOf/0").cloned().unwrap();
    (node, Value::Object(generator.take_definitions(true)))
}

fn keys(schema: &Value) -> Vec<&str> {
    schema
        .pointer("/properties")
        .unwrap()
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn a_node_has_name_type_and_every_name_of_its_keys() {
    let (node, _) = schema();
    assert_eq!(keys(&node), ["name", "type", "listen", "next", "limit", "way", "port"]);
    assert_eq!(node["required"], json!(["name"]));
    assert_eq!(node["properties"]["type"], json!({"const": "plain"}));
    assert_eq!(node["properties"]["listen"]["description"], "Where it listens.");
    assert_eq!(node["properties"]["port"]["description"], "another name of `listen`");
    assert_eq!(node["additionalProperties"], json!(false));
}

#[test]
fn maps_within_maps_have_every_name_too() {
    let (_, definitions) = schema();
    let mut next = keys(&definitions["Next"]);
    next.sort_unstable();
    assert_eq!(next, ["after", "next", "target", "then", "to"]);
    let text = definitions.to_string();
    for alias in ["addr", "fwmark", "mss", "north_bytes", "shift"] {
        assert!(text.contains(&format!("\"{alias}\"")), "{alias}");
    }
}

#[test]
fn short_forms_are_in_the_schema() {
    let (_, definitions) = schema();
    let listen = definitions["TcpListen"].to_string();
    assert!(
        listen.contains("anyOf") && definitions["Port"]["maximum"] == json!(65535),
        "{listen}"
    );
}

#[test]
fn words_have_every_name_and_spelling() {
    let (_, definitions) = schema();
    let words = definitions["Way"]["oneOf"].as_array().unwrap();
    let last = words.last().unwrap();
    let straight = "[sS][tT][rR][aA][iI][gG][hH][tT][-_][oO][nN]";
    let pattern = format!("^([aA][cC][rR][oO][sS][sS]|{straight}|[bB][aA][cC][kK])$");
    assert_eq!(last["pattern"], pattern);
    assert_eq!(last["not"]["enum"], json!(["back", "straight_on"]));
    assert_eq!(
        (&words[0]["const"], &words[1]["description"]),
        (&json!("back"), &json!("Through."))
    );
}
