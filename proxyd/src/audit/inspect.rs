//! Finding out what a tunnel carries, and choosing what is done with it.
//!
//! Whoever speaks first is looked at. The bytes stay in buffers and go on with the stream whatever is decided. One timer
//! serves all waits; an inspected tunnel in which nothing happens owns no buffer.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use sluice_config::value::{InspectAction, SpeedLimitTcp};
use sluice_io::Stream;
use sluice_io::buffer::ReadBuffer;
use sluice_sniff::{Protocol, Verdict, of_client, of_server};

use super::tls::Sides;
use super::{Flow, InspectSource, UpstreamEnd, Way, layer, refusal};
use crate::client::Client;
use crate::error::TaskError;
use crate::http::exchange::Upstream;
use crate::task::Task;
use crate::tunnel;
use crate::worker::Worker;

/// Makes a task of its own of a tunnel to `target`: a relay, or an inspection where the server's auditor takes it. The
/// `way` is how the target was reached.
pub(crate) fn start(
    worker: &Arc<Worker>,
    client: Client,
    upstream: UpstreamEnd,
    task: Task,
    target: &sluice_addr::Upstream,
    way: impl FnOnce() -> Way,
) {
    let auditor = task
        .server()
        .auditor
        .as_ref()
        .filter(|auditor| auditor.takes_stream(task.permit()));
    match auditor.map(Arc::clone) {
        None => tunnel::spawn(worker, client, upstream, task),
        Some(auditor) => {
            if let Some(recording) = &auditor.recording {
                recording.stream(&auditor.name, &task, target);
            }
            let flow = Flow {
                task,
                auditor,
                worker: Arc::clone(worker),
                upstream: target.clone(),
                way: way(),
                depth: 0,
                shared: None,
            };
            spawn(flow, client, upstream);
        }
    }
}

/// Inspects the next layer of a stream, in a task of its own.
pub(crate) fn spawn(flow: Flow, client: Client, upstream: UpstreamEnd) {
    let worker = Arc::clone(&flow.worker);
    worker.spawn(run(Box::new(flow), None, client, upstream));
}

/// The same of a layer whose protocol is known by what led to it: policies are asked as if its bytes told.
pub(crate) fn spawn_known(flow: Flow, known: (InspectSource, Protocol), client: Client, upstream: UpstreamEnd) {
    let worker = Arc::clone(&flow.worker);
    worker.spawn(run(Box::new(flow), Some(known), client, upstream));
}

/// What a layer of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Known(Protocol),
    /// It did not show in time.
    Timeout,
    Unknown,
}

impl Found {
    /// The name in logs and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Known(protocol) => protocol.as_str(),
            Self::Timeout => "_timeout",
            Self::Unknown => "_unknown",
        }
    }
}

/// What is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Block,
    Bypass,
    InterceptHttp1,
    InterceptHttp2,
    InterceptTls,
}

/// Inspects a layer, unless it is `known` or too deep, and does what is to be done with it.
async fn run(
    mut flow: Box<Flow>,
    known: Option<(InspectSource, Protocol)>,
    mut client: Client,
    (stream, first, limit): UpstreamEnd,
) {
    flow.depth += 1;
    let mut upstream = UpstreamSide {
        stream,
        buf: ReadBuffer::default(),
    };
    upstream.buf.put(&first);
    let found = if flow.depth > flow.auditor.config.protocol_inspection.inspect_max_depth {
        Found::Unknown
    } else if let Some((_, protocol)) = known {
        Found::Known(protocol)
    } else {
        match find(&flow, &mut client, &mut upstream).await {
            Ok(found) => found,
            Err(error) => return give_up(*flow, &client, &error),
        }
    };
    let source = known.map_or(InspectSource::StreamInspection, |(source, _)| source);
    flow.note_found(source, found);
    match decide(&flow, found) {
        Decision::Bypass => {
            let Flow { task, worker, .. } = *flow;
            let upstream = (upstream.stream, upstream.buf.take_all(), limit);
            tunnel::spawn(&worker, client, upstream, task);
        }
        Decision::Block => block(*flow, client, found).await,
        // What these need is not kept by those that still wait for their first byte.
        Decision::InterceptHttp1 => Box::pin(layer::http1(flow, sides(client, upstream, limit))).await,
        Decision::InterceptHttp2 => Box::pin(layer::http2(flow, sides(client, upstream, limit))).await,
        Decision::InterceptTls => Box::pin(layer::tls(flow, sides(client, upstream, limit))).await,
    }
}

