//! Datagrams in batches (`recvmmsg(2)`, `sendmmsg(2)`), and UDP sockets with options.
//!
//! A [`Receiver`] and a [`Sender`] own the tables that the kernel reads and writes, so that a batch needs no allocation;
//! one of each serves all sockets of a thread. Neither blocks: `WouldBlock` is the caller's affair.

mod message;
mod receive;
mod send;
mod socket;

pub use receive::{Received, Receiver};
pub use send::{Outgoing, Sender};
pub use socket::{UdpBind, UdpOptions, connect};

use std::net::IpAddr;

/// The most datagrams in one batch: the kernel takes no more (`UIO_MAXIOV`).
pub const MOST: usize = 1024;

/// The end of a datagram's way that is ours: where it was sent to, or where an answer shall come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    /// An address of this host.
    pub ip: IpAddr,
    /// The number of the interface that it came in on, 0 if unknown. For answers it matters in IPv6 link-local networks
    /// only.
    pub interface: u32,
}

#[cfg(test)]
mod tests;
