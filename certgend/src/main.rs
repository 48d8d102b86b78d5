//! Mints certificates for TLS interception.

mod daemon;

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_lifecycle::run::<daemon::Certgend>()
}
