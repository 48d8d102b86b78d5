//! The subcommands of g3proxy's control client, as calls of our methods.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use sluice_control::{CallError, Code};

use crate::call::{Call, FILE, Show, json_of};
use crate::output::{self, say};

/// Kinds of objects.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// User groups
    UserGroup,
    /// Resolvers
    Resolver,
    /// Auditors
    Auditor,
    /// Escapers
    Escaper,
    /// Servers
    Server,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::UserGroup => "user-group",
            Self::Resolver => "resolver",
            Self::Auditor => "auditor",
            Self::Escaper => "escaper",
            Self::Server => "server",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserGroupCommand {
    /// List the users of the configuration
    #[command(name = "list-static-user")]
    ListStatic,
    /// List the users that were published or fetched
    #[command(name = "list-dynamic-user")]
    ListDynamic,
    /// Replace the dynamic users
    #[command(name = "publish-user", visible_aliases = ["publish", "publish-dynamic-user"])]
    Publish {
        /// JSON file with an array of users
        #[arg(value_hint = FILE)]
        file: PathBuf,
    },
}

impl UserGroupCommand {
    pub(crate) fn call(&self, name: &str) -> anyhow::Result<Call> {
        Ok(match self {
            Self::ListStatic => Call::new("user-group.list-static-user", json!({ "name": name })),
            Self::ListDynamic => Call::new("user-group.list-dynamic-user", json!({ "name": name })),
            Self::Publish { file } => Call::new(
                "user-group.publish-user",
                json!({ "name": name, "users": json_of(file)? }),
            ),
        })
    }
}

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Strategy {
    /// IPv4 only
    #[value(name = "ipv4only", alias = "ipv4_only")]
    Ipv4Only,
    /// IPv6 only
    #[value(name = "ipv6only", alias = "ipv6_only")]
    Ipv6Only,
    /// Both, IPv4 preferred
    #[value(name = "ipv4first", alias = "ipv4_first")]
    Ipv4First,
    /// Both, IPv6 preferred
    #[value(name = "ipv6first", alias = "ipv6_first")]
    Ipv6First,
}

impl Strategy {
    fn name(self) -> &'static str {
        match self {
            Self::Ipv4Only => "ipv4_only",
            Self::Ipv6Only => "ipv6_only",
            Self::Ipv4First => "ipv4_first",
            Self::Ipv6First => "ipv6_first",
        }
    }
}

/// What to do with a cache.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show the answers that it holds
    Show {
        /// Only this name
        domain: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<u32>,
    },
    /// Forget answers
    Flush {
        /// Only this name
        domain: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ResolverCommand {
    /// Show or flush the cache
    Cache {
        #[command(subcommand)]
        command: CacheCommand,
    },
    /// Resolve a name through the daemon
    Query {
        domain: String,
        /// Which addresses
        #[arg(
            short = 's',
            long,
            alias = "query-strategy",
            value_name = "STRATEGY",
            default_value = "ipv4first"
        )]
        strategy: Strategy,
        /// Milliseconds to wait for the preferred kind of address
        #[arg(long, value_name = "MS", default_value_t = 50)]
        resolution_delay: u16,
    },
    /// Show the name servers and how they do
    Upstreams,
}

impl ResolverCommand {
    pub(crate) fn call(&self, name: &str) -> Call {
        match self {
            Self::Cache { command } => command.call(name),
            Self::Query {
                domain,
                strategy,
                resolution_delay,
            } => {
                let params = json!({
                    "name": name,
                    "domain": domain,
                    "strategy": strategy.name(),
                    "resolution_delay": resolution_delay,
                });
                Call::new("resolver.query", params).shown(Show::Query)
            }
            Self::Upstreams => Call::new("resolver.upstreams", json!({ "name": name })).shown(Show::Rows),
        }
    }
}

