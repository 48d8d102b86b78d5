//! One message, and what a service makes of it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sluice_http1::{ChunkScanner, put_field};
use sluice_icap::{BodyPart, Encapsulated, Method, Options, RequestHead, Response, end_to_end, parse_response};
use sluice_lifecycle::Tasks;
use sluice_telemetry::value::Uuid;

use super::body::{Body, BodySource, FromService, Idle};
use super::connection::Connection;
use super::error::IcapError;
use super::service::Service;
use super::upload::{Plan, Pushed, Upload};
use crate::audit::Said;
use crate::error::TaskError;

/// A message to be adapted, and whose it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// For whom.
    pub(crate) task: Uuid,
    /// The head of the request: start line in origin-form, fields, empty line.
    pub(crate) request_head: &'a [u8],
    /// The head of the response that is to be adapted; of none with REQMOD.
    pub(crate) response_head: &'a [u8],
    pub(crate) client: SocketAddr,
    pub(crate) user: Option<&'a str>,
    /// What the request asks to switch to.
    pub(crate) upgrade: Option<&'a [u8]>,
    /// The protocol of a message that was not HTTP/1: `HTTP/2.0`.
    pub(crate) transformed_from: Option<&'a str>,
    /// Field lines that REQMOD has given for RESPMOD.
    pub(crate) shared: &'a [u8],
    /// How long nothing may move.
    pub(crate) idle: Duration,
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on as it is.
    Unchanged,
    /// It goes on with this request head.
    Request(Vec<u8>),
    /// This response head goes on in its stead.
    Response(Vec<u8>),
}

/// A message as it goes on.
pub(crate) struct Adapted<S> {
    /// What becomes of its head. A new head has no fields of one hop, and its body, if there is one, any length.
    pub(crate) verdict: Verdict,
    /// The body that belongs to it.
    pub(crate) body: Option<Body<S>>,
    /// Field lines for RESPMOD.
    pub(crate) shared: Vec<u8>,
}

impl<S> Adapted<S> {
    /// A message that no service was asked about.
    pub(crate) fn untouched(source: Option<S>) -> Self {
        let body = source.map(|source| Body::Same {
            held: Vec::new(),
            ended: false,
            source,
        });
        Self {
            verdict: Verdict::Unchanged,
            body,
            shared: Vec::new(),
        }
    }

    fn unchanged(upload: Upload<S>, shared: Vec<u8>) -> Self
    where
        S: BodySource,
    {
        let (source, held, ended) = upload.into_parts();
        Self {
            verdict: Verdict::Unchanged,
            body: source.map(|source| Body::Same { held, ended, source }),
            shared,
        }
    }
}

impl Service {
    /// Asks the service about a message with this body, and has auditd told what it says.
    ///
    /// # Errors
    /// [`TaskError::Icap`] for what the service does wrong, other variants for the body's source.
    pub(crate) async fn adapt<S: BodySource>(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        body: Option<S>,
        tasks: &Tasks,
    ) -> Result<Adapted<S>, TaskError> {
        let Some(witness) = self.witness.as_ref().filter(|witness| witness.is_heard()) else {
            return self.exchange(ask, body, tasks).await.map(|(adapted, _)| adapted);
        };
        let began = Instant::now();
        let outcome = self.exchange(ask, body, tasks).await;
        let mut said = Said {
            task: ask.task,
            service: &self.uri,
            method: self.method,
            request_head: ask.request_head,
            status: None,
            verdict: "failed",
            response_head: None,
            error: None,
            duration: began.elapsed(),
        };
        match &outcome {
            Ok((adapted, status)) => {
                said.status = *status;
                (said.verdict, said.response_head) = match &adapted.verdict {
                    Verdict::Unchanged if status.is_none() => ("bypassed", None),
                    Verdict::Unchanged => ("unchanged", None),
                    Verdict::Request(_) => ("request", None),
                    Verdict::Response(head) => ("response", Some(head.as_slice())),
                };
            }
            Err(error) => {
                if let TaskError::Icap(IcapError::Status(status)) = error {
                    said.status = Some(*status);
                }
                said.error = Some(error.to_string());
            }
        }
        witness.tell(&said);
        outcome.map(|(adapted, _)| adapted)
    }

