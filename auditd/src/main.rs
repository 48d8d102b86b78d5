//! Takes stream dumps and audit events.

mod config;
mod control;
mod daemon;
mod export;
mod frames;
mod har;
mod intake;
mod live;
mod pcapng;
mod recent;
mod search;
mod stats;
mod store;
mod writer;

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_lifecycle::run::<daemon::Auditd>()
}
