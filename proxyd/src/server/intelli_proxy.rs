//! `intelli_proxy`: one port for HTTP and SOCKS clients, told apart by their first byte.

use std::io;
use std::sync::Arc;

use sluice_config::value::{NodeName, Span};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::port::{Door, port_server};
use super::{Accepted, Server, ServerCommon};
use crate::worker::Worker;

port_server! {
    /// What `intelli_proxy` is configured with.
    pub(crate) struct IntelliProxyConfig {
        /// The server of clients that begin with an HTTP method.
        pub(crate) http_server: NodeName,
        /// The server of clients that begin with a SOCKS version.
        pub(crate) socks_server: NodeName,
        /// Time for the first byte.
        #[serde(default = "detection_timeout")]
        pub(crate) protocol_detection_timeout: Span,
    }
}

fn detection_timeout() -> Span {
    Span::secs(4)
}

impl IntelliProxyConfig {
    /// The servers that it hands connections to, each with the key that names it.
    pub(crate) fn next(&self) -> Vec<(&'static str, &NodeName)> {
        vec![("http_server", &self.http_server), ("socks_server", &self.socks_server)]
    }
}

/// The server.
pub(crate) struct IntelliProxy {
    pub(crate) common: Arc<ServerCommon>,
    pub(crate) door: Door,
    pub(crate) timeout: std::time::Duration,
    pub(crate) http: Arc<Server>,
    pub(crate) socks: Arc<Server>,
}

impl IntelliProxy {
    /// Brings one connection to the server that its first byte asks for, or closes it.
    pub(crate) async fn serve(&self, conn: Accepted, worker: Arc<Worker>) {
        let Some(conn) = self.door.open(conn, &self.common).await else {
            return;
        };
        let Some(tcp) = conn.stream.plain() else { return };
        let Ok(first) = timeout(self.timeout, first_byte(tcp)).await else {
            self.common.stats.mine().timed_out.add(1);
            return;
        };
        match first {
            // CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE
            Ok(Some(b'C' | b'D' | b'G' | b'H' | b'O' | b'P' | b'T')) => self.http.adopt(conn, &worker),
            Ok(Some(4 | 5)) => self.socks.adopt(conn, &worker),
            Ok(Some(_)) => self.common.stats.mine().dropped.add(1),
            Ok(None) => {}
            Err(_) => self.common.stats.mine().accept_failed.add(1),
        }
    }
}

/// The first byte, which stays in the socket; `None` if the connection ends without one.
async fn first_byte(tcp: &TcpStream) -> io::Result<Option<u8>> {
    let mut byte = [0];
    let n = tcp.peek(&mut byte).await?;
    Ok((n > 0).then_some(byte[0]))
}
