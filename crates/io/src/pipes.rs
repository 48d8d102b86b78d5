//! Pipes for splicing, pooled per thread.
//!
//! Pipe pages are a quota of the user, so the pool is bounded; a pump that gets no pipe goes on copying.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_sys::splice::Pipe;

/// Bytes a pipe holds: all that a user may ask for (`pipe-max-size`). While the thread sends this much, the source's
/// packets come in undisturbed; with a quarter of it the thread takes the socket's lock so often that it has to process
/// them itself, which costs half as much again.
pub(crate) const LARGE: usize = 1 << 20;
/// Large pipes of the process: half of a user's quota of 64 MiB (`pipe-user-pages-soft`).
const MOST_LARGE: usize = 32;
/// Bytes that the other pipes hold.
const SMALL: usize = 256 * 1024;
/// A pipe that holds less than this is not worth having.
const LEAST: usize = 64 * 1024;
/// Pipes that one thread has open at most, lent ones included.
const MOST: usize = 64;

/// Large pipes that are open, in all threads.
static OPEN_LARGE: AtomicUsize = AtomicUsize::new(0);

#[derive(Default)]
struct Pool {
    free: Vec<Owned>,
    open: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// A pipe, and its share in the number of large ones.
struct Owned {
    pipe: Pipe,
    _large: Option<Large>,
}

/// One of the large pipes, counted while it exists.
struct Large;

impl Large {
    fn new() -> Option<Self> {
        let large = Self;
        (OPEN_LARGE.fetch_add(1, Ordering::Relaxed) < MOST_LARGE).then_some(large)
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        OPEN_LARGE.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Owned {
    fn open() -> Option<Self> {
        let large = Large::new();
        let pipe = Pipe::open(if large.is_some() { LARGE } else { SMALL }).ok()?;
        // A user whose quota is used up gets pipes that hold less than a copy takes.
        (pipe.capacity() >= LEAST).then_some(Self {
            _large: large.filter(|_| pipe.capacity() >= LARGE),
            pipe,
        })
    }
}

/// A pipe on loan; it goes back to the pool of the thread that drops it.
pub(crate) struct Lent(Option<Owned>);

/// An empty pipe, or `None` if the thread has its share or the kernel refuses.
pub(crate) fn take() -> Option<Lent> {
    POOL.with_borrow_mut(|pool| {
        if let Some(pipe) = pool.free.pop() {
            return Some(Lent(Some(pipe)));
        }
        if pool.open >= MOST {
            return None;
        }
        let pipe = Owned::open()?;
        pool.open += 1;
        Some(Lent(Some(pipe)))
    })
}

impl Lent {
    pub(crate) fn get(&mut self) -> &mut Pipe {
        &mut self.0.as_mut().expect("only `drop` takes it").pipe
    }

    pub(crate) fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |owned| owned.pipe.held())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(owned) = self.0.take() else { return };
        // The pool is gone when its thread ends: then the pipe just closes.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if owned.pipe.held() == 0 {
                pool.free.push(owned);
            } else {
                pool.open = pool.open.saturating_sub(1);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_a_share_of_pipes_and_not_all_are_large() {
        let lent: Vec<_> = std::iter::from_fn(take).collect();
        assert!(lent.len() <= MOST);
        let large = lent
            .iter()
            .filter(|lent| lent.0.as_ref().unwrap().pipe.capacity() >= LARGE)
            .count();
        assert!(large <= MOST_LARGE, "{large}");
        let open = lent.len();
        drop(lent);
        let again: Vec<_> = std::iter::from_fn(take).collect();
        assert_eq!(again.len(), open);
    }
}
