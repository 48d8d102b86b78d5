//! What the control socket asks of auditd.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use sluice_control::{Code, Error, Methods, NoParams};

use crate::{
    daemon::Auditd,
    export::{self, Cursor, ExportError},
    har,
    search::{self, Filter},
    writer::Order,
};

/// How long a call of `audit.tail` waits for something to tell.
const TAIL: Duration = Duration::from_secs(10);

/// How long a rotation may take.
const ROTATE: Duration = Duration::from_secs(10);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tail {
    /// The place that the last call has told as `next`; without one the last events are told at once.
    #[serde(default)]
    after: Option<u64>,
    /// So many of the last events, without `after`.
    #[serde(default = "tail_lines")]
    lines: usize,
}

fn tail_lines() -> usize {
    10
}

#[derive(Serialize)]
struct Tailed {
    events: Vec<Box<RawValue>>,
    /// For the next call.
    next: u64,
    /// Events that came too fast.
    missed: u64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Search {
    /// A host, or a domain with all hosts in it.
    #[serde(default)]
    host: Option<String>,
    /// A user.
    #[serde(default)]
    user: Option<String>,
    /// A task's id.
    #[serde(default)]
    task: Option<String>,
    /// Kind of the events, as `Intercept`.
    #[serde(default)]
    kind: Option<String>,
    /// Nothing before this time: RFC 3339, a day as `2026-11-25` (UTC), or how long ago, as `90s`, `15m`, `12h`, `7d`.
    #[serde(default)]
    since: Option<String>,
    /// Nothing after this time.
    #[serde(default)]
    until: Option<String>,
    /// The last so many.
    #[serde(default = "search_limit")]
    limit: usize,
}

fn search_limit() -> usize {
    1000
}

#[derive(Serialize)]
struct Found {
    events: Vec<Box<RawValue>>,
    /// Earlier ones that were found, beyond the limit.
    more: u64,
    /// Files that cannot be read to their end.
    damaged: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Export {
    /// The task's id.
    task: String,
    /// Where the last call has stopped.
    #[serde(default)]
    after: Option<Cursor>,
}

#[derive(Serialize)]
struct Exported {
    /// The next bytes of the file, in base64.
    data: String,
    packets: u64,
    /// Packets of captures of another format, which do not fit into one file.
    left_out: u64,
    /// For the next call; null at the end.
    next: Option<Cursor>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OfTask {
    /// The task's id.
    task: String,
}

#[derive(Serialize)]
struct Rotated {
    closed: u64,
}

/// Adds auditd's own methods.
pub(crate) fn add(daemon: &Arc<Auditd>, methods: &mut Methods) {
    let of = Arc::clone(daemon);
    methods.add(
        "audit.tail",
        "the last events, or those after a place once there are some",
        move |wish: Tail| {
            let of = Arc::clone(&of);
            async move {
                let since = of.shared.recent.since(wish.after, wish.lines, TAIL).await;
                Ok(Tailed {
                    events: since.lines.into_iter().filter_map(raw).collect(),
                    next: since.next,
                    missed: since.missed,
                })
            }
        },
    );
    let of = Arc::clone(daemon);
    methods.add(
        "audit.search",
        "events by host, user, task and time",
        move |wish: Search| {
            let of = Arc::clone(&of);
            async move { search(&of, wish).await }
        },
    );
    let of = Arc::clone(daemon);
    methods.add(
        "audit.export",
        "the capture of one task as pcapng, piece by piece",
        move |wish: Export| {
            let of = Arc::clone(&of);
            async move { export(&of, wish).await }
        },
    );
    let of = Arc::clone(daemon);
    methods.add(
        "audit.har",
        "the HTTP/1 messages of one task as HAR",
        move |wish: OfTask| {
            let of = Arc::clone(&of);
            async move {
                let dir = of.dir();
                let har = blocking(&of, move || har::of_task(&dir, &wish.task)).await?;
                har.map_err(|e| failed(&e))
            }
        },
    );
    let of = Arc::clone(daemon);
    methods.add("audit.rotate", "closes the open files", move |_: NoParams| {
        let of = Arc::clone(&of);
        async move {
            let (answer, answered) = mpsc::channel();
            of.order(Order::Rotate(answer));
            let closed = blocking(&of, move || answered.recv_timeout(ROTATE)).await?;
            let closed = closed.map_err(|_| Error::failed("nothing can be written now, so the files stay open"))?;
            Ok(Rotated { closed })
        }
    });
}

/// Runs what reads files.
async fn blocking<T: Send + 'static>(of: &Auditd, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let done = of.tasks.spawn_blocking(work).await;
    done.map_err(|e| Error::new(Code::Internal, e.to_string()))
}

fn raw(line: String) -> Option<Box<RawValue>> {
    RawValue::from_string(line).ok()
}

fn failed(error: &ExportError) -> Error {
    match error {
        ExportError::Nothing { .. } => Error::new(Code::NotFound, error.to_string()),
        ExportError::BadTask { .. } => Error::invalid_params(error),
        ExportError::Damaged { .. } | ExportError::Io(_) | ExportError::TooLong { .. } => Error::failed(error),
    }
}

async fn search(of: &Arc<Auditd>, wish: Search) -> Result<Found, Error> {
    let now = SystemTime::now();
    let time = |text: Option<&str>| {
        let time = text.map(|text| search::time_of(text, now).ok_or_else(|| text.to_owned()));
        let bad = |text| {
            Error::invalid_params(format_args!(
                "`{text}` is neither a time as RFC 3339, nor a day as `2026-11-25`, nor how long ago, as `15m`"
            ))
        };
        time.transpose().map_err(bad)
    };
    let task = wish.task.map(|task| match export::id_of(&task) {
        Some(id) => Ok(id),
        None => Err(failed(&ExportError::BadTask { task })),
    });
    let filter = Filter {
        since: time(wish.since.as_deref())?,
        until: time(wish.until.as_deref())?,
        host: wish.host,
        user: wish.user,
        task: task.transpose()?,
        kind: wish.kind,
    };
    let dir = of.dir();
    let limit = wish.limit.clamp(1, 100_000);
    let found = blocking(of, move || search::run(&dir, &filter, limit))
        .await?
        .map_err(|e| Error::failed(format_args!("the event logs cannot be read: {e}")))?;
    Ok(Found {
        events: found.lines.into_iter().filter_map(raw).collect(),
        more: found.more,
        damaged: found.damaged,
    })
}

async fn export(of: &Arc<Auditd>, wish: Export) -> Result<Value, Error> {
    let dir = of.dir();
    let piece = blocking(of, move || export::piece(&dir, &wish.task, wish.after)).await?;
    let piece = piece.map_err(|e| failed(&e))?;
    let exported = Exported {
        data: BASE64_STANDARD.encode(&piece.data),
        packets: piece.packets,
        left_out: piece.left_out,
        next: piece.next,
    };
    serde_json::to_value(exported).map_err(|e| Error::new(Code::Internal, e.to_string()))
}
