//! The group's own socket, `resolverd.dns`.

use std::{os::unix::net::UnixListener, path::Path, sync::Arc};

use sluice_lifecycle::{DataSocket, Tasks, Terms};
use sluice_wire::dns::Request;

use super::{
    InCharge,
    stream::{MAX_OUTPUT, converse},
};

/// The most queries under way on one connection; a worker of proxyd has at most as many.
const PIPELINE: usize = 4096;

/// Serves a passed socket, or one made at `path`.
pub(crate) fn start(
    path: &Path,
    passed: Option<UnixListener>,
    allowed: Vec<u32>,
    resolvers: &InCharge,
    tasks: &Tasks,
) -> anyhow::Result<DataSocket> {
    let (resolvers, of) = (Arc::clone(resolvers), tasks.clone());
    DataSocket::start(path, passed, allowed, tasks, move |stream, _| {
        converse(
            stream,
            Arc::clone(&resolvers),
            |request: &Request| request.resolver.clone().unwrap_or_default(),
            Terms {
                pipeline: PIPELINE,
                max_output: MAX_OUTPUT,
                idle: None,
            },
            of.clone(),
        )
    })
}
