//! Where a node or section stands: its file, document and path.

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use crate::path::Path;
use crate::{Node, PathStep};

/// A file that was read, with its text, which places are found in.
#[derive(Debug)]
pub(crate) struct Source {
    /// As it is shown: as given on the command line or in the configuration.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Where a node of the configuration stands; errors found later point there.
#[derive(Clone, Debug)]
pub struct Place {
    pub(crate) source: Arc<Source>,
    /// The index of the document in the file, from 0.
    pub(crate) document: usize,
    /// From the document's root to the node.
    pub(crate) path: Path,
    /// How messages call the node: ``server[2] `edge` ``.
    pub(crate) shown: String,
    /// The folder that relative file names of the node are looked up in.
    pub(crate) base: Arc<FsPath>,
    /// The node, for the names and spellings in it.
    pub(crate) node: Arc<Node>,
    /// Keys of the node that stand in an earlier document, with the place of their map there.
    pub(crate) elsewhere: Vec<(Box<str>, usize, Path)>,
}

impl Place {
    /// The file that the node is written in.
    pub fn file(&self) -> &FsPath {
        &self.source.path
    }

    /// The index of the node's document in its file, from 0.
    pub fn document(&self) -> usize {
        self.document
    }

    /// The folder that relative file names of the node are looked up in: that of the node's file.
    pub fn base_dir(&self) -> &FsPath {
        &self.base
    }

    /// How messages call a part of the node.
    pub(crate) fn show(&self, below: &Path) -> String {
        let below_shown = below.show(&self.node);
        let joint = match below.steps().first() {
            Some(PathStep::Key(_)) if !self.shown.is_empty() => ".",
            _ => "",
        };
        format!("{}{joint}{below_shown}", self.shown)
    }

    /// The document that a part of the node is in, and its path there, with keys as the file spells them.
    pub(crate) fn absolute(&self, below: &Path) -> (usize, Path) {
        let mut node = Some(&*self.node);
        let mut spelt = Vec::with_capacity(below.steps().len());
        for step in below.steps() {
            let step = match (node, step) {
                (Some(node), PathStep::Key(key)) => PathStep::Key(node.spelling(key).unwrap_or(key).into()),
                _ => step.clone(),
            };
            node = node.and_then(|node| node.step(&step));
            spelt.push(step);
        }
        let elsewhere = match spelt.first() {
            Some(PathStep::Key(key)) => self.elsewhere.iter().find(|(own, ..)| own == key),
            _ => None,
        };
        let (document, map) = elsewhere.map_or((self.document, &self.path), |(_, document, map)| (*document, map));
        (document, map.join(&spelt.into()))
    }
}
