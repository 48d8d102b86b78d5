//! The OpenSSL client: one context, built once, from which each connection is made.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
#[cfg(not(boring))]
use openssl::ssl::{ExtensionContext, StatusType};
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslRef, SslSessionCacheMode, SslVerifyMode,
    SslVersion,
};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509CheckFlags;
use sluice_addr::Host;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::asked::{self, has_asked};
use crate::config::{CertPairConfig, OpensslClientConfig, OpensslProtocol, TlsVersion};
use crate::error::{BuildError, HandshakeError};
use crate::openssl_stream::{OpensslStream, Side};
use crate::pem::{Identity, load_certificates};
use crate::sessions::Sessions;
pub use crate::sessions::Site;
use crate::stream::TlsStream;
use crate::tlcp;

/// Shorter handshake timeouts are raised to this.
pub(crate) const MIN_HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(100);

const DEFAULT_MAX_SITES: usize = 128;
const DEFAULT_MAX_EACH: usize = 16;

/// Of how many servers sessions are kept, and how many of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionLimits {
    pub(crate) max_sites: usize,
    pub(crate) max_each: usize,
}

impl SessionLimits {
    pub(crate) fn many_sites(config: &OpensslClientConfig) -> Self {
        let or_default = |value: usize, default: usize| if value == 0 { default } else { value };
        Self {
            max_sites: or_default(config.session_cache_lru_max_sites, DEFAULT_MAX_SITES),
            max_each: or_default(config.session_cache_each_capacity, DEFAULT_MAX_EACH),
        }
    }
}

/// How many sites a connector's session cache is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionCache {
    /// Any number: `session_cache_lru_max_sites` of them are kept.
    ManySites,
    /// One, whatever its addresses are: sessions are kept by name and port, for few of them.
    OneSite,
}

/// Makes TLS connections over OpenSSL. Cloning it is cheap, and the clones share the session cache.
#[derive(Clone)]
pub struct Connector(Arc<Inner>);

struct Inner {
    context: SslContext,
    sessions: Option<Arc<Sessions>>,
    handshake_timeout: Duration,
    sni: bool,
    ocsp: bool,
}

impl Connector {
    /// Builds a connector; files with relative paths are looked for in `base`.
    ///
    /// # Errors
    /// [`BuildError`] names the key, and the file where one is at fault.
    pub fn build(config: &OpensslClientConfig, base: &Path, cache: SessionCache) -> Result<Self, BuildError> {
        let mut context = new_context(config)?;
        set_common(&mut context);
        set_versions(&mut context, config)?;
        set_identity(&mut context, config, base)?;
        set_anchors(&mut context, config, base)?;
        set_extensions(&mut context, config)?;
        context.set_verify(if config.insecure {
            SslVerifyMode::NONE
        } else {
            SslVerifyMode::PEER
        });
        let sessions = set_sessions(&mut context, config, cache)?;
        Ok(Self(Arc::new(Inner {
            context: context.build(),
            sessions,
            handshake_timeout: config.handshake_timeout.0.max(MIN_HANDSHAKE_TIMEOUT),
            sni: !config.disable_sni,
            ocsp: config.use_ocsp_stapling,
        })))
    }