    /// Asks it. Tells the status of its answer, too; none if the message goes on without one.
    async fn exchange<S: BodySource>(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        body: Option<S>,
        tasks: &Tasks,
    ) -> Result<(Adapted<S>, Option<u16>), TaskError> {
        let mut upload = Upload::new(body);
        let Some((mut connection, options)) = self.reach(tasks).await? else {
            return Ok((Adapted::unchanged(upload, Vec::new()), None));
        };
        let wanted = options.preview.filter(|_| !self.no_preview);
        let plan = upload.plan(wanted, self.preview_timeout).await?;
        let heads = self.heads(ask, plan, &options)?;
        loop {
            upload.begin(heads.clone(), plan);
            let was_reused = connection.reused;
            let mut turn = Turn {
                service: self,
                connection,
                upload: &mut upload,
                plan,
                may_204: plan == Plan::Empty || plan == Plan::Whole && options.allow_204,
                heard: false,
                idle: Idle::new(ask.idle),
            };
            match turn.run().await {
                Ok(answer) => {
                    let Turn { connection, idle, .. } = turn;
                    let status = answer.status;
                    let adapted = self.settle(answer, connection, upload, idle)?;
                    return Ok((adapted, Some(status)));
                }
                // The service may have closed a connection that waited, and never have seen the message.
                Err(TaskError::Icap(IcapError::Closed | IcapError::Read(_)))
                    if was_reused && !turn.heard && turn.upload.is_complete() =>
                {
                    connection = self.acquire(tasks, true).await?.0;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The head of the request, with the HTTP heads.
    fn heads(&self, ask: &Ask<'_>, plan: Plan, options: &Options) -> Result<Vec<u8>, IcapError> {
        let mut parts = Vec::new();
        end_to_end(ask.request_head, &["expect"], &mut parts)?;
        let request_head = parts.len();
        if self.method == Method::Respmod {
            let mut response = Vec::new();
            end_to_end(ask.response_head, &[], &mut response)?;
            parts.append(&mut response);
        }
        let length = |bytes: usize| u32::try_from(bytes).map_err(|_| IcapError::Parts);
        let body = match (plan, self.method) {
            (Plan::Empty, _) => BodyPart::None,
            (_, Method::Respmod) => BodyPart::Response,
            (_, Method::Options | Method::Reqmod) => BodyPart::Request,
        };
        let extra = self.extra(ask);
        let mut out = Vec::with_capacity(512 + parts.len());
        RequestHead {
            method: self.method,
            uri: &self.uri,
            host: &self.host,
            authorization: self.authorization.as_deref(),
            extra: &extra,
            // Within a preview 204 needs no leave (IC-06).
            allow_204: options.allow_204 && matches!(plan, Plan::Empty | Plan::Whole),
            preview: match plan {
                Plan::Preview(bytes) => Some(length(bytes)?),
                Plan::Empty | Plan::Stream | Plan::Whole => None,
            },
            encapsulated: Encapsulated {
                request_head: length(request_head)?,
                response_head: length(parts.len() - request_head)?,
                body,
            },
        }
        .put(&mut out);
        out.append(&mut parts);
        Ok(out)
    }

    /// The fields that tell whose message it is (wire-protocols.md §8). What cannot stand in a field is left out.
    fn extra(&self, ask: &Ask<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |name: &str, value: &[u8]| {
            let _ = put_field(&mut out, name, value);
        };
        if let Some(protocol) = ask.transformed_from {
            put("X-Transformed-From", protocol.as_bytes());
        }
        if let Some(protocol) = ask.upgrade.filter(|_| self.method == Method::Reqmod) {
            put("X-HTTP-Upgrade", protocol);
        }
        put("X-Client-IP", ask.client.ip().to_string().as_bytes());
        put("X-Client-Port", ask.client.port().to_string().as_bytes());
        if let Some(user) = ask.user {
            put("X-Client-Username", user.as_bytes());
            let full = STANDARD.encode(format!("Local://{user}"));
            put("X-Authenticated-User", full.as_bytes());
        }
        out.extend_from_slice(ask.shared);
        out
    }

    /// Makes of an answer what goes on.
    fn settle<S: BodySource>(
        self: &Arc<Self>,
        answer: Answer,
        connection: Connection,
        upload: Upload<S>,
        idle: Idle,
    ) -> Result<Adapted<S>, TaskError> {
        let stays = answer.keep_alive;
        let verdict = match answer.kind {
            Kind::Unchanged => {
                if stays && upload.is_done() {
                    self.release(connection);
                }
                return Ok(Adapted::unchanged(upload, answer.shared));
            }
            Kind::Request(head) => Verdict::Request(head),
            Kind::Response(head) => Verdict::Response(head),
        };
        if !answer.has_body {
            if stays && upload.is_done() {
                self.release(connection);
            }
            return Ok(Adapted {
                verdict,
                body: None,
                shared: answer.shared,
            });
        }
        let body = Body::Adapted(Box::new(FromService {
            service: Arc::clone(self),
            connection: Some(connection),
            scanner: ChunkScanner::keeping_trailers(&sluice_http1::Limits::default()),
            upload,
            keep_alive: stays,
            idle,
            waiting: false,
        }));
        Ok(Adapted {
            verdict,
            body: Some(body),
            shared: answer.shared,
        })
    }
}

/// What the service has answered, its body apart.
struct Answer {
    status: u16,
    kind: Kind,
    has_body: bool,
    keep_alive: bool,
    shared: Vec<u8>,
}

enum Kind {
    Unchanged,
    Request(Vec<u8>),
    Response(Vec<u8>),
}

/// A final head of a response, away from the buffer.
struct Final {
    status: u16,
    parts: Option<Encapsulated>,
    keep_alive: bool,
    shared: Vec<u8>,
}

/// A message being sent, and its answer being waited for, on one connection.
struct Turn<'a, S> {
    service: &'a Service,
    connection: Connection,
    upload: &'a mut Upload<S>,
    plan: Plan,
    /// 204 is an answer also where no preview is being waited for.
    may_204: bool,
    /// Something has come.
    heard: bool,
    idle: Idle,
}

impl<S: BodySource> Turn<'_, S> {
    async fn run(&mut self) -> Result<Answer, TaskError> {
        let head = loop {
            match self.take_head()? {
                Some(head) if head.status != 100 => break head,
                Some(_) => {
                    if !(matches!(self.plan, Plan::Preview(_)) && self.upload.is_paused()) {
                        return Err(IcapError::Status(100).into());
                    }
                    self.upload.go_on();
                    self.idle.moved();
                }
                None => self.wait().await?,
            }
        };
        self.judge(head).await
    }

    /// The next head, if it is there.
    fn take_head(&mut self) -> Result<Option<Final>, IcapError> {
        if self.connection.input.is_empty() {
            return Ok(None);
        }
        let Some(response) = parse_response(self.connection.input.filled(), &self.service.limits)? else {
            return Ok(None);
        };
        let head = Final {
            status: response.status,
            parts: response.encapsulated,
            keep_alive: response.keep_alive,
            shared: self.shared(&response),
        };
        let len = response.len;
        self.connection.input.consume(len);
        Ok(Some(head))
    }

    /// The lines that RESPMOD is to repeat.
    fn shared(&self, response: &Response<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        for name in &self.service.shared_names {
            for field in response.fields().filter(|field| field.is(name)) {
                // Both were found well formed.
                let _ = put_field(&mut out, name, field.value);
            }
        }
        out
    }

    async fn judge(&mut self, head: Final) -> Result<Answer, TaskError> {
        let Final {
            status,
            parts,
            keep_alive,
            shared,
        } = head;
        match status {
            204 if self.upload.is_complete() && (self.may_204 || matches!(self.plan, Plan::Preview(_))) => {
                if parts.is_some_and(|parts| parts.heads() > 0 || parts.body != BodyPart::None) {
                    return Err(IcapError::Parts.into());
                }
                Ok(Answer {
                    status,
                    kind: Kind::Unchanged,
                    has_body: false,
                    keep_alive,
                    shared,
                })
            }
            204 | 206 => Err(IcapError::Status(status).into()),
            200..=299 => {
                let parts = parts.ok_or(IcapError::Parts)?;
                let (kind, has_body) = self.read_parts(parts).await?;
                Ok(Answer {
                    status,
                    kind,
                    has_body,
                    keep_alive,
                    shared,
                })
            }
            _ => Err(IcapError::Status(status).into()),
        }
    }

    /// Reads the HTTP head of an answer, and tells whether a body follows it.
    async fn read_parts(&mut self, parts: Encapsulated) -> Result<(Kind, bool), TaskError> {
        let is_request = match (self.service.method, parts.request_head, parts.response_head, parts.body) {
            (Method::Reqmod, 1.., 0, BodyPart::None | BodyPart::Request) => true,
            (Method::Reqmod | Method::Respmod, 0, 1.., BodyPart::None | BodyPart::Response) => false,
            _ => return Err(IcapError::Parts.into()),
        };
        while self.connection.input.filled().len() < parts.heads() {
            self.wait().await?;
        }
        let mut head = Vec::new();
        let bytes = self.connection.input.filled().get(..parts.heads()).unwrap_or_default();
        // The service's own Via is none of the origin's business.
        let also: &[&str] = if is_request { &["via", "expect"] } else { &[] };
        end_to_end(bytes, also, &mut head).map_err(IcapError::from)?;
        self.connection.input.consume(parts.heads());
        let kind = if is_request {
            Kind::Request(head)
        } else {
            Kind::Response(head)
        };
        Ok((kind, parts.body != BodyPart::None))
    }

    /// Sends what there is and waits until something has come.
    async fn wait(&mut self) -> Result<(), TaskError> {
        poll_fn(|cx| {
            loop {
                if self.upload.poll_push(cx, &mut self.connection.wire)? == Pushed::Moved {
                    self.idle.moved();
                }
                let Connection { wire, input, .. } = &mut self.connection;
                match input.poll_fill(cx, wire) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(IcapError::Closed.into())),
                    Poll::Ready(Ok(_)) => {
                        self.heard = true;
                        self.idle.moved();
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(IcapError::Read(error).into())),
                    Poll::Pending => {
                        if let Some(error) = ready!(self.idle.poll(cx, self.upload)) {
                            return Poll::Ready(Err(error));
                        }
                    }
                }
            }
        })
        .await
    }
}
