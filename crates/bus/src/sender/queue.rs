//! What waits to be sent, and what waits to be acknowledged.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sluice_wire::audit::{Flow, Gap, MAX_MESSAGE, MAX_RECORD, put_end, put_flow, put_gap};

use super::{Position, SenderStats};

/// A batch is closed once it is that long, whether it can be sent or not.
const BATCH: usize = 256 << 10;

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue of records is full")]
pub struct Full;

/// A batch that is not acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) seq: u64,
    pub(super) count: u32,
    pub(super) records: Arc<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct Queue {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The batch that is filled: number `closed + 1`.
    open: Vec<u8>,
    open_count: u32,
    /// The last batch that was closed.
    closed: u64,
    kept: VecDeque<Kept>,
    /// Bytes of `open` and `kept`.
    bytes: usize,
    lost: Option<Gap>,
    /// The beginnings of flows that have not ended.
    flows: BTreeMap<u64, Vec<u8>>,
    records: u64,
    dropped: u64,
    dropped_bytes: u64,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record if there is room; tells where it stands, and whether the thread is to be woken.
    pub(super) fn push(&self, now: u64, record: &[u8]) -> Result<(Position, bool), Full> {
        self.push_up_to(self.limit, now, record)
    }

    /// The same up to twice the limit.
    pub(super) fn push_over(&self, now: u64, record: &[u8]) -> Result<(Position, bool), Full> {
        self.push_up_to(self.limit.saturating_mul(2), now, record)
    }

    fn push_up_to(&self, limit: usize, now: u64, record: &[u8]) -> Result<(Position, bool), Full> {
        let mut state = self.state();
        if state.bytes.saturating_add(record.len()) > limit || record.len() > MAX_RECORD {
            state.lose(now, record.len());
            return Err(Full);
        }
        let wake = state.open_count == 0;
        state.mark_gap();
        Ok((state.append(record), wake))
    }

    /// Flows are told about whatever the queue holds: they are few and short, and their pieces are nothing without them.
    pub(super) fn begin(&self, flow: &Flow) -> (Position, bool) {
        let mut record = Vec::new();
        put_flow(&mut record, flow);
        let mut state = self.state();
        let wake = state.open_count == 0;
        let position = state.append(&record);
        state.flows.insert(flow.flow, record);
        (position, wake)
    }

    pub(super) fn end(&self, flow: u64) -> bool {
        let mut record = Vec::new();
        put_end(&mut record, flow);
        let mut state = self.state();
        let wake = state.open_count == 0;
        if state.flows.remove(&flow).is_some() {
            state.append(&record);
        }
        wake
    }

    /// Closes the batch that is being filled, if it has anything, and marks what was lost as soon as there is room.
    pub(super) fn close(&self) {
        let mut state = self.state();
        if state.bytes < self.limit / 2 {
            state.mark_gap();
        }
        state.close();
    }

    /// The batch of number `seq`; none if it is not closed, or acknowledged.
    pub(super) fn batch(&self, seq: u64) -> Option<Kept> {
        let state = self.state();
        let first = state.kept.front()?.seq;
        let at = usize::try_from(seq.checked_sub(first)?).ok()?;
        state.kept.get(at).cloned()
    }

    /// Whether a batch is being filled, and is all that there is behind the one of number `sent`.
    pub(super) fn is_filling(&self, sent: u64) -> bool {
        let state = self.state();
        state.open_count > 0 && state.closed <= sent
    }

    /// The last batch that was closed.
    pub(super) fn closed(&self) -> u64 {
        self.state().closed
    }

    /// The first batch that is kept, or will be.
    pub(super) fn base(&self) -> u64 {
        let state = self.state();
        state.kept.front().map_or(state.closed + 1, |kept| kept.seq)
    }

    /// Forgets all batches up to `seq`.
    pub(super) fn acknowledge(&self, seq: u64) {
        let mut state = self.state();
        while let Some(first) = state.kept.front().filter(|kept| kept.seq <= seq) {
            let bytes = first.records.len();
            state.bytes = state.bytes.saturating_sub(bytes);
            state.kept.pop_front();
        }
    }

    /// The beginnings of all open flows, as records of a few messages: their number and bytes.
    pub(super) fn announcements(&self) -> Vec<(u32, Vec<u8>)> {
        let state = self.state();
        let mut messages: Vec<(u32, Vec<u8>)> = Vec::new();
        for flow in state.flows.values() {
            match messages.last_mut() {
                Some((count, records)) if records.len() + flow.len() < MAX_MESSAGE / 2 => {
                    *count += 1;
                    records.extend_from_slice(flow);
                }
                _ => messages.push((1, flow.clone())),
            }
        }
        messages
    }

    pub(super) fn is_empty(&self) -> bool {
        let state = self.state();
        state.kept.is_empty() && state.open_count == 0 && state.lost.is_none()
    }

    pub(super) fn stats(&self) -> SenderStats {
        let state = self.state();
        SenderStats {
            records: state.records,
            dropped: state.dropped,
            dropped_bytes: state.dropped_bytes,
            waiting: u64::try_from(state.bytes).unwrap_or(u64::MAX),
            ..SenderStats::default()
        }
    }
}

impl State {
    fn append(&mut self, record: &[u8]) -> Position {
        if self.open.len() + record.len() > BATCH {
            self.close();
        }
        self.open.extend_from_slice(record);
        self.open_count += 1;
        self.bytes += record.len();
        self.records += 1;
        Position(self.closed + 1)
    }

    fn close(&mut self) {
        if self.open_count == 0 {
            return;
        }
        self.closed += 1;
        let records = std::mem::take(&mut self.open);
        self.kept.push_back(Kept {
            seq: self.closed,
            count: std::mem::take(&mut self.open_count),
            records: Arc::new(records),
        });
    }

    fn lose(&mut self, now: u64, length: usize) {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.dropped += 1;
        self.dropped_bytes += length;
        let gap = self.lost.get_or_insert_with(|| Gap {
            at: now,
            records: 0,
            bytes: 0,
            reason: "queue full".to_owned(),
        });
        gap.records += 1;
        gap.bytes += length;
    }

    fn mark_gap(&mut self) {
        if let Some(gap) = self.lost.take() {
            let mut record = Vec::new();
            put_gap(&mut record, &gap);
            self.append(&record);
        }
    }
}