    /// Shakes hands over `io` with the server that is to prove that it is `name`.
    ///
    /// `port` tells sites apart in the session cache; `alpn` is offered in order, or not at all if empty. With
    /// `insecure` the caller logs [`TlsStream::verify_error`].
    ///
    /// The last flight of TLS 1.3 leaves together with the first bytes that are written, or before the first are awaited.
    ///
    /// # Errors
    /// [`HandshakeError`], [`Timeout`](HandshakeError::Timeout) among them. `io` is dropped with it.
    pub async fn connect<IO>(
        &self,
        io: IO,
        name: &Host,
        port: u16,
        alpn: &[&[u8]],
    ) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let site = Site {
            name: name.clone(),
            port,
            named: true,
        };
        self.connect_to(io, &site, alpn).await
    }

    /// As [`Self::connect`], to a server that may be unnamed.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_to<IO>(&self, io: IO, site: &Site, alpn: &[&[u8]]) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let site = site.clone();
        let ssl = self
            .ssl(site, alpn)
            .map_err(|error| HandshakeError::Library(Box::new(error)))?;
        let timeout = self.0.handshake_timeout;
        match tokio::time::timeout(timeout, OpensslStream::handshake(ssl, io, Vec::new(), Side::Client)).await {
            Ok(result) => {
                let stream = result?;
                self.keep_renewed(stream.ssl());
                Ok(TlsStream::openssl(stream))
            }
            Err(_) => Err(HandshakeError::Timeout(timeout)),
        }
    }

    /// Keeps the session of a resumed handshake up to TLS 1.2: with a new ticket it is another one, of which OpenSSL
    /// does not tell the callback, and the old one is out of use.
    fn keep_renewed(&self, ssl: &SslRef) {
        let Some(sessions) = &self.0.sessions else { return };
        if ssl.session_reused()
            && ssl.version2() != Some(SslVersion::TLS1_3)
            && let Ok(index) = site_index()
            && let (Some(site), Some(session)) = (ssl.ex_data(index), ssl.session())
            && !has_asked(ssl)
        {
            sessions.put(site, session.to_owned());
        }
    }

    fn ssl(&self, site: Site, alpn: &[&[u8]]) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.0.context)?;
        if site.named {
            self.demand(&mut ssl, &site.name)?;
        }
        if !alpn.is_empty() {
            ssl.set_alpn_protos(&alpn_list(alpn))?;
        }
        #[cfg(not(boring))]
        if self.0.ocsp {
            ssl.set_status_type(StatusType::OCSP)?;
        }
        #[cfg(boring)]
        if self.0.ocsp {
            ssl.enable_ocsp_stapling();
        }
        if let Some(sessions) = &self.0.sessions {
            if let Some(session) = sessions.take(&site) {
                resume(&mut ssl, &session)?;
            }
            ssl.set_ex_data(site_index()?, site);
        }
        Ok(ssl)
    }

    /// The server is to prove that it is `name`, and is told so if it may have several.
    fn demand(&self, ssl: &mut Ssl, name: &Host) -> Result<(), ErrorStack> {
        let param = ssl.param_mut();
        param.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
        match name {
            Host::Ip(ip) => param.set_ip(*ip),
            Host::Domain(domain) => {
                // A root's dot is no part of a certificate's name, nor of SNI (RFC 6066 §3).
                let domain = domain.strip_suffix('.').unwrap_or(domain);
                param.set_host(domain)?;
                if self.0.sni {
                    ssl.set_hostname(domain)?;
                }
                Ok(())
            }
        }
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("sni", &self.0.sni)
            .finish_non_exhaustive()
    }
}

/// Protocols in the extension's form (RFC 7301 §3.1). What does not fit its length byte is left out.
pub(crate) fn alpn_list(protocols: &[&[u8]]) -> Vec<u8> {
    let mut list = Vec::with_capacity(protocols.iter().map(|name| name.len() + 1).sum());
    for name in protocols {
        if let Ok(length @ 1..) = u8::try_from(name.len()) {
            list.push(length);
            list.extend_from_slice(name);
        }
    }
    list
}

#[expect(unsafe_code, reason = "the binding leaves one condition to its caller")]
fn resume(ssl: &mut Ssl, session: &openssl::ssl::SslSessionRef) -> Result<(), ErrorStack> {
    // SAFETY: a session must come from the context it is used with. A connector has one context, and its `Sessions`
    // holds only what that context's callback has put there.
    unsafe { ssl.set_session(session) }
}

fn site_index() -> Result<Index<Ssl, Site>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, Site>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    let index = Ssl::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}

/// What every context of ours has, whichever side it is for.
pub(crate) fn set_common(context: &mut SslContextBuilder) {
    let mut options = SslOptions::NO_COMPRESSION | SslOptions::NO_RENEGOTIATION;
    #[cfg(not(boring))]
    {
        // Of the bug workarounds, `ALL` has the one without which Tongsuo's TLCP fails at the first byte.
        options |= SslOptions::ALL | SslOptions::SINGLE_DH_USE | SslOptions::SINGLE_ECDH_USE;
    }
    options |= SslOptions::NO_SSLV2 | SslOptions::NO_SSLV3;
    context.set_options(options);
    context.set_mode(
        SslMode::AUTO_RETRY
            | SslMode::ACCEPT_MOVING_WRITE_BUFFER
            | SslMode::ENABLE_PARTIAL_WRITE
            | SslMode::RELEASE_BUFFERS,
    );
    // One read of the connection may take several records in.
    context.set_read_ahead(true);
}

