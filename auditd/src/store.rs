//! The files: a series of captures, a series of event logs, and a journal of what of them counts.
//!
//! What is to be written is gathered, then committed: appended to both open files, then told to the journal, and only then
//! it counts as written. A commit that fails is taken back, and tried again as a whole. After a crash the open files are
//! cut to what the journal says; senders that were not told so send the rest again, so nothing is there twice.

mod files;
mod journal;
mod recover;
mod tidy;

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use rustix::fs::{FlockOperation, flock};
use sluice_wire::audit::Id;

use files::FileName;
pub(crate) use files::{Kind, Listed, list, open_reader};
use journal::{Entry, Journal};
pub(crate) use tidy::{Tidied, Tidy};

use crate::{
    config::{AuditdConfig, Format},
    pcapng::{self, LinkType},
};

/// Why nothing is written.
#[derive(Debug, thiserror::Error)]
#[error("{doing} `{}` failed", path.display())]
pub(crate) struct StoreError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The folder with both series.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    config: AuditdConfig,
    journal: Journal,
    capture: Series,
    events: Series,
    /// The last batch of each stream that is written.
    streams: BTreeMap<Id, u64>,
    /// Those that the next commit changes.
    changed: BTreeMap<Id, u64>,
    last_sync: Instant,
    unsynced: bool,
    /// The folder is ours alone as long as this is open.
    _lock: File,
}

/// One of the two series.
#[derive(Debug)]
struct Series {
    kind: Kind,
    /// The number of the last file.
    number: u64,
    open: Option<Open>,
    /// What the next commit appends.
    gathered: Vec<u8>,
}

/// The open file of a series.
#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    /// What counts.
    length: u64,
    began: Instant,
}

impl Store {
    /// Opens the folder, makes it if it is not there, and puts right what a crash has left.
    pub(crate) fn open(dir: &Path, config: &AuditdConfig) -> Result<Self, StoreError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError { doing, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed("make the folder", dir))?;
        let lock_path = dir.join("lock");
        let lock = own_options().open(&lock_path).map_err(failed("open of", &lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| failed("lock of", &lock_path)(e.into()))?;
        let journal_path = dir.join("journal");
        let journal = Journal::read(&journal_path).map_err(failed("read of", &journal_path))?;
        recover::recover(dir, journal.last()).map_err(failed("recovery of", dir))?;
        let streams = journal.streams();
        let files = list(dir).map_err(failed("read of", dir))?;
        let last = |kind| {
            let numbers = files.iter().filter(|file| file.kind == kind).map(|file| file.number);
            numbers.max().unwrap_or_default().max(journal.number(kind))
        };
        let series = |kind| Series {
            kind,
            number: last(kind),
            open: None,
            gathered: Vec::new(),
        };
        Ok(Self {
            capture: series(Kind::Capture),
            events: series(Kind::Events),
            journal: journal.begin(&streams).map_err(failed("write of", &journal_path))?,
            dir: dir.to_owned(),
            config: config.clone(),
            streams,
            changed: BTreeMap::new(),
            last_sync: Instant::now(),
            unsynced: false,
            _lock: lock,
        })
    }

    /// Takes other settings. Nothing may be gathered, as another format begins another file.
    pub(crate) fn configure(&mut self, config: &AuditdConfig) {
        if config.format != self.config.format {
            self.capture.close();
        }
        self.config = config.clone();
    }

    /// The last batch of a stream that is written, or is about to be.
    pub(crate) fn last_of(&self, stream: &Id) -> Option<u64> {
        self.changed.get(stream).or_else(|| self.streams.get(stream)).copied()
    }

    /// The last batch of a stream that is written.
    pub(crate) fn written_of(&self, stream: &Id) -> Option<u64> {
        self.streams.get(stream).copied()
    }

    /// Says that a batch is part of what is gathered.
    pub(crate) fn follow(&mut self, stream: Id, seq: u64) {
        self.changed.insert(stream, seq);
    }

    /// Where to append blocks of the capture; begun if there is no file.
    pub(crate) fn capture(&mut self) -> &mut Vec<u8> {
        if self.capture.open.is_none() && self.capture.gathered.is_empty() {
            let link = match self.config.format {
                Format::Pdu => LinkType::UpperPdu,
                Format::Tcp => LinkType::Raw,
            };
            pcapng::put_head(&mut self.capture.gathered, link);
        }
        &mut self.capture.gathered
    }

    /// Where to append lines of the event log.
    pub(crate) fn events(&mut self) -> &mut Vec<u8> {
        &mut self.events.gathered
    }

    /// The number of the capture that the next commit goes to.
    pub(crate) fn capture_number(&self) -> u64 {
        self.capture.first_open()
    }

    /// Bytes that the next commit will write.
    pub(crate) fn gathered(&self) -> usize {
        self.capture.gathered.len() + self.events.gathered.len()
    }

    /// Writes what was gathered: all of it, or nothing. Tells how many bytes it was.
    pub(crate) fn commit(&mut self) -> Result<u64, StoreError> {
        if self.gathered() == 0 && self.changed.is_empty() {
            return Ok(0);
        }
        let bytes = u64::try_from(self.gathered()).unwrap_or(u64::MAX);
        let done = self.try_commit();
        if done.is_err() {
            self.take_back();
            done?;
        }
        self.capture.settle();
        self.events.settle();
        self.streams.append(&mut self.changed);
        self.unsynced = true;
        self.sync_if_due()?;
        Ok(bytes)
    }

