//! Streams, buffers, coarse timers and the machinery that moves bytes between two connections.
//!
//! - [`Stream`]: a TCP connection, plain or behind TLS.
//! - [`pump`]: one direction of a message body or a tunnel; copies small amounts through a scratch buffer of the
//!   thread and goes over to `splice(2)` when it gets long.
//! - [`relay`]: a tunnel, two pumps with half-close and an idle check.
//! - [`throttle`]: speed limits of one connection and of many together; limits of how often something may happen.
//! - [`cork`]: a stream whose small writes leave together.
//! - [`metered`]: a stream for libraries that move its bytes themselves, with the same limits.
//! - [`udp`]: the same for datagrams.
//! - [`wheel`]: timers in steps of 100 ms, for the many time-outs that hardly ever fire.
//! - [`buffer`]: read buffers that go back to their thread's pool when they are empty.
//!
//! An idle tunnel owns no buffer and no pipe. Nothing here knows HTTP, configuration or logs.

pub mod buffer;
pub mod cork;
pub mod metered;
mod pipes;
pub mod pump;
pub mod relay;
mod scratch;
mod stream;
pub mod throttle;
pub mod udp;
pub mod wheel;

pub use stream::{InsideIo, SecureIo, Stream};
