//! The group's own socket, `resolverd.dns`.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener as StdListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustix::fs::Mode;
use sluice_lifecycle::Tasks;
use sluice_telemetry::warn;
use sluice_wire::dns::Request;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    net::{UnixListener, UnixStream, unix::SocketAddr},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{
    InCharge, rest,
    stream::{Terms, converse},
};

/// The most connections at a time: workers of a few proxies.
const MAX_CONNECTIONS: usize = 1024;

/// The most queries under way on one connection; a worker of proxyd has at most as many.
const PIPELINE: usize = 4096;

/// The users that may connect beside root and our own.
pub(crate) type AllowedUids = Arc<ArcSwap<Vec<u32>>>;

/// The socket, and its file if we made it.
pub(crate) struct Own {
    path: PathBuf,
    allowed: AllowedUids,
    room: Arc<Semaphore>,
    file: Option<OwnFile>,
}

/// The file goes with the daemon, unless another one has taken its place.
struct OwnFile {
    path: PathBuf,
    id: (u64, u64),
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.id) {
            let _ = fs::remove_file(&self.path); // the next start replaces it
        }
    }
}

impl Own {
    /// Serves a passed socket, or one made at `path`.
    pub(crate) fn start(
        path: &Path,
        passed: Option<StdListener>,
        allowed: Vec<u32>,
        resolvers: &InCharge,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let (listener, file) = match passed {
            Some(listener) => (listener, None),
            None => {
                let (listener, file) = make(path).with_context(|| format!("make the socket `{}`", path.display()))?;
                (listener, Some(file))
            }
        };
        listener.set_nonblocking(true)?;
        let allowed: AllowedUids = Arc::new(ArcSwap::from_pointee(allowed));
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accept = accept_loop(
            UnixListener::from_std(listener)?,
            Arc::clone(&room),
            Arc::clone(&allowed),
            Arc::clone(resolvers),
            tasks.clone(),
        );
        tasks.spawn(accept);
        Ok(Self {
            path: path.to_owned(),
            allowed,
            room,
            file,
        })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        self.file.as_ref().map_or(&self.path, |file| &file.path)
    }

    /// Connections that stand.
    pub(crate) fn connections(&self) -> usize {
        MAX_CONNECTIONS.saturating_sub(self.room.available_permits())
    }

    /// Lets other users connect from now on.
    pub(crate) fn allow(&self, uids: Vec<u32>) {
        self.allowed.store(Arc::new(uids));
    }
}

/// Makes the socket with mode 0660. The group's lock is held, so whatever socket of ours lies there is dead.
fn make(path: &Path) -> io::Result<(StdListener, OwnFile)> {
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
    let meta = fs::symlink_metadata(path)?;
    Ok((
        socket.into(),
        OwnFile {
            path: path.to_owned(),
            id: (meta.dev(), meta.ino()),
        },
    ))
}

async fn accept_loop(
    listener: UnixListener,
    room: Arc<Semaphore>,
    allowed: AllowedUids,
    resolvers: InCharge,
    tasks: Tasks,
) {
    loop {
        let (permit, accepted) = tokio::select! {
            () = tasks.stopping() => return,
            accepted = accept(&listener, &room) => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("accept on the group's socket failed"; "error" => %error);
                rest(&tasks).await;
                continue;
            }
        };
        if !is_trusted(&stream, &allowed.load()) {
            continue;
        }
        let conversation = converse(
            stream,
            Arc::clone(&resolvers),
            |request: &Request| request.resolver.clone().unwrap_or_default(),
            Terms {
                pipeline: PIPELINE,
                idle: None,
            },
            tasks.clone(),
        );
        tasks.spawn(async move {
            conversation.await;
            drop(permit);
        });
    }
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &UnixListener,
    room: &Arc<Semaphore>,
) -> (Option<OwnedSemaphorePermit>, io::Result<(UnixStream, SocketAddr)>) {
    let permit = Arc::clone(room).acquire_owned().await.ok(); // the semaphore is never closed
    (permit, listener.accept().await)
}

fn is_trusted(stream: &UnixStream, allowed: &[u32]) -> bool {
    match stream.peer_cred() {
        Ok(peer) if may_ask(peer.uid(), allowed) => true,
        Ok(peer) => {
            warn!("a user who may not ask was turned away"; "uid" => peer.uid());
            false
        }
        Err(error) => {
            warn!("a connection without a user was turned away"; "error" => %error);
            false
        }
    }
}

/// Whether a user may connect: root, our own, and those of `allow_uid`.
pub(super) fn may_ask(uid: u32, allowed: &[u32]) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw() || allowed.contains(&uid)
}
