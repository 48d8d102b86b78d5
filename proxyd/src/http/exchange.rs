//! One request exchanged for one response, over a connection that stands.
//!
//! Head and first body bytes go out in one write each way; what is longer is pumped. The response is read while the
//! request body is still being sent, so that an early answer reaches the client.
//!
//! Who exchanges decides what a request is, where its upstream comes from and what becomes of it: see
//! [`forward`](crate::http::forward) and [`h1`](crate::audit::h1). Messages that ICAP services adapt go another way, by
//! [`adapt`].

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use sluice_config::value::{ByteSize, Span, SpeedLimitTcp};
use sluice_http1::{
    Awaits, BodyFraming, BodyOut, BodyScanner, Connection, ForwardResponse, Limits, Partial, RequestHead, ResponseHead,
    Version, parse_response,
};
use sluice_io::Stream;
use sluice_io::buffer::{self, ReadBuffer};
use sluice_io::pump::{Framing, Meter as _, Pump, PumpEnd, PumpError};
use tokio::time::Instant;

use crate::client::{Client, Fill, Stall, poll_fill, write_all};
use crate::connect::Path;
use crate::error::TaskError;
use crate::http::adapt::{self, Adaptation, Standing};
use crate::http::body::Body;
use crate::task::Task;
use crate::traffic::{Downwards, Upwards};

/// A request, as much of it as the exchange needs to know.
pub(crate) struct Request {
    /// The head as it goes on; the first bytes of the body join it.
    pub(crate) head: Vec<u8>,
    pub(crate) framing: BodyFraming,
    pub(crate) awaits: Awaits,
    pub(crate) keep_alive: bool,
    pub(crate) http11: bool,
    pub(crate) expect_continue: bool,
    /// A switch of protocols was asked for and passed on.
    pub(crate) upgrade: bool,
    /// The credentials are for the connection (Negotiate, NTLM).
    pub(crate) binds_connection: bool,
    /// Some of the body has been taken from the client: it cannot be sent again.
    pub(crate) body_taken: bool,
}

impl Request {
    /// What was asked for by `asked`, and goes on with `head`; `upgrade` says that it asks for another protocol in turn.
    pub(crate) fn new(asked: &RequestHead<'_>, head: Vec<u8>, upgrade: bool, binds_connection: bool) -> Self {
        Self {
            head,
            framing: asked.framing,
            awaits: asked.method.awaits(),
            keep_alive: asked.keep_alive,
            http11: asked.version == Version::Http11,
            expect_continue: asked.expect_continue,
            upgrade,
            binds_connection,
            body_taken: false,
        }
    }
}

/// What differs between those who exchange.
pub(crate) trait Setting {
    /// What messages may be, and how long a response's head is waited for once the request is through.
    fn terms(&self) -> &Terms;
    /// Whether the client's connection ends with this response.
    fn is_ending(&self, head: &ResponseHead<'_>) -> bool;
    /// Appends what the head of a response that came by `path` gets beside its own fields.
    fn put_headers(&self, path: &Path, head: &ResponseHead<'_>, out: &mut Vec<u8>);
    /// What adapts the messages, if anything does.
    fn adaptation(&self) -> Option<Adaptation<'_>>;
}

/// The bounds of an exchange.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) request_limits: Limits,
    pub(crate) response_limits: Limits,
    pub(crate) response_timeout: Duration,
}

impl Terms {
    /// Of the keys that are named after them: bytes of heads, of a line within a chunked body, time for a response's head.
    pub(crate) fn new(
        request_head: ByteSize,
        response_head: ByteSize,
        body_line: usize,
        response_timeout: Span,
    ) -> Self {
        let limits = |head: ByteSize| Limits {
            head_max: u32::try_from(head.0).unwrap_or(u32::MAX),
            body_line_max: u32::try_from(body_line).unwrap_or(u32::MAX),
            ..Limits::default()
        };
        Self {
            request_limits: limits(request_head),
            response_limits: limits(response_head),
            response_timeout: response_timeout.0,
        }
    }
}

/// How an exchange ended, apart from failures.
pub(crate) enum Outcome {
    /// With a response.
    Done(Done),
    /// The connections have left HTTP: 101, or the 2xx of a CONNECT.
    Upgraded {
        /// What the upstream has sent since.
        first: Vec<u8>,
        /// What a 101 says is spoken now.
        protocol: Option<Box<str>>,
        /// What it says is spoken inside of a WebSocket.
        sub_protocol: Option<Box<str>>,
    },
}

/// What may be done with the connections after an exchange.
pub(crate) struct Done {
    pub(crate) client_persists: bool,
    pub(crate) upstream_persists: bool,
    /// The upstream connection is authenticated: it serves this client only.
    pub(crate) private: bool,
    /// The whole request has been read.
    pub(crate) request_done: bool,
}

/// Why an exchange failed.
pub(crate) struct Failure {
    pub(crate) error: TaskError,
    /// Something of the response has reached the client: there is no replying any more.
    pub(crate) begun: bool,
    /// The upstream closed a kept connection before any byte of a response: it may not even have seen the request.
    pub(crate) unheard: bool,
}

impl Failure {
    pub(crate) fn early(error: TaskError) -> Self {
        Self {
            error,
            begun: false,
            unheard: false,
        }
    }

