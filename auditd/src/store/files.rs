//! Names of files, and reading them.

use std::{
    fmt,
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flate2::read::MultiGzDecoder;
use time::{OffsetDateTime, macros::format_description};

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Capture,
    Events,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Events => "events",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Capture => "pcapng",
            Self::Events => "jsonl",
        }
    }
}

/// The name of a file: `capture-000007-20261125T171500Z.pcapng`, with `.gz` behind it if it is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileName {
    pub(crate) kind: Kind,
    pub(crate) number: u64,
    /// Seconds since 1970 when it was begun.
    pub(crate) began: i64,
    pub(crate) compressed: bool,
}

impl FileName {
    pub(crate) fn new(kind: Kind, number: u64, began: SystemTime) -> Self {
        let began = began.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            kind,
            number,
            began: i64::try_from(began.as_secs()).unwrap_or_default(),
            compressed: false,
        }
    }
}

const TIME: &[time::format_description::BorrowedFormatItem<'static>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let began = OffsetDateTime::from_unix_timestamp(self.began).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let began = began.format(TIME).map_err(|_| fmt::Error)?;
        let (kind, extension) = (self.kind.name(), self.kind.extension());
        write!(f, "{kind}-{:06}-{began}.{extension}", self.number)?;
        f.write_str(if self.compressed { ".gz" } else { "" })
    }
}

impl FromStr for FileName {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let (name, compressed) = match name.strip_suffix(".gz") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let kinds = [Kind::Capture, Kind::Events];
        let (kind, rest) = kinds
            .into_iter()
            .find_map(|kind| Some((kind, name.strip_prefix(kind.name())?.strip_prefix('-')?)))
            .ok_or(())?;
        let rest = rest
            .strip_suffix(kind.extension())
            .and_then(|rest| rest.strip_suffix('.'));
        let (number, began) = rest.and_then(|rest| rest.split_once('-')).ok_or(())?;
        let began = time::PrimitiveDateTime::parse(began, TIME).map_err(|_| ())?;
        Ok(Self {
            kind,
            number: number.parse().map_err(|_| ())?,
            began: began.assume_utc().unix_timestamp(),
            compressed,
        })
    }
}

/// A file of a folder.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) number: u64,
    pub(crate) began: i64,
    pub(crate) compressed: bool,
    pub(crate) length: u64,
    pub(crate) modified: SystemTime,
}

impl Listed {
    /// How long ago it was written to.
    pub(crate) fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.modified).unwrap_or_default()
    }
}

/// The files of a folder, oldest first within a kind. Those that go away meanwhile, and others' files, are left out.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<Listed>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Some(name) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<FileName>().ok())
        else {
            continue;
        };
        let Ok(meta) = entry.metadata() else { continue };
        files.push(Listed {
            path: entry.path(),
            kind: name.kind,
            number: name.number,
            began: name.began,
            compressed: name.compressed,
            length: meta.len(),
            modified: meta.modified().unwrap_or(UNIX_EPOCH + Duration::from_secs(1)),
        });
    }
    files.sort_by_key(|file| (file.kind, file.number, file.compressed));
    Ok(files)
}

/// Opens a file to be read, compressed or not. One that was compressed since it was listed is found, too.
pub(crate) fn open_reader(file: &Listed) -> io::Result<Box<dyn Read + Send>> {
    let plain = match File::open(&file.path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && !file.compressed => {
            let mut path = file.path.clone().into_os_string();
            path.push(".gz");
            return Ok(Box::new(MultiGzDecoder::new(BufReader::new(File::open(path)?))));
        }
        opened => BufReader::with_capacity(1 << 16, opened?),
    };
    Ok(if file.compressed {
        Box::new(MultiGzDecoder::new(plain))
    } else {
        Box::new(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_out_as_they_went_in() {
        let at = UNIX_EPOCH + Duration::from_secs(1_795_626_900);
        let name = FileName::new(Kind::Capture, 7, at);
        assert_eq!(name.to_string(), "capture-000007-20261125T171500Z.pcapng");
        let compressed = FileName {
            compressed: true,
            ..FileName::new(Kind::Events, 1_234_567, at)
        };
        assert_eq!(compressed.to_string(), "events-1234567-20261125T171500Z.jsonl.gz");
        for name in [name, compressed] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for other in [
            "journal",
            "capture-1.pcapng",
            "capture-x-20261125T171500Z.pcapng",
            "events-1-2.jsonl",
            "lock",
        ] {
            assert_eq!(other.parse::<FileName>(), Err(()), "{other}");
        }
    }
}
