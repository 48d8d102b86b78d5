//! An exchange whose messages ICAP services see.
//!
//! As [`Exchange`], but bodies are taken out of their framing, go through the services, and are framed anew. Request and
//! response are adapted independently: the response may come, and go on, while the request is still being sent.

mod body;
mod counts;
mod heads;
mod out;
mod way;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use sluice_http1::{
    BodyFraming, BodyOut, CONTINUE, Connection, ForwardResponse, Partial, ResponseHead, parse_request, parse_response,
};
use sluice_io::buffer::ReadBuffer;
use sluice_io::wheel::Timer;
use sluice_lifecycle::Tasks;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::client::{Client, Stall};
use crate::error::TaskError;
use crate::http::exchange::{
    Done, Exchange, Failure, Outcome, Request, Setting, Terms, Upstream, is_connection_bound, sub_protocol,
};
use crate::http::upload::Upload;
use crate::icap::{Adapted, Ask, Body, BodySource, IcapError, Services, Verdict};
use crate::record::Event;
use crate::task::Task;
use crate::user::Permit;
use body::{Framed, Incoming, Side};
use counts::Counts;
use heads::{AdaptedRequest, Reply, adapted_request, forward_request};
pub(crate) use heads::{OWN, final_head};
use out::{Out, Speed, Stop, send_message};
pub(crate) use way::{Standing, Way};

/// What adapts the messages of an exchange.
#[derive(Clone, Copy)]
pub(crate) struct Adaptation<'a> {
    pub(crate) services: &'a Services,
    /// Where work beside the exchange is counted.
    pub(crate) tasks: &'a Tasks,
}

/// Sends the request on its way, unless a service answers it, and brings the response back, each as the services want it.
pub(crate) async fn run(
    exchange: &mut Exchange<'_>,
    adaptation: Adaptation<'_>,
    client: &mut Client,
    way: &mut impl Way,
) -> Result<Outcome, Failure> {
    let counts = Counts::default();
    let head = std::mem::take(&mut exchange.request.head);
    let mut adapting = Adapting {
        setting: exchange.setting,
        terms: *exchange.setting.terms(),
        idle: exchange.task.stall_limit(),
        user: exchange.task.permit().and_then(Permit::log_name).map(Arc::clone),
        task: exchange.task,
        request: exchange.request,
        adaptation,
        counts: &counts,
    };
    let outcome = adapting.run(&head, client, way).await;
    counts.settle(exchange.task);
    // It may have to be sent once more.
    exchange.request.head = head;
    outcome
}

/// What becomes of a request.
enum Asked<S> {
    /// It gets this answer, whatever its upstream would say.
    Answered(Vec<u8>, Option<Body<S>>),
    Goes(AdaptedRequest, Option<Body<S>>),
}

/// The response as it comes in: what has been read of it, and where the rest comes from.
struct Inlet<'a, R> {
    reader: &'a mut R,
    buf: &'a mut ReadBuffer,
    was_reused: bool,
}

/// What is known of a response that the upstream has sent, once its head may be another one.
struct OfUpstream {
    status: u16,
    persists: bool,
    is_ending: bool,
    private: bool,
}

/// An exchange at work.
struct Adapting<'a> {
    setting: &'a (dyn Setting + Sync),
    terms: Terms,
    /// How long nothing may move.
    idle: Duration,
    user: Option<Arc<str>>,
    task: &'a mut Task,
    request: &'a mut Request,
    adaptation: Adaptation<'a>,
    counts: &'a Counts,
}

