//! The handshakes of an intercepted connection.
//!
//! A client's [`Hello`] is read first and answered last: what it asks for goes to the upstream, and what the upstream
//! says decides on the answer. [`InterceptionAcceptor::accept`] gives it, with a [`Leaf`] made for the purpose. The
//! handshake with the upstream is an [`InterceptionConnector`]'s.
//!
//! The acceptor is rustls: a connection shares all that a handshake needs but the certificate, so that a new host costs
//! one parsed key, and neither the building of a context nor the memory of one. What it speaks are the versions and
//! suites of Mozilla's intermediate profile, version 5, as far as they are of ECDHE.

mod connector;
mod modern;

use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls::server::{Accepted, Acceptor, ClientHello, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig, SignatureAlgorithm};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use x509_parser::prelude::{FromDer, X509Certificate};

pub use self::connector::InterceptionConnector;
use crate::Alert;
use crate::error::{BuildError, HandshakeError};
use crate::rustls_client::{aes_128_first, provider};
use crate::server::{RustlsTickets, Ticketer, rustls_handshake_error};
use crate::stream::TlsStream;

/// Certificates of a chain, the leaf included.
const MAX_CHAIN: usize = 16;

/// The most bytes of early data that are skipped, as the library counts.
const SKIPPED_EARLY_DATA: u32 = 128 << 10;

/// Sessions kept for clients that resume by session id, of one acceptor.
const CACHED_SESSIONS: usize = 4096;

const CHACHA: [CipherSuite; 3] = [
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// A ClientHello, complete and well formed, that has not been answered.
pub struct Hello {
    accepted: Accepted,
    server_name: Option<String>,
    alpn: Vec<Vec<u8>>,
    /// It would rather have ChaCha20 than AES, since it computes AES without instructions for it.
    prefers_chacha: bool,
    /// What came behind it and is not read yet.
    rest: Vec<u8>,
}

/// Why a ClientHello is not answered.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct HelloError {
    error: rustls::Error,
    /// What the client is to be sent before its connection is closed: an alert, or nothing.
    pub reply: Vec<u8>,
}

impl Hello {
    /// Reads the ClientHello at the front of `bytes`, over however many records; `Ok(None)` asks for more bytes, and for
    /// the earlier ones again. What follows it is kept for the handshake.
    ///
    /// # Errors
    /// [`HelloError`] if the bytes can never become a ClientHello that is answered.
    pub fn read(mut bytes: &[u8]) -> Result<Option<Self>, HelloError> {
        let mut acceptor = Acceptor::default();
        while !bytes.is_empty() {
            // It fails only if it is full, and a hello that large is none.
            let full = acceptor.read_tls(&mut bytes).is_err();
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(Some(Self::new(accepted, bytes))),
                Ok(None) if full => {
                    return Err(HelloError {
                        error: rustls::InvalidMessage::HandshakePayloadTooLarge.into(),
                        reply: Alert::DECODE_ERROR.fatal_record().to_vec(),
                    });
                }
                Ok(None) => {}
                Err((error, mut alert)) => {
                    let mut reply = Vec::new();
                    // Writing to a vector cannot fail.
                    let _ = alert.write_all(&mut reply);
                    if reply.is_empty() {
                        // Of what is no message at all the library says nothing.
                        reply.extend_from_slice(&Alert::DECODE_ERROR.fatal_record());
                    }
                    return Err(HelloError { error, reply });
                }
            }
        }
        Ok(None)
    }

    fn new(accepted: Accepted, rest: &[u8]) -> Self {
        let hello = accepted.client_hello();
        let server_name = hello.server_name().map(str::to_owned);
        let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
        // GREASE may stand before it (RFC 8701).
        let first = hello.cipher_suites().iter().find(|suite| suite.as_str().is_some());
        let prefers_chacha = first.is_some_and(|suite| CHACHA.contains(suite));
        Self {
            accepted,
            server_name,
            alpn,
            prefers_chacha,
            rest: rest.to_vec(),
        }
    }

    /// The name that the client asks for (RFC 6066 §3).
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The application protocols that the client offers, best first (RFC 7301 §3.1).
    #[must_use]
    pub fn alpn(&self) -> &[Vec<u8>] {
        &self.alpn
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// A certificate with its chain and its key, parsed once for all the handshakes that it serves. Cloning it is cheap.
#[derive(Clone)]
pub struct Leaf(Arc<OneLeaf>);

/// The resolver that knows but one certificate.
#[derive(Debug)]
struct OneLeaf {
    certified: Arc<CertifiedKey>,
    was_taken: AtomicBool,
}

impl ResolvesServerCert for OneLeaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.certified))
    }
}

