//! Tunnels: connections whose bytes pass through, whatever they are.

use std::time::Duration;

use sluice_config::value::SpeedLimitTcp;
use sluice_io::Stream;
use sluice_io::relay::{IdleCheck, Relay, RelayEnd, Side, Watch};

use crate::client::Client;
use crate::error::TaskError;
use crate::record::Event;
use crate::task::Task;
use crate::traffic::Tally;
use crate::worker::Worker;

/// Makes a task of its own of a tunnel: a small one, without what its set-up needed. `from_upstream` are bytes that the
/// upstream has sent already; they and what is left in the client's buffer go first. `limit` is the escaper's.
pub(crate) fn spawn(
    worker: &Worker,
    mut client: Client,
    (upstream, from_upstream, limit): (Stream, Vec<u8>, Option<SpeedLimitTcp>),
    mut task: Task,
) {
    task.relaying();
    let from_client = if client.buf.is_empty() {
        Vec::new()
    } else {
        client.buf.take_all()
    };
    task.traffic.read_client(from_client.len() as u64);
    let idle = IdleCheck {
        timer: client.timer,
        interval: task.server().options.check_interval(),
    };
    let pumps = task.pumps(limit);
    let (up, down) = task.shared_limits();
    let mut relay = Relay::new(
        (client.stream, from_client),
        (upstream, from_upstream),
        pumps,
        idle,
        Tunnel::new(task),
    );
    for (side, limit) in [(Side::Client, up), (Side::Upstream, down)] {
        if let Some(limit) = limit {
            relay.share(side, limit);
        }
    }
    worker.spawn(relay);
}

/// A task that has become a tunnel.
struct Tunnel {
    task: Task,
    checks: Checks,
}

/// The regular checks of a task that goes on until something ends it.
#[derive(Default)]
pub(crate) struct Checks {
    /// Nanoseconds since the last periodic record.
    since_log: Tally,
}

impl Checks {
    /// Writes a periodic record if it is time for one. Why the task must end, if it must: for `idle` checks in a row
    /// nothing has passed.
    pub(crate) fn run(&self, task: &Task, idle: usize) -> Option<TaskError> {
        if let Some(end) = task.must_end() {
            return Some(end);
        }
        let options = &task.server().options;
        let interval = options.check_interval();
        if let Some(every) = options.log_interval {
            let since = Duration::from_nanos(self.since_log.get()) + interval;
            let is_due = since >= every;
            self.since_log.set(if is_due {
                0
            } else {
                u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
            });
            if is_due {
                task.log(Event::Periodic);
            }
        }
        let idle = interval.as_nanos() * idle as u128;
        (idle >= task.stall_limit().as_nanos()).then_some(TaskError::Idle)
    }
}

impl Tunnel {
    fn new(task: Task) -> Self {
        Self {
            task,
            checks: Checks::default(),
        }
    }

    fn note_end(&mut self, end: RelayEnd) {
        let error = match end {
            RelayEnd::Closed(Side::Client) => TaskError::ClosedByClient,
            RelayEnd::Closed(Side::Upstream) => TaskError::ClosedByUpstream,
            RelayEnd::Idle => TaskError::Idle,
            RelayEnd::MustEnd => self.task.must_end().unwrap_or(TaskError::ServerQuit),
            RelayEnd::ReadFailed(Side::Client, error) => TaskError::ClientRead(error),
            RelayEnd::WriteFailed(Side::Client, error) => TaskError::ClientWrite(error),
            RelayEnd::ReadFailed(Side::Upstream, error) => TaskError::UpstreamRead(error),
            RelayEnd::WriteFailed(Side::Upstream, error) => TaskError::UpstreamWrite(error),
        };
        self.task.failed(&error);
    }
}

impl Watch for Tunnel {
    fn read(&self, side: Side, n: u64) {
        match side {
            Side::Client => self.task.traffic.read_client(n),
            Side::Upstream => self.task.traffic.read_remote(n),
        }
    }

    fn wrote(&self, side: Side, n: u64) {
        match side {
            Side::Client => self.task.traffic.wrote_client(n),
            Side::Upstream => self.task.traffic.wrote_remote(n),
        }
    }

    fn half_closed(&self, side: Side) {
        self.task.log(match side {
            Side::Client => Event::ClientShutdown,
            Side::Upstream => Event::UpstreamShutdown,
        });
    }

    fn check(&self, idle: usize) -> Option<RelayEnd> {
        Some(match self.checks.run(&self.task, idle)? {
            TaskError::Idle => RelayEnd::Idle,
            _ => RelayEnd::MustEnd,
        })
    }

    fn ended(&mut self, end: RelayEnd) {
        self.note_end(end);
    }
}
