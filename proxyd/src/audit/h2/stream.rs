//! One stream: a request, and what is answered.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{EXPECT, HOST};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, request, response, uri};
use sluice_config::value::H2Interception;
use sluice_telemetry::value::Timestamp;
use thiserror::Error;
use tokio::time::{Instant, timeout};

use super::adapt;
use super::body::pass;
use super::head::{self, Malformed};
use super::upload::{Stop, Upload};
use super::{Admission, Terms, Watch, connect};
use crate::audit::websocket::Handshake;
use crate::error::TaskError;
use crate::http::reply::status_of;

/// An upstream may send so many 1xx at once, and in each second as many as a tenth of that.
const MAX_INTERIM: u64 = 100;

/// What a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// A request.
    Forward,
    /// CONNECT.
    Connect,
    /// CONNECT for a protocol (RFC 8441).
    ExtendedConnect(Box<str>),
}

/// What became of a stream.
#[derive(Debug)]
pub(crate) struct StreamNote {
    pub(crate) kind: StreamKind,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// Its number at the client.
    pub(crate) client_stream: u32,
    /// Its number at the upstream, if it came so far.
    pub(crate) upstream_stream: Option<u32>,
    pub(crate) started: Instant,
    pub(crate) started_at: Timestamp,
    /// When the request's head was sent, since the start; so are the others.
    pub(crate) head_sent: Option<Duration>,
    /// The end of the request.
    pub(crate) request_sent: Option<Duration>,
    /// The response's head.
    pub(crate) head_received: Option<Duration>,
    /// The end of the response.
    pub(crate) response_received: Option<Duration>,
    /// Sent to the client.
    pub(crate) status: Option<StatusCode>,
    /// Received from the upstream.
    pub(crate) origin_status: Option<StatusCode>,
    /// What an extended CONNECT for a WebSocket says.
    pub(crate) websocket: Option<Box<Handshake>>,
    pub(crate) error: Option<StreamError>,
}

/// Why a stream was not passed on to its end.
#[derive(Debug, Error)]
pub(crate) enum StreamError {
    #[error(transparent)]
    Adaptation(Box<TaskError>),
    #[error("reset by the client: {0}")]
    ClientReset(Reason),
    #[error("the client's stream failed: {0}")]
    Client(h2::Error),
    #[error("the connection ended before the stream")]
    Cut,
    #[error("the client expects what is not known here")]
    Expectation,
    #[error("`{0}` is blocked by policy")]
    Forbidden(Box<str>),
    #[error("the upstream takes no more requests on this connection")]
    GoneAway,
    #[error("a malformed request: {0}")]
    Malformed(#[from] Malformed),
    #[error("the upstream sends interim responses without end")]
    InterimFlood,
    #[error("extended CONNECT for `{0}` is not passed on")]
    Protocol(Box<str>),
    #[error("the upstream switches protocols, which HTTP/2 does not know")]
    SwitchingProtocols,
    /// What it was is said by who looked into it.
    #[error("{0}")]
    Tunnel(String),
    #[error("the upstream's stream failed: {0}")]
    Upstream(h2::Error),
    #[error("reset by the upstream: {0}")]
    UpstreamReset(Reason),
    #[error("no answer from the upstream in time")]
    UpstreamSilent,
    #[error("no turn at the upstream in time")]
    UpstreamFull,
}

/// What counts as right after a request.
const TAKEN_BACK_WITHIN: Duration = Duration::from_secs(1);

impl StreamNote {
    /// Whether the client has taken its request back right after making it.
    fn is_taken_back(&self) -> bool {
        self.head_received.is_none()
            && self.started.elapsed() < TAKEN_BACK_WITHIN
            && matches!(self.error, Some(StreamError::ClientReset(_)))
    }
}

/// A stream that is open. When it is dropped, what became of it is told.
struct Open<'w, W: Watch> {
    note: Option<StreamNote>,
    has_ended: bool,
    watch: &'w W,
}

impl<W: Watch> Drop for Open<'_, W> {
    fn drop(&mut self) {
        if let Some(mut note) = self.note.take() {
            if !self.has_ended {
                note.error = Some(StreamError::Cut);
            }
            self.watch.stream_ended(note);
        }
    }
}

