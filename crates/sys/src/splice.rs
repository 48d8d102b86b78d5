//! Moving bytes between two sockets through a pipe, without copying them through user space (`splice(2)`).
//!
//! A non-blocking splice that answers `EAGAIN` does not say which side was at fault, the socket or the pipe. Callers
//! therefore fill a pipe only when it is empty and drain it before they fill it again: then `EAGAIN` of
//! [`Pipe::fill`] means that the socket has no data, and `EAGAIN` of [`Pipe::drain`] that it takes none.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};

/// A pipe between two splices. It counts what it holds.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
    held: usize,
}

impl Pipe {
    /// Opens a pipe that holds about `capacity` bytes. Pipe pages are a quota of the user (`pipe-user-pages-soft`):
    /// when the kernel refuses the size, the pipe keeps the size it was born with; see [`Self::capacity`].
    ///
    /// # Errors
    /// The kernel's, `EMFILE` above all.
    pub fn open(capacity: usize) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        let capacity = fcntl_setpipe_size(&write, capacity).or_else(|_| fcntl_getpipe_size(&write))?;
        Ok(Self {
            read,
            write,
            capacity,
            held: 0,
        })
    }

    /// Bytes in the pipe.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Bytes that the pipe can hold if they come in whole pages; two pages if the user's quota is used up.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Moves what `socket` has received into the pipe, at most `max` bytes; 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if the socket has nothing (the pipe must be empty, see the module), else the socket's error.
    pub fn fill(&mut self, socket: impl AsFd, max: usize) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0, "a pipe is filled only when it is empty");
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let n = retry(|| splice(socket.as_fd(), None, &self.write, None, max.min(self.capacity), flags))?;
        self.held += n;
        Ok(n)
    }

    /// Moves bytes of the pipe to `socket`.
    ///
    /// # Errors
    /// `WouldBlock` if the socket takes nothing now, else the socket's error.
    pub fn drain(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let n = retry(|| splice(&self.read, None, socket.as_fd(), None, self.held, flags))?;
        self.held -= n;
        Ok(n)
    }
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (a, listener.accept().unwrap().0)
    }

    #[test]
    fn bytes_pass_from_socket_to_socket() {
        let (mut source, from) = pair();
        let (to, mut sink) = pair();
        from.set_nonblocking(true).unwrap();
        let mut pipe = Pipe::open(1 << 18).unwrap();
        assert_eq!(pipe.fill(&from, 1000).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        source.write_all(b"hello").unwrap();
        while pipe.held() == 0 {
            match pipe.fill(&from, 1000) {
                Ok(n) => assert_eq!(n, 5),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert_eq!(pipe.drain(&to).unwrap(), 5);
        let mut got = [0; 5];
        sink.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        drop(source);
        let end = loop {
            match pipe.fill(&from, 1000) {
                Ok(n) => break n,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        assert_eq!(end, 0);
    }
}
