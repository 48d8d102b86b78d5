//! certgend mints the certificates that a proxy shows to its clients in place of the upstream's.
//!
//! A request comes in through [`serve`]. [`mint`] looks whether it may be answered, and whether it was before
//! ([`cache`]); else a thread makes a [`plan`] of what the certificate shall say, takes one of the [`keys`], and
//! [`sign`]s it with the [`ca`]. [`daemon`] ties it together.

mod ca;
mod cache;
mod config;
mod daemon;
mod keys;
mod mint;
mod never;
mod plan;
mod rate;
mod record;
mod serve;
mod sign;
mod stats;

use std::process::ExitCode;

fn main() -> ExitCode {
    match ca::command(std::env::args_os()) {
        Some(done) => done,
        None => sluice_lifecycle::run::<daemon::Certgend>(),
    }
}
