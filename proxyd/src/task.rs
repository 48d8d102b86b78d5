//! One piece of work for a client, from its acceptance to its log record.
//!
//! A [`Task`] counts itself as alive while it exists; dropping it ends it, whatever way its owner went, and hands the
//! finished record to the log. Where the log is discarded, no record is built.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_addr::Upstream;
use sluice_config::value::{SpeedLimitTcp, SpeedLimitUdp};
use sluice_io::pump::PumpOptions;
use sluice_io::throttle::{DatagramLimits, DatagramRate, PacketRate, Rate, SharedLimit};
use sluice_telemetry::value::{Timestamp, Uuid};
use tokio::sync::oneshot;

use crate::connect::{ConnectError, Path};
use crate::error::TaskError;
use crate::haproxy::Told;
use crate::record::{Bytes, Event, ForwardNotes, Stage, TaskRecord, UdpNotes};
use crate::server::ServerCommon;
use crate::stats::EscaperStats;
use crate::traffic::{Tally, Traffic};
use crate::user::Permit;

/// A client's connection as its tasks see it.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    pub(crate) client: SocketAddr,
    /// The address that the client connected to.
    pub(crate) server: SocketAddr,
    /// What the sender of a PROXY protocol header told besides the addresses.
    pub(crate) told: Option<Arc<Told>>,
}

/// What a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskKind {
    HttpForward,
    TcpConnect,
    UdpAssociate,
    UdpConnect,
}

/// A task at work.
pub(crate) struct Task {
    pub(crate) id: Uuid,
    server: Arc<ServerCommon>,
    created: Instant,
    pub(crate) traffic: Traffic,
    /// Nanoseconds from the beginning until the request body was through.
    upload_done: Tally,
    /// How the connection came about, as far as it is known.
    path: Path,
    record: Option<Box<TaskRecord>>,
    /// The request at hand, of those that are found inside of a tunnel.
    inner: Option<Box<InnerRequest>>,
    /// Wants to know how it goes on and ends.
    onlooker: Option<Onlooker>,
    /// Set for a tunnel inside of another task's connection.
    inside: Option<Inside>,
}

/// Who waits for the end of a tunnel inside of a task's connection; nobody any more once it has been told.
struct Inside(Option<oneshot::Sender<String>>);

/// Is told of half-closes and of the end, whichever comes.
pub(crate) type Onlooker = Box<dyn Fn(&dyn fmt::Display) + Send + Sync>;

/// A request inside of a tunnel, which is no task of its own.
struct InnerRequest {
    begun: Instant,
    notes: ForwardNotes,
}

impl Task {
    /// Begins a task. `accepted` is when the server began to wait for it.
    pub(crate) fn begin(
        server: &Arc<ServerCommon>,
        kind: TaskKind,
        peers: &Peers,
        upstream: &Upstream,
        accepted: Instant,
        permit: Option<Permit>,
        forward: Option<Box<ForwardNotes>>,
    ) -> Self {
        server.stats.mine().task_started.add(1);
        let id = Uuid::new();
        let created = Instant::now();
        let udp = matches!(kind, TaskKind::UdpAssociate | TaskKind::UdpConnect);
        let record = server.task_log.enabled().then(|| {
            Box::new(TaskRecord {
                server_type: server.kind,
                server_name: Arc::clone(&server.name),
                task_type: match kind {
                    TaskKind::HttpForward => "HttpForward",
                    TaskKind::TcpConnect => "TcpConnect",
                    TaskKind::UdpAssociate => "UdpAssociate",
                    TaskKind::UdpConnect => "UdpConnect",
                },
                task_id: id,
                event: Event::Created,
                stage: Stage::Created,
                start_at: Timestamp::now(),
                user: permit.as_ref().and_then(Permit::log_name).map(Arc::clone),
                peers: peers.clone(),
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
                udp: udp.then(|| {
                    Box::new(UdpNotes {
                        associate: kind == TaskKind::UdpAssociate,
                        ..UdpNotes::default()
                    })
                }),
            })
        });
        let mut task = Self {
            id,
            server: Arc::clone(server),
            created,
            traffic: Traffic::new(&server.stats, permit),
            upload_done: Tally::default(),
            path: Path::default(),
            record,
            inner: None,
            onlooker: None,
            inside: None,
        };
        if udp {
            task.traffic.count_packets();
        }
        if task.server.options.log_on_created {
            task.log(Event::Created);
        }
        task
    }

    /// The task of one of several tunnels inside of this one's connection. It has the same id and user, but no record of
    /// its own, and nothing that it does counts twice. What is returned tells why it failed; it is closed at its end.
    pub(crate) fn inside(&self) -> (Self, oneshot::Receiver<String>) {
        let (told, ended) = oneshot::channel();
        let task = Self {
            id: self.id,
            server: Arc::clone(&self.server),
            created: Instant::now(),
            traffic: self.traffic.inside(),
            upload_done: Tally::default(),
            path: Path::default(),
            record: None,
            inner: None,
            onlooker: None,
            inside: Some(Inside(Some(told))),
        };
        (task, ended)
    }

