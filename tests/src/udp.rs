//! A SOCKS proxy with datagrams, and who begins an association with it.

use serde_json::Value;
use sluice_testkit::{Daemon, UdpAssociation, Wire, assert_eventually};

use crate::{config_with, finished};

/// What gives an association several targets.
pub const SEVERAL: &str = "use_udp_associate: true";

/// A server with more keys.
pub fn server(keys: &str) -> String {
    format!("  - {{name: socks, type: socks_proxy, listen: '127.0.0.1:%socks%', escaper: out, {keys}}}")
}

/// A proxy with that server.
pub async fn start(keys: &str) -> Daemon {
    Daemon::proxyd(&config_with(&server(keys))).start().await
}

/// Asks for an association from there, and reads the reply.
pub async fn reply(daemon: &Daemon, expected: &[u8]) -> (Wire, Vec<u8>) {
    UdpAssociation::ask_for(daemon.connect("socks").await, expected).await
}

/// Begins an association.
pub async fn associate(daemon: &Daemon) -> UdpAssociation {
    UdpAssociation::begin(daemon.connect("socks").await).await
}

/// What is asked for by a client that does not say where its datagrams come from.
pub const ANY_V4: &[u8] = &[1, 0, 0, 0, 0, 0, 0];

/// The record of the one task, once it is over.
pub async fn record(daemon: &Daemon) -> Value {
    assert_eventually!(finished(daemon).len() == 1);
    finished(daemon).remove(0)
}
