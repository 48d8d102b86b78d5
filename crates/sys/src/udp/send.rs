//! Sending a batch.

use std::io;
use std::mem::zeroed;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use libc::{c_uint, iovec, mmsghdr, sockaddr_storage};

use super::message::{self, Control};
use super::{Local, MOST};

/// A datagram to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Bytes that go before the payload; none if empty.
    pub head: &'a [u8],
    /// The rest.
    pub payload: &'a [u8],
    /// Where to; `None` on a connected socket.
    pub to: Option<SocketAddr>,
    /// Where it shall come from; `None` leaves it to the socket.
    pub from: Option<Local>,
}

/// Tables for the datagrams of one batch.
#[derive(Default)]
pub struct Sender {
    headers: Vec<mmsghdr>,
    parts: Vec<[iovec; 2]>,
    names: Vec<sockaddr_storage>,
    controls: Vec<Control>,
}

impl Sender {
    /// Tables that grow as they are used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends datagrams, in order; how many the socket took. A caller with more goes on behind those.
    ///
    /// # Errors
    /// What is wrong with the first datagram, or with the socket; `WouldBlock` if it takes none now. An error of a later
    /// datagram comes back from the next call, which begins with it.
    #[expect(unsafe_code, reason = "socket2 has no sendmmsg")]
    pub fn send<'a>(
        &mut self,
        socket: impl AsFd,
        datagrams: impl IntoIterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        // What is sent stays borrowed through `'a`; the tables keep only addresses.
        self.clear();
        for datagram in datagrams.into_iter().take(MOST) {
            self.push(datagram);
        }
        if self.headers.is_empty() {
            return Ok(0);
        }
        self.link();
        let descriptor = socket.as_fd().as_raw_fd();
        loop {
            // SAFETY: each header points to its parts, and to a name and control memory if it has any, which the tables
            // own and nobody moves before the call is over; the parts are bytes borrowed for `'a`, which the kernel only
            // reads.
            let sent = unsafe {
                libc::sendmmsg(
                    descriptor,
                    self.headers.as_mut_ptr(),
                    c_uint::try_from(self.headers.len()).unwrap_or(0),
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            if let Ok(sent) = usize::try_from(sent) {
                return Ok(sent);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    fn clear(&mut self) {
        self.headers.clear();
        self.parts.clear();
        self.names.clear();
        self.controls.clear();
    }

    /// Puts all of a datagram into the tables but the pointers between them.
    #[expect(unsafe_code, reason = "rows of plain C types begin with zeroes")]
    fn push(&mut self, datagram: Outgoing<'_>) {
        // SAFETY: all bytes 0 is a value of each of these plain types.
        let (mut header, mut name): (mmsghdr, sockaddr_storage) = unsafe { (zeroed(), zeroed()) };
        let mut control = Control::EMPTY;
        header.msg_hdr.msg_namelen = datagram.to.map_or(0, |to| message::encode_name(to, &mut name));
        let local = datagram.from.map(|local| fitting(local, datagram.to));
        header.msg_hdr.msg_controllen = local.map_or(0, |local| message::encode_local(local, &mut control));
        let part = |bytes: &[u8]| iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        self.headers.push(header);
        self.parts.push([part(datagram.head), part(datagram.payload)]);
        self.names.push(name);
        self.controls.push(control);
    }

    /// Lets the headers point to their rows, which move no more.
    fn link(&mut self) {
        let rows = self
            .headers
            .iter_mut()
            .zip(&mut self.parts)
            .zip(self.names.iter_mut().zip(&mut self.controls));
        for ((header, parts), (name, control)) in rows {
            let header = &mut header.msg_hdr;
            let parts = if parts[0].iov_len == 0 { &mut parts[1..] } else { parts };
            header.msg_iov = parts.as_mut_ptr();
            header.msg_iovlen = parts.len();
            if header.msg_namelen > 0 {
                header.msg_name = ptr::from_mut(name).cast();
            }
            if header.msg_controllen > 0 {
                header.msg_control = control.as_mut_ptr().cast();
            }
        }
    }
}

/// The source in the form of the destination: IPv4 through an IPv6 socket has both mapped.
fn fitting(local: Local, to: Option<SocketAddr>) -> Local {
    let ip = match (local.ip, to) {
        (std::net::IpAddr::V4(ip), Some(SocketAddr::V6(_))) => ip.to_ipv6_mapped().into(),
        (ip, Some(SocketAddr::V4(_))) => ip.to_canonical(),
        (ip, _) => ip,
    };
    Local { ip, ..local }
}
