//! Addresses in an answer to `status`, as people read them.

use serde_json::Value;

/// The member `listening` of a status in one line: `web 127.0.0.1:3128, socks [::1]:1080`; empty if there is none.
///
/// It is a list of texts, or of maps whose values name a socket and say where it is.
pub fn listening(status: &Value) -> String {
    let items = status.get("listening").and_then(Value::as_array).into_iter().flatten();
    items.map(words).collect::<Vec<_>>().join(", ")
}

fn words(item: &Value) -> String {
    match item {
        Value::Object(map) => map.values().map(words).collect::<Vec<_>>().join(" "),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(" "),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_of_every_shape_fit_a_line() {
        assert_eq!(listening(&json!({ "listening": ["a:1", "b:2"] })), "a:1, b:2");
        assert_eq!(
            listening(&json!({ "listening": [{ "server": "web", "address": "a:1" }] })),
            "web a:1"
        );
        assert_eq!(
            listening(&json!({ "listening": [{ "name": "dns", "addresses": ["a:1", "b:2"] }] })),
            "dns a:1 b:2"
        );
        assert_eq!(listening(&json!({})), "");
    }
}
