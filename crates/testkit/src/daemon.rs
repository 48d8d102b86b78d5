//! Our own daemons.

use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::control::{Ctl, CtlError};
use crate::eventually::Patience;
use crate::group::Group;
use crate::process::{Exited, Process, binary, run};
use crate::wire::Wire;

/// A daemon that has not started.
#[derive(Debug)]
pub struct Starter {
    name: String,
    group: Group,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

/// How often a daemon may find its ports taken.
const TRIES: usize = 5;

impl Starter {
    pub(crate) fn new(name: &str, group: Group) -> Self {
        Self {
            name: name.to_owned(),
            group,
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Daemon {
        for _ in 0..TRIES {
            let process = Process::start(&self.name, self.command(), self.group.dir());
            let mut daemon = Daemon {
                name: self.name.clone(),
                group: self.group.clone(),
                process,
            };
            if daemon.gets_ready().await {
                return daemon;
            }
            let said = daemon.process.stderr();
            assert!(
                said.contains("in use"),
                "{} did not start\n{}",
                self.name,
                daemon.process.tail()
            );
            self.group.change_ports();
        }
        panic!("{} finds no free ports", self.name);
    }

    /// Runs it to its end, which must come by itself: with `-t`, or with a configuration that it refuses.
    pub async fn run(self) -> Exited {
        run(self.command()).await
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary(&self.name));
        command
            .arg("-c")
            .arg(self.group.main_file())
            .arg("-C")
            .arg(self.group.runtime_dir());
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        // What the developer's session has set is none of the test's business.
        for name in [
            "NOTIFY_SOCKET",
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "WATCHDOG_USEC",
        ] {
            if !self.env.iter().any(|(set, _)| set == name) {
                command.env_remove(name);
            }
        }
        command
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    group: Group,
    process: Process,
}

impl Daemon {
    /// proxyd in a group of its own.
    pub fn proxyd(yaml: &str) -> Starter {
        Group::new(yaml).daemon("proxyd")
    }

    /// resolverd in a group of its own.
    pub fn resolverd(yaml: &str) -> Starter {
        Group::new(yaml).daemon("resolverd")
    }

    async fn gets_ready(&mut self) -> bool {
        let mut patience = Patience::of(std::time::Duration::from_secs(30));
        while patience.goes_on().await {
            if self.process.ended().is_some() {
                return false;
            }
            let pid = self.process.pid();
            if let Ok(mut ctl) = Ctl::connect(&self.own_socket()).await
                && let Ok(Ok(status)) = ctl.try_call("status", Value::Null).await
                && status["pid"] == pid
            {
                return true;
            }
        }
        panic!("{} does not get ready\n{}", self.name, self.process.tail());
    }

    /// The group it belongs to.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The port that `%name%` stands for, on 127.0.0.1.
    pub fn addr(&self, name: &str) -> SocketAddr {
        self.group.addr(name)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The control socket of whichever process serves.
    pub fn socket(&self) -> PathBuf {
        self.group.runtime_dir().join(format!("{}.ctl", self.name))
    }

    /// The control socket of this very process.
    pub fn own_socket(&self) -> PathBuf {
        self.group
            .runtime_dir()
            .join(format!("{}.{}.ctl", self.name, self.pid()))
    }

    /// A control connection to this very process.
    pub async fn ctl(&self) -> Ctl {
        Ctl::connect(&self.own_socket())
            .await
            .unwrap_or_else(|error| panic!("control {}: {error}", self.name))
    }

    /// Calls a control method; `params` is an object, or `Value::Null` for none.
    ///
    /// # Errors
    /// What the daemon answers.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, CtlError> {
        self.ctl().await.call(method, params).await
    }

    /// What it says of itself.
    pub async fn status(&self) -> Value {
        self.call("status", Value::Null).await.unwrap()
    }

    /// Puts the configuration in force again.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn reload(&self) -> Result<Value, CtlError> {
        self.call("reload", Value::Null).await
    }

    /// Replaces the main file and puts it in force.
    pub async fn reload_with(&self, yaml: &str) {
        self.group.rewrite(yaml);
        self.reload()
            .await
            .unwrap_or_else(|error| panic!("reload: {}", error.message));
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// What it has written to its standard output: the event log, unless configured otherwise.
    pub fn stdout(&self) -> String {
        self.process.stdout()
    }

    /// What it has written to its standard error: the process log.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// The records of the event log with this `log_type`, so far.
    pub fn log_records(&self, log_type: &str) -> Vec<Value> {
        log_records(&self.stdout(), log_type)
    }

    /// Connects to its port of this name.
    pub async fn connect(&self, port: &str) -> Wire {
        Wire::connect(self.addr(port)).await
    }

    /// Opens a tunnel to `target` by CONNECT at the port named `http`.
    pub async fn http_connect(&self, target: SocketAddr) -> Wire {
        let mut wire = self.connect("http").await;
        wire.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"))
            .await;
        let answer = wire.head().await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        wire
    }

    /// Stops it in the orderly way, and waits for its end.
    pub async fn stop(mut self) -> Stopped {
        // A shutdown that is due at once, whatever the configuration says of waiting.
        let asked = self.call("offline", json!({"delay": 0.0})).await;
        asked.unwrap_or_else(|error| panic!("stop {}: {}", self.name, error.message));
        self.end().await
    }

    /// Stops it by SIGTERM, and waits for its end.
    pub async fn terminate(mut self) -> Stopped {
        self.signal(Signal::TERM);
        self.end().await
    }

    async fn end(&mut self) -> Stopped {
        let code = self.process.wait().await.code();
        let sockets = [self.socket(), self.own_socket()]
            .into_iter()
            .filter(|path| path.exists())
            .collect();
        let exited = Exited {
            code,
            stdout: self.stdout(),
            stderr: self.stderr(),
        };
        Stopped {
            name: self.name.clone(),
            exited,
            sockets,
        }
    }

    /// Kills it with SIGKILL, and its group stays as it is.
    pub async fn kill9(mut self) -> Group {
        self.process.kill().await;
        self.group.clone()
    }
}

/// A daemon that has ended.
#[derive(Debug)]
pub struct Stopped {
    name: String,
    /// How it ended, and what it wrote.
    pub exited: Exited,
    /// Sockets that it has left behind.
    sockets: Vec<PathBuf>,
}

impl Stopped {
    /// Asserts that it ended well: exit code 0, no panic, no task dropped, no socket left.
    pub fn assert_clean(&self) {
        let Exited { code, stderr, .. } = &self.exited;
        assert_eq!(*code, Some(0), "{}\n{stderr}", self.name);
        for bad in ["panicked", "tasks are dropped"] {
            assert!(!stderr.contains(bad), "{}\n{stderr}", self.name);
        }
        assert!(self.sockets.is_empty(), "{} left {:?}", self.name, self.sockets);
    }

    /// The records of the event log with this `log_type`.
    pub fn log_records(&self, log_type: &str) -> Vec<Value> {
        log_records(&self.exited.stdout, log_type)
    }
}

fn log_records(stdout: &str, log_type: &str) -> Vec<Value> {
    // The last line may be half written.
    let records = stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    records.filter(|record| record["log_type"] == log_type).collect()
}
