//! Drives `examples/minimal.rs`, a real process with real sockets and signals, through its life.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sluice_control::{CallError, Client, Code};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// Nothing in these tests takes so long.
const LATE: Duration = Duration::from_secs(20);

/// A drain that nobody waits out.
const PATIENT: &str = "auditd: {runtime: {server_offline_delay: 1h, task_wait_timeout: 1h, task_quit_timeout: 0s}}\n";

fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(2).unwrap().join("examples/minimal")
}

/// A directory with a main file and room for a runtime directory.
struct Place(TempDir);

impl Place {
    fn new(main: &str) -> Self {
        let place = Self(TempDir::new().unwrap());
        place.write(main);
        place
    }

    fn write(&self, main: &str) {
        fs::write(self.path("main.yml"), main).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .arg("-c")
            .arg(self.path("main.yml"))
            .arg("-C")
            .arg(self.path("run"))
            .args(flags);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn output(&self, flags: &[&str]) -> Output {
        timeout(LATE, self.command(flags).output()).await.unwrap().unwrap()
    }

    async fn start(&self, flags: &[&str]) -> Running {
        let mut command = self.command(flags);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running::of(child, &self.path("run")).await
    }
}

struct Running {
    child: Child,
    shared: PathBuf,
    own: PathBuf,
}

impl Running {
    async fn of(child: Child, run: &Path) -> Self {
        let own = run.join(format!("auditd.{}.ctl", child.id().unwrap()));
        let running = Self {
            child,
            shared: run.join("auditd.ctl"),
            own,
        };
        connect(&running.own).await;
        running.status().await;
        running
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, CallError> {
        timeout(LATE, connect(&self.own).await.call(method, params))
            .await
            .unwrap()
    }

    async fn status(&self) -> Value {
        self.call("status", json!({})).await.unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    async fn until_state(&self, state: &str) {
        let begin = Instant::now();
        while self.status().await["state"] != state {
            assert!(begin.elapsed() < LATE, "never {state}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the end: exit code and what was written to standard error.
    async fn end(self) -> (Option<i32>, String) {
        let output = timeout(LATE, self.child.wait_with_output()).await.unwrap().unwrap();
        assert!(output.stdout.is_empty(), "nothing is printed on standard output");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

/// Connects as soon as somebody answers.
async fn connect(socket: &Path) -> Client {
    let begin = Instant::now();
    loop {
        match Client::connect(socket).await {
            Ok(client) => return client,
            Err(e) => assert!(begin.elapsed() < LATE, "{e}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn it_starts_answers_and_stops_clean() {
    let place = Place::new("{}");
    let daemon = place.start(&["-G", "edge"]).await;
    let status = daemon.status().await;
    assert_eq!(
        (&status["daemon"], &status["group"], &status["state"]),
        (&json!("auditd"), &json!("edge"), &json!("online"))
    );
    assert_eq!(
        connect(&daemon.shared)
            .await
            .call::<Value>("version", json!({}))
            .await
            .unwrap()["protocol"],
        1
    );
    daemon.signal(Signal::TERM);
    let (code, log) = daemon.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(
        log.contains("sluice auditd ready") && log.contains("group: edge"),
        "{log}"
    );
    let left: Vec<_> = fs::read_dir(place.path("run"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["auditd.lock"]);
}

#[tokio::test]
async fn a_wrong_command_line_is_64_and_a_wrong_configuration_78() {
    let place = Place::new("no_such_section: 1\nauditd: {runtime: {thread_count: 2}}\n");
    assert_eq!(place.output(&["--no-such-flag"]).await.status.code(), Some(64));
    assert_eq!(place.output(&["-d"]).await.status.code(), Some(64), "-d needs -p");
    for flags in [&["-t"][..], &[]] {
        let output = place.output(flags).await;
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert!(
            told.contains("main.yml:1:1:") && told.contains("no_such_section"),
            "{told}"
        );
        assert!(
            told.contains("main.yml:2:") && told.contains("thread_count"),
            "all errors are told: {told}"
        );
    }
    let missing = Command::new(program())
        .args(["-t", "-c", "/no/such/file.yml"])
        .output()
        .await
        .unwrap();
    assert_eq!(missing.status.code(), Some(78));
}

#[tokio::test]
async fn worker_threads_that_do_not_divide_are_a_configuration_error() {
    let place = Place::new("auditd:\n  worker: {threads_total: 3, threads_per_runtime: 2, sched_affinity: true}\n");
    let output = place.output(&["-t"]).await;
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(
        told.contains("main.yml:2:") && told.contains("(3) is no multiple of"),
        "{told}"
    );
}

#[tokio::test]
async fn a_test_of_a_good_configuration_is_silent_and_touches_nothing() {
    let place = Place::new("auditd: {runtime: {}}\n");
    let output = place.output(&["-t"]).await;
    assert!(output.status.success() && output.stderr.is_empty() && output.stdout.is_empty());
    assert!(!place.path("run").exists());
    assert!(stderr(&place.output(&["-t", "-v"]).await).contains("the configuration is good"));
    assert_eq!(place.output(&["-g"]).await.status.code(), Some(64), "it has no graph");
}

#[tokio::test]
async fn what_needs_no_configuration_is_printed() {
    let print = async |flags: &[&str]| {
        let output = Command::new(program()).args(flags).output().await.unwrap();
        assert!(output.status.success(), "{flags:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(print(&["-V"]).await, format!("auditd {}\n", env!("CARGO_PKG_VERSION")));
    let verbose = print(&["-Vvv"]).await;
    assert!(
        verbose.contains("\nFeatures: none\n") && verbose.contains("\nCompiler: rustc "),
        "{verbose}"
    );
    assert!(print(&["--completion", "bash"]).await.contains("--config-file"));
    let schema: Value = serde_json::from_str(&print(&["--schema"]).await).unwrap();
    assert!(
        schema["properties"]["auditd"]["properties"]["runtime"].is_object(),
        "{schema}"
    );
}

// RL-02
#[tokio::test]
async fn a_broken_file_changes_nothing_and_says_why() {
    let place = Place::new("{}");
    let daemon = place.start(&[]).await;
    place.write("auditd: {runtime: {thread_number: many}}\n");
    for method in ["check", "reload"] {
        let Err(CallError::Answer(error)) = daemon.call(method, json!({})).await else {
            panic!("{method} of a broken file succeeded");
        };
        assert_eq!(error.code(), Code::Failed);
        assert!(
            error.message.contains("main.yml:1:") && error.message.contains("thread_number"),
            "{error}"
        );
        assert_eq!(error.data.unwrap()["errors"].as_array().unwrap().len(), 1);
    }
    let status = daemon.status().await;
    assert_eq!((&status["state"], &status["reloads"]), (&json!("online"), &json!(0)));
    assert_eq!(status["last_reload"]["ok"], false);
    place.write("auditd: {runtime: {thread_number: 3}}\n");
    let done = daemon.call("reload", json!({})).await.unwrap();
    assert!(
        done["warnings"][0].as_str().unwrap().contains("`runtime` has changed"),
        "{done}"
    );
    assert_eq!(daemon.status().await["reloads"], 1);
    daemon.signal(Signal::INT);
    let (code, log) = daemon.end().await;
    assert_eq!(code, Some(0));
    assert!(log.contains("reload failed, nothing was changed"), "{log}");
}

#[tokio::test]
async fn hangups_reload_one_at_a_time() {
    let place = Place::new("{}");
    let daemon = place.start(&[]).await;
    for _ in 0..20 {
        daemon.signal(Signal::HUP);
    }
    let begin = Instant::now();
    while daemon.status().await["reloads"] == 0 {
        assert!(begin.elapsed() < LATE);
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(daemon.status().await["last_reload"]["ok"], true);
    daemon.signal(Signal::QUIT);
    assert_eq!(daemon.end().await.0, Some(0));
}

#[tokio::test]
async fn a_shutdown_waits_and_can_be_cancelled() {
    let place = Place::new(PATIENT);
    let daemon = place.start(&[]).await;
    daemon.signal(Signal::TERM);
    daemon.until_state("waiting").await;
    daemon.call("cancel-shutdown", json!({})).await.unwrap();
    daemon.until_state("online").await;
    daemon.call("offline", json!({ "delay": 0 })).await.unwrap();
    assert_eq!(daemon.end().await.0, Some(0));
}

// RL-13
#[tokio::test]
async fn a_cancel_during_the_drain_answers_at_once() {
    let place = Place::new(PATIENT);
    let daemon = place.start(&[]).await;
    daemon.call("work", json!({})).await.unwrap();
    daemon.call("offline", json!({ "delay": 0 })).await.unwrap();
    daemon.until_state("draining").await;
    let Err(CallError::Answer(error)) = daemon.call("cancel-shutdown", json!({})).await else {
        panic!("a drain was cancelled");
    };
    assert_eq!(error.code(), Code::State);
    assert!(
        daemon.call("reload", json!({})).await.is_err(),
        "what drains is not reloaded"
    );
    daemon.call("force-quit-all", json!({})).await.unwrap();
    assert_eq!(daemon.end().await.0, Some(0));
}

#[tokio::test]
async fn a_draining_process_lets_a_successor_in_and_is_reached_by_its_own_socket() {
    let place = Place::new(PATIENT);
    let old = place.start(&[]).await;
    old.call("work", json!({})).await.unwrap();
    old.call("offline", json!({ "delay": 0 })).await.unwrap();
    old.until_state("draining").await;
    let new = place.start(&[]).await;
    let answers = connect(&new.shared)
        .await
        .call::<Value>("status", json!({}))
        .await
        .unwrap();
    assert_eq!(answers["pid"].as_u64(), new.child.id().map(u64::from));
    assert_eq!(old.status().await["tasks"], 1);
    old.call("offline", json!({ "drain": 0 })).await.unwrap();
    assert_eq!(old.end().await.0, Some(0));
    assert_eq!(new.status().await["state"], "online");
    assert!(new.shared.exists(), "the old one removed nothing of the new one's");
    new.signal(Signal::INT);
    assert_eq!(new.end().await.0, Some(0));
}

#[tokio::test]
async fn an_interrupt_ends_a_drain() {
    let place = Place::new(PATIENT);
    let daemon = place.start(&[]).await;
    daemon.call("work", json!({})).await.unwrap();
    daemon.call("offline", json!({ "delay": 0 })).await.unwrap();
    daemon.until_state("draining").await;
    daemon.signal(Signal::INT);
    assert_eq!(daemon.end().await.0, Some(0));
}

#[tokio::test]
async fn a_second_process_of_the_group_is_refused() {
    let place = Place::new("{}");
    let daemon = place.start(&[]).await;
    let second = place.output(&[]).await;
    let told = stderr(&second);
    assert_eq!(second.status.code(), Some(1), "{told}");
    assert!(
        told.contains(&format!("locked by process {}", daemon.child.id().unwrap())),
        "{told}"
    );
    assert_eq!(daemon.status().await["state"], "online");
}

// RL-10
#[tokio::test]
async fn stale_sockets_are_replaced_and_foreign_files_are_not() {
    let place = Place::new("{}");
    let run = place.path("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("auditd.ctl"), "precious").unwrap();
    let refused = place.output(&[]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("is not replaced"), "{}", stderr(&refused));
    assert_eq!(fs::read_to_string(run.join("auditd.ctl")).unwrap(), "precious");
    fs::remove_file(run.join("auditd.ctl")).unwrap();
    let mut killed = place.start(&[]).await;
    killed.child.kill().await.unwrap();
    assert!(killed.shared.exists());
    let daemon = place.start(&[]).await;
    assert_eq!(
        connect(&daemon.shared)
            .await
            .call::<Value>("status", json!({}))
            .await
            .unwrap()["state"],
        "online"
    );
}

#[tokio::test]
async fn a_panic_costs_its_task_or_with_panic_quit_the_process() {
    let place = Place::new("{}");
    let daemon = place.start(&[]).await;
    assert!(daemon.call("panic", json!({})).await.is_err());
    assert_eq!(daemon.status().await["panics"], 1);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().await.0, Some(0));
    let daemon = place.start(&["--panic-quit"]).await;
    // The answer may be lost with the process.
    let _ = daemon.call("panic", json!({})).await;
    let (code, log) = daemon.end().await;
    assert_eq!(code, Some(1));
    assert!(log.contains("panic, this is a bug: asked for"), "{log}");
}

#[tokio::test]
async fn the_log_level_changes_while_it_runs() {
    let place = Place::new("{}");
    let daemon = place.start(&["-v"]).await;
    assert_eq!(daemon.call("log-level", json!({})).await.unwrap()["level"], "info");
    assert_eq!(
        daemon.call("log-level", json!(["trace"])).await.unwrap()["level"],
        "trace"
    );
    assert!(daemon.call("log-level", json!(["loud"])).await.is_err());
}

// RL-12
#[tokio::test]
async fn detached_it_is_ready_when_the_caller_returns() {
    let place = Place::new("auditd: {runtime: {thread_number: 4}}\n");
    let pid_file = place.path("auditd.pid");
    let flags = ["-d", "-p", pid_file.to_str().unwrap()];
    let output = place.output(&flags).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let socket = place.path(&format!("run/auditd.{pid}.ctl"));
    let status: Value = Client::connect(&socket)
        .await
        .unwrap()
        .call("status", json!({}))
        .await
        .unwrap();
    assert_eq!(status["pid"], pid);
    let again = place.output(&flags).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("locked by process"),
        "the caller tells why: {}",
        stderr(&again)
    );
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    let begin = Instant::now();
    while socket.exists() || pid_file.exists() {
        assert!(begin.elapsed() < LATE);
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_service_manager_is_told_and_its_watchdog_kept() {
    let place = Place::new("{}");
    let socket = UnixDatagram::bind(place.path("notify")).unwrap();
    socket.set_read_timeout(Some(LATE)).unwrap();
    let hear = |word: &str| {
        let mut heard = [0; 4096];
        loop {
            let length = socket.recv(&mut heard).unwrap();
            let text = String::from_utf8_lossy(&heard[..length]).into_owned();
            if text.lines().any(|line| line == word) {
                return text;
            }
        }
    };
    let mut command = place.command(&[]);
    command
        .env("NOTIFY_SOCKET", place.path("notify"))
        .env("WATCHDOG_USEC", "100000")
        .env_remove("WATCHDOG_PID");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let daemon = Running::of(child, &place.path("run")).await;
    hear("READY=1");
    hear("WATCHDOG=1");
    daemon.call("reload", json!({})).await.unwrap();
    assert!(hear("RELOADING=1").contains("MONOTONIC_USEC="));
    hear("READY=1");
    daemon.signal(Signal::TERM);
    hear("STOPPING=1");
    assert_eq!(daemon.end().await.0, Some(0));
}

#[tokio::test]
async fn a_passed_control_socket_is_used_and_left_in_place() {
    let place = Place::new("{}");
    let path = place.path("passed.ctl");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = Command::new("sh");
    let script = "exec 3<&0; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=ctl; exec \"$0\" \"$@\" </dev/null";
    command.arg("-c").arg(script).arg(program());
    command
        .arg("-c")
        .arg(place.path("main.yml"))
        .arg("-C")
        .arg(place.path("run"));
    command
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let daemon = Running::of(command.spawn().unwrap(), &place.path("run")).await;
    let mut client = connect(&path).await;
    assert_eq!(
        client.call::<Value>("status", json!({})).await.unwrap()["state"],
        "online"
    );
    assert!(!daemon.shared.exists());
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().await.0, Some(0));
    assert!(path.exists());
}
