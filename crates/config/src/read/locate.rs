//! Finds the line and column of a path.
//!
//! serde_yaml tells the place of an error and of nothing else. So the text is walked again to the path and an error
//! raised there. That costs a reading for each place, which only broken files pay for.

use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Mark;
use crate::PathStep;

/// What to find in a document.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'a> {
    pub(crate) path: &'a [PathStep],
    /// The last step's key rather than its value.
    pub(crate) on_key: bool,
}

/// The place of a spot in one document of a text.
pub(crate) fn locate(text: &str, document: usize, spot: Spot<'_>) -> Option<Mark> {
    let document = serde_yaml::Deserializer::from_str(text).nth(document)?;
    let error = Walk(spot).deserialize(document).err()?;
    let place = error.location()?;
    error.to_string().contains(FOUND).then(|| Mark {
        line: place.line(),
        column: place.column(),
    })
}

/// The message of the error that is raised on purpose.
const FOUND: &str = "\u{1}found";

/// Goes down along a path and raises an error at its end.
struct Walk<'a>(Spot<'a>);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Walk<'_> {
    fn end<E: de::Error>(&self) -> Result<(), E> {
        if self.0.path.is_empty() {
            Err(E::custom(FOUND))
        } else {
            Ok(())
        }
    }
}

macro_rules! scalars {
    ($self:ident => $end:expr; $($method:ident $type:ty)*) => {$(
        fn $method<E: de::Error>($self, _: $type) -> Result<(), E> {
            $end
        }
    )*};
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.end()
    }

    scalars! {
        self => self.end();
        visit_bool bool
        visit_i64 i64
        visit_u64 u64
        visit_i128 i128
        visit_u128 u128
        visit_f64 f64
        visit_str &str
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        self.end()?;
        if let Some((PathStep::Index(wanted), path)) = self.0.path.split_first() {
            let mut index = 0;
            while index < *wanted && elements.next_element::<IgnoredAny>()?.is_some() {
                index += 1;
            }
            elements.next_element_seed(Walk(Spot { path, ..self.0 }))?;
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.end()?;
        let wanted = self.0.path.split_first().and_then(|(step, path)| match step {
            PathStep::Key(key) => Some((&**key, path)),
            PathStep::Index(_) => None,
        });
        let raise = self.0.on_key && self.0.path.len() == 1;
        while let Some(found) = map.next_key_seed(WalkKey {
            wanted: wanted.map(|(key, _)| key),
            raise,
        })? {
            match wanted {
                Some((_, path)) if found => map.next_value_seed(Walk(Spot { path, ..self.0 }))?,
                _ => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }
}

/// Says whether a key is the wanted one.
struct WalkKey<'a> {
    wanted: Option<&'a str>,
    raise: bool,
}

impl WalkKey<'_> {
    fn found<E: de::Error>(&self, text: &str) -> Result<bool, E> {
        let found = self.wanted == Some(text);
        if found && self.raise {
            Err(E::custom(FOUND))
        } else {
            Ok(found)
        }
    }
}

impl<'de> DeserializeSeed<'de> for WalkKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for WalkKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_unit<E: de::Error>(self) -> Result<bool, E> {
        self.found("null")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<bool, E> {
        self.found(&value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<bool, E> {
        self.found(&value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<bool, E> {
        self.found(&value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<bool, E> {
        self.found(&value.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<bool, E> {
        self.found(text)
    }
}
