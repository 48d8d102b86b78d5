//! Pipes for splicing, pooled per thread.
//!
//! Pipe pages are a quota of the user, so the pool is bounded; a pump that gets no pipe goes on copying.

use std::cell::RefCell;

use sluice_sys::splice::Pipe;

/// Bytes a pipe holds. Larger ones spare system calls, but their pages fall out of the cache.
pub(crate) const CAPACITY: usize = 256 * 1024;
/// Pipes that one thread has open at most, lent ones included.
const MOST: usize = 64;

#[derive(Default)]
struct Pool {
    free: Vec<Pipe>,
    open: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// A pipe on loan; it goes back to the pool of the thread that drops it.
pub(crate) struct Lent(Option<Pipe>);

/// An empty pipe, or `None` if the thread has its share or the kernel refuses.
pub(crate) fn take() -> Option<Lent> {
    POOL.with_borrow_mut(|pool| {
        if let Some(pipe) = pool.free.pop() {
            return Some(Lent(Some(pipe)));
        }
        if pool.open >= MOST {
            return None;
        }
        let pipe = Pipe::open(CAPACITY).ok()?;
        pool.open += 1;
        Some(Lent(Some(pipe)))
    })
}

impl Lent {
    pub(crate) fn get(&mut self) -> &mut Pipe {
        self.0.as_mut().expect("only `drop` takes it")
    }

    pub(crate) fn held(&self) -> usize {
        self.0.as_ref().map_or(0, Pipe::held)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(pipe) = self.0.take() else { return };
        // The pool is gone when its thread ends: then the pipe just closes.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pipe.held() == 0 {
                pool.free.push(pipe);
            } else {
                pool.open = pool.open.saturating_sub(1);
            }
        });
    }
}
