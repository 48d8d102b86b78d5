//! One piece of work for a client, from its acceptance to its log record.
//!
//! A [`Task`] counts itself as alive while it exists; dropping it ends it, whatever way its owner went, and hands the
//! finished record to the log. Where the log is discarded, no record is built.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluice_addr::Upstream;
use sluice_io::relay::{RelayEnd, Side, Watch};
use sluice_telemetry::value::{Timestamp, Uuid};

use crate::connect::Path;
use crate::error::TaskError;
use crate::record::{Bytes, Event, ForwardNotes, Stage, TaskRecord};
use crate::server::ServerCommon;
use crate::stats::{EscaperStats, ServerStats};

/// A client's connection as its tasks see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peers {
    pub(crate) client: SocketAddr,
    /// The address that the client connected to.
    pub(crate) server: SocketAddr,
}

/// What a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskKind {
    HttpForward,
    TcpConnect,
}

/// A number that one thread writes at a time, by shared reference.
#[derive(Debug, Default)]
struct Tally(AtomicU64);

impl Tally {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn add(&self, more: u64) {
        // No read-modify-write: the task lives on one thread.
        self.set(self.get() + more);
    }
}

/// A task at work.
pub(crate) struct Task {
    pub(crate) id: Uuid,
    server: Arc<ServerCommon>,
    created: Instant,
    /// Bytes so far.
    c_rd: Tally,
    c_wr: Tally,
    r_rd: Tally,
    r_wr: Tally,
    /// Nanoseconds from the beginning until the request body was through.
    upload_done: Tally,
    record: Option<Box<TaskRecord>>,
}

impl Task {
    /// Begins a task. `accepted` is when the server began to wait for it.
    pub(crate) fn begin(
        server: &Arc<ServerCommon>,
        kind: TaskKind,
        peers: Peers,
        upstream: &Upstream,
        accepted: Instant,
        forward: Option<Box<ForwardNotes>>,
    ) -> Self {
        server.stats.mine().task_started.add(1);
        let id = Uuid::new();
        let created = Instant::now();
        let record = server.task_log.enabled().then(|| {
            Box::new(TaskRecord {
                server_type: server.kind,
                server_name: Arc::clone(&server.name),
                task_type: match kind {
                    TaskKind::HttpForward => "HttpForward",
                    TaskKind::TcpConnect => "TcpConnect",
                },
                task_id: id,
                event: Event::Created,
                stage: Stage::Created,
                start_at: Timestamp::now(),
                peers,
                upstream: upstream.clone(),
                wait: created - accepted,
                ready: Duration::ZERO,
                total: Duration::ZERO,
                escaper: None,
                reason: None,
                message: None,
                path: Path::default(),
                bytes: Bytes::default(),
                forward,
            })
        });
        let task = Self {
            id,
            server: Arc::clone(server),
            created,
            c_rd: Tally::default(),
            c_wr: Tally::default(),
            r_rd: Tally::default(),
            r_wr: Tally::default(),
            upload_done: Tally::default(),
            record,
        };
        if task.server.options.log_on_created {
            task.log(Event::Created);
        }
        task
    }