/// Passes a request on, and its response back. Tells whether the client has taken it back right after making it.
pub(super) async fn exchange<W: Watch>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    requests: Option<SendRequest<Bytes>>,
    terms: Terms<'_>,
    watch: &W,
) -> bool {
    let (head, body) = request.into_parts();
    let protocol = head
        .extensions
        .get::<Protocol>()
        .map(|protocol| Box::from(protocol.as_str()));
    let mut open = Open {
        note: None,
        has_ended: false,
        watch,
    };
    let note = open.note.insert(StreamNote {
        kind: match protocol {
            Some(protocol) => StreamKind::ExtendedConnect(protocol),
            None if head.method == Method::CONNECT => StreamKind::Connect,
            None => StreamKind::Forward,
        },
        method: head.method.clone(),
        uri: head.uri.clone(),
        client_stream: respond.stream_id().as_u32(),
        upstream_stream: None,
        started: Instant::now(),
        started_at: Timestamp::now(),
        head_sent: None,
        request_sent: None,
        head_received: None,
        response_received: None,
        status: None,
        origin_status: None,
        websocket: None,
        error: None,
    });
    if matches!(&note.kind, StreamKind::ExtendedConnect(protocol) if &**protocol == "websocket") {
        let resource = head.uri.path_and_query().map_or("", |resource| resource.as_str());
        note.websocket = Some(Box::new(Handshake {
            resource: resource.into(),
            origin: text(&head.headers, "origin"),
            sub_protocol: None,
            version: text(&head.headers, "sec-websocket-version"),
        }));
    }
    let result = async {
        let head = admit(head, &note.kind, terms.settings, watch)?;
        let requests = requests.ok_or(StreamError::GoneAway)?;
        let is_connect = note.kind == StreamKind::Connect;
        let exchange = Exchange {
            body,
            respond: &mut respond,
            note,
            settings: terms.settings,
        };
        match terms.adapter {
            adapter if is_connect => Box::pin(connect::run(exchange, head, requests, adapter, watch)).await,
            // A large future that most streams have no use for.
            Some(adapter) => Box::pin(adapt::run(exchange, head, requests, adapter)).await,
            None => exchange.run(head, requests).await,
        }
    }
    .await;
    if let Err(error) = result {
        if let Some(status) = refuse(&error, &mut respond, note.status.is_none()) {
            note.status = Some(status);
        }
        note.error = Some(error);
    }
    open.has_ended = true;
    open.note.as_ref().is_some_and(StreamNote::is_taken_back)
}

/// The head that goes to the upstream, if this request may go there.
fn admit(
    mut head: request::Parts,
    kind: &StreamKind,
    settings: &H2Interception,
    watch: &impl Watch,
) -> Result<request::Parts, StreamError> {
    head::check(&head)?;
    if let StreamKind::ExtendedConnect(protocol) = kind {
        match watch.admit(protocol) {
            Admission::Passed => {}
            Admission::Forbidden => return Err(StreamError::Forbidden(protocol.clone())),
            Admission::Unknown => return Err(StreamError::Protocol(protocol.clone())),
        }
    }
    if head.headers.contains_key(EXPECT) {
        if !settings.silent_drop_expect_header {
            return Err(StreamError::Expectation);
        }
        head.headers.remove(EXPECT);
    }
    // A request may name its host in `host` alone (RFC 9113 §8.3.1); the library wants an authority.
    if head.uri.authority().is_none()
        && let Some(authority) = head
            .headers
            .get(HOST)
            .and_then(|host| uri::Authority::try_from(host.as_bytes()).ok())
    {
        let mut parts = head.uri.clone().into_parts();
        parts.authority = Some(authority);
        parts.scheme.get_or_insert(uri::Scheme::HTTPS);
        if let Ok(uri) = Uri::from_parts(parts) {
            head.uri = uri;
        }
    }
    Ok(head)
}

