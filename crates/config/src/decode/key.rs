//! Decodes the key of a map.

use serde::de::{self, Visitor};
use serde::forward_to_deserialize_any;

use super::{DecodeError, What, digits};
use crate::node::Key;

/// A key on its way into a field name, a string or a number; whoever asked for it adds the place to errors.
pub(super) struct KeyDecoder<'a> {
    pub(super) key: &'a Key,
    /// The field that the key stands for, if it is an old name.
    pub(super) renamed: Option<&'static str>,
}

impl KeyDecoder<'_> {
    fn string_only(&self) -> Result<(), DecodeError> {
        if self.key.is_string {
            return Ok(());
        }
        let expected = "a key that is a string".to_owned();
        Err(DecodeError::new(What::Unfit {
            found: Some(format!("`{}`", self.key.text)),
            expected,
        }))
    }

    fn number(&self) -> Result<i128, DecodeError> {
        digits(&self.key.text).ok_or_else(|| {
            let expected = "a key that is a number".to_owned();
            DecodeError::new(What::Unfit {
                found: Some(format!("`{}`", self.key.text)),
                expected,
            })
        })
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let number = self.number()?;
            match (u64::try_from(number), i64::try_from(number)) {
                (Ok(number), _) => visitor.visit_u64(number),
                (_, Ok(number)) => visitor.visit_i64(number),
                _ => visitor.visit_i128(number),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for KeyDecoder<'_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.string_only()?;
        visitor.visit_str(&self.key.text)
    }

    /// The key of a struct: any spelling.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.string_only()?;
        let key = self.key.normalised();
        visitor.visit_str(self.renamed.unwrap_or(&key))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.string_only()?;
        let key = self.key.normalised();
        match variants.iter().find(|variant| **variant == key) {
            Some(variant) => visitor.visit_enum(de::value::StrDeserializer::new(variant)),
            None => {
                let word = self.key.text.to_string();
                Err(DecodeError::new(What::UnknownWord {
                    word,
                    known: variants.to_vec(),
                }))
            }
        }
    }

    numbers! {
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map struct
        ignored_any
    }
}
