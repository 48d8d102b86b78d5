//! Captures and event logs of auditd, as tshark and sluicectl read them.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_testkit::{Ca, Curl, Group, Nginx, curl, sluicectl};

use crate::rig::private;

/// All captures of a group, in order.
pub fn captures(group: &Group) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(group.dir().join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("capture-"))
        .collect();
    files.sort();
    files
}

/// What tshark reads of these fields in the packets of a file that fit a filter: a row for each.
pub fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    tshark_as(file, None, filter, fields)
}

/// The same with `decode` saying whose a port is, as in `tcp.port==1,http2`.
pub fn tshark_as(file: &Path, decode: Option<&str>, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    if let Some(decode) = decode {
        command.args(["-d", decode]);
    }
    command.arg("-r").arg(file).args(["-Y", filter, "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(!told.contains("cut short") && !told.contains("corrupt"), "{told}");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The paths of all requests that tshark finds in all captures.
pub fn paths(group: &Group) -> Vec<String> {
    let all = captures(group);
    all.iter()
        .flat_map(|file| tshark(file, "http.request", &["http.request.uri"]))
        .collect()
}

/// Paths: `/0`, `/1` and so on.
pub fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("/{n}")).collect()
}

/// What `sluicectl auditd` prints for a group.
pub async fn ctl(group: &Group, words: &[&str]) -> String {
    let dir = group.runtime_dir();
    let first = ["-C", dir.to_str().unwrap(), "auditd"];
    let exited = sluicectl(first.iter().chain(words)).await;
    assert_eq!(exited.code, Some(0), "{}", exited.stderr);
    exited.stdout
}

/// A group that intercepts TLS, with `more` keys of its auditor; nginx behind it, and what clients have to trust.
pub async fn intercepting(more: &str) -> (Group, Nginx, PathBuf) {
    intercepting_with(more, "").await
}

/// The same with more sections.
pub async fn intercepting_with(more: &str, sections: &str) -> (Group, Nginx, PathBuf) {
    let ca = Ca::new();
    // Each body says what was asked for, but for those that lie in files.
    let echo = "location / { return 200 $request_uri; } location /files/ { alias www/; }";
    let nginx = Nginx::start_with(echo, Some(&ca.issue(&["a.test"]))).await;
    let yaml = format!(
        "auditd: {{directory: audit, compress: none}}
auditor:
  - name: inside
    tls_cert_agent: {{}}
    tls_interception_client: {{ca_certificate: '%dir%/ca.pem', no_default_ca_certificate: true}}
    {more}
certgend: {{backend: {{ca_certificate: '%dir%/mint.pem', ca_private_key: '%dir%/mint.key'}}}}
{sections}
{}",
        crate::proxy("auditor: inside", "")
    );
    let group = Group::new(&yaml);
    ca.write(group.dir());
    let ours = Ca::named("Interception CA");
    let trust = group.write_file("mint.pem", ours.pem());
    private(&group.write_file("mint.key", ours.key_pem()));
    (group, nginx, trust)
}

/// curl to a path of that nginx, through the group's proxy.
pub fn fetch(group: &Group, nginx: &Nginx, trust: &Path, path: &str) -> Curl {
    curl(&format!("https://a.test{path}"))
        .proxy(group.addr("http"))
        .arg("--connect-to")
        .arg(format!("::{}", nginx.tls_addr()))
        .trust(trust)
}
