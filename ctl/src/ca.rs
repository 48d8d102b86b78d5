//! `sluicectl certgend ca …`: what certgend's binary does without a daemon running.

use std::process::ExitCode;

use anyhow::Context;
use tokio::process::Command;

use crate::daemons::{self, Target};

/// What there is, for the help of all commands.
pub(crate) const HELP: &str = "  ca init  Make the CA that the configuration names";

/// Runs certgend with these words; the configuration is the group's unless they name another.
pub(crate) async fn run(target: &Target, words: &[String]) -> anyhow::Result<ExitCode> {
    let binary = daemons::binary("certgend")?;
    let mut command = Command::new(&binary);
    command.args(words);
    let names_one = |word: &String| word.starts_with("-c") || word.starts_with("--config-file");
    let is_complete = words
        .iter()
        .any(|word| names_one(word) || word == "-h" || word == "--help");
    if words.len() > 1 && !is_complete {
        command.arg("-c").arg(format!("/etc/sluice/{}", target.group()));
    }
    let status = command
        .status()
        .await
        .with_context(|| format!("cannot run `{}`", binary.display()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
