//! What can be wrong with one value.

use std::fmt;

use serde::de;

use crate::path::Trail;
use crate::{Node, Path};

/// Why a part of a document does not decode; made and read by this crate, passed on by others.
#[derive(Debug)]
pub struct DecodeError {
    pub(crate) what: What,
    /// Where, once a container that knows has seen the error.
    pub(crate) at: Option<Path>,
    /// Whether the key is meant rather than its value.
    pub(crate) on_key: bool,
    /// The struct field that the last step led to; tells aliases from other keys.
    pub(crate) field: Option<u64>,
}

#[derive(Debug)]
pub(crate) enum What {
    /// A key of a struct that has no such field.
    UnknownKey { key: String, known: Vec<&'static str> },
    /// A struct lacks a field.
    MissingKey(&'static str),
    /// Two names of one field are given.
    DuplicateKey(&'static str),
    /// A value of another kind or range.
    Unfit { found: Option<String>, expected: String },
    /// A word that is none of the words.
    UnknownWord { word: String, known: Vec<&'static str> },
    /// The reference knows it, this version does not.
    NotBuilt { what: Option<String> },
    /// A message of the value's own.
    Message(String),
    /// Parts that are each right do not go together; about one key of the map if it is named.
    Misfit { key: Option<String>, message: String },
    /// The answer to a probe: whether the probed key is an alias of a removed one.
    Probed { alias: bool },
}

impl DecodeError {
    pub(crate) fn new(what: What) -> Self {
        Self {
            what,
            at: None,
            on_key: false,
            field: None,
        }
    }

    pub(crate) fn unfit(node: &Node, expected: impl Into<String>) -> Self {
        Self::new(What::Unfit {
            found: Some(node.describe()),
            expected: expected.into(),
        })
    }

    /// Sets the place unless a deeper one is known.
    pub(crate) fn or_at(mut self, trail: Trail<'_>) -> Self {
        if self.at.is_none() {
            self.at = Some(trail.to_path());
        }
        self
    }
}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = message.to_string();
        Self::new(match Misfit::recover(&message) {
            Some(Misfit { key, message }) => What::Misfit { key, message },
            None => What::Message(message),
        })
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_value(found, expected)
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            de::Unexpected::Bool(value) => Some(format!("`{value}`")),
            de::Unexpected::Unsigned(value) => Some(format!("`{value}`")),
            de::Unexpected::Signed(value) => Some(format!("`{value}`")),
            de::Unexpected::Float(value) => Some(format!("`{value}`")),
            de::Unexpected::Str(text) => Some(format!("`{}`", crate::node::shorten(text))),
            de::Unexpected::Unit | de::Unexpected::Option => Some("nothing".to_owned()),
            de::Unexpected::Seq => Some("a list".to_owned()),
            de::Unexpected::Map | de::Unexpected::StructVariant => Some("a map".to_owned()),
            de::Unexpected::Other(text) => Some(text.to_owned()),
            _ => None,
        };
        let expected = expected.to_string();
        // The standard library's non-zero integers.
        let expected = if expected.starts_with("a nonzero") {
            "an integer other than 0".to_owned()
        } else {
            expected
        };
        Self::new(What::Unfit { found, expected })
    }

    fn invalid_length(_: usize, expected: &dyn de::Expected) -> Self {
        Self::new(What::Unfit {
            found: None,
            expected: expected.to_string(),
        })
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(What::UnknownWord {
            word: variant.to_owned(),
            known: expected.to_vec(),
        })
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(What::UnknownKey {
            key: field.to_owned(),
            known: expected.to_vec(),
        })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(What::MissingKey(field))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(What::DuplicateKey(field))
    }
}

impl std::error::Error for DecodeError {}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::UnknownKey { key, .. } => write!(f, "unknown key `{key}`"),
            What::MissingKey(key) => write!(f, "`{key}` is missing"),
            What::DuplicateKey(key) => write!(f, "`{key}` is given twice, under two of its names"),
            What::Unfit {
                found: Some(found),
                expected,
            } => write!(f, "expected {expected}, found {found}"),
            What::Unfit { found: None, expected } => write!(f, "expected {expected}"),
            What::UnknownWord { word, known } => {
                write!(f, "expected {}, found `{}`", one_of(known), crate::node::shorten(word))
            }
            What::NotBuilt { what: Some(what) } => write!(f, "{what} is not built yet in this version"),
            What::NotBuilt { what: None } => f.write_str("this is not built yet in this version"),
            What::Message(message) | What::Misfit { message, .. } => f.write_str(message),
            What::Probed { .. } => f.write_str("probed"),
        }
    }
}

/// Lists words: `` `a`, `b` or `c` ``.
pub(crate) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => "nothing".to_owned(),
        [word] => word.clone(),
        [words @ .., last] => format!("{} or {last}", words.join(", ")),
    }
}

/// An error of a map whose parts are each right and do not go together; for `#[serde(try_from = "…")]`.
///
/// Its place is that of the key that it names, else that of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    key: Option<String>,
    message: String,
}

impl Misfit {
    /// Marks the text form; no message of anybody begins with it.
    const MARK: char = '\u{1}';

    /// An error about the map.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            key: None,
            message: message.into(),
        }
    }

    /// An error about the value of `key`.
    pub fn at(key: &str, message: impl Into<String>) -> Self {
        Self {
            key: Some(key.to_owned()),
            message: message.into(),
        }
    }

    /// serde lets an error through as text alone; this reads the text of [`Display`](fmt::Display) again.
    fn recover(text: &str) -> Option<Self> {
        let (key, message) = text.strip_prefix(Self::MARK)?.split_once(Self::MARK)?;
        Some(Self {
            key: (!key.is_empty()).then(|| key.to_owned()),
            message: message.to_owned(),
        })
    }
}

impl std::error::Error for Misfit {}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_deref().unwrap_or_default();
        write!(f, "{}{key}{}{}", Self::MARK, Self::MARK, self.message)
    }
}
