//! The HTTP/1 messages of one task as a HAR file (HTTP Archive 1.2).

use std::{collections::BTreeMap, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sluice_http1::{Awaits, BodyScanner, Field, Limits, RequestHead, ResponseHead, parse_request, parse_response};
use sluice_wire::dump::{Dissector, Pdu};

use crate::{
    export::{ExportError, walk},
    intake::time,
    pcapng::{LinkType, Packet, Way},
};

/// Bytes of a task that are taken apart, at most.
const LIMIT: usize = 16 << 20;

/// The bytes of one direction, and when they came.
#[derive(Default)]
struct Half {
    bytes: Vec<u8>,
    /// Where bytes begin, and their time.
    times: Vec<(usize, u64)>,
}

impl Half {
    fn add(&mut self, at: u64, bytes: &[u8]) {
        self.times.push((self.bytes.len(), at));
        self.bytes.extend_from_slice(bytes);
    }

    /// When the byte at `offset` came.
    fn at(&self, offset: usize) -> u64 {
        let after = self.times.partition_point(|(start, _)| *start <= offset);
        let piece = after.checked_sub(1).and_then(|at| self.times.get(at));
        piece.map_or(0, |(_, at)| *at)
    }
}

/// One stream of a task.
#[derive(Default)]
struct Stream {
    to_remote: Half,
    to_client: Half,
    about: String,
    is_http: bool,
}

/// All messages of a task; streams of other protocols are left out, and counted in a comment.
pub(crate) fn of_task(dir: &Path, task: &str) -> Result<Value, ExportError> {
    let mut streams: BTreeMap<String, Stream> = BTreeMap::new();
    let mut total = 0;
    walk(dir, task, None, |_, link, packet| {
        let Some((payload, is_http)) = payload(link, packet) else {
            return Ok(true);
        };
        total += payload.len();
        if total > LIMIT {
            return Err(ExportError::TooLong { limit: LIMIT });
        }
        let first = packet.comments.first().copied().unwrap_or_default();
        let stream = streams.entry(first.to_owned()).or_default();
        stream.is_http |= is_http;
        if let Some(about) = packet.comments.get(1) {
            (*about).clone_into(&mut stream.about);
        }
        match packet.way {
            Some(Way::Inbound) => stream.to_client.add(packet.at, payload),
            Some(Way::Outbound) | None => stream.to_remote.add(packet.at, payload),
        }
        Ok(true)
    })?;
    if streams.is_empty() {
        return Err(ExportError::Nothing { task: task.to_owned() });
    }
    let others = streams.values().filter(|stream| !stream.is_http).count();
    let mut entries: Vec<Value> = streams
        .values()
        .filter(|stream| stream.is_http)
        .flat_map(Stream::entries)
        .collect();
    entries.sort_by(|a, b| a["startedDateTime"].as_str().cmp(&b["startedDateTime"].as_str()));
    Ok(json!({
        "log": {
            "version": "1.2",
            "creator": { "name": "sluice auditd", "version": env!("CARGO_PKG_VERSION") },
            "entries": entries,
            "comment": format!("task {task}; {others} streams are not HTTP/1"),
            // A field of ours begins so (HAR 1.2, "Custom fields").
            "_leftOut": others,
        }
    }))
}

/// The bytes of a stream in a packet, and whether they are said to be HTTP/1.
fn payload<'p>(link: LinkType, packet: &Packet<'p>) -> Option<(&'p [u8], bool)> {
    match link {
        LinkType::UpperPdu => {
            let pdu = Pdu::take(packet.data).ok()?;
            let is_http = match &pdu.dissector {
                Dissector::Name(name) => name == "http",
                Dissector::TcpPort(_) | Dissector::TlsPort(_) => looks_like_http(pdu.payload),
            };
            Some((pdu.payload, is_http))
        }
        LinkType::Raw => {
            let head = if packet.data.first()? >> 4 == 4 { 20 } else { 40 };
            let payload = packet.data.get(head + 20..).filter(|payload| !payload.is_empty())?;
            Some((payload, looks_like_http(payload)))
        }
    }
}

