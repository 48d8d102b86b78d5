//! Interception of HTTP/2: one connection to the client and one to the upstream, on which each stream of the client is
//! passed on as a stream of its own.
//!
//! Windows, frame sizes and header compression belong to each connection; heads, data, trailers, resets and the end of
//! a stream pass through. Data is never gathered: what comes is sent on, and its sender gets window back only when it
//! has been.

mod adapt;
mod body;
mod connect;
mod guard;
mod head;
mod run;
mod stream;
mod upload;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::{Ping, PingPong, Reason, client, server};
use sluice_addr::Upstream;
use sluice_config::value::H2Interception;
use sluice_io::Stream;
use sluice_io::cork::{Cork, Corked, corked};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

pub(crate) use self::adapt::Adapter;
use self::guard::{Guarded, Offence, Offences};
pub(crate) use self::run::run;
pub(crate) use self::stream::{StreamError, StreamKind, StreamNote};

/// How long a connection that is being closed may take for its last frames.
const LINGER: Duration = Duration::from_secs(2);
/// A client may take back so many requests right after it has made them; more only while it lets as many go on.
const MAX_TAKEN_BACK: u64 = 100;
/// `current_max_send_streams` before the upstream has sent its SETTINGS; no value that it can have sent.
const NO_SETTINGS: usize = usize::MAX - 1;

/// Whoever wants to know what becomes of the streams of a connection.
pub(crate) trait Watch {
    /// What is done with an extended CONNECT for `protocol` (RFC 8441 §4).
    fn admit(&self, protocol: &str) -> Admission;

    /// A CONNECT to `target` is through: these are its two ends, which are somebody's from now on. What is returned tells why
    /// the tunnel failed; it is closed at its end.
    fn tunnel(&self, target: Upstream, client: Stream, upstream: Stream) -> oneshot::Receiver<String>;

    /// A stream has ended.
    fn stream_ended(&self, note: StreamNote);

    /// The upstream has answered a PING.
    fn pinged(&self, round_trip: Duration, counts: Counts);
}

/// What is done with an extended CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Passed,
    /// 403.
    Forbidden,
    /// Nothing is known of its protocol: 501.
    Unknown,
}

/// By what the streams of a connection are passed on.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'s> {
    pub(crate) settings: &'s H2Interception,
    /// How long the connection may be without a stream.
    pub(crate) idle: Duration,
    /// What adapts messages, if anything does.
    pub(crate) adapter: Option<Adapter<'s>>,
}

/// Streams of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Opened so far.
    pub(crate) total: u64,
    /// At work.
    pub(crate) alive: usize,
}

/// Why an intercepted connection ended before it was through.
#[derive(Debug, Error)]
pub(crate) enum H2Error {
    #[error("the client's HTTP/2 connection failed: {0}")]
    Client(h2::Error),
    #[error("the client resets too many of its requests at once")]
    ClientFlood,
    #[error("the client sends {0}")]
    ClientFrames(Offence),
    #[error("no HTTP/2 preface from the client within {0:?}")]
    ClientPreface(Duration),
    #[error("the client did not answer a PING within {0:?}")]
    ClientSilent(Duration),
    #[error("no stream for {0:?}")]
    Idle(Duration),
    #[error("the upstream's HTTP/2 connection failed: {0}")]
    Upstream(h2::Error),
    #[error("the upstream closed the connection before its HTTP/2 SETTINGS")]
    UpstreamClosed,
    #[error("the upstream sends {0}")]
    UpstreamFrames(Offence),
    #[error("no HTTP/2 SETTINGS from the upstream within {0:?}")]
    UpstreamSettings(Duration),
    #[error("the upstream did not answer a PING within {0:?}")]
    UpstreamSilent(Duration),
}