/// What an interception begins with.
fn sides(client: Client, upstream: UpstreamSide, limit: Option<SpeedLimitTcp>) -> Sides {
    Sides {
        client: Box::new(client),
        upstream: Upstream {
            stream: upstream.stream,
            buf: upstream.buf,
            reused: false,
            limit,
        },
    }
}

/// Ends a task whose stream is given up.
fn give_up(mut flow: Flow, client: &Client, error: &TaskError) {
    flow.task.traffic.read_client(client.buf.filled().len() as u64);
    flow.task.failed(error);
}

/// What is done with a stream that is found to be this.
fn decide(flow: &Flow, found: Found) -> Decision {
    let user = flow.user();
    match found {
        Found::Known(Protocol::Http1) => Decision::InterceptHttp1,
        Found::Known(Protocol::TlsModern) if flow.auditor.tls.is_some() => Decision::InterceptTls,
        Found::Known(protocol) => match flow.auditor.policy(protocol, &flow.upstream) {
            Some(InspectAction::Block) => Decision::Block,
            Some(InspectAction::Intercept) if protocol == Protocol::Http2 => Decision::InterceptHttp2,
            Some(InspectAction::Bypass | InspectAction::Detour | InspectAction::Intercept) | None => Decision::Bypass,
        },
        Found::Timeout if user.is_some_and(|user| user.prohibit_timeout_protocol) => Decision::Block,
        Found::Unknown if user.is_some_and(|user| user.prohibit_unknown_protocol) => Decision::Block,
        Found::Timeout | Found::Unknown => Decision::Bypass,
    }
}

/// Refuses a stream in the words of its protocol, and ends the task.
async fn block(mut flow: Flow, mut client: Client, found: Found) {
    flow.task.traffic.read_client(client.buf.filled().len() as u64);
    let answer = match found {
        Found::Known(protocol) => refusal::of(protocol),
        Found::Timeout | Found::Unknown => b"",
    };
    flow.auditor.stats.blocked(found);
    flow.task.failed(&TaskError::ProtocolBlocked(found.name()));
    if !answer.is_empty() && client.send_last(answer, flow.task.stall_limit()).await.is_ok() {
        flow.task.traffic.wrote_client(answer.len() as u64);
    }
    drop(flow);
    client.buf = ReadBuffer::default();
    client.close().await;
}

struct UpstreamSide {
    stream: Stream,
    buf: ReadBuffer,
}

/// Something came in.
enum Event {
    Client(std::io::Result<usize>),
    Upstream(std::io::Result<usize>),
    Timer,
}

/// Waits for bytes, of either side, as long as is allowed.
#[derive(Clone, Copy)]
struct Watch {
    client_open: bool,
    upstream_open: bool,
    until: Instant,
}

impl Watch {
    /// The next thing that happens.
    async fn next(&self, flow: &Flow, client: &mut Client, upstream: &mut UpstreamSide) -> Event {
        let left = self.until.saturating_duration_since(Instant::now());
        client.timer.arm(left.min(flow.task.server().options.check_interval()));
        poll_fn(|cx| self.poll(cx, client, upstream)).await
    }

