//! One stream on its way to whoever records it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sluice_wire::{
    audit::{Dump, put_dump},
    dump::{Addresses, Direction, DumpWriter},
};
use tokio::time::timeout;

use super::{FlowMeta, PACKET_SIZE, Policy, Recorder, Sniff, UdpDump, now};
use crate::Position;

/// Auditd did not write in time: the stream must end, as nothing may go through unrecorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("auditd has not written within {} s what was to go on", limit.as_secs_f64())]
pub struct Stalled {
    /// How long it was waited for.
    pub limit: Duration,
}

/// One stream that is recorded. It takes pieces from both directions, also from two tasks.
#[derive(Debug)]
pub struct FlowDump {
    transport: Transport,
    state: Mutex<State>,
}

#[derive(Debug)]
enum Transport {
    Auditd {
        recorder: Arc<Recorder>,
        flow: u64,
        policy: Policy,
    },
    Udp(Arc<UdpDump>),
}

#[derive(Debug)]
struct State {
    writer: DumpWriter,
    /// Until the first bytes come.
    sniff: Option<(Sniff, Addresses)>,
    /// Fronts of frames whose rest has not come, with the policy to drop: to the client, and to the upstream.
    fronts: (Vec<u8>, Vec<u8>),
    record: Vec<u8>,
    /// What must be written before more goes through.
    last: Position,
    /// A piece is lost although none may be, or was not written in time: the stream is over.
    failed: bool,
}

impl FlowDump {
    pub(super) fn to_auditd(
        recorder: Arc<Recorder>,
        flow: u64,
        begun: Position,
        meta: &FlowMeta,
        policy: Policy,
    ) -> Self {
        let writer = DumpWriter::framed(&meta.addresses, &meta.dissector, PACKET_SIZE);
        let sniff = meta.sniff.map(|sniff| (sniff, meta.addresses));
        Self::new(Transport::Auditd { recorder, flow, policy }, writer, sniff, begun)
    }

    pub(super) fn to_udp(dump: Arc<UdpDump>, meta: &FlowMeta, packet_size: usize) -> Self {
        let writer = DumpWriter::new(&meta.addresses, &meta.dissector, packet_size);
        Self::new(Transport::Udp(dump), writer, None, Position::START)
    }

    fn new(transport: Transport, writer: DumpWriter, sniff: Option<(Sniff, Addresses)>, last: Position) -> Self {
        Self {
            transport,
            state: Mutex::new(State {
                writer,
                sniff,
                fronts: (Vec::new(), Vec::new()),
                record: Vec::new(),
                last,
                failed: false,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records bytes that went from the client to the upstream.
    pub fn to_remote(&self, data: &[u8]) {
        self.put(Direction::ToRemote, data);
    }

    /// Records bytes that went from the upstream to the client.
    pub fn to_client(&self, data: &[u8]) {
        self.put(Direction::ToClient, data);
    }

    /// Records bytes that went `direction`. The front of a frame of HTTP/2 waits for its rest, unless the policy is to stall.
    pub fn put(&self, direction: Direction, data: &[u8]) {
        let mut state = self.state();
        state.sniff(direction, data);
        if self.is_strict() {
            return self.write(&mut state, direction, data);
        }
        let mut front = std::mem::take(state.front(direction));
        let mut data = data;
        if !front.is_empty() {
            front.extend_from_slice(data);
            data = &front;
        }
        let (ready, rest) = data.split_at(state.writer.whole(direction, data));
        self.write(&mut state, direction, ready);
        let rest = if data.len() == rest.len() && !front.is_empty() {
            front // nothing has gone of it
        } else {
            rest.to_vec()
        };
        *state.front(direction) = rest;
    }

    /// How much of `data` is better recorded now; the rest should wait for what follows.
    pub(super) fn whole(&self, direction: Direction, data: &[u8]) -> usize {
        let mut state = self.state();
        state.sniff(direction, data);
        state.writer.whole(direction, data)
    }

    fn write(&self, state: &mut State, direction: Direction, data: &[u8]) {
        let State {
            writer,
            record,
            last,
            failed,
            ..
        } = state;
        match &self.transport {
            Transport::Udp(dump) => writer.put(direction, data, |packet| dump.send(packet)),
            Transport::Auditd { recorder, flow, policy } => {
                let at = now();
                writer.put(direction, data, |packet| {
                    record.clear();
                    let dump = Dump {
                        flow: *flow,
                        at,
                        pdu: packet,
                    };
                    put_dump(record, &dump);
                    let pushed = match policy {
                        Policy::Drop => recorder.sender().push(at, record),
                        Policy::Stall(_) => recorder.sender().push_and_wait(at, record),
                    };
                    match pushed {
                        Ok(position) => *last = position,
                        Err(_) => *failed = true,
                    }
                });
            }
        }
    }

    /// Waits until what was recorded is written, if the policy is to stall; otherwise there is nothing to wait for.
    ///
    /// # Errors
    /// [`Stalled`] if that takes too long, or has taken too long before, or a piece could not even be queued.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ready(&self) -> Result<(), Stalled> {
        let Transport::Auditd {
            recorder,
            policy: Policy::Stall(limit),
            ..
        } = &self.transport
        else {
            return Ok(());
        };
        self.check()?;
        let last = self.state().last;
        if recorder.sender().is_acknowledged(last) {
            return Ok(());
        }
        let written = timeout(*limit, recorder.sender().acknowledged(last)).await;
        self.state().failed |= written.is_err();
        self.check()
    }

    /// Tells whether more may go through.
    ///
    /// # Errors
    /// [`Stalled`] if the stream is over: [`ready`](Self::ready) has failed before, or would do so.
    pub fn check(&self) -> Result<(), Stalled> {
        match &self.transport {
            Transport::Auditd {
                policy: Policy::Stall(limit),
                ..
            } if self.state().failed => Err(Stalled { limit: *limit }),
            Transport::Auditd { .. } | Transport::Udp(_) => Ok(()),
        }
    }

    /// Whether nothing may go on before it is written.
    pub fn is_strict(&self) -> bool {
        let Transport::Auditd { policy, .. } = &self.transport else {
            return false;
        };
        matches!(policy, Policy::Stall(_))
    }
}

impl State {
    /// The first bytes may tell who makes sense of them.
    fn sniff(&mut self, direction: Direction, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let told = self.sniff.take();
        if let Some((dissector, addresses)) = told.and_then(|(sniff, ends)| Some((sniff(direction, data)?, ends))) {
            self.writer = DumpWriter::framed(&addresses, &dissector, PACKET_SIZE);
        }
    }

    fn front(&mut self, direction: Direction) -> &mut Vec<u8> {
        match direction {
            Direction::ToClient => &mut self.fronts.0,
            Direction::ToRemote => &mut self.fronts.1,
        }
    }
}

impl Drop for FlowDump {
    fn drop(&mut self) {
        {
            let mut state = self.state();
            for direction in [Direction::ToClient, Direction::ToRemote] {
                let front = std::mem::take(state.front(direction));
                self.write(&mut state, direction, &front);
            }
        }
        if let Transport::Auditd { recorder, flow, .. } = &self.transport {
            recorder.sender().end(*flow);
        }
    }
}
