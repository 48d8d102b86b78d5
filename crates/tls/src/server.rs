//! TLS servers: one set of parameters, an acceptor of either library made from it.

mod names;
mod openssl;
mod rustls;
mod tickets;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::openssl::x509::X509;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::openssl::OpensslAcceptor;
pub use self::rustls::RustlsAcceptor;
pub(crate) use self::rustls::handshake_error as rustls_handshake_error;
pub(crate) use self::tickets::RustlsTickets;
pub use self::tickets::Ticketer;

use crate::client::{client_pair, not_in_build};
use crate::config::{CertPairConfig, OpensslServerConfig, RustlsServerConfig, TlcpCertPairConfig};
use crate::error::{BuildError, HandshakeError};
use crate::pem::{Identity, load_certificates};
use crate::stream::TlsStream;
use crate::tlcp::{self, TlcpIdentity};
use names::Names;

/// What a server does, in no library's terms; its files are read and its keys belong to its certificates.
#[derive(Clone)]
pub struct TlsServerParams {
    alpn: Vec<Vec<u8>>,
    client_auth: ClientAuth,
    handshake_timeout: Duration,
    pairs: Arc<[Pair]>,
    session_cache: bool,
    session_id_context: String,
    ticketer: Option<Arc<Ticketer>>,
    tlcp_pairs: Arc<[Pair<TlcpIdentity>]>,
}

#[derive(Clone)]
enum ClientAuth {
    None,
    /// Anchored in these.
    Private(Arc<[X509]>),
    /// Anchored in what the system trusts.
    System,
}

struct Pair<I = Identity> {
    identity: I,
    names: Names,
}

impl TlsServerParams {
    /// Reads the OpenSSL form; files with relative paths are looked for in `base`.
    ///
    /// # Errors
    /// [`BuildError`] names the key, and the file where one is at fault.
    pub fn from_openssl(config: &OpensslServerConfig, base: &Path) -> Result<Self, BuildError> {
        let tlcp_pairs = load_tlcp_pairs(&config.tlcp_cert_pairs.0, base)?;
        let pairs = load_pairs(&config.cert_pairs.0, None, base)?;
        if tlcp_pairs.is_empty() {
            check_not_empty(&pairs)?;
        }
        Ok(Self {
            alpn: Vec::new(),
            client_auth: client_auth(config.enable_client_auth, config.ca_certificate.as_ref(), base)?,
            handshake_timeout: config.handshake_timeout.0,
            pairs,
            session_cache: !config.no_session_cache,
            session_id_context: config.session_id_context.clone().unwrap_or_default(),
            tlcp_pairs,
            ticketer: (!config.no_session_ticket).then(Ticketer::of_defaults).transpose()?,
        })
    }

    /// Reads the rustls form; files with relative paths are looked for in `base`.
    ///
    /// # Errors
    /// [`BuildError`] names the key, and the file where one is at fault.
    pub fn from_rustls(config: &RustlsServerConfig, base: &Path) -> Result<Self, BuildError> {
        if config.no_session_ticket && config.use_session_ticket == Some(true) {
            return Err(BuildError::Excludes {
                key: "no_session_ticket".into(),
                other: "use_session_ticket".into(),
            });
        }
        let tickets = config.use_session_ticket.unwrap_or(!config.no_session_ticket);
        let flat = client_pair(&None, &config.certificate, &config.private_key)?.map(|(pair, _)| pair);
        let pairs = load_pairs(&config.cert_pairs.0, flat.as_ref(), base)?;
        check_not_empty(&pairs)?;
        Ok(Self {
            alpn: Vec::new(),
            client_auth: client_auth(config.enable_client_auth, config.ca_certificate.as_ref(), base)?,
            handshake_timeout: config.handshake_timeout.0,
            pairs,
            session_cache: !config.no_session_cache,
            session_id_context: String::new(),
            tlcp_pairs: Arc::default(),
            ticketer: tickets.then(Ticketer::of_defaults).transpose()?,
        })
    }

    /// Offers application protocols, best first. A client that offers others only is refused (RFC 7301 §3.2).
    #[must_use]
    pub fn with_alpn(mut self, protocols: &[&[u8]]) -> Self {
        self.alpn = protocols.iter().map(|name| name.to_vec()).collect();
        self
    }

    /// Takes ticket keys from `ticketer`, which may outlive this server, unless tickets are off.
    #[must_use]
    pub fn with_ticketer(mut self, ticketer: Arc<Ticketer>) -> Self {
        if self.ticketer.is_some() {
            self.ticketer = Some(ticketer);
        }
        self
    }

    /// The acceptor over OpenSSL.
    ///
    /// # Errors
    /// [`BuildError`] if the library refuses a parameter.
    pub fn openssl(&self) -> Result<TlsAcceptor, BuildError> {
        OpensslAcceptor::new(self).map(TlsAcceptor::Openssl)
    }

