//! `http_proxy`: an HTTP/1 forward proxy with CONNECT and Upgrade.

use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_acl::{DstHostSet, PortRule};
use sluice_addr::Host;
use sluice_auth::UsernameParams;
use sluice_config::value::{AsciiStr, ByteSize, HttpKeepalive, HttpServerId, NodeName, OneOrMany, Span, SpeedLimitTcp};
use sluice_config::{Entry, Load, NotYet};
use sluice_http1::{Challenge, RequestHead, ResponseHead, parse_request, put_basic_challenge};
use sluice_io::Stream;
use sluice_io::buffer::ReadBuffer;
use sluice_telemetry::Naming;
use sluice_tls::client::{Connector, SessionCache};
use sluice_tls::config::TicketerConfig;
use sluice_tls::server::TlsAcceptor;
use sluice_tls::{BuildError, OpensslClientConfig, RustlsServerConfig};

use super::keys::task_server;
use super::rules::Rules;
use super::{Accepted, ServerCommon};
use crate::client::{Client, Fill};
use crate::config::ServerConfig;
use crate::connect::Path;
use crate::error::TaskError;
use crate::escaper::{EscaperId, Escapers};
use crate::http::auth::{self, Identity};
use crate::http::exchange::Terms;
use crate::http::forward::{self, After};
use crate::http::headers::TellTale;
use crate::http::plan::{self, Plan};
use crate::http::pool::{Kept, Key};
use crate::http::{connect, reply};
use crate::tls_server;
use crate::user::{Gate, LoginError};
use crate::worker::Worker;

task_server! {
    /// What `http_proxy` is configured with.
    pub(crate) struct HttpProxyConfig {
        /// Who may use the proxy.
        #[serde(default)]
        pub(crate) user_group: Option<NodeName>,
        /// TLS on the listening socket.
        #[serde(default, alias = "tls")]
        pub(crate) tls_server: Option<RustlsServerConfig>,
        /// Session ticket keys.
        #[serde(default)]
        pub(crate) tls_ticketer: Option<TicketerConfig>,
        /// Which hosts may be asked for.
        #[serde(default)]
        pub(crate) dst_host_filter_set: Option<DstHostSet>,
        /// Which ports may be asked for.
        #[serde(default)]
        pub(crate) dst_port_filter: Option<PortRule>,
        /// Names of this proxy: requests for them are for itself.
        #[serde(default)]
        pub(crate) local_server_name: OneOrMany<Host>,
        /// Adds `X-BD-Remote-Connection-Info` to responses.
        #[serde(default)]
        pub(crate) server_id: Option<HttpServerId>,
        /// The realm of Basic authentication.
        #[serde(default = "realm")]
        pub(crate) auth_realm: AsciiStr,
        /// Next hop by the user's name.
        #[serde(default, alias = "username_params_to_escaper_addr")]
        pub(crate) username_params: Option<UsernameParams>,
        /// TLS towards the origin of `https://` URLs.
        #[serde(default)]
        pub(crate) tls_client: OpensslClientConfig,
        /// FTP over HTTP.
        #[serde(default)]
        pub(crate) ftp_client: Option<NotYet>,
        /// Time for a request head.
        #[serde(default = "request_timeout")]
        pub(crate) req_header_recv_timeout: Span,
        /// Time for a response head once the request is sent.
        #[serde(default = "response_timeout")]
        pub(crate) rsp_header_recv_timeout: Span,
        /// Bytes of a request head; more is 431.
        #[serde(default = "head_size")]
        pub(crate) req_header_max_size: ByteSize,
        /// Bytes of a response head; more is 502.
        #[serde(default = "head_size")]
        pub(crate) rsp_header_max_size: ByteSize,
        /// Characters of a URI in logs.
        #[serde(default = "uri_chars", alias = "uri_log_max_chars")]
        pub(crate) log_uri_max_chars: usize,
        /// The most requests of a pipeline that are in work at a time. One is, whatever is allowed: they are answered in
        /// turn, and what a client sends ahead waits in the read buffer and in the socket.
        #[serde(default = "pipeline")]
        pub(crate) pipeline_size: std::num::NonZeroUsize,
        /// Time that a connection may wait for its next request.
        #[serde(default = "client_idle")]
        pub(crate) pipeline_read_idle_timeout: Span,
        /// Close without a reply when a request is refused before it is understood.
        #[serde(default)]
        pub(crate) no_early_error_reply: bool,
        /// Whether Host may name another host than the URL.
        #[serde(default = "yes")]
        pub(crate) allow_custom_host: bool,
        /// Leave the scheme's default port out of Host.
        #[serde(default)]
        pub(crate) drop_default_port_in_host: bool,
        /// Bytes of a chunk-size or trailer line.
        #[serde(default = "body_line")]
        pub(crate) body_line_max_length: usize,
        /// Keeping upstream connections for further requests.
        #[serde(default)]
        pub(crate) http_forward_upstream_keepalive: HttpKeepalive,
        /// Adds `X-BD-Upstream-Id` to upstream responses; needs `server_id`.
        #[serde(default)]
        pub(crate) http_forward_mark_upstream: bool,
        /// Adds `X-BD-Upstream-Addr` and `X-BD-Outgoing-IP`.
        #[serde(default)]
        pub(crate) echo_chained_info: bool,
        /// Speed at which the body of a request without credentials is thrown away.
        #[serde(default, alias = "untrusted_read_limit")]
        pub(crate) untrusted_read_speed_limit: Option<SpeedLimitTcp>,
        /// Request header with the number id of egress path selection.
        #[serde(default, alias = "path_selection_header")]
        pub(crate) egress_path_selection_header: Option<AsciiStr>,
        /// Drop `Forwarded` and `X-Forwarded-For` of the client.
        #[serde(default)]
        pub(crate) steal_forwarded_for: bool,
    }
}

