//! Commands of one daemon: each is a call on its control socket.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Subcommand, ValueHint};
use serde_json::{Value, json};

use crate::daemons::Target;
use crate::g3::{EscaperCommand, Kind, ResolverCommand, ServerCommand, UserGroupCommand};
use crate::output::say;
use crate::{audit, ca, g3, generic, output};

/// What to ask a daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Version of the running daemon
    Version,
    /// What the daemon is doing
    Status,
    /// Read the configuration again and tell what is wrong, change nothing
    Check,
    /// Put the configuration in force
    Reload,
    /// Begin a graceful shutdown and return at once
    Offline {
        /// Seconds to go on serving first
        #[arg(long, value_name = "SECONDS")]
        delay: Option<f64>,
        /// Seconds that running tasks get
        #[arg(long, value_name = "SECONDS")]
        drain: Option<f64>,
    },
    /// Take a shutdown back that has not begun to drain
    CancelShutdown,
    /// End the tasks of replaced servers of a name
    ForceQuit { server: String },
    /// End the tasks of all replaced servers, and a drain
    ForceQuitAll,
    /// End the daemon now
    Quit,
    /// List objects by name
    List { kind: Option<Kind> },
    /// Show the level of the process log, or set it
    LogLevel {
        #[arg(value_parser = ["error", "warn", "info", "debug", "trace"])]
        level: Option<String>,
    },
    /// List the daemon's methods
    Describe,
    /// Call any method
    Call {
        method: String,
        /// Its parameters as JSON
        params: Option<String>,
    },
    /// Reload one user group
    ReloadUserGroup { name: String },
    /// Reload one resolver
    ReloadResolver { name: String },
    /// Reload one auditor
    ReloadAuditor { name: String },
    /// Reload one escaper
    ReloadEscaper { name: String },
    /// Reload one server
    ReloadServer { name: String },
    /// Commands of a user group
    UserGroup {
        name: String,
        #[command(subcommand)]
        command: UserGroupCommand,
    },
    /// Commands of a resolver
    Resolver {
        name: String,
        #[command(subcommand)]
        command: ResolverCommand,
    },
    /// Commands of an escaper
    Escaper {
        name: String,
        #[command(subcommand)]
        command: EscaperCommand,
    },
    /// Commands of a server
    Server {
        name: String,
        #[command(subcommand)]
        command: ServerCommand,
    },
    /// A method of the daemon's own: its name, then values in order or as NAME=VALUE
    #[command(external_subcommand)]
    Own(Vec<String>),
}

/// How a result is shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// As its shape suggests.
    Plain,
    /// As JSON, always.
    Json,
    /// The daemon's version.
    Version,
    /// Task statistics of a server.
    Server,
    /// Methods.
    Methods,
    /// A list of maps, as a table.
    Rows,
    /// A query whose failure is an answer.
    Query,
}

/// A call to make.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) params: Value,
    pub(crate) show: Show,
}

impl Call {
    pub(crate) fn new(method: &str, params: Value) -> Self {
        Self {
            method: method.to_owned(),
            params,
            show: Show::Plain,
        }
    }

    pub(crate) fn shown(self, show: Show) -> Self {
        Self { show, ..self }
    }
}

/// Makes the call that `command` stands for and prints what comes back.
pub(crate) async fn run(target: &Target, daemon: &str, command: &DaemonCommand) -> anyhow::Result<ExitCode> {
    if let DaemonCommand::Own(words) = command
        && daemon == "certgend"
        && words.first().is_some_and(|first| first == "ca")
    {
        return ca::run(target, words).await;
    }
    if let DaemonCommand::Own(words) = command
        && daemon == "auditd"
        && audit::is_one(words)
    {
        return audit::run(target, words).await;
    }
    let mut client = match command {
        // Files and JSON are looked at before anybody is called.
        DaemonCommand::Own(_) => None,
        command => Some((call_of(command)?, target.connect(daemon).await?)),
    };
    let (call, mut client) = match (client.take(), command) {
        (Some(both), _) => both,
        (None, DaemonCommand::Own(words)) => {
            let mut client = target.connect(daemon).await?;
            (generic::call(&mut client, words).await?, client)
        }
        (None, _) => return Ok(ExitCode::FAILURE),
    };
    let result = client.call::<Value>(&call.method, &call.params).await;
    match result {
        Ok(value) if target.json => output::json(&value),
        Ok(value) => g3::show(call.show, &value),
        // The name is known not to resolve: that is what was asked.
        Err(e) if call.show == Show::Query && !target.json && g3::is_answer(&e) => say!("{e}"),
        Err(e) => return Err(e.into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn call_of(command: &DaemonCommand) -> anyhow::Result<Call> {
    use DaemonCommand as D;
    let named = |method: &str, name: &str| Call::new(method, json!({ "name": name }));
    Ok(match command {
        D::Version => Call::new("version", json!({})).shown(Show::Version),
        D::Status => Call::new("status", json!({})).shown(Show::Json),
        D::Check => Call::new("check", json!({})),
        D::Reload => Call::new("reload", json!({})),
        D::Offline { delay, drain } => Call::new("offline", json!({ "delay": delay, "drain": drain })),
        D::CancelShutdown => Call::new("cancel-shutdown", json!({})),
        D::ForceQuit { server } => named("force-quit", server),
        D::ForceQuitAll => Call::new("force-quit-all", json!({})),
        D::Quit => Call::new("quit", json!({})),
        D::List { kind } => Call::new("list", json!({ "kind": kind.map(Kind::name) })),
        D::LogLevel { level } => Call::new("log-level", json!({ "level": level })),
        D::Describe => Call::new("rpc.describe", json!({})).shown(Show::Methods),
        D::Call { method, params } => Call::new(method, parse(params.as_deref())?).shown(Show::Json),
        D::ReloadUserGroup { name } => named("reload-user-group", name),
        D::ReloadResolver { name } => named("reload-resolver", name),
        D::ReloadAuditor { name } => named("reload-auditor", name),
        D::ReloadEscaper { name } => named("reload-escaper", name),
        D::ReloadServer { name } => named("reload-server", name),
        D::UserGroup { name, command } => command.call(name)?,
        D::Resolver { name, command } => command.call(name),
        D::Escaper { name, command } => command.call(name)?,
        D::Server { name, command } => command.call(name),
        D::Own(words) => Call::new(&words.join(" "), json!({})),
    })
}

fn parse(params: Option<&str>) -> anyhow::Result<Value> {
    match params {
        Some(text) => serde_json::from_str(text).context("the parameters are not JSON"),
        None => Ok(json!({})),
    }
}

/// The JSON in `file`.
pub(crate) fn json_of(file: &PathBuf) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("`{}` is not JSON", file.display()))
}

/// Value hint of arguments that name a file.
pub(crate) const FILE: ValueHint = ValueHint::FilePath;
