//! From [`Node`]s to Rust types: serde's side.
//!
//! [`Decoder`] is a [`serde::Deserializer`] that knows what the configuration allows: keys in any spelling, `on` for a
//! boolean, `"80"` for a number, and where each part stands. It stops at the first error, as serde does; going on is the
//! business of [`collect`](crate::collect).

mod access;
mod error;
mod key;
mod shape;

use std::cell::RefCell;

use serde::de::{self, Visitor};
use serde::forward_to_deserialize_any;

pub use error::{DecodeError, Misfit};
pub(crate) use error::{What, one_of};
pub use shape::SHAPE;

use crate::Node;
use crate::node::normalise;
use crate::path::{Path, Trail};
use access::{Elements, Entries, Halves, Single};
use shape::ShapeAccess;

/// Names of newtype structs that the decoder treats in a way of its own.
pub(crate) mod token {
    /// A map with keys of two types, which is given as a list of its two halves.
    pub(crate) const MATCHED: &str = "config::matched";
    /// Any value is an error: the key is not built yet.
    pub(crate) const NOT_BUILT: &str = "config::not_built";
    /// A list, or one element in its place.
    pub(crate) const ONE_OR_MANY: &str = "config::one_or_many";
    /// A value that messages must not repeat.
    pub(crate) const SECRET: &str = "config::secret";
}

/// What one decoding collects on its way, and where it is.
#[derive(Debug, Default)]
pub(crate) struct Context {
    /// The section and the kind, such as `server` and `http_proxy`; rules about single keys depend on them.
    pub(crate) section: String,
    pub(crate) kind: Option<&'static str>,
    pub(crate) notes: RefCell<Vec<(Path, String)>>,
    /// The structs and enums that were asked for and their names, if that is what decoding is for.
    pub(crate) asked: RefCell<Option<Vec<Asked>>>,
}

/// A place, and the names that the struct there takes of its fields, or the enum of its variants.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Path,
    pub(crate) what: Names,
    pub(crate) names: &'static [&'static str],
}

/// What has names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    Fields,
    Variants,
}

impl Context {
    /// A context that gathers what is asked for.
    pub(crate) fn capturing() -> Self {
        Self {
            asked: RefCell::new(Some(Vec::new())),
            ..Self::default()
        }
    }

    pub(crate) fn note(&self, path: Path, message: String) {
        self.notes.borrow_mut().push((path, message));
    }
}

/// Decodes one part of a document.
#[derive(Clone, Copy, Debug)]
pub struct Decoder<'a> {
    node: &'a Node,
    trail: Trail<'a>,
    context: &'a Context,
    /// Whether messages must not repeat the value.
    secret: bool,
    /// The part of a map's keys that counts.
    half: Half,
}

/// A part of a map's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    All,
    /// All but the match keys.
    Own,
    /// The match keys.
    Match,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(node: &'a Node, context: &'a Context) -> Self {
        Self {
            node,
            trail: Trail::Root,
            context,
            secret: false,
            half: Half::All,
        }
    }

    fn below<'b>(&self, node: &'b Node, trail: Trail<'b>) -> Decoder<'b>
    where
        'a: 'b,
    {
        Decoder {
            node,
            trail,
            context: self.context,
            secret: self.secret,
            half: Half::All,
        }
    }

    fn unfit(&self, expected: impl Into<String>) -> DecodeError {
        let error = if self.secret {
            DecodeError::new(What::Unfit {
                found: None,
                expected: expected.into(),
            })
        } else {
            DecodeError::unfit(self.node, expected)
        };
        error.or_at(self.trail)
    }

    fn capture(&self, what: Names, names: &'static [&'static str]) {
        if let Some(asked) = &mut *self.context.asked.borrow_mut() {
            let at = self.trail.to_path();
            asked.push(Asked { at, what, names });
        }
    }

    /// Adds the place to a visitor's error, and takes a secret out of it.
    fn placed<T>(&self, result: Result<T, DecodeError>) -> Result<T, DecodeError> {
        result.map_err(|mut error| {
            if error.at.is_none()
                && let What::Message(message) = &error.what
                && let Some(expected) = reword(message)
            {
                error = self.unfit(expected);
            }
            if self.secret {
                match &mut error.what {
                    What::Unfit { found, .. } => *found = None,
                    What::UnknownWord { word, .. } => "(hidden)".clone_into(word),
                    _ => {}
                }
            }
            error.or_at(self.trail)
        })
    }

    /// The value as an integer within a range, from an integer or from digits.
    fn integer<T: TryFrom<i128>>(&self, low: i128, high: i128) -> Result<T, DecodeError> {
        let value = match self.node {
            Node::Int(value) => Some(*value),
            Node::Str(text) => digits(text),
            _ => None,
        };
        let fit = value
            .filter(|value| (low..=high).contains(value))
            .and_then(|value| T::try_from(value).ok());
        fit.ok_or_else(|| {
            let open = high == u64::MAX.into() || high == i64::MAX.into() || high == i128::MAX;
            self.unfit(match open {
                true if low == 0 => "an integer of at least 0".to_owned(),
                true => "an integer".to_owned(),
                false => format!("an integer from {low} to {high}"),
            })
        })
    }

    fn float(&self) -> Result<f64, DecodeError> {
        let value = match self.node {
            #[expect(
                clippy::cast_precision_loss,
                reason = "that is what a float written as an integer means"
            )]
            Node::Int(value) => Some(*value as f64),
            Node::Float(float) => Some(float.value),
            Node::Str(text) => text.trim().parse().ok(),
            _ => None,
        };
        value.ok_or_else(|| self.unfit("a number"))
    }

    fn boolean(&self) -> Result<bool, DecodeError> {
        let value = match self.node {
            Node::Bool(value) => Some(*value),
            Node::Int(value) => Some(*value != 0),
            Node::Str(text) => word_as_bool(text),
            _ => None,
        };
        value.ok_or_else(|| self.unfit("a boolean: `true` or `false` (also `on`, `off`, `yes`, `no`, `1`, `0`)"))
    }
}

