//! Messages, both ways.

use super::pack::{Item, Malformed, take_map, take_raw};
use super::{Id, MAX_MESSAGE, MAX_RECORD, Record, VERSION};
use crate::msgpack::{put_array32, put_bin, put_map, put_str, put_uint};

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// All batches of a stream up to a number are written; from auditd.
    Ack {
        /// The sender.
        stream: Id,
        /// The last batch that is written.
        seq: u64,
    },
    /// Records; from a sender.
    Batch(Batch<'a>),
    /// A sender presents itself, or asks again what is written.
    Hello(Hello),
    /// A message was not taken; from auditd.
    Refusal(Refusal),
    /// Answer to a hello; from auditd.
    Welcome(Welcome),
}

/// Records in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// The sender.
    pub stream: Id,
    /// The number of the batch.
    pub seq: u64,
    count: u32,
    records: &'a [u8],
}

/// A sender presents itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Names its life; another one after each start.
    pub stream: Id,
    /// The first batch that it will send to whoever does not know the stream.
    pub base: u64,
    /// Who it is, for logs.
    pub sender: String,
}

/// Answer to a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The sender.
    pub stream: Id,
    /// Names the life of auditd; another one after each start.
    pub instance: Id,
    /// The last batch that is written.
    pub written: u64,
}

/// A message was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: RefusalCode,
    /// Why, in words.
    pub text: String,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// It is no message, or too long.
    Malformed,
    /// A batch of a stream that has not said hello to this instance.
    NoHello,
    /// A batch that does not follow the last one.
    OutOfOrder,
    /// A code or a message that this side does not know.
    Unknown,
}

impl RefusalCode {
    fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoHello => "no-hello",
            Self::OutOfOrder => "out-of-order",
            Self::Unknown => "unknown",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "malformed" => Self::Malformed,
            "no-hello" => Self::NoHello,
            "out-of-order" => Self::OutOfOrder,
            _ => Self::Unknown,
        }
    }
}

/// Appends a batch of `count` records, which stand in `records` one after the other.
pub fn put_batch(out: &mut Vec<u8>, stream: &Id, seq: u64, count: u32, records: &[u8]) {
    head(out, 5, "batch");
    put_str(out, "stream");
    put_bin(out, stream);
    put_str(out, "seq");
    put_uint(out, seq);
    put_str(out, "records");
    put_array32(out, count);
    out.extend_from_slice(records);
}

fn head(out: &mut Vec<u8>, pairs: usize, name: &str) {
    put_map(out, pairs);
    put_str(out, "v");
    put_uint(out, VERSION);
    put_str(out, "type");
    put_str(out, name);
}

impl Message<'_> {
    /// The message as bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let id = |out: &mut Vec<u8>, key: &str, id: &Id| {
            put_str(out, key);
            put_bin(out, id);
        };
        let number = |out: &mut Vec<u8>, key: &str, number| {
            put_str(out, key);
            put_uint(out, number);
        };
        let text = |out: &mut Vec<u8>, key: &str, text: &str| {
            put_str(out, key);
            put_str(out, text);
        };
        match self {
            Self::Ack { stream, seq } => {
                head(&mut out, 4, "ack");
                id(&mut out, "stream", stream);
                number(&mut out, "seq", *seq);
            }
            Self::Batch(batch) => put_batch(&mut out, &batch.stream, batch.seq, batch.count, batch.records),
            Self::Hello(hello) => {
                head(&mut out, 5, "hello");
                id(&mut out, "stream", &hello.stream);
                number(&mut out, "base", hello.base);
                text(&mut out, "sender", &hello.sender);
            }
            Self::Refusal(refusal) => {
                head(&mut out, 4, "refusal");
                text(&mut out, "code", refusal.code.name());
                text(&mut out, "text", &refusal.text);
            }
            Self::Welcome(welcome) => {
                head(&mut out, 5, "welcome");
                id(&mut out, "stream", &welcome.stream);
                id(&mut out, "instance", &welcome.instance);
                number(&mut out, "written", welcome.written);
            }
        }
        out
    }
}

impl<'a> Message<'a> {
    /// Reads one message, the whole of `data`; the records of a batch are read by [`Batch::records`]. `None` is a message
    /// of a type that this version does not know, which deserves a [`Refusal`].
    ///
    /// # Errors
    /// [`Malformed`] if it is none.
    pub fn take(data: &'a [u8]) -> Result<Option<Self>, Malformed> {
        if data.len() > MAX_MESSAGE {
            return Err(Malformed::TooLong {
                length: data.len(),
                limit: MAX_MESSAGE,
            });
        }
        let mut rest = data;
        let mut kind = None;
        let (mut stream, mut instance) = (None, None);
        let (mut seq, mut base, mut written) = (None, None, None);
        let (mut sender, mut code, mut text) = ("", "", "");
        let mut records = None;
        take_map(&mut rest, |key, value, rest| {
            match key {
                "type" => kind = Some(value.str("type")?),
                "stream" => stream = Some(value.id("stream")?),
                "instance" => instance = Some(value.id("instance")?),
                "seq" => seq = Some(value.uint("seq")?),
                "base" => base = Some(value.uint("base")?),
                "written" => written = Some(value.uint("written")?),
                "sender" => sender = value.str("sender")?,
                "code" => code = value.str("code")?,
                "text" => text = value.str("text")?,
                "records" => {
                    let Item::Array(count) = value else {
                        return Err(Malformed::BadValue { key: "records" });
                    };
                    let before = *rest;
                    value.skip_rest(rest)?;
                    let length = before.len() - rest.len();
                    records = Some((count, before.get(..length).unwrap_or_default()));
                }
                _ => value.skip_rest(rest)?,
            }
            Ok(())
        })?;
        if !rest.is_empty() {
            return Err(Malformed::NotMsgpack);
        }
        let stream = needed(stream, "stream");
        Ok(Some(match needed(kind, "type")? {
            "ack" => Self::Ack {
                stream: stream?,
                seq: needed(seq, "seq")?,
            },
            "batch" => {
                let (count, records) = needed(records, "records")?;
                Self::Batch(Batch {
                    stream: stream?,
                    seq: needed(seq, "seq")?,
                    count,
                    records,
                })
            }
            "hello" => Self::Hello(Hello {
                stream: stream?,
                base: needed(base, "base")?,
                sender: sender.to_owned(),
            }),
            "refusal" => Self::Refusal(Refusal {
                code: RefusalCode::of(code),
                text: text.to_owned(),
            }),
            "welcome" => Self::Welcome(Welcome {
                stream: stream?,
                instance: needed(instance, "instance")?,
                written: needed(written, "written")?,
            }),
            _ => return Ok(None),
        }))
    }
}

fn needed<T>(value: Option<T>, key: &'static str) -> Result<T, Malformed> {
    value.ok_or(Malformed::Missing { key })
}

impl<'a> Batch<'a> {
    /// Its records, each read when it is asked for; what is no record is an error in its place.
    pub fn records(&self) -> Records<'a> {
        Records {
            left: self.count,
            rest: self.records,
        }
    }

    /// How many records it has.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The records of a batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    left: u32,
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let raw = take_raw(&mut self.rest);
        if raw.is_err() {
            self.left = 0;
        }
        Some(raw.and_then(Record::take))
    }
}

const _: () = assert!(MAX_RECORD < MAX_MESSAGE, "a record fits into a message");
