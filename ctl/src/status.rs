//! `sluicectl status`: the whole group at a glance.

use std::fs;
use std::process::ExitCode;

use serde_json::{Value, json};
use sluice_control::{Client, NoParams};

use crate::daemons::{self, Target, promptly};
use crate::output::{self, say};

/// Asks every daemon, or the named ones; fails if one of them does not answer.
pub(crate) async fn run(target: &Target, named: &[String]) -> anyhow::Result<ExitCode> {
    let wanted: Vec<&str> = match named {
        [] => daemons::ALL.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    let mut found: Vec<(&str, Result<Value, String>)> = Vec::new();
    for daemon in wanted {
        let serving = ask(target, daemon).await;
        let serving_pid = serving.as_ref().ok().and_then(|s| s["pid"].as_u64());
        found.push((daemon, serving));
        for pid in processes(target, daemon)
            .into_iter()
            .filter(|pid| Some(u64::from(*pid)) != serving_pid)
        {
            let one = target.process(Some(pid));
            // Without an answer it is a socket that a killed process left behind.
            if let Ok(status) = ask(&one, daemon).await {
                found.push((daemon, Ok(status)));
            }
        }
    }
    if target.json {
        output::json(&as_json(target, &found));
    } else {
        output::table(&rows(&found));
        if found.iter().any(|(_, status)| status.is_err()) {
            say!("\nto have all of them: {}", target.remedy());
        }
    }
    let all = found.iter().all(|(_, status)| status.is_ok());
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What `daemon` says of itself, or why it does not.
async fn ask(target: &Target, daemon: &str) -> Result<Value, String> {
    let asked = async {
        let mut client = Client::connect(&target.socket(daemon))
            .await
            .map_err(|e| daemons::why(&e))?;
        client.call("status", NoParams {}).await.map_err(|e| e.to_string())
    };
    promptly(async { Ok(asked.await) })
        .await
        .unwrap_or_else(|e| Err(e.to_string()))
}

/// Processes of `daemon` that have a socket of their own.
fn processes(target: &Target, daemon: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(target.dir()) else {
        return Vec::new();
    };
    let pid = |name: &str| {
        name.strip_prefix(daemon)?
            .strip_prefix('.')?
            .strip_suffix(".ctl")?
            .parse()
            .ok()
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut pids: Vec<u32> = names.filter_map(|name| pid(name.to_str()?)).collect();
    pids.sort_unstable();
    pids
}

fn as_json(target: &Target, found: &[(&str, Result<Value, String>)]) -> Value {
    let daemon = |(name, status): &(&str, Result<Value, String>)| match status {
        Ok(status) => status.clone(),
        Err(why) => json!({ "daemon": name, "state": "absent", "error": why }),
    };
    json!({
        "group": target.group(),
        "runtime_dir": target.dir(),
        "daemons": found.iter().map(daemon).collect::<Vec<_>>(),
    })
}

fn rows(found: &[(&str, Result<Value, String>)]) -> Vec<Vec<String>> {
    let head = ["DAEMON", "STATE", "PID", "UP", "TASKS", "LISTENING", "NOTE"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (daemon, status) in found {
        rows.push(match status {
            Ok(status) => row(daemon, status),
            Err(why) => {
                let blank = || "-".to_owned();
                vec![
                    (*daemon).to_owned(),
                    "absent".to_owned(),
                    blank(),
                    blank(),
                    blank(),
                    blank(),
                    why.clone(),
                ]
            }
        });
    }
    rows
}

fn row(daemon: &str, status: &Value) -> Vec<String> {
    let field = |key: &str| output::text(&status[key]);
    let reload_failed = status["last_reload"]["ok"] == Value::Bool(false);
    let notes = [
        status["note"].as_str().map(str::to_owned),
        reload_failed.then(|| "the last reload failed".to_owned()),
    ];
    vec![
        daemon.to_owned(),
        field("state"),
        field("pid"),
        uptime(status["uptime"].as_u64().unwrap_or(0)),
        field("tasks"),
        dash(sluice_control::listening(status)),
        notes.into_iter().flatten().collect::<Vec<_>>().join("; "),
    ]
}

/// A cell is never empty.
pub(crate) fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn uptime(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let shown = [5, 65, 3700, 90000].map(uptime);
        assert_eq!(shown, ["5s", "1m5s", "1h1m", "1d1h"]);
    }
}
