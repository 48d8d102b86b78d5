//! What records become: packets of a capture and lines of an event log.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::{Map, Value, json};
use sluice_telemetry::value::Timestamp;
use sluice_wire::{
    audit::{self, Dump, Event, Flow, Gap, Id, Record, hex},
    dump::{Direction, DumpError, Pdu},
};

use crate::{
    config::Format,
    frames,
    pcapng::{Packet, Way, put_packet},
    store::Store,
};

/// Flows that are known at a time. Senders end their flows; beyond this the oldest ones of whoever did not go.
const MAX_FLOWS: usize = 65_536;

/// What a commit will tell to those who listen.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Lines of the event log, without their ends.
    pub(crate) lines: Vec<String>,
    /// Topics and records for followers.
    pub(crate) live: Vec<(String, Vec<u8>)>,
    pub(crate) records: u64,
    pub(crate) malformed: u64,
    pub(crate) lost: u64,
}

/// What is known of flows.
#[derive(Debug)]
pub(crate) struct Intake {
    flows: BTreeMap<(Id, u64), Known>,
    pub(crate) format: Format,
    /// Whether anybody may follow.
    pub(crate) live: bool,
}

#[derive(Debug)]
struct Known {
    flow: Flow,
    /// The capture that has said all about it; 0: none.
    said_in: u64,
    /// Whether a capture of TCP packets has its handshake.
    shaken: bool,
    to_client: u64,
    to_remote: u64,
}