fn realm() -> AsciiStr {
    AsciiStr::new("proxy").unwrap_or_default()
}
fn request_timeout() -> Span {
    Span(Duration::from_secs(30))
}
fn response_timeout() -> Span {
    Span(Duration::from_secs(60))
}
fn head_size() -> ByteSize {
    ByteSize(64 << 10)
}
fn uri_chars() -> usize {
    1024
}
fn pipeline() -> std::num::NonZeroUsize {
    std::num::NonZeroUsize::MIN.saturating_add(9)
}
fn client_idle() -> Span {
    Span(Duration::from_secs(300))
}
fn yes() -> bool {
    true
}
fn body_line() -> usize {
    8192
}

impl HttpProxyConfig {
    /// Records what does not go together, and files that are not what they should be.
    pub(crate) fn check(&self, load: &mut Load, entry: &Entry<ServerConfig>) {
        if self.http_forward_mark_upstream && self.server_id.is_none() {
            load.error(
                &entry.place,
                "http_forward_mark_upstream",
                "needs a `server_id` to mark responses with",
            );
        }
        if let Some(tls) = &self.tls_server {
            tls_server::check(load, entry, tls, self.tls_ticketer.as_ref());
        } else if self.tls_ticketer.is_some() {
            load.error(
                &entry.place,
                "tls_ticketer",
                "needs a `tls_server` whose tickets it is for",
            );
        }
        if self.user_group.is_some() && self.auth_realm.is_empty() {
            load.error(&entry.place, "auth_realm", "must not be empty where clients log in");
        }
        if put_basic_challenge(&mut Vec::new(), Challenge::Proxy, &self.auth_realm).is_err() {
            load.error(&entry.place, "auth_realm", "holds a control character");
        }
        let base = entry.place.base_dir();
        if let Err(error) = Connector::build(&self.tls_client, base, SessionCache::ManySites) {
            load.error(&entry.place, "tls_client", error.to_string());
        }
    }
}

/// The server.
pub(crate) struct HttpProxy {
    pub(crate) common: Arc<ServerCommon>,
    pub(crate) escapers: Arc<Escapers>,
    pub(crate) escaper: EscaperId,
    /// The way to its users, if it has any.
    gate: Option<Gate>,
    pub(crate) tls_client: Connector,
    tls_server: Option<TlsAcceptor>,
    /// Another one for every configuration: connections under other TLS settings are not taken up.
    pub(crate) generation: u64,
    pub(crate) options: Options,
    pub(crate) rules: Rules,
}

/// The settings in the form in which requests need them.
pub(crate) struct Options {
    pub(crate) terms: Terms,
    pub(crate) client_idle: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) log_uri_max_chars: usize,
    pub(crate) no_early_error_reply: bool,
    pub(crate) allow_custom_host: bool,
    pub(crate) drop_default_port: bool,
    pub(crate) steal_forwarded_for: bool,
    pub(crate) upstream_keepalive: HttpKeepalive,
    pub(crate) realm: String,
    /// Speed at which the bodies of strangers are thrown away; `None`: they are not.
    pub(crate) untrusted_limit: Option<SpeedLimitTcp>,
    pub(crate) path_header: Option<String>,
    pub(crate) local_names: Vec<Host>,
    tell_tale: TellTale,
}