    /// The acceptor over rustls.
    ///
    /// # Errors
    /// [`BuildError`] if the library refuses a parameter.
    pub fn rustls(&self) -> Result<TlsAcceptor, BuildError> {
        if !self.tlcp_pairs.is_empty() {
            return Err(not_in_build(
                "tlcp_cert_pairs",
                "TLCP over rustls",
                "a library that has it; none has",
            ));
        }
        RustlsAcceptor::new(self).map(TlsAcceptor::Rustls)
    }
}

impl std::fmt::Debug for TlsServerParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsServerParams")
            .field("pairs", &self.pairs.len())
            .finish_non_exhaustive()
    }
}

/// Accepts TLS connections; cloning it is cheap.
#[derive(Clone, Debug)]
pub enum TlsAcceptor {
    /// Over OpenSSL.
    Openssl(OpensslAcceptor),
    /// Over rustls.
    Rustls(RustlsAcceptor),
}

impl TlsAcceptor {
    /// How long a handshake may take.
    #[must_use]
    pub fn handshake_timeout(&self) -> Duration {
        match self {
            Self::Openssl(acceptor) => acceptor.handshake_timeout(),
            Self::Rustls(acceptor) => acceptor.handshake_timeout(),
        }
    }

    /// Shakes hands over `io` with a client.
    ///
    /// # Errors
    /// [`HandshakeError`], [`Timeout`](HandshakeError::Timeout) among them. `io` is dropped with it.
    pub async fn accept<IO>(&self, io: IO) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let timeout = self.handshake_timeout();
        let handshake = async {
            match self {
                Self::Openssl(acceptor) => acceptor.accept(io).await,
                Self::Rustls(acceptor) => acceptor.accept(io).await,
            }
        };
        tokio::time::timeout(timeout, handshake)
            .await
            .unwrap_or(Err(HandshakeError::Timeout(timeout)))
    }
}

fn client_auth(
    demanded: bool,
    anchors: Option<&crate::config::Certificates>,
    base: &Path,
) -> Result<ClientAuth, BuildError> {
    // Anchors that nothing would be checked against are loaded all the same: they may be wrong.
    let anchors = anchors
        .map(|sources| load_certificates(sources, base, "ca_certificate"))
        .transpose()?;
    Ok(match anchors {
        _ if !demanded => ClientAuth::None,
        Some(anchors) => ClientAuth::Private(anchors.into()),
        None => ClientAuth::System,
    })
}

fn load_pairs(pairs: &[CertPairConfig], flat: Option<&CertPairConfig>, base: &Path) -> Result<Arc<[Pair]>, BuildError> {
    let listed = pairs
        .iter()
        .enumerate()
        .map(|(i, pair)| Identity::load(pair, base, &format!("cert_pairs[{i}].")));
    let flat = flat.into_iter().map(|pair| Identity::load(pair, base, ""));
    listed
        .chain(flat)
        .map(|identity| {
            identity.map(|identity| Pair {
                names: Names::of(&identity),
                identity,
            })
        })
        .collect()
}

fn check_not_empty(pairs: &[Pair]) -> Result<(), BuildError> {
    if pairs.is_empty() {
        return Err(BuildError::Needs {
            key: "a TLS server".into(),
            other: "cert_pairs".into(),
        });
    }
    Ok(())
}

fn load_tlcp_pairs(pairs: &[TlcpCertPairConfig], base: &Path) -> Result<Arc<[Pair<TlcpIdentity>]>, BuildError> {
    if !pairs.is_empty() {
        tlcp::check_built("tlcp_cert_pairs")?;
    }
    let load = |(i, pair)| TlcpIdentity::load(pair, base, &format!("tlcp_cert_pairs[{i}]."));
    pairs
        .iter()
        .enumerate()
        .map(load)
        .map(|identity| {
            identity.map(|identity| Pair {
                names: Names::of(&identity.sign),
                identity,
            })
        })
        .collect()
}

/// The pairs for the name that a client asks for, in the order of the configuration: those with that name, else those
/// that share a name with the first pair.
fn pairs_for<'a, I>(pairs: &'a [Pair<I>], name: Option<&str>) -> Vec<&'a Pair<I>> {
    let named = |name: &str| -> Vec<&'a Pair<I>> { pairs.iter().filter(|pair| pair.names.cover(name)).collect() };
    if let Some(found) = name.map(named).filter(|found| !found.is_empty()) {
        return found;
    }
    let Some(first) = pairs.first() else { return Vec::new() };
    let found = first.names.first().map(named).unwrap_or_default();
    if found.is_empty() { vec![first] } else { found }
}
