//! Where a writer's records go: encoding, I/O and the counting of what came of each record.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::StartError;
use super::channel::{Drop, Stats};
use super::config::{DriverConfig, LoggerConfig, StdoutFormat};
use super::fluentd::Fluentd;
use crate::naming::Identity;
use crate::render::human::Human;
use crate::render::syslog::Syslog;
use crate::render::{Event, journal, json};
use crate::transport::{Datagrams, is_too_long};

/// Bytes gathered for standard output before they are written in one call.
const STDOUT_BUFFER: usize = 64 * 1024;

pub(super) struct Driver {
    kind: Kind,
    errors: IoErrors,
}

enum Kind {
    Discard,
    Fluentd(Box<Fluentd>),
    Journal {
        ident: &'static str,
        socket: Datagrams,
        buffer: Vec<u8>,
    },
    Stdout(Box<Stdout>),
    Syslog {
        form: Syslog,
        socket: Datagrams,
        buffer: Vec<u8>,
    },
}

impl Driver {
    pub(super) fn new(config: &LoggerConfig, identity: &Identity) -> Result<Self, StartError> {
        let kind = match &config.driver {
            DriverConfig::Discard => Kind::Discard,
            DriverConfig::Fluentd(fluentd) => Kind::Fluentd(Box::new(Fluentd::new(fluentd, identity)?)),
            DriverConfig::Journal(journal) => Kind::Journal {
                ident: identity.product.product(),
                socket: Datagrams::patient(journal.target()),
                buffer: Vec::new(),
            },
            DriverConfig::Stdout(stdout) => {
                let terminal = io::stdout().is_terminal();
                Kind::Stdout(Box::new(Stdout::new(stdout.format, terminal, Box::new(io::stdout()))))
            }
            DriverConfig::Syslog(syslog) => Kind::Syslog {
                form: Syslog::new(syslog.form(identity)),
                socket: Datagrams::patient(syslog.target()?),
                buffer: Vec::new(),
            },
        };
        Ok(Self {
            kind,
            errors: IoErrors::new(config.io_error_sampling_offset),
        })
    }

    /// Encodes one record and sends it, or keeps it for [`Driver::settle`].
    pub(super) fn write(&mut self, event: &Event<'_>, stats: &Arc<Stats>) {
        match &mut self.kind {
            Kind::Discard => {}
            Kind::Fluentd(fluentd) => fluentd.write(event, stats, &mut self.errors),
            Kind::Journal { ident, socket, buffer } => {
                buffer.clear();
                if !encode(buffer, stats, |out| journal::entry(event, ident, out)) {
                    return;
                }
                let sent = socket.send(buffer).or_else(|error| {
                    // Too long for a datagram: the journal takes a sealed memory file in its place.
                    match socket.unix() {
                        Some(socket) if is_too_long(&error) => {
                            crate::transport::send_as_memory_file(socket.as_fd(), buffer)
                        }
                        _ => Err(error),
                    }
                });
                account(sent, buffer.len(), stats, &mut self.errors);
            }
            Kind::Stdout(stdout) => stdout.write(event, stats, &mut self.errors),
            Kind::Syslog { form, socket, buffer } => {
                buffer.clear();
                if encode(buffer, stats, |out| form.message(event, out)) {
                    account(socket.send(buffer), buffer.len(), stats, &mut self.errors);
                }
            }
        }
    }

    /// Called after each batch and when idle: sends what is due.
    pub(super) fn settle(&mut self, now: Instant) {
        match &mut self.kind {
            Kind::Discard | Kind::Journal { .. } | Kind::Syslog { .. } => {}
            Kind::Fluentd(fluentd) => fluentd.settle(now, &mut self.errors),
            Kind::Stdout(stdout) => stdout.flush(&mut self.errors),
        }
    }

