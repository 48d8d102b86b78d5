//! Mints certificates for TLS interception.

use std::process::ExitCode;

fn main() -> ExitCode {
    certgend::run()
}
