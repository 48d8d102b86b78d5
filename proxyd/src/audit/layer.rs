//! Opens one layer of a stream, and hands on what is inside: to the next inspection, to who speaks it, or to a relay.

use std::sync::Arc;

use sluice_config::value::InspectAction;
use sluice_sniff::Protocol;

use super::h1::{End, Next};
use super::h2;
use super::intercept::{Detail, Subject};
use super::tls::{Outcome, Sides, With, of_alpn};
use super::{Flow, InspectSource, inspect, websocket};
use crate::connect::Opened;
use crate::error::TaskError;
use crate::tunnel;
use crate::user::Permit;

impl Flow {
    /// Whose layer it is, for the records.
    fn subject(&self) -> Subject {
        Subject {
            auditor: Arc::clone(&self.auditor.name),
            log: self.auditor.log.clone(),
            task_id: self.task.id,
            depth: self.depth,
            upstream: Arc::new(self.upstream.clone()),
        }
    }
}

/// Opens TLS; only where the auditor intercepts it.
pub(super) async fn tls(mut flow: Box<Flow>, sides: Sides) {
    let auditor = Arc::clone(&flow.auditor);
    let Some(tls) = &auditor.tls else {
        return relay(*flow, sides);
    };
    let of_user = flow
        .task
        .permit()
        .and_then(Permit::tls_client)
        .map(|(own, _)| own.clone());
    let is_blocked = |name: &[u8]| {
        of_alpn(name).is_some_and(|protocol| auditor.policy(protocol, &flow.upstream) == Some(InspectAction::Block))
    };
    let mut second = None;
    let opened = {
        let peers = sides.client.peers.clone();
        let again = async {
            let Opened { stream, path, limit } = flow.redial(&peers).await?;
            second = Some((path, limit));
            Some(stream)
        };
        let with = match &of_user {
            Some(own) => With::OfUser(own),
            None => With::Auditors(flow.can_redial().then_some(again)),
        };
        // What a handshake needs is large beside what the stream needs later.
        Box::pin(tls.run(&flow.subject(), sides, with, &is_blocked)).await
    };
    if let Some((path, _)) = &second {
        flow.task.reconnected(path);
    }
    let (sides, alpn) = match opened {
        Ok(Outcome::Inside { mut sides, alpn }) => {
            if let Some((_, limit)) = second {
                sides.upstream.limit = limit;
            }
            (sides, alpn)
        }
        Ok(Outcome::Bypass(sides, obstacle)) => {
            auditor.stats.bypassed(obstacle);
            return relay(*flow, sides);
        }
        Err(error) => return flow.task.failed(&TaskError::Interception(Box::new(error))),
    };
    flow.task.relaying();
    let sides = flow.recorded(sides, alpn.as_deref());
    match alpn.as_deref().and_then(of_alpn) {
        Some(protocol) => look_into_known(*flow, (InspectSource::TlsAlpn, protocol), sides),
        None => look_into(*flow, sides),
    }
}

/// Opens HTTP/1.
pub(super) async fn http1(mut flow: Box<Flow>, sides: Sides) {
    let auditor = Arc::clone(&flow.auditor);
    let subject = flow.subject();
    let worker = Arc::clone(&flow.worker);
    let websocket = auditor.policy(Protocol::Websocket, &flow.upstream);
    let refused = (websocket == Some(InspectAction::Block)).then_some(Protocol::Websocket.as_str());
    let ended = auditor.h1.run(&subject, &worker, sides, &mut flow.task, refused).await;
    match ended {
        Ok(End::Closed) => flow.task.finished(),
        Err(error) => flow.task.failed(&error),
        Ok(End::Left(sides, Next::Connect(target))) => {
            flow.upstream = target;
            look_into(*flow, sides);
        }
        Ok(End::Left(sides, Next::Upgrade(protocol, handshake))) if websocket::is_among(protocol.as_bytes()) => {
            if let Some(handshake) = handshake {
                flow.task.watch(Box::new(move |how| {
                    let detail = || Detail::Websocket {
                        kind: "H1Websocket",
                        handshake: handshake.clone(),
                    };
                    subject.log(detail, how);
                }));
            }
            look_into_known(*flow, (InspectSource::HttpUpgrade, Protocol::Websocket), sides);
        }
        Ok(End::Left(sides, Next::Upgrade(..))) => look_into(*flow, sides),
    }
}

/// Opens HTTP/2.
pub(super) async fn http2(mut flow: Box<Flow>, sides: Sides) {
    let ended = h2::run(&flow, &flow.subject(), sides).await;
    match ended {
        Ok(()) => flow.task.finished(),
        Err(error) => flow.task.failed(&error),
    }
}

/// Looks into what is inside.
fn look_into(flow: Flow, Sides { client, mut upstream }: Sides) {
    let upstream = (upstream.stream, upstream.buf.take_all(), upstream.limit);
    inspect::spawn(flow, *client, upstream);
}

/// The same where it is known what that is.
fn look_into_known(flow: Flow, known: (InspectSource, Protocol), Sides { client, mut upstream }: Sides) {
    let upstream = (upstream.stream, upstream.buf.take_all(), upstream.limit);
    inspect::spawn_known(flow, known, *client, upstream);
}

/// Lets the rest pass as it is.
fn relay(flow: Flow, Sides { client, mut upstream }: Sides) {
    let Flow { task, worker, .. } = flow;
    let upstream = (upstream.stream, upstream.buf.take_all(), upstream.limit);
    tunnel::spawn(&worker, *client, upstream, task);
}