    /// The server that it belongs to.
    pub(crate) fn server(&self) -> &ServerCommon {
        &self.server
    }

    /// The user's leave, if the server has users.
    pub(crate) fn permit(&self) -> Option<&Permit> {
        self.traffic.permit.as_deref()
    }

    /// How bytes are moved from and to the client if its upstream connection has the limit `upstream`.
    pub(crate) fn pumps(&self, upstream: Option<SpeedLimitTcp>) -> (PumpOptions, PumpOptions) {
        if self.inside.is_some() {
            // The connection that it is inside of is limited.
            return Default::default();
        }
        let user = self.permit().and_then(|permit| permit.user.speed_limit());
        self.server.options.pumps([user, upstream])
    }

    /// The limits that it shares with the user's other tasks: of bytes from the client, and of bytes to it.
    pub(crate) fn shared_limits(&self) -> (Option<Arc<SharedLimit>>, Option<Arc<SharedLimit>>) {
        let permit = self.permit().filter(|_| self.inside.is_none());
        let limits = permit.map(Permit::shared_limits);
        let (up, down) = limits.unwrap_or_default();
        (up.map(Arc::clone), down.map(Arc::clone))
    }

    /// Waits until the user's other tasks leave room for bytes from the client that are sent on at once.
    pub(crate) async fn pass_up(&self, bytes: usize) {
        if let (Some(limit), _) = self.shared_limits() {
            Box::pin(limit.pass(bytes as u64)).await;
        }
    }

    /// The same for bytes to the client.
    pub(crate) async fn pass_down(&self, bytes: usize) {
        if let (_, Some(limit)) = self.shared_limits() {
            Box::pin(limit.pass(bytes as u64)).await;
        }
    }

    /// The limits of its datagrams, from the client and to it, if its escaper has the limit `upstream`.
    pub(crate) fn datagram_limits(
        &self,
        server: Option<SpeedLimitUdp>,
        upstream: Option<SpeedLimitUdp>,
    ) -> [Option<Box<DatagramLimits>>; 2] {
        let user = self.permit().and_then(|permit| permit.user.udp_speed_limit());
        let both = |a: SpeedLimitUdp, b: SpeedLimitUdp| a.and(b);
        let limit = [server, user, upstream]
            .into_iter()
            .flatten()
            .reduce(both)
            .unwrap_or_default();
        let per = Duration::from_millis(1 << limit.shift_millis);
        let rate = |bytes, packets: usize| DatagramRate {
            bytes: (bytes > 0).then_some(Rate { bytes, per }),
            packets: (packets > 0).then_some(PacketRate {
                packets: packets as u64,
                per,
            }),
        };
        let shared = self.permit().map(Permit::shared_datagram_limits);
        let (up, down) = shared.unwrap_or_default();
        [
            DatagramLimits::new(rate(limit.upload_bytes, limit.upload_packets), up.cloned()),
            DatagramLimits::new(rate(limit.download_bytes, limit.download_packets), down.cloned()),
        ]
    }

    /// How long the task may go on without a byte.
    pub(crate) fn stall_limit(&self) -> Duration {
        let of_user = self.permit().and_then(|permit| permit.user.config.task_idle_max_count);
        self.server.options.stall_limit_for(of_user)
    }

    /// Why the task must end, if it must: asked at every idle check.
    pub(crate) fn must_end(&self) -> Option<TaskError> {
        if self.server.must_quit() {
            return Some(TaskError::ServerQuit);
        }
        self.permit()
            .is_some_and(Permit::is_blocked)
            .then_some(TaskError::UserBlocked)
    }

