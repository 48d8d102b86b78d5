//! One name server over one transport.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use hickory_net::runtime::{RuntimeProvider, Spawn};
use hickory_net::{
    NetError,
    h2::HttpsClientStream,
    h3::H3ClientStream,
    proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode},
    quic::QuicClientStream,
    tcp::TcpClientStream,
    tls::tls_client_connect,
    udp::UdpClientStream,
    xfer::{
        BufDnsStreamHandle, DnsClientStream, DnsExchange, DnsHandle, DnsMultiplexer, DnsRequestSender, FirstAnswer,
    },
};
use sluice_tls::rustls::{ClientConfig, pki_types::ServerName};
use sluice_wire::dns::{Family, Reply, ResolveError, UDP_PAYLOAD, name_of};
use tokio::time::{Instant, timeout};

use super::Sockets;
use super::paced::Paced;
use crate::cache::Failure;

/// The path of DoH queries (RFC 8484 §4.1.1 has no default; this is what servers use).
const DOH_PATH: &str = "/dns-query";

/// The most connections that one query is sent over, if each of them is closed before the answer comes.
const MAX_LINKS: usize = 3;

/// The most queries that await an answer on one connection.
const MAX_ACTIVE: usize = 4096;

/// How messages get to the server.
#[derive(Clone)]
pub(crate) enum Transport {
    /// HTTP/2 over TLS (RFC 8484).
    Https(Encryption),
    /// HTTP/3.
    H3(Encryption),
    /// UDP, and TCP for what does not fit.
    Plain,
    /// QUIC (RFC 9250).
    Quic(Encryption),
    /// TLS (RFC 7858).
    Tls(Encryption),
}

/// Whom to expect at the other end.
#[derive(Clone)]
pub(crate) struct Encryption {
    pub(crate) name: ServerName<'static>,
    pub(crate) config: Arc<ClientConfig>,
}

/// How patient a server is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// How long a connection may take, handshake included.
    pub(crate) connect: Duration,
    /// How long one response may take.
    pub(crate) request: Duration,
    /// How often a query is tried when the transport fails.
    pub(crate) tries: u32,
    /// When a packet is taken for lost and sent again, and how often it is sent.
    pub(crate) resend: Duration,
    pub(crate) packets: u8,
}

/// What `resolver.upstreams` shows of a server.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) address: SocketAddr,
    pub(crate) transport: &'static str,
    pub(crate) connected: bool,
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) failed_in_a_row: u64,
    pub(crate) last_failure: Option<(Duration, String)>,
    /// How long answers take, lately.
    pub(crate) latency: Duration,
}

type Connecting = Shared<BoxFuture<'static, Result<DnsExchange<Sockets>, NetError>>>;

/// One connection, standing or about to.
struct Link {
    number: u64,
    connecting: Connecting,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    links: u64,
    failed_in_a_row: u64,
    last_failure: Option<(Instant, String)>,
    latency: Duration,
}

/// A name server, its connection if its transport has one, and how it does.
pub(crate) struct Server {
    address: SocketAddr,
    transport: Transport,
    timing: Timing,
    sockets: Sockets,
    state: Mutex<State>,
    asked: AtomicU64,
    answered: AtomicU64,
}