    fn poll(&self, cx: &mut Context<'_>, client: &mut Client, upstream: &mut UpstreamSide) -> Poll<Event> {
        if self.client_open
            && let Poll::Ready(read) = client.buf.poll_fill(cx, &mut client.stream)
        {
            return Poll::Ready(Event::Client(read));
        }
        if self.upstream_open
            && let Poll::Ready(read) = upstream.buf.poll_fill(cx, &mut upstream.stream)
        {
            return Poll::Ready(Event::Upstream(read));
        }
        client.timer.poll_fired(cx).map(|()| Event::Timer)
    }
}

/// Reads until the protocol shows.
///
/// # Errors
/// Why the task ends before it does.
async fn find(flow: &Flow, client: &mut Client, upstream: &mut UpstreamSide) -> Result<Found, TaskError> {
    let config = &flow.auditor.config.protocol_inspection;
    let mut began = !client.buf.is_empty() || !upstream.buf.is_empty();
    let wait = |began| {
        if began {
            config.data0_read_timeout.0
        } else {
            config.data0_wait_timeout.0
        }
    };
    let mut watch = Watch {
        client_open: true,
        upstream_open: true,
        until: Instant::now() + wait(began),
    };
    loop {
        if began && let Some(found) = look(flow, &watch, client, upstream) {
            return Ok(found);
        }
        // A side with a full buffer has been looked at; what else it sends waits in its socket.
        let full = config.data0_buffer_size.as_usize().max(flow.auditor.limits.most());
        let mut open = watch;
        open.client_open &= client.buf.filled().len() < full;
        open.upstream_open &= upstream.buf.filled().len() < full;
        let event = open.next(flow, client, upstream).await;
        match event {
            Event::Client(Err(error)) => return Err(TaskError::ClientRead(error)),
            Event::Upstream(Err(error)) => return Err(TaskError::UpstreamRead(error)),
            Event::Client(Ok(0)) if !began => return Err(TaskError::ClosedByClient),
            Event::Upstream(Ok(0)) if !began => return Err(TaskError::ClosedByUpstream),
            Event::Client(Ok(0)) => watch.client_open = false,
            Event::Upstream(Ok(0)) => watch.upstream_open = false,
            Event::Timer => {
                if let Some(error) = flow.task.must_end() {
                    return Err(error);
                }
                if Instant::now() >= watch.until {
                    return if began {
                        Ok(Found::Timeout)
                    } else {
                        Err(TaskError::Idle)
                    };
                }
            }
            Event::Client(Ok(_)) | Event::Upstream(Ok(_)) => {
                if let Event::Upstream(Ok(n)) = event {
                    flow.task.traffic.read_remote(n as u64);
                }
                if !std::mem::replace(&mut began, true) {
                    watch.until = Instant::now() + wait(true);
                }
            }
        }
    }
}

/// What the bytes so far say; `None` if more of them could say more.
fn look(flow: &Flow, watch: &Watch, client: &Client, upstream: &UpstreamSide) -> Option<Found> {
    let auditor = &flow.auditor;
    let hints = auditor.ports.hints(flow.upstream.port, client.peers.client.port());
    let of_side = |bytes: &[u8], is_open: bool, of: fn(&[u8], _, &_) -> Verdict| match bytes {
        [] => None,
        bytes => match of(bytes, hints, &auditor.limits) {
            Verdict::More if !is_open => Some(Verdict::Not),
            verdict => Some(verdict),
        },
    };
    let of_client = of_side(client.buf.filled(), watch.client_open, of_client);
    let of_upstream = of_side(upstream.buf.filled(), watch.upstream_open, of_server);
    match (of_client, of_upstream) {
        (Some(Verdict::Is(protocol)), _) | (_, Some(Verdict::Is(protocol))) => Some(Found::Known(protocol)),
        (Some(Verdict::More), _) | (_, Some(Verdict::More)) | (None, None) => None,
        (Some(Verdict::Not) | None, Some(Verdict::Not) | None) => Some(Found::Unknown),
    }
}
