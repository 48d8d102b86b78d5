//! Answers ICAP requests for trials and tests.

mod daemon;

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_lifecycle::run::<daemon::IcapStub>()
}
