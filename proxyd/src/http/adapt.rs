//! An exchange whose messages ICAP services see.
//!
//! As [`Exchange`], but bodies are taken out of their framing, go through the services, and are framed anew. Request and
//! response are adapted independently: the response may come, and go on, while the request is still being sent.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use sluice_http1::{
    Awaits, BodyFraming, BodyOut, CONTINUE, ChunkScanner, Connection, ForwardRequest, ForwardResponse, HostLine,
    Limits, Partial, RequestHead, ResponseHead, Target, TargetLine, parse_request, parse_response, put_chunk,
    put_field,
};
use sluice_io::buffer::ReadBuffer;
use sluice_io::pump::PumpOptions;
use sluice_io::throttle::{Refill, SharedLimit};
use sluice_lifecycle::Tasks;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use crate::client::{Client, Stall};
use crate::error::TaskError;
use crate::http::exchange::{Done, Exchange, Failure, Outcome, Upstream, is_connection_bound};
use crate::icap::{Adapted, Ask, Body, BodySource, Flow, IcapError, Services, Verdict};
use crate::record::Event;
use crate::task::Task;
use crate::user::Permit;

/// What adapts the messages of an exchange.
#[derive(Clone, Copy)]
pub(crate) struct Adaptation<'a> {
    pub(crate) services: &'a Services,
    /// Where work beside the exchange is counted.
    pub(crate) tasks: &'a Tasks,
}

/// Bounds for heads that were parsed once already, or that a service has made.
const OWN: Limits = Limits {
    head_max: 256 * 1024,
    fields_max: 1024,
    body_line_max: 8192,
    require_host: false,
};

/// Sends the request over `upstream` and brings the response back, each as the services want it.
pub(crate) async fn run(
    exchange: &mut Exchange<'_>,
    adaptation: Adaptation<'_>,
    client: &mut Client,
    upstream: &mut Upstream,
) -> Result<Outcome, Failure> {
    let counts = Counts::default();
    let outcome = adapt(exchange, adaptation, client, upstream, &counts).await;
    counts.settle(exchange.task);
    outcome
}

/// Bytes of an exchange that are not yet told to its task.
#[derive(Debug, Default)]
struct Counts {
    client_read: AtomicU64,
    client_written: AtomicU64,
    remote_read: AtomicU64,
    remote_written: AtomicU64,
    /// All of them, and those that were told already.
    moved: AtomicU64,
}

impl Counts {
    fn add(&self, counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    fn settle(&self, task: &Task) {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        task.traffic.read_client(take(&self.client_read));
        task.traffic.wrote_client(take(&self.client_written));
        task.traffic.read_remote(take(&self.remote_read));
        task.traffic.wrote_remote(take(&self.remote_written));
    }
}

/// How the request is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Going,
    Done,
    /// The upstream takes no more; its answer may tell why.
    Broken,
}

/// Why a body did not get through.
enum Stop {
    Sink(io::Error),
    Source(TaskError),
}

