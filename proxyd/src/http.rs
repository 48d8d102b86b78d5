//! HTTP/1 between a client and an upstream: one request after the other on a client's connection, and the tunnels that
//! CONNECT and Upgrade make of it.
//!
//! [`plan`] decides what each one asks for, [`forward`] finds it an upstream, [`exchange`] gets the response,
//! [`adapt`] does the same where ICAP services have a say, [`connect`] makes tunnels, [`upload`] is a request on its way beside
//! the wait for its answer, [`reply`] says what a client is told when something fails.

pub(crate) mod adapt;
pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod connect;
pub(crate) mod exchange;
pub(crate) mod forward;
pub(crate) mod headers;
pub(crate) mod plan;
pub(crate) mod pool;
pub(crate) mod reply;
pub(crate) mod upload;
