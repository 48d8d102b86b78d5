//! The command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use crate::call::DaemonCommand;
use crate::daemons::{self, Target};
use crate::token::TokenOptions;
use crate::up::UpOptions;
use crate::{audit, ca};

/// What is to be done, to which group.
#[derive(Debug)]
pub(crate) struct Cli {
    pub(crate) target: Target,
    pub(crate) command: Command,
}

/// A command.
#[derive(Debug)]
pub(crate) enum Command {
    Status { daemons: Vec<String> },
    Check { config: PathBuf },
    Schema,
    Up(Box<UpOptions>),
    Reload,
    Token(Box<TokenOptions>),
    Completion { shell: Shell },
    Daemon(&'static str, Box<DaemonCommand>),
}

/// Controls the daemons of a group
#[derive(Debug, Parser)]
#[command(
    name = "sluicectl",
    version,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = "Called as <daemon>-ctl (or g3proxy-ctl) it takes that daemon's commands.")]
struct Group {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Show what the daemons are doing
    Status {
        /// These only
        #[arg(value_parser = daemons::ALL)]
        daemons: Vec<String>,
    },
    /// Check a configuration with every daemon
    Check {
        /// Main file, or its directory
        #[arg(short = 'c', long = "config-file", value_name = "PATH", value_hint = ValueHint::AnyPath)]
        config: PathBuf,
    },
    /// Print the JSON Schema of a group's main file
    Schema,
    /// Run the group in the foreground
    Up(UpOptions),
    /// Reload the configuration in all daemons, or in none
    Reload,
    /// Make what the configuration says about users
    #[command(subcommand)]
    User(UserCommand),
    /// Print a completion script
    Completion { shell: Shell },
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Make a user's token of a password, as YAML to be pasted
    Token(TokenOptions),
}

/// The commands of one daemon, called by its name.
#[derive(Debug, Args)]
struct One {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: DaemonCommand,
}

/// Reads the command line; the name that the program was called by may choose a daemon.
pub(crate) fn read(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let called = args.first().map(PathBuf::from).unwrap_or_default();
    if let Some(shell) = asks_for_completion(&args) {
        return Ok(Cli {
            target: Target::default(),
            command: Command::Completion { shell },
        });
    }
    if let Some((daemon, name)) = by_name(&called) {
        return read_one(daemon, name, &args);
    }
    let matches = group_parser().try_get_matches_from(args)?;
    if let Some((daemon, sub)) = matches.subcommand().and_then(|(name, sub)| Some((daemon(name)?, sub))) {
        return of_daemon(daemon, &matches, sub);
    }
    let group = Group::from_arg_matches(&matches)?;
    let command = match group.command {
        GroupCommand::Status { daemons } => Command::Status { daemons },
        GroupCommand::Check { config } => Command::Check { config },
        GroupCommand::Schema => Command::Schema,
        GroupCommand::Up(options) => Command::Up(Box::new(options)),
        GroupCommand::Reload => Command::Reload,
        GroupCommand::User(UserCommand::Token(options)) => {
            let conflict = |why| group_parser().error(ErrorKind::ArgumentConflict, why);
            options.check().map_err(conflict)?;
            Command::Token(Box::new(options))
        }
        GroupCommand::Completion { shell } => Command::Completion { shell },
    };
    Ok(Cli {
        target: group.target,
        command,
    })
}

/// `--completion SHELL` alone, as g3proxy's client has it beside its subcommands.
fn asks_for_completion(args: &[OsString]) -> Option<Shell> {
    let words: Vec<&str> = args.iter().skip(1).map_while(|arg| arg.to_str()).collect();
    let shell = match words.as_slice() {
        ["--completion", shell] => shell,
        [word] => word.strip_prefix("--completion=")?,
        _ => return None,
    };
    Shell::from_str(shell, true).ok()
}

fn daemon(name: &str) -> Option<&'static str> {
    daemons::ALL.into_iter().find(|daemon| *daemon == name)
}

/// `proxyd-ctl` and the like, and the names that g3proxy's users have in their scripts.
fn by_name(called: &Path) -> Option<(&'static str, &'static str)> {
    let name = called.file_name()?.to_str()?;
    match name {
        "g3proxy-ctl" => Some(("proxyd", "g3proxy-ctl")),
        "vey-proxy-ctl" => Some(("proxyd", "vey-proxy-ctl")),
        _ => {
            let daemon = daemon(name.strip_suffix("-ctl")?)?;
            Some((
                daemon,
                [
                    "resolverd-ctl",
                    "certgend-ctl",
                    "auditd-ctl",
                    "icap-stub-ctl",
                    "proxyd-ctl",
                ][at(daemon)],
            ))
        }
    }
}

fn at(daemon: &str) -> usize {
    daemons::ALL.iter().position(|d| *d == daemon).unwrap_or(0)
}

/// A daemon's commands with the `Target` before them.
fn one_parser(name: &'static str, daemon: &'static str) -> clap::Command {
    let command = clap::Command::new(name)
        .about(format!("Controls {daemon}"))
        .version(env!("CARGO_PKG_VERSION"));
    let completion = clap::Command::new("completion").about("Print a completion script").arg(
        clap::Arg::new("shell")
            .required(true)
            .value_parser(clap::value_parser!(Shell)),
    );
    let command = with_own(One::augment_args(command).subcommand(completion), daemon);
    command.subcommand_required(true).arg_required_else_help(true)
}

