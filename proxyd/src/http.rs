//! HTTP/1 between a client and an upstream: one request after the other on a client's connection, and the tunnels that
//! CONNECT and Upgrade make of it.
//!
//! [`client`] reads requests, [`plan`] decides what each one asks for, [`forward`] exchanges it for a response,
//! [`tunnel`] hands connections over to a relay, [`reply`] says what a client is told when something fails.

pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod forward;
pub(crate) mod headers;
pub(crate) mod plan;
pub(crate) mod pool;
pub(crate) mod reply;
pub(crate) mod tunnel;