impl Intake {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            flows: BTreeMap::new(),
            format,
            live: false,
        }
    }

    /// Flows that have not ended.
    pub(crate) fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Takes one record; `again` if it only repeats what a capture knows.
    pub(crate) fn take(&mut self, stream: Id, record: &Record<'_>, again: bool, store: &mut Store, told: &mut Told) {
        told.records += 1;
        match record {
            Record::Flow(flow) => self.begin(stream, flow, again, store, told),
            Record::Dump(dump) => self.dump(stream, dump, store, told),
            Record::End(flow) => self.end(stream, *flow, store, told),
            Record::Event(event) => self.event(event, store, told),
            Record::Gap(gap) => {
                told.lost += gap.records;
                self.gap(gap, store, told);
            }
            Record::Unknown => told.malformed += 1,
        }
    }

    fn begin(&mut self, stream: Id, flow: &Flow, again: bool, store: &mut Store, told: &mut Told) {
        let key = (stream, flow.flow);
        if self.flows.contains_key(&key) {
            return;
        }
        if self.flows.len() >= MAX_FLOWS {
            self.flows.pop_first();
        }
        let known = Known {
            flow: flow.clone(),
            said_in: 0,
            shaken: again,
            to_client: 0,
            to_remote: 0,
        };
        if !again {
            let line = flow_line(flow);
            put_line(store, told, line);
            self.publish(told, Some(&flow.task), &flow.upstream, |out| audit::put_flow(out, flow));
        }
        self.flows.insert(key, known);
    }

    fn end(&mut self, stream: Id, flow: u64, store: &mut Store, told: &mut Told) {
        let Some(known) = self.flows.remove(&(stream, flow)) else {
            return;
        };
        let line = json!({
            "at": Timestamp::now().to_string(),
            "log_type": "FlowEnd",
            "task_id": hex(&known.flow.task),
            "flow": flow,
            "user": known.flow.user,
            "host": host_of(&known.flow.upstream),
            "bytes_to_remote": known.to_remote,
            "bytes_to_client": known.to_client,
        });
        put_line(store, told, line);
        self.publish(told, Some(&known.flow.task), &known.flow.upstream, |out| {
            audit::put_end(out, flow);
        });
    }

    fn dump(&mut self, stream: Id, dump: &Dump<'_>, store: &mut Store, told: &mut Told) {
        let Ok(pdu) = Pdu::take(dump.pdu) else {
            told.malformed += 1;
            return;
        };
        let capture = store.capture_number();
        let mut known = self.flows.get_mut(&(stream, dump.flow));
        let mut comments = Vec::new();
        let mut way = None;
        match &mut known {
            Some(known) => {
                way = way_of(&known.flow, &pdu);
                let length = u64::try_from(pdu.payload.len()).unwrap_or_default();
                match way {
                    Some(Way::Inbound) => known.to_client += length,
                    Some(Way::Outbound) | None => known.to_remote += length,
                }
                comments.push(format!("task_id={} flow={}", hex(&known.flow.task), dump.flow));
                if known.said_in != capture {
                    known.said_in = capture;
                    comments.push(about(&known.flow));
                }
            }
            None => comments.push(format!("flow={} of a task that nothing is known of", dump.flow)),
        }
        let comments: Vec<&str> = comments.iter().map(String::as_str).collect();
        match self.format {
            Format::Pdu => put(store, dump.at, dump.pdu, &comments, way),
            Format::Tcp => {
                let is_new = known
                    .as_mut()
                    .is_some_and(|known| !std::mem::replace(&mut known.shaken, true));
                let first = frames::first_seq(dump.flow);
                put_frames(store, dump.at, &pdu, &comments, way, (first, is_new));
            }
        }
        if self.live
            && let Some(known) = self.flows.get(&(stream, dump.flow))
        {
            let (task, upstream) = (known.flow.task, known.flow.upstream.clone());
            self.publish(told, Some(&task), &upstream, |out| audit::put_dump(out, dump));
        }
    }

    /// Takes a PDU that came over UDP.
    pub(crate) fn datagram(
        &self,
        at: u64,
        from: SocketAddr,
        datagram: &[u8],
        store: &mut Store,
    ) -> Result<(), DumpError> {
        let pdu = Pdu::take(datagram)?;
        let comment = format!("from={from}");
        match self.format {
            Format::Pdu => put(store, at, datagram, &[&comment], None),
            Format::Tcp => put_frames(store, at, &pdu, &[&comment], None, (0, false)),
        }
        Ok(())
    }

    fn event(&mut self, event: &Event, store: &mut Store, told: &mut Told) {
        let mut line = Map::new();
        line.insert("at".to_owned(), time(event.at).into());
        line.insert("log_type".to_owned(), event.kind.as_str().into());
        if let Some(task) = &event.task {
            line.insert("task_id".to_owned(), hex(task).into());
        }
        for (key, value) in &event.fields {
            // What we say about a record, it cannot say itself.
            if !line.contains_key(key) {
                line.insert(key.clone(), plain(value));
            }
        }
        let host = ["host", "upstream"]
            .iter()
            .find_map(|key| line.get(*key)?.as_str().map(str::to_owned));
        put_line(store, told, Value::Object(line));
        self.publish(told, event.task.as_ref(), &host.unwrap_or_default(), |out| {
            audit::put_event(out, event);
        });
    }

    fn gap(&mut self, gap: &Gap, store: &mut Store, told: &mut Told) {
        let text = format!(
            "{} records of {} bytes are lost before this place: {}",
            gap.records, gap.bytes, gap.reason
        );
        let data = match self.format {
            Format::Pdu => {
                // A header that names the dissector of plain data.
                let mut data = b"\0\x0c\0\x04data\0\0\0\0".to_vec();
                data.extend_from_slice(text.as_bytes());
                data
            }
            Format::Tcp => frames::mark(&text),
        };
        put(store, gap.at, &data, &[&text], None);
        let line = json!({
            "at": time(gap.at),
            "log_type": "Gap",
            "records": gap.records,
            "bytes": gap.bytes,
            "reason": gap.reason,
        });
        put_line(store, told, line);
        self.publish(told, None, "", |out| audit::put_gap(out, gap));
    }

    fn publish(&self, told: &mut Told, task: Option<&Id>, upstream: &str, put: impl FnOnce(&mut Vec<u8>)) {
        if !self.live {
            return;
        }
        let task = task.map_or_else(|| "-".to_owned(), hex);
        let mut message = Vec::new();
        put(&mut message);
        told.live.push((format!("{task} {}", host_of(upstream)), message));
    }
}

fn put(store: &mut Store, at: u64, data: &[u8], comments: &[&str], way: Option<Way>) {
    let packet = Packet {
        at,
        data,
        comments: comments.to_vec(),
        way,
    };
    put_packet(store.capture(), &packet);
}

