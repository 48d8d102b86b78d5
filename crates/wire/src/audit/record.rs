//! What a batch holds.

use std::net::SocketAddr;

use super::pack::{Item, Malformed, take_map};
use super::{Id, MAX_RECORD};
use crate::dump::Addresses;
use crate::msgpack::{
    put_bin, put_bool, put_float, put_int, put_map, put_map32, put_nil, put_str, put_uint, set_map32,
};

/// One record of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Record<'a> {
    /// A flow begins, or is told about again.
    Flow(Box<Flow>),
    /// A piece of a flow.
    Dump(Dump<'a>),
    /// A flow has ended, by its number.
    End(u64),
    /// Something happened.
    Event(Event),
    /// Records were lost before this one.
    Gap(Gap),
    /// Something of a later version.
    Unknown,
}

/// A stream that is dumped, or could be: one layer of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// Its number, unique for the sender.
    pub flow: u64,
    /// When it began, in nanoseconds since 1970.
    pub at: u64,
    /// The task's id.
    pub task: Id,
    /// How deep in the nest of inspected protocols it is.
    pub depth: u64,
    /// The auditor's name.
    pub auditor: String,
    /// The server's name.
    pub server_name: String,
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
}

/// A piece of a flow, as one exported PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dump<'a> {
    /// The flow.
    pub flow: u64,
    /// When it was read or written, in nanoseconds since 1970.
    pub at: u64,
    /// The exported PDU ([`crate::dump::Pdu::take`] reads it).
    pub pdu: &'a [u8],
}

/// Something that happened: what the event log has, too.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When, in nanoseconds since 1970.
    pub at: u64,
    /// What, as the `log_type` of the event log: `Inspect`, `Intercept`, `Mint`, `Icap`.
    pub kind: String,
    /// The task's id, if it is about one.
    pub task: Option<Id>,
    /// The fields of the record, in order.
    pub fields: Vec<(String, Value)>,
}

/// Records that are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When the first one was lost, in nanoseconds since 1970.
    pub at: u64,
    /// How many.
    pub records: u64,
    /// How many bytes of them.
    pub bytes: u64,
    /// Why, in a word or two.
    pub reason: String,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A switch.
    Bool(bool),
    /// A number with a fraction.
    Float(f64),
    /// A number.
    Int(i64),
    /// Nothing.
    Nil,
    /// Text.
    Str(String),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Str(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// Appends the beginning of a flow.
pub fn put_flow(out: &mut Vec<u8>, flow: &Flow) {
    put_map(out, 15);
    typed(out, "flow");
    uint(out, "flow", flow.flow);
    uint(out, "at", flow.at);
    bin(out, "task", &flow.task);
    uint(out, "depth", flow.depth);
    str(out, "auditor", &flow.auditor);
    str(out, "server", &flow.server_name);
    optional(out, "user", flow.user.as_deref());
    str(out, "upstream", &flow.upstream);
    str(out, "protocol", &flow.protocol);
    optional(out, "rule", flow.rule.as_deref());
    let addresses = &flow.addresses;
    for (key, address) in [
        ("client_addr", addresses.client),
        ("server_addr", addresses.server),
        ("local_addr", addresses.local),
        ("remote_addr", addresses.remote),
    ] {
        str(out, key, &address.to_string());
    }
}

/// Appends a piece of a flow.
pub fn put_dump(out: &mut Vec<u8>, dump: &Dump<'_>) {
    put_map(out, 4);
    typed(out, "dump");
    uint(out, "flow", dump.flow);
    uint(out, "at", dump.at);
    bin(out, "pdu", dump.pdu);
}

/// Appends the end of a flow.
pub fn put_end(out: &mut Vec<u8>, flow: u64) {
    put_map(out, 2);
    typed(out, "end");
    uint(out, "flow", flow);
}

/// Appends an event.
pub fn put_event(out: &mut Vec<u8>, event: &Event) {
    let mut writer = EventWriter::new(out, event.at, &event.kind);
    for (key, value) in &event.fields {
        match value {
            Value::Bool(value) => writer.bool(key, *value),
            Value::Float(number) => writer.float(key, *number),
            Value::Int(number) => writer.int(key, *number),
            Value::Nil => writer.nil(key),
            Value::Str(text) => writer.text(key, text),
        }
    }
    writer.finish(event.task.as_ref());
}

/// Appends an event field by field, for whoever has no [`Event`] and needs none.
pub struct EventWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Where the number of fields stands.
    count_at: usize,
    fields: u32,
}