/// How a certificate is told from all others, as `openssl x509` shows it but for the colons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The serial number in hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate in hexadecimal.
    pub fingerprint: String,
}

/// Why a certificate and its key cannot be used.
#[derive(Debug, Error)]
pub enum LeafError {
    /// The chain is not PEM, is empty, or has too many certificates.
    #[error("the chain is not PEM of 1 to {MAX_CHAIN} certificates")]
    Chain,
    /// The key is none that is known.
    #[error("the key is not a private key")]
    Key,
    /// The certificate and the key do not go together, or cannot be used by a server.
    #[error("the certificate or its key: {0}")]
    Refused(#[source] rustls::Error),
}

/// A private key as it came.
#[derive(Clone, Copy)]
pub enum LeafKey<'a> {
    /// PKCS#8 (RFC 5958), PKCS#1 (RFC 8017) or SEC 1 (RFC 5915).
    Der(&'a [u8]),
    /// Any of these as PEM.
    Pem(&'a str),
}

impl Leaf {
    /// Parses a chain in PEM, leaf first, and the leaf's key.
    ///
    /// # Errors
    /// [`LeafError`] tells which of them is not what it should be.
    pub fn new(chain: &str, key: LeafKey<'_>) -> Result<Self, LeafError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .take(MAX_CHAIN + 1)
            .collect::<Result<_, _>>()
            .map_err(|_| LeafError::Chain)?;
        if !(1..=MAX_CHAIN).contains(&chain.len()) {
            return Err(LeafError::Chain);
        }
        let key = match key {
            LeafKey::Der(der) => PrivateKeyDer::try_from(der).map_err(|_| LeafError::Key)?.clone_key(),
            LeafKey::Pem(pem) => PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| LeafError::Key)?,
        };
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(LeafError::Refused)?;
        Ok(Self(Arc::new(OneLeaf {
            certified: Arc::new(certified),
            was_taken: AtomicBool::new(false),
        })))
    }

    /// Whether its key is of RSA, whose signature takes about a millisecond (0.8 ms of 2048 bits, 3 ms of 4096), some
    /// seventy times as long as one of P-256.
    #[must_use]
    pub fn signs_slowly(&self) -> bool {
        self.0.certified.key.algorithm() == SignatureAlgorithm::RSA
    }

    /// Whether nobody has asked this before, of this leaf or of a clone of it.
    pub fn is_first_taken(&self) -> bool {
        !self.0.was_taken.swap(true, Ordering::Relaxed)
    }

    /// Reads what tells it from others; `None` if it is no certificate that the library can read.
    pub fn identity(&self) -> Option<Identity> {
        // OpenSSL would look for the key's decoder first, which takes as long as a signature.
        let der = self.0.certified.end_entity_cert().ok()?;
        let (_, leaf) = X509Certificate::from_der(der).ok()?;
        let serial = match leaf.raw_serial() {
            // Positive numbers whose first bit is set begin with a zero (X.690 §8.3).
            [0, rest @ ..] if !rest.is_empty() => rest,
            serial => serial,
        };
        Some(Identity {
            serial: hex(serial),
            fingerprint: hex(digest(&SHA256, der).as_ref()),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02X}");
    }
    text
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").finish_non_exhaustive()
    }
}

/// Answers the clients of intercepted connections. Cloning it is cheap, and clones take each other's sessions.
#[derive(Clone)]
pub struct InterceptionAcceptor {
    /// All but the certificate and the application protocol.
    template: Arc<ServerConfig>,
    handshake_timeout: Duration,
}

impl InterceptionAcceptor {
    /// Makes an acceptor whose session tickets are under the keys of `ticketer`.
    ///
    /// # Errors
    /// [`BuildError`] if the library has none of the versions.
    pub fn new(handshake_timeout: Duration, ticketer: Arc<Ticketer>) -> Result<Self, BuildError> {
        let mut template = ServerConfig::builder_with_provider(aes_128_first())
            .with_safe_default_protocol_versions()
            .map_err(BuildError::library)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(NoLeaf));
        // A client that resumes gets the next one.
        template.send_tls13_tickets = 1;
        template.session_storage = ServerSessionMemoryCache::new(CACHED_SESSIONS);
        template.ticketer = Arc::new(RustlsTickets(ticketer)) as Arc<dyn ProducesTickets>;
        // With a ticketer early data is never taken. What a client sends of it, with a ticket that it has from the upstream
        // itself, is skipped up to this size, which the library counts anew with each read before the next message. It keeps
        // what it skips in its buffer of 18 KiB until then: more than 16 KiB, which servers usually allow, is an error.
        template.max_early_data_size = SKIPPED_EARLY_DATA;
        Ok(Self {
            template: Arc::new(template),
            handshake_timeout: handshake_timeout.max(crate::client::MIN_HANDSHAKE_TIMEOUT),
        })
    }

