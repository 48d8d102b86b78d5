//! resolverd answers the name queries of its group.
//!
//! A query comes in through [`serve`]: the group's socket, or an address for other programs. Its [`resolver`] looks into
//! its table ([`cache`]); what is not there is asked for by its [`kind`], which is another pair of resolvers or a
//! [`stub`] that walks a list of name servers. [`resolvers`] builds all of them and keeps what a reload leaves as it was;
//! [`daemon`] ties it together.

mod cache;
mod config;
mod control;
mod daemon;
mod kind;
#[cfg(test)]
mod nameserver;
mod record;
mod resolver;
mod resolvers;
mod serve;
mod stats;
mod stub;

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_tls::install_provider();
    sluice_lifecycle::run::<daemon::Resolverd>()
}
