//! A service: where it is, what it offers, and the connections to it.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use sluice_config::value::{ConnectionPool, TcpMiscOpts};
use sluice_icap::{BodyPart, Encapsulated, Limits, Method, Options, RequestHead, parse_response};
use sluice_lifecycle::Tasks;
use sluice_telemetry::{debug, notice, warn};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::away::{Away, Missed};
use super::config::IcapServiceConfig;
use super::connection::{Connection, Place};
use super::error::IcapError;
use super::pool;
use crate::audit::Witness;
use crate::config::tcp_options;

/// How long an answer to OPTIONS is waited for.
const OPTIONS_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a watch waits between two tries.
const WATCH_PAUSE: Duration = Duration::from_millis(100);
/// The shortest time between two looks at unused connections.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// A service that is asked about messages of one kind.
pub(crate) struct Service {
    /// Unlike that of any other service, also of one with the same configuration before a reload.
    pub(super) id: u64,
    pub(super) method: Method,
    /// The URL without user and password.
    pub(super) uri: String,
    /// For the `Host` field.
    pub(super) host: String,
    pub(super) authorization: Option<String>,
    pub(super) limits: Limits,
    pub(super) no_preview: bool,
    pub(super) preview_timeout: Duration,
    pub(super) shared_names: Vec<String>,
    /// Who is told what it says.
    pub(super) witness: Option<Witness>,
    bypass: bool,
    place: Place,
    pool: ConnectionPool,
    options: ArcSwapOption<Known>,
    /// Threads that use it.
    threads: AtomicUsize,
    /// What is known of it when it may be bypassed.
    away: Away,
    /// Messages that went on without it since it was reached.
    bypassed: AtomicU64,
}

/// What the service has said of itself.
struct Known {
    options: Options,
    until: Option<Instant>,
}

