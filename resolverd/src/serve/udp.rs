//! Other programs over UDP.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use sluice_lifecycle::{Tasks, next_datagram};
use sluice_telemetry::debug;
use sluice_wire::dns::{Outcome, Rejected, Request, ResolveError, UDP_PAYLOAD, put_reply};
use tokio::{net::UdpSocket, sync::Semaphore};

use super::{Door, InCharge, Taken, take};

/// The most queries under way; more are dropped, as a full socket buffer would.
const MAX_PENDING: usize = 4096;

/// The longest query that is read.
const MAX_QUERY: usize = 4096;

/// Answers datagrams of those who may ask and refuses those of others.
pub(super) async fn serve(socket: UdpSocket, door: Arc<ArcSwap<Door>>, resolvers: InCharge, tasks: Tasks) {
    let socket = Arc::new(socket);
    let pending = Arc::new(Semaphore::new(MAX_PENDING));
    let mut packet = vec![0; MAX_QUERY];
    while let Some((length, peer)) = next_datagram(&socket, &mut packet, &tasks).await {
        let request = match Request::take(&packet[..length]) {
            Ok(request) => request,
            Err(Rejected::Ignored) => continue,
            Err(Rejected::Answered { reply, .. }) => {
                send(&socket, &reply, peer);
                continue;
            }
        };
        let door = door.load_full();
        let limit = usize::from(request.payload.min(UDP_PAYLOAD));
        if !door.admits(peer) {
            let refusal = Outcome::Failed {
                error: ResolveError::NoResolverSet,
                text: "not for this network",
                ttl: 0,
            };
            send(&socket, &put_reply(&request, &refusal, limit), peer);
            continue;
        }
        let asked = match take(request, &resolvers.load(), &door.resolver, limit) {
            Taken::Answered(reply) => {
                send(&socket, &reply, peer);
                continue;
            }
            Taken::Asked(asked) => asked,
        };
        let Ok(permit) = Arc::clone(&pending).try_acquire_owned() else {
            continue;
        };
        let socket = Arc::clone(&socket);
        let quitting = tasks.clone();
        tasks.spawn(async move {
            tokio::select! {
                reply = asked.answer(limit) => send(&socket, &reply, peer),
                () = quitting.quitting() => {}
            }
            drop(permit);
        });
    }
}

/// Sends a reply if the socket takes it now; the asker will ask again.
fn send(socket: &UdpSocket, reply: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.try_send_to(reply, peer) {
        debug!("a reply could not be sent"; "peer" => %peer, "error" => %error);
    }
}