/// Appends TCP packets; `first` is where the flow begins to count, `is_new` says whether it has no handshake yet.
fn put_frames(
    store: &mut Store,
    at: u64,
    pdu: &Pdu<'_>,
    comments: &[&str],
    way: Option<Way>,
    (first, is_new): (u32, bool),
) {
    let Some((ends, info)) = pdu.inner.zip(pdu.tcp) else {
        let text = format!("a piece of {} bytes without addresses is left out", pdu.payload.len());
        put(store, at, &frames::mark(&text), comments, way);
        return;
    };
    let mut comments = comments;
    if is_new {
        let to_remote = if way == Some(Way::Inbound) {
            ends.reversed()
        } else {
            ends
        };
        frames::handshake(to_remote, first, |packet| {
            put(store, at, packet, comments, None);
            comments = &comments[..comments.len().min(1)]; // all is said once
        });
    }
    frames::piece(ends, first, info, pdu.payload, |packet| {
        put(store, at, packet, comments, way);
    });
}

fn way_of(flow: &Flow, pdu: &Pdu<'_>) -> Option<Way> {
    let outer = pdu.outer?;
    let client = flow.addresses.outer(Direction::ToRemote).src;
    let is = |address: SocketAddr| {
        (address.ip().to_canonical(), address.port()) == (client.ip().to_canonical(), client.port())
    };
    match (is(outer.src), is(outer.dst)) {
        (true, _) => Some(Way::Outbound),
        (_, true) => Some(Way::Inbound),
        _ => None,
    }
}

/// All that is known of a flow, in a comment.
fn about(flow: &Flow) -> String {
    let mut text = format!(
        "depth={} server={} auditor={}",
        flow.depth, flow.server_name, flow.auditor
    );
    let optional = [("user", flow.user.as_deref()), ("rule", flow.rule.as_deref())];
    let plain = [
        ("upstream", flow.upstream.as_str()),
        ("host", host_of(&flow.upstream)),
        ("protocol", &flow.protocol),
    ];
    let optional = optional.into_iter().filter_map(|(key, value)| Some((key, value?)));
    for (key, value) in plain.into_iter().chain(optional) {
        text.push_str(&format!(" {key}={value}"));
    }
    text.push_str(&format!(" client={}", flow.addresses.client));
    text
}

fn flow_line(flow: &Flow) -> Value {
    json!({
        "at": time(flow.at),
        "log_type": "Flow",
        "task_id": hex(&flow.task),
        "flow": flow.flow,
        "depth": flow.depth,
        "auditor_name": flow.auditor,
        "server_name": flow.server_name,
        "user": flow.user,
        "upstream": flow.upstream,
        "host": host_of(&flow.upstream),
        "protocol": flow.protocol,
        "rule": flow.rule,
        "client_addr": flow.addresses.client.to_string(),
        "server_addr": flow.addresses.server.to_string(),
        "next_bound_addr": flow.addresses.local.to_string(),
        "next_peer_addr": flow.addresses.remote.to_string(),
    })
}

/// The host of `host:port`.
pub(crate) fn host_of(upstream: &str) -> &str {
    let host = match upstream.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => upstream,
    };
    // A bare IPv6 address has colons, but no brackets.
    if host.contains(':') && !host.starts_with('[') {
        return upstream;
    }
    host.trim_start_matches('[').trim_end_matches(']')
}

fn put_line(store: &mut Store, told: &mut Told, line: Value) {
    let line = line.to_string();
    let events = store.events();
    events.extend_from_slice(line.as_bytes());
    events.push(b'\n');
    told.lines.push(line);
}

/// A time as it stands in logs.
pub(crate) fn time(at: u64) -> String {
    let secs = i64::try_from(at / 1_000_000_000).unwrap_or(i64::MAX);
    let nanos = u32::try_from(at % 1_000_000_000).unwrap_or_default();
    Timestamp::from_unix(secs, nanos).to_string()
}

fn plain(value: &audit::Value) -> Value {
    match value {
        audit::Value::Bool(value) => (*value).into(),
        audit::Value::Float(number) => (*number).into(),
        audit::Value::Int(number) => (*number).into(),
        audit::Value::Nil => Value::Null,
        audit::Value::Str(text) => text.as_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_what_stands_before_the_port() {
        for (upstream, host) in [
            ("www.example:443", "www.example"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("www.example", "www.example"),
            ("", ""),
        ] {
            assert_eq!(host_of(upstream), host, "{upstream}");
        }
    }
}