fn read_one(daemon: &'static str, name: &'static str, args: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = one_parser(name, daemon).try_get_matches_from(args)?;
    if let Some(("completion", sub)) = matches.subcommand() {
        let shell = sub.get_one::<Shell>("shell").copied().unwrap_or(Shell::Bash);
        let target = Target::from_arg_matches(&matches)?;
        let command = Command::Completion { shell };
        return Ok(Cli { target, command });
    }
    let one = One::from_arg_matches(&matches)?;
    Ok(for_daemon(daemon, one.target, one.command))
}

fn of_daemon(daemon: &'static str, matches: &ArgMatches, sub: &ArgMatches) -> Result<Cli, clap::Error> {
    let command = DaemonCommand::from_arg_matches(sub)?;
    Ok(for_daemon(daemon, Target::from_arg_matches(matches)?, command))
}

fn for_daemon(daemon: &'static str, mut target: Target, mut command: DaemonCommand) -> Cli {
    // What follows a method's name is the method's, as far as clap knows.
    if let DaemonCommand::Own(words) = &mut command {
        let before = words.len();
        words.retain(|word| word != "--json");
        target.json |= words.len() < before;
    }
    let command = Command::Daemon(daemon, Box::new(command));
    Cli { target, command }
}

/// The parser for the whole group, with a subcommand for each daemon.
fn group_parser() -> clap::Command {
    daemons::ALL
        .into_iter()
        .rev()
        .fold(Group::command(), |command, daemon| {
            let sub = clap::Command::new(daemon).about(format!("Commands of {daemon}"));
            let sub = DaemonCommand::augment_subcommands(sub)
                .subcommand_required(true)
                .arg_required_else_help(true);
            command.subcommand(with_own(sub, daemon))
        })
}

/// Tells of the commands that clap does not know, since only one daemon has them.
fn with_own(parser: clap::Command, daemon: &str) -> clap::Command {
    let own = match daemon {
        "auditd" => audit::HELP,
        "certgend" => ca::HELP,
        _ => return parser,
    };
    parser.after_help(format!("Of {daemon} alone (`--help` after one tells more):\n{own}"))
}

/// Prints the completion script for the name that the program was called by.
pub(crate) fn completion(shell: Shell) -> ExitCode {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let (mut parser, name) = match by_name(&called) {
        Some((daemon, name)) => (one_parser(name, daemon), name),
        None => (group_parser(), "sluicectl"),
    };
    clap_complete::generate(shell, &mut parser, name, &mut std::io::stdout());
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        read(line.split(' ').map(OsString::from).collect())
    }

    fn daemon_of(line: &str) -> &'static str {
        match parse(line).unwrap_or_else(|e| panic!("{line}: {e}")).command {
            Command::Daemon(daemon, _) => daemon,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_parsers_are_sound() {
        group_parser().debug_assert();
        one_parser("proxyd-ctl", "proxyd").debug_assert();
    }

    #[test]
    fn help_names_what_one_daemon_alone_has() {
        let help = |line: &str| parse(line).unwrap_err().to_string();
        for line in ["sluicectl auditd --help", "auditd-ctl --help"] {
            assert!(help(line).contains("\n  search "), "{line}: {}", help(line));
        }
        assert!(help("sluicectl certgend --help").contains("\n  ca init "));
        assert!(!help("sluicectl proxyd --help").contains("ca init"));
    }

    #[test]
    fn the_name_of_the_program_chooses_the_daemon() {
        assert_eq!(daemon_of("sluicectl proxyd version"), "proxyd");
        assert_eq!(daemon_of("sluicectl -G a icap-stub offline --drain 2"), "icap-stub");
        assert_eq!(daemon_of("/usr/bin/resolverd-ctl status"), "resolverd");
        assert_eq!(daemon_of("icap-stub-ctl status"), "icap-stub");
        assert_eq!(daemon_of("g3proxy-ctl -G a -p 12 offline"), "proxyd");
    }

    #[test]
    fn the_grammar_of_g3proxy_ctl_is_taken() {
        let lines = [
            "version",
            "offline",
            "cancel-shutdown",
            "force-quit web",
            "force-quit-all",
            "list server",
            "list user-group",
            "reload-user-group a",
            "reload-resolver a",
            "reload-auditor a",
            "reload-escaper a",
            "reload-server a",
            "user-group a list-static-user",
            "user-group a list-dynamic-user",
            "user-group a publish-user /f",
            "user-group a publish /f",
            "resolver a query example.org",
            "resolver a query example.org -s ipv6_first --resolution-delay 20",
            "resolver a cache show",
            "resolver a cache flush example.org",
            "resolver a upstreams",
            "escaper a publish {}",
            "escaper a publish -f /f",
            "server a status",
        ];
        for line in lines {
            assert_eq!(daemon_of(&format!("g3proxy-ctl -G x -C /run {line}")), "proxyd");
        }
        for line in [
            "list zebra",
            "escaper a publish",
            "escaper a publish {} -f x",
            "resolver a query",
            "force-quit",
        ] {
            assert!(parse(&format!("g3proxy-ctl -G x {line}")).is_err(), "{line}");
        }
    }

    #[test]
    fn group_commands_take_the_target_before_and_after() {
        for line in [
            "sluicectl -G a --json status",
            "sluicectl status -G a --json",
            "sluicectl status proxyd -G a --json",
        ] {
            let cli = parse(line).unwrap();
            assert!(cli.target.json && cli.target.group() == "a");
        }
        for line in [
            "g3proxy-ctl --completion zsh",
            "sluicectl --completion=bash",
            "proxyd-ctl completion fish",
        ] {
            assert!(
                matches!(parse(line).unwrap().command, Command::Completion { .. }),
                "{line}"
            );
        }
        assert!(parse("sluicectl status nobody").is_err());
        assert!(parse("sluicectl check").is_err());
    }
}
