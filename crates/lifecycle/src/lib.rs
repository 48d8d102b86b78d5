//! The life of a daemon, the same for all of them: flags, configuration, logs, control socket, readiness, reload,
//! stop and exit code.
//!
//! A daemon's `main` is `sluice_lifecycle::run::<Proxyd>()`. What it is, it says by implementing [`Daemon`]; what it
//! gets, stands in [`Context`]. [`Tasks`] is the only way to spawn, so that a stop knows what it waits for, and
//! [`Drain`] how long. `examples/minimal.rs` is the smallest daemon.
//!
//! The order of a life: arguments; configuration (`-t`, `-g` end here); detach (`-d`) before any thread; process log;
//! runtime directory and lock; event logs, metrics, control sockets; [`Daemon::start`]; ready; signals and orders;
//! waiting, drain ([`Daemon::stop`]); flush; exit code. No data-plane code belongs here.

mod args;
mod config;
mod conversation;
mod daemon;
mod data_socket;
mod datagram;
mod drain;
mod graph;
mod life;
mod lock;
mod methods;
mod notify;
mod panics;
mod reload;
mod run;
mod schema;
mod shutdown;
mod signals;
mod sockets;
mod supervise;
mod tasks;

pub use args::Args;
pub use config::{RuntimeConfig, WorkerConfig};
pub use conversation::{Step, Terms, converse};
pub use daemon::{Context, Daemon, schema_of};
pub use data_socket::{DataSocket, Peer};
pub use datagram::next_datagram;
pub use drain::Drain;
pub use graph::{Graph, GraphFormat, Node, NodeKind};
pub use run::run;
pub use sluice_control::SocketFile;
pub use sockets::ActivatedSockets;
pub use tasks::Tasks;
