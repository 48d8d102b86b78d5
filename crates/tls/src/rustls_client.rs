//! The rustls client, for the libraries that take its configuration.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::{CipherSuite, ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use sluice_addr::Host;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::client::{MIN_HANDSHAKE_TIMEOUT, client_pair};
use crate::config::RustlsClientConfig;
use crate::error::{BuildError, HandshakeError};
use crate::pem::{Identity, load_certificates};
use crate::server::rustls_handshake_error;
use crate::stream::TlsStream;

/// A rustls client that is ready to use.
#[derive(Clone, Debug)]
pub struct RustlsClient {
    /// What the library takes; ALPN is for its user to set.
    pub config: Arc<ClientConfig>,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
}

impl RustlsClient {
    /// Shakes hands over `io` with the server that is to prove that it is `name`.
    ///
    /// # Errors
    /// [`HandshakeError`], [`Timeout`](HandshakeError::Timeout) among them. `io` is dropped with it.
    pub async fn connect<IO>(&self, io: IO, name: &Host) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = server_name(name)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.config));
        match tokio::time::timeout(self.handshake_timeout, connector.connect(name, io)).await {
            Ok(Ok(stream)) => Ok(TlsStream::rustls(stream.into())),
            Ok(Err(error)) => Err(rustls_handshake_error(error)),
            Err(_) => Err(HandshakeError::Timeout(self.handshake_timeout)),
        }
    }
}

/// Makes ring the provider of every `rustls` in the process that does not choose its own. A `main` calls it first.
pub fn install_provider() {
    // An error says that one is installed already, which is as good.
    let _ = ring::default_provider().install_default();
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(ring::default_provider()))
}

/// What the library calls `host`.
pub(crate) fn server_name(host: &Host) -> Result<ServerName<'static>, HandshakeError> {
    Ok(match host {
        Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
        // A root's dot is no part of a certificate's name, nor of SNI (RFC 6066 §3).
        Host::Domain(domain) => ServerName::try_from(domain.strip_suffix('.').unwrap_or(domain).to_owned())
            .map_err(|error| HandshakeError::Library(Box::new(error)))?,
    })
}

const AES_128: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// The provider with another order of suites: of AES, 128 bits come first. They are enough for anybody, and SHA-384,
/// which has no instructions of its own, takes longer for a handshake's keys than all its messages.
pub(crate) fn aes_128_first() -> Arc<CryptoProvider> {
    let mut provider = CryptoProvider::clone(&provider());
    provider
        .cipher_suites
        .sort_by_key(|suite| !AES_128.contains(&suite.suite()));
    Arc::new(provider)
}

/// Builds a client; files with relative paths are looked for in `base`.
///
/// # Errors
/// [`BuildError`] names the key, and the file where one is at fault.
pub fn rustls_client(config: &RustlsClientConfig, base: &Path) -> Result<RustlsClient, BuildError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(BuildError::library)?
        .with_root_certificates(anchors(config, base)?);
    let mut client = match client_pair(&config.cert_pair, &config.certificate, &config.private_key)? {
        None => builder.with_no_client_auth(),
        Some((pair, prefix)) => {
            let key = format!("{prefix}private_key");
            let (chain, private_key) = Identity::load(&pair, base, prefix)?.to_rustls(&key)?;
            builder
                .with_client_auth_cert(chain, private_key)
                .map_err(|e| BuildError::refused(&key, e))?
        }
    };
    if config.no_session_cache {
        client.resumption = Resumption::disabled();
    }
    client.enable_sni = !config.disable_sni;
    if let Some(size) = config.max_fragment_size {
        check_fragment_size(size)?;
        client.max_fragment_size = Some(size);
    }
    Ok(RustlsClient {
        config: Arc::new(client),
        handshake_timeout: config.handshake_timeout.0.max(MIN_HANDSHAKE_TIMEOUT),
    })
}

#[derive(Debug, thiserror::Error)]
#[error("{0} is not between 32 and 16389 bytes")]
struct FragmentSize(usize);

/// What rustls takes: a record's header and at least 27 bytes, at most a full record.
fn check_fragment_size(size: usize) -> Result<(), BuildError> {
    if (32..=16389).contains(&size) {
        Ok(())
    } else {
        Err(BuildError::refused("max_fragment_size", FragmentSize(size)))
    }
}

pub(crate) fn anchors(config: &RustlsClientConfig, base: &Path) -> Result<RootCertStore, BuildError> {
    let mut anchors = RootCertStore::empty();
    if !config.no_default_ca_certificate {
        if config.use_builtin_ca_certificate {
            anchors.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        } else {
            anchors.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if let Some(sources) = &config.ca_certificate {
        for certificate in load_certificates(sources, base, "ca_certificate")? {
            anchors
                .add(CertificateDer::from(certificate.to_der()?))
                .map_err(|e| BuildError::refused("ca_certificate", e))?;
        }
    }
    Ok(anchors)
}
