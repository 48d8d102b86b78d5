//! Sections that are lists of nodes, written in place or in files and folders of their own.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use super::file::plain;
use super::{Load, element};
use crate::collect;
use crate::decode::Context;
use crate::kinds::{self, Kind, Kinds};
use crate::node::Key;
use crate::path::Path;
use crate::place::Place;
use crate::roots;
use crate::value::NodeName;
use crate::{Node, PathStep};

/// The extension that the manual names for files in a folder, beside that of the main file.
const DOCUMENTED: &str = "conf";

/// A node of a hybrid section.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// Its name, unique in the section.
    pub name: String,
    /// What it says.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

/// A node that has no type yet.
#[derive(Debug)]
pub(super) struct RawNode {
    place: Place,
    /// The name, if there is a good one.
    name: Option<String>,
}

impl Load {
    /// The nodes of a section: those in place, in files and in folders. Broken ones are recorded and left out.
    pub fn nodes<T: Kinds>(&mut self, section: &str) -> Vec<Entry<T>> {
        let nodes = self.raw_nodes(section);
        let mut entries = Vec::with_capacity(nodes.len());
        let mut named: HashMap<&str, &Place> = HashMap::new();
        for node in nodes.iter() {
            if let Some(name) = &node.name {
                if let Some(first) = named.get(name.as_str()) {
                    let message = format!("the name `{name}` is taken already");
                    let help = format!("the other one is {} in {}", first.shown, first.file().display());
                    self.error_with_help(&node.place, "name", message, help);
                }
                named.entry(name).or_insert(&node.place);
            } else {
                self.refuse_name(&node.place);
            }
            let value = self.decode_node::<T>(section, &node.place);
            if let (Some(value), Some(name)) = (value, &node.name) {
                entries.push(Entry {
                    name: name.clone(),
                    value,
                    place: node.place.clone(),
                });
            }
        }
        entries
    }

    /// The names of a section's nodes, broken ones among them.
    pub fn names(&mut self, section: &str) -> Vec<String> {
        self.raw_nodes(section)
            .iter()
            .filter_map(|node| node.name.clone())
            .collect()
    }

    fn refuse_name(&mut self, place: &Place) {
        match place.node.entry("name") {
            None => self.error(place, "", "`name` is missing"),
            Some((_, name)) => {
                let why = match name {
                    Node::Str(text) => NodeName::parse(text).err().map(|why| format!(": {why}")),
                    Node::Int(_) | Node::Float(_) | Node::Bool(_) => Some("; in quotes it would be one".to_owned()),
                    _ => None,
                };
                let message = format!("expected a name, found {}{}", name.describe(), why.unwrap_or_default());
                self.error(place, "name", message);
            }
        }
    }

    fn decode_node<T: Kinds>(&mut self, section: &str, place: &Place) -> Option<T> {
        let kind = self.kind::<T>(place)?;
        let Node::Map(entries) = &*place.node else { return None };
        let typed = kinds::is_typed::<T>();
        let own = |(key, _): &&(Key, Node)| {
            let key = key.normalised();
            key != "name" && !(typed && key == "type")
        };
        let body = Node::Map(entries.iter().filter(own).cloned().collect());
        let context = Context {
            section: section.to_owned(),
            kind: Some(kind.name),
            ..Context::default()
        };
        let decoded = collect::decode(&body, context, kind.decode);
        self.take_flaws(place, decoded.errors, decoded.warnings);
        decoded.value
    }

    /// The kind that a node's `type` names.
    fn kind<T: Kinds>(&mut self, place: &Place) -> Option<Kind<T>> {
        let (Some((_, given)), true) = (place.node.entry("type"), kinds::is_typed::<T>()) else {
            let untyped = T::UNTYPED.and_then(kinds::find::<T>);
            if untyped.is_none() {
                let names = kinds::names::<T>().join("`, `");
                self.error_with_help(place, "", "`type` is missing", format!("it is one of `{names}`"));
            }
            return untyped;
        };
        let Node::Str(word) = given else {
            self.error(place, "type", format!("expected a type, found {}", given.describe()));
            return None;
        };
        let kind = kinds::find::<T>(word);
        if kind.is_none() {
            self.refuse_type::<T>(place, word);
        }
        kind
    }

