//! The responder: one request a connection, heads up to 8 KiB, two seconds for each side.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::super::StartError;
use super::super::config::Listen;
use super::{CONTENT_TYPE, Page};

const MAX_HEAD: usize = 8 * 1024;
/// For the request to come, and again for the answer to be taken.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between attempts at an address that another process holds.
const RETRY: Duration = Duration::from_secs(1);

/// A running responder; dropping it frees the address.
pub(in crate::metrics) struct Endpoint {
    stop: Arc<OwnedFd>,
    addr: Arc<Mutex<Option<SocketAddr>>>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    pub(in crate::metrics) fn start(listen: &Listen, page: Page) -> Result<Self, StartError> {
        let listener = match Listener::bind(listen) {
            Ok(listener) => Some(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                warn!("the OpenMetrics endpoint waits for its address"; "listen" => %listen);
                None
            }
            Err(error) => return Err(StartError::Endpoint(listen.clone(), error)),
        };
        let addr = Arc::new(Mutex::new(listener.as_ref().and_then(Listener::addr)));
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| StartError::Thread(error.into()))?;
        let stop = Arc::new(stop);
        let responder = Responder {
            stop: Arc::clone(&stop),
            addr: Arc::clone(&addr),
            listen: listen.clone(),
            page,
        };
        let thread = thread::Builder::new()
            .name("openmetrics".to_owned())
            .spawn(move || responder.run(listener))
            .map_err(StartError::Thread)?;
        Ok(Self {
            stop,
            addr,
            thread: Some(thread),
        })
    }

    pub(in crate::metrics) fn addr(&self) -> Option<SocketAddr> {
        *self.addr.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // An eventfd takes this until it is read 2^64 times less often than written.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // Only a panic in a source fails it, and that was told by the panic hook.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({:?})", self.addr())
    }
}

struct Responder {
    stop: Arc<OwnedFd>,
    addr: Arc<Mutex<Option<SocketAddr>>>,
    listen: Listen,
    page: Page,
}

impl Responder {
    fn run(mut self, mut listener: Option<Listener>) {
        loop {
            if self.wait(listener.as_ref()) {
                return;
            }
            match &listener {
                Some(bound) => match bound.accept() {
                    Ok(mut stream) => {
                        // What a scraper does wrong is its own loss.
                        let _ = self.answer(&mut *stream);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        warn!("accept of a scraper failed"; "reason" => %error);
                        // As for want of descriptors: bind again after a pause.
                        listener = None;
                    }
                },
                None => {
                    listener = Listener::bind(&self.listen).ok();
                    if let Some(bound) = &listener {
                        info!("the OpenMetrics endpoint is open"; "listen" => %self.listen);
                        *self.addr.lock().unwrap_or_else(PoisonError::into_inner) = bound.addr();
                    }
                }
            }
        }
    }

    /// Waits for a connection, or the time of the next attempt; returns whether to stop.
    fn wait(&self, listener: Option<&Listener>) -> bool {
        let mut fds = vec![PollFd::new(&*self.stop, PollFlags::IN)];
        fds.extend(listener.map(|it| PollFd::from_borrowed_fd(it.as_fd(), PollFlags::IN)));
        let pause = Timespec::try_from(RETRY).ok();
        let timeout = match listener {
            Some(_) => None,
            None => pause.as_ref(),
        };
        if poll(&mut fds, timeout).is_err() {
            return false;
        }
        fds.first().is_some_and(|stop| !stop.revents().is_empty())
    }

    fn answer(&mut self, stream: &mut dyn Stream) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let Some(head) = read_head(stream, deadline)? else {
            return respond(stream, "431 Request Header Fields Too Large", "", "", false);
        };
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut words = line.trim_end().split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return respond(stream, "400 Bad Request", "", "", false);
        };
        if !version.starts_with("HTTP/1.") {
            return respond(stream, "505 HTTP Version Not Supported", "", "", false);
        }
        if target.split('?').next() != Some("/metrics") {
            return respond(stream, "404 Not Found", "", "", false);
        }
        match method {
            "GET" | "HEAD" => {
                let page = self.page.render();
                let bare = method == "HEAD";
                let kind = format!("Content-Type: {CONTENT_TYPE}\r\n");
                respond(stream, "200 OK", &kind, &page, bare)
            }
            _ => respond(stream, "405 Method Not Allowed", "Allow: GET, HEAD\r\n", "", false),
        }
    }
}

/// Reads up to the empty line; `None` if it does not come within [`MAX_HEAD`].
fn read_head(stream: &mut dyn Stream, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(Some(head));
        }
        if head.len() >= MAX_HEAD {
            return Ok(None);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_timeouts(left)?;
        match stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => head.extend_from_slice(chunk.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes the answer; `bare` leaves the body out but not its length.
fn respond(stream: &mut dyn Stream, status: &str, fields: &str, body: &str, bare: bool) -> io::Result<()> {
    let mut answer = format!(
        "HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if !bare {
        answer.push_str(body);
    }
    let deadline = Instant::now() + PATIENCE;
    let mut rest = answer.as_bytes();
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_timeouts(left)?;
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

trait Stream: Read + Write {
    fn set_timeouts(&self, timeout: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

impl Stream for UnixStream {
    fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        path: PathBuf,
        /// Device and inode of the socket file, to tell it from a successor's.
        file: Option<(u64, u64)>,
    },
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

impl Listener {
    fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(addr) => {
                let listener = TcpListener::bind(addr)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
            Listen::Unix(path) => {
                // What an earlier process left; the present generation's listener keeps its open connections.
                if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
                    fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix {
                    listener,
                    file: file_id(path),
                    path: path.clone(),
                })
            }
        }
    }

    fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix { .. } => None,
        }
    }

    fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Box::new(stream)
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Box::new(stream)
            }
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix { listener, .. } => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix { path, file, .. } = self
            && file.is_some()
            && file_id(path) == *file
        {
            let _ = fs::remove_file(path);
        }
    }
}
