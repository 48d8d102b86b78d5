//! Datagram sockets that find a restarted receiver again.

use std::fs::File;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

/// Where datagrams go.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Udp { peer: SocketAddr, bind_ip: Option<IpAddr> },
    Unix(PathBuf),
}

/// How long a full receiver may hold up the writer before the datagram is lost.
const PATIENCE: Duration = Duration::from_millis(100);

/// A datagram socket, opened when needed and again after the receiver restarted.
#[derive(Debug)]
pub(crate) struct Datagrams {
    target: Target,
    /// Whether a full receiver is waited for.
    patient: bool,
    open: Option<Open>,
}

#[derive(Debug)]
enum Open {
    Udp(UdpSocket),
    Unix { socket: UnixDatagram, congested: bool },
}

impl Datagrams {
    /// Waits up to 100 ms for a full receiver, then not again until it has taken something.
    pub(crate) fn patient(target: Target) -> Self {
        Self {
            target,
            patient: true,
            open: None,
        }
    }

    /// Never waits.
    pub(crate) fn impatient(target: Target) -> Self {
        Self {
            target,
            patient: false,
            open: None,
        }
    }

    /// Sends one datagram; a receiver that went away is looked for once.
    pub(crate) fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let fresh = self.open.is_none();
        match self.try_send(datagram) {
            Err(error) if !fresh && self.open.is_none() && worth_another_try(&error) => self.try_send(datagram),
            result => result,
        }
    }

    /// The open Unix socket, if that is what it is.
    pub(crate) fn unix(&self) -> Option<&UnixDatagram> {
        match &self.open {
            Some(Open::Unix { socket, .. }) => Some(socket),
            _ => None,
        }
    }

    fn try_send(&mut self, datagram: &[u8]) -> io::Result<()> {
        if self.open.is_none() {
            self.open = Some(self.connect()?);
        }
        let sent = match &mut self.open {
            Some(Open::Udp(socket)) => socket.send(datagram),
            Some(Open::Unix { socket, congested }) => {
                let sent = socket.send(datagram);
                let full = sent.as_ref().is_err_and(is_full);
                if self.patient && full != *congested {
                    *congested = full;
                    socket.set_nonblocking(full)?;
                }
                sent
            }
            None => return Err(io::ErrorKind::NotConnected.into()),
        };
        sent.map(drop).inspect_err(|error| {
            if worth_another_try(error) {
                self.open = None;
            }
        })
    }

    fn connect(&self) -> io::Result<Open> {
        match &self.target {
            Target::Udp { peer, bind_ip } => {
                let local = bind_ip.unwrap_or(match peer {
                    SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                });
                let socket = UdpSocket::bind((local, 0))?;
                socket.connect(peer)?;
                socket.set_nonblocking(!self.patient)?;
                Ok(Open::Udp(socket))
            }
            Target::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_nonblocking(!self.patient)?;
                socket.set_write_timeout(Some(PATIENCE))?;
                Ok(Open::Unix {
                    socket,
                    congested: false,
                })
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Whether a new socket may do better: not if the receiver is only full, or the datagram too long.
fn worth_another_try(error: &io::Error) -> bool {
    !is_full(error) && !is_too_long(error)
}

/// Whether the datagram is longer than the socket can ever send.
pub(crate) fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}

/// Hands `content` over as a sealed memory file, which journald takes for entries longer than a datagram.
pub(crate) fn send_as_memory_file(socket: BorrowedFd<'_>, content: &[u8]) -> io::Result<()> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"journal-entry", flags)?);
    file.write_all(content)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(socket, &[], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
