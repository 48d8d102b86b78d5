//! The control socket of a daemon: JSON-RPC 2.0, one object a line, over a Unix stream socket.
//!
//! What it does: [`Listener::bind`] makes the socket (and refuses to remove what is not its own), [`serve`] answers
//! on it from a table of [`Methods`], [`Client`] calls. The peer's uid is checked on both sides. Lines, nesting,
//! connections and waiting times are bounded; a slow or silent client costs one small task and nothing else.
//!
//! What it does not: know any method but `rpc.describe`. The common methods of all daemons live in `lifecycle`,
//! each daemon adds its own. The protocol as the outside sees it is written down in `doc/control-protocol.md`.
//!
//! Where to start: [`Methods::add`], then [`serve`]; for the other side [`Client::connect`].

mod client;
mod error;
mod listener;
mod listening;
mod methods;
pub mod paths;
#[cfg(any(test, feature = "cases"))]
#[doc(hidden)]
pub mod properties;
mod request;
mod server;
mod socket_file;
#[cfg(test)]
mod tests;

pub use client::{CallError, Client, ConnectError};
pub use error::{Code, Error};
pub use listener::{BindError, Listener};
pub use listening::listening;
pub use methods::{Description, Methods, NoParams};
pub use server::{Limits, Peers, serve};
pub use socket_file::SocketFile;

/// Version of the protocol that this crate speaks, told by the method `version`.
///
/// Within one version only methods and members are added; a client skips what it does not know.
pub const PROTOCOL: u32 = 1;

/// Oldest version that a peer may speak to be understood.
pub const PROTOCOL_MIN: u32 = 1;
