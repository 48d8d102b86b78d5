//! Upstream connections that wait for their next request, per worker and across clients.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use sluice_addr::Upstream;
use sluice_config::value::SpeedLimitTcp;
use sluice_io::Stream;

use crate::connect::Path;

/// Connections that one worker keeps; the oldest of a target goes when it has too many.
const MOST: usize = 4096;
/// Connections to one target.
const MOST_EACH: usize = 512;
/// Pause between two looks for connections that have waited too long.
const SWEEP: Duration = Duration::from_secs(10);

/// What two requests must have in common to share a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The escaper's generation: unique among escapers, and new whenever its configuration changes.
    pub(crate) escaper: u64,
    /// The user, in the configuration that it has: what is a user's own is used by nobody else (H1-15).
    pub(crate) user: Option<u64>,
    /// The next proxy that the login asked for.
    pub(crate) egress: Option<Upstream>,
    pub(crate) tls: Tls,
    /// Number id of egress path selection.
    pub(crate) path_index: Option<u64>,
    pub(crate) upstream: Upstream,
}

/// Whose TLS settings a connection was set up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Tls {
    Plain,
    /// Those of the server of this generation.
    Server(u64),
    /// Those of a user's site, by the number of its settings.
    Site(u64),
}

/// A connection that was used before.
pub(crate) struct Kept {
    pub(crate) stream: Stream,
    pub(crate) path: Box<Path>,
    pub(crate) limit: Option<SpeedLimitTcp>,
    since: Instant,
    expire: Duration,
}

/// The connections of one worker.
pub(crate) struct Pool {
    kept: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    by_key: HashMap<Key, Vec<Kept>, RandomState>,
    count: usize,
}

impl Kept {
    pub(crate) fn new(stream: Stream, path: Box<Path>, limit: Option<SpeedLimitTcp>, expire: Duration) -> Self {
        Self {
            stream,
            path,
            limit,
            since: Instant::now(),
            expire,
        }
    }

    /// Whether it may be used: not too old, and not closed by its peer.
    pub(crate) fn is_fit(&self) -> bool {
        self.since.elapsed() < self.expire && is_quiet(&self.stream)
    }
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self { kept: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, if one is there that its peer has not closed.
    pub(crate) fn take(&self, key: &Key) -> Option<Kept> {
        let mut kept = self.lock();
        let kept = &mut *kept;
        let waiting = kept.by_key.get_mut(key)?;
        while let Some(connection) = waiting.pop() {
            kept.count -= 1;
            if connection.is_fit() {
                if waiting.is_empty() && waiting.capacity() > 64 {
                    kept.by_key.remove(key);
                }
                return Some(connection);
            }
        }
        kept.by_key.remove(key);
        None
    }

    /// Keeps a connection.
    pub(crate) fn put(&self, key: Key, connection: Kept) {
        let mut kept = self.lock();
        if kept.count >= MOST {
            return;
        }
        let waiting = kept.by_key.entry(key).or_default();
        let full = waiting.len() >= MOST_EACH;
        if full {
            waiting.remove(0);
        }
        waiting.push(connection);
        if !full {
            kept.count += 1;
        }
    }

    /// Closes what has waited too long or was closed by its peer, from time to time; never returns.
    pub(crate) async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let mut kept = self.lock();
            let kept = &mut *kept;
            kept.by_key.retain(|_, waiting| {
                waiting.retain(Kept::is_fit);
                !waiting.is_empty()
            });
            kept.count = kept.by_key.values().map(Vec::len).sum();
        }
    }
}

/// Whether nothing has come on a connection that waits: bytes there would belong to no request, and an end is an end.
/// Costs no system call while the kernel has not reported anything.
fn is_quiet(stream: &Stream) -> bool {
    match stream {
        Stream::Plain(tcp) => {
            matches!(tcp.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        }
        // What lies under TLS may be a session ticket; whether the connection is still good shows at its use.
        Stream::Secure(_) | Stream::Inside(_) => true,
    }
}