    /// How the connection came about, as far as it is known; for the headers that tell of it.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.record.as_deref().map(|record| &record.path)
    }

    /// Whether a record is kept.
    pub(crate) fn is_logged(&self) -> bool {
        self.record.is_some()
    }

    pub(crate) fn set_stage(&mut self, stage: Stage) {
        if let Some(record) = &mut self.record {
            record.stage = stage;
        }
    }

    /// Notes a time or a status of an HTTP exchange; nothing happens if no record is kept.
    fn note(&mut self, note: impl FnOnce(&mut ForwardNotes, Duration)) {
        if let Some(record) = &mut self.record
            && let Some(notes) = &mut record.forward
        {
            note(notes, self.created.elapsed());
        }
    }

    /// The request's head is sent, and its whole body too if it is `complete`.
    pub(crate) fn note_request_sent(&mut self, complete: bool) {
        self.note(|notes, now| {
            notes.request_head_sent = now;
            if complete {
                notes.request_sent = now;
            }
        });
    }

    /// The request's body is through; the pump that finds this out has no exclusive hold of the task.
    pub(crate) fn note_upload_done(&self) {
        self.upload_done
            .set(u64::try_from(self.created.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// A final head has come from the remote and goes on to the client.
    pub(crate) fn note_response_head(&mut self, status: u16) {
        self.note(|notes, now| {
            notes.origin_status = status;
            notes.rsp_status = status;
            notes.response_head_received = now;
        });
        if let Some(record) = &mut self.record {
            record.stage = Stage::Relaying;
            record.ready = self.created.elapsed();
        }
    }

    /// The last byte of the response has come.
    pub(crate) fn note_response_received(&mut self) {
        self.note(|notes, now| notes.response_received = now);
    }

    /// A reply of our own is sent.
    pub(crate) fn note_reply(&mut self, status: u16) {
        self.note(|notes, _| notes.rsp_status = status);
    }

    /// The upstream is connected; `reused` tells whether by a kept connection, for tasks that may use one.
    pub(crate) fn connected(&mut self, escaper: &Arc<EscaperStats>, path: &Path, reused: Option<bool>) {
        if let Some(record) = &mut self.record {
            record.stage = Stage::Connected;
            record.escaper = Some(Arc::clone(&escaper.name));
            record.path = path.clone();
            if let Some(notes) = &mut record.forward {
                notes.reused = reused;
            }
        }
        if self.server.options.log_on_connected {
            self.log(Event::Connected);
        }
    }

    /// The connection did not come about; how far it got belongs into the record.
    pub(crate) fn not_connected(&mut self, escaper: &Arc<EscaperStats>, path: &Path) {
        if let Some(record) = &mut self.record {
            record.escaper = Some(Arc::clone(&escaper.name));
            record.path = path.clone();
        }
    }

    /// Data begins to flow.
    pub(crate) fn relaying(&mut self) {
        if let Some(record) = &mut self.record {
            record.stage = Stage::Relaying;
            record.ready = self.created.elapsed();
        }
    }

    /// The end went as it should.
    pub(crate) fn finished(&mut self) {
        if let Some(record) = &mut self.record {
            record.stage = Stage::Finished;
            record.reason = Some("Finished");
        }
    }

    /// The end came otherwise; the first reason counts.
    pub(crate) fn failed(&mut self, error: &TaskError) {
        if let Some(record) = &mut self.record
            && record.reason.is_none()
        {
            record.reason = Some(error.reason());
            record.message = Some(error.to_string());
        }
    }

    /// `n` bytes of payload came from the client. The server counts bytes where it reads them.
    pub(crate) fn add_c_rd(&self, n: u64) {
        self.c_rd.add(n);
    }

    pub(crate) fn add_c_wr(&self, n: u64) {
        self.c_wr.add(n);
    }

    pub(crate) fn add_r_rd(&self, n: u64) {
        self.r_rd.add(n);
    }

    pub(crate) fn add_r_wr(&self, n: u64) {
        self.r_wr.add(n);
    }

    /// Moves what was counted by shared reference into a record.
    fn settle(&self, record: &mut TaskRecord) {
        record.bytes = Bytes {
            c_rd: self.c_rd.get(),
            c_wr: self.c_wr.get(),
            r_rd: self.r_rd.get(),
            r_wr: self.r_wr.get(),
        };
        if let Some(notes) = &mut record.forward
            && notes.request_sent.is_zero()
        {
            notes.request_sent = Duration::from_nanos(self.upload_done.get());
        }
    }

    /// Writes a record of the task as it stands.
    pub(crate) fn log(&self, event: Event) {
        if let Some(record) = &self.record {
            let mut record = record.as_ref().clone();
            record.event = event;
            record.total = self.created.elapsed();
            self.settle(&mut record);
            self.server.task_log.log(record);
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.server.stats.mine().task_ended.add(1);
        if let Some(mut record) = self.record.take() {
            record.event = Event::Finished;
            record.total = self.created.elapsed();
            self.settle(&mut record);
            record.reason.get_or_insert("CanceledAsServerQuit");
            self.server.task_log.log(*record);
        }
    }
}

/// A task that has become a tunnel.
pub(crate) struct Tunnel {
    pub(crate) task: Task,
    server: Arc<ServerStats>,
    escaper: Arc<EscaperStats>,
    /// Nanoseconds since the last periodic record.
    since_log: Tally,
}

impl Tunnel {
    pub(crate) fn new(task: Task, escaper: Arc<EscaperStats>) -> Self {
        Self {
            server: Arc::clone(&task.server.stats),
            task,
            escaper,
            since_log: Tally::default(),
        }
    }

    fn note_end(&mut self, end: RelayEnd) {
        let error = match end {
            RelayEnd::Closed(Side::Client) => TaskError::ClosedByClient,
            RelayEnd::Closed(Side::Upstream) => TaskError::ClosedByUpstream,
            RelayEnd::Idle => TaskError::Idle,
            RelayEnd::MustEnd => TaskError::ServerQuit,
            RelayEnd::ReadFailed(Side::Client, error) => TaskError::ClientRead(error),
            RelayEnd::WriteFailed(Side::Client, error) => TaskError::ClientWrite(error),
            RelayEnd::ReadFailed(Side::Upstream, error) => TaskError::UpstreamRead(error),
            RelayEnd::WriteFailed(Side::Upstream, error) => TaskError::UpstreamWrite(error),
        };
        self.task.failed(&error);
    }
}

impl Watch for Tunnel {
    fn read(&self, side: Side, n: u64) {
        match side {
            Side::Client => {
                self.task.add_c_rd(n);
                self.server.mine().tcp_in.add(n);
            }
            Side::Upstream => {
                self.task.add_r_rd(n);
                self.escaper.mine().tcp_in.add(n);
            }
        }
    }

    fn wrote(&self, side: Side, n: u64) {
        match side {
            Side::Client => {
                self.task.add_c_wr(n);
                self.server.mine().tcp_out.add(n);
            }
            Side::Upstream => {
                self.task.add_r_wr(n);
                self.escaper.mine().tcp_out.add(n);
            }
        }
    }

    fn half_closed(&self, side: Side) {
        self.task.log(match side {
            Side::Client => Event::ClientShutdown,
            Side::Upstream => Event::UpstreamShutdown,
        });
    }

    fn check(&self, idle: usize) -> Option<RelayEnd> {
        let server = &self.task.server;
        if server.must_quit() {
            return Some(RelayEnd::MustEnd);
        }
        let options = &server.options;
        let interval = options.check_interval();
        if let Some(every) = options.log_interval {
            let since = Duration::from_nanos(self.since_log.get()) + interval;
            let is_due = since >= every;
            self.since_log.set(if is_due {
                0
            } else {
                u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
            });
            if is_due {
                self.task.log(Event::Periodic);
            }
        }
        let idle = interval.as_nanos() * idle as u128;
        (idle >= options.stall_limit().as_nanos()).then_some(RelayEnd::Idle)
    }

    fn ended(&mut self, end: RelayEnd) {
        self.note_end(end);
    }
}
