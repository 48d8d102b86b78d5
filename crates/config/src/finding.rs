//! What a load found: errors and warnings, each with its place.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::path::Path;
use crate::place::Source;
use crate::read::{Mark, Spot, locate};

/// Bytes that may be read again to find lines and columns; past it errors come without.
const LOCATING: usize = 32 << 20;

/// An error or a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, as it was given.
    pub file: PathBuf,
    /// The line and the column, each from 1; unknown where a whole file is meant.
    pub at: Option<(usize, usize)>,
    /// The part meant, such as ``server[2] `edge`.listen``; empty for a whole file.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be right, or what was probably meant.
    pub help: Option<String>,
}

/// Something that is accepted and worth a word.
pub type Warning = Finding;

/// All that is wrong with a configuration; its text has a block for each error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    /// The errors, in the order of files and lines; never empty.
    pub errors: Vec<Finding>,
    /// The warnings beside them.
    pub warnings: Vec<Warning>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some((line, column)) = self.at {
            write!(f, "{line}:{column}:")?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(f, " {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n    {help}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// A finding whose line and column are still to be found.
#[derive(Debug)]
pub(crate) struct Unplaced {
    pub(crate) source: Arc<Source>,
    /// The order in which the source was read.
    pub(crate) spot: Where,
    pub(crate) path: String,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// A part of a source.
#[derive(Debug)]
pub(crate) enum Where {
    /// The file as a whole.
    File,
    /// A place that is known.
    Mark(Mark),
    /// A place to be found.
    Path { document: usize, path: Path, on_key: bool },
}

/// Finds lines and columns, and brings the findings into the order of the files.
pub(crate) fn place_all(unplaced: Vec<Unplaced>, sources: &[Arc<Source>]) -> Vec<Finding> {
    let mut budget = LOCATING;
    let order = |source: &Arc<Source>| sources.iter().position(|own| Arc::ptr_eq(own, source));
    let mut placed: Vec<_> = unplaced
        .into_iter()
        .map(|finding| {
            let mark = find(&finding, &mut budget);
            (order(&finding.source), mark, finding)
        })
        .collect();
    // What is about a whole file comes before its lines, what could not be placed any more after them.
    placed.sort_by_key(|(source, mark, finding)| {
        (*source, mark.is_none() && !matches!(finding.spot, Where::File), *mark)
    });
    let mut findings: Vec<_> = placed
        .into_iter()
        .map(|(_, mark, finding)| Finding {
            file: finding.source.path.clone(),
            at: mark.map(|mark| (mark.line, mark.column)),
            path: finding.path,
            message: finding.message,
            help: finding.help,
        })
        .collect();
    findings.dedup();
    findings
}

/// The place of the finding, or of the closest part around it that the text has.
fn find(finding: &Unplaced, budget: &mut usize) -> Option<Mark> {
    let (document, path, mut on_key) = match &finding.spot {
        Where::File => return None,
        Where::Mark(mark) => return Some(*mark),
        Where::Path { document, path, on_key } => (*document, path, *on_key),
    };
    let mut steps = path.steps();
    loop {
        *budget = budget.checked_sub(finding.source.text.len())?;
        let found = locate(&finding.source.text, document, Spot { path: steps, on_key });
        if found.is_some() {
            return found;
        }
        (_, steps) = steps.split_last()?;
        on_key = false;
    }
}
