//! `sluicectl up`: the group in the foreground, as children of this process.
//!
//! Each child runs in a process group of its own, so that Ctrl-C reaches this process alone, which then stops them in
//! order: proxyd first, so that its tasks still find the helpers. A child that crashes is started again with backoff.

mod child;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgAction, Args, ValueHint};
use serde_json::Value;
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::daemons::{self, Target};
use crate::output::say;
use crate::{check, reload, status};
use child::{Event, Keeper, Order};

/// A daemon has so long to get ready at the first start.
const START: Duration = Duration::from_secs(60);

/// What to run, and for how long.
#[derive(Debug, Args)]
pub(crate) struct UpOptions {
    /// Main file, or its directory
    #[arg(short = 'c', long = "config-file", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    config: PathBuf,

    /// These daemons only, separated by commas
    #[arg(long, value_name = "DAEMONS", value_delimiter = ',', value_parser = daemons::ALL)]
    only: Vec<String>,

    /// More in the process logs, as the daemons' -v
    #[arg(short = 'v', long, action = ArgAction::Count)]
    verbose: u8,

    /// Print this once the group is up
    #[arg(long, value_name = "TEXT")]
    hello: Option<String>,

    /// Stop after this time: `30s`, `5m`
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    limit: Option<Duration>,

    /// Stop once all daemons are ready
    #[arg(long)]
    until_ready: bool,

    /// Run this command once the group is up, then stop; its exit code is ours
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["limit", "until_ready"])]
    command: Vec<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("`{other}` is none of ms, s, m, h")),
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| "it is not a number with a unit".to_owned())?;
    Duration::try_from_secs_f64(number * unit).map_err(|e| e.to_string())
}

/// Starts the group and keeps it running until asked to stop.
pub(crate) async fn run(target: &Target, options: &UpOptions) -> anyhow::Result<ExitCode> {
    let wanted = |daemon: &&str| options.only.is_empty() || options.only.iter().any(|only| only == daemon);
    let names: Vec<&'static str> = daemons::ALL.into_iter().filter(wanted).collect();
    // All that is wrong with the configuration is told at once, before anything starts.
    let findings = check::findings(&options.config, &names).await?;
    findings.print();
    if !findings.is_good() {
        return Ok(78.into());
    }
    let mut group = Group::new(target, options)?;
    let code = match group.start(&names).await {
        Ok(true) => group.watch().await,
        Ok(false) => Ok(ExitCode::SUCCESS),
        Err(e) => Err(e),
    };
    let clean = group.stop().await;
    let faults = group.faults;
    match code? {
        ExitCode::SUCCESS if !clean || faults > 0 => Ok(ExitCode::FAILURE),
        code => Ok(code),
    }
}

/// Signals to this process.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}

struct Group<'a> {
    target: &'a Target,
    options: &'a UpOptions,
    signals: Signals,
    /// The keeper of proxyd, and those of the helpers, each with what they are told.
    proxyd: Wave,
    helpers: Wave,
    events: mpsc::Receiver<Event>,
    tell: mpsc::Sender<Event>,
    /// Crashes so far.
    faults: u32,
}

/// Children that are stopped together.
struct Wave {
    keepers: JoinSet<anyhow::Result<bool>>,
    order: watch::Sender<Order>,
}

impl Wave {
    fn new() -> Self {
        Self {
            keepers: JoinSet::new(),
            order: watch::Sender::new(Order::Run),
        }
    }
}

impl<'a> Group<'a> {
    fn new(target: &'a Target, options: &'a UpOptions) -> anyhow::Result<Self> {
        let (tell, events) = mpsc::channel(64);
        Ok(Self {
            target,
            options,
            signals: Signals::new()?,
            proxyd: Wave::new(),
            helpers: Wave::new(),
            events,
            tell,
            faults: 0,
        })
    }

