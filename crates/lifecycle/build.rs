//! Tells the crate what it is built for and with, for `-V -vv`.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["TARGET", "HOST", "PROFILE"] {
        let value = env::var(name).unwrap_or_default();
        println!("cargo::rustc-env=SLUICE_BUILD_{name}={value}");
    }
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .map(|o| o.stdout)
        .unwrap_or_default();
    println!(
        "cargo::rustc-env=SLUICE_BUILD_RUSTC={}",
        String::from_utf8_lossy(&version).trim()
    );
}