/// What was expected, for the messages of standard types that do not say it well.
fn reword(message: &str) -> Option<&'static str> {
    match message {
        "invalid IP address syntax" => Some("an IP address"),
        "invalid IPv4 address syntax" => Some("an IPv4 address"),
        "invalid IPv6 address syntax" => Some("an IPv6 address"),
        "invalid socket address syntax" => Some("an address such as `127.0.0.1:8080` or `[::1]:8080`"),
        _ => None,
    }
}

/// A decimal integer with an optional sign.
pub(crate) fn digits(text: &str) -> Option<i128> {
    let text = text.trim();
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let plain = !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// The words that stand for a boolean, in any case.
pub(crate) fn word_as_bool(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(&["true", "on", "yes", "1"]) {
        Some(true)
    } else if is(&["false", "off", "no", "0"]) {
        Some(false)
    } else {
        None
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let value = self.integer::<$type>(<$type>::MIN.into(), <$type>::MAX.into())?;
            self.placed(visitor.$visit(value))
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Decoder<'_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.placed(match self.node {
            Node::Null => visitor.visit_unit(),
            Node::Bool(value) => visitor.visit_bool(*value),
            Node::Int(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_i128(*value),
            },
            Node::Float(float) => visitor.visit_f64(float.value),
            Node::Str(text) => visitor.visit_str(text),
            Node::Seq(nodes) => visitor.visit_seq(Elements::new(self, nodes)),
            Node::Map(entries) => visitor.visit_map(Entries::of_map(self, entries)),
            Node::Gap(_) => Err(self.unfit("a value")),
        })
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.placed(visitor.visit_bool(self.boolean()?))
    }

    integers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.placed(visitor.visit_f64(self.float()?))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.placed(match self.node {
            Node::Str(text) => visitor.visit_str(text),
            Node::Int(value) => visitor.visit_str(&value.to_string()),
            Node::Float(float) => visitor.visit_str(&float.text),
            Node::Bool(_) => Err(self.unfit("a string; in quotes it would be one")),
            _ => Err(self.unfit("a string")),
        })
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    /// Nothing is no way to leave a key out: its type decides whether it takes null.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.placed(visitor.visit_some(self))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.node {
            Node::Null => self.placed(visitor.visit_unit()),
            _ => Err(self.unfit("nothing")),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match name {
            token::NOT_BUILT => {
                let what = self.trail.last_key().map(|key| format!("`{key}`"));
                return Err(DecodeError::new(What::NotBuilt { what }).or_at(self.trail));
            }
            token::ONE_OR_MANY if !matches!(self.node, Node::Seq(_)) => {
                return self.placed(visitor.visit_seq(Single::new(self)));
            }
            token::ONE_OR_MANY => return self.deserialize_seq(visitor),
            token::MATCHED if matches!(self.node, Node::Map(_)) => {
                return self.placed(visitor.visit_seq(Halves::new(self)));
            }
            token::MATCHED => return Err(self.unfit("a map")),
            token::SECRET => self.secret = true,
            _ => {}
        }
        self.placed(visitor.visit_newtype_struct(self))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.node {
            Node::Seq(nodes) => self.placed(visitor.visit_seq(Elements::new(self, nodes))),
            _ => Err(self.unfit("a list")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.node {
            Node::Map(entries) => self.placed(visitor.visit_map(Entries::of_map(self, entries))),
            _ => Err(self.unfit("a map")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.capture(Names::Fields, fields);
        match self.node {
            Node::Map(entries) => self.placed(visitor.visit_map(Entries::of_struct(self, entries, fields))),
            _ => Err(self.unfit("a map")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name == SHAPE {
            let access = ShapeAccess::choose(self, variants)?;
            return self.placed(visitor.visit_enum(access));
        }
        self.capture(Names::Variants, variants);
        let Node::Str(word) = self.node else {
            return Err(self.unfit(one_of(variants)));
        };
        let wanted = normalise(word);
        match variants.iter().find(|variant| normalise(variant) == wanted) {
            Some(variant) => self.placed(visitor.visit_enum(de::value::StrDeserializer::new(variant))),
            None => self.placed(Err(DecodeError::new(What::UnknownWord {
                word: word.to_string(),
                known: variants.to_vec(),
            }))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { bytes byte_buf identifier u128 }
}
