//! Read buffers from a pool of the thread.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// Bytes that a fresh buffer has room for: most message heads, and a small body behind them.
const FRESH: usize = 16 * 1024;
/// Empty buffers that a thread keeps.
const KEPT: usize = 128;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty vector with some room, from the pool of this thread; give it back with [`recycle`].
#[must_use]
pub fn take() -> Vec<u8> {
    POOL.with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| Vec::with_capacity(FRESH))
}

/// Gives a vector back. One that has grown is freed instead: the pool's size stays known.
pub fn recycle(mut bytes: Vec<u8>) {
    if bytes.capacity() == FRESH {
        bytes.clear();
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < KEPT {
                pool.push(bytes);
            }
        });
    }
}

/// Bytes received and not yet consumed. It owns memory only while it holds some.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    bytes: Vec<u8>,
    at: usize,
}

impl ReadBuffer {
    /// What is there.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Drops the first `n` bytes.
    ///
    /// # Panics
    /// If fewer are there.
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.bytes.len() - self.at, "consumed more than was there");
        self.at += n;
        if self.is_empty() {
            self.release();
        }
    }

    /// Adds bytes at the end.
    pub fn put(&mut self, more: &[u8]) {
        if !more.is_empty() {
            self.make_room(more.len());
            self.bytes.extend_from_slice(more);
        }
    }

    /// Takes everything out.
    #[must_use]
    pub fn take_all(&mut self) -> Vec<u8> {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        std::mem::take(&mut self.bytes)
    }

    /// Reads once from `source`; `Ok(0)` is the end of the stream. The memory is taken only when there is something.
    ///
    /// # Errors
    /// The source's.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        self.make_room(1);
        let polled = poll_read_buf(Pin::new(source), cx, &mut self.bytes);
        if self.is_empty() {
            self.release();
        }
        polled
    }

    fn make_room(&mut self, least: usize) {
        if self.bytes.capacity() == 0 {
            self.bytes = take();
            self.at = 0;
        }
        if self.bytes.capacity() - self.bytes.len() < least {
            if self.at > 0 {
                self.bytes.drain(..self.at);
                self.at = 0;
            }
            if self.bytes.capacity() - self.bytes.len() < least {
                self.bytes.reserve(least.max(FRESH));
            }
        }
    }

    fn release(&mut self) {
        self.at = 0;
        recycle(std::mem::take(&mut self.bytes));
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        if self.bytes.capacity() > 0 {
            self.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_buffer_owns_no_memory() {
        let mut buffer = ReadBuffer::default();
        buffer.put(b"abc");
        assert!(buffer.bytes.capacity() > 0);
        buffer.consume(3);
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    #[test]
    fn what_was_not_consumed_stays_in_order() {
        let mut buffer = ReadBuffer::default();
        buffer.put(&vec![b'x'; FRESH - 1]);
        buffer.consume(FRESH - 3);
        buffer.put(b"1234");
        assert_eq!(buffer.filled(), b"xx1234");
        assert_eq!(buffer.take_all(), b"xx1234");
        assert!(buffer.is_empty());
    }
}