    /// When [`Driver::settle`] should be called next, if sooner than the next batch.
    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        match &self.kind {
            Kind::Fluentd(fluentd) => fluentd.due_in(now),
            _ => None,
        }
    }

    /// Sends all that is left; what cannot be sent by `until` is counted as lost.
    pub(super) fn close(&mut self, until: Instant) {
        match &mut self.kind {
            Kind::Discard | Kind::Journal { .. } | Kind::Syslog { .. } => {}
            Kind::Fluentd(fluentd) => fluentd.close(until, &mut self.errors),
            Kind::Stdout(stdout) => stdout.flush(&mut self.errors),
        }
    }
}

/// Counts what became of a datagram.
fn account(sent: io::Result<()>, len: usize, stats: &Stats, errors: &mut IoErrors) {
    match sent {
        Ok(()) => stats.passed(len),
        Err(error) if is_too_long(&error) => stats.dropped(Drop::FormatFailed),
        Err(error) => {
            stats.dropped(Drop::PeerUnreachable);
            errors.report(&error);
        }
    }
}

/// Runs an encoder; on failure the buffer is as before and the record counted as lost.
///
/// A panic in a record's own code costs that record, not the writer.
pub(super) fn encode(out: &mut Vec<u8>, stats: &Stats, encoder: impl FnOnce(&mut Vec<u8>) -> slog::Result) -> bool {
    let start = out.len();
    let done = catch_unwind(AssertUnwindSafe(|| encoder(out)));
    if matches!(done, Ok(Ok(()))) {
        return true;
    }
    out.truncate(start);
    stats.dropped(Drop::FormatFailed);
    false
}

/// Reports the first two errors in the process log, then one in 2^n.
#[derive(Debug)]
pub(super) struct IoErrors {
    seen: u64,
    mask: u64,
}

impl IoErrors {
    pub(super) fn new(sampling_offset: u8) -> Self {
        Self {
            seen: 0,
            mask: (1 << sampling_offset.min(16)) - 1,
        }
    }

    fn is_due(&mut self) -> bool {
        self.seen += 1;
        self.seen <= 2 || self.seen & self.mask == 0
    }

    pub(super) fn report(&mut self, error: &dyn fmt::Display) {
        if self.is_due() {
            warn!("writing an event log failed"; "reason" => %error, "errors" => self.seen);
        }
    }
}

/// Standard output, a whole number of lines in each call.
pub(super) struct Stdout {
    format: StdoutFormat,
    human: Human,
    to: Box<dyn Write + Send>,
    buffer: Vec<u8>,
    pending: Vec<(Arc<Stats>, usize)>,
}

impl Stdout {
    pub(super) fn new(format: StdoutFormat, terminal: bool, to: Box<dyn Write + Send>) -> Self {
        Self {
            format,
            human: Human::new(terminal),
            to,
            buffer: Vec::new(),
            pending: Vec::new(),
        }
    }

    pub(super) fn write(&mut self, event: &Event<'_>, stats: &Arc<Stats>, errors: &mut IoErrors) {
        let start = self.buffer.len();
        let human = &mut self.human;
        let encoded = encode(&mut self.buffer, stats, |out| match self.format {
            StdoutFormat::Human => human.event(event, out),
            StdoutFormat::Json => json::line(event, out),
        });
        if encoded {
            let len = self.buffer.len() - start;
            self.pending.push((Arc::clone(stats), len));
        }
        if self.buffer.len() >= STDOUT_BUFFER {
            self.flush(errors);
        }
    }

    pub(super) fn flush(&mut self, errors: &mut IoErrors) {
        if self.pending.is_empty() {
            return;
        }
        let written = self.to.write_all(&self.buffer).and_then(|()| self.to.flush());
        for (stats, len) in self.pending.drain(..) {
            match &written {
                Ok(()) => stats.passed(len),
                Err(_) => stats.dropped(Drop::PeerUnreachable),
            }
        }
        if let Err(error) = written {
            errors.report(&error);
        }
        self.buffer.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_errors_are_reported_then_one_in_2_to_the_n() {
        let mut errors = IoErrors::new(3);
        let reported: Vec<u64> = (1..=24).filter(|_| errors.is_due()).collect();
        assert_eq!(reported, [1, 2, 8, 16, 24]);
    }
}