    pub(crate) fn late(error: TaskError) -> Self {
        Self {
            error,
            begun: true,
            unheard: false,
        }
    }
}

/// The connection to an upstream, while it serves requests.
pub(crate) struct Upstream {
    pub(crate) stream: Stream,
    /// Received and not yet looked at.
    pub(crate) buf: ReadBuffer,
    /// It has served a request before this one.
    pub(crate) reused: bool,
    /// The escaper's speed limit.
    pub(crate) limit: Option<SpeedLimitTcp>,
}

/// The request body on its way.
struct Upload {
    pump: Option<Box<Pump<Body>>>,
    /// The client waits for `100 Continue`.
    held: bool,
    /// The upstream takes no more; its answer may tell why.
    broken: bool,
    /// When the response's head must be there; set once the request is through.
    deadline: Option<Instant>,
}

impl Upload {
    fn is_done(&self) -> bool {
        self.pump.is_none()
    }

    fn moved(&self) -> u64 {
        self.pump.as_ref().map_or(0, |pump| pump.moved())
    }
}

/// A request at work.
pub(crate) struct Exchange<'a> {
    pub(crate) setting: &'a (dyn Setting + Sync),
    pub(crate) task: &'a mut Task,
    pub(crate) request: &'a mut Request,
}

impl Exchange<'_> {
    /// Sends the request over `upstream` and brings the response back.
    pub(crate) async fn run(&mut self, client: &mut Client, upstream: &mut Upstream) -> Result<Outcome, Failure> {
        let setting = self.setting;
        if let Some(adaptation) = setting.adaptation()
            && self.request.awaits != Awaits::Connect
        {
            // A large future that most exchanges have no use for.
            return Box::pin(adapt::run(self, adaptation, client, &mut Standing(upstream))).await;
        }
        let mut upload = self.send_request(client, upstream).await?;
        let limits = self.setting.terms().response_limits;
        let mut partial = Partial::default();
        let mut heard = false;
        loop {
            while !upstream.buf.is_empty() && partial.is_worth_parsing(upstream.buf.filled(), limits.head_max) {
                // The head borrows the buffer while the rest of the connection is in use.
                let mut bytes = std::mem::take(&mut upstream.buf);
                match parse_response(bytes.filled(), &limits, self.request.awaits) {
                    Ok(Some(head)) if head.is_interim() => {
                        let len = head.len;
                        self.pass_interim(client, &head, &mut upload).await?;
                        drop(head);
                        bytes.consume(len);
                        partial = Partial::default();
                        upstream.buf = bytes;
                    }
                    Ok(Some(head)) => return self.finish(client, upstream, upload, &head, &bytes).await,
                    Ok(None) => {
                        upstream.buf = bytes;
                        break;
                    }
                    Err(error) => return Err(Failure::early(error.into())),
                }
            }
            self.await_response(client, upstream, &mut upload, heard).await?;
            heard = true;
        }
    }

    /// The request's head and the part of its body that is there already, in one write.
    async fn send_request(&mut self, client: &mut Client, upstream: &mut Upstream) -> Result<Upload, Failure> {
        let mut body = Body::new(self.request.framing, &self.setting.terms().request_limits);
        let head_len = self.request.head.len();
        let held = self.request.expect_continue && client.buf.is_empty();
        if !body.is_complete() && !client.buf.is_empty() {
            let n = body
                .admit(client.buf.filled())
                .map_err(|error| Failure::early(TaskError::InvalidRequestBody(error)))?;
            self.request.head.extend_from_slice(&client.buf.filled()[..n]);
            client.buf.consume(n);
            self.request.body_taken = true;
        }
        let taken = (self.request.head.len() - head_len) as u64;
        self.task.traffic.read_client(taken);
        let stall = self.task.stall_limit();
        self.task.pass_up(self.request.head.len()).await;
        let sent = write_all(&mut upstream.stream, &self.request.head, &mut client.timer, stall).await;
        let mut broken = false;
        match sent {
            Ok(()) => {
                self.task.traffic.wrote_remote(self.request.head.len() as u64);
            }
            Err(error) if upstream.reused => {
                return Err(Failure {
                    error: TaskError::UpstreamWrite(error),
                    begun: false,
                    unheard: true,
                });
            }
            // The upstream may have answered before it closed.
            Err(_) => broken = true,
        }
        let complete = body.is_complete();
        self.task.note_request_sent(complete);
        let mut upload = Upload {
            pump: (!complete).then(|| {
                let mut pump = Pump::new(body, self.task.pumps(upstream.limit).0);
                if let (Some(limit), _) = self.task.shared_limits() {
                    pump.share(limit);
                }
                Box::new(pump)
            }),
            held,
            broken,
            deadline: None,
        };
        if complete {
            self.begin_wait(client, &mut upload);
        }
        Ok(upload)
    }

    /// The request is through: the time for the response's head begins.
    fn begin_wait(&self, client: &mut Client, upload: &mut Upload) {
        let timeout = self.setting.terms().response_timeout;
        let now = Instant::now();
        upload.deadline = Some(now + timeout);
        let interval = self.task.server().options.check_interval();
        client.timer.arm_from(now, timeout.min(interval));
    }

    /// The timer has fired while a response's head is waited for: an error if it must not be waited for any longer.
    fn check_wait(&self, client: &mut Client, deadline: Instant) -> Option<TaskError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Some(TaskError::UpstreamTimeout(self.setting.terms().response_timeout));
        }
        let error = self.task.must_end();
        if error.is_none() {
            client.timer.arm(left.min(self.task.server().options.check_interval()));
        }
        error
    }

    /// Waits for bytes of the response while the request body goes on.
    async fn await_response(
        &mut self,
        client: &mut Client,
        upstream: &mut Upstream,
        upload: &mut Upload,
        heard: bool,
    ) -> Result<(), Failure> {
        let mut stall = Stall::new(self.task);
        if !upload.is_done() {
            stall.arm(&mut client.timer);
        }
        poll_fn(|cx| {
            if !upload.is_done() && !upload.broken && self.poll_upload(cx, client, upstream, upload)?.is_ready() {
                self.begin_wait(client, upload);
            }
            loop {
                match ready!(poll_fill(
                    cx,
                    &mut upstream.stream,
                    &mut upstream.buf,
                    &mut client.timer
                )) {
                    Fill::Bytes => return Poll::Ready(Ok(())),
                    Fill::Closed => {
                        let unheard = upstream.reused && !heard && upstream.buf.is_empty();
                        return Poll::Ready(Err(Failure {
                            error: TaskError::ClosedByUpstream,
                            begun: false,
                            unheard,
                        }));
                    }
                    Fill::Failed(error) => {
                        let unheard = upstream.reused && !heard && upstream.buf.is_empty();
                        let error = TaskError::UpstreamRead(error);
                        return Poll::Ready(Err(Failure {
                            error,
                            begun: false,
                            unheard,
                        }));
                    }
                    Fill::TimedOut => {
                        let error = match upload.deadline {
                            Some(deadline) => self.check_wait(client, deadline),
                            None if upload.broken => {
                                Some(TaskError::UpstreamTimeout(self.setting.terms().response_timeout))
                            }
                            None => stall.check(&mut client.timer, upload.moved()),
                        };
                        if let Some(error) = error {
                            return Poll::Ready(Err(Failure::early(error)));
                        }
                    }
                }
            }
        })
        .await
    }

    /// Moves the request body; ready once it is through.
    fn poll_upload(
        &self,
        cx: &mut Context<'_>,
        client: &mut Client,
        upstream: &mut Upstream,
        upload: &mut Upload,
    ) -> Result<Poll<()>, Failure> {
        let Some(pump) = &mut upload.pump else {
            return Ok(Poll::Ready(()));
        };
        let meter = Upwards(&self.task.traffic);
        if upload.held {
            // A client that waits for 100 may get tired of it (RFC 9110 §10.1.1).
            match client.buf.poll_fill(cx, &mut client.stream) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Ok(0)) => return Err(Failure::early(TaskError::ClosedEarlyByClient)),
                Poll::Ready(Err(error)) => return Err(Failure::early(TaskError::ClientRead(error))),
                Poll::Ready(Ok(_)) => upload.held = false,
            }
        }
        if !client.buf.is_empty() {
            let n = pump
                .feed(client.buf.filled())
                .map_err(|error| Failure::early(TaskError::InvalidRequestBody(error)))?;
            meter.read(n as u64);
            client.buf.consume(n);
        }
        match pump.poll(cx, &mut client.stream, &mut upstream.stream, &meter) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(_)) => {
                client.buf.put(&pump.take_excess());
                upload.pump = None;
                self.task.note_upload_done();
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(PumpError::Framing(error))) => Err(Failure::early(TaskError::InvalidRequestBody(error))),
            Poll::Ready(Err(PumpError::Read(error))) => Err(Failure::early(TaskError::ClientRead(error))),
            Poll::Ready(Err(PumpError::Truncated)) => Err(Failure::early(TaskError::ClosedEarlyByClient)),
            Poll::Ready(Err(PumpError::Write(_))) => {
                // An early refusal may be on its way (H1-11).
                upload.broken = true;
                Ok(Poll::Pending)
            }
        }
    }

    /// Hands a 1xx on to a client that can take it.
    async fn pass_interim(
        &mut self,
        client: &mut Client,
        head: &ResponseHead<'_>,
        upload: &mut Upload,
    ) -> Result<(), Failure> {
        // A 100 that nobody waits for (any more) is none of the client's business (H1-12).
        let wanted = self.request.http11 && (head.status != 100 || upload.held);
        upload.held = upload.held && head.status != 100;
        if !wanted {
            return Ok(());
        }
        let mut out = buffer::take();
        head.forward(&ForwardResponse::default(), &mut out);
        let sent = client.send(&out, self.task.stall_limit()).await;
        self.task.traffic.wrote_client(out.len() as u64);
        buffer::recycle(out);
        sent.map_err(|error| Failure::late(TaskError::ClientWrite(error)))
    }

    /// A final head has come.
    async fn finish(
        &mut self,
        client: &mut Client,
        upstream: &mut Upstream,
        upload: Upload,
        head: &ResponseHead<'_>,
        bytes: &ReadBuffer,
    ) -> Result<Outcome, Failure> {
        self.task.note_response_head(head.status);
        if head.status == 101 || self.request.awaits == Awaits::Connect && (200..300).contains(&head.status) {
            return Box::pin(self.upgrade(client, &upload, head, bytes)).await;
        }
        let dechunk = !self.request.http11 && head.framing == BodyFraming::Chunked;
        if dechunk && head.is_coded {
            return Err(Failure::early(TaskError::UncodableForHttp10));
        }
        if !self.request.http11 && head.framing == BodyFraming::UntilClose && head.is_coded {
            return Err(Failure::early(TaskError::UncodableForHttp10));
        }
        let persists = self.request.keep_alive
            && upload.is_done()
            && !head.taints
            && !dechunk
            && head.framing != BodyFraming::UntilClose
            && !self.setting.is_ending(head);
        let how = ForwardResponse {
            connection: match (persists, self.request.http11) {
                (true, true) => Connection::Implied,
                (true, false) => Connection::KeepAlive,
                (false, _) => Connection::Close,
            },
            body: if dechunk {
                BodyOut::UntilClose
            } else {
                BodyOut::AsReceived
            },
            extra: b"",
        };
        let mut extra = Vec::new();
        self.setting.put_headers(self.task.path(), head, &mut extra);
        let mut out = buffer::take();
        head.forward(&ForwardResponse { extra: &extra, ..how }, &mut out);
        let keep = Keep {
            upstream: head.keep_alive && !head.taints && upload.is_done(),
            private: is_connection_bound(self.request, head),
            client: persists,
            upload_done: upload.is_done(),
        };
        let rest = &bytes.filled()[head.len..];
        self.task.traffic.read_remote(bytes.filled().len() as u64);
        if dechunk {
            let scanner = BodyScanner::new(head.framing, &self.setting.terms().response_limits);
            return Box::pin(self.send_without_chunks(client, upstream, scanner, rest, out)).await;
        }
        let mut body = Body::new(head.framing, &self.setting.terms().response_limits);
        let n = body
            .admit(rest)
            .map_err(|error| Failure::early(TaskError::InvalidResponseBody(error)))?;
        out.extend_from_slice(&rest[..n]);
        let excess = n < rest.len();
        self.task.pass_down(out.len()).await;
        let stall = self.task.stall_limit();
        let sent = if body.is_complete() && !keep.client && keep.upload_done && client.buf.is_empty() {
            client.send_last(&out, stall).await
        } else {
            client.send(&out, stall).await
        };
        self.task.traffic.wrote_client(out.len() as u64);
        buffer::recycle(out);
        sent.map_err(|error| Failure::late(TaskError::ClientWrite(error)))?;
        if body.is_complete() {
            self.task.note_response_received();
            return Ok(Outcome::Done(Done {
                client_persists: keep.client,
                upstream_persists: keep.upstream && !excess,
                private: keep.private,
                request_done: keep.upload_done,
            }));
        }
        // What few requests come to gets memory of its own: a client that waits has room for the largest state of all.
        Box::pin(self.pump_response(client, upstream, upload, body, &keep)).await
    }

    /// Sends the rest of a response, and of its request if that is still going on.
    async fn pump_response(
        &mut self,
        client: &mut Client,
        upstream: &mut Upstream,
        mut upload: Upload,
        body: Body,
        keep: &Keep,
    ) -> Result<Outcome, Failure> {
        let mut pump = Pump::new(body, self.task.pumps(upstream.limit).1);
        if let (_, Some(limit)) = self.task.shared_limits() {
            pump.share(limit);
        }
        let mut stall = Stall::new(self.task);
        stall.arm(&mut client.timer);
        let ended = poll_fn(|cx| {
            if !upload.is_done() && !upload.broken {
                // Whatever goes wrong with the upload, the response is what counts now.
                upload.broken = self.poll_upload(cx, client, upstream, &mut upload).is_err() || upload.broken;
            }
            let meter = Downwards(&self.task.traffic);
            if let Poll::Ready(ended) = pump.poll(cx, &mut upstream.stream, &mut client.stream, &meter) {
                return Poll::Ready(ended.map_err(|error| match error {
                    PumpError::Framing(error) => TaskError::InvalidResponseBody(error),
                    PumpError::Read(error) => TaskError::UpstreamRead(error),
                    PumpError::Truncated => TaskError::ClosedByUpstream,
                    PumpError::Write(error) => TaskError::ClientWrite(error),
                }));
            }
            loop {
                ready!(client.timer.poll_fired(cx));
                if let Some(error) = stall.check(&mut client.timer, pump.moved() + upload.moved()) {
                    return Poll::Ready(Err(error));
                }
                if stall.is_log_due() {
                    self.task.log(crate::record::Event::Periodic);
                }
            }
        })
        .await
        .map_err(Failure::late)?;
        self.task.note_response_received();
        let excess = ended == PumpEnd::Eof || !pump.take_excess().is_empty();
        Ok(Outcome::Done(Done {
            client_persists: keep.client,
            upstream_persists: keep.upstream && !excess,
            private: keep.private,
            request_done: upload.is_done(),
        }))
    }

    /// A chunked response for an HTTP/1.0 client: its payload until close.
    async fn send_without_chunks(
        &mut self,
        client: &mut Client,
        upstream: &mut Upstream,
        mut scanner: BodyScanner,
        first: &[u8],
        mut out: Vec<u8>,
    ) -> Result<Outcome, Failure> {
        let stall = self.task.stall_limit();
        upstream.buf.put(first);
        loop {
            let mut rest = upstream.buf.filled();
            while let Some(payload) = scanner
                .payload(&mut rest)
                .map_err(|error| Failure::late(TaskError::InvalidResponseBody(error)))?
            {
                out.extend_from_slice(payload);
            }
            let n = upstream.buf.filled().len();
            upstream.buf.consume(n);
            self.task.pass_down(out.len()).await;
            client
                .send(&out, stall)
                .await
                .map_err(|error| Failure::late(TaskError::ClientWrite(error)))?;
            self.task.traffic.wrote_client(out.len() as u64);
            out.clear();
            if scanner.is_done() {
                self.task.note_response_received();
                return Ok(Outcome::Done(Done {
                    client_persists: false,
                    upstream_persists: false,
                    private: false,
                    request_done: false,
                }));
            }
            client.timer.arm(stall);
            let Upstream { stream, buf, .. } = &mut *upstream;
            match poll_fn(|cx| poll_fill(cx, stream, buf, &mut client.timer)).await {
                Fill::Bytes => {
                    self.task.traffic.read_remote(upstream.buf.filled().len() as u64);
                }
                Fill::Closed => return Err(Failure::late(TaskError::ClosedByUpstream)),
                Fill::Failed(error) => return Err(Failure::late(TaskError::UpstreamRead(error))),
                Fill::TimedOut => return Err(Failure::late(TaskError::Idle)),
            }
        }
    }

    /// 101, or the 2xx of a CONNECT: the connections leave HTTP.
    async fn upgrade(
        &mut self,
        client: &mut Client,
        upload: &Upload,
        head: &ResponseHead<'_>,
        bytes: &ReadBuffer,
    ) -> Result<Outcome, Failure> {
        if head.status == 101 && (!self.request.upgrade || !upload.is_done()) {
            return Err(Failure::early(TaskError::UnwantedUpgrade));
        }
        let mut extra = Vec::new();
        self.setting.put_headers(self.task.path(), head, &mut extra);
        let mut out = buffer::take();
        head.forward(
            &ForwardResponse {
                connection: match head.status {
                    101 => Connection::Upgrade,
                    _ => Connection::Implied,
                },
                body: BodyOut::AsReceived,
                extra: &extra,
            },
            &mut out,
        );
        let sent = client.send(&out, self.task.stall_limit()).await;
        self.task.traffic.wrote_client(out.len() as u64);
        buffer::recycle(out);
        sent.map_err(|error| Failure::late(TaskError::ClientWrite(error)))?;
        self.task.traffic.read_remote(bytes.filled().len() as u64);
        Ok(Outcome::Upgraded {
            first: bytes.filled()[head.len..].to_vec(),
            protocol: head.upgrade().map(|name| String::from_utf8_lossy(name).into()),
            sub_protocol: sub_protocol(head),
        })
    }
}

