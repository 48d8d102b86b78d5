//! What a daemon says about itself: process log, event logs and metrics.
//!
//! - [`log`]: the process log, free text about start, reload and errors. Use the macros [`error!`], [`warn!`],
//!   [`notice!`], [`info!`], [`debug!`] and [`trace!`] with slog's syntax.
//! - [`EventLogs`]: the structured task, escape, resolve and audit records. A task moves a plain [`Record`] into a
//!   bounded queue; a writer thread formats it for journald, syslog, fluentd or standard output. [`keys`] names the
//!   fields, [`value`] renders ids, times and durations.
//! - [`metrics`]: objects register a [`metrics::Source`]; one thread sends the numbers to StatsD, another answers
//!   OpenMetrics scrapes with the same ones.
//!
//! Nothing here ever blocks a task: queues are bounded and what is dropped is counted. This crate alone names cadence
//! and the slog drains. Start with [`EventLogs::start`], [`metrics::start`] and [`log::init`].

// The macros of the process log come first: the modules below use them.
#[macro_use]
mod macros;

pub mod event;
pub mod keys;
pub mod log;
pub mod metrics;
mod naming;
mod render;
mod target;
mod transport;
pub mod value;

#[doc(hidden)]
pub use slog;

pub use event::{EventLogger, EventLogs, LogConfig, LogKind, LogType, Record};
pub use naming::{Identity, Naming, UnknownNaming};