/// Of TLS 1.3, best first: 128 bits are enough for anybody, and SHA-384, which has no instructions of its own, takes
/// longer for a handshake's keys than all its messages.
#[cfg(not(boring))]
const CIPHER_SUITES: &str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

fn new_context(config: &OpensslClientConfig) -> Result<SslContextBuilder, BuildError> {
    let is_tlcp = config.protocol == Some(OpensslProtocol::Tlcp);
    if is_tlcp {
        tlcp::check_built("protocol")?;
    }
    if config.tlcp_cert_pair.is_some() {
        tlcp::check_built("tlcp_cert_pair")?;
        if !is_tlcp {
            return Err(BuildError::Needs {
                key: "tlcp_cert_pair".into(),
                other: "protocol: tlcp".into(),
            });
        }
    }
    #[cfg(feature = "tongsuo")]
    if is_tlcp {
        let mut context = SslContextBuilder::new(tlcp::client_method())?;
        tlcp::enable(&mut context);
        return Ok(context);
    }
    let mut context = SslContextBuilder::new(SslMethod::tls_client())?;
    #[cfg(not(boring))]
    context.set_ciphersuites(CIPHER_SUITES)?;
    Ok(context)
}

fn set_versions(context: &mut SslContextBuilder, config: &OpensslClientConfig) -> Result<(), BuildError> {
    let Some(protocol) = config.protocol else {
        if config.ciphers.is_some() {
            return Err(BuildError::Needs {
                key: "ciphers".into(),
                other: "protocol".into(),
            });
        }
        if let (Some(min), Some(max)) = (config.min_tls_version, config.max_tls_version)
            && min > max
        {
            return Err(BuildError::refused("min_tls_version", VersionOrder));
        }
        if let Some(min) = config.min_tls_version {
            context
                .set_min_proto_version(Some(version(min)))
                .map_err(|e| BuildError::refused("min_tls_version", e))?;
            allow_old(context, min);
        }
        if let Some(max) = config.max_tls_version {
            context
                .set_max_proto_version(Some(version(max)))
                .map_err(|e| BuildError::refused("max_tls_version", e))?;
            if config.min_tls_version.is_none() && max < TlsVersion::Tls1_2 {
                // The library's own lower bound may be above it.
                context.set_min_proto_version(Some(version(TlsVersion::Tls1_0)))?;
                allow_old(context, max);
            }
        }
        return Ok(());
    };
    let pinned = match protocol {
        OpensslProtocol::Tls(pinned) => pinned,
        OpensslProtocol::Ssl3 => {
            return Err(not_in_build(
                "protocol",
                "SSL 3.0",
                "a TLS library that still has it; none is offered",
            ));
        }
        OpensslProtocol::Tlcp => return set_tlcp_ciphers(context, config),
    };
    let refused = |e| BuildError::refused("protocol", e);
    context.set_min_proto_version(Some(version(pinned))).map_err(refused)?;
    context.set_max_proto_version(Some(version(pinned))).map_err(refused)?;
    allow_old(context, pinned);
    let Some(ciphers) = &config.ciphers else { return Ok(()) };
    let refused = |e| BuildError::refused("ciphers", e);
    if pinned == TlsVersion::Tls1_3 {
        #[cfg(boring)]
        return Err(not_in_build(
            "ciphers",
            "a choice of TLS 1.3 suites",
            "OpenSSL or Tongsuo",
        ));
        #[cfg(not(boring))]
        context.set_ciphersuites(&ciphers.0).map_err(refused)
    } else {
        context.set_cipher_list(&ciphers.0).map_err(refused)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("is above `max_tls_version`")]
struct VersionOrder;

pub(crate) fn not_in_build(key: &str, wanted: &str, feature: &'static str) -> BuildError {
    BuildError::NotInBuild {
        key: key.to_owned(),
        wanted: wanted.to_owned(),
        feature,
    }
}

fn version(version: TlsVersion) -> SslVersion {
    match version {
        TlsVersion::Tls1_0 => SslVersion::TLS1,
        TlsVersion::Tls1_1 => SslVersion::TLS1_1,
        TlsVersion::Tls1_2 => SslVersion::TLS1_2,
        TlsVersion::Tls1_3 => SslVersion::TLS1_3,
    }
}

/// The versions before 1.2 sign with SHA-1, which OpenSSL 3 allows at level 0 only. Who asks for them by name gets them.
fn allow_old(context: &mut SslContextBuilder, oldest: TlsVersion) {
    #[cfg(not(boring))]
    if oldest < TlsVersion::Tls1_2 {
        context.set_security_level(0);
    }
    #[cfg(boring)]
    let _ = (context, oldest);
}

/// The version was settled with the context.
#[cfg(feature = "tongsuo")]
fn set_tlcp_ciphers(context: &mut SslContextBuilder, config: &OpensslClientConfig) -> Result<(), BuildError> {
    let ciphers = match &config.ciphers {
        Some(ciphers) => ciphers.0.clone(),
        None => tlcp::default_ciphers(config.tlcp_cert_pair.is_some()),
    };
    context
        .set_cipher_list(&ciphers)
        .map_err(|e| BuildError::refused("ciphers", e))
}

#[cfg(not(feature = "tongsuo"))]
fn set_tlcp_ciphers(_: &mut SslContextBuilder, _: &OpensslClientConfig) -> Result<(), BuildError> {
    tlcp::check_built("protocol")
}

fn set_identity(context: &mut SslContextBuilder, config: &OpensslClientConfig, base: &Path) -> Result<(), BuildError> {
    let pair = client_pair(&config.cert_pair, &config.certificate, &config.private_key)?;
    match pair {
        Some((_, prefix)) if config.protocol == Some(OpensslProtocol::Tlcp) => Err(BuildError::Excludes {
            key: if prefix.is_empty() { "certificate" } else { "cert_pair" }.into(),
            other: "protocol: tlcp".into(),
        }),
        Some((pair, prefix)) => use_identity(
            context,
            &Identity::load(&pair, base, prefix)?,
            &format!("{prefix}private_key"),
        ),
        None if config.protocol == Some(OpensslProtocol::Tlcp) => set_tlcp_identity(context, config, base),
        None => Ok(asked::watch(context)?),
    }
}

#[cfg(feature = "tongsuo")]
fn set_tlcp_identity(
    context: &mut SslContextBuilder,
    config: &OpensslClientConfig,
    base: &Path,
) -> Result<(), BuildError> {
    let Some(pair) = &config.tlcp_cert_pair else {
        return Ok(());
    };
    let own = tlcp::TlcpIdentity::load(pair, base, "tlcp_cert_pair.")?;
    tlcp::use_with_context(context, &own).map_err(|e| BuildError::refused("tlcp_cert_pair", e))
}

/// A pair was refused with the context.
#[cfg(not(feature = "tongsuo"))]
fn set_tlcp_identity(_: &mut SslContextBuilder, _: &OpensslClientConfig, _: &Path) -> Result<(), BuildError> {
    Ok(())
}

/// The pair of either form, and the path that its keys start with.
pub(crate) fn client_pair(
    pair: &Option<CertPairConfig>,
    certificate: &Option<crate::config::Certificates>,
    private_key: &Option<crate::config::PemSource>,
) -> Result<Option<(CertPairConfig, &'static str)>, BuildError> {
    let needs = |key: &str, other: &str| {
        Err(BuildError::Needs {
            key: key.into(),
            other: other.into(),
        })
    };
    match (pair, certificate, private_key) {
        (None, None, None) => Ok(None),
        (Some(pair), None, None) => Ok(Some((pair.clone(), "cert_pair."))),
        (None, Some(certificate), Some(private_key)) => Ok(Some((
            CertPairConfig {
                certificate: certificate.clone(),
                private_key: private_key.clone(),
            },
            "",
        ))),
        (None, Some(_), None) => needs("certificate", "private_key"),
        (None, None, Some(_)) => needs("private_key", "certificate"),
        (Some(_), certificate, _) => Err(BuildError::Excludes {
            key: "cert_pair".into(),
            other: if certificate.is_some() {
                "certificate"
            } else {
                "private_key"
            }
            .into(),
        }),
    }
}

pub(crate) fn use_identity(context: &mut SslContextBuilder, identity: &Identity, key: &str) -> Result<(), BuildError> {
    let mut chain = identity.chain.iter();
    if let Some(leaf) = chain.next() {
        context.set_certificate(leaf).map_err(|e| BuildError::refused(key, e))?;
    }
    context
        .set_private_key(&identity.key)
        .map_err(|e| BuildError::refused(key, e))?;
    for certificate in chain {
        context
            .add_extra_chain_cert(certificate.clone())
            .map_err(|e| BuildError::refused(key, e))?;
    }
    Ok(())
}

fn set_anchors(context: &mut SslContextBuilder, config: &OpensslClientConfig, base: &Path) -> Result<(), BuildError> {
    let mut store = X509StoreBuilder::new()?;
    if !config.no_default_ca_certificate {
        add_system_anchors(&mut store)?;
    }
    if let Some(sources) = &config.ca_certificate {
        for certificate in load_certificates(sources, base, "ca_certificate")? {
            store
                .add_cert(certificate)
                .map_err(|e| BuildError::refused("ca_certificate", e))?;
        }
    }
    context.set_cert_store(store.build());
    Ok(())
}

/// Adds the anchors that the system keeps where its own OpenSSL, or the environment, says.
pub(crate) fn add_system_anchors(store: &mut X509StoreBuilder) -> Result<(), BuildError> {
    // A library that is not the system's looks in a folder of its own, which nobody fills.
    if cfg!(any(feature = "vendored-openssl", feature = "tongsuo", boring)) {
        for certificate in rustls_native_certs::load_native_certs().certs {
            if let Ok(certificate) = openssl::x509::X509::from_der(&certificate) {
                store.add_cert(certificate)?;
            }
        }
        return Ok(());
    }
    Ok(store.set_default_paths()?)
}

fn set_extensions(context: &mut SslContextBuilder, config: &OpensslClientConfig) -> Result<(), BuildError> {
    if let Some(groups) = &config.supported_groups {
        context
            .set_groups_list(groups)
            .map_err(|e| BuildError::refused("supported_groups", e))?;
    }
    if config.enable_sct {
        #[cfg(boring)]
        context.enable_signed_cert_timestamps();
        #[cfg(not(boring))]
        ask_for_timestamps(context)?;
    }
    #[cfg(boring)]
    {
        context.set_grease_enabled(config.enable_grease);
        context.set_permute_extensions(config.permute_extensions);
    }
    Ok(())
}

impl OpensslClientConfig {
    /// Keys that are set but have no effect with this build's TLS library; the load warns of each.
    #[must_use]
    pub fn without_effect(&self) -> Vec<&'static str> {
        if cfg!(boring) {
            return Vec::new();
        }
        [
            (self.enable_grease, "enable_grease"),
            (self.permute_extensions, "permute_extensions"),
        ]
        .into_iter()
        .filter_map(|(set, key)| set.then_some(key))
        .collect()
    }
}

