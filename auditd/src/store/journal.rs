//! What of the open files counts, and how far each sender is: one entry of fixed length after each commit.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use flate2::Crc;
use sluice_wire::audit::Id;

use super::{Kind, make_own};

/// The length of an entry.
const LENGTH: usize = 80;

const MAGIC: &[u8; 4] = b"SAJ1";

/// The stream of commits that are about none.
const NO_STREAM: Id = [0; 16];

/// A journal is written anew once it has so many entries.
const MAX_ENTRIES: u64 = 65_536;

/// Senders that are remembered, at most: the last ones.
const MAX_STREAMS: usize = 256;

/// One commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    stream: Id,
    seq: u64,
    /// Names the boot of the machine.
    boot: Id,
    capture: (u64, u64),
    events: (u64, u64),
}

impl Entry {
    /// A commit up to `seq` of `stream`; of both series the number of the open file and its length.
    pub(super) fn new(stream: Option<Id>, seq: u64, (capture, events): ((u64, u64), (u64, u64))) -> Self {
        Self {
            stream: stream.unwrap_or(NO_STREAM),
            seq,
            boot: boot(),
            capture,
            events,
        }
    }

    /// The number and the length of the open file.
    pub(super) fn end(&self, kind: Kind) -> (u64, u64) {
        match kind {
            Kind::Capture => self.capture,
            Kind::Events => self.events,
        }
    }

    /// Whether the machine has not been started anew since.
    pub(super) fn is_of_this_boot(&self) -> bool {
        self.boot == boot()
    }

    fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.stream);
        out.extend_from_slice(&self.boot);
        let numbers = [self.seq, self.capture.0, self.capture.1, self.events.0, self.events.1];
        for number in numbers {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let sum = sum_of(&out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&sum);
    }

    fn take(bytes: &[u8; LENGTH]) -> Option<Self> {
        let (head, body) = bytes.split_at(8);
        if &head[..4] != MAGIC || head[4..] != sum_of(body) {
            return None;
        }
        let id = |at: usize| body.get(at..)?.first_chunk().copied();
        let number = |at: usize| Some(u64::from_le_bytes(*body.get(32 + at * 8..)?.first_chunk()?));
        Some(Self {
            stream: id(0)?,
            boot: id(16)?,
            seq: number(0)?,
            capture: (number(1)?, number(2)?),
            events: (number(3)?, number(4)?),
        })
    }
}

fn sum_of(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

/// Names the boot of the machine; all zeros if it does not say.
fn boot() -> Id {
    static BOOT: std::sync::OnceLock<Id> = std::sync::OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let mut id = NO_STREAM;
        for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
        }
        id
    })
}

/// The journal of a life before this one.
pub(super) struct Past {
    path: PathBuf,
    entries: Vec<Entry>,
}

/// The journal.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Entries that count.
    entries: u64,
    streams: BTreeMap<Id, Entry>,
    last: Option<Entry>,
}

impl Journal {
    /// Reads what there is, up to the first entry that is torn.
    pub(super) fn read(path: &Path) -> io::Result<Past> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        let (whole, _) = bytes.as_chunks::<LENGTH>();
        Ok(Past {
            path: path.to_owned(),
            entries: whole.iter().map_while(Entry::take).collect(),
        })
    }

    /// Appends entries, all or none.
    pub(super) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        if self.entries >= MAX_ENTRIES {
            self.shorten()?;
        }
        let mut bytes = Vec::with_capacity(entries.len() * LENGTH);
        for entry in entries {
            entry.put(&mut bytes);
        }
        self.file.write_all(&bytes)?;
        self.entries += u64::try_from(entries.len()).unwrap_or_default();
        for entry in entries {
            self.remember(*entry);
        }
        Ok(())
    }

    /// Cuts off what a failed attempt has left.
    pub(super) fn take_back(&mut self) {
        let length = self.entries * u64::try_from(LENGTH).unwrap_or_default();
        let _ = self.file.set_len(length); // what is torn ends the reading anyway
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn remember(&mut self, entry: Entry) {
        if entry.stream != NO_STREAM {
            self.streams.insert(entry.stream, entry);
        }
        self.last = Some(entry);
    }

    /// Writes the journal anew, with the last entry of each stream.
    fn shorten(&mut self) -> io::Result<()> {
        let mut kept: Vec<Entry> = self.streams.values().copied().collect();
        kept.extend(self.last);
        self.file = write_anew(&self.path, &kept)?;
        self.entries = u64::try_from(kept.len()).unwrap_or_default();
        Ok(())
    }
}

impl Past {
    /// The last commit.
    pub(super) fn last(&self) -> Option<&Entry> {
        self.entries.last()
    }

    /// The number of the last file of a kind that it speaks of.
    pub(super) fn number(&self, kind: Kind) -> u64 {
        self.entries
            .iter()
            .map(|entry| entry.end(kind).0)
            .max()
            .unwrap_or_default()
    }

    /// The last batch of each of the last streams.
    pub(super) fn streams(&self) -> BTreeMap<Id, u64> {
        let mut streams = BTreeMap::new();
        for entry in self.entries.iter().rev().filter(|entry| entry.stream != NO_STREAM) {
            if streams.len() >= MAX_STREAMS {
                break;
            }
            streams.entry(entry.stream).or_insert(entry.seq);
        }
        streams
    }

    /// Goes on with a journal that has these streams only. The files of the past are closed, so their lengths count no more.
    pub(super) fn begin(&self, streams: &BTreeMap<Id, u64>) -> io::Result<Journal> {
        let ends = (
            (self.number(Kind::Capture), u64::MAX),
            (self.number(Kind::Events), u64::MAX),
        );
        let mut entries: Vec<Entry> = streams
            .iter()
            .map(|(stream, seq)| Entry::new(Some(*stream), *seq, ends))
            .collect();
        entries.push(Entry::new(None, 0, ends));
        let file = write_anew(&self.path, &entries)?;
        let mut journal = Journal {
            path: self.path.clone(),
            file,
            entries: u64::try_from(entries.len()).unwrap_or_default(),
            streams: BTreeMap::new(),
            last: None,
        };
        for entry in entries {
            journal.remember(entry);
        }
        Ok(journal)
    }
}

/// Replaces the journal as a whole; its file, ready to append.
fn write_anew(path: &Path, entries: &[Entry]) -> io::Result<File> {
    let new = path.with_extension("new");
    let mut bytes = Vec::new();
    for entry in entries {
        entry.put(&mut bytes);
    }
    let _ = fs::remove_file(&new); // a crash may have left it
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    make_own(&file)?;
    file.write_all(&bytes)?;
    file.sync_data()?;
    fs::rename(&new, path)?;
    Ok(file)
}
