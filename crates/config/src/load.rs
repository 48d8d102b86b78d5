//! One loading of a group's configuration.

mod file;
mod hybrid;
mod references;
mod section;

use std::collections::HashMap;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

pub use hybrid::Entry;
pub use references::Edge;

use crate::collect::Flaw;
use crate::finding::{Errors, Finding, Unplaced, Warning, Where, place_all};
use crate::nearest::nearest;
use crate::node::{Key, normalise};
use crate::path::Path;
use crate::place::{Place, Source};
use crate::roots::{self, Root};
use crate::{Node, PathStep};
use hybrid::RawNode;

/// One loading of a configuration: hands out its parts and gathers what is wrong with them.
///
/// Nothing fails on the way. Each part is read as far as it can be, errors are recorded with their places, and
/// [`finish`](Self::finish) gives all of them.
#[derive(Debug)]
pub struct Load {
    roots: &'static [Root],
    sources: Vec<Arc<Source>>,
    /// The root entries of the main file: the key's row, the key, its value, the document it stands in.
    entries: Vec<RootEntry>,
    /// The folder of the main file.
    base: Arc<FsPath>,
    /// The same as it was given, for messages.
    shown_base: PathBuf,
    /// The extension of the main file.
    extension: Option<String>,
    /// The nodes of hybrid sections that were asked for.
    hybrids: HashMap<&'static str, Arc<Vec<RawNode>>>,
    errors: Vec<Unplaced>,
    warnings: Vec<Unplaced>,
}

#[derive(Debug)]
struct RootEntry {
    root: &'static Root,
    key: Key,
    node: Arc<Node>,
    document: usize,
}

impl Load {
    /// Reads a group's main file, or the main file in a folder. What cannot be read is recorded.
    pub fn open(main: &FsPath) -> Self {
        Self::open_with(main, |_| roots::GROUP)
    }

    /// Reads a certificate generator's own file, whose root has its `backend` and sections, or a group's main file.
    pub fn open_certgen(main: &FsPath) -> Self {
        let has_backend = |root: &Node| match root {
            Node::Map(entries) => entries.iter().any(|(key, _)| key.normalised() == "backend"),
            _ => false,
        };
        Self::open_with(main, |documents| {
            if documents.iter().any(has_backend) {
                roots::CERTGEN
            } else {
                roots::GROUP
            }
        })
    }

    /// Whether this is a certificate generator's own file.
    pub fn is_certgen(&self) -> bool {
        roots::find(self.roots, "backend").is_some()
    }

    /// `choose` tells which root keys there may be, from the documents.
    fn open_with(main: &FsPath, choose: impl FnOnce(&[Node]) -> &'static [Root]) -> Self {
        let mut load = Self {
            roots: roots::GROUP,
            sources: Vec::new(),
            entries: Vec::new(),
            base: FsPath::new("").into(),
            shown_base: PathBuf::new(),
            extension: None,
            hybrids: HashMap::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
        };
        let Some(main) = load.main_file(main) else { return load };
        load.shown_base = main.parent().map(FsPath::to_owned).unwrap_or_default();
        if let Ok(real) = main.canonicalize() {
            load.base = real.parent().unwrap_or(&real).into();
            load.extension = real
                .extension()
                .map(|extension| extension.to_string_lossy().into_owned());
        }
        let Some((source, documents)) = load.read_file(&main.clone(), main) else {
            return load;
        };
        load.roots = choose(&documents);
        for (index, document) in documents.into_iter().enumerate() {
            load.take_root(&source, index, document);
        }
        load
    }

    /// The folder of the main file, which relative paths of the sections are looked up in.
    pub fn base_dir(&self) -> &FsPath {
        &self.base
    }

    fn take_root(&mut self, source: &Arc<Source>, document: usize, node: Node) {
        let Node::Map(entries) = node else {
            let message = format!("expected a map of sections, found {}", node.describe());
            self.errors.push(Unplaced {
                source: Arc::clone(source),
                spot: Where::Path {
                    document,
                    path: Path::root(),
                    on_key: false,
                },
                path: String::new(),
                message,
                help: None,
            });
            return;
        };
        for (key, node) in entries {
            let name = key.normalised();
            let Some(root) = roots::find(self.roots, &name).filter(|_| key.is_string) else {
                let known = self.roots.iter().map(|root| root.key);
                let help = match nearest(&name, known.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("sections are `{}`", known.collect::<Vec<_>>().join("`, `")),
                };
                self.errors.push(Unplaced {
                    source: Arc::clone(source),
                    spot: Where::Path {
                        document,
                        path: Path::key(&key.text),
                        on_key: true,
                    },
                    path: String::new(),
                    message: format!("unknown section `{}`", key.text),
                    help: Some(help),
                });
                continue;
            };
            self.entries.push(RootEntry {
                root,
                key,
                node: Arc::new(node),
                document,
            });
        }
    }