impl Server {
    pub(crate) fn new(address: SocketAddr, transport: Transport, timing: Timing, sockets: Sockets) -> Self {
        Self {
            address,
            transport,
            timing,
            sockets,
            state: Mutex::default(),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it does.
    pub(crate) fn condition(&self) -> Condition {
        let state = self.state();
        Condition {
            address: self.address,
            transport: self.transport.name(),
            connected: state
                .link
                .as_ref()
                .is_some_and(|link| matches!(link.connecting.peek(), Some(Ok(_)))),
            asked: self.asked.load(Ordering::Relaxed),
            answered: self.answered.load(Ordering::Relaxed),
            failed_in_a_row: state.failed_in_a_row,
            last_failure: state
                .last_failure
                .as_ref()
                .map(|(at, text)| (at.elapsed(), text.clone())),
            latency: state.latency,
        }
    }

    /// Asks for one name. Any reply that can be read is an answer, whatever it says.
    ///
    /// # Errors
    /// What kept the server from answering.
    pub(crate) async fn ask(&self, domain: &str, family: Family) -> Result<Reply, Failure> {
        let mut request = request(domain, family)?;
        self.asked.fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        let mut result = self.try_often(&request).await;
        if matches!(&result, Ok(message) if message.response_code == ResponseCode::FormErr && message.edns.is_none()) {
            request.edns = None; // a server from before EDNS (RFC 6891 §7)
            result = self.try_often(&request).await;
        }
        let reply = result
            .map_err(|error| describe(&error, self.address))
            .and_then(|message| {
                let reply = Reply::from(message.into_message());
                if reply.is_about(domain, family) {
                    Ok(reply)
                } else {
                    Err(Failure::new(
                        ResolveError::BadResponse,
                        format!("{} answers another question", self.address),
                    ))
                }
            });
        self.note(&reply, start.elapsed());
        reply
    }

    fn note(&self, reply: &Result<Reply, Failure>, took: Duration) {
        let mut state = self.state();
        match reply {
            Ok(_) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                state.failed_in_a_row = 0;
                state.latency = if state.latency.is_zero() {
                    took
                } else {
                    (state.latency * 7 + took) / 8
                };
            }
            Err(failure) => {
                state.failed_in_a_row += 1;
                let text = if failure.text.is_empty() {
                    failure.error.to_string()
                } else {
                    failure.text.to_string()
                };
                state.last_failure = Some((Instant::now(), text));
            }
        }
    }

    async fn try_often(&self, request: &DnsRequest) -> Result<DnsResponse, NetError> {
        let mut tries = self.timing.tries.max(1);
        loop {
            tries -= 1;
            let result = match self.transport {
                Transport::Plain => self.plain(request).await,
                _ => self.connected(request).await,
            };
            match result {
                Err(error) if tries > 0 && !matches!(error, NetError::Timeout) => {}
                result => return result,
            }
        }
    }

    /// UDP first, with a socket and a port of its own for each query.
    async fn plain(&self, request: &DnsRequest) -> Result<DnsResponse, NetError> {
        let mut stream = UdpClientStream::builder(self.address, self.sockets.clone())
            .with_timeout(Some(self.timing.request))
            .with_max_retries(self.timing.packets)
            .build();
        let mut request = request.clone();
        request.options_mut().retry_interval = self.timing.resend;
        let response = stream.send_message(request.clone()).first_answer().await?;
        if response.truncation {
            self.connected(&request).await
        } else {
            Ok(response)
        }
    }

    /// Over the connection, a new one if there is none. One that was of use before may have been closed meanwhile, since
    /// it was idle or has served enough: then the query goes over the next one.
    async fn connected(&self, request: &DnsRequest) -> Result<DnsResponse, NetError> {
        let mut links = MAX_LINKS;
        loop {
            links -= 1;
            let (number, link) = self.link();
            let exchange = match link.await {
                Ok(exchange) => exchange,
                Err(error) => {
                    self.drop_link(number);
                    return Err(error);
                }
            };
            let result = match timeout(self.timing.request, exchange.send(request.clone()).first_answer()).await {
                Ok(result) => result,
                Err(_) => Err(NetError::Timeout),
            };
            match result {
                Ok(response) => return Ok(response),
                Err(error) => {
                    self.drop_link(number);
                    if links == 0 || matches!(error, NetError::Timeout) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// The link, and its number.
    fn link(&self) -> (u64, Connecting) {
        let mut state = self.state();
        if let Some(link) = &state.link {
            return (link.number, link.connecting.clone());
        }
        state.links += 1;
        let link = Link {
            number: state.links,
            connecting: self.connect().shared(),
        };
        let new = (link.number, link.connecting.clone());
        state.link = Some(link);
        new
    }

    /// Leaves a link to those who still wait on it; the next query makes a new one.
    fn drop_link(&self, number: u64) {
        let mut state = self.state();
        if state.link.as_ref().is_some_and(|link| link.number == number) {
            state.link = None;
        }
    }

    fn connect(&self) -> BoxFuture<'static, Result<DnsExchange<Sockets>, NetError>> {
        let connecting = connect(self.address, self.transport.clone(), self.timing, self.sockets.clone());
        let limit = self.timing.connect;
        async move { timeout(limit, connecting).await.map_err(|_| NetError::Timeout)? }.boxed()
    }
}

impl Transport {
    /// Its name, as in logs and in `resolver.upstreams`.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Https(_) => "dns-over-https",
            Self::H3(_) => "dns-over-http/3",
            Self::Plain => "udp",
            Self::Quic(_) => "dns-over-quic",
            Self::Tls(_) => "dns-over-tls",
        }
    }
}

/// Opens a connection; for [`Transport::Plain`] the one over TCP.
async fn connect(
    address: SocketAddr,
    transport: Transport,
    timing: Timing,
    sockets: Sockets,
) -> Result<DnsExchange<Sockets>, NetError> {
    match transport {
        Transport::Plain => {
            let (connecting, sender) = TcpClientStream::new(address, None, Some(timing.connect), sockets.clone());
            Ok(multiplexed(connecting.await?, sender, timing, &sockets))
        }
        Transport::Tls(Encryption { name, config }) => {
            let (connecting, sender) = tls_client_connect(address, name, with_alpn(&config, b"dot"), sockets.clone());
            Ok(multiplexed(connecting.await?, sender, timing, &sockets))
        }
        Transport::Https(Encryption { name, config }) => {
            let mut builder = HttpsClientStream::builder(with_alpn(&config, b"h2"), sockets);
            builder.request_timeout(timing.request);
            builder.exchange(address, name.to_str().into(), DOH_PATH.into()).await
        }
        Transport::H3(Encryption { name, config }) => {
            H3ClientStream::builder()
                .crypto_config(ClientConfig::clone(&with_alpn(&config, b"h3")))
                .request_timeout(timing.request)
                .exchange(
                    sockets.quic(address)?,
                    address,
                    name.to_str().into(),
                    DOH_PATH.into(),
                    sockets,
                )
                .await
        }
        Transport::Quic(Encryption { name, config }) => {
            QuicClientStream::builder()
                .crypto_config(ClientConfig::clone(&with_alpn(&config, b"doq")))
                .request_timeout(timing.request)
                .exchange(sockets.quic(address)?, address, name.to_str().into(), sockets)
                .await
        }
    }
}

/// Many queries at a time over one stream.
fn multiplexed<S: DnsClientStream>(
    stream: S,
    sender: BufDnsStreamHandle,
    timing: Timing,
    sockets: &Sockets,
) -> DnsExchange<Sockets> {
    let multiplexer = DnsMultiplexer::new(Paced::new(stream), sender)
        .with_timeout(timing.request)
        .with_max_active_requests(MAX_ACTIVE);
    let (exchange, background) = DnsExchange::from_stream(multiplexer);
    sockets.create_handle().spawn_bg(background);
    exchange
}

fn with_alpn(config: &ClientConfig, protocol: &[u8]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

fn request(domain: &str, family: Family) -> Result<DnsRequest, Failure> {
    let mut options = DnsRequestOptions::default();
    options.edns_payload_len = UDP_PAYLOAD;
    Ok(DnsRequest::from_query(
        Query::query(name_of(domain)?, family.record_type()),
        options,
    ))
}

/// What a transport's failure is in our terms.
fn describe(error: &NetError, server: SocketAddr) -> Failure {
    let class = match error {
        NetError::Timeout => ResolveError::Timeout,
        NetError::Io(error) if error.kind() == io::ErrorKind::TimedOut => ResolveError::Timeout,
        NetError::Proto(_) | NetError::Dns(_) | NetError::QuicMessageIdNot0(_) => ResolveError::BadResponse,
        NetError::Busy | NetError::QuinnConfigError(_) | NetError::QuinnTlsConfigError(_) => ResolveError::Internal,
        _ => ResolveError::ConnectionRefused,
    };
    Failure::new(class, format!("{server}: {error}"))
}