async fn adapt(
    exchange: &mut Exchange<'_>,
    adaptation: Adaptation<'_>,
    client: &mut Client,
    upstream: &mut Upstream,
    counts: &Counts,
) -> Result<Outcome, Failure> {
    let Exchange { setting, task, request } = exchange;
    let terms = *setting.terms();
    let idle = task.stall_limit();
    let user = task.permit().and_then(Permit::log_name).map(Arc::clone);
    let (up, down) = task.pumps(upstream.limit);
    let (shared_up, shared_down) = task.shared_limits();
    let (up, down) = (Speed::new(&up, shared_up), Speed::new(&down, shared_down));
    let Client {
        stream,
        buf,
        timer,
        peers,
        ..
    } = client;
    let (mut client_in, mut client_out) = tokio::io::split(stream);
    let was_reused = upstream.reused;
    let (mut up_in, mut up_out) = tokio::io::split(&mut upstream.stream);
    let up_buf = &mut upstream.buf;
    let mut client_out = Out {
        writer: &mut client_out,
        counts,
        counter: &counts.client_written,
        speed: &down,
    };
    let mut up_out = Out {
        writer: &mut up_out,
        counts,
        counter: &counts.remote_written,
        speed: &up,
    };

    // The body is wanted here whatever the origin thinks of it.
    if request.expect_continue && buf.is_empty() {
        let sent = client_out.write(CONTINUE, idle).await;
        sent.map_err(|error| Failure::early(TaskError::ClientWrite(error)))?;
    }
    let mut framed = Framed::new(request.framing, &terms.request_limits);
    request.body_taken = !request.framing.is_empty();
    let request_read = AtomicBool::new(!request.body_taken);
    let source = request.body_taken.then_some(Incoming {
        reader: &mut client_in,
        buf,
        framed: &mut framed,
        counts,
        side: Side::Client,
        ended: &request_read,
    });
    let original = parse_request(&request.head, &OWN)
        .map_err(|error| Failure::early(error.into()))?
        .ok_or_else(|| Failure::early(TaskError::NoUpstream))?;
    let ask = Ask {
        request_head: &request.head,
        response_head: b"",
        client: peers.client,
        user: user.as_deref(),
        upgrade: original.upgrade,
        transformed_from: None,
        shared: b"",
        idle,
    };
    let Adapted { verdict, body, shared } = match &adaptation.services.reqmod {
        Some(service) => Box::pin(service.adapt(&ask, source, adaptation.tasks))
            .await
            .map_err(Failure::early)?,
        None => Adapted {
            verdict: Verdict::Unchanged,
            body: source.map(|source| Body::Same {
                held: Vec::new(),
                ended: false,
                source,
            }),
            shared: Vec::new(),
        },
    };
    let (request_head, up_framing) = match verdict {
        Verdict::Unchanged => {
            let mut head = original.clone();
            head.remove("expect");
            let framing = head.framing;
            (forward_request(&head, &original), framing)
        }
        Verdict::Request(bytes) => {
            let adapted = adapted_request(&bytes, &original, body.is_some()).map_err(Failure::early)?;
            request.awaits = adapted.awaits;
            (adapted.head, adapted.framing)
        }
        Verdict::Response(bytes) => {
            let unfit = |text: String| Failure::early(IcapError::UnfitResponse(text).into());
            let mut head = parse_response(&bytes, &OWN, request.awaits)
                .map_err(|error| unfit(error.to_string()))?
                .filter(|head| head.status >= 200)
                .ok_or_else(|| unfit("no final head".to_owned()))?;
            task.note_reply(head.status);
            let reply = Reply::new(&mut head, body.is_some(), request.http11).map_err(Failure::early)?;
            let request_done = request_read.load(Ordering::Relaxed);
            let persists = request.keep_alive && request_done && reply.framing != BodyFraming::UntilClose;
            let mut out = Vec::new();
            let extra = own_headers(*setting, &head);
            let how = ForwardResponse {
                connection: connection(persists, request.http11),
                body: reply.how,
                extra: &extra,
            };
            head.forward(&how, &mut out);
            let sent = send_message(out, body, reply.framing, &mut client_out, idle).await;
            match sent {
                Ok(()) => {}
                Err(Stop::Sink(error)) => return Err(Failure::late(TaskError::ClientWrite(error))),
                Err(Stop::Source(error)) => return Err(Failure::late(error)),
            }
            return Ok(Outcome::Done(Done {
                client_persists: persists,
                upstream_persists: true,
                private: false,
                request_done,
            }));
        }
    };

    task.note_request_sent(body.is_none());
    let sent_head = request_head.clone();
    let upload = send_message(request_head, body, up_framing, &mut up_out, idle);
    let mut upload = pin!(upload);
    let mut sending = Sending::Going;
    let mut partial = Partial::default();
    let mut heard = false;
    let limits = terms.response_limits;
    let mut stall = Stall::new(task);
    stall.arm(timer);
    let mut deadline: Option<Instant> = None;
    // The head of the final response, then everything behind it.
    let bytes = loop {
        let mut interim = None;
        if !up_buf.is_empty() && partial.is_worth_parsing(up_buf.filled(), limits.head_max) {
            match parse_response(up_buf.filled(), &limits, request.awaits) {
                Ok(Some(head)) if head.is_interim() => {
                    let mut out = Vec::new();
                    head.forward(&ForwardResponse::default(), &mut out);
                    interim = Some((head.status, head.len, out));
                }
                Ok(Some(_)) => break std::mem::take(up_buf),
                Ok(None) => {}
                Err(error) => return Err(Failure::early(error.into())),
            }
        }
        if let Some((status, len, out)) = interim {
            up_buf.consume(len);
            partial = Partial::default();
            // The client's own wait for 100 has been ended here.
            if request.http11 && status != 100 {
                let sent = client_out.write(&out, idle).await;
                sent.map_err(|error| Failure::late(TaskError::ClientWrite(error)))?;
            }
            continue;
        }
        let got = poll_fn(|cx| {
            if sending == Sending::Going
                && let Poll::Ready(sent) = upload.as_mut().poll(cx)
            {
                match sent {
                    Ok(()) => {
                        sending = Sending::Done;
                        task.note_upload_done();
                    }
                    Err(Stop::Sink(_)) => sending = Sending::Broken,
                    Err(Stop::Source(error)) => return Poll::Ready(Err(Failure::early(error))),
                }
                deadline = Some(Instant::now() + terms.response_timeout);
                timer.arm(terms.response_timeout.min(task.server().options.check_interval()));
            }
            loop {
                match up_buf.poll_fill(cx, &mut up_in) {
                    Poll::Ready(Ok(n)) if n > 0 => {
                        counts.add(&counts.remote_read, n);
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Ready(closed) => {
                        let error = match closed {
                            Ok(_) => TaskError::ClosedByUpstream,
                            Err(error) => TaskError::UpstreamRead(error),
                        };
                        return Poll::Ready(Err(Failure {
                            error,
                            begun: false,
                            unheard: was_reused && !heard,
                        }));
                    }
                    Poll::Pending => {}
                }
                ready!(timer.poll_fired(cx));
                let error = match deadline {
                    Some(deadline) if deadline <= Instant::now() => {
                        Some(TaskError::UpstreamTimeout(terms.response_timeout))
                    }
                    Some(deadline) => {
                        let left = deadline - Instant::now();
                        timer.arm(left.min(task.server().options.check_interval()));
                        task.must_end()
                    }
                    None => stall.check(timer, counts.moved()),
                };
                if let Some(error) = error {
                    return Poll::Ready(Err(Failure::early(error)));
                }
            }
        });
        got.await?;
        heard = true;
    };

    let parsed = parse_response(bytes.filled(), &limits, request.awaits);
    let Ok(Some(mut head)) = parsed else {
        return Err(Failure::early(TaskError::ClosedByUpstream));
    };
    let upstream_status = head.status;
    let mut upstream_persists = head.keep_alive && !head.taints;
    let is_ending = setting.is_ending(&head) || head.taints;
    let private = is_connection_bound(request, &head);
    up_buf.put(&bytes.filled()[head.len..]);
    if head.status == 101 || request.awaits == Awaits::Connect && (200..300).contains(&head.status) {
        if head.status == 101 && (!request.upgrade || sending != Sending::Done) {
            return Err(Failure::early(TaskError::UnwantedUpgrade));
        }
        task.note_response_head(upstream_status);
        let extra = own_headers(*setting, &head);
        let mut out = Vec::new();
        let how = ForwardResponse {
            connection: if head.status == 101 {
                Connection::Upgrade
            } else {
                Connection::Implied
            },
            body: BodyOut::AsReceived,
            extra: &extra,
        };
        head.forward(&how, &mut out);
        let sent = client_out.write(&out, idle).await;
        sent.map_err(|error| Failure::late(TaskError::ClientWrite(error)))?;
        return Ok(Outcome::Upgraded {
            first: up_buf.take_all(),
            protocol: head.upgrade().map(|name| String::from_utf8_lossy(name).into()),
        });
    }
    let mut framed = Framed::new(head.framing, &limits);
    let response_read = AtomicBool::new(head.framing.is_empty());
    let source = (!head.framing.is_empty()).then_some(Incoming {
        reader: &mut up_in,
        buf: &mut *up_buf,
        framed: &mut framed,
        counts,
        side: Side::Upstream,
        ended: &response_read,
    });
    let mut response_head = Vec::new();
    head.forward(&ForwardResponse::default(), &mut response_head);
    let ask = Ask {
        request_head: &sent_head,
        response_head: &response_head,
        shared: &shared,
        upgrade: None,
        ..ask
    };
    let Adapted { verdict, body, .. } = match &adaptation.services.respmod {
        Some(service) => {
            let asking = Box::pin(service.adapt(&ask, source, adaptation.tasks));
            alongside(upload.as_mut(), &mut sending, asking)
                .await
                .map_err(Failure::early)?
        }
        None => Adapted {
            verdict: Verdict::Unchanged,
            body: source.map(|source| Body::Same {
                held: Vec::new(),
                ended: false,
                source,
            }),
            shared: Vec::new(),
        },
    };
    let adapted_head;
    if let Verdict::Response(bytes) = verdict {
        adapted_head = bytes;
        let unfit = |text: String| Failure::early(IcapError::UnfitResponse(text).into());
        head = parse_response(&adapted_head, &OWN, request.awaits)
            .map_err(|error| unfit(error.to_string()))?
            .filter(|head| head.status >= 200)
            .ok_or_else(|| unfit("no final head".to_owned()))?;
    }
    let status = head.status;
    let reply = Reply::new(&mut head, body.is_some(), request.http11).map_err(Failure::early)?;
    let persists = request.keep_alive
        && sending == Sending::Done
        && request_read.load(Ordering::Relaxed)
        && !is_ending
        && reply.framing != BodyFraming::UntilClose;
    let extra = own_headers(*setting, &head);
    let how = ForwardResponse {
        connection: connection(persists, request.http11),
        body: reply.how,
        extra: &extra,
    };
    let mut out = Vec::new();
    head.forward(&how, &mut out);
    stall.arm(timer);
    {
        let download = send_message(out, body, reply.framing, &mut client_out, idle);
        let mut download = pin!(download);
        let ended = poll_fn(|cx| {
            poll_beside(cx, upload.as_mut(), &mut sending);
            if let Poll::Ready(sent) = download.as_mut().poll(cx) {
                return Poll::Ready(sent.map_err(|stop| match stop {
                    Stop::Sink(error) => TaskError::ClientWrite(error),
                    Stop::Source(error) => error,
                }));
            }
            loop {
                ready!(timer.poll_fired(cx));
                if let Some(error) = stall.check(timer, counts.moved()) {
                    return Poll::Ready(Err(error));
                }
                if stall.is_log_due() {
                    counts.settle(task);
                    task.log(Event::Periodic);
                }
            }
        });
        ended.await.map_err(Failure::late)?;
    }
    task.note_response_head(upstream_status);
    task.note_reply(status);
    task.note_response_received();
    upstream_persists &= sending == Sending::Done && response_read.load(Ordering::Relaxed) && up_buf.is_empty();
    Ok(Outcome::Done(Done {
        client_persists: persists,
        upstream_persists,
        private,
        request_done: sending == Sending::Done && request_read.load(Ordering::Relaxed),
    }))
}

/// Polls the upload while something else is waited for: whatever goes wrong with it, the response is what counts now.
fn poll_beside(cx: &mut Context<'_>, upload: Pin<&mut impl Future<Output = Result<(), Stop>>>, sending: &mut Sending) {
    if *sending == Sending::Going
        && let Poll::Ready(sent) = upload.poll(cx)
    {
        *sending = if sent.is_ok() { Sending::Done } else { Sending::Broken };
    }
}

/// Does something while the upload goes on.
async fn alongside<T>(
    mut upload: Pin<&mut impl Future<Output = Result<(), Stop>>>,
    sending: &mut Sending,
    mut doing: Pin<Box<impl Future<Output = T>>>,
) -> T {
    poll_fn(|cx| {
        poll_beside(cx, upload.as_mut(), sending);
        doing.as_mut().poll(cx)
    })
    .await
}

/// A request head to send, and what belongs to it.
struct AdaptedRequest {
    head: Vec<u8>,
    framing: BodyFraming,
    awaits: Awaits,
}

/// The head that a service has made of `original`, with the fields of our own hop.
fn adapted_request(bytes: &[u8], original: &RequestHead<'_>, has_body: bool) -> Result<AdaptedRequest, TaskError> {
    let unfit = |text: String| TaskError::from(IcapError::UnfitRequest(text));
    let mut head = parse_request(bytes, &OWN)
        .map_err(|error| unfit(error.to_string()))?
        .ok_or_else(|| unfit("an unfinished head".to_owned()))?;
    head.framing = match (has_body, head.framing) {
        (true, BodyFraming::Length(length)) => BodyFraming::Length(length),
        (true, _) => BodyFraming::Chunked,
        (false, BodyFraming::Length(_)) => BodyFraming::Length(0),
        (false, _) => BodyFraming::None,
    };
    if (head.method.awaits() == Awaits::Connect) != (original.method.awaits() == Awaits::Connect) {
        return Err(unfit("another kind of request".to_owned()));
    }
    Ok(AdaptedRequest {
        head: forward_request(&head, original),
        framing: head.framing,
        awaits: head.method.awaits(),
    })
}

/// A head to send in the place of `original`: its target as the origin knows it, with the original's fields of this hop.
fn forward_request(head: &RequestHead<'_>, original: &RequestHead<'_>) -> Vec<u8> {
    let mut extra = Vec::new();
    let mut connection = if original.keep_alive {
        Connection::Implied
    } else {
        Connection::Close
    };
    if let Some(protocol) = original.upgrade {
        connection = Connection::Upgrade;
        if head.upgrade.is_none() {
            // It was read from a head, so it fits into one.
            let _ = put_field(&mut extra, "Connection", b"Upgrade");
            let _ = put_field(&mut extra, "Upgrade", protocol);
        }
    } else if original.te_trailers && !head.te_trailers && original.keep_alive {
        let _ = put_field(&mut extra, "Connection", b"TE");
        let _ = put_field(&mut extra, "TE", b"trailers");
    }
    let absolute = match head.target() {
        Ok(Target::Absolute(url)) => Some(url),
        _ => None,
    };
    let how = ForwardRequest {
        target: match &absolute {
            Some(url) => TargetLine::Origin(url),
            None => TargetLine::Raw(head.raw_target),
        },
        host: HostLine::AsSent,
        connection,
        extra: &extra,
    };
    let mut out = Vec::new();
    head.forward(&how, &mut out);
    out
}

/// How a response goes to the client.
struct Reply {
    framing: BodyFraming,
    how: BodyOut,
}

impl Reply {
    /// Makes `head` say what its body will be.
    fn new(head: &mut ResponseHead<'_>, has_body: bool, http11: bool) -> Result<Self, TaskError> {
        if head.framing == BodyFraming::None {
            return Ok(Self {
                framing: BodyFraming::None,
                how: BodyOut::AsReceived,
            });
        }
        if !has_body {
            head.framing = BodyFraming::Length(0);
        }
        let is_plain = matches!(head.framing, BodyFraming::Length(_));
        if !is_plain && !http11 && head.is_coded {
            return Err(TaskError::UncodableForHttp10);
        }
        let (framing, how) = match (head.framing, http11) {
            (BodyFraming::Length(length), _) => (BodyFraming::Length(length), BodyOut::AsReceived),
            (BodyFraming::UntilClose, _) if head.is_coded => (BodyFraming::UntilClose, BodyOut::AsReceived),
            (_, true) => (BodyFraming::Chunked, BodyOut::Chunked),
            (BodyFraming::Chunked, false) => (BodyFraming::UntilClose, BodyOut::UntilClose),
            (_, false) => (BodyFraming::UntilClose, BodyOut::AsReceived),
        };
        Ok(Self { framing, how })
    }
}

fn connection(persists: bool, http11: bool) -> Connection {
    match (persists, http11) {
        (true, true) => Connection::Implied,
        (true, false) => Connection::KeepAlive,
        (false, _) => Connection::Close,
    }
}

fn own_headers(setting: &(dyn super::exchange::Setting + Sync), head: &ResponseHead<'_>) -> Vec<u8> {
    let mut extra = Vec::new();
    setting.put_headers(head, &mut extra);
    extra
}

/// Writes a head, then its body in `framing`.
async fn send_message<B: BodySource>(
    head: Vec<u8>,
    body: Option<B>,
    framing: BodyFraming,
    out: &mut Out<'_, impl AsyncWrite + Unpin>,
    limit: Duration,
) -> Result<(), Stop> {
    out.write(&head, limit).await.map_err(Stop::Sink)?;
    drop(head);
    let Some(mut body) = body else { return Ok(()) };
    if framing == BodyFraming::None {
        return Ok(());
    }
    let mut left = match framing {
        BodyFraming::Length(length) => Some(length),
        BodyFraming::Chunked | BodyFraming::None | BodyFraming::UntilClose => None,
    };
    let mut wire = Vec::new();
    let mut payload = Vec::new();
    loop {
        payload.clear();
        wire.clear();
        let flow = poll_fn(|cx| body.poll_data(cx, &mut payload))
            .await
            .map_err(Stop::Source)?;
        if let Some(left) = &mut left {
            // Nothing goes out that the head has not announced.
            *left = left
                .checked_sub(payload.len() as u64)
                .filter(|left| flow == Flow::Data || *left == 0)
                .ok_or_else(|| Stop::Source(IcapError::Length.into()))?;
        }
        let bytes = if framing == BodyFraming::Chunked {
            put_chunk(&mut wire, &payload);
            if flow == Flow::End {
                wire.extend_from_slice(b"0\r\n");
                wire.extend_from_slice(&body.trailers());
                wire.extend_from_slice(b"\r\n");
            }
            &wire
        } else {
            &payload
        };
        out.write_unlimited(bytes).await.map_err(Stop::Sink)?;
        if flow == Flow::End {
            return Ok(());
        }
    }
}

/// The speed limits of one direction.
struct Speed(Vec<Arc<SharedLimit>>);

impl Speed {
    fn new(options: &PumpOptions, shared: Option<Arc<SharedLimit>>) -> Self {
        let own = options.rate.map(|rate| {
            SharedLimit::bytes(Refill {
                amount: rate.bytes,
                per: rate.per,
                most: 0,
            })
        });
        Self(own.into_iter().chain(shared).collect())
    }

    async fn pass(&self, bytes: usize) {
        for limit in &self.0 {
            limit.pass(bytes as u64).await;
        }
    }
}

/// A way out of an exchange.
struct Out<'a, W> {
    writer: &'a mut W,
    counts: &'a Counts,
    counter: &'a AtomicU64,
    speed: &'a Speed,
}

