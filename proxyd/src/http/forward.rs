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
use crate::http::adapt::Adaptation;
use crate::http::exchange::{Done, Exchange, Failure, Outcome, Setting, Terms, Upstream};
use crate::http::plan::Forward;
use crate::http::pool::{Kept, Key, Tls};
use crate::http::reply;
use crate::record::Stage;
use crate::server::http_proxy::{HttpProxy, Session};
use crate::task::{Peers, Task, TaskKind};
use crate::tunnel;
use crate::user::Permit;

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
    let mut forwarding = Forwarding {
        server: &server,
        session,
        task: &mut task,
        request: &mut request,
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
    session: &'a Session,
    path: &'a Path,
    auditor: Option<&'a Auditor>,
}

impl Setting for OfServer<'_> {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn is_ending(&self, _: &ResponseHead<'_>) -> bool {
        self.session.is_ending()
    }

    fn put_headers(&self, head: &ResponseHead<'_>, out: &mut Vec<u8>) {
        self.session.server.options.put_upstream_headers(head, self.path, out);
    }

    fn adaptation(&self) -> Option<Adaptation<'_>> {
        self.auditor.map(|auditor| Adaptation {
            services: &auditor.icap,
            tasks: &self.session.worker.tasks,
        })
    }
}

/// A request at work.
struct Forwarding<'a> {
    server: &'a Arc<HttpProxy>,
    session: &'a mut Session,
    task: &'a mut Task,
    request: &'a mut Forward,
}

impl Forwarding<'_> {
    /// Serves the request; the upstream comes back where it is still needed.
    async fn run(&mut self, client: &mut Client) -> Result<(Outcome, Option<Upstream>), Failure> {
        let auditor = self.server.common.auditor.as_deref();
        let auditor = auditor.filter(|auditor| auditor.adapts_request(self.task.permit()));
        let (mut upstream, mut origin) = self.upstream(&client.peers, false).await.map_err(Failure::early)?;
        loop {
            let setting = OfServer {
                terms: Terms {
                    response_timeout: self.response_timeout(),
                    ..self.server.options.terms
                },
                session: self.session,
                path: &origin.path,
                auditor,
            };
            let mut exchange = Exchange {
                setting: &setting,
                task: self.task,
                request: &mut self.request.message,
            };
            match exchange.run(client, &mut upstream).await {
                Ok(Outcome::Done(done)) => {
                    self.keep(upstream, origin, &done);
                    return Ok((Outcome::Done(done), None));
                }
                Ok(outcome) => return Ok((outcome, Some(upstream))),
                Err(failure) if failure.unheard && self.request.is_repeatable() => {
                    if let Some(permit) = self.task.permit() {
                        permit.renewed();
                    }
                    (upstream, origin) = self.upstream(&client.peers, true).await.map_err(Failure::early)?;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// A kept connection, or a new one.
    async fn upstream(&mut self, peers: &Peers, fresh: bool) -> Result<(Upstream, Origin), TaskError> {
        if !fresh && let Some(escaper) = self.server.escapers.reusable(self.server.escaper) {
            let key = self.key(escaper.generation);
            let kept = self
                .session
                .take_private(&key)
                .or_else(|| self.session.worker.pool.take(&key));
            if let Some(kept) = kept {
                escaper.stats.mine().task_total.add(1);
                if let Some(permit) = self.task.permit() {
                    permit.reused();
                }
                self.task.connected(&escaper.stats, &kept.path, Some(true));
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
        Box::pin(self.connect(peers)).await
    }

    fn key(&self, escaper: u64) -> Key {
        let permit = self.task.permit();
        let site = permit.and_then(Permit::tls_client);
        Key {
            escaper,
            user: permit.map(|permit| permit.user.id),
            egress: permit.and_then(Permit::egress).map(|egress| egress.addr.clone()),
            tls: match (self.request.tls, site) {
                (false, _) => Tls::Plain,
                (true, None) => Tls::Server(self.server.generation),
                (true, Some((_, id))) => Tls::Site(*id),
            },
            path_index: self.request.path_index,
            upstream: self.request.upstream.clone(),
        }
    }

    async fn connect(&mut self, peers: &Peers) -> Result<(Upstream, Origin), TaskError> {
        self.task.set_stage(Stage::Connecting);
        let connect = Connect {
            upstream: &self.request.upstream,
            task_id: self.task.id,
            client: peers.client,
            server: peers.server,
            path_index: self.request.path_index,
            permit: self.task.traffic.permit.as_deref(),
            worker: &self.session.worker,
        };
        let connected = match self.server.escapers.connect(self.server.escaper, &connect).await {
            Ok(connected) => connected,
            Err(failed) => {
                self.task.not_connected(&failed.escaper.stats, &failed.failure.path);
                return Err(failed.failure.error.into());
            }
        };
        let (mut stream, mut path) = (connected.opened.stream, connected.opened.path);
        let tls_client = self.task.permit().and_then(Permit::tls_client);
        let tls_client = tls_client.map_or(&self.server.tls_client, |(connector, _)| connector);
        if self.task.is_logged() || self.server.options.tells_path() {
            path.local = stream.plain().and_then(|tcp| tcp.local_addr().ok());
        }
        if self.request.tls {
            stream = match handshake(tls_client, &self.request.upstream, stream).await {
                Ok(stream) => stream,
                Err(error) => {
                    connected.escaper.log_tls_failure(&connect, &path, &error);
                    self.task.not_connected(&connected.escaper.stats, &path);
                    return Err(TaskError::UpstreamTls(error));
                }
            };
        }
        self.task.connected(&connected.escaper.stats, &path, Some(false));
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

    fn response_timeout(&self) -> Duration {
        let of_server = self.server.options.terms.response_timeout;
        let permit = self.task.permit();
        permit.map_or(of_server, |permit| permit.response_timeout(of_server))
    }

    /// Keeps the upstream connection for another request, if it is fit for that.
    fn keep(&mut self, upstream: Upstream, origin: Origin, done: &Done) {
        let Some(expire) = self.request.upstream_keepalive else {
            return;
        };
        if !done.upstream_persists || self.server.escapers.reusable(self.server.escaper).is_none() {
            return;
        }
        let key = self.key(origin.generation);
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
