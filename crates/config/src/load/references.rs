//! Names that refer to other nodes: dangling ones, and loops.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Load;
use super::hybrid::Entry;
use crate::nearest::nearest;
use crate::path::Path;
use crate::place::Place;

/// One node's reference to another of the same section.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The name of the node that refers.
    pub from: String,
    /// The name that it refers to.
    pub to: String,
    /// The node that refers.
    pub place: Place,
    /// The reference in it.
    pub path: Path,
}

impl Load {
    /// Checks that a section has a node of this name, and records the dangling reference if not.
    ///
    /// A node that is there and broken counts: it has its own error.
    pub fn refer(&mut self, at: &Place, path: impl Into<Path>, section: &str, name: &str) -> bool {
        let names = self.names(section);
        let known = names.iter().any(|own| own == name);
        if !known {
            self.no_such_name(at, path.into(), section, name, &names);
        }
        known
    }

    /// Records that a reference of `entry` leads nowhere; `kind` is what was looked for, `known` what there is.
    pub fn dangling<T>(&mut self, entry: &Entry<T>, path: impl Into<Path>, kind: &str, name: &str, known: &[String]) {
        if !self.names(kind).iter().any(|own| own == name) {
            self.no_such_name(&entry.place, path.into(), kind, name, known);
        }
    }

    fn no_such_name(&mut self, at: &Place, path: Path, kind: &str, name: &str, known: &[String]) {
        let kind = kind.replace('_', " ");
        let article = if kind.starts_with(['a', 'e', 'i', 'o']) {
            "an"
        } else {
            "a"
        };
        let message = format!("no {kind} is named `{name}`");
        let help = match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => format!("there is no {kind} at all"),
            None => format!("{article} {kind} is one of `{}`", known.join("`, `")),
        };
        self.error_with_help(at, path, message, help);
    }

    /// Records an error at each reference that is part of a loop. True if there is none.
    pub fn refuse_loops(&mut self, kind: &str, edges: &[Edge]) -> bool {
        let kind = kind.replace('_', " ");
        let loops = find_loops(edges.iter().map(|edge| (edge.from.as_str(), edge.to.as_str())));
        for edge in edges {
            let Some(around) = loops.iter().find(|names| is_step(names, &edge.from, &edge.to)) else {
                continue;
            };
            // Told from this edge on: `from` → `to` → … → `from`.
            let start = around.iter().position(|name| *name == edge.from).unwrap_or_default();
            let turned = around.iter().cycle().skip(start).take(around.len() + 1);
            let shown: Vec<_> = turned.map(|name| format!("`{name}`")).collect();
            let message = match around.as_slice() {
                [name] => format!("the {kind} `{name}` refers to itself"),
                _ => format!("the {kind}s refer to each other in a loop: {}", shown.join(" → ")),
            };
            self.error(&edge.place, edge.path.clone(), message);
        }
        loops.is_empty()
    }
}

/// Whether `from` → `to` is one of the loop's steps.
fn is_step(names: &[String], from: &str, to: &str) -> bool {
    let next = names.iter().cycle().skip(1);
    names.iter().zip(next).any(|(own, next)| own == from && next == to)
}

/// Finds loops, so many that every edge that is part of one is on one of them; each as the names in order.
fn find_loops<'a>(edges: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Vec<String>> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut all = Vec::new();
    for (from, to) in edges {
        next.entry(from).or_default().insert(to);
        all.push((from, to));
    }
    let mut loops: Vec<Vec<String>> = Vec::new();
    for (from, to) in all {
        if loops.iter().any(|names| is_step(names, from, to)) {
            continue;
        }
        if let Some(mut way) = shortest(&next, to, from) {
            way.rotate_right(1); // `to` … `from` becomes `from` `to` …
            loops.push(way.into_iter().map(str::to_owned).collect());
        }
    }
    loops
}

/// The names on the shortest way from `start` to `end`, both included.
fn shortest<'a>(next: &BTreeMap<&'a str, BTreeSet<&'a str>>, start: &'a str, end: &'a str) -> Option<Vec<&'a str>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    let mut seen = BTreeSet::from([start]);
    while let Some(name) = queue.pop_front() {
        if name == end {
            let mut way = vec![end];
            let mut at = end;
            while let Some(before) = came_from.get(at) {
                way.push(before);
                at = before;
            }
            way.reverse();
            return Some(way);
        }
        for to in next.get(name).into_iter().flatten() {
            if seen.insert(to) {
                came_from.insert(to, name);
                queue.push_back(to);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loops(edges: &[(&str, &str)]) -> Vec<String> {
        find_loops(edges.iter().copied())
            .iter()
            .map(|names| names.join(" "))
            .collect()
    }

    #[test]
    fn a_graph_without_loops_has_none() {
        assert_eq!(loops(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]), [""; 0]);
    }

    #[test]
    fn every_edge_of_every_loop_is_found() {
        assert_eq!(loops(&[("a", "a")]), ["a"]);
        assert_eq!(loops(&[("x", "a"), ("a", "b"), ("b", "a"), ("b", "y")]), ["a b"]);
        assert_eq!(
            loops(&[("a", "b"), ("b", "c"), ("c", "a"), ("c", "b")]),
            ["a b c", "c b"]
        );
    }
}