/// Why there is no service.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error("url: {0}")]
    Url(#[from] super::config::UrlError),
    #[error("tls_client: {0}")]
    Tls(#[from] sluice_tls::BuildError),
}

impl Service {
    /// Builds the client of a service; files are looked for in `base`. Nothing is opened before the first message.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub(crate) fn new(
        config: &IcapServiceConfig,
        method: Method,
        base: &Path,
        witness: Option<Witness>,
    ) -> Result<Arc<Self>, ServiceError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let host = config.host()?;
        let url = &config.url.0;
        let tls = match config.is_tls() {
            true => {
                let client = config.tls_client.clone().unwrap_or_default();
                let name = config.tls_name.clone().unwrap_or_else(|| host.clone());
                Some((sluice_tls::rustls_client(&client, base)?, name))
            }
            false => None,
        };
        let mut bare = url.clone();
        // A URL with a host takes both, and drops what it has.
        let _ = bare.set_username("");
        let _ = bare.set_password(None);
        bare.set_fragment(None);
        let name = url.host_str().unwrap_or_default();
        let host_field = match config.port() {
            port if port == config.default_port() => name.to_owned(),
            port => format!("{name}:{port}"),
        };
        let authorization = url.password().map(|password| {
            let plain: Vec<u8> = percent_decode_str(url.username())
                .chain(Some(b':'))
                .chain(percent_decode_str(password))
                .collect();
            format!("Basic {}", STANDARD.encode(plain))
        });
        Ok(Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            method,
            uri: bare.to_string(),
            host: host_field,
            authorization,
            limits: Limits {
                head_max: u32::try_from(config.icap_max_header_size.0).unwrap_or(u32::MAX),
                ..Limits::default()
            },
            no_preview: config.no_preview,
            preview_timeout: config.preview_data_read_timeout.0,
            shared_names: config
                .respond_shared_names
                .iter()
                .map(|name| name.as_str().to_owned())
                .collect(),
            witness,
            bypass: config.bypass,
            place: Place {
                host,
                port: config.port(),
                unix: config.use_unix_socket.as_ref().map(|path| path.as_path().into()),
                tls,
                options: tcp_options(&TcpMiscOpts::default(), Some(config.tcp_keepalive)),
                timeout: config.tcp_connect_timeout.0,
            },
            pool: config.icap_connection_pool,
            options: ArcSwapOption::empty(),
            threads: AtomicUsize::new(0),
            away: Away::default(),
            bypassed: AtomicU64::new(0),
        }))
    }

    /// A connection for a message, and what the service offers; `None` if the message goes on without.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), unless the service may be bypassed.
    pub(super) async fn reach(self: &Arc<Self>, tasks: &Tasks) -> Result<Option<(Connection, Options)>, IcapError> {
        if !self.bypass {
            return self.acquire(tasks, false).await.map(Some);
        }
        let Some(attempt) = self.away.attempt() else {
            self.bypassed.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        };
        match self.acquire(tasks, false).await {
            Ok(acquired) => {
                if attempt.reached() {
                    self.is_back();
                }
                Ok(Some(acquired))
            }
            Err(error) => {
                self.bypassed.fetch_add(1, Ordering::Relaxed);
                let Missed { is_news, watch } = attempt.missed();
                if let Some(number) = watch {
                    tasks.spawn(keep_watch(Arc::downgrade(self), number, tasks.clone()));
                }
                if is_news {
                    warn!("an ICAP service cannot be reached and is bypassed"; "url" => &self.uri, "error" => %error);
                }
                debug!("an ICAP service is bypassed"; "url" => &self.uri, "error" => %error);
                Ok(None)
            }
        }
    }

    /// Says that messages do not go on without it any more.
    fn is_back(&self) {
        let bypassed = self.bypassed.swap(0, Ordering::Relaxed);
        notice!("an ICAP service is reached again"; "url" => &self.uri, "bypassed" => bypassed);
    }

    /// A connection, and what the service offers. With `fresh` it is one that was never used.
    ///
    /// # Errors
    /// [`IcapError`]: the service cannot be reached, or is no service that can be used.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        tasks: &Tasks,
        fresh: bool,
    ) -> Result<(Connection, Options), IcapError> {
        self.tend_here(tasks);
        let known = self.known();
        if !fresh && let Some(connection) = pool::take(self.id, self.pool.idle_timeout.0) {
            match known {
                Some(options) => return Ok((connection, options)),
                None => match self.ask(connection).await {
                    Ok((options, Some(connection))) => return Ok((connection, options)),
                    Ok((options, None)) => return Ok((self.place.connect().await?, options)),
                    // It may have been closed meanwhile.
                    Err(_) => {}
                },
            }
        }
        let connection = self.place.connect().await?;
        match known {
            Some(options) => Ok((connection, options)),
            None => match self.ask(connection).await? {
                (options, Some(connection)) => Ok((connection, options)),
                (options, None) => Ok((self.place.connect().await?, options)),
            },
        }
    }

    /// Gives a connection back on which everything was sent and read.
    pub(super) fn release(&self, connection: Connection) {
        if connection.input.is_empty() {
            pool::put(self.id, connection, self.pool.max_idle_count);
        }
    }

    /// What the service offers, if that is known and still holds.
    fn known(&self) -> Option<Options> {
        let known = self.options.load();
        let known = known.as_ref()?;
        known
            .until
            .is_none_or(|until| Instant::now() < until)
            .then_some(known.options)
    }

    /// Asks what the service offers; gives the connection back if the service keeps it.
    async fn ask(&self, mut connection: Connection) -> Result<(Options, Option<Connection>), IcapError> {
        let asked = timeout(OPTIONS_TIMEOUT, self.exchange_options(&mut connection)).await;
        let (options, stays) = asked.map_err(|_| IcapError::OptionsTimeout(OPTIONS_TIMEOUT))??;
        let until = options.ttl.and_then(|ttl| Instant::now().checked_add(ttl));
        self.options.store(Some(Arc::new(Known { options, until })));
        Ok((options, stays.then_some(connection)))
    }

    async fn exchange_options(&self, connection: &mut Connection) -> Result<(Options, bool), IcapError> {
        let mut out = Vec::new();
        RequestHead {
            method: Method::Options,
            uri: &self.uri,
            host: &self.host,
            authorization: self.authorization.as_deref(),
            extra: b"",
            allow_204: true,
            preview: None,
            encapsulated: Encapsulated {
                body: BodyPart::None,
                ..Encapsulated::default()
            },
        }
        .put(&mut out);
        connection.wire.write_all(&out).await.map_err(IcapError::Write)?;
        poll_fn(|cx| Pin::new(&mut connection.wire).poll_flush(cx))
            .await
            .map_err(IcapError::Write)?;
        loop {
            if let Some(response) = parse_response(connection.input.filled(), &self.limits)? {
                let options = Options::read(&response, self.method)?;
                let (len, stays) = (response.len, response.keep_alive);
                connection.input.consume(len);
                return Ok((options, stays && connection.input.is_empty()));
            }
            let Connection { wire, input, .. } = &mut *connection;
            match poll_fn(|cx| input.poll_fill(cx, wire)).await {
                Ok(0) => return Err(IcapError::Closed),
                Ok(_) => {}
                Err(error) => return Err(IcapError::Read(error)),
            }
        }
    }

    /// Sees to it that somebody looks after the connections of this thread.
    fn tend_here(self: &Arc<Self>, tasks: &Tasks) {
        if pool::open(self.id) {
            self.threads.fetch_add(1, Ordering::Relaxed);
            let interval = self.pool.check_interval.0.max(MIN_CHECK_INTERVAL);
            tasks.spawn(tend(Arc::downgrade(self), self.id, interval, tasks.clone()));
        }
    }

    /// Closes connections that are of no more use, opens some if there are few, and asks anew for what the service offers
    /// when its time is over.
    async fn tend(&self) {
        let mut waiting = pool::sweep(self.id, self.pool.idle_timeout.0);
        if self.known().is_none() {
            let connection = match pool::take(self.id, self.pool.idle_timeout.0) {
                Some(connection) => Ok(connection),
                None => self.place.connect().await,
            };
            match connection {
                Ok(connection) => match self.ask(connection).await {
                    Ok((_, Some(connection))) => self.release(connection),
                    Ok((_, None)) => {}
                    Err(error) => {
                        debug!("an ICAP service does not say what it offers"; "url" => &self.uri, "error" => %error)
                    }
                },
                Err(error) => debug!("an ICAP service cannot be reached"; "url" => &self.uri, "error" => %error),
            }
            waiting = pool::sweep(self.id, self.pool.idle_timeout.0);
        }
        let Some(options) = self.known() else { return };
        let threads = self.threads.load(Ordering::Relaxed).max(1);
        let wanted = self.pool.min_idle_count.min(self.pool.max_idle_count);
        let allowed = options.max_connections.map_or(usize::MAX, |most| most as usize / 2);
        let wanted = wanted.min(allowed).div_ceil(threads);
        while waiting < wanted {
            match self.place.connect().await {
                Ok(connection) => self.release(connection),
                Err(_) => return,
            }
            waiting += 1;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let bypassed = self.bypassed.load(Ordering::Relaxed);
        if bypassed > 0 {
            debug!("an ICAP service that was bypassed is given up"; "url" => &self.uri, "messages" => bypassed);
        }
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

/// Looks after the connections of one thread while the service is in use.
async fn tend(service: Weak<Service>, id: u64, interval: Duration, tasks: Tasks) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = tasks.stopping() => break,
        }
        let Some(service) = service.upgrade() else { break };
        tokio::select! {
            () = service.tend() => {}
            () = tasks.stopping() => break,
        }
    }
    pool::close(id);
}

/// Tries to reach a service until that is done, or the service is given up.
async fn keep_watch(service: Weak<Service>, number: u64, tasks: Tasks) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(WATCH_PAUSE) => {}
            () = tasks.stopping() => return,
        }
        let Some(service) = service.upgrade().filter(|service| service.away.is_watched(number)) else {
            return;
        };
        let reached = tokio::select! {
            reached = service.acquire(&tasks, true) => reached,
            () = tasks.stopping() => return,
        };
        match reached {
            Ok((connection, _)) => {
                service.release(connection);
                if service.away.found(number) {
                    service.is_back();
                }
                return;
            }
            Err(error) => debug!("an ICAP service is still away"; "url" => &service.uri, "error" => %error),
        }
    }
}

/// Writes from `bytes` on from `at`; ready when all is written and flushed.
pub(super) fn poll_write_all(
    cx: &mut std::task::Context<'_>,
    wire: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    at: &mut usize,
) -> Poll<std::io::Result<()>> {
    while let Some(rest) = bytes.get(*at..).filter(|rest| !rest.is_empty()) {
        match Pin::new(&mut *wire).poll_write(cx, rest) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(n)) => *at += n,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    }
    Pin::new(wire).poll_flush(cx)
}
