//! The sections that every daemon reads: `runtime`, `worker`, `log`, `stat`, `controller`, `naming`.

use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::value::{ByteSize, OneOrMany, SchedAffinity, Span};
use sluice_config::{Load, Misfit};
use sluice_control::Limits;
use sluice_telemetry::metrics::StatConfig;
use sluice_telemetry::{LogConfig, Naming};
use tokio::runtime::{Builder, Runtime};

use crate::Daemon;

/// The `runtime` section as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RuntimeSection {
    /// Worker threads; 0 and 1 both mean a single one. Default: one per CPU for proxyd, 1 for the others.
    thread_number: Option<usize>,
    /// Base of the threads' names. Default: `main`.
    thread_name: Option<String>,
    /// Stack of each worker thread, in bytes. Default: the system's.
    thread_stack_size: Option<ByteSize>,
    /// Events taken from the system at a time. Default: 1024.
    max_io_events_per_tick: Option<usize>,
    /// Time from the order to stop until listeners close. Default: 4s for proxyd, 0s for the others.
    server_offline_delay: Option<Span>,
    /// Time that connections which still negotiate get to become tasks. Default: 2s for proxyd, 0s for the others.
    task_wait_delay: Option<Span>,
    /// Time that tasks get to end by themselves. Default: 10h for proxyd, 5s for the others.
    task_wait_timeout: Option<Span>,
    /// Time that tasks get once they were forced to quit. Default: 30min for proxyd, 1s for the others.
    task_quit_timeout: Option<Span>,
}

/// The `runtime` section in force.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeConfig {
    /// Threads for the work; at least 1.
    pub thread_number: usize,
    /// Base of the threads' names.
    pub thread_name: String,
    /// Stack of each worker thread in bytes; `None`: the system's.
    pub thread_stack_size: Option<usize>,
    /// Events taken from the system at a time.
    pub max_io_events_per_tick: usize,
    /// Time from the order to stop until listeners close.
    pub server_offline_delay: Duration,
    /// Time that connections which still negotiate get to become tasks.
    pub task_wait_delay: Duration,
    /// Time that tasks get to end by themselves.
    pub task_wait_timeout: Duration,
    /// Time that tasks get once they were forced to quit.
    pub task_quit_timeout: Duration,
}

impl RuntimeSection {
    fn settle(self, data_plane: bool) -> RuntimeConfig {
        let time = |given: Option<Span>, data_plane_secs, helper_secs| match given {
            Some(span) => span.0,
            None => Duration::from_secs(if data_plane { data_plane_secs } else { helper_secs }),
        };
        let threads = if data_plane { cpus() } else { 1 };
        RuntimeConfig {
            thread_number: self.thread_number.unwrap_or(threads).max(1),
            thread_name: self.thread_name.unwrap_or_else(|| "main".to_owned()),
            thread_stack_size: self.thread_stack_size.and_then(|size| usize::try_from(size.0).ok()),
            max_io_events_per_tick: self.max_io_events_per_tick.unwrap_or(1024),
            server_offline_delay: time(self.server_offline_delay, 4, 0),
            task_wait_delay: time(self.task_wait_delay, 2, 0),
            task_wait_timeout: time(self.task_wait_timeout, 10 * 3600, 5),
            task_quit_timeout: time(self.task_quit_timeout, 30 * 60, 1),
        }
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl RuntimeConfig {
    /// The main runtime: of one thread in the data plane, which makes threads of its own for the work.
    pub(crate) fn build(&self, data_plane: bool) -> std::io::Result<Runtime> {
        let mut builder = if data_plane || self.thread_number == 1 {
            Builder::new_current_thread()
        } else {
            Builder::new_multi_thread()
        };
        builder
            .worker_threads(self.thread_number)
            .thread_name(&self.thread_name);
        if let Some(size) = self.thread_stack_size {
            builder.thread_stack_size(size);
        }
        builder
            .max_io_events_per_tick(self.max_io_events_per_tick)
            .enable_all()
            .build()
    }
}

/// The `worker` section: threads for the work, each with a runtime of its own.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "WorkerSection")]
pub struct WorkerConfig {
    /// Threads in all; `None`: one per CPU.
    pub thread_number: Option<NonZeroUsize>,
    /// Threads of each runtime, of which the number of all threads is a multiple; `None`: 1.
    pub thread_number_per_runtime: Option<NonZeroUsize>,
    /// Stack of each thread; `None`: the system's.
    pub thread_stack_size: Option<ByteSize>,
    /// CPUs of each runtime.
    pub sched_affinity: SchedAffinity,
    /// Events taken from the system at a time; `None`: 1024.
    pub max_io_events_per_tick: Option<usize>,
}

/// The `worker` section as written.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WorkerSection {
    /// Threads in all. Default: one per CPU.
    #[serde(alias = "threads_total", alias = "thread_number_total")]
    thread_number: Option<NonZeroUsize>,
    /// Threads of each runtime, of which the number of all threads is a multiple. Default: 1.
    #[serde(alias = "threads_per_runtime")]
    thread_number_per_runtime: Option<NonZeroUsize>,
    /// Stack of each thread, in bytes. Default: the system's.
    thread_stack_size: Option<ByteSize>,
    /// CPUs of each runtime by its index, or `true` for one after the other.
    sched_affinity: SchedAffinity,
    /// Events taken from the system at a time. Default: 1024.
    max_io_events_per_tick: Option<usize>,
}

impl TryFrom<WorkerSection> for WorkerConfig {
    type Error = Misfit;