fn looks_like_http(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    line.starts_with(b"HTTP/1.") || line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

/// A message's body without its framing, and where in the stream it ends.
struct Body {
    bytes: Vec<u8>,
    end: usize,
    /// Whether all of it is there.
    is_whole: bool,
}

impl Body {
    fn take(half: &Half, start: usize, mut scanner: BodyScanner) -> Self {
        let all = half.bytes.get(start..).unwrap_or_default();
        let mut rest = all;
        let mut bytes = Vec::new();
        let mut is_broken = false;
        loop {
            match scanner.payload(&mut rest) {
                Ok(Some(payload)) => bytes.extend_from_slice(payload),
                Ok(None) => break,
                Err(_) => {
                    is_broken = true;
                    break;
                }
            }
        }
        Self {
            bytes,
            end: start + all.len() - rest.len(),
            is_whole: !is_broken && scanner.finish().is_ok(),
        }
    }
}

impl Stream {
    /// Requests with their responses, in order, as far as both can be read.
    fn entries(&self) -> Vec<Value> {
        let limits = Limits::default();
        let mut entries = Vec::new();
        let (mut asked, mut answered) = (0, 0);
        while let Ok(Some(request)) = parse_request(rest(&self.to_remote, asked), &limits) {
            let start = asked;
            let sent = Body::take(
                &self.to_remote,
                asked + request.len,
                BodyScanner::new(request.framing, &limits),
            );
            asked = sent.end;
            let answer = self.answer(&mut answered, request.method.awaits(), &limits);
            let is_last = !sent.is_whole || answer.is_none();
            entries.push(self.entry(start, &request, &sent, answer.as_ref()));
            if is_last {
                break;
            }
        }
        entries
    }

    /// The final response at `answered`: where it begins, its head and its body.
    fn answer(&self, answered: &mut usize, awaits: Awaits, limits: &Limits) -> Option<(usize, ResponseHead<'_>, Body)> {
        loop {
            let start = *answered;
            let head = parse_response(rest(&self.to_client, start), limits, awaits).ok()??;
            let body = Body::take(
                &self.to_client,
                start + head.len,
                BodyScanner::new(head.framing, limits),
            );
            *answered = body.end;
            if !head.is_interim() {
                return Some((start, head, body));
            }
        }
    }

    fn entry(
        &self,
        start: usize,
        request: &RequestHead<'_>,
        sent: &Body,
        answer: Option<&(usize, ResponseHead<'_>, Body)>,
    ) -> Value {
        let began = self.to_remote.at(start);
        let all_sent = self.to_remote.at(sent.end.saturating_sub(1));
        let (response, first, last) = match answer {
            Some((at, head, body)) => (
                response(head, body),
                self.to_client.at(*at),
                self.to_client.at(body.end.saturating_sub(1)),
            ),
            None => (no_response(), all_sent, all_sent),
        };
        let between = |from: u64, to: u64| round(to.saturating_sub(from));
        let mut comment = self.about.clone();
        if !sent.is_whole || answer.is_none_or(|(_, _, body)| !body.is_whole) {
            comment.push_str(" (not all of it was recorded)");
        }
        json!({
            "startedDateTime": time(began),
            "time": between(began, last.max(began)),
            "request": self.request(request, sent),
            "response": response,
            "cache": {},
            "timings": {
                "send": between(began, all_sent),
                "wait": between(all_sent, first),
                "receive": between(first, last),
            },
            "comment": comment,
        })
    }

    fn request(&self, request: &RequestHead<'_>, sent: &Body) -> Value {
        let url = self.url(request);
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let query: Vec<Value> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                json!({ "name": name, "value": value })
            })
            .collect();
        let mut value = json!({
            "method": request.method.as_str(),
            "url": url,
            "httpVersion": request.version.as_str(),
            "cookies": [],
            "headers": headers(request.fields()),
            "queryString": query,
            "headersSize": request.len,
            "bodySize": sent.bytes.len(),
        });
        if !sent.bytes.is_empty() {
            let mime = request.field("content-type").map(|field| lossy(field.value));
            let mut content = content(&sent.bytes);
            content["mimeType"] = mime.unwrap_or_default().into();
            value["postData"] = content;
        }
        value
    }

    fn url(&self, request: &RequestHead<'_>) -> String {
        let target = request.raw_target;
        if !target.starts_with('/') {
            return target.to_owned();
        }
        let about = |key: &str| {
            let value = self
                .about
                .split(' ')
                .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            value.unwrap_or_default()
        };
        let upstream = about("upstream");
        // What was decrypted had TLS around it, which the depth tells only roughly: the port is as good.
        let scheme = if upstream.ends_with(":80") { "http" } else { "https" };
        let host = request.host.filter(|host| !host.is_empty()).unwrap_or(upstream);
        format!("{scheme}://{host}{target}")
    }
}

