//! What we tell the service manager (`sd_notify(3)`), if there is one.

use std::time::Duration;

use sd_notify::NotifyState;
use sluice_telemetry::{debug, warn};
use tokio::time::{MissedTickBehavior, interval};

use crate::Tasks;

fn send(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        warn!("the service manager cannot be told"; "reason" => %e);
    }
}

/// Serving (again).
pub(crate) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins; [`ready`] tells its end.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]),
        Err(_) => send(&[NotifyState::Reloading, NotifyState::Status("reloading")]),
    }
}

/// Stopping, which takes up to `limit`.
pub(crate) fn stopping(status: &str, limit: Duration) {
    let extend = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
    send(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(extend),
        NotifyState::Status(status),
    ]);
}

/// Tells the service manager twice per its watchdog period that the main runtime still runs.
pub(crate) fn keep_watchdog(tasks: &Tasks) {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return;
    };
    let half = (period / 2).max(Duration::from_millis(1));
    debug!("watchdog"; "period" => ?period);
    let stop = tasks.clone();
    tasks.spawn(async move {
        let mut ticks = interval(half);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.quitting() => return,
                _ = ticks.tick() => send(&[NotifyState::Watchdog]),
            }
        }
    });
}
