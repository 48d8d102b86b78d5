//! Every file under `broken/` is loaded, and all that is said about it compared with the text beside it.
//!
//! `BLESS=1 cargo test -p sluice-config --test broken` writes the texts; look at them before they are committed.

#[expect(dead_code, reason = "what counts is whether the fields decode")]
mod sample;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What is said about a file, with paths relative to `broken/`.
fn said(main: &Path, folder: &Path) -> String {
    let (_, result) = sample::load(main);
    let Err(errors) = result else {
        return "nothing is wrong\n".to_owned();
    };
    let mut out = format!("{errors}\n");
    for warning in &errors.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    out.replace(&format!("{}/", folder.display()), "")
}

/// The broken files, and the main files of folders that are broken together.
fn cases(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").path());
    let mut cases: Vec<_> = entries
        .filter(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "yml"))
        .collect();
    cases.sort();
    cases
}

#[test]
fn every_broken_file_is_told_all_its_errors() {
    let folder = Path::new("tests/broken");
    let bless = std::env::var_os("BLESS").is_some();
    let cases = cases(folder);
    assert!(cases.len() >= 20, "there are {} broken files", cases.len());
    let mut wrong = String::new();
    for case in cases {
        let now = said(&case, folder);
        let expected = case.with_extension("txt");
        if bless {
            fs::write(&expected, &now).unwrap();
        }
        let before = fs::read_to_string(&expected).unwrap_or_default();
        if now != before {
            let _ = writeln!(wrong, "== {}\n-- expected\n{before}-- said\n{now}", case.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
