//! What a document holds, before it has types.

use std::borrow::Cow;

use crate::PathStep;

/// A part of a document, in file order and in the file's spelling.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Nothing: `~`, `null` or no text.
    Null,
    /// `true` or `false`; `yes` and `on` are strings here.
    Bool(bool),
    /// An integer.
    Int(i128),
    /// A number with a fraction or an exponent.
    Float(Float),
    /// A string, quoted or not.
    Str(Box<str>),
    /// A list.
    Seq(Vec<Self>),
    /// A map.
    Map(Vec<(Key, Self)>),
    /// A part that was taken out or put in, so that the rest can be checked although this is broken.
    #[doc(hidden)]
    Gap(Gap),
}

/// A number and the text it was written in: `1.10` as a string is not `1.1`.
#[derive(Clone, Debug, PartialEq)]
pub struct Float {
    /// The number; may be infinite or not a number.
    pub value: f64,
    /// As written.
    pub text: Box<str>,
}

/// The key of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// As written.
    pub text: Box<str>,
    /// Whether it is a string, as every key has to be outside of maps that numbers are keys of.
    pub is_string: bool,
}

/// Why a node is no real one.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// A broken value was here, for the field of this mark if it was in a struct.
    Removed(Option<u64>),
    /// A missing key was added to learn whether a removed one was its alias.
    Probe,
    /// A missing key was added for the value of this candidate, to go on past it.
    Filler(usize),
    /// A text without a document.
    Void,
}

impl Node {
    /// Reads JSON text, for data that is published in that form and decoded like the configuration.
    ///
    /// # Errors
    /// The parser's message, with line and column.
    pub fn from_json(text: &str) -> Result<Self, String> {
        crate::read::json(text)
    }

    /// Reads the documents of a YAML text, for data that is no part of the configuration and decoded like it.
    ///
    /// # Errors
    /// The parser's messages, each with its line and column.
    pub fn from_yaml(text: &str) -> Result<Vec<Self>, Vec<String>> {
        let (documents, errors) = crate::read::yaml(text);
        if errors.is_empty() {
            return Ok(documents);
        }
        let told = errors.into_iter().map(|error| match error.mark {
            Some(mark) => format!("{}:{}: {}", mark.line, mark.column, error.message),
            None => error.message,
        });
        Err(told.collect())
    }

    /// The same as JSON; keys keep their spelling, and a number that JSON cannot hold becomes a string.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::{Number, Value};
        match self {
            Self::Null | Self::Gap(_) => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => {
                Number::from_i128(*value).map_or_else(|| Value::String(value.to_string()), Value::Number)
            }
            Self::Float(float) => {
                Number::from_f64(float.value).map_or_else(|| Value::String(float.text.to_string()), Value::Number)
            }
            Self::Str(text) => Value::String(text.to_string()),
            Self::Seq(nodes) => Value::Array(nodes.iter().map(Self::to_json).collect()),
            Self::Map(entries) => {
                let entry = |(key, node): &(Key, Self)| (key.text.to_string(), node.to_json());
                Value::Object(entries.iter().map(entry).collect())
            }
        }
    }

    pub(crate) fn step(&self, step: &PathStep) -> Option<&Self> {
        match (self, step) {
            (Self::Seq(nodes), PathStep::Index(index)) => nodes.get(*index),
            (Self::Map(entries), PathStep::Key(key)) => find(entries, key).and_then(|at| entries.get(at)).map(|e| &e.1),
            _ => None,
        }
    }

    pub(crate) fn step_mut(&mut self, step: &PathStep) -> Option<&mut Self> {
        match (self, step) {
            (Self::Seq(nodes), PathStep::Index(index)) => nodes.get_mut(*index),
            (Self::Map(entries), PathStep::Key(key)) => {
                find(entries, key).and_then(|at| entries.get_mut(at)).map(|e| &mut e.1)
            }
            _ => None,
        }
    }

    pub(crate) fn descend(&self, path: &[PathStep]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| node.step(step))
    }

    pub(crate) fn descend_mut(&mut self, path: &[PathStep]) -> Option<&mut Self> {
        path.iter().try_fold(self, |node, step| node.step_mut(step))
    }

    /// The value of a key of a map, whatever its spelling.
    pub(crate) fn entry(&self, key: &str) -> Option<&(Key, Self)> {
        match self {
            Self::Map(entries) => entries.iter().rev().find(|(own, _)| own.normalised() == key),
            _ => None,
        }
    }

    /// How the file spells a key of a map.
    pub(crate) fn spelling(&self, key: &str) -> Option<&str> {
        match self {
            Self::Map(entries) => find(entries, key)
                .and_then(|at| entries.get(at))
                .map(|(key, _)| &*key.text),
            _ => None,
        }
    }

    /// The `name` of a map, for messages.
    pub(crate) fn name(&self) -> Option<&str> {
        match self.entry("name") {
            Some((_, Self::Str(name))) if !name.is_empty() => Some(name),
            _ => None,
        }
    }

    /// How messages call the value.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Int(value) => format!("`{value}`"),
            Self::Float(float) => format!("`{}`", float.text),
            Self::Str(text) if text.is_empty() => "an empty string".to_owned(),
            Self::Str(text) => format!("`{}`", shorten(text)),
            Self::Seq(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
            Self::Gap(_) => "a broken value".to_owned(),
        }
    }
}

/// The text as far as a message should repeat it: its beginning, on one line.
pub(crate) fn shorten(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 60;
    let clean = !text.contains(char::is_control);
    if clean && text.chars().nth(LONGEST).is_none() {
        return Cow::Borrowed(text);
    }
    let cut = text.chars().nth(LONGEST).is_some();
    let head = text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c });
    Cow::Owned(head.chain(cut.then_some('…')).collect())
}

/// Finds a key: as written, else in any spelling. Of several the last counts.
fn find(entries: &[(Key, Node)], key: &str) -> Option<usize> {
    let exact = entries.iter().rposition(|(own, _)| &*own.text == key);
    exact.or_else(|| {
        let key = normalise(key);
        entries.iter().rposition(|(own, _)| own.normalised() == key)
    })
}

impl Key {
    pub(crate) fn string(text: &str) -> Self {
        Self {
            text: text.into(),
            is_string: true,
        }
    }

    /// The key in lower case with `-` for `_`: the form that keys are compared in.
    pub(crate) fn normalised(&self) -> Cow<'_, str> {
        normalise(&self.text)
    }
}

/// Lower-cases and replaces `-` by `_`.
pub(crate) fn normalise(text: &str) -> Cow<'_, str> {
    if text
        .bytes()
        .any(|byte| byte == b'-' || byte.is_ascii_uppercase() || !byte.is_ascii())
    {
        Cow::Owned(text.to_lowercase().replace('-', "_"))
    } else {
        Cow::Borrowed(text)
    }
}
