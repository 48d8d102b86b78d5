//! A client over rustls for what an OpenSSL one is configured for, as far as that is possible.

use std::cell::Cell;
use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, ResolvesClientCert, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
    WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor,
};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, NamedGroup, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::client::{MIN_HANDSHAKE_TIMEOUT, SessionLimits};
use crate::config::{OpensslClientConfig, RustlsClientConfig, TlsVersion};
use crate::error::{BuildError, HandshakeError};
use crate::rustls_client::{aes_128_first, anchors, server_name};
use crate::server::rustls_handshake_error;
use crate::sessions::{Site, Sites};
use crate::stream::TlsStream;

pub(super) struct Modern {
    named: ClientConfig,
    /// For servers that are asked for no name, of which any will do.
    unnamed: ClientConfig,
    sessions: Option<Arc<Sessions>>,
    handshake_timeout: Duration,
}

impl Modern {
    /// `None` if `config` has a key that is OpenSSL's alone.
    ///
    /// # Errors
    /// [`BuildError`].
    pub(super) fn build(config: &OpensslClientConfig, base: &Path) -> Result<Option<Self>, BuildError> {
        let plain = OpensslClientConfig {
            ca_certificate: config.ca_certificate.clone(),
            disable_sni: config.disable_sni,
            handshake_timeout: config.handshake_timeout,
            max_tls_version: config.max_tls_version,
            min_tls_version: config.min_tls_version,
            no_default_ca_certificate: config.no_default_ca_certificate,
            no_session_cache: config.no_session_cache,
            session_cache_each_capacity: config.session_cache_each_capacity,
            session_cache_lru_max_sites: config.session_cache_lru_max_sites,
            ..OpensslClientConfig::default()
        };
        let versions = versions(config);
        if *config != plain || versions.is_empty() {
            return Ok(None);
        }
        let trust = anchors(
            &RustlsClientConfig {
                ca_certificate: plain.ca_certificate,
                no_default_ca_certificate: plain.no_default_ca_certificate,
                ..RustlsClientConfig::default()
            },
            base,
        )?;
        if trust.is_empty() {
            // Nobody is verified by these, but the reason is OpenSSL's to find.
            return Ok(None);
        }
        let trust = Arc::new(trust);
        let provider = aes_128_first();
        let by_name = WebPkiServerVerifier::builder_with_provider(Arc::clone(&trust), Arc::clone(&provider))
            .build()
            .map_err(BuildError::library)?;
        let of_anybody = Arc::new(Anybody {
            trust,
            algorithms: provider.signature_verification_algorithms,
        });
        let mut named = template(&provider, &versions, by_name)?;
        named.enable_sni = !config.disable_sni;
        let mut unnamed = template(&provider, &versions, of_anybody)?;
        unnamed.enable_sni = false;
        let limits = SessionLimits::many_sites(config);
        Ok(Some(Self {
            named,
            unnamed,
            sessions: (!config.no_session_cache).then(|| Arc::new(Sessions::new(limits))),
            handshake_timeout: config.handshake_timeout.0.max(MIN_HANDSHAKE_TIMEOUT),
        }))
    }

    pub(super) async fn connect<IO>(&self, io: IO, site: &Site, alpn: &[&[u8]]) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = server_name(&site.name)?;
        // A few counters go up; what is costly is shared.
        let mut config = ClientConfig::clone(if site.named { &self.named } else { &self.unnamed });
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let has_asked = Arc::new(AtomicBool::new(false));
        if let Some(sessions) = &self.sessions {
            config.resumption = Resumption::store(Arc::new(OfSite {
                site: site.clone(),
                sessions: Arc::clone(sessions),
                has_asked: Arc::clone(&has_asked),
            }));
        }
        let mut handshake = pin!(TlsConnector::from(Arc::new(config)).connect(name, io));
        let handshake = poll_fn(|cx| {
            ASKED.set(false);
            let polled = handshake.as_mut().poll(cx);
            if ASKED.get() {
                has_asked.store(true, Ordering::Relaxed);
            }
            polled
        });
        let outcome = tokio::time::timeout(self.handshake_timeout, handshake).await;
        let has_asked = has_asked.load(Ordering::Relaxed);
        match outcome {
            Ok(Ok(stream)) => Ok(TlsStream::rustls_client(stream, has_asked)),
            Ok(Err(error)) => {
                let error = rustls_handshake_error(error);
                Err(if has_asked { error.without_certificate() } else { error })
            }
            Err(_) => Err(HandshakeError::Timeout(self.handshake_timeout)),
        }
    }
}

