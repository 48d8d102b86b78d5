//! The main loop: takes orders from signals and the control socket until the daemon has stopped.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sluice_telemetry::{notice, warn};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::RuntimeConfig;
use crate::methods::{Asked, Process};
use crate::shutdown::{Machine, Order, State, Step};
use crate::signals::{self, Signals};
use crate::{Daemon, Drain, Tasks, notify};

/// Tasks that were ordered to quit at once get so long to write their last record.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why the main loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As asked for.
    Asked,
    /// A thread panicked and `--panic-quit` was given.
    Panicked,
}

/// A running daemon, and what its end needs.
pub(crate) struct Supervisor<D: Daemon> {
    pub(crate) process: Arc<Process<D>>,
    pub(crate) runtime: RuntimeConfig,
    pub(crate) background: Tasks,
    pub(crate) orders: mpsc::Receiver<Asked>,
    pub(crate) state: watch::Sender<State>,
    pub(crate) signals: Signals,
    /// Lets a successor in: closes the shared control socket, gives the lock back.
    pub(crate) make_room: CancellationToken,
}

type Draining = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<D: Daemon> Supervisor<D> {
    /// Runs until the daemon has stopped.
    pub(crate) async fn run(mut self) -> Ended {
        let mut machine = Machine::online(self.runtime.server_offline_delay, self.runtime.task_wait_timeout);
        let mut wait_until: Option<Instant> = None;
        let mut drain: Option<(Drain, Draining)> = None;
        let mut ended = Ended::Asked;
        loop {
            let step = tokio::select! {
                Some((order, tell)) = self.orders.recv() => {
                    let (step, told) = machine.order(order);
                    // Who asked may be gone by now.
                    let _ = tell.send(told);
                    if matches!(order, Order::Cancel) && machine.state() == State::Online {
                        wait_until = None;
                    }
                    step
                }
                asked = self.signals.next() => match asked {
                    signals::Asked::Reload => self.hang_up(),
                    signals::Asked::Stop => machine.order(Order::Offline { delay: None, drain: None }).0,
                    signals::Asked::Quit => machine.order(Order::Force).0,
                },
                () = self.process.panics.quit() => {
                    ended = Ended::Panicked;
                    machine.order(Order::Force).0
                }
                () = at(wait_until) => {
                    wait_until = None;
                    machine.waited()
                }
                () = done(&mut drain) => return ended,
            };
            match step {
                Step::Stay => {}
                Step::Wait(delay) => {
                    wait_until = Some(Instant::now() + delay);
                    notice!("shutdown asked for, serving on until it is due"; "in" => ?delay);
                }
                Step::Drain(wait) => {
                    wait_until = None;
                    let settle = self.runtime.task_wait_delay;
                    match &drain {
                        Some((running, _)) => running.set(wait),
                        None => drain = Some(self.begin_drain(Drain::starting_now(settle, wait), wait)),
                    }
                }
                Step::Quit => {
                    let (running, _) = drain.get_or_insert_with(|| {
                        self.begin_drain(Drain::starting_now(Duration::ZERO, Duration::ZERO), Duration::ZERO)
                    });
                    running.cut_short.cancel();
                }
            }
            self.state.send_replace(machine.state());
        }
    }

    fn hang_up(&self) -> Step {
        let process = Arc::clone(&self.process);
        self.process.service.spawn(async move {
            if process.reloader.reload().await.is_ok() {
                process.daemon.hung_up().await;
            }
        });
        Step::Stay
    }

    fn begin_drain(&mut self, drain: Drain, limit: Duration) -> (Drain, Draining) {
        let process = Arc::clone(&self.process);
        notice!("stopping"; "tasks" => process.tasks.alive(), "at_most" => ?limit);
        notify::stopping("draining", limit.saturating_add(self.runtime.task_quit_timeout));
        self.make_room.cancel();
        let (background, granted) = (self.background.clone(), drain.clone());
        let quit_timeout = self.runtime.task_quit_timeout;
        let draining = async move {
            process.tasks.stop();
            process.daemon.stop(granted.clone()).await;
            quit(&process.tasks, &granted, quit_timeout).await;
            background.quit();
            background.wait(LAST_WORDS).await;
        };
        (drain, Box::pin(draining))
    }
}

/// Orders the tasks that are left to quit and waits for them, shortly if the drain was cut short.
async fn quit(tasks: &Tasks, drain: &Drain, limit: Duration) {
    tasks.quit();
    let forced = async {
        drain.cut_short.cancelled().await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        _ = tasks.wait(limit.max(LAST_WORDS)) => {}
        () = forced => {}
    }
    if tasks.alive() > 0 {
        warn!("tasks are dropped"; "tasks" => tasks.alive());
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

async fn done(drain: &mut Option<(Drain, Draining)>) {
    match drain {
        Some((_, draining)) => draining.await,
        None => pending().await,
    }
}
