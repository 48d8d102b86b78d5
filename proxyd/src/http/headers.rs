//! The headers in which a proxy tells of itself and of the way to the upstream (client-protocol.md §3).

use std::fmt::Write as _;

use sluice_config::value::HttpServerId;
use sluice_http1::{ResponseHead, put_field};
use sluice_telemetry::Naming;

use crate::connect::Path;

/// Which headers a server adds.
pub(crate) struct TellTale {
    server_id: Option<String>,
    mark_upstream: bool,
    echo: bool,
    /// `BD`, or what another product name asks for.
    infix: &'static str,
}

impl TellTale {
    pub(crate) fn new(server_id: Option<&HttpServerId>, mark_upstream: bool, echo: bool, naming: Naming) -> Self {
        let infix = if naming == Naming::Vey { "VEY" } else { "BD" };
        Self {
            server_id: server_id.map(|id| id.to_string()),
            mark_upstream,
            echo,
            infix,
        }
    }

    /// Whether a path is told at all.
    pub(crate) fn tells_path(&self) -> bool {
        self.server_id.is_some() || self.echo
    }

    /// For a response that came from the upstream.
    pub(crate) fn put_upstream(&self, head: &ResponseHead<'_>, path: &Path, out: &mut Vec<u8>) {
        if let (Some(id), true) = (&self.server_id, self.mark_upstream) {
            self.put_once(head, "Upstream-Id", id, out);
        }
        if self.echo {
            if let Some(peer) = path.peer {
                self.put_once(head, "Upstream-Addr", &peer.to_string(), out);
            }
            if let Some(local) = path.local {
                self.put_once(head, "Outgoing-IP", &local.ip().to_string(), out);
            }
        }
        self.put_connection_info(path, out);
    }

    /// For a response of our own: the 200 of CONNECT, or an error that tells of the upstream.
    pub(crate) fn put_own(&self, path: &Path, out: &mut Vec<u8>) {
        if self.echo {
            if let Some(peer) = path.peer {
                self.put("Upstream-Addr", &peer.to_string(), out);
            }
            if let Some(local) = path.local {
                self.put("Outgoing-IP", &local.ip().to_string(), out);
            }
        }
        self.put_connection_info(path, out);
    }

    fn put_connection_info(&self, path: &Path, out: &mut Vec<u8>) {
        let Some(id) = &self.server_id else { return };
        let mut value = id.clone();
        // Writing to a string cannot fail.
        if let Some(ip) = path.bind_ip {
            let _ = write!(value, "; bind={ip}");
        }
        if let Some(local) = path.local {
            let _ = write!(value, "; local={local}");
        }
        if let Some(peer) = path.peer {
            let _ = write!(value, "; remote={peer}");
        }
        self.put("Remote-Connection-Info", &value, out);
    }

    /// The proxy nearest to the upstream has the word: what is there already stays.
    fn put_once(&self, head: &ResponseHead<'_>, name: &str, value: &str, out: &mut Vec<u8>) {
        if head.field(&self.name(name)).is_none() {
            self.put(name, value, out);
        }
    }

    fn put(&self, name: &str, value: &str, out: &mut Vec<u8>) {
        // Names, addresses and the id, which the configuration has checked, hold no byte that a field may not.
        let _ = put_field(out, &self.name(name), value.as_bytes());
    }

    fn name(&self, name: &str) -> String {
        format!("X-{}-{name}", self.infix)
    }
}