/// Answers a request that came to nothing; what it was answered, if with a response.
fn refuse(error: &StreamError, respond: &mut SendResponse<Bytes>, can_respond: bool) -> Option<StatusCode> {
    let status = match error {
        StreamError::Adaptation(error) => {
            let status = status_of(error).and_then(|status| StatusCode::from_u16(status).ok());
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
        StreamError::Expectation => StatusCode::EXPECTATION_FAILED,
        StreamError::Forbidden(_) => StatusCode::FORBIDDEN,
        StreamError::Malformed(_) => StatusCode::BAD_REQUEST,
        StreamError::Protocol(_) => StatusCode::NOT_IMPLEMENTED,
        StreamError::UpstreamSilent => StatusCode::GATEWAY_TIMEOUT,
        StreamError::InterimFlood | StreamError::SwitchingProtocols => StatusCode::BAD_GATEWAY,
        // A connection that we have ended for what the upstream has sent is the upstream's failure, too.
        StreamError::Upstream(error) if !(error.is_go_away() && error.is_remote()) => StatusCode::BAD_GATEWAY,
        StreamError::GoneAway | StreamError::UpstreamFull => {
            // Not processed, so that the client may try again elsewhere (RFC 9113 §8.7).
            respond.send_reset(Reason::REFUSED_STREAM);
            return None;
        }
        StreamError::Upstream(error) => {
            respond.send_reset(error.reason().unwrap_or(Reason::CANCEL));
            return None;
        }
        // Both ends of a tunnel say themselves how they end.
        StreamError::Tunnel(_) => return None,
        StreamError::UpstreamReset(reason) => {
            respond.send_reset(*reason);
            return None;
        }
        StreamError::Client(_) | StreamError::ClientReset(_) | StreamError::Cut => {
            respond.send_reset(Reason::CANCEL);
            return None;
        }
    };
    if can_respond {
        let mut response = Response::new(());
        *response.status_mut() = status;
        // What the client is still sending is for nobody: as the stream is dropped, the library resets it with
        // NO_ERROR behind the response (RFC 9113 §8.1).
        if respond.send_response(response, true).is_ok() {
            return Some(status);
        }
    }
    respond.send_reset(Reason::INTERNAL_ERROR);
    None
}

/// A request that is passed on.
pub(super) struct Exchange<'e> {
    /// The request's.
    pub(super) body: RecvStream,
    pub(super) respond: &'e mut SendResponse<Bytes>,
    pub(super) note: &'e mut StreamNote,
    pub(super) settings: &'e H2Interception,
}

impl Exchange<'_> {
    async fn run(self, head: request::Parts, requests: SendRequest<Bytes>) -> Result<(), StreamError> {
        let Self {
            mut body,
            respond,
            note,
            settings,
        } = self;
        let ends_at_once = body.is_end_stream();
        let (response, mut to_upstream) = note.open(head, ends_at_once, requests, settings).await?;
        let upload = async {
            if ends_at_once {
                return Ok(());
            }
            pass(&mut body, &mut to_upstream, client_error).await
        };
        let upload = pin!(upload);
        let mut upload = Upload::new(upload);
        // The response's head, while the request goes on.
        let answer = Answer::new(response, respond);
        let answered = upload.await_answer(answer, settings.rsp_header_recv_timeout.0).await?;
        let (parts, from_upstream) = answered.into_parts();
        note.answered(&parts);
        respond_as_is(upload, (parts, from_upstream), (respond, note)).await
    }
}

/// Passes a response on, while the rest of the request goes.
pub(super) async fn respond_as_is<F: Future<Output = Result<(), Stop>> + Unpin>(
    upload: Upload<F>,
    (parts, mut from_upstream): (response::Parts, RecvStream),
    (respond, note): (&mut SendResponse<Bytes>, &mut StreamNote),
) -> Result<(), StreamError> {
    let ends = from_upstream.is_end_stream();
    let mut to_client = respond
        .send_response(client_head(parts.status, parts.headers), ends)
        .map_err(client_error)?;
    note.status = Some(parts.status);
    let download = async {
        if ends {
            return Ok(());
        }
        pass(&mut from_upstream, &mut to_client, upstream_error).await
    };
    upload.finish(download, note).await
}