fn rest(half: &Half, start: usize) -> &[u8] {
    half.bytes.get(start..).unwrap_or_default()
}

fn response(head: &ResponseHead<'_>, body: &Body) -> Value {
    let field = |name: &str| head.field(name).map(|field| lossy(field.value)).unwrap_or_default();
    let mut content = content(&body.bytes);
    content["size"] = body.bytes.len().into();
    content["mimeType"] = field("content-type").into();
    json!({
        "status": head.status,
        "statusText": lossy(head.reason()),
        "httpVersion": head.version.as_str(),
        "cookies": [],
        "headers": headers(head.fields()),
        "content": content,
        "redirectURL": field("location"),
        "headersSize": head.len,
        "bodySize": body.bytes.len(),
    })
}

/// What stands for a response that there is none of.
fn no_response() -> Value {
    json!({
        "status": 0, "statusText": "", "httpVersion": "", "cookies": [], "headers": [],
        "content": { "size": 0, "mimeType": "" }, "redirectURL": "", "headersSize": -1, "bodySize": -1,
    })
}

fn headers<'h>(fields: impl Iterator<Item = Field<'h>>) -> Vec<Value> {
    fields
        .map(|field| json!({ "name": field.name, "value": lossy(field.value) }))
        .collect()
}

/// Text as it is, other bytes in base64.
fn content(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "text": BASE64_STANDARD.encode(bytes), "encoding": "base64" }),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Nanoseconds as milliseconds, to the microsecond.
fn round(nanos: u64) -> f64 {
    let micros = u32::try_from(nanos / 1000).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(to_remote: &[&str], to_client: &[&str]) -> Stream {
        let mut stream = Stream {
            about: "upstream=www.example:443 host=www.example".to_owned(),
            is_http: true,
            ..Stream::default()
        };
        for (n, text) in to_remote.iter().enumerate() {
            stream.to_remote.add(1_000_000 * n as u64, text.as_bytes());
        }
        for (n, text) in to_client.iter().enumerate() {
            stream.to_client.add(1_000_000 * (n as u64 + 5), text.as_bytes());
        }
        stream
    }

    #[test]
    fn pipelined_requests_find_their_responses() {
        let stream = stream(
            &[
                "GET /a?x=1&y HTTP/1.1\r\nHost: www.example\r\n\r\nPOST /b HTTP/1.1\r\nHost: www.example\r\nContent-Le",
                "ngth: 4\r\n\r\nbo",
                "dyHEAD /c HTTP/1.1\r\nHost: www.example\r\n\r\n",
            ],
            &[
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            ],
        );
        let entries = stream.entries();
        let rows: Vec<_> = entries
            .iter()
            .map(|entry| {
                let (request, response) = (&entry["request"], &entry["response"]);
                (
                    request["url"].as_str().unwrap(),
                    response["status"].as_u64().unwrap(),
                    response["content"]["text"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                ("https://www.example/a?x=1&y", 200, "abc"),
                ("https://www.example/b", 404, "no"),
                ("https://www.example/c", 200, ""),
            ]
        );
        assert_eq!(entries[1]["request"]["postData"]["text"], "body");
        assert_eq!(
            entries[0]["request"]["queryString"][1],
            json!({ "name": "y", "value": "" })
        );
        assert_eq!(entries[1]["timings"]["send"], 2.0);
        assert!(!entries[2]["comment"].as_str().unwrap().contains("not all"));
    }

    #[test]
    fn what_was_not_recorded_is_said() {
        let cut = stream(
            &["GET / HTTP/1.1\r\nHost: h\r\n\r\n"],
            &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"],
        );
        let entries = cut.entries();
        assert_eq!(entries[0]["response"]["content"]["text"], "abc");
        assert!(entries[0]["comment"].as_str().unwrap().contains("not all"));
        let alone = stream(&["GET / HTTP/1.1\r\nHost: h\r\n\r\n"], &[]);
        assert_eq!(alone.entries()[0]["response"]["status"], 0);
        assert!(stream(&["\x16\x03\x01"], &[]).entries().is_empty());
    }
}
