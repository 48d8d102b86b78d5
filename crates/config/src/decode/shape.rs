//! Enums that are chosen by how a value is written.

use serde::de::{self, DeserializeSeed};

use super::{DecodeError, Decoder};
use crate::Node;

/// The name that makes an enum one of shapes.
///
/// Many values have a short form and a long one: a port, an address or a map. Such a type is read through an enum that
/// is renamed to this, with a variant for each shape; which one decodes is decided by how the value is written, before
/// anything is decoded, so that errors keep their place.
///
/// ```
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// #[serde(rename = "config::shape", rename_all = "snake_case")]
/// enum Form {
///     Int(u16),
///     Str(String),
///     Map(Long),
/// }
/// # #[derive(Deserialize)]
/// # struct Long {}
/// ```
///
/// Variants are `null`, `bool`, `int`, `float`, `str`, `seq`, `map`, and `number` (an integer or a float), `text` (a
/// string or a number), `scalar` (text or a boolean), `other` (whatever no other variant takes).
pub const SHAPE: &str = "config::shape";

/// The variants that take a node, closest first.
fn takers(node: &Node) -> &'static [&'static str] {
    match node {
        Node::Null => &["null", "other"],
        Node::Bool(_) => &["bool", "scalar", "other"],
        Node::Int(_) => &["int", "number", "text", "scalar", "other"],
        Node::Float(_) => &["float", "number", "text", "scalar", "other"],
        Node::Str(_) => &["str", "text", "scalar", "other"],
        Node::Seq(_) => &["seq", "other"],
        Node::Map(_) => &["map", "other"],
        Node::Gap(_) => &[],
    }
}

/// How messages call a shape.
fn describe(variant: &str) -> &'static str {
    match variant {
        "null" => "nothing",
        "bool" => "`true` or `false`",
        "int" => "an integer",
        "float" | "number" => "a number",
        "str" => "a string",
        "text" => "a string or number",
        "scalar" => "a plain value",
        "seq" => "a list",
        _ => "a map",
    }
}

pub(super) struct ShapeAccess<'a> {
    decoder: Decoder<'a>,
    variant: &'static str,
}

impl<'a> ShapeAccess<'a> {
    pub(super) fn choose(decoder: Decoder<'a>, variants: &'static [&'static str]) -> Result<Self, DecodeError> {
        let taker = takers(decoder.node).iter().find(|taker| variants.contains(taker));
        let Some(variant) = taker else {
            let mut shapes: Vec<_> = variants.iter().map(|variant| describe(variant)).collect();
            shapes.dedup();
            let expected = match shapes.as_slice() {
                [] => "nothing".to_owned(),
                [shape] => (*shape).to_owned(),
                [shapes @ .., last] => format!("{} or {last}", shapes.join(", ")),
            };
            return Err(decoder.unfit(expected));
        };
        Ok(Self { decoder, variant })
    }
}

impl<'de, 'a> de::EnumAccess<'de> for ShapeAccess<'a> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), DecodeError> {
        let variant = seed.deserialize(de::value::StrDeserializer::new(self.variant))?;
        Ok((variant, self))
    }
}

impl<'de> de::VariantAccess<'de> for ShapeAccess<'_> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DecodeError> {
        self.decoder.placed(seed.deserialize(self.decoder))
    }

    fn tuple_variant<V: de::Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_seq(self.decoder, visitor)
    }

    fn struct_variant<V: de::Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_struct(self.decoder, "", fields, visitor)
    }
}
