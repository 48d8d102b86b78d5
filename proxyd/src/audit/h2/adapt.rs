//! A stream whose messages ICAP services see.
//!
//! As any stream, but its heads are shown as heads of HTTP/1.1, and its bodies go through the services. Request and
//! response are adapted independently: the response may come, and go on, while the request is still being sent.

mod body;
mod heads;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::server::SendResponse;
use http::{Method, StatusCode, request, response};
use sluice_telemetry::value::Uuid;

use super::body::pass;
use super::stream::{Answer, Exchange, StreamError, StreamNote, client_error, client_head, upstream_error};
use super::upload::{Stop, Upload, unanswered};
use crate::error::TaskError;
use crate::http::adapt::Adaptation;
use crate::icap::{Adapted, Ask, BodySource, IcapError, Verdict};
use body::{Incoming, send_body};
use heads::{Reply, Sent, adapted_request, request_text, response_text};

/// What adapts the messages of streams, and whose they are.
#[derive(Clone, Copy)]
pub(crate) struct Adapter<'a> {
    pub(crate) adaptation: Adaptation<'a>,
    pub(crate) task: Uuid,
    pub(crate) client: SocketAddr,
    pub(crate) user: Option<&'a str>,
    /// How long a service may keep silent.
    pub(crate) idle: Duration,
}

/// Passes a request on, and its response back, each as the services want it.
pub(super) async fn run(
    exchange: Exchange<'_>,
    head: request::Parts,
    requests: SendRequest<Bytes>,
    adapter: Adapter<'_>,
) -> Result<(), StreamError> {
    let Exchange {
        body,
        respond,
        note,
        settings,
    } = exchange;
    // What follows an extended CONNECT is a protocol of its own, of which services know nothing.
    let (mut tunnel, source) = match protocol(&head) {
        Some(_) => (Some(body), None),
        None => (None, (!body.is_end_stream()).then(|| Incoming::of_client(body))),
    };
    let text = request_text(&head);
    let ask = Ask {
        upgrade: protocol(&head).map(|protocol| protocol.as_str().as_bytes()),
        ..adapter.ask(&text)
    };
    let Adaptation { services, tasks } = adapter.adaptation;
    let asked = unless_reset(respond, services.reqmod(&ask, source, tasks)).await?;
    let Adapted { verdict, body, shared } = asked?;
    let (head, text, length) = match verdict {
        Verdict::Unchanged => (head, text, None),
        Verdict::Request(bytes) => {
            let Sent { head, length } = adapted_request(&bytes, head, body.is_some())?;
            (head, bytes, length)
        }
        Verdict::Response(bytes) => {
            let reply = Reply::new(&bytes, &head.method, body.is_some())?;
            note.status = Some(reply.status);
            return reply.send(body, respond).await.map_err(unanswered);
        }
    };
    let asked = Asked {
        method: head.method.clone(),
        text,
        shared,
    };
    let ends = body.is_none() && tunnel.is_none();
    let (response, mut to_upstream) = note.open(head, ends, requests, settings).await?;
    let is_tunnel = tunnel.is_some();
    let upload = async {
        match (&mut tunnel, body) {
            (Some(tunnel), _) => pass(tunnel, &mut to_upstream, client_error).await,
            (None, Some(body)) => send_body(body, length, &mut to_upstream).await,
            (None, None) => Ok(()),
        }
    };
    let upload = pin!(upload);
    let mut upload = Upload::new(upload);
    let answer = Answer::new(response, respond);
    let answered = upload.await_answer(answer, settings.rsp_header_recv_timeout.0).await?;
    let (parts, mut from_upstream) = answered.into_parts();
    note.answered(&parts);
    if is_tunnel && parts.status.is_success() {
        let head = client_head(parts.status, parts.headers);
        let mut to_client = respond.send_response(head, false).map_err(client_error)?;
        note.status = Some(parts.status);
        let download = pass(&mut from_upstream, &mut to_client, upstream_error);
        return upload.finish(download, note).await;
    }
    self::respond(upload, (parts, from_upstream), (respond, note), &asked, &adapter).await
}

/// A request that services have seen.
pub(super) struct Asked {
    method: Method,
    /// Its head as they see it.
    text: Vec<u8>,
    /// Field lines that REQMOD has given for RESPMOD.
    shared: Vec<u8>,
}