impl Options {
    fn new(config: &HttpProxyConfig, naming: Naming) -> Self {
        Self {
            terms: Terms::new(
                config.req_header_max_size,
                config.rsp_header_max_size,
                config.body_line_max_length,
                config.rsp_header_recv_timeout,
            ),
            client_idle: config.pipeline_read_idle_timeout.0,
            request_timeout: config.req_header_recv_timeout.0,
            log_uri_max_chars: config.log_uri_max_chars,
            no_early_error_reply: config.no_early_error_reply,
            allow_custom_host: config.allow_custom_host,
            drop_default_port: config.drop_default_port_in_host,
            steal_forwarded_for: config.steal_forwarded_for,
            upstream_keepalive: config.http_forward_upstream_keepalive,
            realm: config.auth_realm.to_string(),
            untrusted_limit: config.untrusted_read_speed_limit.filter(|limit| !limit.is_off()),
            path_header: config
                .egress_path_selection_header
                .as_ref()
                .map(|name| name.to_string()),
            local_names: config.local_server_name.0.clone(),
            tell_tale: TellTale::new(
                config.server_id.as_ref(),
                config.http_forward_mark_upstream,
                config.echo_chained_info,
                naming,
            ),
        }
    }

    /// Whether responses tell how the upstream was reached, so that somebody has to ask the socket.
    pub(crate) fn tells_path(&self) -> bool {
        self.tell_tale.tells_path()
    }

    /// Appends the headers that an upstream's response gets.
    pub(crate) fn put_upstream_headers(&self, head: &ResponseHead<'_>, path: &Path, out: &mut Vec<u8>) {
        self.tell_tale.put_upstream(head, path, out);
    }

    /// Appends the headers that a response of our own gets.
    pub(crate) fn put_own_headers(&self, path: &Path, out: &mut Vec<u8>) {
        self.tell_tale.put_own(path, out);
    }
}

/// What a server is made of beside its configuration.
pub(crate) struct Parts {
    pub(crate) common: Arc<ServerCommon>,
    pub(crate) way: (Arc<Escapers>, EscaperId),
    pub(crate) gate: Option<Gate>,
    pub(crate) tls_server: Option<TlsAcceptor>,
    /// See [`HttpProxy::generation`].
    pub(crate) generation: u64,
}

impl HttpProxy {
    /// Builds the server; files with relative names are looked for in `base`.
    ///
    /// # Errors
    /// [`BuildError`] of `tls_client`.
    pub(crate) fn new(
        config: &HttpProxyConfig,
        parts: Parts,
        naming: Naming,
        base: &FsPath,
    ) -> Result<Self, BuildError> {
        let Parts {
            common,
            way: (escapers, escaper),
            gate,
            tls_server,
            generation,
        } = parts;
        Ok(Self {
            common,
            escapers,
            escaper,
            gate,
            tls_server,
            tls_client: Connector::build(&config.tls_client, base, SessionCache::ManySites)?,
            generation,
            options: Options::new(config, naming),
            rules: Rules {
                hosts: config.dst_host_filter_set.clone(),
                ports: config.dst_port_filter.clone(),
            },
        })
    }
}

impl HttpProxy {
    /// Whether connections end with the response at hand: the server was replaced, or the daemon stops.
    pub(crate) fn is_ending(&self, worker: &Worker) -> bool {
        self.common.is_retired() || worker.tasks.is_stopping()
    }
}

/// A client's connection to this server, apart from the connection itself.
pub(crate) struct Session {
    pub(crate) server: Arc<HttpProxy>,
    pub(crate) worker: Arc<Worker>,
    /// Who the client is, if the server has users.
    pub(crate) identity: Identity,
    /// An upstream connection that is authenticated for this client (Negotiate, NTLM).
    private: Option<Box<(Key, Kept)>>,
}

impl Session {
    /// Whether connections end with the response at hand.
    pub(crate) fn is_ending(&self) -> bool {
        self.server.is_ending(&self.worker)
    }

    /// The client's own upstream connection, if it leads where it is needed.
    pub(crate) fn take_private(&mut self, key: &Key) -> Option<Kept> {
        let private = self.private.take()?;
        (private.0 == *key && private.1.is_fit()).then_some(private.1)
    }

