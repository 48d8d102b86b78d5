//! How long a stopping daemon waits for its tasks.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Tasks;

/// A year is as good as for ever, and a time that `Instant` can hold.
const FOREVER: Duration = Duration::from_secs(365 * 86400);

/// Tasks that were ordered to quit at once get so long to write their last record.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The time that a stop grants to running tasks, handed to [`Daemon::stop`](crate::Daemon::stop).
#[derive(Clone, Debug)]
pub struct Drain {
    deadline: watch::Sender<Instant>,
    quit: Duration,
    pub(crate) cut_short: CancellationToken,
}

impl Drain {
    /// A drain that begins now: tasks get `wait` to end by themselves, those that are then ordered to quit get `quit`.
    pub fn starting_now(wait: Duration, quit: Duration) -> Self {
        Self {
            deadline: watch::Sender::new(Instant::now() + wait.min(FOREVER)),
            quit: quit.clamp(LAST_WORDS, FOREVER),
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

    /// Waits until `tasks` are done or the drain is over; tells whether none is left.
    pub async fn wait(&self, tasks: &Tasks) -> bool {
        tokio::select! {
            () = self.over() => {}
            _ = tasks.wait(FOREVER) => {}
        }
        tasks.alive() == 0
    }

    /// Orders `tasks` to quit and waits until they are done or their time for it is over; tells whether none is left.
    ///
    /// Done to `Context::tasks` after [`Daemon::stop`](crate::Daemon::stop) in any case; a daemon that then drops what
    /// its tasks run on does it itself before.
    pub async fn quit(&self, tasks: &Tasks) -> bool {
        tasks.quit();
        let forced = async {
            self.cut_short.cancelled().await;
            sleep(LAST_WORDS).await;
        };
        tokio::select! {
            _ = tasks.wait(self.quit) => {}
            () = forced => {}
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
        assert!(Drain::starting_now(60 * SECOND, SECOND).wait(&tasks).await);
        assert_eq!(begin.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_at_its_deadline_and_when_cut_short() {
        let tasks = Tasks::new();
        tasks.spawn(std::future::pending::<()>());
        let begin = Instant::now();
        let drain = Drain::starting_now(60 * SECOND, 9 * SECOND);
        assert!(!drain.wait(&tasks).await);
        assert_eq!(begin.elapsed().as_secs(), 60);
        assert!(!drain.quit(&tasks).await);
        assert_eq!(begin.elapsed().as_secs(), 69);
        let drain = Drain::starting_now(Duration::MAX, Duration::MAX);
        drain.cut_short.cancel();
        assert!(!drain.wait(&tasks).await && !drain.quit(&tasks).await);
        assert_eq!(begin.elapsed().as_secs(), 69);
    }

    #[tokio::test(start_paused = true)]
    async fn its_deadline_moves_while_it_lasts() {
        let tasks = Tasks::new();
        tasks.spawn(std::future::pending::<()>());
        let begin = Instant::now();
        let drain = Drain::starting_now(Duration::MAX, SECOND);
        let sooner = drain.clone();
        tokio::join!(drain.wait(&tasks), async { sooner.set(5 * SECOND) });
        assert_eq!(begin.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_hear_the_order_to_quit_end_it() {
        let tasks = Tasks::new();
        let clone = tasks.clone();
        tasks.spawn(async move { clone.quitting().await });
        assert!(Drain::starting_now(SECOND, 60 * SECOND).quit(&tasks).await);
    }
}
