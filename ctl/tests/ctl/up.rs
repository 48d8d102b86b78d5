//! `sluicectl up`: children started, watched and stopped.

use crate::group::{Group, HELPERS, signal, stderr, stdout};
use rustix::process::Signal;

#[test]
fn it_says_who_is_ready_and_ctrl_c_stops_all() {
    let group = Group::new("{}");
    let mut up = group.up(&["--hello", "try this"]);
    up.wait_for("try this");
    let all = group.json(&["status", "certgend", "auditd", "icap-stub"]);
    assert_eq!(all["daemons"].as_array().unwrap().len(), 3);
    up.signal(Signal::INT);
    let (code, rest) = up.end();
    assert_eq!(code, Some(0), "{rest}");
    assert!(
        rest.contains("certgend  | ") && rest.ends_with("up: stopped\n"),
        "{rest}"
    );
    assert!(!group.run(&["status", "auditd"]).status.success());
}

#[test]
fn a_bounded_form_ends_by_itself() {
    let group = Group::new("{}");
    let main = group.path("main.yml");
    let up = |more: &[&str]| group.run(&[&["up", "-c", main.to_str().unwrap(), "--only", HELPERS], more].concat());
    let output = up(&["--until-ready"]);
    assert_eq!(output.status.code(), Some(0));
    for daemon in HELPERS.split(',') {
        assert_eq!(
            stdout(&output).matches(&format!("up: {daemon} is ready, pid ")).count(),
            1
        );
    }
    assert_eq!(up(&["--for", "10ms"]).status.code(), Some(0));
    let with_command = up(&["--", "sh", "-c", "test -S $SLUICE_RUNTIME_DIR/auditd.ctl && exit 7"]);
    assert_eq!(with_command.status.code(), Some(7));
}

#[test]
fn the_whole_group_comes_up_in_order() {
    let group = Group::new(
        "resolver: [{name: dns, type: hickory, server: 127.0.0.1}]
escaper: [{name: out, type: direct_fixed, resolver: dns}]
server: [{name: web, type: http_proxy, listen: 127.0.0.1:0, escaper: out}]
",
    );
    let main = group.path("main.yml");
    let output = group.run(&["up", "-c", main.to_str().unwrap(), "--until-ready"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = stdout(&output);
    let ready = told
        .lines()
        .filter_map(|line| line.strip_prefix("up: ")?.split(" is ready").next());
    let order: Vec<_> = ready.filter(|name| !name.contains(' ')).collect();
    assert_eq!(
        order[..5],
        ["resolverd", "certgend", "auditd", "icap-stub", "proxyd"],
        "{told}"
    );
}

#[test]
fn a_crashed_child_starts_again_and_the_exit_code_tells() {
    let group = Group::new("{}");
    let mut up = group.up(&[]);
    let pid = |group: &Group| group.json(&["auditd", "status"])["pid"].as_u64().unwrap();
    let before = pid(&group);
    signal(u32::try_from(before).unwrap(), Signal::KILL);
    assert!(up.wait_for("up: auditd ended with").contains("starts again in 200ms"));
    up.wait_for("up: auditd is ready");
    assert_ne!(pid(&group), before);
    up.signal(Signal::TERM);
    assert_eq!(up.end().0, Some(1));
}

#[test]
fn a_child_that_somebody_stopped_stays_stopped() {
    let group = Group::new("{}");
    let mut up = group.up(&[]);
    assert!(group.run(&["auditd", "offline"]).status.success());
    up.wait_for("up: auditd was stopped");
    assert!(group.run(&["certgend", "quit"]).status.success());
    assert!(group.run(&["icap-stub", "quit"]).status.success());
    up.wait_for("up: no daemon is left");
    assert_eq!(up.end().0, Some(0));
}

#[test]
fn a_hangup_reloads_the_group() {
    let group = Group::new("{}");
    let mut up = group.up(&[]);
    up.signal(Signal::HUP);
    up.wait_for("icap-stub: configuration reloaded");
    assert_eq!(group.json(&["icap-stub", "status"])["reloads"], 1);
    up.signal(Signal::INT);
    assert_eq!(up.end().0, Some(0));
}

#[test]
fn a_broken_configuration_starts_nothing_and_is_told_once() {
    let group = Group::new("no_such_section: 1\ncertgend: {backend: 1}\n");
    let main = group.path("main.yml");
    let output = group.run(&["up", "-c", main.to_str().unwrap(), "--only", HELPERS]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert_eq!(told.matches("no_such_section").count(), 1, "{told}");
    assert!(told.contains("certgend.backend: expected a map"), "{told}");
    assert!(!group.path("run").exists());
}

#[test]
fn a_child_that_cannot_start_ends_it() {
    let group = Group::new("{}");
    std::fs::create_dir(group.path("run")).unwrap();
    std::fs::write(group.path("run/auditd.ctl"), "").unwrap();
    let main = group.path("main.yml");
    let output = group.run(&["up", "-c", main.to_str().unwrap(), "--only", HELPERS]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("auditd did not start"), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("is not replaced"),
        "its own words are shown: {}",
        stdout(&output)
    );
}
