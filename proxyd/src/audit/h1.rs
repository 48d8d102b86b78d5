//! HTTP/1 interception: requests of one client over the connection to the one server that it has chosen.
//!
//! Unlike a forward proxy this one stands where the client believes the server to be. Targets and fields go on as they
//! came, the two connections live and end together, and what leaves HTTP (an Upgrade, a CONNECT inside) is handed back to
//! whoever looks into it next. Framing is as strict as everywhere.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use sluice_addr::{Host, Upstream as Target};
use sluice_http1::{
    Authority, Awaits, Connection, ForwardRequest, HostLine, Partial, Redacted, Reply, RequestHead, ResponseHead,
    TargetLine, parse_request, put_field,
};
use sluice_io::buffer;
use sluice_telemetry::value::Timestamp;
use tokio::io::AsyncWrite as _;
use tokio::time::Instant;

use super::config::AuditorConfig;
use super::intercept::{Detail, RequestNotes, Subject};
use super::tls::Sides;
use super::websocket::{self, Handshake};
use crate::client::{Client, Fill, poll_fill};
use crate::connect::Path;
use crate::error::TaskError;
use crate::http::adapt::Adaptation;
use crate::http::exchange::{self, Exchange, Failure, Outcome, Setting, Terms, Upstream, binds_connection};
use crate::http::reply::status_of;
use crate::icap::Services;
use crate::record::ForwardNotes;
use crate::task::Task;
use crate::worker::Worker;

/// How one auditor intercepts HTTP/1.
#[derive(Debug, Clone)]
pub(crate) struct H1Interception {
    terms: Terms,
    /// How long a client may wait with its next request.
    client_idle: Duration,
    /// How long a request's head may take, once it has begun.
    request_timeout: Duration,
    /// Whether the client's `Forwarded` and `X-Forwarded-For` are dropped.
    steal_forwarded_for: bool,
    /// Characters of a URI in records.
    log_uri_max_chars: usize,
    /// What adapts messages.
    icap: Services,
}

/// How an intercepted connection ends, apart from failures.
pub(crate) enum End {
    /// Both sides are closed.
    Closed,
    /// It has left HTTP. What the upstream has sent since is in its buffer.
    Left(Sides, Next),
}

/// What a connection leaves HTTP for.
pub(crate) enum Next {
    /// A tunnel to this place, as the server has agreed to.
    Connect(Target),
    /// A protocol, by the name that the server has given it; with what is said of a WebSocket, if that is logged.
    Upgrade(Box<str>, Option<Box<Handshake>>),
}

impl H1Interception {
    /// What runs by `config`.
    pub(crate) fn new(config: &AuditorConfig, icap: Services) -> Self {
        let keys = &config.h1_interception;
        Self {
            terms: Terms::new(
                keys.req_header_max_size,
                keys.rsp_header_max_size,
                keys.body_line_max_length,
                keys.rsp_header_recv_timeout,
            ),
            client_idle: keys.pipeline_read_idle_timeout.0,
            request_timeout: keys.req_header_recv_timeout.0,
            steal_forwarded_for: keys.steal_forwarded_for,
            log_uri_max_chars: config.log_uri_max_chars,
            icap,
        }
    }

    /// Serves a client to the end of its connection. `websocket_blocked` names WebSocket if it must not be begun.
    ///
    /// # Errors
    /// Why the connection ended other than by a close between two requests. Who could be told has been told.
    pub(crate) async fn run(
        &self,
        subject: &Subject,
        worker: &Worker,
        sides: Sides,
        task: &mut Task,
        websocket_blocked: Option<&'static str>,
    ) -> Result<End, TaskError> {
        let mut connection = H1Connection {
            options: self,
            subject,
            worker,
            task,
            websocket_blocked,
            requests: 0,
        };
        let ended = connection.serve(sides).await;
        let requests = connection.requests;
        let detail = || Detail::H1Connection { requests };
        match &ended {
            Ok(_) => subject.log(detail, "finished"),
            Err(error) => subject.log(detail, error),
        }
        ended
    }
}

/// A connection at work.
struct H1Connection<'a> {
    options: &'a H1Interception,
    subject: &'a Subject,
    worker: &'a Worker,
    task: &'a mut Task,
    websocket_blocked: Option<&'static str>,
    /// Requests so far.
    requests: u64,
}

