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
use sluice_wire::audit::{Event, Id, Value};

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
    /// Begins to tell the auditd of the group whose runtime directory this is; it need not be there yet.
    ///
    /// # Errors
    /// If its socket can never be connected to, or no thread can be started.
    pub(crate) fn start(runtime_dir: &Path) -> Result<Arc<Self>, BusError> {
        let path = runtime_dir.join("auditd/dump");
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
        let text = |key: &str, value: &dyn ToString| (key.to_owned(), Value::Str(value.to_string()));
        let mut fields = vec![
            text(keys::AUDITOR_NAME, &auditor),
            text(keys::SERVER_NAME, &task.server().name),
            text(keys::UPSTREAM, upstream),
            text(keys::HOST, &upstream.host),
        ];
        if let Some(user) = task.permit().and_then(Permit::log_name) {
            fields.push(text(keys::USER, user));
        }
        self.recorder.event(&Event {
            at: nanos(Timestamp::now()),
            kind: "Stream".to_owned(),
            task: Some(id(task.id)),
            fields,
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
        let mut event = Event {
            at: nanos(at),
            kind: record.kind().as_str().to_owned(),
            task: None,
            fields: Vec::new(),
        };
        fields(record, |key, value| match value {
            FieldValue::Text(text) if key == keys::TASK_ID => {
                event.task = u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes);
            }
            value => event.fields.push((key.to_owned(), plain(value))),
        });
        self.recorder.event(&event);
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

fn plain(value: FieldValue<'_>) -> Value {
    match value {
        FieldValue::Bool(value) => Value::Bool(value),
        FieldValue::Float(number) => Value::Float(number),
        FieldValue::Int(number) => Value::Int(number),
        FieldValue::Text(text) => Value::Str(text.to_owned()),
        FieldValue::Uint(number) => i64::try_from(number).map_or_else(|_| number.to_string().into(), Value::Int),
    }
}

/// A task's id as it goes over the wire.
pub(super) fn id(task: Uuid) -> Id {
    task.as_u128().to_be_bytes()
}

/// Nanoseconds since 1970.
fn nanos(at: Timestamp) -> u64 {
    let secs = u64::try_from(at.unix_secs()).unwrap_or_default();
    secs.saturating_mul(1_000_000_000) + u64::from(at.subsec_nanos())
}
