//! The copying buffer of a thread. It is borrowed inside one poll only, so that a connection which waits owns none.

use std::cell::RefCell;

/// Size of the buffer: the most that one read takes.
pub(crate) const SIZE: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SIZE].into_boxed_slice());
}

/// Lends the thread's buffer to `f`, which must not poll another pump inside.
pub(crate) fn with<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH.with_borrow_mut(|buf| f(buf))
}
