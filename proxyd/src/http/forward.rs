//! Requests for origins: each gets an upstream connection, kept or new, and is exchanged over it.

use std::sync::Arc;
use std::time::Duration;

use sluice_http1::ResponseHead;
use sluice_io::Stream;
use sluice_io::buffer::{self, ReadBuffer};
use sluice_tls::HandshakeError;
use sluice_tls::client::Connector;

use crate::audit::Auditor;
use crate::client::Client;
use crate::connect::{Connect, Path};
use crate::error::TaskError;
use crate::http::adapt::{self, Adaptation, Way};
use crate::http::exchange::{self, Done, Exchange, Failure, Outcome, Setting, Terms, Upstream};
use crate::http::plan::Forward;
use crate::http::pool::{Kept, Key, Tls};
use crate::http::reply;
use crate::record::Stage;
use crate::server::http_proxy::{HttpProxy, Session};
use crate::task::{Peers, Task, TaskKind};
use crate::tunnel;
use crate::user::Permit;
use crate::worker::Worker;

/// What becomes of a client's connection after a request.
pub(crate) enum After {
    /// It takes the next one.
    Next(Box<Client>),
    /// It is closed; bytes that the client is still sending are thrown away for a moment.
    Close(Box<Client>),
    /// It is gone already, or belongs to a tunnel now.
    Gone,
}

/// Serves one request.
pub(crate) async fn run(session: &mut Session, mut client: Box<Client>, mut request: Forward) -> After {
    let server = Arc::clone(&session.server);
    let notes = request.notes.take();
    let permit = request.permit.take();
    let mut task = Task::begin(
        &server.common,
        TaskKind::HttpForward,
        &client.peers,
        &request.upstream,
        client.waiting_since,
        permit,
        notes,
    );
    task.traffic.read_client(request.received);
    let repeatable = request.is_repeatable();
    let mut forwarding = Forwarding {
        route: Route {
            server: &server,
            session,
            upstream: &request.upstream,
            tls: request.tls,
            path_index: request.path_index,
            keepalive: request.upstream_keepalive,
        },
        task: &mut task,
        message: &mut request.message,
        repeatable,
    };
    match forwarding.run(&mut client).await {
        Ok((Outcome::Done(done), _)) => {
            task.finished();
            buffer::recycle(std::mem::take(&mut request.message.head));
            match (done.client_persists, done.request_done && client.buf.is_empty()) {
                (true, _) => After::Next(client),
                // Nothing that the client sent is left unread, so that no reset can overtake the response.
                (false, true) => After::Gone,
                (false, false) => After::Close(client),
            }
        }
        Ok((Outcome::Upgraded { first, .. }, upstream)) => {
            if let Some(upstream) = upstream {
                let upstream = (upstream.stream, first, upstream.limit);
                tunnel::spawn(&session.worker, *client, upstream, task);
            }
            After::Gone
        }
        Err(failure) => {
            task.failed(&failure.error);
            if failure.begun {
                return After::Gone;
            }
            Box::pin(reply::send_error(
                &server,
                client,
                &failure.error,
                &mut task,
                request.may_persist(),
            ))
            .await
        }
    }
}

/// Where a connection came from.
struct Origin {
    path: Box<Path>,
    /// The escaper's.
    generation: u64,
}

/// What this server's exchanges are bound by.
struct OfServer<'a> {
    terms: Terms,
    server: &'a HttpProxy,
    worker: &'a Worker,
}

impl Setting for OfServer<'_> {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn is_ending(&self, _: &ResponseHead<'_>) -> bool {
        self.server.is_ending(self.worker)
    }

    fn put_headers(&self, path: &Path, head: &ResponseHead<'_>, out: &mut Vec<u8>) {
        self.server.options.put_upstream_headers(head, path, out);
    }

    fn adaptation(&self) -> Option<Adaptation<'_>> {
        // What is adapted has its own way to the upstream.
        None
    }
}

/// A request at work.
struct Forwarding<'a> {
    route: Route<'a>,
    task: &'a mut Task,
    message: &'a mut exchange::Request,
    /// It may be sent once more.
    repeatable: bool,
}

