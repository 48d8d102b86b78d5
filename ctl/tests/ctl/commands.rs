//! `sluicectl` against daemons that were started one by one.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::group::{Group, HELPERS, signal, stderr, stdout};
use rustix::process::Signal;

#[test]
fn each_helper_starts_answers_reloads_and_stops() {
    for daemon in HELPERS.split(',') {
        let group = Group::new("log: discard\n");
        let process = group.daemon(daemon, &["-G", "edge"]);
        let status = group.json(&[daemon, "status"]);
        assert_eq!(
            (&status["daemon"], &status["state"]),
            (&daemon.into(), &"online".into())
        );
        // What it does not do as it is configured.
        let (note, doors) = match daemon {
            "auditd" => ("", 1),
            "certgend" => ("`certgend.backend.ca_certificate` is not set", 1),
            _ => ("`icap_stub` names no address", 0),
        };
        assert!(status["note"].as_str().unwrap_or_default().contains(note), "{status}");
        assert_eq!(status["listening"].as_array().unwrap().len(), doors);
        assert_eq!(
            stdout(&group.run(&[daemon, "version"])),
            concat!(env!("CARGO_PKG_VERSION"), "\n")
        );
        assert_eq!(
            stdout(&group.run(&[daemon, "reload"])),
            "notice: configuration reloaded\n"
        );
        assert_eq!(group.json(&[daemon, "status"])["reloads"], 1);
        assert!(group.run(&[daemon, "offline"]).status.success());
        let output = process.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(
            stderr(&output).contains("WARN"),
            daemon == "certgend",
            "a CA that is missing is told at start: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_missing_daemon_is_one_line_with_its_socket_and_what_to_do() {
    let group = Group::new("{}");
    let output = group.run(&["proxyd", "version"]);
    let told = stderr(&output);
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(
        told.contains("run/proxyd.ctl") && told.contains("sluicectl up -c"),
        "{told}"
    );
    assert!(group.json(&["proxyd", "version"])["error"]["message"].is_string());
}

#[test]
fn the_name_it_is_called_by_chooses_the_daemon() {
    let group = Group::new("{}");
    let _auditd = Kill(group.daemon("auditd", &[]));
    let called = |name: &str, words: &[&str]| {
        let link = group.path(name);
        if !link.exists() {
            symlink(env!("CARGO_BIN_EXE_sluicectl"), &link).unwrap();
        }
        Command::new(link)
            .arg("-C")
            .arg(group.path("run"))
            .args(words)
            .output()
            .unwrap()
    };
    assert_eq!(
        stdout(&called("auditd-ctl", &["version"])),
        concat!(env!("CARGO_PKG_VERSION"), "\n")
    );
    assert!(stderr(&called("g3proxy-ctl", &["version"])).contains("proxyd.ctl"));
    assert!(stdout(&called("auditd-ctl", &["completion", "bash"])).contains("auditd-ctl"));
}

#[test]
fn commands_that_the_daemon_lacks_are_answered_by_it() {
    let group = Group::new("{}");
    let _auditd = Kill(group.daemon("auditd", &[]));
    let told = |words: &[&str]| {
        let output = group.run(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        stderr(&output)
    };
    assert!(told(&["auditd", "server", "web", "status"]).contains("no method is named `server.status`"));
    assert!(told(&["auditd", "list", "server"]).contains("not a kind of auditd"));
    assert!(told(&["auditd", "no-such-word", "1"]).contains("no method `no-such-word`"));
    assert!(told(&["auditd", "call", "version", "{"]).contains("not JSON"));
    assert_eq!(group.json(&["auditd", "call", "nothing"])["error"]["code"], -32601);
}

#[test]
fn methods_are_called_by_name_with_values_in_order() {
    let group = Group::new("{}");
    // It has no methods of its own.
    let _certgend = Kill(group.daemon("certgend", &[]));
    assert!(stdout(&group.run(&["certgend", "describe"])).contains("cancel-shutdown"));
    assert_eq!(
        group.json(&["certgend", "call", "log-level", "[\"info\"]"])["level"],
        "info"
    );
    assert_eq!(
        stdout(&group.run(&["certgend", "rpc.describe", "--json"]))
            .matches("\"summary\"")
            .count(),
        12
    );
}

#[test]
fn status_shows_who_serves_who_drains_and_who_is_absent() {
    let patient = "auditd: {runtime: {server_offline_delay: 1h}}\n";
    let group = Group::new(patient);
    let old = Kill(group.daemon("auditd", &[]));
    signal(old.0.id(), Signal::TERM);
    let pid = old.0.id().to_string();
    while group.json(&["auditd", "status"])["state"] != "waiting" {}
    let table = group.run(&["status"]);
    assert_eq!(table.status.code(), Some(1), "not all answer");
    let shown = stdout(&table);
    let row = shown.lines().find(|line| line.starts_with("auditd")).unwrap();
    assert!(row.contains("waiting") && row.contains(&pid), "{shown}");
    assert!(
        shown
            .lines()
            .any(|line| line.starts_with("proxyd") && line.contains("absent")),
        "{shown}"
    );
    assert_eq!(group.run(&["status", "auditd"]).status.code(), Some(0));
    assert!(group.run(&["-p", &pid, "auditd", "cancel-shutdown"]).status.success());
    assert_eq!(group.json(&["status"])["daemons"][2]["state"], "online");
}

#[test]
fn a_group_reload_is_all_or_nothing() {
    let group = Group::new("{}");
    let _daemons = [Kill(group.daemon("auditd", &[])), Kill(group.daemon("certgend", &[]))];
    // Only certgend minds, auditd comes after it and would not.
    group.write("certgend: {backend: {}}\n");
    let refused = group.run(&["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("nothing was reloaded") && stderr(&refused).contains("`ca_certificate`"));
    assert_eq!(group.json(&["auditd", "status"])["reloads"], 0);
    group.write("{}");
    let done = group.run(&["reload"]);
    assert!(done.status.success());
    assert!(
        stdout(&done).contains("auditd: configuration reloaded\n") && stdout(&done).contains("proxyd: not running\n")
    );
    assert_eq!(group.json(&["auditd", "status"])["reloads"], 1);
}

#[test]
fn certgend_leaves_no_core_file() {
    let group = Group::new("{}");
    let certgend = Kill(group.daemon("certgend", &[]));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", certgend.0.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
}

/// A small group with a fault in two daemons' parts, and one that all of them see.
const BROKEN: &str = "no_such_section: 1
resolver: [{name: dns, type: hickory, server: 127.0.0.1, no_such_key: 1}]
escaper: [{name: out, type: direct_fixed, resolver: dsn}]
server: [{name: web, type: http_proxy, listen: 127.0.0.1:0, escaper: out}]
";

#[test]
fn a_check_joins_what_all_daemons_find() {
    let group = Group::new(BROKEN);
    let main = group.path("main.yml");
    let words = ["check", "-c", main.to_str().unwrap()];
    let output = group.run(&words);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{told}");
    for fault in ["main.yml:1:1:", "no_such_key", "`dsn`"] {
        assert_eq!(
            told.lines().filter(|line| line.contains(fault)).count(),
            1,
            "{fault}: {told}"
        );
    }
    let found = group.json(&words);
    assert_eq!(found["ok"], false);
    assert_eq!(found["errors"][0]["daemons"].as_array().unwrap().len(), 5, "{found}");
    group.write(
        &BROKEN
            .replace("no_such_section: 1\n", "")
            .replace(", no_such_key: 1", "")
            .replace("dsn", "dns"),
    );
    let output = group.run(&words);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_schema_of_a_group_is_one_and_whole() {
    let schema = Group::new("{}").json(&["schema"]);
    for section in [
        "server",
        "escaper",
        "resolver",
        "log",
        "stat",
        "runtime",
        "worker",
        "icap_stub",
        "naming",
        "peers",
    ] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
    let text = schema.to_string();
    let used = text
        .split("\"#/$defs/")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap());
    for name in used {
        assert!(
            schema["$defs"][name].is_object() || schema["$defs"][name].is_boolean(),
            "{name} is not defined"
        );
    }
}

/// A process that does not outlive its test.
struct Kill(std::process::Child);

impl Drop for Kill {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
