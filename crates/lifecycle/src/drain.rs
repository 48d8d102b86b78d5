//! How long a stopping daemon waits for its tasks.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Tasks;

/// A year is as good as for ever, and a time that `Instant` can hold.
const FOREVER: Duration = Duration::from_secs(365 * 86400);

/// The time that a stop grants to running tasks, handed to [`Daemon::stop`](crate::Daemon::stop).
#[derive(Clone, Debug)]
pub struct Drain {
    settle: Duration,
    deadline: watch::Sender<Instant>,
    pub(crate) cut_short: CancellationToken,
}

impl Drain {
    /// A drain that begins now: connections that still negotiate get `settle` to become tasks, tasks get `wait` to
    /// end after that.
    pub fn starting_now(settle: Duration, wait: Duration) -> Self {
        Self {
            settle,
            deadline: watch::Sender::new(Instant::now() + settle.min(FOREVER) + wait.min(FOREVER)),
            cut_short: CancellationToken::new(),
        }
    }

    /// When waiting ends; it may move while the drain lasts.
    pub fn deadline(&self) -> Instant {
        *self.deadline.borrow()
    }

    /// Moves the deadline to `wait` from now.
    pub(crate) fn set(&self, wait: Duration) {
        self.deadline.send_replace(Instant::now() + wait.min(FOREVER));
    }

    /// Ends when waiting is over: at the deadline, or when somebody forces the daemon to quit.
    pub async fn over(&self) {
        let mut moved = self.deadline.subscribe();
        loop {
            let deadline = *moved.borrow_and_update();
            tokio::select! {
                () = sleep_until(deadline) => return,
                () = self.cut_short.cancelled() => return,
                // The sender lives in `self`, so this is a new deadline.
                _ = moved.changed() => {}
            }
        }
    }

    /// Waits until `tasks` are done, not before connections have settled, and at most until the drain is over; tells
    /// whether none is left.
    pub async fn wait(&self, tasks: &Tasks) -> bool {
        tokio::select! {
            () = self.over() => {}
            () = async {
                sleep(self.settle).await;
                tasks.wait(FOREVER).await;
            } => {}
        }
        tasks.alive() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_lasts_until_tasks_are_done() {
        let tasks = Tasks::new();
        tasks.spawn(sleep(3 * SECOND));
        let begin = Instant::now();
        assert!(Drain::starting_now(SECOND, 60 * SECOND).wait(&tasks).await);
        assert_eq!(begin.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_at_its_deadline_and_when_cut_short() {
        let tasks = Tasks::new();
        tasks.spawn(std::future::pending::<()>());
        let begin = Instant::now();
        assert!(!Drain::starting_now(SECOND, 60 * SECOND).wait(&tasks).await);
        assert_eq!(begin.elapsed().as_secs(), 61);
        let drain = Drain::starting_now(SECOND, Duration::MAX);
        drain.cut_short.cancel();
        assert!(!drain.wait(&tasks).await);
        assert_eq!(begin.elapsed().as_secs(), 61);
    }

    #[tokio::test(start_paused = true)]
    async fn its_deadline_moves_while_it_lasts() {
        let tasks = Tasks::new();
        tasks.spawn(std::future::pending::<()>());
        let begin = Instant::now();
        let drain = Drain::starting_now(SECOND, Duration::MAX);
        let sooner = drain.clone();
        tokio::join!(drain.wait(&tasks), async { sooner.set(5 * SECOND) });
        assert_eq!(begin.elapsed().as_secs(), 5);
    }
}