impl<W: AsyncWrite + Unpin> Out<'_, W> {
    /// Writes all of `bytes`, within a time.
    async fn write(&mut self, bytes: &[u8], limit: Duration) -> io::Result<()> {
        timeout(limit, self.write_unlimited(bytes))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes all of `bytes`; somebody else sees to it that it goes on.
    async fn write_unlimited(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.speed.pass(bytes.len()).await;
        self.writer.write_all(bytes).await?;
        self.writer.flush().await?;
        self.counts.add(self.counter, bytes.len());
        Ok(())
    }
}

/// A body's framing as it comes in.
enum Framed {
    Chunked(Box<ChunkScanner>),
    Length(u64),
    UntilClose,
}

impl Framed {
    fn new(framing: BodyFraming, limits: &Limits) -> Self {
        match framing {
            BodyFraming::None => Self::Length(0),
            BodyFraming::Length(length) => Self::Length(length),
            BodyFraming::Chunked => Self::Chunked(Box::new(ChunkScanner::keeping_trailers(limits))),
            BodyFraming::UntilClose => Self::UntilClose,
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Chunked(chunks) => chunks.is_done(),
            Self::Length(left) => *left == 0,
            Self::UntilClose => false,
        }
    }
}

/// Where a body comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Upstream,
}

/// The body of a message of HTTP/1.
struct Incoming<'a, R> {
    reader: &'a mut R,
    /// What has come behind the head already; what comes behind the body stays there.
    buf: &'a mut ReadBuffer,
    framed: &'a mut Framed,
    counts: &'a Counts,
    side: Side,
    /// Set once the body is complete.
    ended: &'a AtomicBool,
}

