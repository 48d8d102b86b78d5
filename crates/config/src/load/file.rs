//! Finds and reads files.

use std::fs;
use std::io::{self, Read};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use super::Load;
use crate::Node;
use crate::finding::{Unplaced, Where};
use crate::place::Source;
use crate::read::{self, Mark};

/// The largest file that is read.
const LARGEST: u64 = 64 << 20;

/// The names and extensions of a main file in a folder, first come, first taken.
const NAMES: [&str; 4] = ["main", "sluice", "g3proxy", "g3fcgen"];
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "conf"];

impl Load {
    /// The main file itself, looked for if a folder is given.
    pub(super) fn main_file(&mut self, given: &FsPath) -> Option<PathBuf> {
        if !given.is_dir() {
            return Some(given.to_owned());
        }
        let names = NAMES
            .iter()
            .flat_map(|name| EXTENSIONS.map(|extension| format!("{name}.{extension}")));
        let found = names.map(|name| given.join(name)).find(|path| path.is_file());
        if found.is_none() {
            let message = "this folder has no main file: `main.yaml`, `main.yml` or `main.conf`".to_owned();
            self.file_error(given.to_owned(), message);
        }
        found
    }

    /// Reads the documents of a file that messages show as `path`; what is wrong with it is recorded.
    pub(super) fn read_file(&mut self, real: &FsPath, path: PathBuf) -> Option<(Arc<Source>, Vec<Node>)> {
        let bytes = match read_bounded(real) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.file_error(path, format!("cannot be read: {}", plain(&error)));
                return None;
            }
        };
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let before = String::from_utf8_lossy(error.as_bytes().get(..good).unwrap_or_default()).into_owned();
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                self.text_error(path, Mark { line, column }, "this byte is not UTF-8".to_owned());
                return None;
            }
        };
        // A mark that some editors put in front (YAML 1.2 §5.2).
        let text = match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        };
        let (documents, errors) = read::yaml(&text);
        let source = Arc::new(Source { path, text });
        self.sources.push(Arc::clone(&source));
        for error in errors {
            self.errors.push(Unplaced {
                source: Arc::clone(&source),
                spot: error.mark.map_or(Where::File, Where::Mark),
                path: String::new(),
                message: error.message,
                help: None,
            });
        }
        Some((source, documents))
    }

    fn text_error(&mut self, path: PathBuf, mark: Mark, message: String) {
        let source = Arc::new(Source {
            path,
            text: String::new(),
        });
        self.sources.push(Arc::clone(&source));
        self.errors.push(Unplaced {
            source,
            spot: Where::Mark(mark),
            path: String::new(),
            message,
            help: None,
        });
    }
}

fn read_bounded(path: &FsPath) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("the file is larger than 64 MiB"));
    }
    Ok(bytes)
}

/// An I/O error without its number.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}
