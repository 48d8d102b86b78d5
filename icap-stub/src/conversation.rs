//! The requests of one connection, one after the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sluice_http1::{BodyError, ChunkScanner, LAST_CHUNK, put_chunk};
use sluice_icap::{BodyPart, Encapsulated, Limits, Method, PartError, RequestError, ResponseHead, parse_request};
use sluice_lifecycle::Tasks;
use sluice_telemetry::debug;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::config::{Answer, RuleConfig};
use crate::edit;
use crate::rules::{Service, Services, Verdict};
use crate::stats::Stats;

/// How long a client may leave a connection unused, or a transfer may stand still.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes that are read at a time.
const READ: usize = 16 * 1024;
/// The longest preview that is kept until the rest is asked for.
const MAX_PREVIEW: u32 = 1 << 20;
/// The tag of all services: what is done depends on the configuration alone.
const ISTAG: &str = "sluice-icap-stub";

/// What every conversation shares.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) services: Arc<ArcSwap<Services>>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) tasks: Tasks,
}

/// Why a conversation ends.
#[derive(Debug, Error)]
enum End {
    #[error("invalid body: {0}")]
    Body(#[from] BodyError),
    #[error("closed as a rule says")]
    ByRule,
    #[error("the client has closed")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("invalid HTTP head: {0}")]
    Part(#[from] PartError),
    #[error("a preview that is longer than it says, or than {MAX_PREVIEW} bytes")]
    Preview,
    #[error("invalid request: {0}")]
    Request(#[from] RequestError),
    #[error("no byte for too long")]
    Silent,
    #[error("told to stop")]
    Stopped,
}

/// Serves a connection to its end.
pub(crate) async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Shared) {
    shared.stats.connections.add();
    let quit = shared.tasks.clone();
    let mut conversation = Conversation {
        stream,
        input: Vec::new(),
        answering: false,
        shared,
    };
    tokio::select! {
        end = conversation.run() => {
            if let Err(error) = end {
                debug!("a conversation ended"; "reason" => %error);
            }
        }
        () = quit.quitting() => {}
    }
}

struct Conversation<S> {
    stream: S,
    /// Received and not yet used.
    input: Vec<u8>,
    /// Whether the answer to the request at work has begun.
    answering: bool,
    shared: Shared,
}

/// What is needed of a request once its head is gone from the buffer.
struct Message {
    service: Arc<Service>,
    method: Method,
    parts: Encapsulated,
    preview: Option<u32>,
    allow_204: bool,
    keep_alive: bool,
    /// The HTTP heads.
    heads: Vec<u8>,
}

impl Message {
    fn http_request(&self) -> &[u8] {
        self.heads.get(..self.parts.request_head as usize).unwrap_or_default()
    }

    /// The head that is adapted.
    fn subject(&self) -> &[u8] {
        match self.method {
            Method::Respmod => self.heads.get(self.parts.request_head as usize..).unwrap_or_default(),
            Method::Options | Method::Reqmod => self.http_request(),
        }
    }

    fn has_body(&self) -> bool {
        self.parts.body != BodyPart::None
    }

    /// The parts of an answer with the adapted head of so many bytes.
    #[expect(clippy::cast_possible_truncation, reason = "heads are bounded where they are read")]
    fn answer_parts(&self, head: usize, has_body: bool) -> Encapsulated {
        match self.method {
            Method::Respmod => response_parts(head, has_body),
            Method::Options | Method::Reqmod => Encapsulated {
                request_head: head as u32,
                response_head: 0,
                body: if has_body { BodyPart::Request } else { BodyPart::None },
            },
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "heads are bounded where they are read")]
fn response_parts(head: usize, has_body: bool) -> Encapsulated {
    Encapsulated {
        request_head: 0,
        response_head: head as u32,
        body: if has_body { BodyPart::Response } else { BodyPart::None },
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    async fn run(&mut self) -> Result<(), End> {
        loop {
            match self.request().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(End::Request(error)) => {
                    self.shared.stats.bad_requests.add();
                    self.refuse(error.status()).await?;
                    debug!("a request is refused"; "reason" => %error);
                    break;
                }
                Err(End::Body(_) | End::Part(_) | End::Preview) => {
                    self.shared.stats.bad_requests.add();
                    // In the middle of an answer its end is all that can be said.
                    if !self.answering {
                        self.refuse(400).await?;
                    }
                    break;
                }
                Err(other) => return Err(other),
            }
        }
        self.stream.shutdown().await?;
        Ok(())
    }

    /// Serves one request; tells whether another one may follow.
    async fn request(&mut self) -> Result<bool, End> {
        self.answering = false;
        let Some(message) = self.read_heads().await? else {
            return Ok(false);
        };
        let stats = Arc::clone(&self.shared.stats);
        match message.method {
            Method::Options => stats.options.add(),
            Method::Reqmod => stats.reqmod.add(),
            Method::Respmod => stats.respmod.add(),
        }
        if message.method == Method::Options {
            if message.has_body() {
                self.skip_body(&mut Incoming::new(None)).await?;
            }
            self.put(
                &message,
                200,
                Some(Encapsulated::default()),
                &message.service.offer,
                b"",
            )
            .await?;
            return Ok(message.keep_alive);
        }
        let mut body = Incoming::new(message.preview);
        body.done = !message.has_body();
        let service = Arc::clone(&message.service);
        let verdict = service.judge(message.method, message.http_request());
        if let Some(delay) = verdict.delay() {
            sleep(delay).await;
        }
        match (verdict.answer(), &verdict) {
            (Answer::Close, _) => Err(End::ByRule),
            (Answer::Fail, Verdict::Rule(rule)) => {
                stats.failed.add();
                self.read_to_pause(&mut body).await?;
                self.put(&message, rule.status.unwrap_or(500), None, b"", b"").await?;
                Ok(message.keep_alive)
            }
            (Answer::Block, Verdict::Rule(rule)) => {
                stats.blocked.add();
                self.block(&message, &mut body, rule).await
            }
            (Answer::Echo, Verdict::Rule(rule)) => {
                stats.echoed.add();
                self.echo(&message, &mut body, rule).await
            }
            _ if service.config.allow_204 && (message.allow_204 || message.preview.is_some()) => {
                stats.unchanged.add();
                self.read_to_pause(&mut body).await?;
                self.put(&message, 204, None, b"", b"").await?;
                Ok(message.keep_alive)
            }
            _ => {
                stats.echoed.add();
                self.echo(&message, &mut body, &RuleConfig::default()).await
            }
        }
    }

    /// The head of the next request, and the HTTP heads in it; `None` if there is no next one.
    async fn read_heads(&mut self) -> Result<Option<Message>, End> {
        let limits = Limits::default();
        loop {
            if let Some(request) = parse_request(&self.input, &limits)? {
                let (len, parts) = (request.len, request.encapsulated);
                let services = self.shared.services.load();
                let service = services.find(request.path()).map(Arc::clone);
                let message = service.map(|service| Message {
                    service,
                    method: request.method,
                    parts,
                    preview: request.preview,
                    allow_204: request.allow_204,
                    keep_alive: request.keep_alive,
                    heads: Vec::new(),
                });
                let Some(mut message) = message else {
                    self.refuse(404).await?;
                    return Ok(None);
                };
                if !message.service.does(message.method) {
                    self.refuse(405).await?;
                    return Ok(None);
                }
                let needed = len + parts.heads();
                while self.input.len() < needed {
                    self.fill().await?;
                }
                message.heads = self.input[len..needed].to_vec();
                self.input.drain(..needed);
                return Ok(Some(message));
            }
            let is_between = self.input.is_empty();
            match self.fill_or_stop(is_between).await {
                Err(End::Closed | End::Silent | End::Stopped) if is_between => return Ok(None),
                other => other?,
            }
        }
    }

    /// An HTTP response in the message's stead.
    async fn block(&mut self, message: &Message, body: &mut Incoming, rule: &RuleConfig) -> Result<bool, End> {
        self.read_to_pause(body).await?;
        let status = rule.status.unwrap_or(403);
        let page = rule.page.clone().unwrap_or_else(|| {
            format!("<html><body><h1>{status}</h1><p>Blocked by Sluice's icap-stub.</p></body></html>\n")
        });
        let head = edit::page(status, page.len());
        let mut rest = head.clone();
        put_chunk(&mut rest, page.as_bytes());
        rest.extend_from_slice(LAST_CHUNK);
        let parts = response_parts(head.len(), true);
        self.put(message, 200, Some(parts), b"", &rest).await?;
        Ok(message.keep_alive)
    }

    /// The message itself, changed as the rule says.
    async fn echo(&mut self, message: &Message, body: &mut Incoming, rule: &RuleConfig) -> Result<bool, End> {
        let length = rule.replace_body.as_ref().map(String::len);
        let head = edit::changed(message.subject(), &rule.set_header, length)?;
        if let Some(text) = &rule.replace_body {
            self.read_to_pause(body).await?;
            let mut rest = head.clone();
            put_chunk(&mut rest, text.as_bytes());
            rest.extend_from_slice(LAST_CHUNK);
            self.put(message, 200, Some(message.answer_parts(head.len(), true)), b"", &rest)
                .await?;
            return Ok(message.keep_alive);
        }
        let parts = message.answer_parts(head.len(), message.has_body());
        if !message.has_body() {
            self.put(message, 200, Some(parts), b"", &head).await?;
            return Ok(message.keep_alive);
        }
        // A preview is taken first: what follows it comes only after 100.
        let mut seen = Vec::new();
        if let Some(preview) = body.preview {
            while !body.done {
                self.body_piece(body, &mut seen).await?;
                if seen.len() > preview.min(MAX_PREVIEW) as usize {
                    return Err(End::Preview);
                }
            }
            if !body.is_whole() {
                self.stream.write_all(b"ICAP/1.0 100 Continue\r\n\r\n").await?;
                body.go_on();
            }
        }
        let mut out = head;
        put_chunk(&mut out, &seen);
        self.put(message, 200, Some(parts), b"", &out).await?;
        while !body.done {
            seen.clear();
            self.body_piece(body, &mut seen).await?;
            let mut out = Vec::with_capacity(seen.len() + 16);
            put_chunk(&mut out, &seen);
            self.write(&out).await?;
        }
        let mut end = b"0\r\n".to_vec();
        end.extend_from_slice(body.scanner.trailers());
        end.extend_from_slice(b"\r\n");
        self.write(&end).await?;
        Ok(message.keep_alive)
    }

    /// Reads the body as far as the client sends it without being asked for more.
    async fn read_to_pause(&mut self, body: &mut Incoming) -> Result<(), End> {
        let mut ignored = Vec::new();
        while !body.done {
            ignored.clear();
            self.body_piece(body, &mut ignored).await?;
        }
        Ok(())
    }

    async fn skip_body(&mut self, body: &mut Incoming) -> Result<(), End> {
        self.read_to_pause(body).await
    }

    /// Takes what is there of the body, or waits for more.
    async fn body_piece(&mut self, body: &mut Incoming, out: &mut Vec<u8>) -> Result<(), End> {
        if self.input.is_empty() {
            self.fill().await?;
        }
        let used = body.take(&self.input, out)?;
        self.input.drain(..used);
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), End> {
        self.fill_or_stop(false).await
    }

    /// Reads once; with `may_stop` an order to stop ends the wait.
    async fn fill_or_stop(&mut self, may_stop: bool) -> Result<(), End> {
        self.input.reserve(READ);
        let read = timeout(SILENCE, self.stream.read_buf(&mut self.input));
        let read = tokio::select! {
            read = read => read,
            () = self.shared.tasks.stopping(), if may_stop => return Err(End::Stopped),
        };
        match read {
            Err(_) => Err(End::Silent),
            Ok(Ok(0)) => Err(End::Closed),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        timeout(SILENCE, self.stream.write_all(bytes))
            .await
            .map_err(|_| End::Silent)??;
        Ok(())
    }

    /// Sends an answer's head and what is known of its parts.
    async fn put(
        &mut self,
        message: &Message,
        status: u16,
        encapsulated: Option<Encapsulated>,
        extra: &[u8],
        parts: &[u8],
    ) -> Result<(), End> {
        let mut lines = extra.to_vec();
        if message.method != Method::Options {
            for header in &message.service.config.answer_header {
                lines.extend_from_slice(&header.line);
            }
        }
        let mut out = Vec::new();
        ResponseHead {
            status,
            istag: ISTAG,
            extra: &lines,
            close: !message.keep_alive,
            encapsulated,
        }
        .put(&mut out);
        out.extend_from_slice(parts);
        self.answering = true;
        self.write(&out).await
    }

    /// Answers with an error; the connection ends with it.
    async fn refuse(&mut self, status: u16) -> Result<(), End> {
        let mut out = Vec::new();
        ResponseHead {
            status,
            istag: ISTAG,
            extra: b"",
            close: true,
            encapsulated: None,
        }
        .put(&mut out);
        self.write(&out).await
    }
}

/// A body on its way in: its preview, then the rest.
struct Incoming {
    scanner: ChunkScanner,
    /// Of how many bytes the preview is, if there is one.
    preview: Option<u32>,
    /// All has come that comes without being asked for.
    done: bool,
}

impl Incoming {
    fn new(preview: Option<u32>) -> Self {
        Self {
            scanner: ChunkScanner::keeping_trailers(&sluice_http1::Limits::default()),
            preview,
            done: false,
        }
    }

    /// Takes payload off `bytes`; tells how many of them were used.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, BodyError> {
        let mut rest = bytes;
        while let Some(payload) = self.scanner.payload(&mut rest)? {
            out.extend_from_slice(payload);
        }
        self.done = self.scanner.is_done();
        Ok(bytes.len() - rest.len())
    }

    /// Whether nothing follows what has come.
    fn is_whole(&self) -> bool {
        self.preview.is_none() || self.scanner.is_ieof()
    }

    /// What follows the preview is another body in chunks.
    fn go_on(&mut self) {
        *self = Self::new(None);
    }
}
