//! Tasks that are counted and told to stop.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A set of tasks with two orders: *stop* (take nothing new, finish what is begun) and *quit* (end now).
///
/// The only place where the workspace spawns. Clones are the same set; [`Tasks::child`] is a set inside it, which can
/// be stopped alone (a server that a reload replaced) and hears every order given to its parent.
#[derive(Clone, Debug)]
pub struct Tasks {
    stop: CancellationToken,
    quit: CancellationToken,
    tracker: TaskTracker,
    /// The outermost set's; of a set that is outermost itself, one that nobody looks at.
    outer: TaskTracker,
    is_child: bool,
}

impl Tasks {
    /// An empty set of its own.
    pub fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            quit: CancellationToken::new(),
            tracker: closed(),
            outer: TaskTracker::new(),
            is_child: false,
        }
    }

    /// A set inside this one: its tasks count in both. Of a child's child they count in it and in the outermost set.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            stop: self.stop.child_token(),
            quit: self.quit.child_token(),
            tracker: closed(),
            outer: if self.is_child { &self.outer } else { &self.tracker }.clone(),
            is_child: true,
        }
    }

    /// Runs `task` on the current runtime.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_on(task, &Handle::current())
    }

    /// Runs `task` on `runtime`.
    pub fn spawn_on<F>(&self, task: F, runtime: &Handle) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // An async block around `task` would take up its size twice, for its capture and for its state.
        self.tracker.spawn_on(self.outer.track_future(task), runtime)
    }

    /// Runs `work`, which blocks, on a thread of the current runtime's pool for that.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn spawn_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.tracker.spawn_blocking(work)
    }

    /// Tasks that have not ended.
    pub fn alive(&self) -> usize {
        self.tracker.len()
    }

    /// Ends once the order to stop is given: take nothing new.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the order to stop is given.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Ends once the order to quit is given: end now.
    pub async fn quitting(&self) {
        self.quit.cancelled().await;
    }

    /// Whether the order to quit is given; for a check at an idle tick.
    pub fn is_quitting(&self) -> bool {
        self.quit.is_cancelled()
    }

    /// Gives the order to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Gives the order to quit, which includes to stop.
    pub fn quit(&self) {
        self.stop.cancel();
        self.quit.cancel();
    }

    /// Waits until no task is left, or at most `limit`; tells whether none is left.
    pub async fn wait(&self, limit: Duration) -> bool {
        timeout(limit, self.tracker.wait()).await.is_ok()
    }

    /// Gives the order to stop and waits like [`Tasks::wait`].
    pub async fn close_and_wait(&self, limit: Duration) -> bool {
        self.stop();
        self.wait(limit).await
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

/// A tracker whose `wait` ends as soon as it is empty; being closed does not keep it from spawning.
fn closed() -> TaskTracker {
    let tracker = TaskTracker::new();
    tracker.close();
    tracker
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tasks_hear_the_orders_and_are_waited_for() {
        let tasks = Tasks::new();
        let clone = tasks.clone();
        tasks.spawn(async move { clone.stopping().await });
        let clone = tasks.clone();
        tasks.spawn(async move { clone.quitting().await });
        assert_eq!(tasks.alive(), 2);
        assert!(!tasks.close_and_wait(Duration::from_secs(1)).await);
        assert_eq!(tasks.alive(), 1);
        tasks.quit();
        assert!(tasks.wait(Duration::from_secs(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_stops_alone_and_counts_in_the_outermost() {
        let root = Tasks::new();
        let child = root.child();
        let grandchild = child.child();
        for set in [&child, &grandchild] {
            let tasks = set.clone();
            set.spawn(async move { tasks.stopping().await });
        }
        assert_eq!((root.tracker.len(), child.alive(), grandchild.alive()), (2, 1, 1));
        assert!(child.close_and_wait(Duration::from_secs(1)).await);
        assert!(grandchild.is_stopping() && !root.is_stopping());
        assert!(root.wait(Duration::from_secs(1)).await);
    }

    #[tokio::test]
    async fn a_panic_in_a_task_ends_that_task_alone() {
        let tasks = Tasks::new();
        let failed = tasks.spawn(async { panic!("on purpose") }).await;
        assert!(failed.unwrap_err().is_panic());
        assert_eq!(tasks.alive(), 0);
    }
}
