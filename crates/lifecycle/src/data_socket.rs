//! A daemon's socket for the other daemons of its group, beside the control socket.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::Mode;
use sluice_control::SocketFile;
use sluice_telemetry::warn;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream, unix};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::Tasks;

/// The most connections at a time: workers of a few proxies.
const MAX_CONNECTIONS: usize = 1024;

/// The pause after a failed accept, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its process; `None` if the kernel does not tell.
    pub pid: Option<i32>,
}

/// The users that may connect beside root and our own.
type Allowed = Arc<RwLock<Vec<u32>>>;

/// A listening Unix stream socket, and its file if we made it.
#[derive(Debug)]
pub struct DataSocket {
    path: PathBuf,
    allowed: Allowed,
    connections: Arc<AtomicUsize>,
    _file: Option<SocketFile>,
}

impl DataSocket {
    /// Serves the socket that the service manager passed, or one made at `path` with mode 0660.
    ///
    /// `serve` is called for each connection of root, our own user or one of `allowed`, and what it returns runs in
    /// `tasks`.
    ///
    /// # Errors
    /// If the socket can not be made: what lies there is not a socket of ours, or the system refuses.
    pub fn start<F, S>(
        path: &Path,
        passed: Option<StdListener>,
        allowed: Vec<u32>,
        tasks: &Tasks,
        serve: F,
    ) -> anyhow::Result<Self>
    where
        F: Fn(UnixStream, Peer) -> S + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let (listener, file) = match passed {
            Some(listener) => (listener, None),
            None => {
                let made = make(path).with_context(|| format!("make the socket `{}`", path.display()))?;
                (made.0, Some(made.1))
            }
        };
        listener.set_nonblocking(true)?;
        let socket = Self {
            path: path.to_owned(),
            allowed: Arc::new(RwLock::new(allowed)),
            connections: Arc::default(),
            _file: file,
        };
        let accepting = Accepting {
            listener: UnixListener::from_std(listener)?,
            room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            connections: Arc::clone(&socket.connections),
            allowed: Arc::clone(&socket.allowed),
            tasks: tasks.clone(),
        };
        tasks.spawn(accepting.run(serve));
        Ok(socket)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Connections that stand.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Lets these other users connect from now on.
    pub fn allow(&self, uids: Vec<u32>) {
        *self.allowed.write().unwrap_or_else(PoisonError::into_inner) = uids;
    }
}

/// Makes the socket. The group's lock is held, so whatever socket of ours lies there is dead.
fn make(path: &Path) -> io::Result<(StdListener, SocketFile)> {
    if let Ok(meta) = fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() || meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "what is there is not a socket of ours",
            ));
        }
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux gives the file the mode of the socket less the umask, so it is never open to others, not even between two calls.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?; // whatever the umask
    socket.listen(128)?;
    Ok((socket.into(), SocketFile::new(path)?))
}

struct Accepting {
    listener: UnixListener,
    room: Arc<Semaphore>,
    connections: Arc<AtomicUsize>,
    allowed: Allowed,
    tasks: Tasks,
}

impl Accepting {
    async fn run<F, S>(self, serve: F)
    where
        F: Fn(UnixStream, Peer) -> S,
        S: Future<Output = ()> + Send + 'static,
    {
        loop {
            let (permit, accepted) = tokio::select! {
                () = self.tasks.stopping() => return,
                accepted = self.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!("accept on the group's socket failed"; "error" => %error);
                    self.rest().await;
                    continue;
                }
            };
            let Some(peer) = self.trusted(&stream) else {
                continue;
            };
            let served = serve(stream, peer);
            let stands = Stands::begin(&self.connections);
            self.tasks.spawn(async move {
                served.await;
                drop((permit, stands));
            });
        }
    }

    /// The next connection, once there is room for it.
    async fn accept(&self) -> (Option<OwnedSemaphorePermit>, io::Result<(UnixStream, unix::SocketAddr)>) {
        let permit = Arc::clone(&self.room).acquire_owned().await.ok(); // the semaphore is never closed
        (permit, self.listener.accept().await)
    }

    /// Waits a moment after a failed accept, or until the tasks stop.
    async fn rest(&self) {
        tokio::select! {
            () = sleep(ACCEPT_PAUSE) => {}
            () = self.tasks.stopping() => {}
        }
    }

    fn trusted(&self, stream: &UnixStream) -> Option<Peer> {
        let peer = match stream.peer_cred() {
            Ok(peer) => peer,
            Err(error) => {
                warn!("a connection without a user was turned away"; "error" => %error);
                return None;
            }
        };
        let allowed = self.allowed.read().unwrap_or_else(PoisonError::into_inner);
        if !may_ask(peer.uid(), &allowed) {
            warn!("a user who may not ask was turned away"; "uid" => peer.uid());
            return None;
        }
        Some(Peer {
            uid: peer.uid(),
            pid: peer.pid(),
        })
    }
}

/// A connection that stands, for the number of them.
struct Stands(Arc<AtomicUsize>);

impl Stands {
    fn begin(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for Stands {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a user may connect: root, our own, and those that are allowed.
fn may_ask(uid: u32, allowed: &[u32]) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw() || allowed.contains(&uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_own_user_and_those_of_the_list_may_ask() {
        let own = rustix::process::geteuid().as_raw();
        assert!(may_ask(0, &[]) && may_ask(own, &[]) && may_ask(12345, &[12345]));
        assert!(!may_ask(12345, &[12346]));
    }
}
