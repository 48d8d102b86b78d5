//! What proxyd tells auditd: pieces of streams and events, in numbered batches that are acknowledged once written.
//!
//! Each message is one msgpack map, whose `type` names it and whose `v` is [`VERSION`]. A sender numbers its batches from 1
//! and keeps each until it is acknowledged; acknowledgements count all batches up to a number. It begins with a [`Hello`],
//! which is answered by a [`Welcome`] that says what is already written, and says so again whenever an answer is overdue. A
//! welcome of another *instance* means that auditd was started anew: the sender tells about its open flows again, then
//! sends what was not acknowledged. A batch that does not follow the one before is answered by a [`Refusal`], never taken.
//! Open flows are told about again in batches of number 0, which stand outside of the order and are not acknowledged.
//!
//! [`Message::take`] and [`Record::take`] read, the `put_*` functions and [`Message::to_vec`] write. Unknown keys are
//! skipped, and so are records of unknown types: a later version may have more of both.

mod message;
mod pack;
#[cfg(any(test, feature = "cases"))]
#[doc(hidden)]
pub mod properties;
mod record;
#[cfg(test)]
mod tests;

pub use message::{Batch, Hello, Message, Records, Refusal, RefusalCode, Welcome, put_batch};
pub use pack::Malformed;
pub use record::{Dump, Event, EventWriter, Flow, Gap, Record, Value, put_dump, put_end, put_event, put_flow, put_gap};

/// The version of the messages.
pub const VERSION: u64 = 1;

/// The longest message that is read.
pub const MAX_MESSAGE: usize = 4 << 20;

/// The longest record that is read.
pub const MAX_RECORD: usize = 1 << 20;

/// An id of a task, a sender or a life of auditd, as in logs: 16 bytes.
pub type Id = [u8; 16];

/// An id as it stands in logs: 32 hex digits.
pub fn hex(id: &Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