    fn try_commit(&mut self) -> Result<(), StoreError> {
        self.capture.append(&self.dir)?;
        self.events.append(&self.dir)?;
        if self.config.fsync.0 == Duration::ZERO {
            self.capture.sync()?;
            self.events.sync()?;
        }
        let lengths = (self.capture.end(), self.events.end());
        let journal = &mut self.journal;
        let written = if self.changed.is_empty() {
            journal.append(&[Entry::new(None, 0, lengths)])
        } else {
            let entries: Vec<Entry> = self
                .changed
                .iter()
                .map(|(stream, seq)| Entry::new(Some(*stream), *seq, lengths))
                .collect();
            journal.append(&entries)
        };
        written.map_err(|source| StoreError {
            doing: "write of",
            path: self.dir.join("journal"),
            source,
        })
    }

    /// Makes the files as they were before a commit that failed.
    fn take_back(&mut self) {
        self.journal.take_back();
        for series in [&mut self.capture, &mut self.events] {
            if let Some(open) = &series.open {
                // Where this fails too, what is beyond is cut off at the next start.
                let _ = open.file.set_len(open.length);
            }
        }
    }

    /// Makes what is written reach the disk, if the time has come.
    pub(crate) fn sync_if_due(&mut self) -> Result<(), StoreError> {
        if self.unsynced && self.last_sync.elapsed() >= self.config.fsync.0 {
            self.capture.sync()?;
            self.events.sync()?;
            self.journal.sync().map_err(|source| StoreError {
                doing: "fsync of",
                path: self.dir.join("journal"),
                source,
            })?;
            self.unsynced = false;
            self.last_sync = Instant::now();
        }
        Ok(())
    }

    /// Closes files that are long or old enough; what is gathered goes to the next ones. Tells how many were closed.
    pub(crate) fn rotate_if_due(&mut self) -> u64 {
        let limits = self.config.rotate;
        let is_due = |series: &Series| {
            series.gathered.is_empty()
                && series
                    .open
                    .as_ref()
                    .is_some_and(|open| open.length >= limits.size.0 || open.began.elapsed() >= limits.age.0)
        };
        let mut closed = 0;
        for series in [&mut self.capture, &mut self.events] {
            if is_due(series) {
                series.close();
                closed += 1;
            }
        }
        closed
    }

    /// How long it takes until something is due, if nothing is written meanwhile.
    pub(crate) fn due(&self) -> Option<Duration> {
        let fsync = self.unsynced.then_some((self.config.fsync.0, self.last_sync));
        let open = [&self.capture, &self.events]
            .into_iter()
            .filter_map(|series| series.open.as_ref());
        let rotate = open.map(|open| (self.config.rotate.age.0, open.began));
        let left = |(after, since): (Duration, Instant)| after.saturating_sub(since.elapsed());
        fsync.into_iter().chain(rotate).map(left).min()
    }

    /// The numbers of the last files: others than before when files were begun.
    pub(crate) fn last_files(&self) -> (u64, u64) {
        (self.capture.number, self.events.number)
    }

    /// Closes all files now, unless something waits to be written to them. Tells how many were closed.
    pub(crate) fn rotate(&mut self) -> u64 {
        let mut closed = 0;
        for series in [&mut self.capture, &mut self.events] {
            if series.gathered.is_empty() && series.open.is_some() {
                series.close();
                closed += 1;
            }
        }
        closed
    }

    /// What is to be done with closed files, by another thread.
    pub(crate) fn tidy(&self) -> Tidy {
        Tidy {
            dir: self.dir.clone(),
            closed_before: [self.capture.first_open(), self.events.first_open()],
            compress: self.config.compress,
            keep: self.config.keep,
        }
    }
}

impl Series {
    /// Writes what is gathered behind what counts.
    fn append(&mut self, dir: &Path) -> Result<(), StoreError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let path = dir.join(FileName::new(self.kind, self.number + 1, SystemTime::now()).to_string());
                let opened = own_options().create_new(true).open(&path);
                let file = opened.map_err(|source| StoreError {
                    doing: "make",
                    path: path.clone(),
                    source,
                })?;
                self.number += 1;
                none.insert(Open {
                    file,
                    path,
                    length: 0,
                    began: Instant::now(),
                })
            }
        };
        // Appending: the end is what counts, since a commit that failed was cut off.
        let written = open.file.write_all(&self.gathered);
        written.map_err(|source| StoreError {
            doing: "write of",
            path: open.path.clone(),
            source,
        })
    }

    /// The number of the file and its length with what is gathered; of a closed one all counts.
    fn end(&self) -> (u64, u64) {
        let more = u64::try_from(self.gathered.len()).unwrap_or_default();
        let open = self.open.as_ref();
        (self.number, open.map_or(u64::MAX, |open| open.length + more))
    }

    /// What was gathered counts.
    fn settle(&mut self) {
        let (_, length) = self.end();
        if let Some(open) = &mut self.open {
            open.length = length;
        }
        self.gathered.clear();
        self.gathered.shrink_to(4 << 20);
    }

    /// Files below this number are closed, and stay so.
    fn first_open(&self) -> u64 {
        self.number + u64::from(self.open.is_none())
    }

    fn close(&mut self) {
        let _ = self.sync(); // it was written; an error of the disk shows at the next file
        self.open = None;
    }

    fn sync(&self) -> Result<(), StoreError> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        open.file.sync_data().map_err(|source| StoreError {
            doing: "fsync of",
            path: open.path.clone(),
            source,
        })
    }
}

/// Files that nobody else may read.
fn own_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).read(true).create(true).mode(0o600);
    options
}

/// Makes `path` readable to nobody else, whoever made it.
fn make_own(file: &File) -> io::Result<()> {
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests;
