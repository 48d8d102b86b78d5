//! ZeroMQ between the daemons, and nothing else that speaks it.
//!
//! - [`Router`], [`Dealer`], [`Publisher`] and [`Subscriber`] are sockets over `ipc://`. Each belongs to one thread, which
//!   asks it without waiting and waits in [`wait`] for all that it waits for. A runtime could wait for a socket's descriptor
//!   (`ZMQ_FD`), but that tells of a change once, for all directions, and only if the socket is asked for its events after
//!   each message that goes either way; [`wait`] looks at levels, so no wake-up is lost. The threads would stay: the one
//!   writes files, which blocks, and the other keeps work off the workers. While nothing happens neither wakes
//!   (no context switch of either in 20 s), so there is nothing to be saved.
//! - [`Sender`] is proxyd's side of what it tells auditd: a bounded queue, a thread, numbered batches that are kept until
//!   they are acknowledged and sent again when auditd is started anew.
//! - [`Recorder`], [`UdpDump`] and [`FlowDump`] are what interception calls: flows, pieces of them, events. [`Recorded`] is a
//!   connection that is recorded as it is used.
//!
//! Messages are those of `sluice_wire::audit`. A socket's file lies in a folder that only its own uid, or a group, may
//! enter: ZeroMQ checks nobody.

mod record;
mod sender;
mod socket;

pub use record::{FlowDump, FlowMeta, Policy, Recorded, Recorder, Side, Sniff, Stalled, UdpDump, UdpDumpStats};
pub use sender::{Full, Position, Sender, SenderConfig, SenderStats};
pub use socket::{BusError, Dealer, Event, Peer, Publisher, Router, Socket, Subscriber, Waker, wait};