/// Intercepts a connection until either side ends it, or no stream has been open for the idle time. Numbers of streams
/// are in the result.
///
/// # Errors
/// [`H2Error`] if it ended otherwise than by a graceful close.
pub(crate) async fn intercept<C, U, W>(
    client: C,
    upstream: U,
    terms: Terms<'_>,
    watch: &W,
) -> (Counts, Result<(), H2Error>)
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
    W: Watch,
{
    let (client, of_client) = Guarded::client(client);
    let (upstream, of_upstream) = Guarded::upstream(upstream);
    let offences = [of_client, of_upstream];
    let ((client, client_cork), (upstream, upstream_cork)) = (corked(client), corked(upstream));
    match open(client, upstream, &offences, terms.settings).await {
        Ok((client, requests, upstream)) => {
            let pair = Pair::new(client, requests, upstream, offences, terms, watch);
            pair.run(&Corks(client_cork, upstream_cork)).await
        }
        Err(error) => (Counts::default(), Err(error)),
    }
}

type ClientConn<C> = server::Connection<Corked<Guarded<C>>, Bytes>;
type UpstreamConn<U> = client::Connection<Corked<Guarded<U>>, Bytes>;
type Requests = client::SendRequest<Bytes>;

/// Shakes hands with the upstream first: what the client may do depends on it.
async fn open<C, U>(
    client: Corked<Guarded<C>>,
    upstream: Corked<Guarded<U>>,
    [_, of_upstream]: &[Offences; 2],
    settings: &H2Interception,
) -> Result<(ClientConn<C>, Requests, UpstreamConn<U>), H2Error>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let limit = settings.upstream_handshake_timeout.0;
    let (requests, upstream) = timeout(limit, open_upstream(upstream, of_upstream, settings))
        .await
        .unwrap_or(Err(H2Error::UpstreamSettings(limit)))?;
    let its_streams = u32::try_from(requests.current_max_send_streams()).unwrap_or(u32::MAX);
    let mut builder = server::Builder::new();
    builder
        .max_header_list_size(settings.max_header_list_size.0)
        .max_concurrent_streams(settings.max_concurrent_streams.min(its_streams))
        .max_frame_size(settings.max_frame_size.0)
        .initial_window_size(settings.stream_window_size.0)
        .initial_connection_window_size(settings.connection_window_size.0)
        .max_send_buffer_size(settings.max_send_buffer_size.as_usize());
    if requests.is_extended_connect_protocol_enabled() {
        builder.enable_connect_protocol();
    }
    let limit = settings.client_handshake_timeout.0;
    let client = timeout(limit, builder.handshake(client))
        .await
        .map_err(|_| H2Error::ClientPreface(limit))?
        .map_err(H2Error::Client)?;
    Ok((client, requests, upstream))
}

async fn open_upstream<U>(
    upstream: Corked<Guarded<U>>,
    offences: &Offences,
    settings: &H2Interception,
) -> Result<(Requests, UpstreamConn<U>), H2Error>
where
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (requests, mut connection) = client::Builder::new()
        .enable_push(false)
        .initial_max_send_streams(NO_SETTINGS)
        .max_header_list_size(settings.max_header_list_size.0)
        .max_frame_size(settings.max_frame_size.0)
        .initial_window_size(settings.stream_window_size.0)
        .initial_connection_window_size(settings.connection_window_size.0)
        .max_send_buffer_size(settings.max_send_buffer_size.as_usize())
        .handshake(upstream)
        .await
        .map_err(H2Error::Upstream)?;
    poll_fn(|cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        if let Some(offence) = offences.get() {
            return Poll::Ready(Err(H2Error::UpstreamFrames(offence)));
        }
        match polled {
            _ if requests.current_max_send_streams() != NO_SETTINGS => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(H2Error::Upstream(error))),
            Poll::Ready(Ok(())) => Poll::Ready(Err(H2Error::UpstreamClosed)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await?;
    Ok((requests, connection))
}

/// Of both sides: the library flushes each frame of data, which would be a record and a system call for each.
struct Corks<C, U>(Cork<C>, Cork<U>);

impl<C: AsyncWrite + Unpin, U: AsyncWrite + Unpin> Corks<C, U> {
    fn put_in(&self) {
        self.0.put_in();
        self.1.put_in();
    }

    fn take_out(&self, cx: &mut Context<'_>) {
        self.0.take_out(cx);
        self.1.take_out(cx);
    }
}

/// Both connections and their streams, which live and die together in one task.
struct Pair<'s, C, U, W> {
    client: ClientConn<C>,
    /// `None` once no more requests are made.
    requests: Option<Requests>,
    /// `None` once it has ended.
    upstream: Option<UpstreamConn<U>>,
    /// The client's and the upstream's.
    offences: [Offences; 2],
    pings: [Pings; 2],
    terms: Terms<'s>,
    watch: &'s W,
    total: u64,
    /// Requests that the client took back before they were answered, each of which costs us more than it.
    taken_back: u64,
    /// When the last stream ended.
    idle_since: Instant,
    next_ping: Instant,
    timer: Pin<Box<Sleep>>,
    /// Why the connections are being closed, if for other than a graceful reason.
    error: Option<H2Error>,
    closing: bool,
}