    fn try_from(section: WorkerSection) -> Result<Self, Misfit> {
        let total = section.thread_number.map_or_else(cpus, NonZeroUsize::get);
        let each = section.thread_number_per_runtime.map_or(1, NonZeroUsize::get);
        if !total.is_multiple_of(each) {
            let message = format!("`thread_number` ({total}) is no multiple of `thread_number_per_runtime` ({each})");
            return Err(Misfit::new(message));
        }
        Ok(Self {
            thread_number: section.thread_number,
            thread_number_per_runtime: section.thread_number_per_runtime,
            thread_stack_size: section.thread_stack_size,
            sched_affinity: section.sched_affinity,
            max_io_events_per_tick: section.max_io_events_per_tick,
        })
    }
}

/// The `controller` section.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ControllerSection {
    /// The control socket.
    local: Option<LocalSection>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct LocalSection {
    /// Seconds that a connection may stay silent. Default: 30.
    recv_timeout: Option<u64>,
    /// Seconds that a client may take to read an answer. Default: 1.
    send_timeout: Option<u64>,
}

impl ControllerSection {
    /// A list, which the manual of others speaks of, means its last element that says something.
    fn of_list(list: OneOrMany<Self>) -> Self {
        let local = list.0.into_iter().rev().find_map(|section| section.local);
        Self { local }
    }

    pub(crate) fn limits(&self) -> Limits {
        let local = self.local.clone().unwrap_or_default();
        let default = Limits::default();
        Limits {
            recv_timeout: local.recv_timeout.map_or(default.recv_timeout, Duration::from_secs),
            send_timeout: local.send_timeout.map_or(default.send_timeout, Duration::from_secs),
            ..default
        }
    }
}

/// What all daemons read, in force from start to end.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) naming: Naming,
    pub(crate) log: LogConfig,
    pub(crate) stat: Option<StatConfig>,
    pub(crate) controller: ControllerSection,
    pub(crate) runtime: RuntimeConfig,
    pub(crate) worker: Option<WorkerConfig>,
}

impl Common {
    pub(crate) fn read<D: Daemon>(load: &mut Load) -> Self {
        let own = D::NAME.replace('-', "_");
        let mut log: LogConfig = load.daemon_section(&own, "log").unwrap_or_default();
        log.set_base_dir(load.base_dir());
        Self {
            naming: load.section("naming").unwrap_or_default(),
            log,
            stat: load.daemon_section(&own, "stat"),
            controller: load
                .daemon_section::<OneOrMany<ControllerSection>>(&own, "controller")
                .map(ControllerSection::of_list)
                .unwrap_or_default(),
            runtime: load
                .daemon_section::<RuntimeSection>(&own, "runtime")
                .unwrap_or_default()
                .settle(D::DATA_PLANE),
            worker: load.daemon_section(&own, "worker"),
        }
    }

    /// A warning for each section that differs from the one in force and has to wait for the next start.
    pub(crate) fn changed(&self, new: &Self) -> Vec<String> {
        let sections = [
            ("naming", self.naming != new.naming),
            ("log", self.log != new.log),
            ("stat", self.stat != new.stat),
            ("controller", self.controller != new.controller),
            ("runtime", self.runtime != new.runtime),
            ("worker", self.worker != new.worker),
        ];
        let changed = sections.iter().filter(|(_, changed)| *changed);
        changed
            .map(|(name, _)| format!("`{name}` has changed, which takes effect at the next start"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_plane_drains_for_hours_and_a_helper_for_seconds() {
        let helper = RuntimeSection::default().settle(false);
        assert_eq!((helper.thread_number, helper.server_offline_delay.as_secs()), (1, 0));
        assert_eq!(
            (helper.task_wait_timeout.as_secs(), helper.task_quit_timeout.as_secs()),
            (5, 1)
        );
        let proxyd = RuntimeSection::default().settle(true);
        assert_eq!(
            (proxyd.thread_number, proxyd.server_offline_delay.as_secs()),
            (cpus(), 4)
        );
        assert_eq!(
            (proxyd.task_wait_timeout.as_secs(), proxyd.task_quit_timeout.as_secs()),
            (36000, 1800)
        );
    }
}
