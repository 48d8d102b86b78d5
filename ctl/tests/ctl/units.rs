//! The units of `service/`, as systemd sees them. Nothing is checked where there is no `systemd-analyze`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Each unit with the most exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE: [(&str, u32); 5] = [
    ("sluice-auditd", 10),
    ("sluice-certgend", 10),
    ("sluice-icap-stub", 20),
    ("sluice-proxyd", 20),
    ("sluice-resolverd", 20),
];

fn source() -> PathBuf {
    Path::new("../service/system").canonicalize().unwrap()
}

fn has_systemd() -> bool {
    Command::new("systemd-analyze").arg("--version").output().is_ok()
}

/// The units of the group `default`, with a program that is there in place of each daemon.
fn instances() -> (TempDir, Vec<PathBuf>) {
    let dir = TempDir::new().unwrap();
    let mut units = Vec::new();
    for entry in fs::read_dir(source()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let mut text = fs::read_to_string(source().join(&name)).unwrap();
        for daemon in ["auditd", "certgend", "icap-stub", "proxyd", "resolverd"] {
            text = text.replace(
                &format!("/usr/bin/{daemon} "),
                concat!(env!("CARGO_BIN_EXE_sluicectl"), " "),
            );
        }
        let unit = dir.path().join(name.replace("@.", "@default."));
        fs::write(&unit, text).unwrap();
        units.push(unit);
    }
    (dir, units)
}

#[test]
fn systemd_finds_no_fault_in_them() {
    if !has_systemd() {
        return;
    }
    let (_dir, units) = instances();
    assert_eq!(units.len(), 9);
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .args(&units)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.is_empty(), "{told}");
}

#[test]
fn the_daemons_are_not_more_exposed_than_they_were() {
    if !has_systemd() {
        return;
    }
    let (dir, _) = instances();
    for (unit, most) in EXPOSURE {
        let mut command = Command::new("systemd-analyze");
        command.args([
            "security",
            "--offline=true",
            "--no-pager",
            &format!("--threshold={most}"),
        ]);
        let output = command
            .arg(dir.path().join(format!("{unit}@default.service")))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout)
            .lines()
            .last()
            .unwrap_or_default()
            .to_owned();
        assert!(
            output.status.success(),
            "{unit}: {told} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