    /// The place of a root entry's value.
    fn place_of(&self, entry: &RootEntry) -> Option<Place> {
        let source = self.sources.first()?;
        Some(Place {
            source: Arc::clone(source),
            document: entry.document,
            path: Path::key(&entry.key.text),
            shown: entry.key.text.to_string(),
            base: Arc::clone(&self.base),
            node: Arc::clone(&entry.node),
            elsewhere: Vec::new(),
        })
    }

    /// The place of a section, for what is found later; `None` if the file has none of that name.
    pub fn place(&self, section: &str) -> Option<Place> {
        let section = normalise(section);
        let entry = self.entries.iter().rev().find(|entry| entry.root.key == section)?;
        self.place_of(entry)
    }

    /// Records an error about a part of a node.
    ///
    /// `path` is relative to the place: a text such as `next[1].to`, or steps.
    pub fn error(&mut self, at: &Place, path: impl Into<Path>, message: impl Into<String>) {
        self.errors.push(unplaced(at, path.into(), message.into(), None));
    }

    /// Records an error with a line that helps.
    pub fn error_with_help(
        &mut self,
        at: &Place,
        path: impl Into<Path>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.errors
            .push(unplaced(at, path.into(), message.into(), Some(help.into())));
    }

    /// Records a warning about a part of a node.
    pub fn warn(&mut self, at: &Place, path: impl Into<Path>, message: impl Into<String>) {
        self.warnings.push(unplaced(at, path.into(), message.into(), None));
    }

    /// Whether an error was recorded so far.
    pub fn is_broken(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Ends the load.
    ///
    /// # Errors
    /// [`Errors`] with all that is wrong.
    pub fn finish(self) -> Result<Vec<Warning>, Errors> {
        let warnings = place_all(self.warnings, &self.sources);
        if self.errors.is_empty() {
            return Ok(warnings);
        }
        let mut errors = self.errors;
        let more = errors.len().saturating_sub(MOST_ERRORS);
        errors.truncate(MOST_ERRORS);
        let mut errors = place_all(errors, &self.sources);
        if let (1.., Some(last)) = (more, errors.last()) {
            let message = format!("{more} more errors are not shown");
            errors.push(Finding {
                file: last.file.clone(),
                at: None,
                path: String::new(),
                message,
                help: None,
            });
        }
        Err(Errors { errors, warnings })
    }

    /// Records what decoding a node found.
    fn take_flaws(&mut self, place: &Place, errors: Vec<Flaw>, warnings: Vec<Flaw>) {
        let placed = |flaw: Flaw| {
            let (document, path) = place.absolute(&flaw.path);
            Unplaced {
                source: Arc::clone(&place.source),
                spot: Where::Path {
                    document,
                    path,
                    on_key: flaw.on_key,
                },
                // An unknown key is named by the message; its path is that of its map.
                path: place.show(&if flaw.on_key { flaw.path.parent() } else { flaw.path }),
                message: flaw.message,
                help: flaw.help,
            }
        };
        self.errors.extend(errors.into_iter().map(placed));
        self.warnings.extend(warnings.into_iter().map(placed));
    }

    /// Records an error about a file as a whole.
    fn file_error(&mut self, path: PathBuf, message: String) {
        let source = Arc::new(Source {
            path,
            text: String::new(),
        });
        self.sources.push(Arc::clone(&source));
        self.errors.push(Unplaced {
            source,
            spot: Where::File,
            path: String::new(),
            message,
            help: None,
        });
    }
}

fn unplaced(at: &Place, path: Path, message: String, help: Option<String>) -> Unplaced {
    let (document, absolute) = at.absolute(&path);
    Unplaced {
        source: Arc::clone(&at.source),
        spot: Where::Path {
            document,
            path: absolute,
            on_key: false,
        },
        path: at.show(&path),
        message,
        help,
    }
}

/// The most errors that are placed and shown.
const MOST_ERRORS: usize = 200;

/// A step into a list.
fn element(path: &Path, index: usize) -> Path {
    path.then(PathStep::Index(index))
}

#[cfg(test)]
mod tests;
