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

/// What runs in the background gets so long to end.
const BACKGROUND: Duration = Duration::from_millis(500);

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
        let RuntimeConfig {
            server_offline_delay,
            task_wait_delay,
            task_wait_timeout,
            ..
        } = self.runtime;
        let mut machine = Machine::online(server_offline_delay, task_wait_delay.saturating_add(task_wait_timeout));
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
                    match &drain {
                        Some((running, _)) => running.set(wait),
                        None => drain = Some(self.begin_drain(wait)),
                    }
                }
                Step::Quit => {
                    let (running, _) = drain.get_or_insert_with(|| self.begin_drain(Duration::ZERO));
                    running.cut_short.cancel();
                }
            }
            self.state.send_replace(machine.state());
        }
    }

    fn hang_up(&self) -> Step {
        let process = Arc::clone(&self.process);
        self.process.service.spawn(async move {
            if process.is_ending().is_none() && process.reloader.hang_up().await {
                process.daemon.hung_up().await;
            }
        });
        Step::Stay
    }

    fn begin_drain(&self, limit: Duration) -> (Drain, Draining) {
        let drain = Drain::starting_now(limit, self.runtime.task_quit_timeout);
        let process = Arc::clone(&self.process);
        notice!("stopping"; "tasks" => process.tasks.alive(), "at_most" => ?limit);
        notify::stopping("draining", limit.saturating_add(self.runtime.task_quit_timeout));
        self.make_room.cancel();
        let (background, granted) = (self.background.clone(), drain.clone());
        let draining = async move {
            process.tasks.stop();
            process.daemon.stop(granted.clone()).await;
            if !granted.quit(&process.tasks).await {
                warn!("tasks are dropped"; "tasks" => process.tasks.alive());
            }
            background.quit();
            background.wait(BACKGROUND).await;
        };
        (drain, Box::pin(draining))
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