    /// Shakes hands over `io` with the client that has sent `hello`, as the server that `leaf` says. `alpn` is the
    /// protocol that the upstream has chosen, one of the client's; without one the client is told of none.
    ///
    /// # Errors
    /// [`HandshakeError`]: [`Alert`](HandshakeError::Alert) is how a client says that it does not trust the certificate.
    /// `io` is dropped with it.
    pub async fn accept<IO>(
        &self,
        hello: Hello,
        io: IO,
        leaf: &Leaf,
        alpn: Option<&[u8]>,
    ) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.answer(hello, io, leaf, alpn).finish().await
    }

    /// The first half of [`Self::accept`], without I/O: here the leaf's key signs, unless the client resumes a session or
    /// is asked for another key exchange first. So it is for another thread where [that takes long](Leaf::signs_slowly).
    pub fn answer<IO>(&self, hello: Hello, io: IO, leaf: &Leaf, alpn: Option<&[u8]>) -> Answered<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        // A few counters go up; what is costly is shared.
        let mut config = ServerConfig::clone(&self.template);
        config.cert_resolver = Arc::<OneLeaf>::clone(&leaf.0);
        config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
        config.ignore_client_order = !hello.prefers_chacha;
        let Hello { accepted, rest, .. } = hello;
        let start = tokio_rustls::StartHandshake::from_parts(accepted, io);
        let handshake = start.into_stream_with(Arc::new(config), |connection| {
            let mut rest = &*rest;
            while !rest.is_empty() && connection.read_tls(&mut rest).is_ok_and(|n| n > 0) {}
        });
        Answered {
            handshake,
            timeout: self.handshake_timeout,
        }
    }
}

/// A handshake whose first answer is ready to be sent.
pub struct Answered<IO> {
    handshake: tokio_rustls::Accept<IO>,
    timeout: Duration,
}

impl<IO> Answered<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// The second half of [`InterceptionAcceptor::accept`].
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn finish(self) -> Result<TlsStream<IO>, HandshakeError> {
        match tokio::time::timeout(self.timeout, self.handshake).await {
            Ok(Ok(stream)) => Ok(TlsStream::rustls(stream.into())),
            Ok(Err(error)) => Err(rustls_handshake_error(error)),
            Err(_) => Err(HandshakeError::Timeout(self.timeout)),
        }
    }
}

impl<IO> fmt::Debug for Answered<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered").finish_non_exhaustive()
    }
}

impl fmt::Debug for InterceptionAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InterceptionAcceptor").finish_non_exhaustive()
    }
}

/// Stands in the template, from which no connection is made.
#[derive(Debug)]
struct NoLeaf;

impl ResolvesServerCert for NoLeaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// Refuses a client whose hello has not been answered, with a fatal alert (RFC 8446 §6.2).
///
/// # Errors
/// The connection's.
pub async fn refuse(io: &mut (impl AsyncWrite + Unpin), alert: Alert) -> io::Result<()> {
    io.write_all(&alert.fatal_record()).await?;
    io.flush().await
}
