//! Where clients come in.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sluice_lifecycle::{SocketFile, Tasks};
use sluice_telemetry::warn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::config::Listen;
use crate::conversation::{Shared, serve};

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 1024;
/// The pause after a failed accept, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An address in use.
pub(crate) struct Listening {
    pub(crate) config: Listen,
    bound: Bound,
    tasks: Tasks,
}

enum Bound {
    Tcp(SocketAddr),
    Unix(SocketFile),
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A stream of either kind.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Listening {
    /// Binds an address and serves it.
    pub(crate) async fn start(config: &Listen, shared: &Shared, tasks: &Tasks) -> anyhow::Result<Self> {
        let (listener, bound) = match config {
            Listen::Tcp(address) => {
                let address = address.resolve().context("`icap_stub.listen`")?;
                let listener = TcpListener::bind(address)
                    .await
                    .with_context(|| format!("listen on `{address}`"))?;
                let bound = Bound::Tcp(listener.local_addr()?);
                (Listener::Tcp(listener), bound)
            }
            Listen::Unix(path) => {
                let (listener, file) =
                    bind_unix(path).with_context(|| format!("make the socket `{}`", path.display()))?;
                (Listener::Unix(listener), Bound::Unix(file))
            }
        };
        let tasks = tasks.child();
        tasks.spawn(accept_loop(listener, shared.clone(), tasks.clone()));
        Ok(Self {
            config: config.clone(),
            bound,
            tasks,
        })
    }

    /// The address, with the port that the system chose.
    pub(crate) fn address(&self) -> String {
        match &self.bound {
            Bound::Tcp(address) => address.to_string(),
            Bound::Unix(file) => file.path().display().to_string(),
        }
    }

    /// Takes no more clients.
    pub(crate) fn stop(&self) {
        self.tasks.stop();
    }
}

async fn accept_loop(listener: Listener, shared: Shared, tasks: Tasks) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (permit, accepted) = tokio::select! {
            () = tasks.stopping() => return,
            accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await; // never closed
                (permit, listener.accept().await)
            } => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                warn!("accept failed"; "error" => %error);
                tokio::select! {
                    () = sleep(ACCEPT_PAUSE) => continue,
                    () = tasks.stopping() => return,
                }
            }
        };
        let shared = Shared {
            tasks: tasks.clone(),
            ..shared.clone()
        };
        tasks.spawn(async move {
            serve(stream, shared).await;
            drop(permit);
        });
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Io>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// A socket at `path`; one that nobody serves any more is replaced.
fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    if let Ok(meta) = fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "what is there is no socket",
            ));
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            _ => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another program serves it")),
        }
    }
    let listener = UnixListener::bind(path)?;
    Ok((listener, SocketFile::new(path)?))
}