    /// How the connection came about, as far as it is known; for the headers that tell of it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
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
        if let Some(inner) = &mut self.inner {
            return note(&mut inner.notes, inner.begun.elapsed());
        }
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
        let begun = self.inner.as_ref().map_or(self.created, |inner| inner.begun);
        self.upload_done
            .set(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// A request is found inside of the task's tunnel: what is noted from now on is of it.
    pub(crate) fn begin_inner(&mut self, notes: ForwardNotes) {
        self.upload_done.set(0);
        self.inner = Some(Box::new(InnerRequest {
            begun: Instant::now(),
            notes,
        }));
    }

    /// The request inside of the tunnel is over; what was noted of it.
    pub(crate) fn end_inner(&mut self) -> Option<ForwardNotes> {
        let mut notes = self.inner.take()?.notes;
        if notes.request_sent.is_zero() {
            notes.request_sent = Duration::from_nanos(self.upload_done.get());
        }
        Some(notes)
    }

    /// Lets somebody know how the task goes on and ends.
    pub(crate) fn watch(&mut self, onlooker: Onlooker) {
        self.onlooker = Some(onlooker);
    }

    /// A final head has come from the remote and goes on to the client.
    pub(crate) fn note_response_head(&mut self, status: u16) {
        self.note(|notes, now| {
            notes.origin_status = status;
            notes.rsp_status = status;
            notes.response_head_received = now;
        });
        if self.inner.is_none() {
            self.relaying();
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
        self.traffic.set_escaper(escaper);
        self.path = path.clone();
        if let Some(record) = &mut self.record {
            record.stage = Stage::Connected;
            record.escaper = Some(Arc::clone(&escaper.name));
            if let Some(notes) = &mut record.forward {
                notes.reused = reused;
            }
        }
        if self.server.options.log_on_connected {
            self.log(Event::Connected);
        }
    }

    /// Another connection has taken the place of the first one, over the same escaper.
    pub(crate) fn reconnected(&mut self, path: &Path) {
        self.path = path.clone();
    }

    /// The connection did not come about; how far it got belongs into the record.
    pub(crate) fn not_connected(&mut self, escaper: &Arc<EscaperStats>, path: &Path) {
        self.path = path.clone();
        if let Some(record) = &mut self.record {
            record.escaper = Some(Arc::clone(&escaper.name));
        }
    }

    /// Data begins to flow.
    pub(crate) fn relaying(&mut self) {
        if self.record.is_none() && self.traffic.permit.is_none() {
            return;
        }
        let ready = self.created.elapsed();
        if let Some(record) = &mut self.record {
            record.stage = Stage::Relaying;
            record.ready = ready;
        }
        if let Some(permit) = self.traffic.permit_mut() {
            permit.ready(ready);
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
        if let Some(onlooker) = self.onlooker.take() {
            onlooker(error);
        }
        if let Some(Inside(told)) = &mut self.inside
            && let Some(told) = told.take()
        {
            // Nobody may be there to hear it.
            let _ = told.send(error.to_string());
        }
        if let (Some(permit), TaskError::Connect(ConnectError::ForbiddenAddress { .. })) = (self.permit(), error) {
            permit.address_refused();
        }
        if let Some(record) = &mut self.record
            && record.reason.is_none()
        {
            record.reason = Some(error.reason());
            record.message = Some(error.to_string());
        }
    }

    /// Where the client sends its datagrams to.
    pub(crate) fn set_udp_listen(&mut self, listen: SocketAddr) {
        if let Some(record) = &mut self.record
            && let Some(udp) = &mut record.udp
        {
            udp.listen = Some(listen);
        }
    }

    /// The first datagram has come: from whom, and for whom.
    pub(crate) fn set_udp_client(&mut self, client: SocketAddr, target: &Upstream) {
        if let Some(record) = &mut self.record
            && let Some(udp) = &mut record.udp
        {
            udp.client = Some(client);
            record.upstream = target.clone();
        }
    }

    /// Moves what is kept beside the record into it.
    fn settle(&self, record: &mut TaskRecord) {
        record.path = self.path.clone();
        record.bytes = self.traffic.bytes();
        if let (Some(udp), Some(packets)) = (&mut record.udp, self.traffic.packets()) {
            udp.packets = packets;
        }
        if let Some(notes) = &mut record.forward
            && notes.request_sent.is_zero()
        {
            notes.request_sent = Duration::from_nanos(self.upload_done.get());
        }
    }

    /// Writes a record of the task as it stands.
    pub(crate) fn log(&self, event: Event) {
        if let Some(onlooker) = &self.onlooker
            && event.is_half_close()
        {
            onlooker(&match event {
                Event::ClientShutdown => "half-closed by client",
                _ => "half-closed by upstream",
            });
        }
        if let Some(record) = &self.record
            && (event.is_half_close() || self.may_log())
        {
            let mut record = record.as_ref().clone();
            record.event = event;
            record.total = self.created.elapsed();
            self.settle(&mut record);
            self.server.task_log.log(record);
        }
    }
}

impl Task {
    /// Whether the user's rate of log records leaves room for one more.
    fn may_log(&self) -> bool {
        self.permit().is_none_or(Permit::may_log)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.inside.is_none() {
            self.server.stats.mine().task_ended.add(1);
        }
        if let Some(onlooker) = self.onlooker.take() {
            onlooker(&TaskError::ServerQuit);
        }
        if let Some(mut record) = self.record.take()
            && self.may_log()
        {
            record.event = Event::Finished;
            record.total = self.created.elapsed();
            self.settle(&mut record);
            record.reason.get_or_insert("CanceledAsServerQuit");
            self.server.task_log.log(*record);
        }
    }
}
