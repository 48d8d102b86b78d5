//! certgend mints the certificates that a proxy shows to its clients in place of the upstream's.
//!
//! A request comes in through [`serve`]. [`mint`] looks whether it may be answered, and whether it was before
//! ([`cache`]); else a thread makes a [`plan`] of what the certificate shall say, takes one of the [`keys`], and
//! [`sign`]s it with the [`ca`]. [`daemon`] ties it together.
//!
//! A library only for the sake of its fuzz target: what an upstream shows is read here.

mod ca;
mod cache;
mod config;
mod daemon;
mod keys;
mod mint;
mod never;
mod plan;
#[cfg(any(test, feature = "cases"))]
#[doc(hidden)]
pub mod properties;
mod rate;
mod record;
mod serve;
mod sign;
mod stats;

use std::process::ExitCode;

/// The whole `main` of the daemon, and of `certgend ca`, which needs none.
pub fn run() -> ExitCode {
    match ca::command(std::env::args_os()) {
        Some(done) => done,
        None => sluice_lifecycle::run::<daemon::Certgend>(),
    }
}
