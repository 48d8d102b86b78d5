//! Captures and event logs of auditd, as tshark and sluicectl read them.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_testkit::{Group, sluicectl};

/// All captures of a group, in order.
pub fn captures(group: &Group) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(group.dir().join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("capture-"))
        .collect();
    files.sort();
    files
}

/// What tshark reads of these fields in the packets of a file that fit a filter: a row for each.
pub fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-Y", filter, "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(!told.contains("cut short") && !told.contains("corrupt"), "{told}");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The paths of all requests that tshark finds in all captures.
pub fn paths(group: &Group) -> Vec<String> {
    let all = captures(group);
    all.iter()
        .flat_map(|file| tshark(file, "http.request", &["http.request.uri"]))
        .collect()
}

/// Paths: `/0`, `/1` and so on.
pub fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("/{n}")).collect()
}

/// What `sluicectl auditd` prints for a group.
pub async fn ctl(group: &Group, words: &[&str]) -> String {
    let dir = group.runtime_dir();
    let first = ["-C", dir.to_str().unwrap(), "auditd"];
    let exited = sluicectl(first.iter().chain(words)).await;
    assert_eq!(exited.code, Some(0), "{}", exited.stderr);
    exited.stdout
}
