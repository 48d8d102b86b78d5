//! Event logs: structured records that tasks hand over and writer threads format.
//!
//! [`EventLogger::log`] moves a plain struct into a bounded queue: one allocation, no formatting, no lock and no system
//! call, but for a wake-up when the queue passes half. Writers look every 50 ms. Loggers whose configuration is the same
//! share a writer (and its connection); each logger has a queue of its own, so that a busy server cannot push out the
//! records of a quiet one.

mod channel;
mod config;
mod driver;
mod fluentd;
mod tap;
mod writer;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use crate::render::syslog::{Facility, Header};
pub use crate::target::DatagramTarget;
use channel::{Channel, Stamped};
pub(crate) use config::system_syslog;
pub use config::{
    DriverConfig, FluentdConfig, JournalConfig, LogConfig, LoggerConfig, StdoutConfig, StdoutFormat, SyslogConfig,
};
pub use tap::{FieldValue, Tap, fields};
use writer::Writer;

use sluice_config::value::ResolveAddrError;

use crate::metrics::Registry;
use crate::naming::Identity;
use crate::value::Timestamp;

/// Which part of the `log` section configures a logger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogKind {
    /// Inspect, intercept and mint records.
    Audit,
    /// Escape records.
    Escape,
    /// Resolve records.
    Resolve,
    /// Task records.
    Task,
}

/// The `log_type` of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogType {
    /// An attempt to reach the remote failed.
    Escape,
    /// A protocol was recognised.
    Inspect,
    /// Something happened on an intercepted connection.
    Intercept,
    /// A certificate was made.
    Mint,
    /// A query failed.
    Resolve,
    /// A task changed its state or ended.
    Task,
}

impl LogType {
    /// The text in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Escape => "Escape",
            Self::Inspect => "Inspect",
            Self::Intercept => "Intercept",
            Self::Mint => "Mint",
            Self::Resolve => "Resolve",
            Self::Task => "Task",
        }
    }
}

/// One event, as plain data: the writer calls [`slog::KV::serialize`] for the fields and `message` for the text.
///
/// The fields every record has (`daemon_name`, `pid`, `log_type`) are added by the writer.
pub trait Record: slog::KV + Send + 'static {
    /// The `log_type`. A logger shared by several objects takes records of any type.
    fn kind(&self) -> LogType;

    /// Writes the message: wording for people, for errors the error's text; may be nothing.
    ///
    /// # Errors
    /// What the formatter answers.
    fn message(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// Why event logs could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The receiver's name does not lead to an address.
    #[error("the receiver of a log has no address")]
    Address(#[from] ResolveAddrError),
    /// A TLS client could not be made of its configuration.
    #[error("`tls_client` of a log cannot be used")]
    Tls(#[from] sluice_tls::BuildError),
    /// A writer thread could not be started.
    #[error("start of a log writer thread failed")]
    Thread(#[source] std::io::Error),
}

/// All event logs of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct EventLogs {
    shared: Arc<Shared>,
}

struct Shared {
    identity: Identity,
    registry: Registry,
    /// By kind; `None` where records are discarded. Kinds configured alike share a writer.
    writers: [Option<Arc<Writer>>; 4],
    /// Who hears of audit records, too.
    tap: OnceLock<Arc<dyn Tap>>,
}

impl EventLogs {
    /// Starts the writers that `config` asks for; none where all is discarded.
    ///
    /// Receivers are not contacted before there is something to tell them, so none has to be there.
    ///
    /// # Errors
    /// [`StartError`] if a receiver's name does not resolve, a TLS file is unusable or the system refuses a thread.
    pub fn start(config: &LogConfig, identity: &Identity, registry: &Registry) -> Result<Self, StartError> {
        let mut started: Vec<(&LoggerConfig, Arc<Writer>)> = Vec::new();
        let mut writer = |kind| -> Result<Option<Arc<Writer>>, StartError> {
            let config = config.of(kind);
            if matches!(config.driver, DriverConfig::Discard) {
                return Ok(None);
            }
            if let Some((_, writer)) = started.iter().find(|(known, _)| *known == config) {
                return Ok(Some(Arc::clone(writer)));
            }
            let writer = Writer::start(config, identity)?;
            started.push((config, Arc::clone(&writer)));
            Ok(Some(writer))
        };
        Ok(Self {
            shared: Arc::new(Shared {
                writers: [
                    writer(LogKind::Audit)?,
                    writer(LogKind::Escape)?,
                    writer(LogKind::Resolve)?,
                    writer(LogKind::Task)?,
                ],
                tap: OnceLock::new(),
                identity: identity.clone(),
                registry: registry.clone(),
            }),
        })
    }

    /// Event logs that discard everything.
    pub fn discard() -> Self {
        let identity = Identity::of_process("", crate::Naming::default());
        Self {
            shared: Arc::new(Shared {
                identity,
                registry: Registry::default(),
                writers: [const { None }; 4],
                tap: OnceLock::new(),
            }),
        }
    }

    /// Lets `tap` hear of the audit records of all loggers that are made from now on; the first one stays.
    pub fn tap_audit(&self, tap: Arc<dyn Tap>) {
        let _ = self.shared.tap.set(tap); // there is one already
    }

    /// The logger of that name, made when it is not there: `lt-<server>`, `le-<escaper>`, `lr-<resolver>`,
    /// `la-<auditor>`, or the `shared_logger` with the same prefix. It is forgotten once nobody holds it.
    pub fn logger(&self, kind: LogKind, name: &str) -> EventLogger {
        let writer = match kind {
            LogKind::Audit => &self.shared.writers[0],
            LogKind::Escape => &self.shared.writers[1],
            LogKind::Resolve => &self.shared.writers[2],
            LogKind::Task => &self.shared.writers[3],
        };
        EventLogger {
            open: writer.as_ref().map(|writer| writer.logger(name, &self.shared.registry)),
            tap: (kind == LogKind::Audit)
                .then(|| self.shared.tap.get().map(Arc::clone))
                .flatten(),
        }
    }

    /// Writes out what is queued and ends the writers; what is not written within `deadline` is counted as dropped.
    ///
    /// Records that come later are dropped and counted. Returns whether everything was written. Blocks: call it last,
    /// or on a thread that may block.
    pub fn shutdown(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        let writers = self.shared.writers.iter().flatten();
        for writer in writers.clone() {
            writer.close(until);
        }
        // Each is waited for, whatever came of the one before.
        writers.filter(|writer| !writer.wait_closed(until)).count() == 0
    }

    /// Who writes these logs.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }
}

impl fmt::Debug for EventLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLogs")
            .field("identity", &self.shared.identity)
            .finish_non_exhaustive()
    }
}

