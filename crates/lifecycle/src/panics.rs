//! What happens when a thread panics, which is always a fault of ours.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_telemetry::error;
use tokio::sync::Notify;

/// Counts panics, and tells the main loop if the daemon is to quit over one.
#[derive(Debug, Default)]
pub(crate) struct Panics {
    count: AtomicU64,
    quit: Notify,
}

/// What to do besides logging it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnPanic {
    /// Nothing: the task is gone, the daemon goes on.
    GoOn,
    /// Quit at once (`--panic-quit`).
    Quit,
    /// Send SIGHUP to the parent (`--panic-quit -m`).
    TellParent,
}

impl Panics {
    /// Logs every panic from now on and does as `on_panic` says.
    pub(crate) fn watch(on_panic: OnPanic) -> Arc<Self> {
        let watched = Arc::new(Self::default());
        let panics = Arc::clone(&watched);
        panic::set_hook(Box::new(move |info| {
            let count = panics.count.fetch_add(1, Ordering::Relaxed) + 1;
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let thread = std::thread::current().name().unwrap_or("?").to_owned();
            let what = info.payload_as_str().unwrap_or("(no text)").to_owned();
            error!("panic, this is a bug: {}", what; "at" => place, "thread" => thread, "count" => count);
            match on_panic {
                OnPanic::GoOn => {}
                OnPanic::Quit => panics.quit.notify_one(),
                OnPanic::TellParent => tell_parent(),
            }
        }));
        watched
    }

    /// Panics since the start.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends when a panic asks the daemon to quit.
    pub(crate) async fn quit(&self) {
        self.quit.notified().await;
    }
}

fn tell_parent() {
    // Process 1 is no supervisor that asked for it.
    if let Some(parent) = rustix::process::getppid().filter(|p| !p.is_init())
        && let Err(e) = rustix::process::kill_process(parent, rustix::process::Signal::HUP)
    {
        error!("cannot tell the parent of a panic"; "reason" => %e);
    }
}