/// Sends an empty `signed_certificate_timestamp` (RFC 6962 §3.3.1) and takes any answer.
#[cfg(not(boring))]
fn ask_for_timestamps(context: &mut SslContextBuilder) -> Result<(), BuildError> {
    const SIGNED_CERTIFICATE_TIMESTAMP: u16 = 18;
    context
        .add_custom_ext(
            SIGNED_CERTIFICATE_TIMESTAMP,
            ExtensionContext::CLIENT_HELLO
                | ExtensionContext::TLS1_2_SERVER_HELLO
                | ExtensionContext::TLS1_3_CERTIFICATE,
            |_, context, _| Ok((context == ExtensionContext::CLIENT_HELLO).then_some([])),
            |_, _, _, _| Ok(()),
        )
        .map_err(|e| BuildError::refused("enable_sct", e))
}

fn set_sessions(
    context: &mut SslContextBuilder,
    config: &OpensslClientConfig,
    cache: SessionCache,
) -> Result<Option<Arc<Sessions>>, BuildError> {
    if config.no_session_cache {
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        return Ok(None);
    }
    if config.use_builtin_session_cache {
        context.set_session_cache_mode(SslSessionCacheMode::CLIENT);
        return Ok(None);
    }
    let mut limits = SessionLimits::many_sites(config);
    if cache == SessionCache::OneSite {
        limits.max_sites = 8;
    }
    let sessions = Arc::new(Sessions::new(limits));
    let index = site_index()?;
    context.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
    let store = Arc::clone(&sessions);
    context.set_new_session_callback(move |ssl, session| {
        // One that is resumed is not asked again: it would not show that the server knows nothing of its client.
        if let Some(site) = ssl.ex_data(index)
            && !has_asked(ssl)
        {
            store.put(site, session);
        }
    });
    Ok(Some(sessions))
}
