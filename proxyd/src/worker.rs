//! The threads that do the work. Each has a runtime, timers, a resolver client and upstream connections of its own:
//! a task lives and dies on one of them.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Context as _;
use sluice_config::value::{ByteSize, CpuSet};
use sluice_io::wheel::Wheel;
use sluice_lifecycle::{RuntimeConfig, Tasks, WorkerConfig};
use sluice_telemetry::{metrics, warn};
use tokio::runtime::{Builder, Handle, RuntimeMetrics};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::http::pool::Pool;
use crate::resolve::{Driver, Resolver};
use crate::user::Passwords;

/// What a task finds on its thread.
pub(crate) struct Worker {
    pub(crate) wheel: Arc<Wheel>,
    pub(crate) resolver: Resolver,
    pub(crate) pool: Pool,
    pub(crate) passwords: Passwords,
    pub(crate) tasks: Tasks,
    /// The CPUs that the thread is bound to, if it is.
    pub(crate) cpus: Vec<usize>,
    handle: Handle,
}

impl Worker {
    /// Runs a task here, from whatever thread.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.handle);
    }
}

/// How the threads are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkerOptions {
    /// For each thread the CPUs that it is bound to; empty: none.
    pub(crate) threads: Vec<Vec<usize>>,
    pub(crate) stack_size: Option<usize>,
    /// Events taken from the kernel at a time.
    pub(crate) max_events: usize,
    /// Whether the `worker` section made them, so that `listen_in_worker` counts.
    pub(crate) dedicated: bool,
}

impl WorkerOptions {
    /// Threads by the `worker` section, else as many as `runtime` says.
    ///
    /// # Errors
    /// If the numbers contradict each other, or a variable holds no CPU list.
    pub(crate) fn new(runtime: &RuntimeConfig, worker: Option<&WorkerConfig>) -> anyhow::Result<Self> {
        let Some(worker) = worker else {
            let threads = vec![Vec::new(); runtime.thread_number.max(1)];
            return Ok(Self {
                threads,
                stack_size: runtime.thread_stack_size,
                max_events: runtime.max_io_events_per_tick,
                dedicated: false,
            });
        };
        let cpus = sluice_sys::affinity::allowed_cpus().unwrap_or_default();
        let total = worker
            .thread_number
            .map_or_else(|| cpus.len().max(1), NonZeroUsize::get);
        let each = worker.thread_number_per_runtime.map_or(1, NonZeroUsize::get);
        anyhow::ensure!(
            total % each == 0,
            "worker: `thread_number` ({total}) is no multiple of `thread_number_per_runtime` ({each})"
        );
        let bound = worker
            .sched_affinity
            .bind(total / each, each, &cpus, |name| std::env::var(name).ok())
            .context("worker: `sched_affinity`")?;
        if bound.wraps {
            warn!("more worker threads than CPUs: some share one"; "threads" => total, "cpus" => cpus.len());
        }
        // A runtime of several threads is so many workers on the same CPUs: a task stays on its thread either way.
        let of_runtime = |set: &Option<CpuSet>| set.as_ref().map(|set| set.ids().collect()).unwrap_or_default();
        let threads = bound.sets.iter().flat_map(|set| vec![of_runtime(set); each]).collect();
        Ok(Self {
            threads,
            stack_size: worker.thread_stack_size.map(ByteSize::as_usize),
            max_events: worker.max_io_events_per_tick.unwrap_or(runtime.max_io_events_per_tick),
            dedicated: true,
        })
    }
}

/// All workers of the daemon.
pub(crate) struct Workers {
    all: Vec<Arc<Worker>>,
    next: AtomicUsize,
    dedicated: bool,
    stop: CancellationToken,
    threads: std::sync::Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// If a runtime or a thread cannot be made.
    pub(crate) fn start(
        options: &WorkerOptions,
        tasks: &Tasks,
        resolver: impl Fn() -> (Resolver, Driver),
    ) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let mut all = Vec::new();
        let mut threads = Vec::new();
        let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let password_slots = Arc::new(Semaphore::new(cpus));
        for (index, cpus) in options.threads.iter().enumerate() {
            let runtime = Builder::new_current_thread()
                .enable_all()
                // Look for new events after fewer tasks than the default 61: a shorter queue is a shorter wait.
                .event_interval(31)
                .max_io_events_per_tick(options.max_events)
                .build()
                .with_context(|| format!("no runtime for worker {index}"))?;
            let wheel = Wheel::new();
            let (resolver, driver) = resolver();
            let worker = Arc::new(Worker {
                wheel: Arc::clone(&wheel),
                resolver,
                pool: Pool::new(),
                passwords: Passwords::new(tasks, &password_slots)
                    .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?,
                tasks: tasks.clone(),
                cpus: cpus.clone(),
                handle: runtime.handle().clone(),
            });
            let stop = stop.clone();
            let cpus = cpus.clone();
            let pool_owner = Arc::clone(&worker);
            let mut thread = thread::Builder::new().name(format!("worker#{index}"));
            if let Some(size) = options.stack_size {
                thread = thread.stack_size(size);
            }
            let thread = thread
                .spawn(move || {
                    metrics::set_worker(index);
                    if !cpus.is_empty()
                        && let Err(error) = sluice_sys::affinity::bind_current_thread(&cpus)
                    {
                        warn!("worker is not bound to its CPUs"; "worker" => index, "cpus" => ?cpus, "error" => %error);
                    }
                    runtime.block_on(async move {
                        tokio::select! {
                            () = wheel.run() => {}
                            () = pool_owner.pool.sweep() => {}
                            () = driver.run() => {}
                            () = stop.cancelled() => {}
                        }
                    });
                    // Tasks that are left are dropped here, each writing its record.
                })
                .with_context(|| format!("no thread for worker {index}"))?;
            all.push(worker);
            threads.push(thread);
        }
        Ok(Self {
            all,
            next: AtomicUsize::new(0),
            dedicated: options.dedicated,
            stop,
            threads: threads.into(),
        })
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Arc<Worker>] {
        &self.all
    }

    /// The gauges of each worker's runtime.
    pub(crate) fn runtime_metrics(&self) -> impl Iterator<Item = RuntimeMetrics> {
        self.all.iter().map(|worker| worker.handle.metrics())
    }

    /// Whether a listener can have a socket in each.
    pub(crate) fn dedicated(&self) -> bool {
        self.dedicated
    }

    /// The next one in turn.
    pub(crate) fn next(&self) -> &Arc<Worker> {
        self.turn(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// The one whose turn the `i`th is, if they take turns from the first.
    pub(crate) fn turn(&self, i: usize) -> &Arc<Worker> {
        &self.all[i % self.all.len()]
    }

    /// The one that is bound to this CPU alone, if there is one.
    pub(crate) fn on_cpu(&self, cpu: usize) -> Option<&Arc<Worker>> {
        self.all.iter().find(|worker| worker.cpus == [cpu])
    }

    /// Ends the threads, and with them every task that is left.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for thread in threads {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}
