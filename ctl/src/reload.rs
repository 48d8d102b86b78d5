//! `sluicectl reload`: the whole group, all daemons or none.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Map, Value, json};
use sluice_control::{CallError, Client, NoParams};

use crate::daemons::{self, Target, promptly};
use crate::output::{self, say};

/// Checks in every daemon that runs, then reloads them one after the other.
pub(crate) async fn run(target: &Target) -> anyhow::Result<ExitCode> {
    let mut running: Vec<(&str, Client)> = Vec::new();
    let mut results = Map::new();
    for daemon in daemons::ALL {
        match promptly(target.connect(daemon)).await {
            Ok(client) => running.push((daemon, client)),
            Err(_) => {
                results.insert(daemon.to_owned(), json!("not running"));
            }
        }
    }
    if running.is_empty() {
        target.connect("proxyd").await?;
        bail!("no daemon of the group `{}` runs", target.group());
    }
    let mut broken: Vec<String> = Vec::new();
    for (daemon, client) in &mut running {
        if let Err(e) = client.call::<Value>("check", NoParams {}).await {
            collect(&mut broken, daemon, &e);
        }
    }
    if !broken.is_empty() {
        bail!("nothing was reloaded:\n{}", broken.join("\n"));
    }
    let mut failed = false;
    for (daemon, client) in &mut running {
        let result = match client.call::<Value>("reload", NoParams {}).await {
            Ok(done) => done,
            Err(e) => {
                failed = true;
                json!({ "error": e.to_string() })
            }
        };
        results.insert((*daemon).to_owned(), result);
    }
    if target.json {
        output::json(&Value::Object(results));
    } else {
        print(&results);
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Adds what a daemon found, each finding once.
fn collect(broken: &mut Vec<String>, daemon: &str, error: &CallError) {
    let listed = match error {
        CallError::Answer(answer) => answer.data.as_ref().and_then(|data| data["errors"].as_array()),
        _ => None,
    };
    let found = match listed {
        Some(errors) => errors.iter().map(output::text).collect(),
        None => vec![format!("{daemon}: {error}")],
    };
    for finding in found {
        if !broken.contains(&finding) {
            broken.push(finding);
        }
    }
}

fn print(results: &Map<String, Value>) {
    for daemon in daemons::ALL {
        let told = match results.get(daemon) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Object(map)) => {
                output::text(map.get("error").or_else(|| map.get("message")).unwrap_or(&Value::Null))
            }
            _ => continue,
        };
        say!("{daemon}: {told}");
        for warning in results[daemon]["warnings"].as_array().into_iter().flatten() {
            say!("{daemon}: warning: {}", output::text(warning));
        }
    }
}
