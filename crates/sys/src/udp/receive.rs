//! Receiving a batch.

use std::io;
use std::mem::zeroed;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use libc::{c_uint, iovec, mmsghdr, sockaddr_storage};

use super::message::{self, Control};
use super::{Local, MOST};

/// Memory for the datagrams of one batch. It grows to what was asked for, and has none before.
#[derive(Default)]
pub struct Receiver {
    memory: Vec<u8>,
    /// Bytes from the beginning of one datagram to that of the next, in the last batch.
    size: usize,
    filled: usize,
    headers: Vec<mmsghdr>,
    parts: Vec<iovec>,
    names: Vec<sockaddr_storage>,
    controls: Vec<Control>,
}

/// One datagram of a batch.
#[derive(Debug)]
pub struct Received<'a> {
    /// The payload, cut if there was no room for all of it.
    pub payload: &'a [u8],
    /// Where the payload begins in [`Receiver::memory`].
    pub start: usize,
    /// Who sent it; `None` if the socket is of no IP family.
    pub from: Option<SocketAddr>,
    /// The address it was sent to, if the socket was told to say so ([`UdpBind::tell_local`](super::UdpBind)).
    pub local: Option<Local>,
    /// Its true length; more than `payload` has if it was cut.
    pub length: usize,
}

impl Received<'_> {
    /// Whether the datagram was longer than there was room for.
    pub fn is_truncated(&self) -> bool {
        self.length > self.payload.len()
    }
}

impl Receiver {
    /// Memory that grows as it is used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Receives up to `most` datagrams (at most [`MOST`]), each cut to `size` bytes, into the batch, whatever it held
    /// before; their number, at least 1 if `most` is.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, else the socket's error. What came before an error in a batch is received; the
    /// error comes back from the next call.
    #[expect(unsafe_code, reason = "neither socket2 nor rustix has recvmmsg")]
    pub fn receive(&mut self, socket: impl AsFd, most: usize, size: usize) -> io::Result<usize> {
        let count = most.min(MOST);
        self.filled = 0;
        self.make_room(count, size);
        let memory = self.memory.as_mut_ptr();
        let rows = self
            .headers
            .iter_mut()
            .zip(&mut self.parts)
            .zip(self.names.iter_mut().zip(&mut self.controls));
        for (place, ((header, part), (name, control))) in rows.take(count).enumerate() {
            *part = iovec {
                iov_base: memory.wrapping_add(place * size).cast(),
                iov_len: size,
            };
            header.msg_len = 0;
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = message::length(size_of::<sockaddr_storage>());
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = Control::LEN;
            header.msg_hdr.msg_flags = 0;
        }
        // With MSG_TRUNC the kernel tells true lengths.
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        let descriptor = socket.as_fd().as_raw_fd();
        loop {
            // SAFETY: the first `count` headers point to a name, a part and control memory of their own, and each part to
            // `size` bytes of `memory`, which has `count` times as many, as `make_room` saw to; all are owned by `self`,
            // which is borrowed for the whole call.
            let received = unsafe {
                libc::recvmmsg(
                    descriptor,
                    self.headers.as_mut_ptr(),
                    c_uint::try_from(count).unwrap_or(0),
                    flags,
                    ptr::null_mut(),
                )
            };
            if let Ok(received) = usize::try_from(received) {
                self.filled = received.min(count);
                return Ok(self.filled);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    #[expect(unsafe_code, reason = "rows of plain C types begin with zeroes")]
    fn make_room(&mut self, count: usize, size: usize) {
        self.size = size;
        let bytes = count.saturating_mul(size);
        if self.memory.len() < bytes {
            self.memory.resize(bytes, 0);
        }
        if self.headers.len() < count {
            // SAFETY: all bytes 0 is a value of each of these plain types; their pointers are null and set before use.
            let (header, part, name) = unsafe { (zeroed(), zeroed(), zeroed()) };
            self.headers.resize(count, header);
            self.parts.resize(count, part);
            self.names.resize(count, name);
            self.controls.resize(count, Control::EMPTY);
        }
    }

    /// The datagrams of the batch, in the order in which they came.
    pub fn datagrams(&self) -> impl Iterator<Item = Received<'_>> {
        let rows = self.headers.iter().zip(self.names.iter().zip(&self.controls));
        rows.take(self.filled)
            .enumerate()
            .map(|(place, (header, (name, control)))| {
                let length = usize::try_from(header.msg_len).unwrap_or(usize::MAX);
                let start = place * self.size;
                Received {
                    payload: &self.memory[start..][..length.min(self.size)],
                    start,
                    from: message::decode_name(name, header.msg_hdr.msg_namelen),
                    local: control.local(header.msg_hdr.msg_controllen),
                    length,
                }
            })
    }

    /// The memory that the payloads lie in.
    pub fn memory(&self) -> &[u8] {
        &self.memory
    }
}