/// What a 101 says is spoken inside of a WebSocket (RFC 6455 §4.2.2).
pub(crate) fn sub_protocol(head: &ResponseHead<'_>) -> Option<Box<str>> {
    head.field("sec-websocket-protocol")
        .map(|field| String::from_utf8_lossy(field.value).into())
}

/// What may be kept once the response is through.
struct Keep {
    upstream: bool,
    /// The upstream connection is authenticated: it serves this client only.
    private: bool,
    client: bool,
    upload_done: bool,
}

/// Whether the peers authenticate the connection rather than the request (Negotiate and NTLM do).
pub(crate) fn is_connection_bound(request: &Request, head: &ResponseHead<'_>) -> bool {
    request.binds_connection
        || (matches!(head.status, 401 | 407)
            && head.fields().any(|field| {
                (field.name.eq_ignore_ascii_case("www-authenticate")
                    || field.name.eq_ignore_ascii_case("proxy-authenticate"))
                    && binds_connection(field.value)
            }))
}

/// Whether credentials or a challenge are of a scheme that authenticates the connection.
pub(crate) fn binds_connection(value: &[u8]) -> bool {
    [&b"negotiate"[..], b"ntlm"].iter().any(|scheme| {
        value
            .get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            && value.get(scheme.len()).is_none_or(|&next| next == b' ' || next == b',')
    })
}
