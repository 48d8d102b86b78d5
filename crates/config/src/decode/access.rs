//! Walks lists and maps.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::iter;
use std::mem::discriminant;
use std::slice;

use serde::de::{self, DeserializeSeed};

use super::key::KeyDecoder;
use super::{DecodeError, Decoder, Half, What};
use crate::node::{Gap, Key};
use crate::path::Trail;
use crate::value::MATCH_KEYS;
use crate::{Node, quirks};

/// The elements of a list.
pub(super) struct Elements<'a> {
    list: Decoder<'a>,
    nodes: iter::Enumerate<slice::Iter<'a, Node>>,
}

impl<'a> Elements<'a> {
    pub(super) fn new(list: Decoder<'a>, nodes: &'a [Node]) -> Self {
        Self {
            list,
            nodes: nodes.iter().enumerate(),
        }
    }
}

impl<'de> de::SeqAccess<'de> for Elements<'_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let Some((index, node)) = self.nodes.find(|(_, node)| !matches!(node, Node::Gap(_))) else {
            return Ok(None);
        };
        let element = self.list.below(node, Trail::Index(&self.list.trail, index));
        element.placed(seed.deserialize(element)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        self.nodes.size_hint().1
    }
}

/// One value as a list.
pub(super) struct Single<'a>(Option<Decoder<'a>>);

impl<'a> Single<'a> {
    pub(super) fn new(value: Decoder<'a>) -> Self {
        Self(Some(value))
    }
}

impl<'de> de::SeqAccess<'de> for Single<'_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        self.0
            .take()
            .map(|value| value.placed(seed.deserialize(value)))
            .transpose()
    }
}

/// The two halves of a map: its match keys, and its own.
pub(super) struct Halves<'a>(std::array::IntoIter<Decoder<'a>, 2>);

impl<'a> Halves<'a> {
    pub(super) fn new(map: Decoder<'a>) -> Self {
        Self(
            [
                Decoder {
                    half: Half::Match,
                    ..map
                },
                Decoder { half: Half::Own, ..map },
            ]
            .into_iter(),
        )
    }
}

impl<'de> de::SeqAccess<'de> for Halves<'_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        self.0
            .next()
            .map(|half| half.placed(seed.deserialize(half)))
            .transpose()
    }
}

/// The entries of a map.
pub(super) struct Entries<'a> {
    map: Decoder<'a>,
    entries: &'a [(Key, Node)],
    next: usize,
    /// The names of a struct's fields, aliases among them; `None` for a map whose keys are data.
    fields: Option<&'static [&'static str]>,
    /// The entry whose value comes next, and the mark of its field.
    current: Option<(&'a Key, &'a Node, u64)>,
}

impl<'a> Entries<'a> {
    pub(super) fn of_map(map: Decoder<'a>, entries: &'a [(Key, Node)]) -> Self {
        Self {
            map,
            entries,
            next: 0,
            fields: None,
            current: None,
        }
    }

    pub(super) fn of_struct(map: Decoder<'a>, entries: &'a [(Key, Node)], fields: &'static [&'static str]) -> Self {
        Self {
            map,
            entries,
            next: 0,
            fields: Some(fields),
            current: None,
        }
    }

    /// Whether the entry belongs to the half that is read.
    fn is_ours(&self, key: &Key) -> bool {
        match self.map.half {
            Half::All => true,
            Half::Match => MATCH_KEYS.contains(&&*key.normalised()),
            Half::Own => !MATCH_KEYS.contains(&&*key.normalised()),
        }
    }

    /// Whether the entry has no say in a struct; notes why.
    fn is_void(&self, index: usize, key: &Key, fields: &[&str]) -> bool {
        let name = key.normalised();
        let note = |message| {
            let trail = Trail::Key(&self.map.trail, &key.text);
            self.map.context.note(trail.to_path(), message);
        };
        let later = self
            .entries
            .iter()
            .skip(index + 1)
            .find(|(own, _)| own.normalised() == name);
        if let Some((later, _)) = later {
            note(format!(
                "`{}` further down is the same key and takes its place",
                later.text
            ));
            return true;
        }
        if !fields.contains(&&*name)
            && let Some(why) = quirks::without_effect(self.map.context, &self.map.trail, &name)
        {
            note(format!("`{}` has no effect: {why}", key.text));
            return true;
        }
        false
    }

    /// The field that an old name stands for.
    fn renamed(&self, key: &Key, fields: &[&'static str]) -> Option<&'static str> {
        let new = quirks::renamed(&key.normalised(), fields)?;
        let trail = Trail::Key(&self.map.trail, &key.text);
        self.map
            .context
            .note(trail.to_path(), format!("`{}` is an old name of `{new}`", key.text));
        Some(new)
    }

    /// Whether a removed entry belongs to the field of this mark.
    fn lost(&self, field: u64) -> bool {
        self.entries
            .iter()
            .any(|(_, node)| *node == Node::Gap(Gap::Removed(Some(field))))
    }
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        while let Some((key, node)) = self.entries.get(self.next) {
            let index = self.next;
            self.next += 1;
            let skipped = matches!(node, Node::Gap(Gap::Removed(_))) || !self.is_ours(key);
            if skipped || self.fields.is_some_and(|f| self.is_void(index, key, f)) {
                continue;
            }
            let renamed = self.fields.and_then(|fields| self.renamed(key, fields));
            let trail = Trail::Key(&self.map.trail, &key.text);
            let name = seed.deserialize(KeyDecoder { key, renamed }).map_err(|error| {
                let mut error = error.or_at(trail);
                error.on_key = true;
                error
            })?;
            let mut mark = DefaultHasher::new();
            discriminant(&name).hash(&mut mark);
            self.current = Some((key, node, mark.finish()));
            return Ok(Some(name));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let Some((key, node, field)) = self.current.take() else {
            return Err(DecodeError::new(What::Message(
                "a value is asked for before its key".to_owned(),
            )));
        };
        let trail = Trail::Key(&self.map.trail, &key.text);
        let filler;
        let node = match node {
            Node::Gap(Gap::Probe) => {
                let answer = DecodeError::new(What::Probed {
                    alias: self.lost(field),
                });
                return Err(DecodeError {
                    field: Some(field),
                    ..answer
                }
                .or_at(trail));
            }
            Node::Gap(Gap::Filler(candidate)) => {
                filler = crate::collect::filler(*candidate).unwrap_or(Node::Null);
                &filler
            }
            node => node,
        };
        let value = self.map.below(node, trail);
        value.placed(seed.deserialize(value)).map_err(|mut error| {
            error.field.get_or_insert(field);
            error
        })
    }
}
