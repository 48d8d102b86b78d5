//! Every message that passes between two daemons, without I/O.
//!
//! Both sides of a boundary and the fuzz targets call the same functions: `take_*` reads from the front of a buffer or
//! from one whole message, `put_*` appends to a buffer. Nothing here opens a socket, reads a clock or spawns a task.
//!
//! - [`audit`]: what proxyd tells auditd, in batches that are acknowledged.
//! - [`dns`]: what proxyd asks resolverd, and what other programs ask of its `listen` addresses.
//! - [`dump`]: pieces of decrypted streams, as any reader of Wireshark's exported PDUs takes them.
//! - [`mint`]: the certificates that proxyd asks certgend for, or another generator.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::indexing_slicing))]

pub mod audit;
mod cursor;
pub mod dns;
pub mod dump;
pub mod mint;
mod msgpack;
