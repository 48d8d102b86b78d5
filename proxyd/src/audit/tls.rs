//! TLS interception: the upstream is greeted as its client asks for, then the client by a leaf that looks like it.
//!
//! The client's hello waits unanswered until the upstream has proved who it is and has chosen a protocol. What is wrong
//! with the upstream thus reaches the client as an alert, in place of an answer, and nothing that it would not have
//! accepted itself is shown to it under a name that it trusts.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use sluice_addr::Host;
use sluice_config::value::{InspectAction, ResolveAddrError, TlsCertAgent};
use sluice_io::Stream;
use sluice_lifecycle::Tasks;
use sluice_sniff::Protocol;
use sluice_tls::client::{Connector, Site};
use sluice_tls::config::TicketerConfig;
use sluice_tls::intercept::{Answered, Hello, HelloError, InterceptionAcceptor, InterceptionConnector, Leaf, refuse};
use sluice_tls::server::Ticketer;
use sluice_tls::{Alert, BuildError, HandshakeError, OpensslClientConfig, TlsStream};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Recording;
use super::config::{AuditorConfig, OnCertgendFailure};
use super::intercept::{Detail, Subject};
use super::leaf::{self, Key, Leaves, MintFailure, Probe};
use super::obstacle::{Ends, Obstacle, Obstacles};
use super::stats::Registered;
use crate::client::{Client, Fill};
use crate::error::TaskError;
use crate::http::exchange::Upstream;
use crate::peer::{self, Address};

/// How long a client that is refused may take to read its alert.
const ALERT_TIMEOUT: Duration = Duration::from_secs(2);

/// A larger ClientHello is none that is intercepted.
const MAX_HELLO: usize = 64 * 1024;

/// The protocol of an ALPN name, if it is one whose inside is known (RFC 7301, and the registry's).
pub(super) fn of_alpn(name: &[u8]) -> Option<Protocol> {
    Some(match name {
        b"dot" => Protocol::Dns,
        b"ftp" => Protocol::Ftp,
        b"h2" => Protocol::Http2,
        b"http/0.9" | b"http/1.0" | b"http/1.1" => Protocol::Http1,
        b"imap" => Protocol::Imap,
        b"mqtt" => Protocol::Mqtt,
        b"nnsp" => Protocol::Nnsp,
        b"nntp" => Protocol::Nntp,
        b"pop3" => Protocol::Pop3,
        b"smtp" => Protocol::Smtp,
        _ => return None,
    })
}

/// How one auditor intercepts TLS.
pub(crate) struct TlsInterception {
    acceptor: InterceptionAcceptor,
    connector: InterceptionConnector,
    leaves: Leaves,
    recording: Option<Arc<Recording>>,
    on_failure: OnCertgendFailure,
    obstacles: Obstacles,
    /// Lets as many RSA keys sign at a time as there are CPUs, on threads for it.
    signers: Arc<Semaphore>,
    background: Tasks,
    /// How long the rest of a hello is waited for.
    hello_timeout: Duration,
    /// What a reload compares: leaves and tickets outlive one that leaves this as it was.
    ticketer: (Option<TicketerConfig>, Arc<Ticketer>),
    leaf_options: leaf::Options,
}

/// What interception needs of the daemon.
#[derive(Clone)]
pub(crate) struct Surroundings {
    /// Who makes certificates where an auditor does not say.
    pub(crate) generator: Address,
    /// The uid that certgend may run as beside our own and root.
    pub(crate) certgend_uid: Option<u32>,
    /// Where connections to generators live.
    pub(crate) background: Tasks,
    /// Who records: an auditd, or a reader of copies where an auditor does not say.
    pub(crate) recorder: Address,
    /// The line to auditd.
    pub(crate) recording: Option<Arc<Recording>>,
}

