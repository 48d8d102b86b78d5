//! The doors: the group's own socket, and UDP for the peers of g3fcgen where it is asked for.

mod stream;
mod udp;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use sluice_lifecycle::{DataSocket, Tasks};

use crate::mint::{Asker, Minter};

pub(crate) use udp::wish;

/// Serves the socket that was passed, or one made at `path`.
pub(crate) fn unix(
    path: &Path,
    passed: Option<UnixListener>,
    allowed: Vec<u32>,
    minter: &Arc<Minter>,
    tasks: &Tasks,
) -> anyhow::Result<DataSocket> {
    let (minter, of) = (Arc::clone(minter), tasks.clone());
    DataSocket::start(path, passed, allowed, tasks, move |stream, peer| {
        stream::converse(stream, Arc::clone(&minter), Asker::Process(peer), of.clone())
    })
}
