//! Basic authentication of requests (RFC 7617), and what a client hears that fails it (users.md §10.2).

use std::future::poll_fn;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sluice_config::value::SpeedLimitTcp;
use sluice_http1::{BodyFraming, Challenge, Connection, Credentials, Reply, put_basic_challenge};
use sluice_io::pump::Framing as _;

use crate::client::{Client, Fill};
use crate::http::body::Body;
use crate::http::forward::After;
use crate::http::reply;
use crate::server::http_proxy::{HttpProxy, Session};
use crate::stats::ServerStats;
use crate::user::{Digest, Gate, Login, LoginError};
use crate::worker::Worker;

/// Failed requests in a row after which a connection is closed.
const MOST_FAILURES: u32 = 2;

/// Who the client of a connection is.
#[derive(Default)]
pub(crate) struct Identity {
    login: Option<Login>,
    /// What the login was given for: a digest of the credentials, and the version of the group.
    proof: Option<(Digest, u64)>,
    /// Requests in a row that failed.
    failures: u32,
}

impl Identity {
    /// The user, once a request has been authenticated.
    pub(crate) fn login(&mut self) -> Option<&mut Login> {
        self.login.as_mut()
    }

    /// Takes the credentials of a request: the value of its Proxy-Authorization field, if it has one. What was found
    /// out for the same ones before is not found out again. Tells whether the user is another one than before.
    ///
    /// # Errors
    /// [`LoginError`]; the client is nobody then.
    pub(crate) async fn prove(
        &mut self,
        gate: &Gate,
        worker: &Worker,
        field: Option<&[u8]>,
        client: IpAddr,
    ) -> Result<bool, LoginError> {
        // Read before the members are: a change in between is noticed at the next request.
        let version = gate.version();
        let id = u64::from(field.is_some());
        let digest = worker.passwords.digest(id, field.unwrap_or_default());
        let proof = Some((digest, version));
        let fresh = match self.login.take() {
            Some(login) if self.proof == proof => gate.recheck(login, client),
            before => {
                let login = match field {
                    None => gate.anonymous(client),
                    Some(value) => match Credentials::parse(value) {
                        Ok(given) => {
                            let check = gate.login(&worker.passwords, given.user(), given.password(), client);
                            Box::pin(check).await
                        }
                        Err(_) => gate.malformed(client),
                    },
                };
                login.map(|login| login.after(before))
            }
        };
        match fresh {
            Ok(login) => {
                let is_new = login.is_new();
                self.login = Some(login);
                self.proof = proof;
                self.failures = 0;
                Ok(is_new)
            }
            Err(error) => {
                self.proof = None;
                self.failures += 1;
                Err(error)
            }
        }
    }
}

/// A request whose sender is nobody.
pub(crate) struct Unauthorized {
    pub(crate) error: LoginError,
    /// Credentials came with it.
    pub(crate) gave_credentials: bool,
    pub(crate) framing: BodyFraming,
    pub(crate) expect_continue: bool,
    pub(crate) is_connect: bool,
    pub(crate) head_only: bool,
    pub(crate) keep_alive: bool,
    pub(crate) http11: bool,
    /// Bytes of its head.
    pub(crate) received: u64,
}

/// What becomes of the body of such a request.
enum Rest {
    /// There is none.
    Nothing,
    /// It is read and thrown away at this speed.
    Drain(SpeedLimitTcp),
    /// It is left where it is, and the connection closes.
    Leave,
}

impl Unauthorized {
    fn rest(&self, limit: Option<SpeedLimitTcp>) -> Rest {
        match limit {
            _ if self.framing.is_empty() => Rest::Nothing,
            // Who waits for 100 may send the body after the refusal or not.
            Some(limit) if !self.gave_credentials && !self.expect_continue => Rest::Drain(limit),
            _ => Rest::Leave,
        }
    }
}

