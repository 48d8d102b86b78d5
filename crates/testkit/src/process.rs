//! Child processes that do not outlive their test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Whatever runs longer than this is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// A running program, in a process group of its own, its output in two files.
///
/// Dropping it kills the whole group. If the test has failed, the ends of both files are shown.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    stdout: PathBuf,
    stderr: PathBuf,
    running: bool,
}

impl Process {
    /// Starts `command`; its output goes to `<name>.out` and `<name>.err` in `dir`, after what is there.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> Self {
        let open = |path: &Path| File::options().create(true).append(true).open(path).unwrap();
        let (stdout, stderr) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
        command
            .stdin(Stdio::null())
            .stdout(open(&stdout))
            .stderr(open(&stderr))
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().unwrap_or_else(|error| panic!("start {name}: {error}"));
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).unwrap();
        Self {
            name: name.to_owned(),
            child,
            pid,
            stdout,
            stderr,
            running: true,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Sends a signal to it alone. One that stops it has stopped all of its threads when this returns.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap_or_else(|error| panic!("signal {}: {error}", self.name));
        let sent = Instant::now();
        while signal == Signal::STOP && !self.is_stopped() {
            assert!(sent.elapsed() < STUCK, "{} does not stop", self.name);
            thread::yield_now();
        }
    }

    /// Whether none of its threads runs any more.
    fn is_stopped(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The name before it may have spaces and brackets.
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        })
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap();
        self.running = status.is_none();
        status
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        let ended = timeout(STUCK, self.child.wait()).await;
        let status = ended
            .unwrap_or_else(|_| panic!("{} does not end\n{}", self.name, self.tail()))
            .unwrap();
        self.running = false;
        status
    }

    /// Kills it and all its children, and waits for its end.
    pub async fn kill(&mut self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
        self.wait().await;
    }

    /// What it has written to its standard output.
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// What it has written to its standard error.
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr)
    }

    /// The last lines of both.
    pub fn tail(&self) -> String {
        let last = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines
                .get(lines.len().saturating_sub(40)..)
                .unwrap_or_default()
                .join("\n")
        };
        format!(
            "--- {name}, standard output\n{}\n--- {name}, standard error\n{}",
            last(self.stdout()),
            last(self.stderr()),
            name = self.name
        )
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "a failed test shows what its programs said")]
    fn drop(&mut self) {
        if self.running {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
        if thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// How a program ended, and what it wrote.
#[derive(Clone, Debug)]
pub struct Exited {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl From<Output> for Exited {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a program to its end.
pub(crate) async fn run(mut command: Command) -> Exited {
    let output = timeout(STUCK, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("does not end: {command:?}"))
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    output.into()
}

/// Has the daemon at `binary` check a configuration file `main.yml`, as `-t` does.
pub fn check_config(binary: &str, main: &str) -> Exited {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("main.yml");
    fs::write(&file, main).unwrap();
    let checked = std::process::Command::new(binary)
        .arg("-t")
        .arg("-c")
        .arg(file)
        .output();
    checked.unwrap().into()
}

/// One of our own binaries, beside the test's executable.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let path = profile.join(name);
    assert!(
        path.exists(),
        "`{}` is missing: build it with `cargo build --workspace`",
        path.display()
    );
    path
}

/// Runs `sluicectl` to its end.
pub async fn sluicectl<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Exited {
    let mut command = Command::new(binary("sluicectl"));
    command.args(args);
    run(command).await
}