impl Adapting<'_> {
    async fn run(&mut self, head: &[u8], client: &mut Client, way: &mut impl Way) -> Result<Outcome, Failure> {
        let Client {
            stream,
            buf,
            timer,
            peers,
            ..
        } = client;
        let (mut client_in, mut client_out) = tokio::io::split(stream);
        let counts = self.counts;
        // The escaper's limit is known once there is an upstream.
        let down = Speed::new(&self.task.pumps(None).1, self.task.shared_limits().1);
        let mut early_out = Out::new(&mut client_out, counts, &counts.client_written, &down);
        // The body is wanted here whatever the origin thinks of it.
        if self.request.expect_continue && buf.is_empty() {
            let sent = early_out.write(CONTINUE, self.idle).await;
            sent.map_err(|error| Failure::early(TaskError::ClientWrite(error)))?;
        }
        self.request.body_taken = !self.request.framing.is_empty();
        let request_read = AtomicBool::new(!self.request.body_taken);
        let mut framed = Framed::new(self.request.framing, &self.terms.request_limits);
        let source = self.request.body_taken.then_some(Incoming {
            reader: &mut client_in,
            buf,
            framed: &mut framed,
            counts,
            side: Side::Client,
            ended: &request_read,
        });
        let asked = self.ask_about_request(head, source, peers.client).await;
        let (adapted, mut body) = match asked.map_err(Failure::early)? {
            Asked::Goes(adapted, body) => (adapted, body),
            Asked::Answered(head, body) => {
                let request_done = request_read.load(Ordering::Relaxed);
                return self.answer((&head, body), request_done, timer, &mut early_out).await;
            }
        };
        self.request.awaits = adapted.awaits;
        let may_repeat = body.is_none() && way.may_repeat();
        let mut again = false;
        loop {
            let upstream = way.upstream(self.task, again).await.map_err(Failure::early)?;
            let message = (&adapted, body.take());
            let exchanged = self.exchange(message, &request_read, upstream, (&mut client_out, timer, peers.client));
            match exchanged.await {
                Err(failure) if failure.unheard && may_repeat && !again => again = true,
                outcome => return outcome,
            }
        }
    }

    /// Sends the request, and brings its response back.
    async fn exchange<S: BodySource>(
        &mut self,
        (adapted, body): (&AdaptedRequest, Option<Body<S>>),
        request_read: &AtomicBool,
        upstream: &mut Upstream,
        (client_out, timer, client): (&mut (impl AsyncWrite + Unpin), &mut Timer, SocketAddr),
    ) -> Result<Outcome, Failure> {
        let (up, down) = self.task.pumps(upstream.limit);
        let (shared_up, shared_down) = self.task.shared_limits();
        let (up, down) = (Speed::new(&up, shared_up), Speed::new(&down, shared_down));
        let (mut up_in, mut up_out) = tokio::io::split(&mut upstream.stream);
        let counts = self.counts;
        let mut client_out = Out::new(client_out, counts, &counts.client_written, &down);
        let mut up_out = Out::new(&mut up_out, counts, &counts.remote_written, &up);
        self.task.note_request_sent(body.is_none());
        let sending = send_message(&adapted.head, body, adapted.framing, &mut up_out, self.idle);
        let mut upload = Upload::new(Box::pin(sending));
        let mut inlet = Inlet {
            reader: &mut up_in,
            buf: &mut upstream.buf,
            was_reused: upstream.reused,
        };
        let bytes = self.await_head(&mut upload, &mut inlet, timer, &mut client_out).await?;
        let response = parse_response(bytes.filled(), &self.terms.response_limits, self.request.awaits);
        let Ok(Some(response)) = response else {
            return Err(Failure::early(TaskError::ClosedByUpstream));
        };
        inlet.buf.put(&bytes.filled()[response.len..]);
        if response.status == 101 {
            return self.upgrade(&response, &upload, inlet.buf, &mut client_out).await;
        }
        let of_upstream = OfUpstream {
            status: response.status,
            persists: response.keep_alive && !response.taints,
            is_ending: self.setting.is_ending(&response) || response.taints,
            private: is_connection_bound(self.request, &response),
        };
        let response_read = AtomicBool::new(response.framing.is_empty());
        let mut framed = Framed::new(response.framing, &self.terms.response_limits);
        let source = (!response.framing.is_empty()).then_some(Incoming {
            reader: &mut *inlet.reader,
            buf: &mut *inlet.buf,
            framed: &mut framed,
            counts,
            side: Side::Upstream,
            ended: &response_read,
        });
        let asking = Box::pin(self.ask_about_response(adapted, &response, source, client));
        // Whatever goes wrong with the request now, the response is what counts.
        let (new_head, body) = upload.regardless(asking).await.map_err(Failure::early)?;
        let response = match &new_head {
            Some(bytes) => final_head(bytes, self.request.awaits).map_err(Failure::early)?,
            None => response,
        };
        let persists = self.request.keep_alive
            && upload.is_done()
            && request_read.load(Ordering::Relaxed)
            && !of_upstream.is_ending;
        let persists = self
            .send_response(response, body, persists, &mut upload, timer, &mut client_out)
            .await?;
        self.task.note_response_head(of_upstream.status);
        self.task.note_response_received();
        let all_read = response_read.load(Ordering::Relaxed) && inlet.buf.is_empty();
        Ok(Outcome::Done(Done {
            client_persists: persists,
            upstream_persists: of_upstream.persists && upload.is_done() && all_read,
            private: of_upstream.private,
            request_done: upload.is_done() && request_read.load(Ordering::Relaxed),
        }))
    }

    /// Asks what becomes of the request with this head, which is as it would go to the upstream.
    async fn ask_about_request<S: BodySource>(
        &self,
        head: &[u8],
        source: Option<S>,
        client: SocketAddr,
    ) -> Result<Asked<S>, TaskError> {
        let original = parse_request(head, &OWN)?.ok_or(TaskError::NoUpstream)?;
        let ask = Ask {
            task: self.task.id,
            request_head: head,
            response_head: b"",
            client,
            user: self.user.as_deref(),
            upgrade: original.upgrade,
            transformed_from: None,
            shared: b"",
            idle: self.idle,
        };
        let Adaptation { services, tasks } = self.adaptation;
        let Adapted { verdict, body, shared } = services.reqmod(&ask, source, tasks).await?;
        let mut adapted = match verdict {
            Verdict::Unchanged => {
                let mut head = original.clone();
                head.remove("expect");
                AdaptedRequest {
                    head: forward_request(&head, &original),
                    framing: head.framing,
                    awaits: head.method.awaits(),
                    shared: Vec::new(),
                }
            }
            Verdict::Request(bytes) => adapted_request(&bytes, &original, body.is_some())?,
            Verdict::Response(bytes) => return Ok(Asked::Answered(bytes, body)),
        };
        adapted.shared = shared;
        Ok(Asked::Goes(adapted, body))
    }

    /// Asks what becomes of the response to a request.
    async fn ask_about_response<S: BodySource>(
        &self,
        request: &AdaptedRequest,
        response: &ResponseHead<'_>,
        source: Option<S>,
        client: SocketAddr,
    ) -> Result<(Option<Vec<u8>>, Option<Body<S>>), TaskError> {
        let mut response_head = Vec::new();
        response.forward(&ForwardResponse::default(), &mut response_head);
        let ask = Ask {
            task: self.task.id,
            request_head: &request.head,
            response_head: &response_head,
            client,
            user: self.user.as_deref(),
            upgrade: None,
            transformed_from: None,
            shared: &request.shared,
            idle: self.idle,
        };
        let Adaptation { services, tasks } = self.adaptation;
        let Adapted { verdict, body, .. } = services.respmod(&ask, source, tasks).await?;
        match verdict {
            Verdict::Response(head) => Ok((Some(head), body)),
            Verdict::Unchanged => Ok((None, body)),
            Verdict::Request(_) => Err(IcapError::Parts.into()),
        }
    }

    /// Answers the request with what REQMOD has said.
    async fn answer<B: BodySource>(
        &mut self,
        (head, body): (&[u8], Option<B>),
        request_done: bool,
        timer: &mut Timer,
        client: &mut Out<'_, impl AsyncWrite + Unpin>,
    ) -> Result<Outcome, Failure> {
        let response = final_head(head, self.request.awaits).map_err(Failure::early)?;
        self.task.note_reply(response.status);
        let persists = self.request.keep_alive && request_done;
        let (out, framing, persists) = self
            .response_out(response, body.is_some(), persists, b"")
            .map_err(Failure::early)?;
        let sending = send_message(&out, body, framing, client, self.idle);
        self.deliver(sending, |_| (), timer).await.map_err(Failure::late)?;
        Ok(Outcome::Done(Done {
            client_persists: persists,
            upstream_persists: true,
            private: false,
            request_done,
        }))
    }

    /// Waits for a final head while the request goes on; it is at the front of what is given back. Hands on 1xx.
    async fn await_head<F: Future<Output = Result<(), Stop>> + Unpin>(
        &self,
        upload: &mut Upload<F>,
        inlet: &mut Inlet<'_, impl AsyncRead + Unpin>,
        timer: &mut Timer,
        client: &mut Out<'_, impl AsyncWrite + Unpin>,
    ) -> Result<ReadBuffer, Failure> {
        let limits = self.terms.response_limits;
        let mut partial = Partial::default();
        let mut wait = Wait {
            stall: Stall::new(self.task),
            deadline: None,
            heard: false,
        };
        wait.stall.arm(timer);
        loop {
            let mut interim = None;
            if !inlet.buf.is_empty() && partial.is_worth_parsing(inlet.buf.filled(), limits.head_max) {
                match parse_response(inlet.buf.filled(), &limits, self.request.awaits) {
                    Ok(Some(head)) if head.is_interim() => {
                        let mut out = Vec::new();
                        head.forward(&ForwardResponse::default(), &mut out);
                        interim = Some((head.status, head.len, out));
                    }
                    Ok(Some(_)) => return Ok(std::mem::take(inlet.buf)),
                    Ok(None) => {}
                    Err(error) => return Err(Failure::early(error.into())),
                }
            }
            let Some((status, len, out)) = interim else {
                poll_fn(|cx| self.poll_response(cx, upload, inlet, timer, &mut wait)).await?;
                wait.heard = true;
                continue;
            };
            inlet.buf.consume(len);
            partial = Partial::default();
            // The client's own wait for 100 has been ended here.
            if self.request.http11 && status != 100 {
                let sent = client.write(&out, self.idle).await;
                sent.map_err(|error| Failure::late(TaskError::ClientWrite(error)))?;
            }
        }
    }

    /// Ready when bytes of a response have come.
    fn poll_response<F: Future<Output = Result<(), Stop>> + Unpin>(
        &self,
        cx: &mut Context<'_>,
        upload: &mut Upload<F>,
        inlet: &mut Inlet<'_, impl AsyncRead + Unpin>,
        timer: &mut Timer,
        wait: &mut Wait<'_>,
    ) -> Poll<Result<(), Failure>> {
        let interval = self.task.server().options.check_interval();
        let timeout = self.terms.response_timeout;
        if let Poll::Ready(sent) = upload.poll(cx) {
            sent.map_err(Failure::early)?;
            if upload.is_done() {
                self.task.note_upload_done();
            }
            wait.deadline = Some(Instant::now() + timeout);
            timer.arm(timeout.min(interval));
        }
        loop {
            let unheard = inlet.was_reused && !wait.heard;
            let closed = |error| Failure {
                error,
                begun: false,
                unheard,
            };
            match inlet.buf.poll_fill(cx, inlet.reader) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(closed(TaskError::ClosedByUpstream))),
                Poll::Ready(Ok(n)) => {
                    self.counts.add(&self.counts.remote_read, n);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(closed(TaskError::UpstreamRead(error)))),
                Poll::Pending => {}
            }
            ready!(timer.poll_fired(cx));
            let left = wait
                .deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let error = match left {
                Some(Duration::ZERO) => Some(TaskError::UpstreamTimeout(timeout)),
                Some(left) => {
                    timer.arm(left.min(interval));
                    self.task.must_end()
                }
                None => wait.stall.check(timer, self.counts.moved()),
            };
            if let Some(error) = error {
                return Poll::Ready(Err(Failure::early(error)));
            }
        }
    }

    /// 101: the connections leave HTTP.
    async fn upgrade<F: Future<Output = Result<(), Stop>> + Unpin>(
        &mut self,
        response: &ResponseHead<'_>,
        upload: &Upload<F>,
        buf: &mut ReadBuffer,
        client: &mut Out<'_, impl AsyncWrite + Unpin>,
    ) -> Result<Outcome, Failure> {
        if !self.request.upgrade || !upload.is_done() {
            return Err(Failure::early(TaskError::UnwantedUpgrade));
        }
        self.task.note_response_head(response.status);
        let mut extra = Vec::new();
        self.setting.put_headers(self.task.path(), response, &mut extra);
        let mut out = Vec::new();
        let how = ForwardResponse {
            connection: Connection::Upgrade,
            body: BodyOut::AsReceived,
            extra: &extra,
        };
        response.forward(&how, &mut out);
        let sent = client.write(&out, self.idle).await;
        sent.map_err(|error| Failure::late(TaskError::ClientWrite(error)))?;
        Ok(Outcome::Upgraded {
            first: buf.take_all(),
            protocol: response.upgrade().map(|name| String::from_utf8_lossy(name).into()),
            sub_protocol: sub_protocol(response),
        })
    }

    /// Sends a response, and the rest of its request; tells whether the client's connection goes on.
    async fn send_response<B: BodySource, F: Future<Output = Result<(), Stop>> + Unpin>(
        &mut self,
        response: ResponseHead<'_>,
        body: Option<B>,
        persists: bool,
        upload: &mut Upload<F>,
        timer: &mut Timer,
        client: &mut Out<'_, impl AsyncWrite + Unpin>,
    ) -> Result<bool, Failure> {
        let status = response.status;
        let mut extra = Vec::new();
        self.setting.put_headers(self.task.path(), &response, &mut extra);
        let (out, framing, persists) = self
            .response_out(response, body.is_some(), persists, &extra)
            .map_err(Failure::early)?;
        self.task.note_reply(status);
        let download = send_message(&out, body, framing, client, self.idle);
        let beside = |cx: &mut Context<'_>| drop(upload.poll(cx));
        self.deliver(download, beside, timer).await.map_err(Failure::late)?;
        Ok(persists)
    }

    /// Sends a message, and does something else meanwhile, for as long as anything moves.
    async fn deliver(
        &self,
        sending: impl Future<Output = Result<(), Stop>>,
        mut beside: impl FnMut(&mut Context<'_>),
        timer: &mut Timer,
    ) -> Result<(), TaskError> {
        let mut sending = Box::pin(sending);
        let mut stall = Stall::new(self.task);
        stall.arm(timer);
        poll_fn(|cx| {
            beside(cx);
            if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                return Poll::Ready(sent.map_err(|stop| match stop {
                    Stop::Receiver(error) => TaskError::ClientWrite(error),
                    Stop::Source(error) => error,
                }));
            }
            loop {
                ready!(timer.poll_fired(cx));
                if let Some(error) = stall.check(timer, self.counts.moved()) {
                    return Poll::Ready(Err(error));
                }
                if stall.is_log_due() {
                    self.counts.settle(self.task);
                    self.task.log(Event::Periodic);
                }
            }
        })
        .await
    }

    /// The head to send, how its body is framed, and whether the client's connection can go on behind it.
    fn response_out(
        &self,
        mut response: ResponseHead<'_>,
        has_body: bool,
        persists: bool,
        extra: &[u8],
    ) -> Result<(Vec<u8>, BodyFraming, bool), TaskError> {
        let http11 = self.request.http11;
        let reply = Reply::new(&mut response, has_body, http11)?;
        let persists = persists && reply.framing != BodyFraming::UntilClose;
        let how = ForwardResponse {
            connection: match (persists, http11) {
                (true, true) => Connection::Implied,
                (true, false) => Connection::KeepAlive,
                (false, _) => Connection::Close,
            },
            body: reply.how,
            extra,
        };
        let mut out = Vec::new();
        response.forward(&how, &mut out);
        Ok((out, reply.framing, persists))
    }
}

/// How long a response is waited for.
struct Wait<'a> {
    /// Until the request is through.
    stall: Stall<'a>,
    /// From then on.
    deadline: Option<Instant>,
    /// Something has come.
    heard: bool,
}
