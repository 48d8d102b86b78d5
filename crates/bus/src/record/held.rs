//! What may not go on before it is written.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use sluice_wire::dump::Direction;
use tokio::io::ReadBuf;

use super::{FlowDump, PACKET_SIZE, Stalled};

/// Bytes of one write that are held at a time.
const LONGEST: usize = PACKET_SIZE;

type Waiting = Pin<Box<dyn Future<Output = Result<(), Stalled>> + Send>>;

/// Bytes of one direction that are recorded, and go on once auditd has written them.
pub(super) struct Held {
    direction: Direction,
    bytes: Vec<u8>,
    /// How many of them have gone on.
    gone: usize,
    /// What was read behind them: the front of a frame, which is not recorded yet.
    front: Vec<u8>,
    /// Until they are written; never locked, it makes the stream `Sync`.
    waiting: Mutex<Option<Waiting>>,
}

impl Held {
    pub(super) fn new(direction: Direction) -> Self {
        Self {
            direction,
            bytes: Vec::new(),
            gone: 0,
            front: Vec::new(),
            waiting: Mutex::new(None),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes what was read, `is_end` if nothing was. Nothing is held after that where the rest of a frame of HTTP/2 must
    /// come first. There may be nothing held from before.
    pub(super) fn hold_read(&mut self, dump: &Arc<FlowDump>, read: &[u8], is_end: bool) {
        self.front.extend_from_slice(read);
        let whole = match dump.whole(self.direction, &self.front) {
            0 if is_end => self.front.len(),
            whole => whole,
        };
        if whole > 0 {
            let rest = self.front.split_off(whole);
            let bytes = std::mem::replace(&mut self.front, rest);
            self.hold(dump, bytes);
        }
    }

    /// Takes the beginning of a write: whole frames if there are any.
    pub(super) fn hold_write(&mut self, dump: &Arc<FlowDump>, bufs: &[IoSlice<'_>]) {
        let mut bytes = Vec::new();
        for buf in bufs {
            let (taken, _) = buf.split_at(buf.len().min(LONGEST - bytes.len()));
            bytes.extend_from_slice(taken);
        }
        match dump.whole(self.direction, &bytes) {
            0 => {}
            whole => bytes.truncate(whole),
        }
        self.hold(dump, bytes);
    }

    fn hold(&mut self, dump: &Arc<FlowDump>, bytes: Vec<u8>) {
        dump.put(self.direction, &bytes);
        self.bytes = bytes;
        self.gone = 0;
        let dump = Arc::clone(dump);
        let waiting = self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner);
        *waiting = Some(Box::pin(async move { dump.ready().await }));
    }

    /// Waits until all that is held is written, and gives what has not gone on.
    ///
    /// # Errors
    /// [`Stalled`]; nothing goes on after that.
    pub(super) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let waiting = self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(future) = waiting {
            let written = ready!(future.as_mut().poll(cx));
            *waiting = None;
            written.map_err(over)?;
        }
        Poll::Ready(Ok(self.bytes.get(self.gone..).unwrap_or_default()))
    }

    /// Says that so many bytes have gone on.
    pub(super) fn go(&mut self, count: usize) {
        self.gone += count;
    }

    /// Says that all of it has gone on; tells how many bytes that were.
    pub(super) fn done(&mut self) -> usize {
        self.gone = 0;
        let count = self.bytes.len();
        self.bytes.clear();
        count
    }

    /// Gives as many bytes as there is room for.
    pub(super) fn give(&mut self, out: &mut ReadBuf<'_>) {
        let rest = self.bytes.get(self.gone..).unwrap_or_default();
        let (given, left) = rest.split_at(rest.len().min(out.remaining()));
        out.put_slice(given);
        if left.is_empty() {
            self.bytes = Vec::new();
            self.gone = 0;
        } else {
            self.gone += given.len();
        }
    }
}

/// The stream is over.
pub(super) fn over(stalled: Stalled) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, stalled)
}
