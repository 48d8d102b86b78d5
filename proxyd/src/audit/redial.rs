//! Opening a tunnel's upstream connection once more.

use std::sync::Arc;

use super::Flow;
use crate::connect::{Connect, Opened};
use crate::escaper::{EscaperId, Escapers};
use crate::task::Peers;

/// How a tunnel's upstream is reached.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) escapers: Arc<Escapers>,
    pub(crate) escaper: EscaperId,
    /// Number id of egress path selection.
    pub(crate) path_index: Option<u64>,
}

impl Flow {
    /// Whether a new connection would lead to who is spoken to: not where that is at the end of a tunnel in the tunnel.
    pub(super) fn can_redial(&self) -> bool {
        self.depth <= 1
    }

    /// Opens another connection as the first one was. Why there is none, the escaper logs.
    pub(super) async fn redial(&self, peers: &Peers) -> Option<Opened> {
        let connect = Connect {
            upstream: &self.upstream,
            task_id: self.task.id,
            client: peers.client,
            server: peers.server,
            path_index: self.way.path_index,
            permit: self.task.permit(),
            worker: &self.worker,
        };
        let connected = self.way.escapers.connect(self.way.escaper, &connect).await.ok()?;
        Some(connected.opened)
    }
}
