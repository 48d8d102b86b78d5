//! SOCKS between a client and an upstream.
//!
//! [`negotiation`] goes from the first byte to the request, [`connect`] opens the tunnel that it asks for, [`udp`] relays
//! datagrams, [`reply`] says what a client is told when something fails.

pub(crate) mod connect;
pub(crate) mod negotiation;
pub(crate) mod reply;
pub(crate) mod udp;