/// A request that goes on.
struct Planned {
    message: exchange::Request,
    /// Bytes of the head as received.
    received: u64,
    /// Where a CONNECT wants to go.
    connect: Option<Target>,
    received_at: Timestamp,
    host: Option<Box<str>>,
    notes: ForwardNotes,
    /// What it says of a WebSocket.
    websocket: Option<Box<Handshake>>,
}

/// What happens between two requests.
enum Event {
    Client(Fill),
    Stop,
    Upstream(io::Result<usize>),
}

/// What the exchanges of an intercepted connection are bound by.
struct OfConnection<'a> {
    terms: Terms,
    worker: &'a Worker,
    icap: &'a Services,
}

impl Setting for OfConnection<'_> {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn is_ending(&self, head: &ResponseHead<'_>) -> bool {
        // There is no other connection for the next request.
        !head.keep_alive || self.worker.tasks.is_stopping()
    }

    fn put_headers(&self, _: &Path, head: &ResponseHead<'_>, out: &mut Vec<u8>) {
        // The server is itself a proxy whose client we stand in for.
        let of_proxy = ["proxy-authenticate", "proxy-authentication-info"];
        for field in head.fields() {
            if of_proxy.iter().any(|name| field.name.eq_ignore_ascii_case(name)) {
                // It has been read from a head, so it fits into one.
                let _ = put_field(out, field.name, field.value);
            }
        }
    }

    fn adaptation(&self) -> Option<Adaptation<'_>> {
        (!self.icap.is_empty()).then_some(Adaptation {
            services: self.icap,
            tasks: &self.worker.tasks,
        })
    }
}

