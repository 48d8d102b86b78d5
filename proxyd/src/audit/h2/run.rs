//! HTTP/2 interception of one layer of a task: bytes are counted and limited, streams are logged.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_addr::Upstream;
use sluice_config::value::InspectAction;
use sluice_io::Stream;
use sluice_io::buffer::ReadBuffer;
use sluice_io::metered::{Metered, Tap};
use sluice_sniff::Protocol;
use sluice_telemetry::keys::{self, Fields};
use sluice_telemetry::slog;
use sluice_telemetry::value::Dur;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::{Adapter, Admission, Counts, H2Error, StreamKind, StreamNote, Terms, Watch, intercept};
use crate::audit::inspect::Found;
use crate::audit::intercept::{Detail, Subject};
use crate::audit::tls::Sides;
use crate::audit::{Flow, InspectSource, inspect};
use crate::client::Client;
use crate::error::TaskError;
use crate::http::adapt::Adaptation;
use crate::task::Peers;
use crate::traffic::Traffic;
use crate::user::Permit;

/// Passes a client's streams on to the end of its connection.
///
/// # Errors
/// Why the connection ended otherwise than by a graceful close. Who could be told has been told.
pub(crate) async fn run(flow: &Flow, subject: &Subject, sides: Sides) -> Result<(), TaskError> {
    let task = &flow.task;
    let Sides { client, mut upstream } = sides;
    let mut client = *client;
    let shared = flow.upstream_ends(&upstream.stream);
    let peers = client.peers.clone();
    let icap = &flow.auditor.icap;
    let adapter = Adapter {
        task: task.id,
        adaptation: Adaptation {
            services: icap,
            tasks: &flow.worker.tasks,
        },
        client: client.peers.client,
        user: task.permit().and_then(Permit::log_name).map(|name| &**name),
        idle: task.stall_limit(),
    };
    let (up, down) = task.pumps(upstream.limit);
    let (shared_up, shared_down) = task.shared_limits();
    let (from_client, from_upstream) = (client.buf.take_all(), upstream.buf.take_all());
    let traffic = &task.traffic;
    // What the inspection has read of the upstream it has counted.
    traffic.read_client(from_client.len() as u64);
    let client = Metered::new(client.stream, OfClient(traffic), &up, shared_up);
    let upstream = Metered::new(upstream.stream, OfUpstream(traffic), &down, shared_down);
    let (client, upstream) = (Ahead::new(from_client, client), Ahead::new(from_upstream, upstream));
    let log = Log {
        flow,
        subject,
        peers: &peers,
        shared,
    };
    let terms = Terms {
        settings: &flow.auditor.config.h2_interception,
        idle: task.stall_limit(),
        adapter: (!icap.is_empty()).then_some(adapter),
    };
    let (counts, result) = intercept(client, upstream, terms, &log).await;
    let detail = || Detail::H2Connection { counts };
    match result {
        Ok(()) => {
            subject.log(detail, "finished");
            Ok(())
        }
        Err(error) => {
            subject.log(detail, &error);
            Err(match error {
                H2Error::Idle(_) => TaskError::Idle,
                error => TaskError::Http2(Box::new(error)),
            })
        }
    }
}

/// A stream after bytes that have been read from it.
struct Ahead<S> {
    bytes: Bytes,
    stream: S,
}

impl<S> Ahead<S> {
    fn new(bytes: Vec<u8>, stream: S) -> Self {
        Self {
            bytes: bytes.into(),
            stream,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { bytes, stream } = self.get_mut();
        if bytes.is_empty() {
            return Pin::new(stream).poll_read(cx, buf);
        }
        buf.put_slice(&bytes.split_to(bytes.len().min(buf.remaining())));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Counts the client's bytes.
struct OfClient<'t>(&'t Traffic);

impl Tap for OfClient<'_> {
    fn read(&self, bytes: &[u8]) {
        self.0.read_client(bytes.len() as u64);
    }

    fn wrote(&self, bytes: &[u8]) {
        self.0.wrote_client(bytes.len() as u64);
    }
}

/// Counts the upstream's bytes.
struct OfUpstream<'t>(&'t Traffic);

impl Tap for OfUpstream<'_> {
    fn read(&self, bytes: &[u8]) {
        self.0.read_remote(bytes.len() as u64);
    }

    fn wrote(&self, bytes: &[u8]) {
        self.0.wrote_remote(bytes.len() as u64);
    }
}

