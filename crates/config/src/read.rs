//! The only place that names serde_yaml: text to [`Node`]s, and paths to lines and columns.

mod build;
mod locate;

use std::cell::Cell;

use serde::de::DeserializeSeed;

use crate::Node;
use build::{Build, FloatTexts};

pub(crate) use locate::{Spot, locate};

/// Nodes that aliases may add beyond what the text itself can hold.
const ALIASED: usize = 1_000_000;
/// The most duplicate keys that are looked for in a file.
const DUPLICATES: usize = 20;

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// What is wrong with the text of a file.
#[derive(Debug)]
pub(crate) struct TextError {
    pub(crate) mark: Option<Mark>,
    pub(crate) message: String,
}

/// The documents of a YAML text as far as they can be read, and what is wrong with it.
pub(crate) fn yaml(text: &str) -> (Vec<Node>, Vec<TextError>) {
    let mut errors = Vec::new();
    let budget = Cell::new(text.len().saturating_add(ALIASED));
    loop {
        let build = Build {
            budget: &budget,
            tolerated: &Cell::new(errors.len()),
            tolerates_none: errors.is_empty(),
            duplicate: &Cell::new(false),
        };
        match documents(text, build) {
            (documents, None) => return (documents, errors),
            (documents, Some(error)) => {
                let duplicate = build.duplicate.get();
                errors.push(error);
                if !duplicate || errors.len() >= DUPLICATES {
                    return (documents, errors);
                }
                budget.set(text.len().saturating_add(ALIASED));
            }
        }
    }
}

fn documents(text: &str, build: Build<'_>) -> (Vec<Node>, Option<TextError>) {
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        match build.deserialize(document) {
            Ok(Node::Gap(_)) => {} // no document at all
            Ok(node) => documents.push(node),
            Err(error) => return (documents, Some(text_error(&error))),
        }
    }
    // Where duplicate keys were dropped the node is no longer like the text; it is not used either.
    if build.tolerates_none && documents.iter().any(build::has_floats) {
        let texts = serde_yaml::Deserializer::from_str(text).zip(&mut documents);
        for (document, node) in texts {
            // A difference between two readings of one text is impossible; without one nothing is lost but a spelling.
            let _ = FloatTexts(node).deserialize(document);
        }
    }
    (documents, None)
}

fn text_error(error: &serde_yaml::Error) -> TextError {
    let mark = error.location().map(|place| Mark {
        line: place.line(),
        column: place.column(),
    });
    let mut message = error.to_string();
    if let Some(place) = error.location() {
        // The place stands before the message; what is left of it inside says where a construct began.
        let end = format!(" at line {} column {}", place.line(), place.column());
        message = message.replacen(&end, "", 1);
    }
    // serde_yaml puts its own path before messages that are ours.
    let own = message.rsplit_once(build::MARK).map(|(_, own)| own.to_owned());
    TextError {
        mark,
        message: own.unwrap_or(message),
    }
}

/// The node of a JSON text.
pub(crate) fn json(text: &str) -> Result<Node, String> {
    let budget = Cell::new(text.len().saturating_add(1));
    let build = Build {
        budget: &budget,
        tolerated: &Cell::new(0),
        tolerates_none: true,
        duplicate: &Cell::new(false),
    };
    let clean = |error: serde_json::Error| error.to_string().replace(build::MARK, "");
    let mut json = serde_json::Deserializer::from_str(text);
    let mut node = build.deserialize(&mut json).map_err(clean)?;
    json.end().map_err(clean)?;
    if build::has_floats(&node) {
        // serde_json gives no raw number; Rust's own shortest text reads back as the same one.
        build::show_floats(&mut node);
    }
    Ok(node)
}

#[cfg(test)]
mod tests;
