//! `sluicectl auditd tail`, `search` and `export`: calls whose answers come in pieces.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

use crate::{
    daemons::Target,
    output::{self, say},
};

/// Commands of auditd
#[derive(Debug, Parser)]
#[command(name = "sluicectl auditd", bin_name = "sluicectl auditd", no_binary_name = true)]
enum Audit {
    /// Print the last events
    Tail {
        /// So many of them
        #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
        lines: usize,
        /// Go on with those that come
        #[arg(short, long)]
        follow: bool,
    },
    /// Find events
    Search {
        /// Of this host, or of hosts in this domain
        #[arg(long)]
        host: Option<String>,
        /// Of this user
        #[arg(long)]
        user: Option<String>,
        /// Of the task with this id
        #[arg(long)]
        task: Option<String>,
        /// Of this kind, as Intercept
        #[arg(long)]
        kind: Option<String>,
        /// Not before: RFC 3339, a day as 2026-11-25 (UTC), or how long ago, as 90s, 15m, 12h, 7d
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Not after
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// The last so many
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
    },
    /// Write what is recorded of one task
    Export {
        /// The task's id
        #[arg(long)]
        task: String,
        /// What to write
        #[arg(long, default_value = "pcapng")]
        format: Format,
        /// Where to [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Har,
    Pcapng,
}

/// What there is, for the help of all commands.
pub(crate) const HELP: &str = "  tail    Print the last events
  search  Find events
  export  Write what is recorded of one task";

/// Whether these words are one of the commands here.
pub(crate) fn is_one(words: &[String]) -> bool {
    let first = words.first().map(String::as_str);
    matches!(first, Some("tail" | "search" | "export"))
}

/// Runs one of them.
pub(crate) async fn run(target: &Target, words: &[String]) -> anyhow::Result<ExitCode> {
    let command = match Audit::try_parse_from(words.iter().map(OsString::from)) {
        Ok(command) => command,
        Err(e) => {
            let _ = e.print(); // nobody is left to tell
            return Ok(if e.use_stderr() { 64.into() } else { ExitCode::SUCCESS });
        }
    };
    match command {
        Audit::Tail { lines, follow } => tail(target, lines, follow).await?,
        Audit::Search {
            host,
            user,
            task,
            kind,
            since,
            until,
            limit,
        } => {
            let wish = json!({
                "host": host, "user": user, "task": task, "kind": kind, "since": since, "until": until, "limit": limit,
            });
            let mut client = target.connect("auditd").await?;
            let found: Value = client.call("audit.search", wish).await?;
            show(&found["events"]);
            for file in found["damaged"].as_array().into_iter().flatten() {
                eprintln!(
                    "sluicectl: `{}` is damaged, events of it are missing",
                    output::text(file)
                );
            }
            if let Some(more) = found["more"].as_u64().filter(|more| *more > 0) {
                eprintln!("sluicectl: {more} earlier events are left out, see --limit");
            }
        }
        Audit::Export { task, format, output } => export(target, &task, format, output.as_deref()).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints events, one in a line.
fn show(events: &Value) {
    let lines = events.as_array().into_iter().flatten();
    lines
        .take_while(|_| !output::is_closed())
        .for_each(|event| say!("{event}"));
}

async fn tail(target: &Target, lines: usize, follow: bool) -> anyhow::Result<()> {
    let mut client = target.connect("auditd").await?;
    let mut answer: Value = client.call("audit.tail", json!({ "lines": lines })).await?;
    loop {
        if let Some(missed) = answer["missed"].as_u64().filter(|missed| *missed > 0) {
            eprintln!("sluicectl: {missed} events came too fast and are left out");
        }
        show(&answer["events"]);
        if !follow || output::is_closed() {
            return Ok(());
        }
        answer = client.call("audit.tail", json!({ "after": answer["next"] })).await?;
    }
}

async fn export(target: &Target, task: &str, format: Format, to: Option<&Path>) -> anyhow::Result<()> {
    if to.is_none() && format == Format::Pcapng && io::stdout().is_terminal() {
        bail!("a capture is nothing for a terminal: name a file with -o");
    }
    let mut client = target.connect("auditd").await?;
    if format == Format::Har {
        let har: Value = client.call("audit.har", json!({ "task": task })).await?;
        if let Some(left) = har["log"]["_leftOut"].as_u64().filter(|left| *left > 0) {
            eprintln!("sluicectl: {left} streams are not HTTP/1 and are left out; a pcapng has them");
        }
        if to.is_none() {
            output::json(&har);
            return Ok(());
        }
        return open(to)?.write_all(har.to_string().as_bytes()).context("cannot write");
    }
    let mut after = Value::Null;
    let mut file = None;
    loop {
        let piece: Value = client
            .call("audit.export", json!({ "task": task, "after": after }))
            .await?;
        let data = BASE64_STANDARD.decode(piece["data"].as_str().unwrap_or_default());
        let data = data.context("the daemon's answer makes no sense")?;
        let file = match &mut file {
            Some(file) => file,
            // Not before there is something to write.
            none => none.insert(open(to)?),
        };
        match file.write_all(&data) {
            // Whoever reads it has had enough.
            Err(e) if to.is_none() && e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("cannot write")?,
        }
        if let Some(left) = piece["left_out"].as_u64().filter(|left| *left > 0) {
            eprintln!("sluicectl: {left} packets of captures in another format are left out");
        }
        after = piece["next"].clone();
        if after.is_null() {
            return file.flush().context("cannot write");
        }
    }
}

/// The file, which nobody else may read, or standard output.
fn open(to: Option<&Path>) -> anyhow::Result<Box<dyn Write>> {
    let Some(path) = to else {
        return Ok(Box::new(io::stdout()));
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    Ok(Box::new(
        file.with_context(|| format!("cannot write `{}`", path.display()))?,
    ))
}
