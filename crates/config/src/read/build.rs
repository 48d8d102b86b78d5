//! Builds nodes from whatever a parser offers.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{self, Deserialize, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::Node;
use crate::node::{Float, Gap, Key};

/// Stands before messages of our own, which the parser adds its path in front of.
pub(super) const MARK: char = '\u{1}';

/// Builds one node.
#[derive(Clone, Copy)]
pub(super) struct Build<'a> {
    /// Nodes that may still be made; aliases multiply them.
    pub(super) budget: &'a Cell<usize>,
    /// Duplicate keys, counted from the start of the text, that are known and dropped.
    pub(super) tolerated: &'a Cell<usize>,
    /// Whether no duplicate key is dropped, so that nodes are like the text.
    pub(super) tolerates_none: bool,
    /// Set when building stopped at a duplicate key.
    pub(super) duplicate: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Build<'_> {
    fn made<E: de::Error>(self, node: Node) -> Result<Node, E> {
        match self.budget.get().checked_sub(1) {
            Some(left) => self.budget.set(left),
            None => {
                return Err(E::custom(format!(
                    "{MARK}the aliases of this document multiply too much"
                )));
            }
        }
        Ok(node)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    /// An empty text.
    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Gap(Gap::Void))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.made(Node::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.made(Node::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.made(Node::Int(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.made(Node::Int(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.made(Node::Int(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        let value = i128::try_from(value).map_err(|_| E::custom(format!("{MARK}the number is too large")))?;
        self.made(Node::Int(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        self.made(Node::Float(Float { value, text: "".into() }))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        self.made(Node::Str(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = elements.next_element_seed(self)? {
            nodes.push(node);
        }
        self.made(Node::Seq(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        while let Some((key, fresh)) = map.next_key_seed(BuildKey {
            build: self,
            seen: &mut seen,
        })? {
            let node = map.next_value_seed(self)?;
            if fresh {
                entries.push((key, node));
            }
        }
        self.made(Node::Map(entries))
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(de::Error::custom(format!("{MARK}tags (`!word`) mean nothing here")))
    }
}

/// Builds a key, and says whether it is the first of its spelling in its map.
struct BuildKey<'a> {
    build: Build<'a>,
    seen: &'a mut HashSet<Box<str>>,
}

impl BuildKey<'_> {
    fn made<E: de::Error>(self, text: &str, is_string: bool) -> Result<(Key, bool), E> {
        let fresh = self.seen.insert(text.into());
        if !fresh {
            match self.build.tolerated.get().checked_sub(1) {
                Some(left) => self.build.tolerated.set(left),
                None => {
                    self.build.duplicate.set(true);
                    return Err(E::custom(format!("{MARK}the key `{text}` is given twice in this map")));
                }
            }
        }
        Ok((
            Key {
                text: text.into(),
                is_string,
            },
            fresh,
        ))
    }
}

impl<'de> DeserializeSeed<'de> for BuildKey<'_> {
    type Value = (Key, bool);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for BuildKey<'_> {
    type Value = (Key, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is a string or a number")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        self.made("null", false)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        self.made(&value.to_string(), false)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.made(&value.to_string(), false)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.made(&value.to_string(), false)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        self.made(&value.to_string(), false)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        self.made(text, true)
    }
}

/// Whether the node holds a float, whose text a second reading has to fetch.
pub(super) fn has_floats(node: &Node) -> bool {
    match node {
        Node::Float(_) => true,
        Node::Seq(nodes) => nodes.iter().any(has_floats),
        Node::Map(entries) => entries.iter().any(|(_, node)| has_floats(node)),
        _ => false,
    }
}

/// Gives floats the text that Rust writes for them.
pub(super) fn show_floats(node: &mut Node) {
    match node {
        Node::Float(float) => float.text = float.value.to_string().into(),
        Node::Seq(nodes) => nodes.iter_mut().for_each(show_floats),
        Node::Map(entries) => entries.iter_mut().for_each(|(_, node)| show_floats(node)),
        _ => {}
    }
}

/// Reads a document a second time, beside its node, for the texts of its floats.
pub(super) struct FloatTexts<'a>(pub(super) &'a mut Node);

impl<'de> DeserializeSeed<'de> for FloatTexts<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0 {
            Node::Float(_) => deserializer.deserialize_str(self),
            Node::Seq(_) => deserializer.deserialize_seq(self),
            Node::Map(_) => deserializer.deserialize_map(self),
            _ => IgnoredAny::deserialize(deserializer).map(drop),
        }
    }
}

impl<'de> Visitor<'de> for FloatTexts<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the same document")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        if let Node::Float(float) = self.0 {
            float.text = text.into();
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        if let Node::Seq(nodes) = self.0 {
            for node in nodes {
                elements.next_element_seed(FloatTexts(node))?;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let Node::Map(entries) = self.0 {
            for (_, node) in entries {
                if map.next_key::<IgnoredAny>()?.is_none() {
                    break;
                }
                map.next_value_seed(FloatTexts(node))?;
            }
        }
        Ok(())
    }
}