/// Where one object's records go. Cheap to clone.
#[derive(Clone)]
pub struct EventLogger {
    open: Option<Handle>,
    tap: Option<Arc<dyn Tap>>,
}

/// A held logger; the token tells the writer when the last one is gone.
#[derive(Clone)]
struct Handle {
    channel: Arc<Channel>,
    _token: Arc<()>,
}

impl EventLogger {
    /// A logger that discards everything.
    pub const fn discard() -> Self {
        Self { open: None, tap: None }
    }

    /// Whether records go anywhere; build none where this is false.
    #[inline]
    pub fn enabled(&self) -> bool {
        self.open.is_some() || self.tap().is_some()
    }

    fn tap(&self) -> Option<&dyn Tap> {
        self.tap.as_deref().filter(|tap| tap.is_open())
    }

    /// Records that wait for the writer now.
    pub fn queued(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.channel.len())
    }

    /// Queues `record`. Never blocks: with the queue full, or after shutdown, the record is dropped and counted.
    #[inline]
    pub fn log(&self, record: impl Record) {
        if let Some(tap) = self.tap() {
            tap.take(Timestamp::now(), &record);
        }
        let Some(open) = &self.open else { return };
        open.channel.offer(|| {
            Box::new(Stamped {
                at: Timestamp::coarse(),
                record,
            })
        });
    }

    /// Queues the record that `record` makes, unless it would be discarded or the queue is full.
    #[inline]
    pub fn log_with<R: Record>(&self, record: impl FnOnce() -> R) {
        if self.tap().is_some() {
            return self.log(record());
        }
        let Some(open) = &self.open else { return };
        open.channel.offer(|| {
            Box::new(Stamped {
                at: Timestamp::coarse(),
                record: record(),
            })
        });
    }
}

impl fmt::Debug for EventLogger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.open {
            Some(open) => write!(f, "EventLogger({})", open.channel.name()),
            None => f.write_str("EventLogger(discard)"),
        }
    }
}

/// Locks, also after a panic elsewhere: what these locks guard is never left half-changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