impl H1Connection<'_> {
    async fn serve(
        &mut self,
        Sides {
            mut client,
            mut upstream,
        }: Sides,
    ) -> Result<End, TaskError> {
        loop {
            let mut planned = match self.next(&mut client, &mut upstream).await {
                Ok(Some(planned)) => planned,
                Ok(None) => {
                    // The client has sent nothing that could be lost, or nothing that belongs to anybody.
                    client.shut().await;
                    say_goodbye(&mut upstream).await;
                    return Ok(End::Closed);
                }
                Err(error) => {
                    Box::pin(turn_away(client, &error, false, self.task)).await;
                    return Err(error);
                }
            };
            self.requests += 1;
            let outcome = self.exchange(&mut planned, &mut client, &mut upstream).await;
            self.log(&mut planned, &outcome);
            match outcome {
                Ok(Outcome::Done(done)) if done.client_persists && done.upstream_persists => {
                    upstream.reused = true;
                }
                Ok(Outcome::Done(done)) => {
                    // Nothing that the client sent is left unread, so that no reset can overtake the response.
                    if !done.request_done || !client.buf.is_empty() {
                        Box::pin(client.close()).await;
                    } else {
                        client.shut().await;
                    }
                    say_goodbye(&mut upstream).await;
                    return Ok(End::Closed);
                }
                Ok(Outcome::Upgraded {
                    first,
                    protocol,
                    sub_protocol,
                }) => {
                    upstream.buf.put(&first);
                    if let Some(websocket) = &mut planned.websocket {
                        websocket.sub_protocol = sub_protocol;
                    }
                    let next = match planned.connect {
                        Some(target) => Next::Connect(target),
                        None => Next::Upgrade(protocol.unwrap_or_default(), planned.websocket.take()),
                    };
                    return Ok(End::Left(Sides { client, upstream }, next));
                }
                Err(failure) => {
                    let head_only = planned.message.awaits == Awaits::Head;
                    // What the server has closed before it saw the request is closed to the client, who will ask again.
                    if !failure.begun && !failure.unheard {
                        Box::pin(turn_away(client, &failure.error, head_only, self.task)).await;
                    }
                    return Err(failure.error);
                }
            }
        }
    }

    async fn exchange(
        &mut self,
        planned: &mut Planned,
        client: &mut Client,
        upstream: &mut Upstream,
    ) -> Result<Outcome, Failure> {
        self.task.traffic.read_client(planned.received);
        self.task.begin_inner(std::mem::take(&mut planned.notes));
        let setting = OfConnection {
            terms: self.options.terms,
            worker: self.worker,
            icap: &self.options.icap,
        };
        let mut exchange = Exchange {
            setting: &setting,
            task: self.task,
            request: &mut planned.message,
        };
        let outcome = exchange.run(client, upstream).await;
        buffer::recycle(std::mem::take(&mut planned.message.head));
        planned.notes = self.task.end_inner().unwrap_or_default();
        if let Err(failure) = &outcome
            && !failure.begun
            && !failure.unheard
        {
            // As it is told below.
            planned.notes.rsp_status = status_of(&failure.error).unwrap_or_default();
        }
        outcome
    }

    fn log(&self, planned: &mut Planned, outcome: &Result<Outcome, Failure>) {
        if !self.subject.log.enabled() {
            return;
        }
        let notes = Box::new(RequestNotes {
            id: self.requests,
            received_at: planned.received_at,
            host: planned.host.take(),
            exchange: std::mem::take(&mut planned.notes),
        });
        let detail = match (&planned.connect, outcome) {
            (Some(next), _) => Detail::HttpConnect {
                notes,
                next: next.clone(),
            },
            (None, Ok(Outcome::Upgraded { protocol, .. })) => Detail::HttpUpgrade {
                notes,
                protocol: protocol.clone().unwrap_or_default(),
            },
            (None, _) => Detail::HttpForward(notes),
        };
        match outcome {
            Ok(_) => self.subject.log(|| detail, "ok"),
            Err(failure) => self.subject.log(|| detail, &failure.error),
        }
    }

    /// Waits for the next request and decides how it goes on; `None` if there is none any more.
    async fn next(&mut self, client: &mut Client, upstream: &mut Upstream) -> Result<Option<Planned>, TaskError> {
        if client.buf.is_empty() && !self.wait(client, upstream).await? {
            return Ok(None);
        }
        let (begun, received_at) = (Instant::now(), Timestamp::now());
        let limits = self.options.terms.request_limits;
        let mut partial = Partial::default();
        let mut timed = false;
        loop {
            let bytes = client.buf.filled();
            if partial.is_worth_parsing(bytes, limits.head_max)
                && let Some(mut head) = parse_request(bytes, &limits)?
            {
                let len = head.len;
                let planned = self.plan(&mut head, begun, received_at)?;
                client.buf.consume(len);
                return Ok(Some(planned));
            }
            if !std::mem::replace(&mut timed, true) {
                client.timer.arm_from(begun, self.options.request_timeout);
            }
            match client.fill().await {
                Fill::Bytes => {}
                Fill::Closed if client.buf.is_empty() => return Ok(None),
                Fill::Closed => return Err(TaskError::ClosedEarlyByClient),
                Fill::Failed(error) => return Err(TaskError::ClientRead(error)),
                Fill::TimedOut => return Err(TaskError::ClientTimeout(self.options.request_timeout)),
            }
        }
    }

    /// Waits for the first byte of a request; `false` if the connection is to end instead.
    async fn wait(&self, client: &mut Client, upstream: &mut Upstream) -> Result<bool, TaskError> {
        let mut now = Instant::now();
        let deadline = now + self.options.client_idle;
        let interval = self.task.server().options.check_interval();
        loop {
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() || self.worker.tasks.is_stopping() {
                return Ok(false);
            }
            client.timer.arm_from(now, left.min(interval));
            let Client { stream, buf, timer, .. } = &mut *client;
            let event = poll_fn(|cx| {
                if let Poll::Ready(filled) = poll_fill(cx, stream, buf, timer) {
                    return Poll::Ready(Event::Client(filled));
                }
                if self.worker.tasks.is_stopping() {
                    return Poll::Ready(Event::Stop);
                }
                upstream.buf.poll_fill(cx, &mut upstream.stream).map(Event::Upstream)
            })
            .await;
            match event {
                Event::Client(Fill::Bytes) => return Ok(true),
                // Before the first request this is a refusal, such as of a client without a certificate in TLS 1.3.
                Event::Upstream(Err(error)) if self.requests == 0 => return Err(TaskError::UpstreamRead(error)),
                // The server's end is the client's. Bytes without a request belong to nobody.
                Event::Client(Fill::Closed | Fill::Failed(_)) | Event::Stop | Event::Upstream(_) => return Ok(false),
                Event::Client(Fill::TimedOut) => {
                    if let Some(end) = self.task.must_end() {
                        return Err(end);
                    }
                    now = Instant::now();
                }
            }
        }
    }

    /// What becomes of a request with this head.
    fn plan(&self, head: &mut RequestHead<'_>, begun: Instant, received_at: Timestamp) -> Result<Planned, TaskError> {
        let target = head.target()?;
        let connect = match &target {
            sluice_http1::Target::Authority(authority) => Some(authority.to_upstream(443)?),
            _ => None,
        };
        if connect.is_some() && !head.framing.is_empty() {
            return Err(TaskError::Unimplemented("CONNECT with a body"));
        }
        if self.options.steal_forwarded_for {
            head.remove("forwarded");
            head.remove("x-forwarded-for");
        }
        if let (Some(name), Some(protocol)) = (self.websocket_blocked, head.upgrade)
            && websocket::is_among(protocol)
        {
            return Err(TaskError::ProtocolBlocked(name));
        }
        // Requests inside of `h2c` would pass unseen. Whatever else is agreed on is looked into as a tunnel is.
        let upgrade = head.upgrade.is_some_and(|protocol| {
            let mut names = protocol.split(|&b| b == b',').map(<[u8]>::trim_ascii);
            names.all(|name| !name.eq_ignore_ascii_case(b"h2c"))
        }) && head.framing.is_empty();
        let logged = self.subject.log.enabled();
        let is_websocket = head.upgrade.is_some_and(websocket::is_among);
        let websocket = (upgrade && logged && is_websocket).then(|| Box::new(handshake(head)));
        let mut extra = Vec::new();
        let line = match &target {
            // A server knows itself by the path alone (RFC 9112 §3.2.1).
            sluice_http1::Target::Absolute(url) if self.is_of_server(&url.authority) => TargetLine::Origin(url),
            sluice_http1::Target::Origin(_) | sluice_http1::Target::Asterisk => TargetLine::Raw(head.raw_target),
            sluice_http1::Target::Absolute(_) | sluice_http1::Target::Authority(_) => {
                if let Some(credentials) = head.proxy_authorization {
                    // It has been read from a head, so it fits into one.
                    let _ = put_field(&mut extra, "Proxy-Authorization", credentials);
                }
                TargetLine::Raw(head.raw_target)
            }
        };
        let how = ForwardRequest {
            target: line,
            host: HostLine::AsSent,
            connection: match (upgrade, head.keep_alive) {
                (true, _) => Connection::Upgrade,
                (false, true) => Connection::Implied,
                (false, false) => Connection::Close,
            },
            extra: &extra,
        };
        let mut out = buffer::take();
        head.forward(&how, &mut out);
        Ok(Planned {
            websocket,
            message: exchange::Request::new(head, out, upgrade, head.authorization.is_some_and(binds_connection)),
            received: head.len as u64,
            connect,
            received_at,
            host: head.host.filter(|_| logged).map(Into::into),
            notes: match logged {
                true => self.notes(head, begun),
                false => ForwardNotes::default(),
            },
        })
    }

    /// What is known of a request for its record.
    fn notes(&self, head: &RequestHead<'_>, begun: Instant) -> ForwardNotes {
        ForwardNotes {
            method: head.method.as_str().into(),
            uri: Redacted::new(head.raw_target, self.options.log_uri_max_chars)
                .to_string()
                .into(),
            pipeline_wait: begun.elapsed(),
            ..ForwardNotes::default()
        }
    }

    /// Whether a URL is of the very server that the connection leads to.
    fn is_of_server(&self, authority: &Authority<'_>) -> bool {
        let server = &self.subject.upstream;
        Host::parse(authority.host).is_ok_and(|host| host == server.host)
            && authority.port.is_none_or(|port| port == server.port)
    }
}

