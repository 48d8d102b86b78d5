//! One daemon of the group as a child process: started, watched, started again, stopped.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sluice_control::{Client, NoParams};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::daemons::{self, Target};
use crate::output::say;

/// A child that ran this long has its pause forgotten.
const STEADY: Duration = Duration::from_secs(30);
/// The first pause before a crashed child starts again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Running tasks get so many seconds when the group stops.
const DRAIN_SECONDS: u64 = 5;
/// What a daemon needs beyond the drain to end.
const SLACK: Duration = Duration::from_secs(3);

/// What happened to a child.
#[derive(Debug)]
pub(super) enum Event {
    /// It serves; its answer to `status`.
    Ready(&'static str, Value),
    /// It ended by fault and starts again after the pause.
    Crashed(&'static str, ExitStatus, Duration),
    /// It ended without a fault, and not because we said so.
    Left(&'static str),
}

/// What the children are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Run.
    Run,
    /// Drain and end.
    Stop,
    /// End now.
    Force,
}

/// Keeps one daemon running.
pub(super) struct Keeper {
    pub(super) name: &'static str,
    pub(super) target: Target,
    pub(super) config: PathBuf,
    pub(super) verbose: u8,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) orders: watch::Receiver<Order>,
}

impl Keeper {
    /// Runs the daemon, again and again, until it is to stop or stops by itself. Tells whether its end was a clean one.
    pub(super) async fn keep(mut self) -> anyhow::Result<bool> {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let (mut process, mut output) = self.spawn()?;
            let Some(status) = self.watch(&mut process).await? else {
                let clean = self.stop(&mut process).await?;
                drain(&mut output).await;
                return Ok(clean);
            };
            drain(&mut output).await;
            if status.success() {
                self.tell(Event::Left(self.name)).await;
                return Ok(true);
            }
            if began.elapsed() > STEADY {
                pause = FIRST_PAUSE;
            }
            self.tell(Event::Crashed(self.name, status, pause)).await;
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.orders.wait_for(|order| *order > Order::Run) => return Ok(true),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn tell(&self, event: Event) {
        // Nobody listens once the group stops.
        let _ = self.events.send(event).await;
    }

    fn spawn(&self) -> anyhow::Result<(Child, JoinSet<()>)> {
        let binary = daemons::binary(self.name)?;
        let mut command = Command::new(&binary);
        command
            .arg("-m")
            .arg("-c")
            .arg(&self.config)
            .arg("-G")
            .arg(self.target.group());
        command.arg("-C").arg(self.target.absolute_dir()?);
        command.args((0..self.verbose).map(|_| "-v"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Away from the terminal's Ctrl-C, and gone if we are.
        command.process_group(0).kill_on_drop(true);
        let mut process = command
            .spawn()
            .with_context(|| format!("cannot run `{}`", binary.display()))?;
        let mut output = JoinSet::new();
        if let Some(stdout) = process.stdout.take() {
            output.spawn(pass_on(self.name, stdout));
        }
        if let Some(stderr) = process.stderr.take() {
            output.spawn(pass_on(self.name, stderr));
        }
        Ok((process, output))
    }

    /// Waits for the end of the process, or for the order to stop (`None`). Says when it is ready on the way.
    async fn watch(&mut self, process: &mut Child) -> anyhow::Result<Option<ExitStatus>> {
        let one = self.target.process(process.id());
        let status = tokio::select! {
            status = process.wait() => return Ok(Some(status?)),
            _ = self.orders.wait_for(|order| *order > Order::Run) => return Ok(None),
            status = ready(&one, self.name) => status,
        };
        self.tell(Event::Ready(self.name, status)).await;
        tokio::select! {
            status = process.wait() => Ok(Some(status?)),
            _ = self.orders.wait_for(|order| *order > Order::Run) => Ok(None),
        }
    }

    /// Stops the process, with more force as it takes longer.
    async fn stop(&mut self, process: &mut Child) -> anyhow::Result<bool> {
        let one = self.target.process(process.id());
        let asked = timeout(Duration::from_secs(1), offline(&one, self.name)).await;
        if !matches!(asked, Ok(Ok(()))) {
            send(process, Signal::TERM);
        }
        let granted = Duration::from_secs(DRAIN_SECONDS) + SLACK;
        tokio::select! {
            status = process.wait() => return Ok(is_clean(status?)),
            _ = self.orders.wait_for(|order| *order == Order::Force) => {}
            () = sleep(granted) => eprintln!("up: {} is still there after {granted:?}, it is forced to quit", self.name),
        }
        send(process, Signal::INT);
        if let Ok(status) = timeout(SLACK, process.wait()).await {
            return Ok(is_clean(status?));
        }
        eprintln!("up: {} does not quit, it is killed", self.name);
        process.kill().await?;
        Ok(false)
    }
}

/// Ended with 0, or by our signal before it listened to signals.
fn is_clean(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.success() || matches!(status.signal(), Some(signal) if signal == Signal::TERM.as_raw())
}

fn send(process: &Child, signal: Signal) {
    let pid = process
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended in the meantime, which is as wished.
        let _ = kill_process(pid, signal);
    }
}

/// Ends when the daemon serves, with its answer to `status`.
async fn ready(one: &Target, name: &str) -> Value {
    loop {
        if let Ok(mut client) = Client::connect(&one.socket(name)).await
            && let Ok(status) = client.call("status", NoParams {}).await
        {
            return status;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn offline(one: &Target, name: &str) -> anyhow::Result<()> {
    let mut client = one.connect(name).await?;
    client
        .call::<Value>("offline", json!({ "delay": 0, "drain": DRAIN_SECONDS }))
        .await?;
    Ok(())
}

/// Prints a child's output with its name before each line.
async fn pass_on(name: &'static str, output: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(output).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        say!("{name:9} | {}", String::from_utf8_lossy(&line));
    }
}

/// Waits for the last lines of a process that ended.
async fn drain(output: &mut JoinSet<()>) {
    let all = async { while output.join_next().await.is_some() {} };
    // Somebody else may hold the other end open.
    let _ = timeout(Duration::from_millis(200), all).await;
}
