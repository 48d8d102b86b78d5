//! What is known of a layer that is intercepted, and the records of what happens there (logs.md §6.2).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sluice_addr::Upstream;
use sluice_telemetry::keys::{self, Fields};
use sluice_telemetry::slog::{self, KV, Serializer};
use sluice_telemetry::value::{Dur, Timestamp, Uuid};
use sluice_telemetry::{EventLogger, LogType, Record};

use super::h2::{Counts, StreamKind, StreamNote};
use super::websocket::Handshake;
use crate::record::ForwardNotes;

/// Whose layer it is. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) auditor: Arc<str>,
    pub(crate) log: EventLogger,
    pub(crate) task_id: Uuid,
    /// How many layers of inspection lie above, this one included.
    pub(crate) depth: usize,
    /// What the client wanted to reach.
    pub(crate) upstream: Arc<Upstream>,
}

impl Subject {
    /// Writes a record, unless nobody reads it. `message` is `ok`, `finished` or an error.
    pub(crate) fn log(&self, detail: impl FnOnce() -> Detail, message: impl fmt::Display) {
        if self.log.enabled() {
            self.log.log(InterceptRecord {
                subject: self.clone(),
                detail: detail(),
                message: message.to_string(),
            });
        }
    }
}

/// Which event it is.
pub(crate) enum Detail {
    /// Both TLS handshakes, or what became of them; with the result of verifying the upstream's certificate.
    TlsHandshake { verify: String },
    /// An HTTP/1 connection has ended, after so many requests.
    H1Connection { requests: u64 },
    /// A request and its response.
    HttpForward(Box<RequestNotes>),
    /// A CONNECT inside.
    HttpConnect { notes: Box<RequestNotes>, next: Upstream },
    /// An HTTP/2 connection has ended.
    H2Connection { counts: Counts },
    /// The upstream of an HTTP/2 connection has answered a PING.
    H2Ping { round_trip: Duration, counts: Counts },
    /// A stream of an HTTP/2 connection has ended.
    H2Stream { note: Box<StreamNote>, uri_max: usize },
    /// A WebSocket has ended.
    Websocket {
        kind: &'static str,
        handshake: Box<Handshake>,
    },
    /// An Upgrade inside.
    HttpUpgrade {
        notes: Box<RequestNotes>,
        protocol: Box<str>,
    },
}

/// A request inside of a connection.
pub(crate) struct RequestNotes {
    pub(crate) id: u64,
    pub(crate) received_at: Timestamp,
    pub(crate) host: Option<Box<str>>,
    pub(crate) exchange: ForwardNotes,
}

impl Detail {
    fn kind(&self) -> &'static str {
        match self {
            Self::TlsHandshake { .. } => "TlsHandshake",
            Self::H1Connection { .. } => "H1Connection",
            Self::HttpForward(_) => "HttpForward",
            Self::HttpConnect { .. } => "HttpConnect",
            Self::HttpUpgrade { .. } => "HttpUpgrade",
            Self::H2Connection { .. } => "H2Connection",
            Self::H2Ping { .. } => "H2Ping",
            Self::H2Stream { note, .. } => match note.kind {
                StreamKind::Forward => "H2StreamForward",
                StreamKind::Connect => "H2Connect",
                StreamKind::ExtendedConnect(_) => "H2ExtendedConnect",
            },
            Self::Websocket { kind, .. } => kind,
        }
    }
}

struct InterceptRecord {
    subject: Subject,
    detail: Detail,
    message: String,
}

impl Record for InterceptRecord {
    fn kind(&self) -> LogType {
        LogType::Intercept
    }

    fn message(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl KV for InterceptRecord {
    fn serialize(&self, record: &slog::Record<'_>, out: &mut dyn Serializer) -> slog::Result {
        let subject = &self.subject;
        let mut fields = Fields::new(record, out);
        fields
            .put(keys::AUDITOR_NAME, &*subject.auditor)?
            .put(keys::TASK_ID, &subject.task_id)?
            .put(keys::DEPTH, &subject.depth)?
            .put(keys::INTERCEPT_TYPE, self.detail.kind())?;
        match &self.detail {
            Detail::TlsHandshake { verify } => fields
                .show(keys::UPSTREAM, &subject.upstream)?
                .put(keys::TLS_SERVER_VERIFY, &**verify)?
                .done(),
            Detail::H1Connection { requests } => fields.put(keys::CURRENT_REQ_ID, requests)?.done(),
            Detail::HttpForward(notes) => {
                notes.put_first(&mut fields)?;
                fields
                    .put(keys::METHOD, &*notes.exchange.method)?
                    .put(keys::URI, &*notes.exchange.uri)?;
                if let Some(host) = &notes.host {
                    fields.put(keys::HOST, &**host)?;
                }
                notes.put_statuses(&mut fields)?;
                fields
                    .put(keys::DUR_REQ_SEND_ALL, &Dur(notes.exchange.request_sent))?
                    .put(keys::DUR_RSP_RECV_ALL, &Dur(notes.exchange.response_received))?
                    .done()
            }
            Detail::HttpConnect { notes, next } => {
                notes.put_first(&mut fields)?;
                fields.show(keys::NEXT_UPSTREAM, next)?;
                notes.put_statuses(&mut fields)
            }
            Detail::H2Connection { counts } => {
                fields.show(keys::UPSTREAM, &subject.upstream)?;
                counts.put(&mut fields)
            }
            Detail::H2Ping { round_trip, counts } => {
                fields
                    .show(keys::UPSTREAM, &subject.upstream)?
                    .put(keys::RTT, &Dur(*round_trip))?;
                counts.put(&mut fields)
            }
            Detail::H2Stream { note, uri_max } => note.put(*uri_max, &mut fields),
            Detail::Websocket { handshake, .. } => {
                fields.show(keys::UPSTREAM, &subject.upstream)?;
                handshake.put(&mut fields)
            }
            Detail::HttpUpgrade { notes, protocol } => {
                notes.put_first(&mut fields)?;
                fields
                    .show(keys::NEXT_UPSTREAM, &subject.upstream)?
                    .put(keys::NEXT_PROTOCOL, &**protocol)?
                    .put(keys::URI, &*notes.exchange.uri)?;
                notes.put_statuses(&mut fields)
            }
        }
    }
}

impl RequestNotes {
    fn put_first(&self, fields: &mut Fields<'_>) -> slog::Result {
        fields
            .put(keys::REQUEST_ID, &self.id)?
            .put(keys::RECEIVED_AT, &self.received_at)?
            .done()
    }

    fn put_statuses(&self, fields: &mut Fields<'_>) -> slog::Result {
        let exchange = &self.exchange;
        fields
            .put(keys::RSP_STATUS, &exchange.rsp_status)?
            .put(keys::ORIGIN_STATUS, &exchange.origin_status)?
            .put(keys::DUR_REQ_SEND_HDR, &Dur(exchange.request_head_sent))?
            .put(keys::DUR_REQ_PIPELINE, &Dur(exchange.pipeline_wait))?
            .put(keys::DUR_RSP_RECV_HDR, &Dur(exchange.response_head_received))?
            .done()
    }
}
