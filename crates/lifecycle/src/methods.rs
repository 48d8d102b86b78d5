//! The control methods that every daemon answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sluice_control::{Code, Error, Methods, NoParams, PROTOCOL, PROTOCOL_MIN};
use sluice_telemetry::log;
use sluice_telemetry::slog::Level;
use tokio::sync::{mpsc, oneshot, watch};

use crate::panics::Panics;
use crate::reload::Reloader;
use crate::shutdown::{Order, State};
use crate::{Daemon, Tasks};

/// An order on its way to the main loop, with the way back.
pub(crate) type Asked = (Order, oneshot::Sender<Result<String, Error>>);

/// What the methods know of the process.
pub(crate) struct Process<D: Daemon> {
    pub(crate) daemon: Arc<D>,
    pub(crate) group: String,
    pub(crate) runtime_dir: PathBuf,
    pub(crate) config_file: PathBuf,
    pub(crate) began: Instant,
    pub(crate) orders: mpsc::Sender<Asked>,
    pub(crate) panics: Arc<Panics>,
    pub(crate) reloader: Reloader<D>,
    /// Tasks of the control side itself.
    pub(crate) service: Tasks,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) tasks: Tasks,
}

/// Answer of methods that only do something.
#[derive(Serialize)]
struct Notice {
    message: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Offline {
    /// Seconds to go on serving before the drain begins; default: `runtime.server_offline_delay`.
    #[serde(default)]
    delay: Option<f64>,
    /// Seconds that running tasks get; default: `runtime.task_wait_timeout`.
    #[serde(default)]
    drain: Option<f64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ForceQuit {
    /// The object's name.
    name: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct List {
    /// Kind of the objects, as `server`; without it the answer holds every kind.
    #[serde(default)]
    kind: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LogLevel {
    /// The level to set; without it none is set.
    #[serde(default)]
    level: Option<LevelName>,
}

/// Levels of the process log.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum LevelName {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LevelName> for Level {
    fn from(name: LevelName) -> Self {
        match name {
            LevelName::Error => Self::Error,
            LevelName::Warn => Self::Warning,
            LevelName::Info => Self::Info,
            LevelName::Debug => Self::Debug,
            LevelName::Trace => Self::Trace,
        }
    }
}

impl From<Level> for LevelName {
    fn from(level: Level) -> Self {
        match level {
            Level::Critical | Level::Error => Self::Error,
            Level::Warning => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

/// All methods of a daemon: the common ones and its own.
pub(crate) fn table<D: Daemon>(process: &Arc<Process<D>>) -> Methods {
    let mut methods = Methods::new();
    process.about(&mut methods);
    process.configuration(&mut methods);
    process.ending(&mut methods);
    process.daemon.methods(&mut methods);
    methods
}

impl<D: Daemon> Process<D> {
    fn about(self: &Arc<Self>, methods: &mut Methods) {
        methods.add(
            "version",
            "version of the daemon and of the control protocol",
            |_: NoParams| async {
                Ok(json!({
                    "daemon": D::NAME,
                    "version": env!("CARGO_PKG_VERSION"),
                    "protocol": PROTOCOL,
                    "protocol_min": PROTOCOL_MIN,
                }))
            },
        );
        let process = Arc::clone(self);
        methods.add("status", "what the daemon is doing", move |_: NoParams| {
            let status = process.status();
            async { Ok(status) }
        });
        let process = Arc::clone(self);
        methods.add("list", "names of the daemon's objects", move |list: List| {
            let listed = process.list(list.kind.as_deref());
            async { listed }
        });
        methods.add(
            "log-level",
            "shows the level of the process log, or sets it",
            |wish: LogLevel| async move {
                if let Some(level) = wish.level {
                    log::set_level(level.into());
                }
                Ok(json!({ "level": LevelName::from(log::level()) }))
            },
        );
    }

    fn configuration(self: &Arc<Self>, methods: &mut Methods) {
        let process = Arc::clone(self);
        methods.add(
            "check",
            "reads the configuration again and tells what is wrong, changes nothing",
            {
                move |_: NoParams| {
                    let process = Arc::clone(&process);
                    async move { Ok(json!({ "warnings": process.reloader.check().await? })) }
                }
            },
        );
        let process = Arc::clone(self);
        methods.add(
            "reload",
            "puts the configuration in force, all of it or nothing",
            move |_: NoParams| {
                let reloading = Arc::clone(&process);
                // A task of its own: a caller that hangs up does not stop it half-way.
                let done = process.service.spawn(async move { reloading.reload().await });
                async move {
                    let warnings = done
                        .await
                        .map_err(|e| Error::failed(format_args!("the reload was ended: {e}")))??;
                    Ok(json!({ "message": "configuration reloaded", "warnings": warnings }))
                }
            },
        );
    }

    fn ending(self: &Arc<Self>, methods: &mut Methods) {
        let process = Arc::clone(self);
        methods.add(
            "offline",
            "begins a graceful shutdown and returns at once",
            move |wish: Offline| {
                let process = Arc::clone(&process);
                async move {
                    let (delay, drain) = (seconds("delay", wish.delay)?, seconds("drain", wish.drain)?);
                    process.order(Order::Offline { delay, drain }).await
                }
            },
        );
        let process = Arc::clone(self);
        methods.add(
            "cancel-shutdown",
            "takes a shutdown back that has not begun to drain",
            move |_: NoParams| {
                let process = Arc::clone(&process);
                async move { process.order(Order::Cancel).await }
            },
        );
        let process = Arc::clone(self);
        methods.add(
            "quit",
            "ends the daemon now, its tasks are dropped",
            move |_: NoParams| {
                let process = Arc::clone(&process);
                async move { process.order(Order::Force).await }
            },
        );
        let process = Arc::clone(self);
        methods.add(
            "force-quit",
            "ends the tasks of replaced objects of a name",
            move |wish: ForceQuit| {
                process.daemon.force_quit(Some(&wish.name));
                async { notice("their tasks are told to quit") }
            },
        );
        let process = Arc::clone(self);
        methods.add(
            "force-quit-all",
            "ends the tasks of all replaced objects, and a drain",
            move |_: NoParams| {
                process.daemon.force_quit(None);
                if *process.state.borrow() == State::Draining {
                    process.tasks.quit();
                }
                async { notice("their tasks are told to quit") }
            },
        );
    }

    /// Why nothing is reloaded any more, if so.
    pub(crate) fn is_ending(&self) -> Option<Error> {
        let ending = matches!(*self.state.borrow(), State::Draining | State::Quitting);
        ending.then(|| Error::new(Code::State, "the daemon is stopping, nothing is reloaded"))
    }

    async fn reload(&self) -> Result<Vec<String>, Error> {
        match self.is_ending() {
            Some(refusal) => Err(refusal),
            None => self.reloader.reload().await,
        }
    }

    fn status(&self) -> Value {
        let common = json!({
            "daemon": D::NAME,
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": PROTOCOL,
            "group": self.group,
            "pid": std::process::id(),
            "state": *self.state.borrow(),
            "uptime": self.began.elapsed().as_secs(),
            "config_file": self.config_file,
            "runtime_dir": self.runtime_dir,
            "tasks": self.tasks.alive(),
            "panics": self.panics.count(),
        });
        let mut all = object(common);
        all.extend(object(serde_json::to_value(self.reloader.done()).unwrap_or_default()));
        for (key, value) in object(self.daemon.status()) {
            all.entry(key).or_insert(value);
        }
        Value::Object(all)
    }

    fn list(&self, kind: Option<&str>) -> Result<Value, Error> {
        let objects = self.daemon.objects();
        let Some(kind) = kind else {
            return Ok(objects
                .into_iter()
                .map(|(kind, names)| (kind.to_owned(), json!(names)))
                .collect());
        };
        // `user-group` and `user_group` are the same kind.
        let found = objects
            .iter()
            .find(|(k, _)| k.replace('_', "-") == kind.replace('_', "-"));
        let kinds: Vec<&str> = objects.iter().map(|(kind, _)| *kind).collect();
        let (_, names) = found.ok_or_else(|| {
            let known = if kinds.is_empty() {
                "none".to_owned()
            } else {
                kinds.join(", ")
            };
            Error::invalid_params(format_args!(
                "`{kind}` is not a kind of {}, its kinds: {known}",
                D::NAME
            ))
        })?;
        Ok(json!(names))
    }

    /// Sends an order to the main loop, which answers in every state.
    async fn order(&self, order: Order) -> Result<Notice, Error> {
        let gone = || Error::failed("the daemon is about to end");
        let (tell, told) = oneshot::channel();
        self.orders.send((order, tell)).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?.map(|message| Notice { message })
    }
}

fn notice(message: &str) -> Result<Notice, Error> {
    let message = message.to_owned();
    Ok(Notice { message })
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null => Map::new(),
        other => Map::from_iter([("detail".to_owned(), other)]),
    }
}

fn seconds(name: &str, value: Option<f64>) -> Result<Option<Duration>, Error> {
    let checked = value.map(Duration::try_from_secs_f64).transpose();
    checked.map_err(|e| Error::invalid_params(format_args!("params: `{name}`: {e}")))
}
