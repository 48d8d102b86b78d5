//! Finds every error of a node, not only the first.
//!
//! serde stops at the first error. So the broken part is taken out, and decoding starts again, until it comes through;
//! a missing key is filled with something that fits, to learn what else is missing. An error that only our own
//! taking-out or filling-in explains is not reported.

use std::collections::HashSet;

use serde::de::DeserializeOwned;

use crate::decode::{Context, DecodeError, Decoder, What};
use crate::nearest::nearest;
use crate::node::{Gap, Key};
use crate::{Node, Path, PathStep};

/// The most errors that are looked for in one node.
const MOST: usize = 200;

/// An error or a warning about a part of a node; the path is relative to it.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub(crate) path: Path,
    pub(crate) on_key: bool,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// What decoding a node gave.
#[derive(Debug)]
pub(crate) struct Decoded<T> {
    /// The value, if nothing is wrong.
    pub(crate) value: Option<T>,
    pub(crate) errors: Vec<Flaw>,
    pub(crate) warnings: Vec<Flaw>,
}

/// Values for missing keys, simplest first; what fits none of them ends the search in that map.
pub(crate) fn filler(candidate: usize) -> Option<Node> {
    Some(match candidate {
        0 => Node::Str("x".into()),
        1 => Node::Str("127.0.0.1:1".into()),
        2 => Node::Int(1),
        3 => Node::Map(Vec::new()),
        4 => Node::Seq(Vec::new()),
        5 => Node::Bool(true),
        _ => return None,
    })
}

