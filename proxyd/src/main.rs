//! proxyd, the data plane of Sluice.
//!
//! A connection's way through it: [`listen`] accepts, a [`server`] speaks the client's protocol, an [`escaper`] opens
//! the upstream by way of [`dial`] and [`resolve`], and [`http`], [`socks`] or a relay of `sluice-io` moves the bytes. A [`task`]
//! counts and logs each piece of work. [`objects`] builds all of it from [`config`]; [`daemon`] starts, reloads and
//! stops it.

use std::process::ExitCode;

mod audit;
mod client;
mod config;
mod connect;
mod control;
mod daemon;
mod dial;
mod error;
mod escaper;
mod haproxy;
mod http;
mod icap;
mod listen;
mod objects;
mod peer;
mod record;
mod resolve;
mod resolve_stats;
mod server;
mod socks;
mod stats;
mod task;
mod tls_server;
mod traffic;
mod tunnel;
mod udp;
mod user;
mod worker;

fn main() -> ExitCode {
    sluice_lifecycle::run::<daemon::Proxyd>()
}