/// PINGs to one side.
struct Pings {
    pings: Option<PingPong>,
    /// When the one that is not yet answered was sent.
    sent: Option<Instant>,
}

impl Pings {
    fn new(pings: Option<PingPong>) -> Self {
        Self { pings, sent: None }
    }

    /// The time that an answer took.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        match (&mut self.pings, self.sent) {
            (Some(pings), Some(sent)) => match pings.poll_pong(cx) {
                Poll::Ready(Ok(_)) => {
                    self.sent = None;
                    Poll::Ready(sent.elapsed())
                }
                // The connection itself tells of its end.
                Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
            },
            _ => Poll::Pending,
        }
    }

    /// Sends another one. `false`: the last one is still to be answered.
    fn send(&mut self) -> bool {
        if self.sent.is_some() {
            return false;
        }
        if let Some(pings) = &mut self.pings
            && pings.send_ping(Ping::opaque()).is_ok()
        {
            self.sent = Some(Instant::now());
        }
        true
    }
}

impl<'s, C, U, W> Pair<'s, C, U, W>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
    W: Watch,
{
    fn new(
        mut client: ClientConn<C>,
        requests: Requests,
        mut upstream: UpstreamConn<U>,
        offences: [Offences; 2],
        terms: Terms<'s>,
        watch: &'s W,
    ) -> Self {
        let pings = [client.ping_pong(), upstream.ping_pong()].map(Pings::new);
        Self {
            client,
            requests: Some(requests),
            upstream: Some(upstream),
            offences,
            pings,
            terms,
            watch,
            total: 0,
            taken_back: 0,
            idle_since: Instant::now(),
            next_ping: Instant::now() + terms.settings.ping_interval.0,
            timer: Box::pin(sleep(terms.settings.ping_interval.0.min(terms.idle))),
            error: None,
            closing: false,
        }
    }

    async fn run(mut self, corks: &Corks<Guarded<C>, Guarded<U>>) -> (Counts, Result<(), H2Error>) {
        let (terms, watch) = (self.terms, self.watch);
        let mut streams = FuturesUnordered::new();
        let mut turn = |cx: &mut Context<'_>| {
            loop {
                // The upstream first: what it has sent is passed on in the same turn.
                self.poll_upstream(cx);
                let mut progress = false;
                while let Poll::Ready(Some(taken_back)) = streams.poll_next_unpin(cx) {
                    progress = true;
                    self.idle_since = Instant::now();
                    if self.is_flood(taken_back) {
                        self.error.get_or_insert(H2Error::ClientFlood);
                        return Poll::Ready(());
                    }
                }
                match self.client.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        self.total += 1;
                        progress = true;
                        streams.push(stream::exchange(request, respond, self.requests.clone(), terms, watch));
                    }
                    Poll::Ready(Some(Err(error))) => {
                        self.error.get_or_insert(H2Error::Client(error));
                        return Poll::Ready(());
                    }
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
                if let Some(offence) = self.offences[0].get() {
                    self.error.get_or_insert(H2Error::ClientFrames(offence));
                    return Poll::Ready(());
                }
                let counts = Counts {
                    total: self.total,
                    alive: streams.len(),
                };
                let [client, upstream] = &mut self.pings;
                let _ = client.poll_answer(cx);
                if let Poll::Ready(round_trip) = upstream.poll_answer(cx) {
                    watch.pinged(round_trip, counts);
                }
                if self.timer.as_mut().poll(cx).is_ready() {
                    progress = true;
                    if let Some(silent) = self.tick(streams.is_empty()) {
                        self.error.get_or_insert(silent);
                        return Poll::Ready(());
                    }
                }
                if !progress {
                    return Poll::Pending;
                }
            }
        };
        poll_fn(|cx| {
            corks.put_in();
            let polled = turn(cx);
            corks.take_out(cx);
            polled
        })
        .await;
        let counts = Counts {
            total: self.total,
            alive: streams.len(),
        };
        // The client has gone: what it still wanted is reset at the upstream.
        drop(streams);
        self.finish().await;
        (counts, self.error.map_or(Ok(()), Err))
    }

    /// Sends PINGs that are due, unless a side has not answered the last one; closes what is idle; sets the timer anew.
    fn tick(&mut self, is_quiet: bool) -> Option<H2Error> {
        let Terms { settings, idle, .. } = self.terms;
        let now = Instant::now();
        if now >= self.next_ping {
            self.next_ping = now + settings.ping_interval.0;
            if let Some(silent) = self.ping() {
                return Some(silent);
            }
        }
        let idle_at = self.idle_since + idle;
        if is_quiet && now >= idle_at {
            self.close(Some(H2Error::Idle(idle)));
        }
        let next = if is_quiet && !self.closing {
            self.next_ping.min(idle_at)
        } else {
            self.next_ping
        };
        self.timer.as_mut().reset(next.max(now + Duration::from_millis(1)));
        None
    }

    /// Drives the upstream's connection. Its end, and its wish to end, become the client's.
    fn poll_upstream(&mut self, cx: &mut Context<'_>) {
        let Some(connection) = &mut self.upstream else { return };
        if let Poll::Ready(result) = Pin::new(connection).poll(cx) {
            self.upstream = None;
            let error = result
                .err()
                .filter(|error| error.reason() != Some(Reason::NO_ERROR) || !error.is_go_away());
            self.close(error.map(H2Error::Upstream));
            return;
        }
        if let Some(offence) = self.offences[1].get() {
            self.upstream = None;
            self.close(Some(H2Error::UpstreamFrames(offence)));
            return;
        }
        // After a GOAWAY no request can be made any more, while streams go on.
        if let Some(requests) = &mut self.requests
            && let Poll::Ready(Err(_)) = requests.poll_ready(cx)
        {
            self.close(None);
        }
    }

    /// Whether this end of a stream is one too many of its kind (CVE-2023-44487).
    fn is_flood(&mut self, taken_back: bool) -> bool {
        self.taken_back += u64::from(taken_back);
        self.taken_back > MAX_TAKEN_BACK.max(self.total / 2)
    }

    /// Tells the client that no more streams are taken; the streams that there are go on.
    fn close(&mut self, why: Option<H2Error>) {
        if let Some(why) = why {
            self.error.get_or_insert(why);
        }
        self.requests = None;
        if !self.closing {
            self.closing = true;
            self.client.graceful_shutdown();
        }
    }

    /// Asks both sides whether they are there. What a side that did not answer the last time has done.
    fn ping(&mut self) -> Option<H2Error> {
        let after = self.terms.settings.ping_interval.0;
        let [client, upstream] = &mut self.pings;
        if !client.send() {
            return Some(H2Error::ClientSilent(after));
        }
        (!upstream.send()).then_some(H2Error::UpstreamSilent(after))
    }

    /// Says good-bye to either side.
    async fn finish(&mut self) {
        // Without a handle for requests the connection ends itself.
        self.requests = None;
        let upstream = self.upstream.take();
        let upstream = async move {
            if let Some(connection) = upstream {
                // What is wrong now is of no use to anybody.
                let _ = connection.await;
            }
        };
        let reason = match &self.error {
            None | Some(H2Error::Idle(_)) => Reason::NO_ERROR,
            Some(H2Error::ClientFlood) => Reason::ENHANCE_YOUR_CALM,
            Some(H2Error::ClientFrames(offence)) => guard::reason(*offence),
            Some(_) => Reason::INTERNAL_ERROR,
        };
        self.client.abrupt_shutdown(reason);
        let client = &mut self.client;
        let client = poll_fn(|cx| client.poll_closed(cx));
        let both = async { tokio::join!(client, upstream) };
        let _ = timeout(LINGER, both).await;
    }
}

/// Waits until `deadline`, if there is one.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