impl Forwarding<'_> {
    /// Serves the request; the upstream comes back where it is still needed.
    async fn run(&mut self, client: &mut Client) -> Result<(Outcome, Option<Upstream>), Failure> {
        let server = self.route.server;
        let auditor = server.common.auditor.as_deref();
        if let Some(auditor) = auditor.filter(|auditor| auditor.adapts_request(self.task.permit())) {
            // A large future that most requests have no use for.
            return Box::pin(self.run_adapted(client, auditor)).await;
        }
        let (mut upstream, mut origin) = self.open(client, false).await?;
        loop {
            let setting = OfServer {
                terms: self.terms(),
                server,
                worker: &self.route.session.worker,
            };
            let mut exchange = Exchange {
                setting: &setting,
                task: self.task,
                request: self.message,
            };
            match exchange.run(client, &mut upstream).await {
                Ok(Outcome::Done(done)) => {
                    self.route.keep(self.task, upstream, origin, &done);
                    return Ok((Outcome::Done(done), None));
                }
                Ok(outcome) => return Ok((outcome, Some(upstream))),
                Err(failure) if failure.unheard && self.repeatable => {
                    (upstream, origin) = self.open(client, true).await?;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn open(&mut self, client: &Client, again: bool) -> Result<(Upstream, Origin), Failure> {
        let opened = self.route.open(&client.peers, self.task, again).await;
        opened.map_err(Failure::early)
    }

    /// The same for a request that services adapt. An upstream is opened once they let it go on.
    async fn run_adapted(
        &mut self,
        client: &mut Client,
        auditor: &Auditor,
    ) -> Result<(Outcome, Option<Upstream>), Failure> {
        let worker = Arc::clone(&self.route.session.worker);
        let setting = OfServer {
            terms: self.terms(),
            server: self.route.server,
            worker: &worker,
        };
        let adaptation = Adaptation {
            services: &auditor.icap,
            tasks: &worker.tasks,
        };
        let mut way = ToOrigin {
            route: &mut self.route,
            peers: client.peers.clone(),
            repeatable: self.repeatable,
            opened: None,
        };
        let mut exchange = Exchange {
            setting: &setting,
            task: self.task,
            request: self.message,
        };
        let outcome = adapt::run(&mut exchange, adaptation, client, &mut way).await?;
        Ok(match (outcome, way.opened) {
            (Outcome::Done(done), Some((upstream, origin))) => {
                self.route.keep(self.task, upstream, origin, &done);
                (Outcome::Done(done), None)
            }
            (outcome, opened) => (outcome, opened.map(|(upstream, _)| upstream)),
        })
    }

    fn terms(&self) -> Terms {
        let terms = self.route.server.options.terms;
        let permit = self.task.permit();
        Terms {
            response_timeout: permit.map_or(terms.response_timeout, |permit| {
                permit.response_timeout(terms.response_timeout)
            }),
            ..terms
        }
    }
}

/// The way of a request that services adapt.
struct ToOrigin<'w, 'r> {
    route: &'w mut Route<'r>,
    peers: Peers,
    repeatable: bool,
    opened: Option<(Upstream, Origin)>,
}

impl Way for ToOrigin<'_, '_> {
    async fn upstream(&mut self, task: &mut Task, again: bool) -> Result<&mut Upstream, TaskError> {
        let opened = self.route.open(&self.peers, task, again).await?;
        Ok(&mut self.opened.insert(opened).0)
    }

    fn may_repeat(&self) -> bool {
        self.repeatable
    }
}

/// Where a request goes, and who opens the way.
struct Route<'a> {
    server: &'a Arc<HttpProxy>,
    session: &'a mut Session,
    upstream: &'a sluice_addr::Upstream,
    /// The origin is spoken to over TLS.
    tls: bool,
    path_index: Option<u64>,
    /// How long its connection waits for another request; `None`: it is not kept.
    keepalive: Option<Duration>,
}

impl Route<'_> {
    /// A kept connection, or a new one; the latter if a kept one was closed before it had answered.
    async fn open(&mut self, peers: &Peers, task: &mut Task, again: bool) -> Result<(Upstream, Origin), TaskError> {
        if again && let Some(permit) = task.permit() {
            permit.renewed();
        }
        if !again && let Some(escaper) = self.server.escapers.reusable(self.server.escaper) {
            let key = self.key(task, escaper.generation);
            let kept = self
                .session
                .take_private(&key)
                .or_else(|| self.session.worker.pool.take(&key));
            if let Some(kept) = kept {
                escaper.stats.mine().task_total.add(1);
                if let Some(permit) = task.permit() {
                    permit.reused();
                }
                task.connected(&escaper.stats, &kept.path, Some(true));
                let upstream = Upstream {
                    stream: kept.stream,
                    buf: ReadBuffer::default(),
                    reused: true,
                    limit: kept.limit,
                };
                let origin = Origin {
                    path: kept.path,
                    generation: escaper.generation,
                };
                return Ok((upstream, origin));
            }
        }
        // Connecting is rare and a large future: it gets memory of its own.
        Box::pin(self.connect(peers, task)).await
    }

    fn key(&self, task: &Task, escaper: u64) -> Key {
        let permit = task.permit();
        let site = permit.and_then(Permit::tls_client);
        Key {
            escaper,
            user: permit.map(|permit| permit.user.id),
            egress: permit.and_then(Permit::egress).map(|egress| egress.addr.clone()),
            tls: match (self.tls, site) {
                (false, _) => Tls::Plain,
                (true, None) => Tls::Server(self.server.generation),
                (true, Some((_, id))) => Tls::Site(*id),
            },
            path_index: self.path_index,
            upstream: self.upstream.clone(),
        }
    }

    async fn connect(&mut self, peers: &Peers, task: &mut Task) -> Result<(Upstream, Origin), TaskError> {
        task.set_stage(Stage::Connecting);
        let connect = Connect {
            upstream: self.upstream,
            task_id: task.id,
            client: peers.client,
            server: peers.server,
            path_index: self.path_index,
            permit: task.traffic.permit.as_deref(),
            worker: &self.session.worker,
        };
        let connected = match self.server.escapers.connect(self.server.escaper, &connect).await {
            Ok(connected) => connected,
            Err(failed) => {
                task.not_connected(&failed.escaper.stats, &failed.failure.path);
                return Err(failed.failure.error.into());
            }
        };
        let (mut stream, mut path) = (connected.opened.stream, connected.opened.path);
        let tls_client = task.permit().and_then(Permit::tls_client);
        let tls_client = tls_client.map_or(&self.server.tls_client, |(connector, _)| connector);
        if task.is_logged() || self.server.options.tells_path() {
            path.local = stream.plain().and_then(|tcp| tcp.local_addr().ok());
        }
        if self.tls {
            stream = match handshake(tls_client, self.upstream, stream).await {
                Ok(stream) => stream,
                Err(error) => {
                    connected.escaper.log_tls_failure(&connect, &path, &error);
                    task.not_connected(&connected.escaper.stats, &path);
                    return Err(TaskError::UpstreamTls(error));
                }
            };
        }
        task.connected(&connected.escaper.stats, &path, Some(false));
        let upstream = Upstream {
            stream,
            buf: ReadBuffer::default(),
            reused: false,
            limit: connected.opened.limit,
        };
        let origin = Origin {
            path: Box::new(path),
            generation: connected.escaper.generation,
        };
        Ok((upstream, origin))
    }

    /// Keeps the upstream connection for another request, if it is fit for that.
    fn keep(&mut self, task: &Task, upstream: Upstream, origin: Origin, done: &Done) {
        let Some(expire) = self.keepalive else {
            return;
        };
        if !done.upstream_persists || self.server.escapers.reusable(self.server.escaper).is_none() {
            return;
        }
        let key = self.key(task, origin.generation);
        let kept = Kept::new(upstream.stream, origin.path, upstream.limit, expire);
        if done.private {
            self.session.keep_private(key, kept);
        } else {
            self.session.worker.pool.put(key, kept);
        }
    }
}

/// TLS with the origin of an `https://` URL.
async fn handshake(
    tls_client: &Connector,
    upstream: &sluice_addr::Upstream,
    stream: Stream,
) -> Result<Stream, HandshakeError> {
    let tls = tls_client
        .connect(stream, &upstream.host, upstream.port, &[b"http/1.1"])
        .await?;
    Ok(Stream::Secure(Box::new(tls)))
}
