//! The real `sluicectl` with real daemons, real sockets and real signals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commands;
mod group;
mod token;
mod units;
mod up;