impl<'a> EventWriter<'a> {
    /// Appends the beginning: when it happened, in nanoseconds since 1970, and what.
    pub fn new(out: &'a mut Vec<u8>, at: u64, kind: &str) -> Self {
        put_map(out, 5);
        typed(out, "event");
        uint(out, "at", at);
        str(out, "kind", kind);
        put_str(out, "fields");
        let count_at = put_map32(out);
        Self {
            out,
            count_at,
            fields: 0,
        }
    }

    /// Adds a switch.
    pub fn bool(&mut self, key: &str, value: bool) {
        put_bool(self.key(key), value);
    }

    /// Adds a number with a fraction.
    pub fn float(&mut self, key: &str, number: f64) {
        put_float(self.key(key), number);
    }

    /// Adds a number.
    pub fn int(&mut self, key: &str, number: i64) {
        put_int(self.key(key), number);
    }

    /// Adds nothing.
    pub fn nil(&mut self, key: &str) {
        put_nil(self.key(key));
    }

    /// Adds text.
    pub fn text(&mut self, key: &str, text: &str) {
        put_str(self.key(key), text);
    }

    /// Appends the end: the task's id, if it is about one.
    pub fn finish(self, task: Option<&Id>) {
        let Self { out, count_at, fields } = self;
        set_map32(out, count_at, fields);
        put_str(out, "task");
        match task {
            Some(task) => put_bin(out, task),
            None => put_nil(out),
        }
    }

    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.fields += 1;
        put_str(self.out, key);
        self.out
    }
}

/// Appends a mark that records are lost.
pub fn put_gap(out: &mut Vec<u8>, gap: &Gap) {
    put_map(out, 5);
    typed(out, "gap");
    uint(out, "at", gap.at);
    uint(out, "records", gap.records);
    uint(out, "bytes", gap.bytes);
    str(out, "reason", &gap.reason);
}

fn typed(out: &mut Vec<u8>, name: &str) {
    str(out, "type", name);
}

fn uint(out: &mut Vec<u8>, key: &str, number: u64) {
    put_str(out, key);
    put_uint(out, number);
}

fn str(out: &mut Vec<u8>, key: &str, text: &str) {
    put_str(out, key);
    put_str(out, text);
}

fn bin(out: &mut Vec<u8>, key: &str, bytes: &[u8]) {
    put_str(out, key);
    put_bin(out, bytes);
}

fn optional(out: &mut Vec<u8>, key: &str, text: Option<&str>) {
    put_str(out, key);
    match text {
        Some(text) => put_str(out, text),
        None => put_nil(out),
    }
}

/// All keys of all records, as far as one has them.
#[derive(Default)]
struct Keys<'a> {
    kind: Option<&'a str>,
    flow: Option<u64>,
    at: Option<u64>,
    task: Option<Id>,
    depth: u64,
    text: Vec<(&'a str, &'a str)>,
    pdu: Option<&'a [u8]>,
    records: u64,
    bytes: u64,
    fields: Vec<(String, Value)>,
}

impl<'a> Record<'a> {
    /// Reads one record, the whole of `data`.
    ///
    /// # Errors
    /// [`Malformed`] if it is none.
    pub fn take(data: &'a [u8]) -> Result<Self, Malformed> {
        if data.len() > MAX_RECORD {
            return Err(Malformed::TooLong {
                length: data.len(),
                limit: MAX_RECORD,
            });
        }
        let mut rest = data;
        let mut keys = Keys::default();
        take_map(&mut rest, |key, value, rest| keys.take(key, value, rest))?;
        if !rest.is_empty() {
            return Err(Malformed::NotMsgpack);
        }
        keys.record()
    }
}

