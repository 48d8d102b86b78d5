//! What all daemons have in common, with the real binaries.

use rustix::process::Signal;
use serde_json::{Value, json};
use sluice_testkit::{Group, assert_eventually, binary, sluicectl};
use tokio::process::Command;

/// Each daemon, the least it runs on, and one thing that it refuses in its own part.
const DAEMONS: [(&str, &str, &str); 5] = [
    (
        "proxyd",
        "escaper: [{name: out, type: dummy_deny}]\n",
        "escaper: [{name: out, type: dummy_deny, nonsense: 1}]\n",
    ),
    (
        "resolverd",
        "resolver: [{name: none, type: deny_all}]\n",
        "resolver: [{name: none, type: deny_all, nonsense: 1}]\n",
    ),
    ("certgend", "certgend: {}\n", "certgend: {nonsense: 1}\n"),
    ("auditd", "auditd: {}\n", "auditd: {nonsense: 1}\n"),
    ("icap-stub", "icap_stub: {}\n", "icap_stub: {nonsense: 1}\n"),
];

#[tokio::test]
async fn each_daemon_gets_ready_answers_reloads_and_stops_clean() {
    for (name, yaml, _) in DAEMONS {
        let daemon = Group::new(yaml).daemon(name).start().await;
        let status = daemon.status().await;
        assert_eq!(status["daemon"], name, "{status}");
        assert_eq!(status["group"], "default", "{status}");
        assert_eq!(status["state"], "online", "{status}");
        assert_eq!(status["pid"], daemon.pid(), "{status}");
        assert!(status["listening"].is_array(), "{status}");
        let version = daemon.call("version", Value::Null).await.unwrap();
        assert_eq!(version["protocol"], 1, "{version}");
        daemon.reload().await.unwrap();
        daemon.signal(Signal::HUP);
        assert_eventually!(
            daemon.status().await["reloads"] == 2,
            "{name}: {}",
            daemon.status().await
        );
        daemon.stop().await.assert_clean();
    }
}

#[tokio::test]
async fn each_daemon_ends_by_sigterm_and_by_sigint() {
    for (name, yaml, _) in DAEMONS {
        Group::new(yaml)
            .daemon(name)
            .start()
            .await
            .terminate()
            .await
            .assert_clean();
        let mut daemon = Group::new(yaml).daemon(name).start().await;
        daemon.signal(Signal::INT);
        assert_eq!(
            daemon.process().wait().await.code(),
            Some(0),
            "{name}\n{}",
            daemon.stderr()
        );
    }
}

#[tokio::test]
async fn a_broken_file_is_told_with_its_place_and_exits_78() {
    for (name, good, broken) in DAEMONS {
        let group = Group::new(broken);
        for args in [&[][..], &["-t"]] {
            let starter = args.iter().fold(group.daemon(name), |starter, arg| starter.arg(arg));
            let exited = starter.run().await;
            assert_eq!(exited.code, Some(78), "{name}: {exited:?}");
            let place = format!("{}:1:", group.main_file().display());
            assert!(exited.stderr.contains(&place), "{name}: {exited:?}");
            assert!(exited.stderr.contains("nonsense"), "{name}: {exited:?}");
        }
        let exited = Group::new(good).daemon(name).arg("-t").run().await;
        assert_eq!((exited.code, exited.stderr.as_str()), (Some(0), ""), "{name}");
    }
}

#[tokio::test]
async fn a_reload_of_a_broken_file_changes_nothing_and_says_why() {
    for (name, good, broken) in DAEMONS {
        let daemon = Group::new(good).daemon(name).start().await;
        daemon.group().rewrite(broken);
        let error = daemon.reload().await.unwrap_err();
        assert!(error.message.contains("nonsense"), "{name}: {error:?}");
        let status = daemon.status().await;
        assert_eq!(status["reloads"], 0, "{status}");
        assert_eq!(status["last_reload"]["ok"], false, "{status}");
        daemon.group().rewrite(good);
        daemon.reload().await.unwrap();
        daemon.stop().await.assert_clean();
    }
}

#[tokio::test]
async fn what_a_kill_leaves_behind_is_no_obstacle() {
    for (name, yaml, _) in DAEMONS {
        let group = Group::new(yaml).daemon(name).start().await.kill9().await;
        let daemon = group.daemon(name).start().await;
        let twice = group.daemon(name).run().await;
        assert_eq!(twice.code, Some(1), "{name}: {twice:?}");
        assert!(twice.stderr.contains(&daemon.pid().to_string()), "{name}: {twice:?}");
        daemon.stop().await.assert_clean();
    }
}

#[tokio::test]
async fn a_wrong_command_line_exits_64_and_what_needs_no_file_is_printed() {
    for (name, ..) in DAEMONS {
        let run = async |args: &[&str]| Command::new(binary(name)).args(args).output().await.unwrap();
        assert_eq!(run(&[]).await.status.code(), Some(64), "{name}");
        assert_eq!(run(&["--no-such-flag"]).await.status.code(), Some(64), "{name}");
        let version = run(&["-V"]).await;
        assert_eq!(
            String::from_utf8(version.stdout).unwrap(),
            format!("{name} {}\n", env!("CARGO_PKG_VERSION"))
        );
        let schema: Value = serde_json::from_slice(&run(&["--schema"]).await.stdout).unwrap();
        assert!(schema["properties"].is_object(), "{name}");
        let completion = run(&["--completion", "bash"]).await;
        assert!(String::from_utf8(completion.stdout).unwrap().contains(name), "{name}");
    }
}

#[tokio::test]
async fn an_unknown_control_method_is_an_answer_and_the_connection_goes_on() {
    for (name, yaml, _) in DAEMONS {
        let daemon = Group::new(yaml).daemon(name).start().await;
        let mut ctl = daemon.ctl().await;
        assert_eq!(
            ctl.call("no-such-method", Value::Null).await.unwrap_err().code,
            -32601,
            "{name}"
        );
        assert_eq!(
            ctl.call("version", json!({"unknown": 1})).await.unwrap_err().code,
            -32602,
            "{name}"
        );
        let garbage: Value = serde_json::from_str(&ctl.line("this is no JSON\n").await.unwrap()).unwrap();
        assert_eq!(garbage["error"]["code"], -32700, "{name}: {garbage}");
        ctl.call("version", Value::Null).await.unwrap();
        daemon.stop().await.assert_clean();
    }
}

#[tokio::test]
async fn sluicectl_shows_the_whole_group() {
    let group = Group::new(&DAEMONS.map(|(_, yaml, _)| yaml).concat());
    let mut daemons = Vec::new();
    for (name, ..) in DAEMONS {
        daemons.push(group.daemon(name).start().await);
    }
    let run = group.runtime_dir();
    let dir = run.to_str().unwrap();
    let exited = sluicectl(["-C", dir, "status"]).await;
    assert_eq!(exited.code, Some(0), "{exited:?}");
    for (name, ..) in DAEMONS {
        assert!(exited.stdout.contains(name), "{exited:?}");
    }
    let file = group.main_file();
    let exited = sluicectl(["-C", dir, "check", "-c", file.to_str().unwrap()]).await;
    assert_eq!(exited.code, Some(0), "{exited:?}");
    let one = daemons.pop().unwrap();
    one.stop().await.assert_clean();
    assert_eq!(sluicectl(["-C", dir, "status"]).await.code, Some(1));
    for daemon in daemons {
        daemon.stop().await.assert_clean();
    }
}
