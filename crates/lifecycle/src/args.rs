//! The command line of a daemon, the same for all of them.

use std::path::PathBuf;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, ValueHint};
use clap_complete::Shell;
use sluice_control::paths;

use crate::graph::GraphFormat;

/// Flags of a daemon (g3proxy's, and `--schema`).
#[derive(Clone, Debug, Parser)]
#[command(disable_version_flag = true)]
pub struct Args {
    /// Configuration file, or a directory that holds main.yml (or main.yaml, main.conf)
    #[arg(short = 'c', long = "config-file", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    #[arg(required_unless_present_any = ["version", "completion", "schema", "verify_panic"])]
    pub config: Option<PathBuf>,

    /// Group that the daemon belongs to [default: default]
    #[arg(short = 'G', long, value_name = "NAME", value_parser = paths::group)]
    pub group_name: Option<String>,

    /// Runtime directory of the group, absolute; made when missing [default: /run/sluice/GROUP, else under
    /// $XDG_RUNTIME_DIR or the temporary directory]
    #[arg(short = 'C', long, value_name = "DIR", value_parser = absolute_dir, value_hint = ValueHint::DirPath)]
    pub control_dir: Option<PathBuf>,

    /// File that holds the process id while the daemon runs
    #[arg(short = 'p', long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub pid_file: Option<PathBuf>,

    /// Detach from the terminal once the configuration is read; the process log goes to syslog
    #[arg(short = 'd', long, requires = "pid_file", conflicts_with = "systemd")]
    pub daemon: bool,

    /// Run under systemd: the process log goes to the journal
    #[arg(short = 's', long)]
    pub systemd: bool,

    /// Run under a supervising parent, see --panic-quit
    #[arg(short = 'm', long)]
    pub monitored: bool,

    /// Check the configuration and exit: 0 if it is good, 78 with all errors if not
    #[arg(short = 't', long)]
    pub test_config: bool,

    /// Print the dependency graph of the configuration and exit
    #[arg(short = 'g', long, value_name = "FORMAT", num_args = 0..=1, default_missing_value = "graphviz")]
    pub dep_graph: Option<GraphFormat>,

    /// More in the process log: -v info, -vv debug, -vvv trace
    #[arg(short = 'v', long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Print the version (with -v the features, with -vv the build) and exit
    #[arg(short = 'V', long)]
    pub version: bool,

    /// Quit at once when any thread panics; with -m send SIGHUP to the parent instead
    #[arg(long)]
    pub panic_quit: bool,

    /// Print a completion script and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completion: Option<Shell>,

    /// Print the JSON Schema of the configuration sections that this daemon reads, and exit
    #[arg(long, exclusive = true)]
    pub schema: bool,

    /// Panic on purpose
    #[arg(long, hide = true)]
    pub verify_panic: bool,
}

impl Args {
    /// The group, [`paths::DEFAULT_GROUP`] if none was given.
    pub fn group(&self) -> &str {
        self.group_name.as_deref().unwrap_or(paths::DEFAULT_GROUP)
    }

    /// The parser under the daemon's own name.
    pub(crate) fn parser(name: &'static str, about: &'static str) -> clap::Command {
        Self::command().name(name).bin_name(name).about(about)
    }

    /// Reads the command line that this process was called with.
    pub(crate) fn read(name: &'static str, about: &'static str) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::parser(name, about).try_get_matches()?)
    }
}

fn absolute_dir(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.metadata() {
        _ if !path.is_absolute() => Err("the path must be absolute".to_owned()),
        Ok(meta) if !meta.is_dir() => Err("it is not a directory".to_owned()),
        _ => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        let matches = Args::parser("proxyd", "proxy").try_get_matches_from([&["proxyd"], args].concat())?;
        Args::from_arg_matches(&matches)
    }

    #[test]
    fn the_parser_is_sound() {
        Args::parser("proxyd", "proxy").debug_assert();
    }

    #[test]
    fn flags_of_g3proxy_are_taken() {
        let args = parse(&[
            "-c",
            "/etc/x",
            "-G",
            "a",
            "-C",
            "/tmp",
            "-d",
            "-p",
            "x.pid",
            "-vv",
            "--panic-quit",
        ])
        .unwrap();
        assert_eq!((args.group(), args.verbose, args.daemon), ("a", 2, true));
        let args = parse(&["--config-file", "x", "--dep-graph"]).unwrap();
        assert_eq!(args.dep_graph, Some(GraphFormat::Graphviz));
        for graph in [
            ["-g", "mermaid"].as_slice(),
            &["-g=mermaid"],
            &["-gmermaid"],
            &["--dep-graph=mermaid"],
        ] {
            let args = parse(&[&["-c", "x"], graph].concat()).unwrap();
            assert_eq!(args.dep_graph, Some(GraphFormat::Mermaid));
        }
        assert_eq!(parse(&["-c", "x", "-G", ""]).unwrap().group(), "default");
        assert!(parse(&["-Vvv"]).unwrap().version);
    }

    #[test]
    fn wrong_uses_are_refused() {
        let wrong: &[&[&str]] = &[
            &[],
            &["-t"],
            &["-c", "x", "-d"],
            &["-c", "x", "-d", "-p", "y", "-s"],
            &["-c", "x", "-C", "relative"],
            &["-c", "x", "-C", "/etc/passwd"],
            &["-c", "x", "-G", "../up"],
            &["-c", "x", "-g", "png"],
            &["-c", "x", "extra"],
            &["-c", "x", "--completion", "bash"],
            &["-c", "x", "-Q"],
        ];
        for args in wrong {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}
