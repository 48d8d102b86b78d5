//! A daemon's door for datagrams.

use std::net::SocketAddr;
use std::time::Duration;

use sluice_telemetry::debug;
use tokio::net::UdpSocket;
use tokio::time::sleep;

use crate::Tasks;

/// The pause after a failure, so that a lasting one does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// The next datagram's length and sender; `None` once `tasks` stop.
pub async fn next_datagram(socket: &UdpSocket, packet: &mut [u8], tasks: &Tasks) -> Option<(usize, SocketAddr)> {
    loop {
        let received = tokio::select! {
            () = tasks.stopping() => return None,
            received = socket.recv_from(packet) => received,
        };
        match received {
            Ok(received) => return Some(received),
            Err(error) => debug!("receive failed"; "error" => %error),
        }
        tokio::select! {
            () = tasks.stopping() => return None,
            () = sleep(PAUSE) => {}
        }
    }
}