/// What a request for a WebSocket says.
fn handshake(head: &RequestHead<'_>) -> Handshake {
    let text = |name| {
        let field = head.field(name);
        field.map(|field| String::from_utf8_lossy(field.value).into())
    };
    Handshake {
        resource: head.raw_target.into(),
        origin: text("origin"),
        sub_protocol: None,
        version: text("sec-websocket-version"),
    }
}

/// Ends the connection to the server in the way of its stream, as far as it takes that at once (TLS-04).
async fn say_goodbye(upstream: &mut Upstream) {
    poll_fn(|cx| {
        let _ = Pin::new(&mut upstream.stream).poll_shutdown(cx);
        Poll::Ready(())
    })
    .await;
}

/// Tells a client why its request comes to nothing, and closes.
async fn turn_away(mut client: Box<Client>, error: &TaskError, head_only: bool, task: &Task) {
    task.traffic.read_client(client.buf.filled().len() as u64);
    let Some(status) = status_of(error) else { return };
    let mut out = buffer::take();
    Reply {
        head_only,
        ..Reply::closing(status)
    }
    .put(&mut out);
    let sent = client.send(&out, task.stall_limit()).await;
    task.traffic.wrote_client(out.len() as u64);
    buffer::recycle(out);
    if sent.is_ok() {
        client.close().await;
    }
}
