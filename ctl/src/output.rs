//! How results and failures are printed.

use std::process::ExitCode;

use serde_json::{Value, json};
use sluice_control::CallError;

/// Prints a failure: one line, or JSON with the daemon's own code and data.
pub(crate) fn failure(error: &anyhow::Error, as_json: bool) -> ExitCode {
    if as_json {
        let body = match error.downcast_ref::<CallError>() {
            Some(CallError::Answer(answer)) => serde_json::to_value(answer).unwrap_or_default(),
            _ => json!({ "message": format!("{error:#}") }),
        };
        println!("{}", json!({ "error": body }));
    } else {
        eprintln!("sluicectl: {error:#}");
    }
    ExitCode::FAILURE
}

/// Prints `value` as JSON, indented.
pub(crate) fn json(value: &Value) {
    println!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Prints any result for people: a notice, a line for each element or member.
pub(crate) fn plain(value: &Value) {
    match value {
        Value::Object(map) => match map.get("message") {
            Some(Value::String(message)) => {
                println!("notice: {message}");
                for warning in map.get("warnings").and_then(Value::as_array).into_iter().flatten() {
                    println!("warning: {}", text(warning));
                }
            }
            _ => {
                for (key, value) in map {
                    println!("{key}: {}", text(value));
                }
            }
        },
        Value::Array(items) => {
            for item in items {
                println!("{}", text(item));
            }
        }
        Value::Null => println!("notice: success"),
        other => println!("{}", text(other)),
    }
}

/// A value in one line; strings bare.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|i| !i.is_object() && !i.is_array()) => {
            items.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// Rows with aligned columns.
pub(crate) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        rows.iter()
            .filter_map(|r| r.get(c))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
