//! What the daemon's own section may say.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::{Command, Output};

fn check(main: &str) -> Output {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("main.yml");
    fs::write(&file, main).unwrap();
    Command::new(env!("CARGO_BIN_EXE_certgend"))
        .arg("-t")
        .arg("-c")
        .arg(file)
        .output()
        .unwrap()
}

#[test]
fn keys_of_what_is_not_built_are_refused_by_name() {
    for key in ["allow_uid", "backend", "mint_rate", "never_mint"] {
        let output = check(&format!("certgend:\n  {key}: {{}}\n"));
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert!(
            told.contains("main.yml:2:") && told.contains(&format!("`{key}` is not built yet")),
            "{told}"
        );
    }
    let output = check("certgend: {no_such_key: 1}\n");
    assert!(String::from_utf8(output.stderr).unwrap().contains("no_such_key"));
}

#[test]
fn a_file_without_the_section_and_one_with_common_keys_are_good() {
    for main in [
        "{}",
        "certgend:",
        "certgend: {log: stdout, stat: {prefix: x}, runtime: {task_wait_timeout: 1s}}",
    ] {
        let output = check(main);
        assert!(
            output.status.success(),
            "{main}: {}",
            String::from_utf8(output.stderr).unwrap()
        );
    }
}
