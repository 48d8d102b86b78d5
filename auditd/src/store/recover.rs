//! After a crash: files are cut to what counts, so that each is whole.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufReader, Read},
    path::Path,
};

use super::{Kind, files, files::Listed, journal::Entry};
use crate::pcapng;

/// Cuts the files that were open, and removes what was half compressed.
///
/// If the machine has not been started anew since the last commit, the journal says what counts. Otherwise the disk may
/// have more or less than it says: what is whole is kept then, as no sender is left that would send it again.
pub(super) fn recover(dir: &Path, last: Option<&Entry>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "part") {
            fs::remove_file(&path)?;
        }
    }
    let files = files::list(dir)?;
    for file in files.iter().filter(|file| !file.compressed) {
        let is_twin = |other: &&Listed| other.compressed && (other.kind, other.number) == (file.kind, file.number);
        if files.iter().any(|other| is_twin(&other)) {
            fs::remove_file(&file.path)?; // all of it is in the compressed one
            continue;
        }
        let counts = last
            .filter(|entry| entry.is_of_this_boot())
            .map(|entry| entry.end(file.kind))
            .and_then(|(number, length)| match number.cmp(&file.number) {
                std::cmp::Ordering::Less => Some(0), // begun by a commit that never was
                std::cmp::Ordering::Equal => Some(length),
                std::cmp::Ordering::Greater => None, // closed in peace
            });
        let whole = match counts {
            Some(length) if length <= file.length => length,
            Some(_) | None => whole(&file.path, file.kind)?,
        };
        if whole == 0 {
            fs::remove_file(&file.path)?;
        } else if whole < file.length {
            OpenOptions::new().write(true).open(&file.path)?.set_len(whole)?;
        }
    }
    Ok(())
}

/// How much of a file is whole: blocks, or lines.
fn whole(path: &Path, kind: Kind) -> io::Result<u64> {
    let mut input = BufReader::new(fs::File::open(path)?);
    let mut buf = Vec::new();
    let mut whole = 0;
    loop {
        let read = (&mut input).take(1 << 20).read_to_end(&mut buf)?;
        let used = match kind {
            Kind::Capture => blocks(&buf),
            Kind::Events => buf.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
        };
        whole += u64::try_from(used).unwrap_or_default();
        if read == 0 || (used == 0 && buf.len() > 4 << 20) {
            return Ok(whole);
        }
        buf.drain(..used);
    }
}

fn blocks(buf: &[u8]) -> usize {
    let mut used = 0;
    while let Ok(Some((_, length))) = pcapng::take_block(&buf[used..]) {
        used += length;
    }
    used
}
