//! The daemons of a group: where their sockets and binaries are.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use sluice_control::{Client, ConnectError, paths};
use tokio::time::timeout;

/// The daemons, in the order in which a group starts and is reloaded.
pub(crate) const ALL: [&str; 5] = ["resolverd", "certgend", "auditd", "icap-stub", "proxyd"];

/// Which group, and how to print.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Target {
    /// The group [default: default]
    #[arg(
        short = 'G',
        long = "daemon-group",
        visible_alias = "group-name",
        value_name = "NAME",
        global = true
    )]
    #[arg(value_parser = paths::group)]
    group: Option<String>,

    /// Runtime directory of the group [default: where its daemons have it by default]
    #[arg(short = 'C', long, value_name = "DIR", global = true, value_hint = clap::ValueHint::DirPath)]
    control_dir: Option<PathBuf>,

    /// The process with this id, also one that is draining
    #[arg(short = 'p', long = "daemon-pid", value_name = "PID", global = true)]
    pub(crate) pid: Option<u32>,

    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Target {
    pub(crate) fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(paths::DEFAULT_GROUP)
    }

    /// The group's runtime directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.control_dir
            .clone()
            .unwrap_or_else(|| paths::default_dir(self.group()))
    }

    /// The control socket of `daemon`.
    pub(crate) fn socket(&self, daemon: &str) -> PathBuf {
        match self.pid {
            Some(pid) => paths::process_socket(&self.dir(), daemon, pid),
            None => paths::socket(&self.dir(), daemon),
        }
    }

    /// The same, whatever the working directory will be.
    pub(crate) fn absolute_dir(&self) -> anyhow::Result<PathBuf> {
        std::path::absolute(self.dir()).context("cannot tell where the runtime directory is")
    }

    /// The same group, one process of it.
    #[must_use]
    pub(crate) fn process(&self, pid: Option<u32>) -> Self {
        Self { pid, ..self.clone() }
    }

    /// Connects to `daemon`.
    ///
    /// # Errors
    /// One line with the socket and what to do.
    pub(crate) async fn connect(&self, daemon: &str) -> anyhow::Result<Client> {
        match Client::connect(&self.socket(daemon)).await {
            Err(e @ ConnectError::Io { .. }) => bail!("{daemon} {}: {}", why(&e), self.remedy()),
            connected => Ok(connected?),
        }
    }

    /// What to do if nobody answers.
    pub(crate) fn remedy(&self) -> String {
        let unit = format!("sluice@{}.target", self.group());
        format!("start the group (`sluicectl up -c DIR`, `systemctl start {unit}`), or name its directory with -C")
    }
}

/// Why a daemon is not reached, after its name.
pub(crate) fn why(error: &ConnectError) -> String {
    match error {
        ConnectError::Io { path, source } => {
            let word = source.to_string();
            let word = word.split(" (os error").next().unwrap_or_default().to_lowercase();
            format!("does not answer on `{}` ({word})", path.display())
        }
        ConnectError::Untrusted { .. } => format!("is not trusted: {error}"),
    }
}

/// Gives up on a daemon that does not answer at once.
pub(crate) async fn promptly<T>(call: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(Duration::from_secs(5), call)
        .await
        .context("no answer within 5 s")?
}

/// The binary of `daemon`, which lies beside this one.
pub(crate) fn binary(daemon: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where sluicectl lies")?;
    let path = own.with_file_name(daemon);
    if !path.is_file() {
        bail!("there is no `{}`: the daemons lie beside sluicectl", path.display());
    }
    Ok(path)
}