/// Decodes `node` with `decode`, again and again, until all that is wrong with it is known.
pub(crate) fn decode<T>(
    node: &Node,
    mut context: Context,
    decode: impl Fn(Decoder<'_>) -> Result<T, DecodeError>,
) -> Decoded<T> {
    let first = decode(Decoder::new(node, &context));
    let error = match first {
        Ok(value) => {
            let warnings = warnings(&mut context);
            return Decoded {
                value: Some(value),
                errors: Vec::new(),
                warnings,
            };
        }
        Err(error) => error,
    };
    let mut search = Search {
        node: node.clone(),
        errors: Vec::new(),
        guessed: HashSet::new(),
    };
    let mut next = Some(error);
    for _ in 0..MOST {
        let Some(error) = next.take() else { break };
        if !search.take(error) {
            break;
        }
        next = decode(Decoder::new(&search.node, &context)).err();
    }
    Decoded {
        value: None,
        errors: search.errors,
        warnings: warnings(&mut context),
    }
}

/// Decodes a node that is no part of a file, such as published data.
///
/// # Errors
/// All that is wrong, each with its path.
pub fn decode_node<T: DeserializeOwned>(node: &Node) -> Result<T, Vec<String>> {
    let decoded = decode(node, Context::default(), |decoder| T::deserialize(decoder));
    decoded.value.ok_or_else(|| {
        let errors = decoded.errors.into_iter().map(|flaw| {
            let path = if flaw.on_key { flaw.path.parent() } else { flaw.path };
            match path.show(node) {
                path if path.is_empty() => flaw.message,
                path => format!("{path}: {}", flaw.message),
            }
        });
        errors.collect()
    })
}

/// Decodes a YAML text that is no file, such as an argument or a test's.
///
/// # Errors
/// All that is wrong, each with its path.
pub fn decode_text<T: DeserializeOwned>(yaml: &str) -> Result<T, Vec<String>> {
    let (mut documents, errors) = crate::read::yaml(yaml);
    if !errors.is_empty() {
        return Err(errors.into_iter().map(|error| error.message).collect());
    }
    decode_node(&documents.pop().unwrap_or(Node::Null))
}

fn warnings(context: &mut Context) -> Vec<Flaw> {
    let mut seen = HashSet::new();
    let notes = context.notes.take().into_iter();
    let fresh = notes.filter(|(path, message)| seen.insert((path.clone(), message.clone())));
    fresh
        .map(|(path, message)| Flaw {
            path,
            on_key: true,
            message,
            help: None,
        })
        .collect()
}

struct Search {
    node: Node,
    errors: Vec<Flaw>,
    /// Keys that an unknown one was probably meant to be.
    guessed: HashSet<(Path, &'static str)>,
}

impl Search {
    /// Records the error, if it is one, and changes the node so that decoding gets past it. False if nothing is left.
    fn take(&mut self, error: DecodeError) -> bool {
        let path = error.at.clone().unwrap_or_default();
        if let What::Probed { alias } = error.what {
            self.probed(&path, alias);
            return true;
        }
        if let What::MissingKey(key) = error.what {
            return self.missing(path, key, error);
        }
        if let Some(owner) = self.filled_above(&path) {
            // Our own filler is at fault, or what it did to its map is: try the next one, or leave the map.
            return self.refill(&path) || self.remove(owner, None);
        }
        let is_verdict = matches!(error.what, What::Message(_) | What::Misfit { .. });
        if is_verdict && self.has_gaps(&path) {
            return self.remove(path, error.field);
        }
        let flaw = self.flaw(&path, &error);
        let place = flaw.path.clone();
        // The mark is that of the key whose value failed; it says nothing about a key that failed itself.
        let field = error.field.filter(|_| !error.on_key && place == path);
        self.errors.push(flaw);
        self.remove(place, field)
    }

    fn flaw(&mut self, path: &Path, error: &DecodeError) -> Flaw {
        let mut flaw = Flaw {
            path: path.clone(),
            on_key: error.on_key,
            message: error.to_string(),
            help: None,
        };
        match &error.what {
            What::UnknownKey { key, .. } if key == "<<" => {
                flaw.help = Some("merge keys mean nothing here; write the keys out".to_owned());
            }
            What::UnknownKey { key, known } => {
                if let Some(PathStep::Key(written)) = path.steps().last() {
                    flaw.message = format!("unknown key `{written}`");
                }
                let parent = path.parent();
                let named: Vec<_> = known
                    .iter()
                    .copied()
                    .filter(|key| !crate::quirks::is_old(key))
                    .collect();
                if let Some(near) = nearest(key, named.iter().copied()) {
                    flaw.help = Some(format!("did you mean `{near}`?"));
                    self.guessed.insert((parent, near));
                } else if named.is_empty() {
                    flaw.help = Some("no key is known here".to_owned());
                } else {
                    flaw.help = Some(format!("known here: `{}`", named.join("`, `")));
                }
            }
            What::UnknownWord { word, known } => {
                flaw.help = nearest(word, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            }
            What::NotBuilt { .. } => flaw.help = Some("leave the key out, whatever its value".to_owned()),
            What::Misfit { key: Some(key), .. } => flaw.path = path.then(PathStep::Key(key.as_str().into())),
            _ => {}
        }
        flaw
    }

    fn missing(&mut self, path: Path, key: &'static str, error: DecodeError) -> bool {
        let Some(Node::Map(entries)) = self.node.descend_mut(path.steps()) else {
            return self.remove(path, error.field);
        };
        let removed = |(own, node): &(Key, Node)| own.normalised() == key && matches!(node, Node::Gap(Gap::Removed(_)));
        let explained = self.guessed.contains(&(path.clone(), key)) || entries.iter().any(removed);
        let suspicious = entries
            .iter()
            .any(|(_, node)| matches!(node, Node::Gap(Gap::Removed(Some(_)))));
        let gap = if suspicious && !explained {
            Gap::Probe
        } else {
            Gap::Filler(0)
        };
        entries.push((Key::string(key), Node::Gap(gap)));
        if gap == Gap::Filler(0) && !explained {
            self.report_missing(path, key);
        }
        true
    }

    fn report_missing(&mut self, path: Path, key: &str) {
        self.errors.push(Flaw {
            path,
            on_key: false,
            message: format!("`{key}` is missing"),
            help: None,
        });
    }

    fn probed(&mut self, path: &Path, alias: bool) {
        if let Some(node) = self.node.descend_mut(path.steps()) {
            *node = Node::Gap(Gap::Filler(0));
        }
        if !alias {
            let mut parent = path.clone();
            if let Some(PathStep::Key(key)) = parent.pop() {
                self.report_missing(parent, &key);
            }
        }
    }

    /// The map at or above `path` that was given a filler.
    fn filled_above(&self, path: &Path) -> Option<Path> {
        let mut above = path.clone();
        loop {
            if let Some(Node::Map(entries)) = self.node.descend(above.steps())
                && entries
                    .iter()
                    .any(|(_, node)| matches!(node, Node::Gap(Gap::Filler(_))))
            {
                return Some(above);
            }
            above.pop()?;
        }
    }

    /// Puts the next candidate where a filler at or above `path` did not fit.
    fn refill(&mut self, path: &Path) -> bool {
        let mut above = path.clone();
        loop {
            if let Some(Node::Gap(Gap::Filler(candidate))) = self.node.descend_mut(above.steps()) {
                *candidate += 1;
                return filler(*candidate).is_some();
            }
            if above.pop().is_none() {
                return false;
            }
        }
    }

    fn has_gaps(&self, path: &Path) -> bool {
        match self.node.descend(path.steps()) {
            Some(Node::Map(entries)) => entries.iter().any(|(_, node)| matches!(node, Node::Gap(_))),
            Some(Node::Seq(nodes)) => nodes.iter().any(|node| matches!(node, Node::Gap(_))),
            _ => false,
        }
    }

    /// Takes out what stands at `path`, or the nearest part above that is there. False if that is all.
    fn remove(&mut self, mut path: Path, field: Option<u64>) -> bool {
        loop {
            if path.steps().is_empty() {
                return false;
            }
            match self.node.descend_mut(path.steps()) {
                Some(Node::Gap(_)) | None => path.pop(),
                Some(node) => {
                    *node = Node::Gap(Gap::Removed(field));
                    return true;
                }
            };
        }
    }
}
