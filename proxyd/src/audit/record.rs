//! What the group's auditd is told: every audit record, whether a log has it or not, and what each inspected stream is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sluice_addr::Upstream;
use sluice_bus::{BusError, Recorder, SenderConfig};
use sluice_telemetry::event::{FieldValue, Tap, fields};
use sluice_telemetry::metrics::{Collector, Rule, Source, next_stat_id};
use sluice_telemetry::value::{Timestamp, Uuid};
use sluice_telemetry::{Record, keys};
use sluice_wire::audit::Id;

use crate::task::Task;
use crate::user::Permit;

/// Bytes of records that wait for auditd; what is more is dropped, or waited for.
const QUEUE: usize = 16 << 20;

/// An auditd that nobody has started is waited for so long; then no event is made until there is one.
const GRACE: Duration = Duration::from_secs(5);

/// How long a stop waits until auditd has written what it was told.
const FLUSH: Duration = Duration::from_secs(2);

/// The line to the group's auditd: one for the process, from the first auditor on.
pub(crate) struct Recording {
    recorder: Arc<Recorder>,
    path: PathBuf,
    stat_id: String,
}

impl Recording {
    /// Begins to tell the auditd whose socket this is; it need not be there yet.
    ///
    /// # Errors
    /// If its socket can never be connected to, or no thread can be started.
    pub(crate) fn start(path: PathBuf) -> Result<Arc<Self>, BusError> {
        let recorder = Recorder::start(&SenderConfig {
            path: path.clone(),
            name: format!("proxyd {}", std::process::id()),
            queue: QUEUE,
            grace: GRACE,
        })?;
        Ok(Arc::new(Self {
            recorder,
            path,
            stat_id: next_stat_id(),
        }))
    }

    /// What takes flows and events.
    pub(super) fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Where auditd is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells that a stream is looked into: whose it is, which its records do not say.
    pub(crate) fn stream(&self, auditor: &str, task: &Task, upstream: &Upstream) {
        if !self.recorder.is_expected() {
            return;
        }
        self.recorder.event_of(nanos(Timestamp::now()), "Stream", |event| {
            event.text(keys::AUDITOR_NAME, auditor);
            event.text(keys::SERVER_NAME, &task.server().name);
            event.text(keys::UPSTREAM, &upstream.to_string());
            event.text(keys::HOST, &upstream.host.to_string());
            if let Some(user) = task.permit().and_then(Permit::log_name) {
                event.text(keys::USER, user);
            }
            Some(id(task.id))
        });
    }

    /// What stands in `status`.
    pub(crate) fn status(&self) -> serde_json::Value {
        let stats = self.recorder.stats();
        serde_json::json!({
            "address": self.path,
            "state": match stats.connected {
                true => "connected",
                false if self.recorder.is_expected() => "unreachable",
                false => "absent",
            },
            "records": stats.records,
            "dropped": stats.dropped,
            "waiting_bytes": stats.waiting,
        })
    }

    /// Waits until auditd has written what it was told, but not for long, and not for one that is not there. Blocks.
    pub(crate) fn flush(&self) {
        if self.recorder.stats().connected {
            self.recorder.flush(FLUSH);
        }
    }
}

impl Tap for Recording {
    fn is_open(&self) -> bool {
        self.recorder.is_expected()
    }

    fn take(&self, at: Timestamp, record: &dyn Record) {
        self.recorder.event_of(nanos(at), record.kind().as_str(), |event| {
            let mut task = None;
            fields(record, |key, value| match value {
                FieldValue::Text(text) if key == keys::TASK_ID => {
                    task = u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes);
                }
                FieldValue::Bool(value) => event.bool(key, value),
                FieldValue::Float(number) => event.float(key, number),
                FieldValue::Int(number) => event.int(key, number),
                FieldValue::Text(text) => event.text(key, text),
                FieldValue::Uint(number) => match i64::try_from(number) {
                    Ok(number) => event.int(key, number),
                    Err(_) => event.text(key, &number.to_string()),
                },
            });
            task
        });
    }
}

impl Source for Recording {
    fn collect(&self, out: &mut Collector<'_>) {
        let stats = self.recorder.stats();
        let mut object = out.object(&[("stat_id", &self.stat_id)]);
        for (name, rule, value) in [
            ("audit.sender.record.total", Rule::Always, stats.records),
            ("audit.sender.record.drop", Rule::NonZero, stats.dropped),
            ("audit.sender.drop.bytes", Rule::NonZero, stats.dropped_bytes),
            ("audit.sender.batch.pass", Rule::Always, stats.acknowledged),
            ("audit.sender.batch.resent", Rule::NonZero, stats.resent),
        ] {
            object.counter(name, rule, &[], value);
        }
        object.gauge("audit.sender.connected", Rule::Always, &[], u64::from(stats.connected));
        object.gauge("audit.sender.waiting.bytes", Rule::Always, &[], stats.waiting);
    }
}

/// A task's id as it goes over the wire.
pub(super) fn id(task: Uuid) -> Id {
    task.as_u128().to_be_bytes()
}

/// Nanoseconds since 1970.
pub(super) fn nanos(at: Timestamp) -> u64 {
    let secs = u64::try_from(at.unix_secs()).unwrap_or_default();
    secs.saturating_mul(1_000_000_000) + u64::from(at.subsec_nanos())
}
