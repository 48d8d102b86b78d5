//! Records on their way to auditd.

mod queue;
#[cfg(test)]
mod tests;
mod thread;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sluice_wire::audit::Flow;
use tokio::sync::watch;

pub use queue::Full;
use queue::Queue;

use crate::{BusError, Waker};

/// Where records go, and how many wait.
#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// The socket of auditd.
    pub path: PathBuf,
    /// Who we are, for auditd's log.
    pub name: String,
    /// Bytes of records that wait to be sent and to be acknowledged. More are refused.
    pub queue: usize,
    /// An auditd that has never answered, nor left a socket, is [expected](Sender::is_expected) for so long.
    pub grace: Duration,
}

/// Where in the order of all records one stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

impl Position {
    /// Before all records: acknowledged from the beginning.
    pub const START: Self = Self(0);
}

/// What has happened until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderStats {
    /// Records that were taken.
    pub records: u64,
    /// Records that were refused, and are lost.
    pub dropped: u64,
    /// Bytes of these.
    pub dropped_bytes: u64,
    /// Batches that are acknowledged.
    pub acknowledged: u64,
    /// Batches that were sent again.
    pub resent: u64,
    /// Bytes that wait.
    pub waiting: u64,
    /// Whether auditd has answered the last hello.
    pub connected: bool,
}

/// The sending side: one for a process, shared by its threads.
///
/// Records are appended by any thread without waiting. A thread of the sender's own puts them into batches, sends them,
/// and keeps them until auditd says that they are written; it sends them again to an auditd that was started anew.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Queue,
    waker: Waker,
    acknowledged: watch::Sender<u64>,
    resent: AtomicU64,
    connected: AtomicBool,
    expected: AtomicBool,
    given_up: AtomicBool,
    /// Somebody waits until what is told is written.
    urgent: AtomicBool,
}

impl Sender {
    /// Begins to send; nobody need be there yet.
    ///
    /// # Errors
    /// [`BusError`] if the path can never be connected to, or the thread cannot be started.
    pub fn start(config: &SenderConfig) -> Result<Self, BusError> {
        let mut stream = [0; 16];
        getrandom::fill(&mut stream).map_err(|e| BusError::Wait(io::Error::other(e.to_string())))?;
        let shared = Arc::new(Shared {
            queue: Queue::new(config.queue),
            waker: Waker::new()?,
            acknowledged: watch::Sender::new(0),
            resent: AtomicU64::new(0),
            connected: AtomicBool::new(false),
            expected: AtomicBool::new(true),
            given_up: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
        });
        let mut line = thread::Line::open(config, stream, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new()
            .name("audit-sender".to_owned())
            .spawn(move || line.run())
            .map_err(BusError::Wait)?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Appends one record (one of `sluice_wire::audit`'s `put_*` wrote it) and tells where it stands.
    ///
    /// # Errors
    /// [`Full`]: the record is lost, which is counted, and will be marked in the stream.
    pub fn push(&self, now: u64, record: &[u8]) -> Result<Position, Full> {
        let pushed = self.shared.queue.push(now, record);
        self.pushed(pushed)
    }

    /// Appends a record even if the queue is full, for those who then wait until it is [acknowledged](Self::acknowledged):
    /// twice as much as the queue holds is taken.
    ///
    /// # Errors
    /// [`Full`] beyond that: the record is lost, which is counted, and will be marked in the stream.
    pub fn push_and_wait(&self, now: u64, record: &[u8]) -> Result<Position, Full> {
        let (position, _) = self.shared.queue.push_over(now, record)?;
        self.hurry();
        Ok(position)
    }

    /// Tells about a flow, now and to each auditd to come, until it [ends](Self::end).
    pub fn begin(&self, flow: &Flow) -> Position {
        let (position, wake) = self.shared.queue.begin(flow);
        self.wake(wake);
        position
    }

    /// Tells that a flow has ended.
    pub fn end(&self, flow: u64) {
        let wake = self.shared.queue.end(flow);
        self.wake(wake);
    }

    /// Waits until the record at `position`, and all before it, are written.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn acknowledged(&self, position: Position) {
        let mut seen = self.shared.acknowledged.subscribe();
        // The channel lives as long as we do.
        let _ = seen.wait_for(|acknowledged| *acknowledged >= position.0).await;
    }

    /// Whether the record at `position`, and all before it, are written.
    pub fn is_acknowledged(&self, position: Position) -> bool {
        *self.shared.acknowledged.borrow() >= position.0
    }

    /// Whether there is an auditd, was one, or may be on its way: `false` where nobody seems to run one. What is told
    /// nevertheless is kept for the one that comes.
    #[inline]
    pub fn is_expected(&self) -> bool {
        self.shared.expected.load(Ordering::Relaxed)
    }

    /// What has happened until now.
    pub fn stats(&self) -> SenderStats {
        let mut stats = self.shared.queue.stats();
        stats.acknowledged = *self.shared.acknowledged.borrow();
        stats.resent = self.shared.resent.load(Ordering::Relaxed);
        stats.connected = self.shared.connected.load(Ordering::Relaxed);
        stats
    }

    /// Waits until all that was taken is acknowledged, at most `limit`; tells whether it is. Blocks.
    pub fn flush(&self, limit: Duration) -> bool {
        let start = Instant::now();
        while !self.shared.queue.is_empty() {
            let Some(left) = limit.checked_sub(start.elapsed()) else {
                return false;
            };
            self.hurry(); // what was lost last is marked now
            std::thread::park_timeout(left.min(Duration::from_millis(5)));
        }
        true
    }

    /// [Flushes](Self::flush), and ends.
    pub fn finish(self, limit: Duration) -> bool {
        self.flush(limit)
    }

    fn pushed(&self, pushed: Result<(Position, bool), Full>) -> Result<Position, Full> {
        let (position, wake) = pushed?;
        self.wake(wake);
        Ok(position)
    }

    /// Somebody waits.
    fn hurry(&self) {
        self.shared.urgent.store(true, Ordering::Release);
        self.shared.waker.wake();
    }

    fn wake(&self, wake: bool) {
        if wake {
            self.shared.waker.wake();
        }
    }

    fn stop(&mut self) {
        self.shared.given_up.store(true, Ordering::Release);
        self.shared.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it has told about its panic itself
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop();
    }
}
