//! What interception calls: flows whose bytes are recorded, and events.
//!
//! A [`Recorder`] sends to the group's auditd, a [`UdpDump`] to any reader of exported PDUs. Either gives a [`FlowDump`] for
//! each stream, to which pieces are given as they are read and written; [`Recorded`] does that for a whole connection, so
//! that what is dumped is exactly what went through.

mod flow;
mod held;
mod stream;
#[cfg(test)]
mod tests;
mod udp;

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sluice_wire::{
    audit::{Event, EventWriter, Flow, Id, put_event},
    dump::{Addresses, Direction, Dissector},
};

pub use flow::{FlowDump, Stalled};
pub use stream::{Recorded, Side};
pub use udp::{UdpDump, UdpDumpStats};

use crate::{BusError, Sender, SenderConfig, SenderStats};

/// The longest exported PDU that auditd is sent: Wireshark takes no packet of more than 256 KiB.
const PACKET_SIZE: usize = 250_000;

/// What is done when auditd is gone, stuck or too slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// What does not fit into the queue is lost, counted, and marked in the capture.
    #[default]
    Drop,
    /// What goes through the stream waits until it is written, at most so long; then the stream ends.
    Stall(Duration),
}

/// A stream that is recorded, as its capture describes it.
#[derive(Clone, Debug)]
pub struct FlowMeta {
    /// The task's id.
    pub task: Id,
    /// How deep in the nest of inspected protocols it is.
    pub depth: usize,
    /// The auditor's name.
    pub auditor: String,
    /// The server's name.
    pub server: String,
    /// Who asked, if anybody logged in.
    pub user: Option<String>,
    /// Who was asked, as `host:port`.
    pub upstream: String,
    /// The protocol, as in logs.
    pub protocol: String,
    /// What has decided that it is looked into, and how.
    pub rule: Option<String>,
    /// Both connections.
    pub addresses: Addresses,
    /// Who is to make sense of the bytes.
    pub dissector: Dissector,
    /// Who would do better, by the first bytes; asked by what is told to auditd.
    pub sniff: Option<Sniff>,
}

/// Tells who makes sense of bytes that went some way, if that shows.
pub type Sniff = fn(Direction, &[u8]) -> Option<Dissector>;

/// What the group's auditd is told: one for a process, shared by its threads.
#[derive(Debug)]
pub struct Recorder {
    sender: Sender,
    next_flow: AtomicU64,
}

impl Recorder {
    /// Begins to tell; auditd need not be there yet.
    ///
    /// # Errors
    /// [`BusError`] if its socket can never be connected to, or no thread can be started.
    pub fn start(config: &SenderConfig) -> Result<Arc<Self>, BusError> {
        Ok(Arc::new(Self {
            sender: Sender::start(config)?,
            next_flow: AtomicU64::new(1),
        }))
    }

    /// Begins a flow. It ends when it is dropped.
    pub fn flow(self: &Arc<Self>, meta: &FlowMeta, policy: Policy) -> FlowDump {
        let flow = Flow {
            flow: self.next_flow.fetch_add(1, Ordering::Relaxed),
            at: now(),
            task: meta.task,
            depth: u64::try_from(meta.depth).unwrap_or(u64::MAX),
            auditor: meta.auditor.clone(),
            server_name: meta.server.clone(),
            user: meta.user.clone(),
            upstream: meta.upstream.clone(),
            protocol: meta.protocol.clone(),
            rule: meta.rule.clone(),
            addresses: meta.addresses,
        };
        let begun = self.sender.begin(&flow);
        FlowDump::to_auditd(Arc::clone(self), flow.flow, begun, meta, policy)
    }

    /// Tells about an event; it is lost if the queue is full.
    pub fn event(&self, event: &Event) {
        self.push(event.at, |record| put_event(record, event));
    }

    /// Tells about an event of that time and kind, whose fields `write` writes; it returns the task's id, if the event is
    /// about one.
    pub fn event_of(&self, at: u64, kind: &str, write: impl FnOnce(&mut EventWriter<'_>) -> Option<Id>) {
        self.push(at, |record| {
            let mut writer = EventWriter::new(record, at, kind);
            let task = write(&mut writer);
            writer.finish(task.as_ref());
        });
    }

    fn push(&self, at: u64, write: impl FnOnce(&mut Vec<u8>)) {
        thread_local! {
            static RECORD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        RECORD.with_borrow_mut(|record| {
            record.clear();
            write(record);
            // The queue has counted what it lost.
            let _ = self.sender.push(at, record);
        });
    }

    /// Whether there is an auditd, was one, or may be on its way.
    #[inline]
    pub fn is_expected(&self) -> bool {
        self.sender.is_expected()
    }

    /// What has happened until now.
    pub fn stats(&self) -> SenderStats {
        self.sender.stats()
    }

    fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Waits until all that was told is written, at most `limit`; tells whether it is. Blocks.
    pub fn flush(&self, limit: Duration) -> bool {
        self.sender.flush(limit)
    }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