/// Why interception could not be set up.
#[derive(Debug, Error)]
pub(crate) enum SetUpError {
    /// The reader of copies has no address.
    #[error("`tls_stream_dump`")]
    Dump(#[source] ResolveAddrError),
    /// Of an ICAP service.
    #[error("ICAP service: {0}")]
    Icap(#[from] crate::icap::ServiceError),
    #[error("`tls_cert_agent.query_peer_addr`: {0}")]
    Address(#[from] ResolveAddrError),
    #[error("`tls_interception_client`: {0}")]
    Client(#[source] BuildError),
    #[error("`tls_ticketer`: {0}")]
    Tickets(#[source] BuildError),
}

/// The two sides of a tunnel.
pub(crate) struct Sides {
    pub(crate) client: Box<Client>,
    pub(crate) upstream: Upstream,
}

/// By what the upstream is greeted.
pub(crate) enum With<'a, Again> {
    /// By the auditor's connector; the future opens the upstream's connection once more, where that can be.
    Auditors(Option<Again>),
    /// By what the user has for this site.
    OfUser(&'a Connector),
}

/// What came of an interception.
pub(crate) enum Outcome {
    /// Both sides are in the clear now; the protocol is the one that they have agreed on.
    Inside { sides: Sides, alpn: Option<Vec<u8>> },
    /// It cannot be opened, and neither side has been touched.
    Bypass(Sides, Obstacle),
}

/// Why an interception failed. The client has been told.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    #[error("handshake with the client: {0}")]
    Client(#[source] HandshakeError),
    #[error("the client left: {0}")]
    Gone(#[source] Box<TaskError>),
    #[error("the client's hello cannot be answered: {0}")]
    Hello(#[source] HelloError),
    #[error("the client's hello is not complete after {0:?}")]
    HelloTimeout(Duration),
    #[error("the client's hello is larger than {MAX_HELLO} bytes")]
    LargeHello,
    #[error("{0}")]
    Mint(#[source] MintFailure),
    #[error("the client asks for `{0}`, which is no name")]
    Name(String),
    #[error("handshake with the upstream: {0}")]
    Upstream(#[source] HandshakeError),
    #[error("the upstream asks for a client certificate")]
    CertificateRequest,
}

impl TlsError {
    /// What the client is told; `None` if it has been told by its handshake, or is not there any more.
    fn alert(&self) -> Option<Alert> {
        Some(match self {
            Self::Client(_) | Self::Gone(_) | Self::Hello(_) => return None,
            Self::HelloTimeout(_) => return None,
            Self::LargeHello => Alert::DECODE_ERROR,
            Self::CertificateRequest => Alert::ACCESS_DENIED,
            Self::Mint(failure) if failure.is_policy() => Alert::ACCESS_DENIED,
            Self::Mint(_) => Alert::INTERNAL_ERROR,
            Self::Name(_) => Alert::UNRECOGNIZED_NAME,
            Self::Upstream(error) => return upstream_alert(error),
        })
    }
}

/// What a client is told of an upstream's handshake.
fn upstream_alert(error: &HandshakeError) -> Option<Alert> {
    Some(match error {
        HandshakeError::Alert(alert) if !alert.is_orderly() => *alert,
        HandshakeError::Verify(error) => error.alert(),
        HandshakeError::Protocol(_) => Alert::HANDSHAKE_FAILURE,
        HandshakeError::Library(_) | HandshakeError::Timeout(_) => Alert::INTERNAL_ERROR,
        HandshakeError::WithoutCertificate(error) => return upstream_alert(error),
        // It would have seen the same without us.
        HandshakeError::Alert(_) | HandshakeError::Closed | HandshakeError::Io(_) => return None,
    })
}

impl TlsInterception {
    /// What runs by `config`, if it intercepts TLS at all; files with relative names are looked for in `base`.
    ///
    /// # Errors
    /// [`SetUpError`].
    pub(crate) fn new(
        config: &AuditorConfig,
        base: &Path,
        (around, stats): (&Surroundings, &Registered),
        running: Option<&Self>,
    ) -> Result<Option<Self>, SetUpError> {
        let Some(agent) = &config.tls_cert_agent else {
            return Ok(None);
        };
        let generator = match &agent.query_peer_addr {
            Some(address) => Address::Udp(address.resolve()?),
            None => around.generator.clone(),
        };
        let leaf_options = leaf_options(agent, around.certgend_uid);
        let same = running.filter(|old| *old.leaves.generator() == generator && old.leaf_options == leaf_options);
        let leaves = match same {
            Some(old) => old.leaves.clone(),
            None => {
                let (leaves, driver) = Leaves::new(generator, leaf_options);
                around.background.spawn(driver.run());
                leaves
            }
        };
        let same = running.filter(|old| old.ticketer.0 == config.tls_ticketer);
        let ticketer = match (same, &config.tls_ticketer) {
            (Some(old), _) => Arc::clone(&old.ticketer.1),
            (None, Some(config)) => Ticketer::new(config).map_err(SetUpError::Tickets)?,
            (None, None) => Ticketer::of_defaults().map_err(SetUpError::Tickets)?,
        };
        let accept_timeout = config.tls_interception_server.accept_timeout.0;
        Ok(Some(Self {
            acceptor: InterceptionAcceptor::new(accept_timeout, Arc::clone(&ticketer)).map_err(SetUpError::Tickets)?,
            connector: connector(config, base).map_err(SetUpError::Client)?,
            leaves,
            recording: around.recording.clone(),
            on_failure: config.on_certgend_failure,
            signers: Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from))),
            background: around.background.clone(),
            obstacles: Obstacles::new(config, stats.clone(), running.map(|old| &old.obstacles)),
            hello_timeout: accept_timeout,
            ticketer: (config.tls_ticketer.clone(), ticketer),
            leaf_options,
        }))
    }

    /// The state of the generator, for `status`.
    pub(crate) fn leaves(&self) -> &Leaves {
        &self.leaves
    }

    /// What passes untouched at the moment, for `status`.
    pub(crate) fn bypassed(&self) -> Option<serde_json::Value> {
        self.obstacles.status()
    }

    /// Intercepts a connection whose client has sent a ClientHello, or the beginning of one. A protocol that `is_blocked`
    /// is not offered to the upstream if there is another one.
    ///
    /// # Errors
    /// [`TlsError`]; it has been logged.
    pub(crate) async fn run(
        &self,
        subject: &Subject,
        sides: Sides,
        with: With<'_, impl Future<Output = Option<Stream>>>,
        is_blocked: &(dyn Fn(&[u8]) -> bool + Sync),
    ) -> Result<Outcome, TlsError> {
        let mut notes = Notes {
            verify: "not done".to_owned(),
            after: "",
        };
        let outcome = self.intercept(subject, sides, with, is_blocked, &mut notes).await;
        let Notes { verify, after } = notes;
        let detail = || Detail::TlsHandshake { verify };
        match outcome {
            Ok(outcome) => {
                match &outcome {
                    Outcome::Inside { .. } => subject.log(detail, format_args!("ok{after}")),
                    Outcome::Bypass(_, obstacle) => subject.log(detail, format_args!("bypassed: {obstacle}")),
                }
                Ok(outcome)
            }
            Err((error, client)) => {
                subject.log(detail, format_args!("{error}{after}"));
                if let Some(client) = client {
                    turn_away(client, &error).await;
                }
                Err(error)
            }
        }
    }

    async fn intercept(
        &self,
        subject: &Subject,
        Sides { mut client, upstream }: Sides,
        with: With<'_, impl Future<Output = Option<Stream>>>,
        is_blocked: &(dyn Fn(&[u8]) -> bool + Sync),
        notes: &mut Notes,
    ) -> Result<Outcome, (TlsError, Option<Box<Client>>)> {
        let (hello, name) = match self.hello(&mut client).await {
            Ok(hello) => hello,
            Err(error) => return Err((error, Some(client))),
        };
        let ends = Ends {
            upstream: &subject.upstream,
            name: name.as_ref(),
            client: client.peers.client.ip(),
        };
        if let Some(obstacle) = self.obstacles.passes(ends) {
            return Ok(Outcome::Bypass(Sides { client, upstream }, obstacle));
        }
        let site = Site {
            name: name.as_ref().unwrap_or(&subject.upstream.host).clone(),
            port: subject.upstream.port,
            named: name.is_some(),
        };
        let key = Key::of_tls(&site.name.to_string());
        // Without a name nobody checks the upstream's but the client, by a leaf that mirrors what this very upstream
        // has shown: none is known before that.
        let known = match site.named {
            true => self.known(&mut client, &key).await,
            false => Ok(Known::Nothing),
        };
        let known = match known {
            Ok(Known::Bypass) => return Ok(Outcome::Bypass(Sides { client, upstream }, Obstacle::NoCertificate)),
            Ok(Known::Leaf(leaf, renew)) => Some((leaf, renew)),
            Ok(Known::Nothing) => None,
            Err(error) => return Err((error, Some(client))),
        };
        // It would be taken for what TLS has brought, although anybody on the way can have sent it.
        if !upstream.buf.is_empty() {
            let error = HandshakeError::Protocol("it has sent something before its handshake".to_owned());
            return Err((TlsError::Upstream(error), Some(client)));
        }
        let offer = offered(hello.alpn(), &is_blocked);
        let Upstream {
            stream,
            buf,
            reused,
            limit,
        } = upstream;
        let handshake = async {
            match with {
                With::Auditors(again) => self.connector.connect(stream, &site, &offer, again).await,
                With::OfUser(own) => own.connect_to(stream, &site, &offer).await,
            }
        };
        let secure = match client.while_it_waits(Box::pin(handshake)).await {
            Ok(shaken) => self.examine(ends, shaken, notes),
            Err(gone) => return Err((TlsError::Gone(Box::new(gone)), None)),
        };
        let secure = match secure {
            Ok(secure) => secure,
            Err(error) => return Err((error, Some(client))),
        };
        let key = match site.named {
            true => key,
            false => key.of_certificate(secure.peer_certificate_der().as_deref()),
        };
        let leaf = match self.leaf(&mut client, &key, known, &secure).await {
            Ok(leaf) => leaf,
            Err(error) => return Err((error, Some(client))),
        };
        self.note_mint(subject, &key, &leaf);
        let alpn = secure.alpn().map(<[u8]>::to_vec);
        let client = self.greet(*client, hello, &leaf, alpn.as_deref()).await;
        if self.obstacles.greeted(ends, &client) {
            notes.after = NEXT_PASS;
        }
        let client = client.map_err(|error| (TlsError::Client(error), None))?;
        let upstream = Upstream {
            stream: Stream::Secure(Box::new(secure)),
            buf,
            reused,
            limit,
        };
        Ok(Outcome::Inside {
            sides: Sides { client, upstream },
            alpn,
        })
    }

    /// What the handshake with the upstream has told.
    fn examine(
        &self,
        ends: Ends<'_>,
        shaken: Result<TlsStream<Stream>, HandshakeError>,
        notes: &mut Notes,
    ) -> Result<TlsStream<Stream>, TlsError> {
        let secure = shaken.map_err(|error| {
            match &error {
                HandshakeError::Verify(error) => error.reason().clone_into(&mut notes.verify),
                HandshakeError::WithoutCertificate(_) if self.obstacles.requested(ends) == InspectAction::Bypass => {
                    notes.after = NEXT_PASS;
                }
                _ => {}
            }
            TlsError::Upstream(error)
        })?;
        notes.verify = secure
            .verify_error()
            .map_or_else(|| "ok".to_owned(), |error| error.reason().to_owned());
        if secure.asked_for_certificate() {
            notes.after = match self.obstacles.requested(ends) {
                InspectAction::Block => return Err(TlsError::CertificateRequest),
                InspectAction::Bypass => {
                    ", without the client certificate that the upstream asks for; the next ones pass"
                }
                InspectAction::Detour | InspectAction::Intercept => {
                    ", without the client certificate that the upstream asks for"
                }
            };
        }
        Ok(secure)
    }

    /// Reads the client's hello to its end, and the name in it; it stays in the buffer.
    async fn hello(&self, client: &mut Client) -> Result<(Hello, Option<Host>), TlsError> {
        client.timer.arm(self.hello_timeout);
        loop {
            match Hello::read(client.buf.filled()) {
                Ok(Some(hello)) => {
                    let name = hello
                        .server_name()
                        .map(|name| Host::parse(name).map_err(|_| TlsError::Name(name.to_owned())))
                        .transpose()?;
                    return Ok((hello, name));
                }
                Ok(None) if client.buf.filled().len() > MAX_HELLO => return Err(TlsError::LargeHello),
                Ok(None) => {}
                Err(error) => return Err(TlsError::Hello(error)),
            }
            match client.fill().await {
                Fill::Bytes => {}
                Fill::Closed => return Err(TlsError::Gone(Box::new(TaskError::ClosedByClient))),
                Fill::Failed(error) => return Err(TlsError::Gone(Box::new(TaskError::ClientRead(error)))),
                Fill::TimedOut => return Err(TlsError::HelloTimeout(self.hello_timeout)),
            }
        }
    }

    /// What there is of the host before its upstream has been heard. Where a failure of the generator shall not end the
    /// connection, there is a leaf after this, or nothing has been begun.
    async fn known(&self, client: &mut Client, key: &Key) -> Result<Known, TlsError> {
        match (self.leaves.probe(key), self.on_failure) {
            (Probe::Fresh(leaf), _) => Ok(Known::Leaf(leaf, false)),
            (Probe::Stale(leaf), _) => Ok(Known::Leaf(leaf, true)),
            (Probe::Refused(failure), OnCertgendFailure::Bypass) if !failure.is_policy() => Ok(Known::Bypass),
            (Probe::Refused(failure), _) => Err(TlsError::Mint(failure)),
            (Probe::Nothing, OnCertgendFailure::Block) => Ok(Known::Nothing),
            (Probe::Nothing, OnCertgendFailure::Bypass) => {
                let asked = client.while_it_waits(self.leaves.get(key, None)).await;
                match asked.map_err(|gone| TlsError::Gone(Box::new(gone)))? {
                    // A plain one, until the upstream can be mirrored.
                    Ok(leaf) => Ok(Known::Leaf(leaf, true)),
                    Err(failure) if failure.is_policy() => Err(TlsError::Mint(failure)),
                    Err(_) => Ok(Known::Bypass),
                }
            }
        }
    }

    /// The leaf to show, now that the upstream is known.
    async fn leaf(
        &self,
        client: &mut Client,
        key: &Key,
        known: Option<(Leaf, bool)>,
        upstream: &TlsStream<Stream>,
    ) -> Result<Leaf, TlsError> {
        match known {
            Some((leaf, renew)) => {
                if renew {
                    self.leaves.refresh(key, upstream.peer_certificate_der());
                }
                Ok(leaf)
            }
            None => {
                let asked = self.leaves.get(key, upstream.peer_certificate_der());
                let asked = client.while_it_waits(asked).await;
                asked
                    .map_err(|gone| TlsError::Gone(Box::new(gone)))?
                    .map_err(TlsError::Mint)
            }
        }
    }

    /// Tells auditd about a certificate when it is shown for the first time: to whom it was made for, or to the next one
    /// where that one has left.
    fn note_mint(&self, subject: &Subject, key: &Key, leaf: &Leaf) {
        if let Some(recording) = &self.recording
            && recording.recorder().is_expected()
            && leaf.is_first_taken()
            && let Some(identity) = leaf.identity()
        {
            let made = (self.leaves.generator(), key, &identity);
            recording.mint(&subject.auditor, subject.task_id, made);
        }
    }

    /// Answers the client's hello.
    async fn greet(
        &self,
        client: Client,
        hello: Hello,
        leaf: &Leaf,
        alpn: Option<&[u8]>,
    ) -> Result<Box<Client>, HandshakeError> {
        let Client {
            stream,
            timer,
            peers,
            waiting_since,
            mut buf,
        } = client;
        // What is behind the hello has gone with it.
        buf.consume(buf.filled().len());
        let secure = if leaf.signs_slowly() {
            let answered = Box::pin(self.answer_aside(hello, stream, leaf, alpn)).await?;
            Box::pin(answered.finish()).await?
        } else {
            Box::pin(self.acceptor.accept(hello, stream, leaf, alpn)).await?
        };
        Ok(Box::new(Client {
            stream: Stream::Secure(Box::new(secure)),
            buf,
            timer,
            peers,
            waiting_since,
        }))
    }

    /// Signs on another thread: the worker's other connections would wait for it. As many sign at a time as there are
    /// CPUs, the others wait.
    async fn answer_aside(
        &self,
        hello: Hello,
        stream: Stream,
        leaf: &Leaf,
        alpn: Option<&[u8]>,
    ) -> Result<Answered<Stream>, HandshakeError> {
        let library = |error: Box<dyn std::error::Error + Send + Sync>| HandshakeError::Library(error);
        let slot = timeout(self.hello_timeout, Arc::clone(&self.signers).acquire_owned()).await;
        let slot = slot
            .map_err(|_| HandshakeError::Timeout(self.hello_timeout))?
            .map_err(|error| library(error.into()))?;
        let (acceptor, leaf, alpn) = (self.acceptor.clone(), leaf.clone(), alpn.map(<[u8]>::to_vec));
        let answer = self.background.spawn_blocking(move || {
            let _slot = slot;
            acceptor.answer(hello, stream, &leaf, alpn.as_deref())
        });
        answer.await.map_err(|error| library(error.into()))
    }
}

/// The TLS client that upstreams see.
///
/// # Errors
/// [`BuildError`] names the key, and the file where one is at fault.
pub(crate) fn connector(config: &AuditorConfig, base: &Path) -> Result<InterceptionConnector, BuildError> {
    let client = OpensslClientConfig::from(&config.tls_interception_client);
    InterceptionConnector::build(&client, base)
}

fn leaf_options(agent: &TlsCertAgent, peer_uid: Option<u32>) -> leaf::Options {
    leaf::Options {
        connection: peer::Options {
            peer_uid,
            socket_buffer: agent.query_socket_buffer,
        },
        query_timeout: agent.query_wait_timeout.0,
        wait_timeout: agent.cache_request_timeout.0,
        protective_ttl: Duration::from_secs(agent.protective_cache_ttl.into()),
        maximum_ttl: Duration::from_secs(agent.maximum_cache_ttl.into()),
        vanish_wait: agent.cache_vanish_wait.0,
        ..leaf::Options::default()
    }
}

/// What the record of an interception says.
struct Notes {
    /// The result of verifying the upstream's certificate.
    verify: String,
    /// What follows the outcome.
    after: &'static str,
}

/// Follows the failure after which streams to the host pass.
const NEXT_PASS: &str = "; the next ones pass";

/// What there is before the upstream has been heard.
enum Known {
    Bypass,
    /// A leaf, and whether it shall be made anew.
    Leaf(Leaf, bool),
    Nothing,
}

/// Ends the connection of a client whose hello was not answered.
async fn turn_away(mut client: Box<Client>, error: &TlsError) {
    let sent: io::Result<()> = match (error, error.alert()) {
        (TlsError::Hello(error), _) => client.send(&error.reply, ALERT_TIMEOUT).await,
        (_, Some(alert)) => timeout(ALERT_TIMEOUT, refuse(&mut client.stream, alert))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        (_, None) => return,
    };
    if sent.is_ok() {
        client.close().await;
    }
}

/// What of the client's offer goes to the upstream, best first: what can be looked into and is not blocked. An offer of
/// which that leaves nothing goes as it is: the stream passes unseen then, or is blocked once it is known.
fn offered<'a>(alpn: &'a [Vec<u8>], is_blocked: &dyn Fn(&[u8]) -> bool) -> Vec<&'a [u8]> {
    let mut offer: Vec<&[u8]> = alpn.iter().map(Vec::as_slice).collect();
    let mut narrow = |wanted: &dyn Fn(&[u8]) -> bool| {
        if offer.iter().any(|name| wanted(name)) {
            offer.retain(|name| wanted(name));
        }
    };
    narrow(&|name| of_alpn(name).is_some());
    narrow(&|name| !is_blocked(name));
    offer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TLS-02.
    #[test]
    fn the_upstream_is_offered_what_the_client_offers_as_far_as_it_is_looked_into() {
        for (client, upstream) in [
            (&["h2", "http/1.1"][..], &["h2", "http/1.1"][..]),
            (&["foo", "http/1.1", "imap"], &["http/1.1", "imap"]),
            (&["h2"], &["h2"]),
            (&["h2", "foo"], &["h2"]),
            (&["foo", "postgresql"], &["foo", "postgresql"]),
            (&[], &[]),
        ] {
            let client: Vec<_> = client.iter().map(|name| name.as_bytes().to_vec()).collect();
            let upstream: Vec<_> = upstream.iter().map(|name| name.as_bytes()).collect();
            assert_eq!(offered(&client, &|_| false), upstream);
        }
        let client = [b"imap".to_vec(), b"http/1.1".to_vec()];
        assert_eq!(offered(&client, &|name| name == b"imap"), [b"http/1.1"]);
        assert_eq!(offered(&client, &|_| true), [&b"imap"[..], b"http/1.1"]);
    }
}
