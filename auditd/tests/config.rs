//! What the daemon's own section may say.

use sluice_testkit::{Exited, check_config};

fn check(main: &str) -> Exited {
    check_config(env!("CARGO_BIN_EXE_auditd"), main)
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
        let checked = check(&format!("auditd:\n  {yaml}\n"));
        let said = checked.stderr;
        assert_eq!(checked.code, Some(78), "{yaml}: {said}");
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
        let checked = check(main);
        assert_eq!(checked.code, Some(0), "{main}: {}", checked.stderr);
    }
}
