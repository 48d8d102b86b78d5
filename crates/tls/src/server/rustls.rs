//! The rustls acceptor.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};

use super::tickets::RustlsTickets;
use super::{ClientAuth, Pair, TlsServerParams, pairs_for};
use crate::Alert;
use crate::error::{BuildError, HandshakeError, VerifyError};
use crate::rustls_client::provider;
use crate::stream::TlsStream;

/// Sessions kept for clients that resume by session id.
const CACHED_SESSIONS: usize = 4096;

/// Accepts TLS connections over rustls.
#[derive(Clone)]
pub struct RustlsAcceptor {
    config: Arc<ServerConfig>,
    handshake_timeout: Duration,
}

impl RustlsAcceptor {
    pub(super) fn new(params: &TlsServerParams) -> Result<Self, BuildError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(BuildError::library)?;
        let builder = match anchors(&params.client_auth)? {
            None => builder.with_no_client_auth(),
            Some(anchors) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), provider())
                    .build()
                    .map_err(|e| BuildError::refused("ca_certificate", e))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Certificates::new(&params.pairs)?));
        config.alpn_protocols.clone_from(&params.alpn);
        config.session_storage = if params.session_cache {
            ServerSessionMemoryCache::new(CACHED_SESSIONS)
        } else {
            Arc::new(NoServerSessionStorage {})
        };
        match &params.ticketer {
            Some(ticketer) => {
                config.ticketer = Arc::new(RustlsTickets(Arc::clone(ticketer))) as Arc<dyn ProducesTickets>
            }
            None => config.send_tls13_tickets = 0,
        }
        Ok(Self {
            config: Arc::new(config),
            handshake_timeout: params.handshake_timeout,
        })
    }

    /// What libraries take that do TLS themselves, such as QUIC's.
    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    pub(super) fn handshake_timeout(&self) -> Duration {
        self.handshake_timeout
    }

    pub(super) async fn accept<IO>(&self, io: IO) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&self.config));
        match acceptor.accept(io).await {
            Ok(stream) => Ok(TlsStream::rustls(stream.into())),
            Err(error) => Err(handshake_error(error)),
        }
    }
}

impl std::fmt::Debug for RustlsAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RustlsAcceptor").finish_non_exhaustive()
    }
}

fn anchors(auth: &ClientAuth) -> Result<Option<RootCertStore>, BuildError> {
    let mut store = RootCertStore::empty();
    match auth {
        ClientAuth::None => return Ok(None),
        ClientAuth::System => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(BuildError::TrustAnchors);
            }
        }
        ClientAuth::Private(anchors) => {
            for anchor in anchors.iter() {
                store
                    .add(CertificateDer::from(anchor.to_der()?))
                    .map_err(|e| BuildError::refused("ca_certificate", e))?;
            }
        }
    }
    Ok(Some(store))
}

/// The same choice as with OpenSSL: by name, then by what the client can verify.
struct Certificates {
    pairs: Arc<[Pair]>,
    keys: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    fn new(pairs: &Arc<[Pair]>) -> Result<Self, BuildError> {
        let provider = provider();
        let keys = pairs
            .iter()
            .map(|pair| {
                let (chain, key) = pair.identity.to_rustls("private_key")?;
                CertifiedKey::from_der(chain, key, &provider)
                    .map(Arc::new)
                    .map_err(|e| BuildError::refused("private_key", e))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            pairs: Arc::clone(pairs),
            keys,
        })
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("keys", &self.keys.len()).finish()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = pairs_for(&self.pairs, hello.server_name());
        let mut keys = chosen.iter().filter_map(|pair| {
            let at = self.pairs.iter().position(|other| std::ptr::eq(other, *pair))?;
            self.keys.get(at)
        });
        keys.find(|key| key.key.choose_scheme(hello.signature_schemes()).is_some())
            .cloned()
    }
}

pub(crate) fn handshake_error(error: io::Error) -> HandshakeError {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => HandshakeError::Closed,
            _ => HandshakeError::Io(error),
        };
    };
    match tls {
        rustls::Error::AlertReceived(alert) => HandshakeError::Alert(Alert(u8::from(*alert))),
        rustls::Error::InvalidCertificate(reason) => HandshakeError::Verify(VerifyError::from_text(reason.to_string())),
        rustls::Error::NoCertificatesPresented => {
            HandshakeError::Verify(VerifyError::from_text("the client sent none".to_owned()))
        }
        tls => HandshakeError::Protocol(tls.to_string()),
    }
}