/// Answers it.
pub(crate) async fn answer(session: &Session, mut client: Box<Client>, failed: &Unauthorized) -> After {
    let server = &session.server;
    server.common.stats.mine().tcp_in.add(failed.received);
    let refused = match failed.error {
        LoginError::Blocked { delay } => {
            hold(session, &mut client, delay).await;
            Some(403)
        }
        LoginError::Busy => Some(503),
        LoginError::Params(_) => Some(400),
        _ => None,
    };
    if server.options.no_early_error_reply {
        return After::Gone;
    }
    if let Some(status) = refused {
        let reply = Reply {
            head_only: failed.head_only,
            ..Reply::closing(status)
        };
        return match reply::send(server, &mut client, &reply).await {
            Ok(()) => After::Close(client),
            Err(_) => After::Gone,
        };
    }
    let rest = failed.rest(server.options.untrusted_limit);
    // Bytes behind a CONNECT were meant for the tunnel; they must not be read as a request.
    let persists = failed.keep_alive
        && session.identity.failures < MOST_FAILURES
        && !matches!(rest, Rest::Leave)
        && (!failed.is_connect || client.buf.is_empty())
        && !session.is_ending();
    if challenge(server, &mut client, failed, persists).await.is_err() {
        return After::Gone;
    }
    match rest {
        _ if !persists => After::Close(client),
        Rest::Nothing => After::Next(client),
        Rest::Drain(limit) => {
            if drain(session, &mut client, failed.framing, limit).await {
                After::Next(client)
            } else {
                After::Gone
            }
        }
        Rest::Leave => After::Close(client),
    }
}

/// Lets the client of a blocked user wait.
async fn hold(session: &Session, client: &mut Client, delay: Duration) {
    client.timer.arm(delay);
    tokio::select! {
        () = poll_fn(|cx| client.timer.poll_fired(cx)) => {}
        () = session.worker.tasks.stopping() => {}
    }
}

async fn challenge(
    server: &HttpProxy,
    client: &mut Client,
    failed: &Unauthorized,
    persists: bool,
) -> std::io::Result<()> {
    let mut extra = Vec::new();
    // The configuration was refused if the realm cannot stand in a field.
    let _ = put_basic_challenge(&mut extra, Challenge::Proxy, &server.options.realm);
    let reply = Reply {
        status: 407,
        connection: match (persists, failed.http11) {
            (true, true) => Connection::Implied,
            (true, false) => Connection::KeepAlive,
            (false, _) => Connection::Close,
        },
        head_only: failed.head_only,
        extra: &extra,
    };
    reply::send(server, client, &reply).await
}

/// Reads the body of a refused request to its end, for a client that does not look at the answer before it has sent
/// all. Tells whether the connection is good for another request.
async fn drain(session: &Session, client: &mut Client, framing: BodyFraming, limit: SpeedLimitTcp) -> bool {
    let server = &session.server;
    let untrusted = Untrusted::begin(&server.common.stats);
    let mut body = Body::new(framing, &server.options.terms.request_limits);
    let mut due = Instant::now();
    loop {
        if !client.buf.is_empty() {
            let Ok(n) = body.admit(client.buf.filled()) else {
                return false;
            };
            client.buf.consume(n);
            untrusted.read(n as u64);
            due = due.max(Instant::now()) + time_of(n as u64, limit);
        }
        if body.is_complete() {
            return true;
        }
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = session.worker.tasks.stopping() => return false,
        }
        client.timer.arm(server.common.options.stall_limit());
        match client.fill().await {
            Fill::Bytes => {}
            Fill::Closed | Fill::Failed(_) | Fill::TimedOut => return false,
        }
    }
}

/// The time that so many bytes of a client take.
fn time_of(bytes: u64, limit: SpeedLimitTcp) -> Duration {
    let slice = Duration::from_millis(1 << limit.shift_millis).as_nanos();
    let nanos = u128::from(bytes) * slice / u128::from(limit.upload.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Counts a body that is thrown away.
struct Untrusted<'a>(&'a ServerStats);

impl<'a> Untrusted<'a> {
    fn begin(stats: &'a ServerStats) -> Self {
        stats.mine().untrusted_started.add(1);
        Self(stats)
    }

    fn read(&self, n: u64) {
        let counters = self.0.mine();
        counters.untrusted_in.add(n);
        counters.tcp_in.add(n);
    }
}

impl Drop for Untrusted<'_> {
    fn drop(&mut self) {
        self.0.mine().untrusted_ended.add(1);
    }
}