/// Writes the records.
struct Log<'a> {
    flow: &'a Flow,
    subject: &'a Subject,
    peers: &'a Peers,
    /// The upstream's local and remote address.
    shared: Option<[SocketAddr; 2]>,
}

impl Watch for Log<'_> {
    fn admit(&self, protocol: &str) -> Admission {
        if protocol != "websocket" {
            return Admission::Unknown;
        }
        let found = Found::Known(Protocol::Websocket);
        self.flow.note_found(InspectSource::H2ExtendedConnect, found);
        let auditor = &self.flow.auditor;
        match auditor.policy(Protocol::Websocket, &self.flow.upstream) {
            Some(InspectAction::Block) => {
                auditor.stats.blocked(found);
                Admission::Forbidden
            }
            _ => Admission::Passed,
        }
    }

    fn tunnel(&self, target: Upstream, client: Stream, upstream: Stream) -> oneshot::Receiver<String> {
        let Flow {
            task,
            auditor,
            worker,
            depth,
            way,
            ..
        } = self.flow;
        let (task, ended) = task.inside();
        let client = Client {
            stream: client,
            buf: ReadBuffer::default(),
            timer: worker.wheel.timer(),
            peers: self.peers.clone(),
            waiting_since: Instant::now(),
        };
        let flow = Flow {
            task,
            auditor: Arc::clone(auditor),
            worker: Arc::clone(worker),
            upstream: target,
            depth: *depth,
            shared: self.shared,
            way: way.clone(),
        };
        inspect::spawn(flow, client, (upstream, Vec::new(), None));
        ended
    }

    fn stream_ended(&self, mut note: StreamNote) {
        let websocket = note.websocket.take();
        let said = note
            .error
            .as_ref()
            .map_or_else(|| "finished".to_owned(), ToString::to_string);
        if let Some(handshake) = websocket {
            let detail = || Detail::Websocket {
                kind: "H2Websocket",
                handshake,
            };
            self.subject.log(detail, &said);
        }
        let uri_max = self.flow.auditor.config.log_uri_max_chars;
        self.subject.log(
            || Detail::H2Stream {
                note: Box::new(note),
                uri_max,
            },
            said,
        );
    }

    fn pinged(&self, round_trip: Duration, counts: Counts) {
        self.subject.log(|| Detail::H2Ping { round_trip, counts }, "ok");
    }
}

impl StreamNote {
    /// Writes the fields of its record.
    pub(crate) fn put(&self, uri_max: usize, fields: &mut Fields<'_>) -> slog::Result {
        fields.put(keys::CLT_STREAM, &self.client_stream)?;
        if let Some(number) = self.upstream_stream {
            fields.put(keys::UPS_STREAM, &number)?;
        }
        match &self.kind {
            StreamKind::Forward => {
                let uri: String = self.uri.to_string().chars().take(uri_max).collect();
                fields.put(keys::METHOD, self.method.as_str())?.put(keys::URI, &*uri)?;
            }
            StreamKind::Connect => {
                fields.show(keys::NEXT_UPSTREAM, &self.uri)?;
            }
            StreamKind::ExtendedConnect(protocol) => {
                let upstream = self.uri.authority().map_or("", |authority| authority.as_str());
                fields
                    .put(keys::NEXT_UPSTREAM, upstream)?
                    .put(keys::NEXT_PROTOCOL, &**protocol)?;
            }
        }
        let code = |status: Option<http::StatusCode>| status.map_or(0, |status| status.as_u16());
        let time = |time: Option<Duration>| Dur(time.unwrap_or_default());
        fields
            .put(keys::STARTED_AT, &self.started_at)?
            .put(keys::READY_TIME, &time(self.head_sent))?
            .put(keys::RSP_STATUS, &code(self.status))?
            .put(keys::ORIGIN_STATUS, &code(self.origin_status))?
            .put(keys::DUR_REQ_SEND_HDR, &time(self.head_sent))?
            .put(keys::DUR_RSP_RECV_HDR, &time(self.head_received))?;
        if self.kind == StreamKind::Forward {
            fields
                .put(keys::DUR_REQ_SEND_ALL, &time(self.request_sent))?
                .put(keys::DUR_RSP_RECV_ALL, &time(self.response_received))?;
        }
        Ok(())
    }
}

impl Counts {
    /// Writes the fields of a connection's records.
    pub(crate) fn put(&self, fields: &mut Fields<'_>) -> slog::Result {
        fields
            .put(keys::TOTAL_SUB_TASK, &self.total)?
            .put(keys::ALIVE_SUB_TASK, &self.alive)?
            .done()
    }
}
