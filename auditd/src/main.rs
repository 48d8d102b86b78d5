//! Takes stream dumps and audit events.

mod daemon;

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_lifecycle::run::<daemon::Auditd>()
}
