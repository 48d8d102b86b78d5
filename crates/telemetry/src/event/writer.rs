//! The threads that empty the queues of all loggers with one configuration.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::channel::{Boxed, Channel, Known, Stats, Wake};
use super::driver::Driver;
use super::{Handle, LoggerConfig, Record, StartError, lock};
use crate::keys;
use crate::metrics::Registry;
use crate::naming::Identity;
use crate::render::{Event, Severity};

/// How often the queues are looked at.
const POLL: Duration = Duration::from_millis(50);
/// Records taken from one queue before the next has its turn.
const BATCH: usize = 256;

/// The writer of all loggers with one configuration.
pub(super) struct Writer {
    channel_size: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    loggers: Mutex<Vec<Known>>,
    /// Counts changes of `loggers`.
    version: AtomicU64,
    wake: Arc<Wake>,
    closing: AtomicBool,
    until: Mutex<Option<Instant>>,
    running: Mutex<usize>,
    stopped: Condvar,
}

impl Writer {
    pub(super) fn start(config: &LoggerConfig, identity: &Identity) -> Result<Arc<Self>, StartError> {
        Self::start_polling(config, identity, POLL)
    }

    /// Starts one that looks at the queues every `poll`, when nobody wakes it.
    pub(super) fn start_polling(
        config: &LoggerConfig,
        identity: &Identity,
        poll: Duration,
    ) -> Result<Arc<Self>, StartError> {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        for number in 0..config.thread_number.max(1) {
            let work = Work {
                shared: Arc::clone(&shared),
                driver: Driver::new(config, identity)?,
                poll,
                identity: identity.clone(),
                loggers: Vec::new(),
                version: 0,
                batch: Vec::new(),
            };
            *lock(&shared.running) += 1;
            let thread = thread::Builder::new()
                .name(format!("log-{number}"))
                .spawn(move || work.run())
                .inspect_err(|_| {
                    *lock(&shared.running) -= 1;
                    shared.closing.store(true, Ordering::Release);
                })
                .map_err(StartError::Thread)?;
            threads.push(thread.thread().clone());
        }
        shared.wake.set_threads(threads);
        Ok(Arc::new(Self {
            channel_size: config.channel_size,
            shared,
        }))
    }

    /// The logger of that name.
    pub(super) fn logger(&self, name: &str, registry: &Registry) -> Handle {
        let mut loggers = lock(&self.shared.loggers);
        if let Some(known) = loggers.iter_mut().find(|it| it.channel.name() == name) {
            let token = known.token.upgrade().unwrap_or_else(|| {
                let token = Arc::new(());
                known.token = Arc::downgrade(&token);
                token
            });
            return Handle {
                channel: Arc::clone(&known.channel),
                _token: token,
            };
        }
        let wake = Arc::clone(&self.shared.wake);
        let channel = Arc::new(Channel::new(name, self.channel_size, wake, registry));
        if self.shared.closing.load(Ordering::Acquire) {
            channel.close();
        }
        let token = Arc::new(());
        loggers.push(Known {
            channel: Arc::clone(&channel),
            token: Arc::downgrade(&token),
        });
        self.shared.version.fetch_add(1, Ordering::Release);
        Handle { channel, _token: token }
    }

    /// Tells the threads to write what is queued and end.
    pub(super) fn close(&self, until: Instant) {
        *lock(&self.shared.until) = Some(until);
        {
            let loggers = lock(&self.shared.loggers);
            self.shared.closing.store(true, Ordering::Release);
            for known in &*loggers {
                known.channel.close();
            }
        }
        self.shared.wake.call_now();
    }

    /// Waits for the threads' end; returns whether nothing was left.
    pub(super) fn wait_closed(&self, until: Instant) -> bool {
        let running = lock(&self.shared.running);
        let patience = until.saturating_duration_since(Instant::now());
        let (running, _) = self
            .shared
            .stopped
            .wait_timeout_while(running, patience, |running| *running > 0)
            .unwrap_or_else(PoisonError::into_inner);
        let all = *running == 0;
        drop(running);
        for known in &*lock(&self.shared.loggers) {
            known.channel.abandon();
        }
        all
    }
}

/// What one thread works with.
struct Work {
    shared: Arc<Shared>,
    driver: Driver,
    poll: Duration,
    identity: Identity,
    loggers: Vec<Arc<Channel>>,
    version: u64,
    batch: Vec<(Arc<Stats>, Boxed)>,
}

impl Work {
    fn run(mut self) {
        loop {
            // Read before the queues: what is queued before the close is written.
            let closing = self.shared.closing.load(Ordering::Acquire);
            self.refresh();
            let more = self.take();
            self.write();
            self.driver.settle(Instant::now());
            if more {
                continue;
            }
            if closing {
                break;
            }
            self.forget_unused();
            self.shared.wake.rearm();
            if self.loggers.iter().any(|it| it.is_half_full()) {
                continue;
            }
            let nap = self
                .driver
                .due_in(Instant::now())
                .map_or(self.poll, |due| due.min(self.poll));
            thread::park_timeout(nap);
        }
        let until = lock(&self.shared.until).unwrap_or_else(Instant::now);
        self.driver.close(until);
        *lock(&self.shared.running) -= 1;
        self.shared.stopped.notify_all();
    }

    /// Notices new and forgotten loggers.
    fn refresh(&mut self) {
        let version = self.shared.version.load(Ordering::Acquire);
        if version != self.version {
            self.version = version;
            let loggers = lock(&self.shared.loggers);
            self.loggers = loggers.iter().map(|it| Arc::clone(&it.channel)).collect();
        }
    }

    /// Takes records from every queue, oldest first; returns whether there may be more.
    fn take(&mut self) -> bool {
        let mut more = false;
        let mut queues = 0;
        for channel in &self.loggers {
            let before = self.batch.len();
            let records = std::iter::from_fn(|| channel.take()).take(BATCH);
            self.batch
                .extend(records.map(|record| (Arc::clone(&channel.stats), record)));
            let taken = self.batch.len() - before;
            more |= taken == BATCH;
            queues += usize::from(taken > 0);
        }
        if queues > 1 {
            self.batch.sort_by_key(|(_, record)| record.at);
        }
        more
    }

    fn write(&mut self) {
        for (stats, entry) in self.batch.drain(..) {
            let record = &entry.record;
            let log_type = record.kind();
            let fields = |out: &mut dyn slog::Serializer| {
                out.emit_str(keys::DAEMON_NAME.into(), &self.identity.daemon_group)?;
                out.emit_u32(keys::PID.into(), self.identity.pid)?;
                out.emit_str(keys::LOG_TYPE.into(), log_type.as_str())?;
                let values = slog::b!();
                record.serialize(&slog::record!(slog::Level::Info, "", &format_args!(""), values), out)
            };
            let event = Event {
                at: entry.at,
                severity: Severity::Notice,
                level: "INFO",
                log_type: Some(log_type),
                position: None,
                message: &Message(record),
                fields: &fields,
            };
            self.driver.write(&event, &stats);
        }
    }

    /// Lets go of loggers that nobody holds and whose queue is empty.
    fn forget_unused(&self) {
        let mut loggers = lock(&self.shared.loggers);
        let before = loggers.len();
        loggers.retain(|it| it.token.strong_count() > 0 || !it.channel.is_empty());
        if loggers.len() != before {
            self.shared.version.fetch_add(1, Ordering::Release);
        }
    }
}

struct Message<'a>(&'a dyn Record);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.message(f)
    }
}
