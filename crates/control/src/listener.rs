//! The socket in the file system: made without a race, never over somebody else's file.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use crate::SocketFile;

/// Why a control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there: the daemon already runs.
    #[error("another process answers on `{}`", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// What lies there is not a socket of our own; it is left alone.
    #[error("`{}` exists and is not a socket of ours, it is not replaced", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot make the socket `{}`", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

/// A listening Unix stream socket; its file goes when this is dropped, unless another took its place.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    _file: Option<SocketFile>,
}

impl Listener {
    /// Makes the socket at `path` with mode 0600. A stale one that is ours is replaced.
    ///
    /// # Errors
    /// [`BindError::InUse`] if a process answers there, [`BindError::Foreign`] if the path holds anything but a dead
    /// socket of our own uid, [`BindError::Io`] for the rest.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let io_error = |source| BindError::Io {
            path: path.to_owned(),
            source,
        };
        clear(path)?;
        let socket = make(path).map_err(io_error)?;
        Ok(Self {
            socket,
            _file: Some(SocketFile::new(path).map_err(io_error)?),
        })
    }

    /// Takes a socket that is listening already, passed in by the service manager; its file stays at the end.
    ///
    /// # Errors
    /// If it cannot be made non-blocking or is not known to the running runtime.
    pub fn from_std(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixListener::from_std(socket)?,
            _file: None,
        })
    }

    pub(crate) fn socket(&self) -> &UnixListener {
        &self.socket
    }
}

/// Removes a dead socket of our own at `path`.
fn clear(path: &Path) -> Result<(), BindError> {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let ours = meta.file_type().is_socket() && meta.uid() == rustix::process::geteuid().as_raw();
    if !ours {
        return Err(BindError::Foreign { path: path.to_owned() });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse { path: path.to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| BindError::Io {
                path: path.to_owned(),
                source,
            })
        }
        // A full backlog means that somebody listens; anything else we do not understand and leave alone.
        Err(_) => Err(BindError::InUse { path: path.to_owned() }),
    }
}

fn make(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux gives the file the mode of the socket, so it is never open to others, not even between two calls.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(64)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}
