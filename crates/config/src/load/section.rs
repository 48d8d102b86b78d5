//! Sections that are one map, or a word in its place.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::{Load, RootEntry};
use crate::collect;
use crate::decode::Context;
use crate::node::{Key, normalise};
use crate::path::Path;
use crate::place::Place;
use crate::roots::{self, Repeat};
use crate::{Node, PathStep};

impl Load {
    /// A section of the root. `None` if it is absent, or broken, which is then recorded.
    ///
    /// Of a daemon's own map the keys that every daemon has (`log`, `stat`, …) are left to
    /// [`daemon_section`](Self::daemon_section).
    pub fn section<T: DeserializeOwned + Default>(&mut self, key: &str) -> Option<T> {
        let place = self.section_place(key)?;
        self.decode_at(&place, key)
    }

    /// A section that each daemon has: from the map under the daemon's own name, else from the root.
    ///
    /// `runtime` and `worker` of the root are proxyd's; the other daemons have them in their own maps only.
    pub fn daemon_section<T: DeserializeOwned + Default>(&mut self, daemon: &str, key: &str) -> Option<T> {
        let own = self.merged(daemon).and_then(|map| below(&map, key));
        let place = match own {
            Some(place) => place,
            None if roots::SHARED.contains(&key) || self.is_main(daemon) => self.section_place(key)?,
            None => return None,
        };
        self.decode_at(&place, &format!("{daemon}.{key}"))
    }

    /// Whether the root's `runtime` and `worker` are this daemon's: proxyd's in a group, the generator's in its own file.
    fn is_main(&self, daemon: &str) -> bool {
        daemon == "proxyd" || roots::find(self.roots, "proxyd").is_none()
    }

    fn decode_at<T: DeserializeOwned + Default>(&mut self, place: &Place, section: &str) -> Option<T> {
        let nullable = section
            .split('.')
            .next_back()
            .and_then(|key| roots::find(self.roots, key));
        if *place.node == Node::Null && nullable.is_none_or(|root| root.null) {
            return Some(T::default());
        }
        let context = Context {
            section: section.to_owned(),
            ..Context::default()
        };
        let decoded = collect::decode(&place.node, context, |decoder| T::deserialize(decoder));
        self.take_flaws(place, decoded.errors, decoded.warnings);
        decoded.value
    }

    /// The section, without the keys of [`roots::OF_DAEMON`] if it is a daemon's own map.
    fn section_place(&mut self, key: &str) -> Option<Place> {
        let mut place = self.merged(key)?;
        let root = roots::find(self.roots, &normalise(key))?;
        let is_daemon = !roots::OF_DAEMON.contains(&root.key) && root.repeat == Repeat::Merge;
        if let (true, Node::Map(entries)) = (is_daemon, &*place.node) {
            let own = entries
                .iter()
                .filter(|(key, _)| !roots::OF_DAEMON.contains(&&*key.normalised()));
            place.node = Arc::new(Node::Map(own.cloned().collect()));
        }
        Some(place)
    }

    /// The section with what several documents say of it put together.
    fn merged(&mut self, key: &str) -> Option<Place> {
        let key = &*normalise(key);
        let entries: Vec<&RootEntry> = self.entries.iter().filter(|entry| entry.root.key == key).collect();
        let root = entries.first()?.root;
        let mut places: Vec<Place> = entries.into_iter().filter_map(|entry| self.place_of(entry)).collect();
        if places.len() > 1 && root.repeat == Repeat::First {
            for place in places.split_off(1) {
                self.warn(
                    &place,
                    "",
                    format!("`{key}` of an earlier document counts, this one has no effect"),
                );
            }
        }
        let mut place = places.pop()?;
        for earlier in places.into_iter().rev() {
            if !self.merge(&mut place, &earlier) {
                return None;
            }
        }
        Some(place)
    }

    /// Adds the keys of an earlier document's section that the later one lacks. False if that cannot be.
    fn merge(&mut self, later: &mut Place, earlier: &Place) -> bool {
        match (&*later.node, &*earlier.node) {
            (_, Node::Null) => true,
            (Node::Null, _) => {
                *later = earlier.clone();
                true
            }
            (Node::Map(own), Node::Map(more)) => {
                let is_new = |key: &Key| own.iter().all(|(own, _)| own.normalised() != key.normalised());
                let fresh: Vec<_> = more.iter().filter(|(key, _)| is_new(key)).cloned().collect();
                let places =
                    fresh.iter().map(
                        |(key, _)| match earlier.elsewhere.iter().find(|(own, ..)| *own == key.text) {
                            Some(found) => found.clone(),
                            None => (key.text.clone(), earlier.document, earlier.path.clone()),
                        },
                    );
                later.elsewhere.extend(places);
                later.node = Arc::new(Node::Map(own.iter().cloned().chain(fresh).collect()));
                true
            }
            _ => {
                let message = "this section stands in an earlier document too, and only maps can be put together";
                self.error(later, "", message);
                false
            }
        }
    }
}

/// The place of a key's value in a map.
fn below(place: &Place, key: &str) -> Option<Place> {
    let (spelt, node) = place.node.entry(key)?;
    let step = Path::from(PathStep::Key(spelt.text.clone()));
    let (document, path) = place.absolute(&step);
    Some(Place {
        shown: place.show(&step),
        document,
        path,
        elsewhere: Vec::new(),
        node: Arc::new(node.clone()),
        ..place.clone()
    })
}
