//! The process log: free text about start, reload and errors, with fields.
//!
//! [`init`] once in `main`; before it, and after its [`Guard`] is dropped, nothing is written. Records go through a
//! bounded queue to a thread of their own; of what does not fit, the number is reported.

mod bridge;

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use slog::{Drain, KV as _, Level, Logger, Never, OwnedKVList, Record};
use slog_async::{Async, AsyncGuard, OverflowStrategy};

pub use crate::{debug, error, info, notice, trace, warn};

use crate::event::{Facility, Header, JournalConfig};
use crate::render::human::Human;
use crate::render::syslog::{Form, Syslog};
use crate::render::{Event, Severity, journal};
use crate::transport::{Datagrams, Target};
use crate::value::Timestamp;

/// Tag of a record that is written whatever the verbosity; see [`notice!`](crate::notice).
pub const NOTICE: &str = "notice";

/// Records that wait for the writer.
const QUEUE: usize = 1024;

static LEVEL: AtomicU8 = AtomicU8::new(0);
static ROOT: OnceLock<Logger> = OnceLock::new();

/// How the process log is written.
#[derive(Clone, Debug)]
pub struct ProcessLog {
    /// How often `-v` was given: 0 warnings, 1 info, 2 debug, more trace.
    pub verbosity: u8,
    /// Where it goes.
    pub sink: Sink,
    /// The name under which journald and syslog file it.
    pub ident: String,
}

/// Where the process log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// journald: `-s`
    Journal,
    /// Standard error, for people: the default
    Stderr,
    /// The system's syslog: `-d`
    Syslog,
}

/// Ends the process log when dropped, after writing what is queued. Keep it until the end of `main`.
#[must_use = "the process log ends when this is dropped"]
pub struct Guard {
    queue: Option<AsyncGuard>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.queue.is_some() {
            LEVEL.store(0, Ordering::Relaxed);
        }
    }
}

/// Starts the process log, once in a process: a second call changes nothing and its guard does nothing.
///
/// From verbosity 2 on, the records of libraries (by the `log` and `tracing` crates) are written too.
///
/// Starts a thread, so a daemon forks before it.
pub fn init(config: &ProcessLog) -> Guard {
    let output = Output::new(config);
    let (queue, guard) = Async::new(ProcessDrain(Mutex::new(output)))
        .chan_size(QUEUE)
        .overflow_strategy(OverflowStrategy::DropAndReport)
        .thread_name("process-log".to_owned())
        .build_with_guard();
    let root = Logger::root(queue.ignore_res(), slog::o!());
    if ROOT.set(root).is_err() {
        return Guard { queue: None };
    }
    let level = match config.verbosity {
        0 => Level::Warning,
        1 => Level::Info,
        2 => Level::Debug,
        _ => Level::Trace,
    };
    LEVEL.store(number(level), Ordering::Relaxed);
    bridge::install(level);
    Guard { queue: Some(guard) }
}

/// Whether records of that level are written: one relaxed load.
#[inline]
pub fn enabled(level: Level) -> bool {
    number(level) <= LEVEL.load(Ordering::Relaxed)
}

/// The level up to which records are written, notices aside.
pub fn level() -> Level {
    let number = LEVEL.load(Ordering::Relaxed).into();
    Level::from_usize(number).unwrap_or(Level::Critical)
}

/// Sets the level while the daemon runs. Records of libraries keep to the verbosity of the start.
pub fn set_level(level: Level) {
    if ROOT.get().is_some() {
        LEVEL.store(number(level), Ordering::Relaxed);
    }
}

fn number(level: Level) -> u8 {
    match level {
        Level::Critical => 1,
        Level::Error => 2,
        Level::Warning => 3,
        Level::Info => 4,
        Level::Debug => 5,
        Level::Trace => 6,
    }
}

/// The logger behind the macros.
pub fn root() -> &'static Logger {
    static NOWHERE: OnceLock<Logger> = OnceLock::new();
    ROOT.get()
        .unwrap_or_else(|| NOWHERE.get_or_init(|| Logger::root(slog::Discard, slog::o!())))
}

struct ProcessDrain(Mutex<Output>);

impl Drain for ProcessDrain {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let fields = |out: &mut dyn slog::Serializer| {
            record.kv().serialize(record, out)?;
            values.serialize(record, out)
        };
        let (severity, level) = match record.level() {
            _ if record.tag() == NOTICE => (Severity::Notice, "NOTE"),
            Level::Critical => (Severity::Critical, "CRIT"),
            Level::Error => (Severity::Error, "ERRO"),
            Level::Warning => (Severity::Warning, "WARN"),
            Level::Info => (Severity::Info, "INFO"),
            Level::Debug => (Severity::Debug, "DEBG"),
            Level::Trace => (Severity::Debug, "TRCE"),
        };
        let event = Event {
            at: Timestamp::now(),
            severity,
            level,
            log_type: None,
            position: Some((record.file(), record.line())),
            message: record.msg(),
            fields: &fields,
        };
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        output.write(&event);
        Ok(())
    }
}

/// Encoding and sending of the process log. Whoever cannot be told is not told: there is no other place to say so.
struct Output {
    buffer: Vec<u8>,
    kind: Kind,
}

enum Kind {
    Journal { ident: String, socket: Datagrams },
    Stderr(Human),
    Syslog { form: Syslog, socket: Datagrams },
}

impl Output {
    fn new(config: &ProcessLog) -> Self {
        match config.sink {
            Sink::Journal => Self::journal(&config.ident, JournalConfig::default().target()),
            Sink::Stderr => Self {
                buffer: Vec::new(),
                kind: Kind::Stderr(Human::new(io::stderr().is_terminal())),
            },
            Sink::Syslog => Self::syslog(&config.ident, crate::event::system_syslog()),
        }
    }

    fn journal(ident: &str, target: Target) -> Self {
        Self {
            buffer: Vec::new(),
            kind: Kind::Journal {
                ident: ident.to_owned(),
                socket: Datagrams::patient(target),
            },
        }
    }

    fn syslog(ident: &str, target: Target) -> Self {
        let form = Form {
            facility: Facility::Daemon,
            header: Header::Rfc3164,
            cee: None,
            hostname: None,
            append_report_ts: false,
            ident: ident.to_owned(),
            pid: std::process::id(),
        };
        Self {
            buffer: Vec::new(),
            kind: Kind::Syslog {
                form: Syslog::new(form),
                socket: Datagrams::patient(target),
            },
        }
    }

    fn write(&mut self, event: &Event<'_>) {
        let Self { buffer, kind } = self;
        buffer.clear();
        let encoded = match kind {
            Kind::Journal { ident, .. } => journal::entry(event, ident, buffer),
            Kind::Stderr(human) => human.process(event, buffer),
            Kind::Syslog { form, .. } => form.message(event, buffer),
        };
        if encoded.is_err() {
            return;
        }
        let _ = match kind {
            Kind::Journal { socket, .. } | Kind::Syslog { socket, .. } => socket.send(buffer),
            Kind::Stderr(_) => io::stderr().lock().write_all(buffer),
        };
    }
}

#[cfg(test)]
mod tests;
