//! What the daemon's own section may say.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::{Command, Output};

fn check(main: &str) -> Output {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("main.yml");
    fs::write(&file, main).unwrap();
    Command::new(env!("CARGO_BIN_EXE_auditd"))
        .arg("-t")
        .arg("-c")
        .arg(file)
        .output()
        .unwrap()
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (yaml, told) in [
        ("directory: {}", "auditd.directory: expected the path of a file"),
        ("format: pcap", "auditd.format"),
        ("rotate: {size: 1 parsec}", "auditd.rotate.size"),
        ("keep: {number: 5}", "number"),
        ("fsync: always", "auditd.fsync: expected a time"),
        ("listen: nowhere", "auditd.listen"),
        ("no_such_key: 1", "no_such_key"),
    ] {
        let output = check(&format!("auditd:\n  {yaml}\n"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{yaml}: {said}");
        assert!(said.contains("main.yml:2:") && said.contains(told), "{yaml}: {said}");
    }
}

#[test]
fn a_file_without_the_section_and_one_with_common_keys_are_good() {
    for main in [
        "{}",
        "auditd:",
        "auditd: {directory: a/b, format: tcp, rotate: {size: 1MiB, age: 5m}, keep: {size: 1GiB, age: 7d, files: 10}}",
        "auditd: {compress: none, fsync: 0s, live: on, listen: 127.0.0.1:5555}",
        "auditd: {log: stdout, stat: {prefix: x}, runtime: {task_wait_timeout: 1s}}",
    ] {
        let output = check(main);
        assert!(
            output.status.success(),
            "{main}: {}",
            String::from_utf8(output.stderr).unwrap()
        );
    }
}
