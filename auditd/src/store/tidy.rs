//! Closed files: compressed, and deleted when there are too many.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use flate2::{Compression, write::GzEncoder};

use super::{Kind, files, files::Listed};
use crate::config::{Compress, KeepConfig};

/// What is to be done with closed files.
#[derive(Clone, Debug)]
pub(crate) struct Tidy {
    pub(super) dir: PathBuf,
    /// Captures and event logs below these numbers are closed, whatever has happened since.
    pub(super) closed_before: [u64; 2],
    pub(super) compress: Compress,
    pub(super) keep: KeepConfig,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tidied {
    pub(crate) compressed: u64,
    pub(crate) deleted: u64,
    /// Bytes of all files that are left.
    pub(crate) bytes: u64,
    pub(crate) files: u64,
    /// When the next closed file will be too old.
    pub(crate) next: Option<Duration>,
}

impl Tidy {
    /// Does it. Blocks.
    ///
    /// # Errors
    /// Those of the system; what was begun is taken back.
    pub(crate) fn run(&self, now: SystemTime) -> io::Result<Tidied> {
        let mut tidied = Tidied::default();
        // Room is made before more of it is used.
        self.delete(now, &mut tidied)?;
        if self.compress == Compress::Gzip {
            for file in files::list(&self.dir)? {
                if !file.compressed && self.is_closed(&file) {
                    gzip(&file.path)?;
                    tidied.compressed += 1;
                }
            }
        }
        let left = files::list(&self.dir)?;
        tidied.bytes = left.iter().map(|file| file.length).sum();
        tidied.files = u64::try_from(left.len()).unwrap_or_default();
        tidied.next = left
            .iter()
            .filter(|file| self.is_closed(file))
            .map(|file| self.keep.age.0.saturating_sub(file.age(now)))
            .min();
        Ok(tidied)
    }

    fn is_closed(&self, file: &Listed) -> bool {
        let [captures, events] = self.closed_before;
        match file.kind {
            Kind::Capture => file.number < captures,
            Kind::Events => file.number < events,
        }
    }

    /// Deletes the oldest files until the limits hold.
    fn delete(&self, now: SystemTime, tidied: &mut Tidied) -> io::Result<()> {
        let files = files::list(&self.dir)?;
        let mut left: u64 = files.iter().map(|file| file.length).sum();
        let mut closed: Vec<&Listed> = files.iter().filter(|file| self.is_closed(file)).collect();
        closed.sort_by_key(|file| (file.began, file.number));
        let count = |kind| files.iter().filter(|file| file.kind == kind).count();
        let (mut captures, mut events) = (count(Kind::Capture), count(Kind::Events));
        for file in closed {
            let of_kind = match file.kind {
                Kind::Capture => &mut captures,
                Kind::Events => &mut events,
            };
            let too_many = self.keep.files.is_some_and(|limit| *of_kind > limit.max(1));
            if left > self.keep.size.0 || file.age(now) > self.keep.age.0 || too_many {
                fs::remove_file(&file.path)?;
                left -= file.length;
                *of_kind -= 1;
                tidied.deleted += 1;
            }
        }
        Ok(())
    }
}

/// Replaces a file by its compressed form: whole, or not at all.
fn gzip(path: &Path) -> io::Result<()> {
    let named = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let (part, done) = (named(".gz.part"), named(".gz"));
    let outcome = write_gzip(path, &part).and_then(|()| fs::rename(&part, &done));
    match outcome {
        Ok(()) => fs::remove_file(path),
        Err(e) => {
            let _ = fs::remove_file(&part); // the next start does it otherwise
            Err(e)
        }
    }
}

fn write_gzip(path: &Path, part: &Path) -> io::Result<()> {
    let mut input = File::open(path)?;
    let _ = fs::remove_file(part);
    let output = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part)?;
    let mut encoder = GzEncoder::new(output, Compression::fast());
    io::copy(&mut input, &mut encoder)?;
    let output = encoder.finish()?;
    // Its age is that of what it holds.
    output.set_modified(input.metadata()?.modified()?)?;
    output.sync_all()
}
