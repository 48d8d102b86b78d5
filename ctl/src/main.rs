//! `sluicectl`: the command line for all daemons of a group.
//!
//! It has no logic of its own: `check` and `schema` join what each daemon's `-t` and `--schema` say, `up` starts,
//! restarts and stops children, `certgend ca` runs certgend, `user token` prints what `sluice_auth` makes of a password, and everything else is a call to
//! a daemon. The name it is called by chooses a daemon:
//! `proxyd-ctl` is `sluicectl proxyd`, `g3proxy-ctl` is that with g3proxy's flags.

#![expect(clippy::print_stderr, reason = "a command line speaks there")]

mod audit;
mod ca;
mod call;
mod check;
mod cli;
mod daemons;
mod g3;
mod generic;
mod output;
mod password;
mod reload;
mod schema;
mod status;
mod token;
mod up;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::read(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(e) => {
            // Nobody is left to tell if the terminal is gone.
            let _ = e.print();
            return if e.use_stderr() { 64.into() } else { ExitCode::SUCCESS };
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(&cli)));
    done.and_then(|code| output::written().map(|()| code))
        .unwrap_or_else(|e| output::failure(&e, cli.target.json))
}

async fn run(cli: &cli::Cli) -> anyhow::Result<ExitCode> {
    use cli::Command;
    let target = &cli.target;
    match &cli.command {
        Command::Status { daemons } => status::run(target, daemons).await,
        Command::Check { config } => check::run(config, target.json).await,
        Command::Schema => schema::run().await,
        Command::Up(options) => up::run(target, options).await,
        Command::Token(options) => token::run(options, target.json),
        Command::Reload => reload::run(target).await,
        Command::Completion { shell } => Ok(cli::completion(*shell)),
        Command::Daemon(daemon, command) => call::run(target, daemon, command).await,
    }
}
