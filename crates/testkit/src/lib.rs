//! Starts real daemons and peers for tests.
//!
//! A test is a few lines of what happens; everything else is here, and everything here cleans up after itself when it is
//! dropped, whether the test passed or not:
//!
//! - [`Daemon`] runs one of our binaries, found beside the test's own executable; [`Group`] is the configuration and the
//!   runtime directory that several of them share. In its YAML `%http%` stands for a free port of that name.
//! - [`Origin`] answers for the far side: a script of your own, an echo, HTTP; [`UdpEcho`] over UDP. [`Nginx`], [`Httpbin`], [`Hypercorn`] and [`Dnsmasq`] are
//!   other people's.
//! - [`curl()`], [`Wire`] and [`UdpAssociation`] ask for the near side; [`Ca`] makes certificates, [`Statsd`] takes
//!   metrics.
//! - [`assert_eventually!`] waits for what cannot be awaited. Nothing sleeps, and all waiting ends.
//!
//! A wrong use panics: to a test that is a failure with a reason.

#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a panic here is the failure of a test"
)]

mod ca;
mod control;
mod curl;
mod daemon;
mod datagrams;
mod dns;
mod eventually;
mod group;
mod nginx;
mod origin;
mod ports;
mod process;
mod python;
mod statsd;
mod wire;

pub use ca::{Ca, Leaf};
pub use control::{Ctl, CtlError};
pub use curl::{Curl, CurlAnswer, curl};
pub use daemon::{Daemon, Starter, Stopped};
pub use datagrams::{UdpAssociation, UdpEcho, udp_header, udp_header_of_name};
pub use dns::Dnsmasq;
#[doc(hidden)]
pub use eventually::Patience;
pub use group::Group;
pub use nginx::Nginx;
pub use origin::{Conn, Origin, Request};
pub use ports::Port;
pub use process::{Exited, Process, binary, check_config, sluicectl};
pub use python::{Httpbin, Hypercorn, python};
pub use statsd::{Statsd, StatsdLine};
pub use wire::{Answer, Wire};

#[cfg(test)]
mod tests;
