//! Users: who they are, what they may do, what they have done.
//!
//! A [`UserGroup`] has users that stand in the configuration and users that come from a [`source`] or are published by
//! control. A server reaches its group through a [`Gate`], which turns names and passwords into a [`Login`]: a user on
//! one connection. A login is asked about each request and gives a [`Permit`], which the request's task holds to its end.
//! Nothing here knows HTTP or SOCKS.

use std::sync::atomic::{AtomicU64, Ordering};

mod config;
mod control;
mod group;
mod groups;
mod kind;
mod login;
mod member;
mod passwords;
mod permit;
mod rate;
mod sites;
mod source;
mod stats;
mod table;

pub(crate) use config::UserGroupConfig;
pub(crate) use control::add_methods;
pub(crate) use group::UserGroup;
pub(crate) use groups::Groups;
pub(crate) use kind::{ClientProtocol, RequestKind};
pub(crate) use login::{Gate, GateKeys, LoginError};
pub(crate) use passwords::{Digest, Passwords};
pub(crate) use permit::{Login, Permit, Refusal};
pub(crate) use rate::RateLimiter;

/// A number that nothing else in this process has.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
pub(crate) mod tests;
