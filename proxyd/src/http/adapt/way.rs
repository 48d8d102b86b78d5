//! Where the upstream of an adapted request comes from.

use std::future::{Future, ready};

use crate::error::TaskError;
use crate::http::exchange::Upstream;
use crate::task::Task;

/// Leads to an upstream once it is known that the request goes on.
pub(crate) trait Way: Send {
    /// The upstream; with `again` another one, since the last one was closed before it had answered.
    ///
    /// # Errors
    /// Why there is none.
    fn upstream(
        &mut self,
        task: &mut Task,
        again: bool,
    ) -> impl Future<Output = Result<&mut Upstream, TaskError>> + Send;

    /// Whether a request without a body may be sent once more.
    fn may_repeat(&self) -> bool;
}

/// The way over a connection that stands already.
pub(crate) struct Standing<'a>(pub(crate) &'a mut Upstream);

impl Way for Standing<'_> {
    fn upstream(&mut self, _: &mut Task, _: bool) -> impl Future<Output = Result<&mut Upstream, TaskError>> + Send {
        ready(Ok(&mut *self.0))
    }

    fn may_repeat(&self) -> bool {
        false
    }
}
