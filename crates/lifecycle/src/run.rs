//! The whole `main` of a daemon.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use sluice_sys::daemon::{Detached, StartReport};
use sluice_telemetry::error;
use sluice_telemetry::log::{ProcessLog, Sink};

use crate::config::Common;
use crate::life::{self, Birth};
use crate::reload::{self, Loaded};
use crate::supervise::Ended;
use crate::{ActivatedSockets, Args, Daemon, schema};

/// Exit status for a wrong command line (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;
/// Exit status for a wrong configuration (`EX_CONFIG`).
const CONFIG: u8 = 78;
/// Runs a daemon from its arguments to its end: the whole `main`. Returns 0 after a clean stop, 64 for a wrong command
/// line, 78 for a wrong configuration and 1 for what went wrong at work.
pub fn run<D: Daemon>() -> ExitCode {
    let args = match Args::read(D::NAME, D::ABOUT) {
        Ok(args) => args,
        Err(e) => {
            // Nobody is left to tell if the terminal is gone.
            let _ = e.print();
            return if e.use_stderr() {
                USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    if let Some(answer) = without_config::<D>(&args) {
        return answer;
    }
    let path = args.config.clone().unwrap_or_default();
    match reload::load::<D>(&path) {
        Ok(loaded) if args.test_config => tested(&args, &loaded),
        Ok(loaded) if args.dep_graph.is_some() => draw::<D>(&args, &loaded),
        Ok(loaded) => live(args, loaded),
        Err(errors) => {
            complain(&errors.join("\n"));
            CONFIG.into()
        }
    }
}

/// What needs no configuration.
fn without_config<D: Daemon>(args: &Args) -> Option<ExitCode> {
    assert!(!args.verify_panic, "panic on purpose (--verify-panic)");
    if let Some(shell) = args.completion {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Args::parser(D::NAME, D::ABOUT), D::NAME, &mut script);
        return Some(print(&script));
    }
    if args.version {
        return Some(print(version::<D>(args.verbose).as_bytes()));
    }
    if args.schema {
        let text = serde_json::to_string_pretty(&schema::of::<D>()).unwrap_or_default();
        return Some(print(format!("{text}\n").as_bytes()));
    }
    None
}

fn version<D: Daemon>(verbose: u8) -> String {
    let mut text = format!("{} {}\n", D::NAME, env!("CARGO_PKG_VERSION"));
    if verbose > 0 {
        let features = if D::FEATURES.is_empty() {
            "none".to_owned()
        } else {
            D::FEATURES.join(" ")
        };
        text += &format!("Features: {features}\n");
    }
    if verbose > 1 {
        text += &format!("Compiler: {}\n", env!("SLUICE_BUILD_RUSTC"));
        text += &format!(
            "Host: {}\nTarget: {}\n",
            env!("SLUICE_BUILD_HOST"),
            env!("SLUICE_BUILD_TARGET")
        );
        text += &format!("Profile: {}\n", env!("SLUICE_BUILD_PROFILE"));
    }
    text
}

fn tested<D: Daemon>(args: &Args, loaded: &Loaded<D>) -> ExitCode {
    if args.verbose > 0 {
        for warning in &loaded.warnings {
            complain(&format!("warning: {warning}"));
        }
        complain(&format!("{}: the configuration is good", D::NAME));
    }
    ExitCode::SUCCESS
}

fn draw<D: Daemon>(args: &Args, loaded: &Loaded<D>) -> ExitCode {
    match D::graph(&loaded.own) {
        Some(graph) => print(
            graph
                .render(args.dep_graph.unwrap_or(crate::GraphFormat::Graphviz))
                .as_bytes(),
        ),
        None => {
            complain(&format!("{} has no dependency graph", D::NAME));
            USAGE.into()
        }
    }
}

fn print(bytes: &[u8]) -> ExitCode {
    match io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(text: &str) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Goes to the background if asked to, then lives.
fn live<D: Daemon>(args: Args, loaded: Loaded<D>) -> ExitCode {
    // What depends on the terminal's working directory and on our process id comes before the fork.
    let pid_file = args.pid_file.as_deref().map(std::path::absolute).transpose();
    let config_file = std::path::absolute(args.config.clone().unwrap_or_default());
    let passed = sluice_sys::daemon::passed_sockets();
    let report = match args.daemon.then(sluice_sys::daemon::detach).transpose() {
        Ok(None) => None,
        Ok(Some(Detached::Daemon(report))) => Some(report),
        Ok(Some(Detached::Caller(Ok(())))) => return ExitCode::SUCCESS,
        Ok(Some(Detached::Caller(Err(e)))) => {
            complain(&format!("{}: {e}", D::NAME));
            return ExitCode::FAILURE;
        }
        Err(e) => {
            complain(&format!("{}: cannot detach: {e}", D::NAME));
            return ExitCode::FAILURE;
        }
    };
    let _log = sluice_telemetry::log::init(&process_log::<D>(&args, &loaded.common));
    let mut caller = Caller(report);
    let ended = caller.let_go().and_then(|()| {
        let birth = Birth {
            activated: ActivatedSockets::new(passed.context("cannot take the passed sockets")?),
            pid_file: pid_file.context("cannot tell where the pid file is")?,
            config_file: config_file.context("cannot tell where the main file is")?,
            args,
        };
        life::live(birth, loaded, || caller.ready())
    });
    match ended {
        Ok(Ended::Asked) => ExitCode::SUCCESS,
        Ok(Ended::Panicked) => ExitCode::FAILURE,
        Err(e) => {
            error!("{} cannot run: {:#}", D::NAME, e);
            caller.failed(&e);
            ExitCode::FAILURE
        }
    }
}

/// Who waits for a detached daemon to be ready, if anybody does.
struct Caller(Option<StartReport>);

impl Caller {
    fn let_go(&self) -> anyhow::Result<()> {
        match self.0 {
            Some(_) => sluice_sys::daemon::silence_stdio().context("cannot let go of the terminal"),
            None => Ok(()),
        }
    }

    fn ready(&mut self) {
        if let Some(report) = self.0.take() {
            report.ready();
        }
    }

    fn failed(&mut self, error: &anyhow::Error) {
        if let Some(report) = self.0.take() {
            report.failed(&format!("{error:#}"));
        }
    }
}

fn process_log<D: Daemon>(args: &Args, common: &Common) -> ProcessLog {
    let sink = match args {
        Args { daemon: true, .. } => Sink::Syslog,
        Args { systemd: true, .. } => Sink::Journal,
        _ => Sink::Stderr,
    };
    ProcessLog {
        verbosity: args.verbose,
        sink,
        ident: format!("{}-{}", common.naming.product(), D::NAME),
    }
}
