//! How results and failures are printed.

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
    sync::OnceLock,
};

use serde_json::{Value, json};
use sluice_control::CallError;

/// What the first line that could not be written has failed of.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Prints a line. What `println` panics of is found by [`written`].
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::line(format_args!($($text)*))
    };
}
pub(crate) use say;

/// Prints a line, at once.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    if let Err(e) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        let _ = FAILED.set(e); // the first one says enough
    }
}

/// Whether every line was written, or whoever reads them has had enough, as `head`.
///
/// # Errors
/// The first failure.
pub(crate) fn written() -> anyhow::Result<()> {
    match FAILED.get() {
        Some(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(anyhow::anyhow!("cannot write: {e}")),
        _ => Ok(()),
    }
}

/// Whether more lines are of no use.
pub(crate) fn is_closed() -> bool {
    FAILED.get().is_some()
}

/// Prints a failure: one line, or JSON with the daemon's own code and data.
pub(crate) fn failure(error: &anyhow::Error, as_json: bool) -> ExitCode {
    if as_json && !is_closed() {
        let body = match error.downcast_ref::<CallError>() {
            Some(CallError::Answer(answer)) => serde_json::to_value(answer).unwrap_or_default(),
            _ => json!({ "message": format!("{error:#}") }),
        };
        say!("{}", json!({ "error": body }));
    } else {
        eprintln!("sluicectl: {error:#}");
    }
    ExitCode::FAILURE
}

/// Prints `value` as JSON, indented.
pub(crate) fn json(value: &Value) {
    say!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Prints any result for people: a notice, a line for each element or member.
pub(crate) fn plain(value: &Value) {
    match value {
        Value::Object(map) => match map.get("message") {
            Some(Value::String(message)) => {
                say!("notice: {message}");
                for warning in map.get("warnings").and_then(Value::as_array).into_iter().flatten() {
                    say!("warning: {}", text(warning));
                }
            }
            _ => {
                for (key, value) in map {
                    say!("{key}: {}", text(value));
                }
            }
        },
        Value::Array(items) => {
            for item in items {
                say!("{}", text(item));
            }
        }
        Value::Null => say!("notice: success"),
        other => say!("{}", text(other)),
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
        say!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
