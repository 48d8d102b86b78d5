//! A group in a temporary directory, run by the real `sluicectl` from real binaries.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sluice_control::Client;
use tempfile::TempDir;

/// No daemon takes so long to get ready.
const LATE: Duration = Duration::from_secs(30);

/// The helpers that need nothing from outside.
pub(crate) const HELPERS: &str = "certgend,auditd,icap-stub";

/// The binary of `daemon`, which a build of the workspace puts beside `sluicectl`.
pub(crate) fn binary(daemon: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_sluicectl")).with_file_name(daemon);
    assert!(
        path.exists(),
        "`{}` is missing: build the workspace first",
        path.display()
    );
    path
}

pub(crate) struct Group(TempDir);

impl Group {
    pub(crate) fn new(main: &str) -> Self {
        for daemon in ["auditd", "certgend", "icap-stub", "proxyd", "resolverd"] {
            binary(daemon);
        }
        let group = Self(TempDir::new().unwrap());
        group.write(main);
        group
    }

    pub(crate) fn write(&self, main: &str) {
        fs::write(self.path("main.yml"), main).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `sluicectl` for this group.
    pub(crate) fn ctl(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicectl"));
        command.arg("-C").arg(self.path("run")).args(words).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.ctl(words).output().unwrap()
    }

    /// What `words` print as JSON.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let output = self.run(&[words, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{words:?}: {e}: {output:?}"))
    }

    /// Starts helpers in the foreground and comes back once they are up.
    pub(crate) fn up(&self, more: &[&str]) -> Up {
        let main = self.path("main.yml");
        let words = [&["up", "-c", main.to_str().unwrap(), "--only", HELPERS], more].concat();
        let mut child = self
            .ctl(&words)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut up = Up { child, lines };
        up.wait_for("up: the group");
        up
    }

    /// Starts `daemon` alone and comes back once it answers.
    pub(crate) fn daemon(&self, daemon: &str, more: &[&str]) -> Child {
        let mut command = Command::new(binary(daemon));
        command
            .arg("-c")
            .arg(self.path("main.yml"))
            .arg("-C")
            .arg(self.path("run"))
            .args(more);
        let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let begin = Instant::now();
        while !self.answers(daemon, child.id()) {
            assert!(begin.elapsed() < LATE, "{daemon} does not get ready");
        }
        child
    }

    fn answers(&self, daemon: &str, pid: u32) -> bool {
        let socket = self.path("run").join(format!("{daemon}.{pid}.ctl"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            match Client::connect(&socket).await {
                Ok(mut client) => client.call::<Value>("status", [(); 0]).await.is_ok(),
                Err(_) => false,
            }
        })
    }
}

/// A running `sluicectl up`.
pub(crate) struct Up {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Up {
    /// Reads on to a line that holds `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).unwrap();
            assert!(read > 0, "`{text}` never came:\n{seen}");
            if line.contains(text) {
                return line;
            }
            seen += &line;
        }
    }

    pub(crate) fn signal(&self, to: Signal) {
        signal(self.child.id(), to);
    }

    /// Waits for the end: exit code and the rest of what was printed.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        while self.lines.read_line(&mut rest).unwrap() > 0 {}
        (self.child.wait().unwrap().code(), rest)
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
