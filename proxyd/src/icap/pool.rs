//! Connections to services that wait for their next use, of each thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::connection::Connection;

thread_local! {
    /// By the number of the service.
    static KEPT: RefCell<HashMap<u64, Vec<Kept>>> = RefCell::default();
}

struct Kept {
    connection: Connection,
    since: Instant,
}

impl Kept {
    fn is_fit(&self, expire: Duration) -> bool {
        self.since.elapsed() < expire && self.connection.is_quiet()
    }
}

/// Makes room for the connections of a service on this thread; `false` if there is room already.
pub(super) fn open(service: u64) -> bool {
    KEPT.with_borrow_mut(|kept| {
        let is_new = !kept.contains_key(&service);
        kept.entry(service).or_default();
        is_new
    })
}

/// Closes all connections of a service on this thread.
pub(super) fn close(service: u64) {
    let gone = KEPT.with_borrow_mut(|kept| kept.remove(&service));
    drop(gone);
}

/// The connection that was used last, if one is there that the service has not closed.
pub(super) fn take(service: u64, expire: Duration) -> Option<Connection> {
    KEPT.with_borrow_mut(|kept| {
        let waiting = kept.get_mut(&service)?;
        while let Some(kept) = waiting.pop() {
            if kept.is_fit(expire) {
                let mut connection = kept.connection;
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    })
}

/// Keeps a connection, unless there are `most` already.
pub(super) fn put(service: u64, connection: Connection, most: usize) {
    KEPT.with_borrow_mut(|kept| {
        if let Some(waiting) = kept.get_mut(&service)
            && waiting.len() < most
        {
            waiting.push(Kept {
                connection,
                since: Instant::now(),
            });
        }
    });
}

/// Closes what has waited too long or was closed by the service; says how many are left.
pub(super) fn sweep(service: u64, expire: Duration) -> usize {
    KEPT.with_borrow_mut(|kept| {
        let Some(waiting) = kept.get_mut(&service) else {
            return 0;
        };
        waiting.retain(|kept| kept.is_fit(expire));
        waiting.len()
    })
}
