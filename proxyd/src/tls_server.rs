//! TLS on the side of clients: the one place where it is configured and accepted, for either library.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sluice_config::{Entry, Load};
use sluice_io::Stream;
use sluice_telemetry::debug;
use sluice_tls::config::TicketerConfig;
use sluice_tls::server::{Ticketer, TlsAcceptor, TlsServerParams};
use sluice_tls::{BuildError, HandshakeError, OpensslServerConfig, RustlsServerConfig};
use tokio::time::timeout;

use crate::config::ServerConfig;
use crate::server::ServerCommon;
use crate::task::Peers;

/// A form of configuration that a TLS server can be made of.
pub(crate) trait ServerTls {
    /// Reads its files; relative names are looked for in `base`.
    fn params(&self, base: &Path) -> Result<TlsServerParams, BuildError>;
    /// The acceptor over the library that the form belongs to.
    fn acceptor(params: &TlsServerParams) -> Result<TlsAcceptor, BuildError>;
}

impl ServerTls for RustlsServerConfig {
    fn params(&self, base: &Path) -> Result<TlsServerParams, BuildError> {
        TlsServerParams::from_rustls(self, base)
    }

    fn acceptor(params: &TlsServerParams) -> Result<TlsAcceptor, BuildError> {
        params.rustls()
    }
}

impl ServerTls for OpensslServerConfig {
    fn params(&self, base: &Path) -> Result<TlsServerParams, BuildError> {
        TlsServerParams::from_openssl(self, base)
    }

    fn acceptor(params: &TlsServerParams) -> Result<TlsAcceptor, BuildError> {
        params.openssl()
    }
}

/// Records what is wrong with a `tls_server` and its files.
pub(crate) fn check<T: ServerTls>(
    load: &mut Load,
    entry: &Entry<ServerConfig>,
    tls: &T,
    ticketer: Option<&TicketerConfig>,
) {
    if let Err(error) = tls
        .params(entry.place.base_dir())
        .and_then(|params| T::acceptor(&params))
    {
        load.error(&entry.place, "tls_server", error.to_string());
    }
    if let Some(Err(error)) = ticketer.map(Ticketer::new) {
        load.error(&entry.place, "tls_ticketer", error.to_string());
    }
}

/// The session ticket keys of servers by name. They outlive a reload that leaves their configuration as it was, so that
/// clients can go on with their tickets.
#[derive(Default)]
pub(crate) struct Ticketers(BTreeMap<String, (Option<TicketerConfig>, Arc<Ticketer>)>);

impl Ticketers {
    /// The keys of the server `name`: those that `running` has, or new ones.
    pub(crate) fn take_over(
        &mut self,
        name: &str,
        config: Option<&TicketerConfig>,
        running: Option<&Self>,
    ) -> Result<Arc<Ticketer>, BuildError> {
        let kept = running
            .and_then(|running| running.0.get(name))
            .filter(|(old, _)| old.as_ref() == config);
        let ticketer = match (kept, config) {
            (Some((_, ticketer)), _) => Arc::clone(ticketer),
            (None, Some(config)) => Ticketer::new(config)?,
            (None, None) => Ticketer::of_defaults()?,
        };
        self.0.insert(name.to_owned(), (config.cloned(), Arc::clone(&ticketer)));
        Ok(ticketer)
    }
}

/// Builds the acceptor of a server.
///
/// # Errors
/// [`BuildError`] names the key, and the file where one is at fault.
pub(crate) fn build<T: ServerTls>(
    config: &T,
    base: &Path,
    alpn: &[&[u8]],
    ticketer: Arc<Ticketer>,
) -> Result<TlsAcceptor, BuildError> {
    T::acceptor(&config.params(base)?.with_alpn(alpn).with_ticketer(ticketer))
}

/// Shakes hands with a client of the server `common`; `None` if that fails, which is counted there.
pub(crate) async fn accept(tls: &TlsAcceptor, stream: Stream, common: &ServerCommon, peers: &Peers) -> Option<Stream> {
    let limit = tls.handshake_timeout();
    let handshake = async {
        // What a handshake needs is large (tens of KiB with OpenSSL), and many a connection never says a word.
        // A look at the first byte waits for it; a socket just accepted counts as ready until proved otherwise.
        if let Some(tcp) = stream.tcp() {
            tcp.peek(&mut [0]).await.map_err(HandshakeError::Io)?;
        }
        tls.accept(stream).await
    };
    match timeout(limit, handshake)
        .await
        .unwrap_or(Err(HandshakeError::Timeout(limit)))
    {
        Ok(secure) => Some(Stream::Secure(Box::new(secure))),
        Err(error) => {
            let stats = common.stats.mine();
            match error {
                HandshakeError::Timeout(_) => stats.timed_out.add(1),
                _ => stats.accept_failed.add(1),
            }
            debug!("TLS handshake with a client failed"; "server" => &*common.name, "client" => %peers.client,
                "error" => %error);
            None
        }
    }
}