    fn refuse_type<T: Kinds>(&mut self, place: &Place, word: &str) {
        if let Some(name) = kinds::not_built::<T>(word) {
            let message = format!("the {} type `{name}` is not built yet in this version", T::NOUN);
            return self.error(place, "type", message);
        }
        let message = format!("no {} type is named `{}`", T::NOUN, crate::node::shorten(word));
        let help = match kinds::nearest::<T>(word) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it is one of `{}`", kinds::names::<T>().join("`, `")),
        };
        self.error_with_help(place, "type", message, help);
    }

    fn raw_nodes(&mut self, section: &str) -> Arc<Vec<RawNode>> {
        let Some(root) = roots::find(self.roots, section) else {
            return Arc::default();
        };
        if let Some(nodes) = self.hybrids.get(root.key) {
            return Arc::clone(nodes);
        }
        let places: Vec<_> = self.entries.iter().filter(|entry| entry.root.key == root.key).collect();
        let places: Vec<_> = places.into_iter().filter_map(|entry| self.place_of(entry)).collect();
        let mut nodes = Vec::new();
        for place in places {
            self.gather(&place, &mut nodes);
        }
        let nodes = Arc::new(nodes);
        self.hybrids.insert(root.key, Arc::clone(&nodes));
        nodes
    }

    /// Gathers the nodes of one document's section.
    fn gather(&mut self, section: &Place, nodes: &mut Vec<RawNode>) {
        match &*section.node {
            Node::Seq(elements) => {
                for (index, node) in elements.iter().enumerate() {
                    let at = element(&Path::root(), index);
                    match node {
                        Node::Map(_) => {
                            let place = Place {
                                shown: section.show(&at),
                                path: element(&section.path, index),
                                node: Arc::new(node.clone()),
                                ..section.clone()
                            };
                            nodes.push(raw(place));
                        }
                        Node::Str(path) => self.include(section, at, path, nodes),
                        _ => {
                            let message = format!(
                                "expected a map or the path of a file or folder, found {}",
                                node.describe()
                            );
                            self.error(section, at, message);
                        }
                    }
                }
            }
            Node::Str(path) => self.include(section, Path::root(), path, nodes),
            node => {
                let message = format!(
                    "expected a list of maps, or the path of a file or folder, found {}",
                    node.describe()
                );
                self.error(section, "", message);
            }
        }
    }

    /// Gathers the nodes of a file, or of the files in a folder.
    fn include(&mut self, section: &Place, at: Path, given: &str, nodes: &mut Vec<RawNode>) {
        let path = self.base.join(given);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => match self.folder(&path) {
                Ok(files) => files
                    .into_iter()
                    .for_each(|file| self.include_file(section, file, nodes)),
                Err(error) => self.error(section, at, format!("cannot list the folder `{given}`: {error}")),
            },
            Ok(_) => self.include_file(section, path, nodes),
            Err(error) => {
                let message = format!("cannot read `{given}`: {}", plain(&error));
                let help = "a string here is the path of a file or folder, seen from the folder of the main file";
                self.error_with_help(section, at, message, help);
            }
        }
    }

    /// The files of a folder that belong to the configuration, by name.
    fn folder(&self, path: &FsPath) -> Result<Vec<PathBuf>, String> {
        let wanted = |path: &FsPath| match &self.extension {
            None => true,
            Some(own) => {
                let extension = path.extension();
                extension == Some(OsStr::new(own)) || extension == Some(OsStr::new(DOCUMENTED))
            }
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| plain(&error))? {
            let path = entry.map_err(|error| plain(&error))?.path();
            // What cannot be looked at (a dangling link) is kept: reading it gives the error.
            if wanted(&path) && !path.is_dir() {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn include_file(&mut self, section: &Place, path: PathBuf, nodes: &mut Vec<RawNode>) {
        let base = path.canonicalize().ok().and_then(|real| real.parent().map(Arc::from));
        let shown = path.strip_prefix(&self.base).map(|below| self.shown_base.join(below));
        let Some((source, documents)) = self.read_file(&path, shown.unwrap_or_else(|_| path.clone())) else {
            return;
        };
        for (document, node) in documents.into_iter().enumerate() {
            let shown = match node.name() {
                Some(name) => format!("{} `{name}`", section.shown),
                None => section.shown.clone(),
            };
            let place = Place {
                source: Arc::clone(&source),
                document,
                path: Path::root(),
                shown,
                base: base.clone().unwrap_or_else(|| Arc::clone(&self.base)),
                node: Arc::new(node),
                elsewhere: Vec::new(),
            };
            if matches!(*place.node, Node::Map(_)) {
                nodes.push(raw(place));
            } else {
                let message = format!("expected a map, found {}", place.node.describe());
                self.error(&place, "", message);
            }
        }
    }
}

fn raw(place: Place) -> RawNode {
    let name = place
        .node
        .name()
        .and_then(|name| NodeName::parse(name).ok())
        .map(|name| name.to_string());
    RawNode { place, name }
}

impl From<PathStep> for Path {
    fn from(step: PathStep) -> Self {
        Self::root().then(step)
    }
}