    /// Starts one daemon after the other, each once the one before is ready. `false` if asked to stop meanwhile.
    async fn start(&mut self, names: &[&'static str]) -> anyhow::Result<bool> {
        for name in names.iter().copied() {
            self.keep(name);
            let late = sleep(START);
            tokio::pin!(late);
            loop {
                tokio::select! {
                    asked = self.signals.next() => if asked == Asked::Stop {
                        say!("up: stopped before the group was up");
                        return Ok(false);
                    },
                    () = &mut late => bail!("{name} is not ready after {START:?}"),
                    Some(event) = self.events.recv() => match event {
                        Event::Ready(ready, status) => {
                            announce(ready, &status);
                            if ready == name {
                                break;
                            }
                        }
                        Event::Crashed(who, status, _) if who == name => bail!("{name} did not start: {status}"),
                        Event::Left(who) if who == name => bail!("{name} ended before it was ready"),
                        other => self.happened(other),
                    },
                    Some(ended) = next_end(&mut self.proxyd, &mut self.helpers) => { ended?; }
                }
            }
        }
        let dir = self.target.dir();
        say!(
            "up: the group `{}` is up, its sockets are in {}; Ctrl-C stops it",
            self.target.group(),
            dir.display()
        );
        if let Some(hello) = &self.options.hello {
            say!("{hello}");
        }
        Ok(true)
    }

    fn keep(&mut self, name: &'static str) {
        let wave = if name == "proxyd" {
            &mut self.proxyd
        } else {
            &mut self.helpers
        };
        let keeper = Keeper {
            name,
            target: self.target.clone(),
            config: self.options.config.clone(),
            verbose: self.options.verbose,
            events: self.tell.clone(),
            orders: wave.order.subscribe(),
        };
        wave.keepers.spawn(keeper.keep());
    }

    /// Tells what happens, until it is time to stop; the exit code is that of a command, if one was given.
    async fn watch(&mut self) -> anyhow::Result<ExitCode> {
        if self.options.until_ready {
            return Ok(ExitCode::SUCCESS);
        }
        let until = self.options.limit.map(|limit| Instant::now() + limit);
        let mut command = self.command()?;
        loop {
            tokio::select! {
                asked = self.signals.next() => match asked {
                    Asked::Stop => return Ok(ExitCode::SUCCESS),
                    Asked::Reload => self.reload().await,
                },
                () = at(until) => return Ok(ExitCode::SUCCESS),
                done = wait(command.as_mut()) => {
                    let code = done?.code().and_then(|code| u8::try_from(code).ok());
                    return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
                }
                Some(event) = self.events.recv() => self.happened(event),
                ended = next_end(&mut self.proxyd, &mut self.helpers) => match ended {
                    Some(ended) => { ended?; }
                    None => {
                        say!("up: no daemon is left");
                        return Ok(ExitCode::SUCCESS);
                    }
                },
            }
        }
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Ready(name, status) => announce(name, &status),
            Event::Crashed(name, status, pause) => {
                self.faults += 1;
                say!("up: {name} ended with {status}, it starts again in {pause:?}");
            }
            Event::Left(name) => say!("up: {name} was stopped, it is not started again"),
        }
    }

    fn command(&self) -> anyhow::Result<Option<tokio::process::Child>> {
        let Some((program, arguments)) = self.options.command.split_first() else {
            return Ok(None);
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("SLUICE_RUNTIME_DIR", self.target.dir())
            .kill_on_drop(true);
        Ok(Some(
            command.spawn().with_context(|| format!("cannot run `{program}`"))?,
        ))
    }

    async fn reload(&self) {
        say!("up: reloading");
        if let Err(e) = reload::run(self.target).await {
            eprintln!("up: {e:#}");
        }
    }

    /// Stops proxyd, then the helpers that it needs to drain; tells whether all ended as they should. Another Ctrl-C
    /// forces them.
    async fn stop(&mut self) -> bool {
        let mut clean = true;
        let mut order = Order::Stop;
        for wave in [&mut self.proxyd, &mut self.helpers] {
            wave.order.send_replace(order);
            loop {
                tokio::select! {
                    ended = wave.keepers.join_next() => match ended {
                        Some(ended) => clean &= ended.is_ok_and(|ended| ended.unwrap_or(false)),
                        None => break,
                    },
                    _ = self.signals.next() => {
                        order = Order::Force;
                        wave.order.send_replace(order);
                    }
                    // Keepers wait for room; what still happens is part of the stop.
                    Some(_) = self.events.recv() => {}
                }
            }
        }
        say!(
            "up: {}",
            if clean {
                "stopped"
            } else {
                "stopped, not all daemons ended by themselves"
            }
        );
        clean
    }
}

/// The end of a keeper: whether its daemon ended cleanly. `None` if there is none left.
async fn next_end(proxyd: &mut Wave, helpers: &mut Wave) -> Option<anyhow::Result<bool>> {
    let ended = tokio::select! {
        Some(ended) = proxyd.keepers.join_next() => ended,
        Some(ended) = helpers.keepers.join_next() => ended,
        else => return None,
    };
    Some(ended.map_err(anyhow::Error::from).and_then(|ended| ended))
}

/// One line for a daemon that is ready.
fn announce(name: &str, status: &Value) {
    let (pid, listening) = (&status["pid"], status::dash(sluice_control::listening(status)));
    match status["note"].as_str() {
        Some(note) => say!("up: {name} is ready, pid {pid}, listening: {listening} ({note})"),
        None => say!("up: {name} is ready, pid {pid}, listening: {listening}"),
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn wait(command: Option<&mut tokio::process::Child>) -> anyhow::Result<std::process::ExitStatus> {
    match command {
        Some(command) => Ok(command.wait().await?),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("30").unwrap(), Duration::from_secs(30));
        assert_eq!(duration("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration("200ms").unwrap(), Duration::from_millis(200));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        for bad in ["", "s", "-1s", "5 d", "1d", "1e99h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
