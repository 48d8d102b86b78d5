//! proxyd with an auditor that inspects, and what it has found.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

use serde_json::Value;
use sluice_testkit::{Daemon, Origin, assert_eventually};

use crate::{finished, proxy};

/// A proxy with an auditor; more keys of the auditor and of the server.
pub fn audited(auditor: &str, server: &str) -> String {
    let server = proxy(&format!("auditor: watch, {server}"), "");
    format!("{server}auditor:\n  - {{name: watch, {auditor}}}\n")
}

/// A proxy with an auditor of these keys, at work.
pub async fn started(auditor: &str) -> Daemon {
    Daemon::proxyd(&audited(auditor, "")).start().await
}

/// The protocols of the tunnels that were inspected, in order.
pub fn found(daemon: &Daemon) -> Vec<String> {
    let records = daemon.log_records("Inspect");
    records
        .iter()
        .map(|record| record["protocol"].as_str().unwrap().to_owned())
        .collect()
}

/// Asserts what the only tunnel turned out to be, once its task has ended for this reason.
pub async fn assert_one(daemon: Daemon, protocol: &str, reason: &str) -> Value {
    assert_eventually!(finished(&daemon).len() == 1);
    assert_eq!(found(&daemon), [protocol]);
    let task = finished(&daemon).remove(0);
    assert_eq!(task["reason"], reason, "{task}");
    daemon.stop().await.assert_clean();
    task
}

/// An origin that sends this at once, then answers every message by itself.
pub fn greets(greeting: &'static [u8]) -> Origin {
    Origin::script(move |conn| {
        conn.write(greeting)?;
        while let Some(bytes) = conn.some()? {
            conn.write(&bytes)?;
        }
        Ok(())
    })
}
