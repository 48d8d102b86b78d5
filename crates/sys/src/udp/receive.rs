//! Receiving a batch.

use std::io;
use std::mem::zeroed;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use libc::{c_uint, iovec, mmsghdr, sockaddr_storage};

use super::message::{self, Control};
use super::{Local, MOST};

/// Memory for the datagrams of one batch.
pub struct Receiver {
    memory: Box<[u8]>,
    capacity: usize,
    headroom: usize,
    size: usize,
    filled: usize,
    headers: Box<[mmsghdr]>,
    parts: Box<[iovec]>,
    names: Box<[sockaddr_storage]>,
    controls: Box<[Control]>,
}

/// One datagram of a batch.
#[derive(Debug)]
pub struct Received<'a> {
    /// The payload, cut to the receiver's size.
    pub payload: &'a mut [u8],
    /// The free bytes that lie before the payload, for a header.
    pub headroom: usize,
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
    /// Memory for `capacity` datagrams (at most [`MOST`]) of `size` bytes, each with free bytes before it.
    #[expect(unsafe_code, reason = "tables of plain C types begin with zeroes")]
    pub fn new(capacity: usize, headroom: usize, size: usize) -> Self {
        let capacity = capacity.clamp(1, MOST);
        // SAFETY: all bytes 0 is a value of each of these plain types; their pointers are null and set before use.
        let (header, part, name) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            memory: vec![0; capacity * (headroom + size)].into(),
            capacity,
            headroom,
            size,
            filled: 0,
            headers: vec![header; capacity].into(),
            parts: vec![part; capacity].into(),
            names: vec![name; capacity].into(),
            controls: vec![Control::EMPTY; capacity].into(),
        }
    }

    /// The most datagrams that one batch holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The free bytes before each datagram.
    pub fn headroom(&self) -> usize {
        self.headroom
    }

    /// The longest payload that is not cut.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Receives up to `most` datagrams into the batch, whatever it held before; their number, at least 1 if `most` is.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, else the socket's error. What came before an error in a batch is received; the
    /// error comes back from the next call.
    #[expect(unsafe_code, reason = "neither socket2 nor rustix has recvmmsg")]
    pub fn receive(&mut self, socket: impl AsFd, most: usize) -> io::Result<usize> {
        let count = most.min(self.capacity);
        self.filled = 0;
        let step = self.headroom + self.size;
        let tables = self
            .memory
            .chunks_exact_mut(step.max(1))
            .zip(&mut self.headers)
            .zip(&mut self.parts)
            .zip(self.names.iter_mut().zip(&mut self.controls));
        for (((memory, header), part), (name, control)) in tables.take(count) {
            let payload = &mut memory[self.headroom..];
            *part = iovec {
                iov_base: payload.as_mut_ptr().cast(),
                iov_len: payload.len(),
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
            // SAFETY: the first `count` headers point to a name, a part and control memory of their own, all owned by
            // `self`, which is borrowed for the whole call; the lengths are those of what they point to.
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

    /// The datagrams of the batch, in the order in which they came.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Received<'_>> {
        let (size, headroom) = (self.size, self.headroom);
        let memory = self.memory.chunks_exact_mut((headroom + size).max(1));
        let tables = memory.zip(&self.headers).zip(self.names.iter().zip(&self.controls));
        tables
            .take(self.filled)
            .map(move |((memory, header), (name, control))| {
                let length = usize::try_from(header.msg_len).unwrap_or(usize::MAX);
                Received {
                    payload: &mut memory[headroom..][..length.min(size)],
                    headroom,
                    from: message::decode_name(name, header.msg_hdr.msg_namelen),
                    local: control.local(header.msg_hdr.msg_controllen),
                    length,
                }
            })
    }

    /// The memory of the datagram with this place in the batch: free bytes, then payload.
    ///
    /// # Panics
    /// If the place is not below [`Self::capacity`].
    pub fn memory(&mut self, place: usize) -> &mut [u8] {
        let step = self.headroom + self.size;
        &mut self.memory[place * step..][..step]
    }
}