    /// Finds out who has sent this request, if the server has users.
    ///
    /// # Errors
    /// [`LoginError`]; the client is nobody then.
    async fn authenticate(&mut self, head: &RequestHead<'_>, client: &Client) -> Result<(), LoginError> {
        let Some(gate) = &self.server.gate else { return Ok(()) };
        let ip = client.peers.client.ip();
        let proved = self
            .identity
            .prove(gate, &self.worker, head.proxy_authorization, ip)
            .await;
        if !matches!(proved, Ok(false)) {
            // What belongs to the former user is nobody else's (H1-15).
            self.private = None;
        }
        if proved? && let Some(login) = self.identity.login() {
            gate.set_client_options(login, &client.stream);
        }
        Ok(())
    }

    pub(crate) fn keep_private(&mut self, key: Key, connection: Kept) {
        self.private = Some(Box::new((key, connection)));
    }
}

/// Serves a client's connection to its end.
pub(crate) async fn serve(server: Arc<HttpProxy>, conn: Accepted, worker: Arc<Worker>) {
    server.common.stats.mine().connections.add(1);
    let mut conn = conn;
    if let (Some(tls), Stream::Plain(_)) = (&server.tls_server, &conn.stream) {
        // A TLS handshake is large beside what a connection needs later.
        let accepted = Box::pin(tls_server::accept(tls, conn.stream, &server.common, &conn.peers)).await;
        let Some(secure) = accepted else { return };
        conn.stream = secure;
        conn.accepted = Instant::now();
    }
    // It is handed on with every request; a pointer moves more cheaply.
    let mut client = Box::new(Client {
        stream: conn.stream,
        buf: ReadBuffer::default(),
        timer: worker.wheel.timer(),
        peers: conn.peers,
        waiting_since: conn.accepted,
    });
    let mut session = Session {
        server,
        worker,
        identity: Identity::default(),
        private: None,
    };
    loop {
        let Some(plan) = next_plan(&mut session, &mut client).await else {
            return;
        };
        let after = match plan {
            Plan::Connect(request) => Box::pin(connect::connect(&mut session, client, request)).await,
            Plan::Forward(request) => forward::run(&mut session, client, request).await,
            Plan::Refuse(refusal) => Box::pin(reply::refuse(&session.server, client, &refusal)).await,
            Plan::Unauthorized(failed) => Box::pin(auth::answer(&session, client, &failed)).await,
        };
        match after {
            After::Next(next) => client = next,
            After::Close(client) => return Box::pin(client.close()).await,
            After::Gone => return,
        }
        client.waiting_since = Instant::now();
    }
}

/// Waits for the client's next request; `None` if it is gone, or was silent for too long.
async fn next_plan(session: &mut Session, client: &mut Client) -> Option<Plan> {
    let server = Arc::clone(&session.server);
    let mut received = client.waiting_since;
    let mut partial = sluice_http1::Partial::default();
    if client.buf.is_empty() {
        client.timer.arm(server.options.client_idle);
        match client.fill_unless(|| session.worker.tasks.is_stopping()).await {
            Fill::Bytes => received = Instant::now(),
            Fill::Closed | Fill::Failed(_) | Fill::TimedOut => return None,
        }
    }
    let mut armed = false;
    loop {
        let bytes = client.buf.filled();
        if partial.is_worth_parsing(bytes, server.options.terms.request_limits.head_max) {
            match parse_request(bytes, &server.options.terms.request_limits) {
                Ok(None) => {}
                Ok(Some(mut head)) => {
                    let len = head.len;
                    let plan = match session.authenticate(&head, client).await {
                        Ok(()) => plan::make(&server, &mut head, received, session.identity.login()),
                        Err(error) => Plan::unauthorized(&head, error),
                    };
                    client.buf.consume(len);
                    if matches!(plan, Plan::Refuse(_)) {
                        server.common.stats.mine().tcp_in.add(len as u64);
                    }
                    return Some(plan);
                }
                Err(error) => {
                    server.common.stats.mine().tcp_in.add(bytes.len() as u64);
                    return Some(Plan::refuse_early(error.into()));
                }
            }
        }
        if !armed {
            client.timer.arm(server.options.request_timeout);
            armed = true;
        }
        match client.fill().await {
            Fill::Bytes => {}
            Fill::Closed | Fill::Failed(_) => return None,
            Fill::TimedOut => {
                server.common.stats.mine().tcp_in.add(client.buf.filled().len() as u64);
                let error = TaskError::ClientTimeout(server.options.request_timeout);
                return Some(Plan::refuse_early(error));
            }
        }
    }
}
