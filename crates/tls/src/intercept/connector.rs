//! The handshake with the upstream of an intercepted connection.
//!
//! rustls asks first, which needs half of the time that OpenSSL 3.0 takes. But it knows nothing of servers without TLS 1.2
//! and ephemeral keys, and is stricter about certificates. So its failure is no verdict: OpenSSL asks the server again, over
//! a new connection, and its word counts. For a while such a server is asked by OpenSSL alone.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use super::modern::Modern;
use crate::Alert;
use crate::client::{Connector, SessionCache};
use crate::config::OpensslClientConfig;
use crate::error::{BuildError, HandshakeError};
use crate::sessions::{Site, Sites};
use crate::stream::TlsStream;

/// How long a server is OpenSSL's after rustls has failed with it.
const OPENSSL_FOR: Duration = Duration::from_secs(60 * 60);

/// So many such servers are remembered.
const MAX_OPENSSL_SITES: usize = 4096;

/// Makes TLS connections to the upstreams of intercepted ones.
pub struct InterceptionConnector {
    openssl: Connector,
    /// There unless the configuration asks for what only OpenSSL can do.
    modern: Option<Modern>,
    /// Since when they are OpenSSL's.
    openssl_sites: Mutex<Sites<Instant>>,
}

impl InterceptionConnector {
    /// Builds a connector; files with relative paths are looked for in `base`.
    ///
    /// # Errors
    /// [`BuildError`] names the key, and the file where one is at fault.
    pub fn build(config: &OpensslClientConfig, base: &Path) -> Result<Self, BuildError> {
        Ok(Self {
            openssl: Connector::build(config, base, SessionCache::ManySites)?,
            modern: Modern::build(config, base)?,
            openssl_sites: Mutex::default(),
        })
    }

    /// Shakes hands over `io` with the server of `site`, as [`Connector::connect`] does. `again` opens a second connection
    /// to it if the first one was in vain; without it the first one is OpenSSL's.
    ///
    /// # Errors
    /// [`HandshakeError`]. `io` is dropped with it.
    pub async fn connect<IO>(
        &self,
        mut io: IO,
        site: &Site,
        alpn: &[&[u8]],
        again: Option<impl Future<Output = Option<IO>>>,
    ) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        if let (Some(modern), Some(again)) = (&self.modern, again)
            && !self.is_openssls(site)
        {
            let failed = match modern.connect(io, site, alpn).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let next = next_step(&failed);
            if next == NextStep::Fail {
                return Err(failed);
            }
            self.leave_to_openssl(site);
            if next == NextStep::AskByOpensslLater {
                return Err(failed);
            }
            let Some(second) = again.await else {
                return Err(failed);
            };
            io = second;
        }
        self.openssl.connect_to(io, site, alpn).await
    }

    fn is_openssls(&self, site: &Site) -> bool {
        let sites = self.openssl_sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.newest(site).is_some_and(|since| since.elapsed() < OPENSSL_FOR)
    }

    fn leave_to_openssl(&self, site: &Site) {
        let mut sites = self.openssl_sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.put(site, Instant::now(), MAX_OPENSSL_SITES, 1);
    }
}

impl std::fmt::Debug for InterceptionConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InterceptionConnector").finish_non_exhaustive()
    }
}

/// What follows a handshake of rustls that has failed.
#[derive(Clone, Copy, PartialEq)]
enum NextStep {
    AskAgain,
    /// OpenSSL may fare better, but the client has waited long enough.
    AskByOpensslLater,
    Fail,
}

fn next_step(error: &HandshakeError) -> NextStep {
    match error {
        // What they are about does not depend on who asks.
        HandshakeError::Alert(Alert::ACCESS_DENIED | Alert::NO_APPLICATION_PROTOCOL | Alert::UNRECOGNIZED_NAME)
        | HandshakeError::WithoutCertificate(_) => NextStep::Fail,
        HandshakeError::Timeout(_) => NextStep::AskByOpensslLater,
        // Old servers close at what they do not know.
        HandshakeError::Alert(_)
        | HandshakeError::Closed
        | HandshakeError::Io(_)
        | HandshakeError::Library(_)
        | HandshakeError::Protocol(_)
        | HandshakeError::Verify(_) => NextStep::AskAgain,
    }
}
