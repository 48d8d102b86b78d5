//! Answers ICAP requests for trials and tests.
//!
//! [`listen`] accepts connections, [`conversation`] serves the requests on one, [`rules`] says what is done with which,
//! [`edit`] makes the heads that are sent back; [`daemon`] ties it together.

mod config;
mod conversation;
mod daemon;
mod edit;
mod listen;
mod rules;
mod stats;

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_lifecycle::run::<daemon::IcapStub>()
}
