//! `sluicectl check`: every daemon's `-t`, joined.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;
use tokio::process::Command;

use crate::{daemons, output};

/// What the daemons found, each once, with those that said so.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    errors: Vec<(String, Vec<&'static str>)>,
    warnings: Vec<(String, Vec<&'static str>)>,
}

impl Findings {
    /// Whether nobody found an error.
    pub(crate) fn is_good(&self) -> bool {
        self.errors.is_empty()
    }

    /// Prints errors and warnings, blocks of text.
    pub(crate) fn print(&self) {
        for (text, _) in &self.warnings {
            eprintln!("warning: {text}");
        }
        for (text, _) in &self.errors {
            eprintln!("{text}");
        }
    }

    fn add(&mut self, daemon: &'static str, failed: bool, stderr: &str) {
        for block in blocks(stderr) {
            let (list, text) = match block.strip_prefix("warning: ") {
                Some(warning) => (&mut self.warnings, warning),
                None if failed => (&mut self.errors, block.as_str()),
                // What a daemon says of a good file.
                None => continue,
            };
            match list.iter_mut().find(|(known, _)| known == text) {
                Some((_, by)) => by.push(daemon),
                None => list.push((text.to_owned(), vec![daemon])),
            }
        }
    }
}

/// Checks the configuration at `config` with every daemon and prints what is wrong.
pub(crate) async fn run(config: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let findings = findings(config, &daemons::ALL).await?;
    if as_json {
        let list = |list: &[(String, Vec<&str>)]| {
            let entry = |(text, by): &(String, Vec<&str>)| json!({ "text": text, "daemons": by });
            list.iter().map(entry).collect::<Vec<_>>()
        };
        let (errors, warnings) = (list(&findings.errors), list(&findings.warnings));
        output::json(&json!({ "ok": findings.is_good(), "errors": errors, "warnings": warnings }));
    } else {
        findings.print();
    }
    Ok(if findings.is_good() {
        ExitCode::SUCCESS
    } else {
        78.into()
    })
}

/// Runs `-t` of each of `named` on `config`.
pub(crate) async fn findings(config: &Path, named: &[&'static str]) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    for daemon in named {
        let binary = daemons::binary(daemon)?;
        let mut command = Command::new(&binary);
        command.arg("-t").arg("-v").arg("-c").arg(config);
        let done = command
            .output()
            .await
            .with_context(|| format!("cannot run `{}`", binary.display()))?;
        findings.add(daemon, !done.status.success(), &String::from_utf8_lossy(&done.stderr));
        if !done.status.success() && done.status.code() != Some(78) {
            findings
                .errors
                .push((format!("{daemon} -t ended with {}", done.status), vec![daemon]));
        }
    }
    Ok(findings)
}

/// Lines, with the indented ones that follow each.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    for line in text.lines() {
        match blocks.last_mut() {
            Some(block) if line.starts_with(' ') => {
                block.push('\n');
                block.push_str(line);
            }
            _ => blocks.push(line.to_owned()),
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_daemons_say_is_told_once() {
        let mut findings = Findings::default();
        let common = "warning: m.yml:1:1: old\nm.yml:2:1: unknown section `x`\n    did you mean `y`?\n";
        findings.add("resolverd", true, common);
        findings.add(
            "proxyd",
            true,
            &format!("{common}m.yml:3:1: server[0]: missing `name`\n"),
        );
        findings.add("auditd", false, "auditd: the configuration is good\n");
        assert_eq!(findings.errors.len(), 2);
        assert_eq!(
            findings.errors[0].0,
            "m.yml:2:1: unknown section `x`\n    did you mean `y`?"
        );
        assert_eq!(findings.errors[0].1, ["resolverd", "proxyd"]);
        assert_eq!(
            findings.warnings,
            [("m.yml:1:1: old".to_owned(), vec!["resolverd", "proxyd"])]
        );
    }
}