impl<R: AsyncRead + Unpin> Incoming<'_, R> {
    /// Takes payload off the buffer.
    fn take(&mut self, out: &mut Vec<u8>) -> Result<(), TaskError> {
        let filled = self.buf.filled();
        let mut rest = filled;
        match self.framed {
            Framed::Chunked(chunks) => {
                let invalid = |error| match self.side {
                    Side::Client => TaskError::InvalidRequestBody(error),
                    Side::Upstream => TaskError::InvalidResponseBody(error),
                };
                while let Some(payload) = chunks.payload(&mut rest).map_err(invalid)? {
                    out.extend_from_slice(payload);
                }
            }
            Framed::Length(left) => {
                let take = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                out.extend_from_slice(&rest[..take]);
                *left -= take as u64;
                rest = &rest[take..];
            }
            Framed::UntilClose => {
                out.extend_from_slice(rest);
                rest = &[];
            }
        }
        let used = filled.len() - rest.len();
        if self.side == Side::Client {
            self.counts.add(&self.counts.client_read, used);
        }
        self.buf.consume(used);
        Ok(())
    }

    fn end(&self) -> Flow {
        self.ended.store(true, Ordering::Relaxed);
        Flow::End
    }
}

impl<R: AsyncRead + Unpin> BodySource for Incoming<'_, R> {
    fn poll_data(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<Flow, TaskError>> {
        let before = out.len();
        loop {
            if !self.buf.is_empty() && !self.framed.is_done() {
                self.take(out)?;
            }
            if self.framed.is_done() {
                // Whoever looks whether all was read need not ask once more.
                self.ended.store(true, Ordering::Relaxed);
            }
            if out.len() > before {
                return Poll::Ready(Ok(Flow::Data));
            }
            if self.framed.is_done() {
                return Poll::Ready(Ok(self.end()));
            }
            let filled = ready!(self.buf.poll_fill(cx, self.reader));
            match (filled, self.side) {
                (Ok(0), Side::Upstream) if matches!(self.framed, Framed::UntilClose) => {
                    return Poll::Ready(Ok(self.end()));
                }
                (Ok(0), Side::Client) => return Poll::Ready(Err(TaskError::ClosedEarlyByClient)),
                (Ok(0), Side::Upstream) => return Poll::Ready(Err(TaskError::ClosedByUpstream)),
                (Ok(n), Side::Upstream) => self.counts.add(&self.counts.remote_read, n),
                (Ok(_), Side::Client) => {}
                (Err(error), Side::Client) => return Poll::Ready(Err(TaskError::ClientRead(error))),
                (Err(error), Side::Upstream) => return Poll::Ready(Err(TaskError::UpstreamRead(error))),
            }
        }
    }

    fn trailers(&mut self) -> Vec<u8> {
        match self.framed {
            Framed::Chunked(chunks) if chunks.is_done() => chunks.trailers().to_vec(),
            Framed::Chunked(_) | Framed::Length(_) | Framed::UntilClose => Vec::new(),
        }
    }
}