impl StreamNote {
    /// Opens a stream to the upstream; `ends` says that the request has no body.
    pub(super) async fn open(
        &mut self,
        head: request::Parts,
        ends: bool,
        mut requests: SendRequest<Bytes>,
        settings: &H2Interception,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), StreamError> {
        let (response, to_upstream) = requests
            .send_request(upstream_head(head), ends)
            .map_err(upstream_error)?;
        self.upstream_stream = Some(response.stream_id().as_u32());
        // It waits for its turn where the upstream takes no more streams at a time.
        let turn = poll_fn(|cx| requests.poll_ready(cx));
        if timeout(settings.upstream_stream_open_timeout.0, turn).await.is_err() {
            return Err(StreamError::UpstreamFull);
        }
        self.head_sent = Some(self.started.elapsed());
        if ends {
            self.request_sent = self.head_sent;
        }
        Ok((response, to_upstream))
    }

    /// The response's head has come.
    pub(super) fn answered(&mut self, head: &response::Parts) {
        self.head_received = Some(self.started.elapsed());
        self.origin_status = Some(head.status);
        if let Some(handshake) = &mut self.websocket {
            handshake.sub_protocol = text(&head.headers, "sec-websocket-protocol");
        }
    }
}

/// Waits for a response's head, passes interim ones on, and fails when the client does not want it any more.
pub(super) struct Answer<'e> {
    response: ResponseFuture,
    respond: &'e mut SendResponse<Bytes>,
    /// Interim responses so far; nothing but their number bounds what waits for a client that reads none.
    interim: u64,
    since: Instant,
}

impl<'e> Answer<'e> {
    pub(super) fn new(response: ResponseFuture, respond: &'e mut SendResponse<Bytes>) -> Self {
        Self {
            response,
            respond,
            interim: 0,
            since: Instant::now(),
        }
    }

    /// Hands an interim response on.
    fn pass(&mut self, interim: Response<()>) -> Result<(), StreamError> {
        let (parts, ()) = interim.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(StreamError::SwitchingProtocols);
        }
        self.interim += 1;
        if self.interim > MAX_INTERIM + self.since.elapsed().as_secs() * MAX_INTERIM / 10 {
            return Err(StreamError::InterimFlood);
        }
        let head = client_head(parts.status, parts.headers);
        self.respond.send_informational(head).map_err(client_error)
    }
}

impl Future for Answer<'_> {
    type Output = Result<Response<RecvStream>, StreamError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        while let Poll::Ready(Some(Ok(interim))) = this.response.poll_informational(cx) {
            if let Err(error) = this.pass(interim) {
                return Poll::Ready(Err(error));
            }
        }
        if let Poll::Ready(response) = std::pin::Pin::new(&mut this.response).poll(cx) {
            return Poll::Ready(response.map_err(upstream_error));
        }
        this.respond
            .poll_reset(cx)
            .map(|reset| Err(reset.map_or_else(client_error, StreamError::ClientReset)))
    }
}

fn upstream_head(mut head: request::Parts) -> Request<()> {
    head.version = Version::HTTP_2;
    Request::from_parts(head, ())
}

pub(super) fn client_head(status: StatusCode, headers: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    *response.version_mut() = Version::HTTP_2;
    response
}

pub(super) fn upstream_error(error: h2::Error) -> StreamError {
    match error.reason() {
        Some(reason) if error.is_reset() && error.is_remote() => StreamError::UpstreamReset(reason),
        // Streams beyond the last one that a GOAWAY names have not been processed.
        Some(Reason::REFUSED_STREAM) => StreamError::GoneAway,
        Some(Reason::NO_ERROR) if error.is_go_away() && error.is_remote() => StreamError::GoneAway,
        _ => StreamError::Upstream(error),
    }
}

pub(super) fn client_error(error: h2::Error) -> StreamError {
    match error.reason() {
        Some(reason) if error.is_reset() => StreamError::ClientReset(reason),
        _ => StreamError::Client(error),
    }
}

/// A field of a head, if it is there and readable.
fn text(headers: &HeaderMap, name: &str) -> Option<Box<str>> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(Box::from)
}