impl<'a> Keys<'a> {
    fn take(&mut self, key: &'a str, value: Item<'a>, rest: &mut &'a [u8]) -> Result<(), Malformed> {
        match key {
            "type" => self.kind = Some(value.str("type")?),
            "flow" => self.flow = Some(value.uint("flow")?),
            "at" => self.at = Some(value.uint("at")?),
            "task" if value == Item::Nil => {}
            "task" => self.task = Some(value.id("task")?),
            "depth" => self.depth = value.uint("depth")?,
            "pdu" => self.pdu = Some(value.bin("pdu")?),
            "records" => self.records = value.uint("records")?,
            "bytes" => self.bytes = value.uint("bytes")?,
            "fields" => self.fields = fields(value, rest)?,
            _ => match value {
                Item::Str(text) => self.text.push((key, text)),
                other => other.skip_rest(rest)?,
            },
        }
        Ok(())
    }

    fn text(&self, key: &'static str) -> Option<&'a str> {
        self.text.iter().find(|(known, _)| *known == key).map(|(_, text)| *text)
    }

    fn needed(&self, key: &'static str) -> Result<String, Malformed> {
        self.text(key).map(str::to_owned).ok_or(Malformed::Missing { key })
    }

    fn address(&self, key: &'static str) -> Result<SocketAddr, Malformed> {
        let text = self.text(key).ok_or(Malformed::Missing { key })?;
        text.parse().map_err(|_| Malformed::BadValue { key })
    }

    fn record(self) -> Result<Record<'a>, Malformed> {
        let kind = self.kind.ok_or(Malformed::Missing { key: "type" })?;
        let at = self.at.ok_or(Malformed::Missing { key: "at" });
        let flow = self.flow.ok_or(Malformed::Missing { key: "flow" });
        Ok(match kind {
            "dump" => Record::Dump(Dump {
                flow: flow?,
                at: at?,
                pdu: self.pdu.ok_or(Malformed::Missing { key: "pdu" })?,
            }),
            "end" => Record::End(flow?),
            "event" => Record::Event(Event {
                at: at?,
                kind: self.needed("kind")?,
                task: self.task,
                fields: self.fields,
            }),
            "flow" => Record::Flow(Box::new(Flow {
                flow: flow?,
                at: at?,
                task: self.task.ok_or(Malformed::Missing { key: "task" })?,
                depth: self.depth,
                auditor: self.needed("auditor")?,
                server_name: self.needed("server")?,
                user: self.text("user").map(str::to_owned),
                upstream: self.needed("upstream")?,
                protocol: self.needed("protocol")?,
                rule: self.text("rule").map(str::to_owned),
                addresses: Addresses {
                    client: self.address("client_addr")?,
                    server: self.address("server_addr")?,
                    local: self.address("local_addr")?,
                    remote: self.address("remote_addr")?,
                },
            })),
            "gap" => Record::Gap(Gap {
                at: at?,
                records: self.records,
                bytes: self.bytes,
                reason: self.needed("reason")?,
            }),
            _ => Record::Unknown,
        })
    }
}

/// The fields of an event; a value that is none of ours is skipped with its key.
fn fields<'a>(value: Item<'a>, rest: &mut &'a [u8]) -> Result<Vec<(String, Value)>, Malformed> {
    let Item::Map(pairs) = value else {
        return Err(Malformed::BadValue { key: "fields" });
    };
    let mut fields = Vec::new();
    for _ in 0..pairs {
        let key = Item::take(rest)?;
        key.skip_rest(rest)?;
        let item = Item::take(rest)?;
        item.skip_rest(rest)?;
        let value = match item {
            Item::Nil => Value::Nil,
            Item::Bool(value) => Value::Bool(value),
            Item::Uint(number) => i64::try_from(number).map_or_else(|_| Value::Str(number.to_string()), Value::Int),
            Item::Int(number) => Value::Int(number),
            Item::Float(number) => Value::Float(number),
            Item::Str(text) => text.into(),
            Item::Bin(_) | Item::Array(_) | Item::Map(_) | Item::Other => continue,
        };
        if let Item::Str(key) = key {
            fields.push((key.to_owned(), value));
        }
    }
    Ok(fields)
}
