//! What holds for any bytes, for tests and the fuzz target.

#![expect(clippy::unwrap_used, reason = "a panic here is a finding")]

use super::{Message, Record, put_dump, put_end, put_event, put_flow, put_gap};

/// Reads `data` as a message and as a record; what can be read is written and read again.
pub fn message(data: &[u8]) {
    if let Ok(Some(message)) = Message::take(data) {
        let again = message.to_vec();
        assert_eq!(Message::take(&again).unwrap().unwrap(), message);
        if let Message::Batch(batch) = message {
            let mut count = 0;
            for record in batch.records() {
                count += 1;
                if let Ok(record) = record {
                    keeps(&record);
                }
            }
            assert_eq!(count, batch.len());
        }
    }
    if let Ok(record) = Record::take(data) {
        keeps(&record);
    }
}

/// A record is the same once it was written and read again; a number that is none equals nothing.
fn keeps(record: &Record<'_>) {
    let mut out = Vec::new();
    match record {
        Record::Flow(flow) => put_flow(&mut out, flow),
        Record::Dump(dump) => put_dump(&mut out, dump),
        Record::End(flow) => put_end(&mut out, *flow),
        Record::Event(event) => put_event(&mut out, event),
        Record::Gap(gap) => put_gap(&mut out, gap),
        Record::Unknown => return,
    }
    if let Ok(again) = Record::take(&out) {
        assert_eq!(format!("{again:?}"), format!("{record:?}"));
    }
}