/// The versions that are asked for, as far as the library has them: older ones are OpenSSL's, asked again.
fn versions(config: &OpensslClientConfig) -> Vec<&'static SupportedProtocolVersion> {
    [(TlsVersion::Tls1_3, &TLS13), (TlsVersion::Tls1_2, &TLS12)]
        .into_iter()
        .filter(|(version, _)| config.min_tls_version.is_none_or(|min| min <= *version))
        .filter(|(version, _)| config.max_tls_version.is_none_or(|max| *version <= max))
        .map(|(_, version)| version)
        .collect()
}

fn template(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ClientConfig, BuildError> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(BuildError::library)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(NoCertificate));
    config.resumption = Resumption::disabled();
    Ok(config)
}

thread_local! {
    /// Whether a server has asked for a certificate of ours in the current poll of a handshake. The library asks the same
    /// resolver for all connections, or would resume none, and does not tell it which one it is about.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Has no certificate, and notes that it was asked for one (RFC 8446 §4.3.2, RFC 5246 §7.4.4).
#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        ASKED.set(true);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Takes whoever a trust anchor vouches for.
#[derive(Debug)]
struct Anybody {
    trust: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.trust, chain, now, self.algorithms.all)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, leaf, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What is remembered of servers.
#[derive(Debug)]
struct Sessions {
    limits: SessionLimits,
    /// The group that a server has chosen, to offer a key for next time.
    groups: Mutex<Sites<NamedGroup>>,
    tls12: Mutex<Sites<Tls12ClientSessionValue>>,
    tls13: Mutex<Sites<Tls13ClientSessionValue>>,
}

impl Sessions {
    fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            groups: Mutex::default(),
            tls12: Mutex::default(),
            tls13: Mutex::default(),
        }
    }
}

/// The part of [`Sessions`] that one connection sees: the library would take sites apart by their names alone.
#[derive(Debug)]
struct OfSite {
    site: Site,
    sessions: Arc<Sessions>,
    has_asked: Arc<AtomicBool>,
}

impl OfSite {
    fn with<S, T>(&self, sites: &Mutex<Sites<S>>, use_it: impl FnOnce(&mut Sites<S>) -> T) -> T {
        use_it(&mut sites.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put<S>(&self, sites: &Mutex<Sites<S>>, session: S, max_each: usize) {
        let max_sites = self.sessions.limits.max_sites;
        self.with(sites, |sites| sites.put(&self.site, session, max_sites, max_each));
    }

    /// One that is resumed is not asked again: it would not show that the server knows nothing of its client.
    fn was_asked(&self) -> bool {
        ASKED.get() || self.has_asked.load(Ordering::Relaxed)
    }
}

impl ClientSessionStore for OfSite {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.put(&self.sessions.groups, group, 1);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.with(&self.sessions.groups, |sites| sites.touch(&self.site).copied())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        if !self.was_asked() {
            self.put(&self.sessions.tls12, session, 1);
        }
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.with(&self.sessions.tls12, |sites| sites.touch(&self.site).cloned())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.with(&self.sessions.tls12, |sites| sites.take(&self.site));
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        if !self.was_asked() {
            self.put(&self.sessions.tls13, ticket, self.sessions.limits.max_each);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.with(&self.sessions.tls13, |sites| sites.take(&self.site))
    }
}
