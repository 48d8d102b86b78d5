//! Other programs over TCP.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use sluice_lifecycle::{Tasks, Terms};
use sluice_telemetry::warn;
use sluice_wire::dns::Request;
use tokio::{net::TcpListener, sync::Semaphore};

use super::{
    Door, InCharge, rest,
    stream::{MAX_OUTPUT, converse},
};

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 256;

/// The most queries under way on one connection.
const PIPELINE: usize = 128;

/// How long a connection may be silent (RFC 7766 §6.2.3).
const IDLE: Duration = Duration::from_secs(30);

/// Accepts connections of those who may ask.
pub(super) async fn serve(listener: TcpListener, door: Arc<ArcSwap<Door>>, resolvers: InCharge, tasks: Tasks) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (permit, accepted) = tokio::select! {
            () = tasks.stopping() => return,
            accepted = async {
                let permit = Arc::clone(&connections).acquire_owned().await; // never closed
                (permit, listener.accept().await)
            } => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!("accept failed"; "error" => %error);
                rest(&tasks).await;
                continue;
            }
        };
        if !door.load().admits(peer) || stream.set_nodelay(true).is_err() {
            continue;
        }
        let door = Arc::clone(&door);
        let name = move |_: &Request| door.load().resolver.clone();
        let terms = Terms {
            pipeline: PIPELINE,
            max_output: MAX_OUTPUT,
            idle: Some(IDLE),
        };
        let conversation = converse(stream, Arc::clone(&resolvers), name, terms, tasks.clone());
        tasks.spawn(async move {
            conversation.await;
            drop(permit);
        });
    }
}