/// Shows a CONNECT to the services. What goes on of it; nothing if they have answered it.
pub(super) async fn ask_about_connect(
    exchange: &mut Exchange<'_>,
    head: request::Parts,
    adapter: &Adapter<'_>,
) -> Result<Option<(request::Parts, Asked)>, StreamError> {
    let text = request_text(&head);
    let ask = adapter.ask(&text);
    let Adaptation { services, tasks } = adapter.adaptation;
    let asking = services.reqmod(&ask, None::<Incoming>, tasks);
    let Adapted { verdict, body, shared } = unless_reset(exchange.respond, asking).await??;
    let (head, text) = match verdict {
        Verdict::Unchanged => (head, text),
        Verdict::Request(bytes) => (adapted_request(&bytes, head, body.is_some())?.head, bytes),
        Verdict::Response(bytes) => {
            let reply = Reply::new(&bytes, &head.method, body.is_some())?;
            if reply.status.is_success() {
                let error = IcapError::UnfitResponse("a tunnel that nobody has opened".to_owned());
                return Err(TaskError::from(error).into());
            }
            exchange.note.status = Some(reply.status);
            reply.send(body, exchange.respond).await.map_err(unanswered)?;
            return Ok(None);
        }
    };
    let asked = Asked {
        method: head.method.clone(),
        text,
        shared,
    };
    Ok(Some((head, asked)))
}

/// Passes a response on as the services want it.
pub(super) async fn respond<F: Future<Output = Result<(), Stop>> + Unpin>(
    mut upload: Upload<F>,
    (parts, from_upstream): (response::Parts, RecvStream),
    (respond, note): (&mut SendResponse<Bytes>, &mut StreamNote),
    Asked { method, text, shared }: &Asked,
    adapter: &Adapter<'_>,
) -> Result<(), StreamError> {
    let Adaptation { services, tasks } = adapter.adaptation;
    let has_body = !from_upstream.is_end_stream() && !is_bodiless(method, parts.status);
    let source = has_body.then(|| Incoming::of_upstream(from_upstream));
    let response_text = response_text(&parts);
    let ask = Ask {
        response_head: &response_text,
        shared,
        ..adapter.ask(text)
    };
    let asking = unless_reset(respond, services.respmod(&ask, source, tasks));
    let Adapted { verdict, body, .. } = upload.beside(asking).await???;
    let reply = match verdict {
        Verdict::Unchanged => Reply::unchanged(parts, body.is_some()),
        Verdict::Response(bytes) => Reply::new(&bytes, method, body.is_some())?.behind(&parts),
        Verdict::Request(_) => return Err(TaskError::from(IcapError::Parts).into()),
    };
    note.status = Some(reply.status);
    upload.finish(reply.send(body, respond), note).await
}

impl Adapter<'_> {
    /// A question about a message of a request with this head.
    fn ask<'q>(&'q self, request_head: &'q [u8]) -> Ask<'q> {
        Ask {
            task: self.task,
            request_head,
            response_head: b"",
            client: self.client,
            user: self.user,
            upgrade: None,
            transformed_from: Some("HTTP/2.0"),
            shared: b"",
            idle: self.idle,
        }
    }
}

impl Reply {
    /// Sends it, with its body.
    async fn send<B: BodySource>(self, body: Option<B>, respond: &mut SendResponse<Bytes>) -> Result<(), Stop> {
        let body = body.filter(|_| self.has_body);
        let head = client_head(self.status, self.headers);
        let sent = respond.send_response(head, body.is_none());
        let mut to_client = sent.map_err(|error| Stop::Source(client_error(error)))?;
        match body {
            Some(body) => send_body(body, self.length, &mut to_client).await,
            None => Ok(()),
        }
    }
}

impl From<TaskError> for StreamError {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Stream(error) => *error,
            error => Self::Adaptation(Box::new(error)),
        }
    }
}

/// The protocol of an extended CONNECT.
fn protocol(head: &request::Parts) -> Option<&Protocol> {
    head.extensions.get()
}

/// Whether a response has no body whatever its head says (RFC 9110 §6.4.1).
fn is_bodiless(method: &Method, status: StatusCode) -> bool {
    method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Waits for what is `doing`, unless the client does not want its answer any more.
async fn unless_reset<T>(respond: &mut SendResponse<Bytes>, doing: impl Future<Output = T>) -> Result<T, StreamError> {
    let mut doing = pin!(doing);
    poll_fn(|cx| {
        if let Poll::Ready(done) = doing.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        let reset = respond.poll_reset(cx);
        reset.map(|reset| Err(reset.map_or_else(client_error, StreamError::ClientReset)))
    })
    .await
}