impl CacheCommand {
    fn call(&self, name: &str) -> Call {
        match self {
            Self::Show { domain, limit } => {
                let mut params = json!({ "name": name, "domain": domain });
                if let Some(limit) = limit {
                    params["limit"] = json!(limit);
                }
                Call::new("resolver.cache.show", params).shown(Show::Rows)
            }
            Self::Flush { domain } => Call::new("resolver.cache.flush", json!({ "name": name, "domain": domain })),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum EscaperCommand {
    /// Hand dynamic data to the escaper
    Publish(Data),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Data {
    /// JSON text
    data: Option<String>,
    /// File with JSON
    #[arg(short = 'f', long, value_name = "PATH", value_hint = FILE)]
    file: Option<PathBuf>,
}

impl EscaperCommand {
    pub(crate) fn call(&self, name: &str) -> anyhow::Result<Call> {
        let Self::Publish(Data { data, file }) = self;
        let data: Value = match (data, file) {
            (_, Some(file)) => json_of(file)?,
            (data, None) => serde_json::from_str(data.as_deref().unwrap_or_default())?,
        };
        Ok(Call::new("escaper.publish", json!({ "name": name, "data": data })))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Show the server's tasks
    Status,
}

impl ServerCommand {
    pub(crate) fn call(&self, name: &str) -> Call {
        let Self::Status = self;
        Call::new("server.status", json!({ "name": name })).shown(Show::Server)
    }
}

/// Prints a result in the form that g3proxy's client has for it.
pub(crate) fn show(how: Show, value: &Value) {
    match how {
        Show::Json => output::json(value),
        Show::Plain => output::plain(value),
        Show::Version => say!("{}", output::text(&value["version"])),
        Show::Query => match value.get("addresses").unwrap_or(value) {
            Value::Array(addresses) => addresses.iter().for_each(|a| say!("{}", output::text(a))),
            other => say!("{}", output::text(other)),
        },
        Show::Server => {
            let rows = [
                ("online", "online"),
                ("alive tasks", "alive_tasks"),
                ("total conn", "total_connections"),
                ("total task", "total_tasks"),
            ];
            for (label, key) in rows {
                say!("{label}: {}", output::text(&value[key]));
            }
        }
        Show::Rows => output::table(&rows(value)),
        Show::Methods => {
            let row = |m: &Value| {
                vec![
                    output::text(&m["name"]),
                    parameters(&m["params"]),
                    output::text(&m["summary"]),
                ]
            };
            let rows: Vec<_> = value.as_array().into_iter().flatten().map(row).collect();
            output::table(&rows);
        }
    }
}

/// A list of maps as a table: a column for each member that any of them has.
fn rows(value: &Value) -> Vec<Vec<String>> {
    let maps: Vec<_> = value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .collect();
    let mut columns: Vec<&String> = Vec::new();
    for key in maps.iter().flat_map(|map| map.keys()) {
        if !columns.contains(&key) {
            columns.push(key);
        }
    }
    let head = columns.iter().map(|key| key.to_uppercase()).collect();
    let cell = |value: Option<&Value>| value.map_or_else(|| "-".to_owned(), output::text);
    let body = maps
        .iter()
        .map(|map| columns.iter().map(|key| cell(map.get(*key))).collect());
    std::iter::once(head).chain(body).collect()
}

/// Names of parameters, those that may be left out in brackets.
fn parameters(schema: &Value) -> String {
    let required = |name: &str| {
        schema["required"]
            .as_array()
            .is_some_and(|r| r.iter().any(|r| r == name))
    };
    let names = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name);
    let shown = names.map(|name| {
        if required(name) {
            name.to_uppercase()
        } else {
            format!("[{}]", name.to_uppercase())
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// Whether the daemon ran the query and it failed, as opposed to a wrong call.
pub(crate) fn is_answer(error: &CallError) -> bool {
    matches!(error, CallError::Answer(answer) if answer.code() == Code::Failed)
}
