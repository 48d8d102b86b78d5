//! Where in a document something stands: ``server[2] `edge`.listen``.

use std::fmt::Write as _;

use crate::Node;

/// One step down in a document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathStep {
    /// The value of a key, in the spelling of the file.
    Key(Box<str>),
    /// An element of a list, from 0.
    Index(usize),
}

/// Steps from the root of a document, or from a node, to a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path(Vec<PathStep>);

impl Path {
    /// The path of no step.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of one step.
    pub fn key(key: &str) -> Self {
        Self(vec![PathStep::Key(key.into())])
    }

    /// The steps, from the outside in.
    pub fn steps(&self) -> &[PathStep] {
        &self.0
    }

    /// This path and one step more.
    #[must_use]
    pub fn then(&self, step: PathStep) -> Self {
        let mut path = self.clone();
        path.0.push(step);
        path
    }

    /// This path with another one below it.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        Self(self.0.iter().chain(&below.0).cloned().collect())
    }

    /// Takes the last step off.
    pub(crate) fn pop(&mut self) -> Option<PathStep> {
        self.0.pop()
    }

    /// The path without its last step.
    pub(crate) fn parent(&self) -> Self {
        let mut parent = self.clone();
        parent.pop();
        parent
    }

    /// The path for people: keys joined by dots, each index followed by the `name` of the map that it leads to.
    pub(crate) fn show(&self, root: &Node) -> String {
        let mut out = String::new();
        let mut node = Some(root);
        for step in &self.0 {
            node = node.and_then(|node| node.step(step));
            match step {
                PathStep::Key(key) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.push_str(key);
                }
                PathStep::Index(index) => {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "[{index}]");
                    if let Some(name) = node.and_then(Node::name) {
                        let _ = write!(out, " `{name}`");
                    }
                }
            }
        }
        out
    }
}

impl From<Vec<PathStep>> for Path {
    fn from(steps: Vec<PathStep>) -> Self {
        Self(steps)
    }
}

impl From<&[PathStep]> for Path {
    fn from(steps: &[PathStep]) -> Self {
        Self(steps.to_vec())
    }
}

impl From<&str> for Path {
    /// Reads `a.b[1].c`; a key that holds a dot or a bracket needs [`Path::then`].
    fn from(text: &str) -> Self {
        let mut steps = Vec::new();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let (key, indexes) = part.split_once('[').map_or((part, ""), |(key, indexes)| (key, indexes));
            if !key.is_empty() {
                steps.push(PathStep::Key(key.into()));
            }
            let indexes = indexes
                .split('[')
                .filter_map(|index| index.trim_end_matches(']').parse().ok());
            steps.extend(indexes.map(PathStep::Index));
        }
        Self(steps)
    }
}

/// A path on the stack, grown while decoding goes down.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trail<'a> {
    Root,
    Key(&'a Self, &'a str),
    Index(&'a Self, usize),
}

impl Trail<'_> {
    pub(crate) fn to_path(self) -> Path {
        let mut steps = Vec::new();
        let mut trail = &self;
        loop {
            match trail {
                Self::Root => break,
                Self::Key(parent, key) => {
                    steps.push(PathStep::Key((*key).into()));
                    trail = parent;
                }
                Self::Index(parent, index) => {
                    steps.push(PathStep::Index(*index));
                    trail = parent;
                }
            }
        }
        steps.reverse();
        Path(steps)
    }

    /// The innermost key.
    pub(crate) fn last_key(&self) -> Option<&str> {
        match self {
            Self::Root => None,
            Self::Key(_, key) => Some(key),
            Self::Index(parent, _) => parent.last_key(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_steps() {
        let steps = [
            PathStep::Key("next".into()),
            PathStep::Index(2),
            PathStep::Key("to".into()),
        ];
        assert_eq!(Path::from("next[2].to").steps(), steps);
        assert_eq!(Path::from("").steps(), []);
    }
}
