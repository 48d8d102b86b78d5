//! All packets of one task.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    pcapng::{self, Block, LinkType, NotOurs, Packet, put_head, put_packet},
    search::is_damage,
    store::{Kind, Listed, list, open_reader},
};

/// Bytes after which a piece ends.
const PIECE: usize = 4 << 20;

/// Why nothing is exported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error("`{task}` is not the id of a task, which is 32 hex digits")]
    BadTask { task: String },
    #[error("the captures cannot be read")]
    Io(#[from] io::Error),
    #[error("`{}` is damaged: move it away to have the rest", file.display())]
    Damaged { file: PathBuf, source: io::Error },
    #[error("no capture holds anything of task `{task}`")]
    Nothing { task: String },
    #[error("the task has more than {limit} bytes: export it as pcapng")]
    TooLong { limit: usize },
}

/// Where a piece has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cursor {
    /// Number of the capture.
    file: u64,
    /// Bytes of it, before compression, that are done.
    offset: u64,
    /// Whether packets are made-up TCP/IP packets.
    frames: bool,
}

/// A part of an exported file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) data: Vec<u8>,
    pub(crate) packets: u64,
    pub(crate) left_out: u64,
    pub(crate) next: Option<Cursor>,
}

/// The next part of the file with all packets of a task.
pub(crate) fn piece(dir: &Path, task: &str, after: Option<Cursor>) -> Result<Piece, ExportError> {
    let mut piece = Piece {
        data: Vec::new(),
        packets: 0,
        left_out: 0,
        next: None,
    };
    let mut link = after.map(|after| {
        if after.frames {
            LinkType::Raw
        } else {
            LinkType::UpperPdu
        }
    });
    walk(dir, task, after, |place, of, packet| {
        let chosen = *link.get_or_insert_with(|| {
            put_head(&mut piece.data, of);
            of
        });
        if chosen != of {
            piece.left_out += 1;
            return Ok(true);
        }
        put_packet(&mut piece.data, packet);
        piece.packets += 1;
        if piece.data.len() < PIECE {
            return Ok(true);
        }
        piece.next = Some(Cursor {
            file: place.0,
            offset: place.1,
            frames: of == LinkType::Raw,
        });
        Ok(false)
    })?;
    if after.is_none() && piece.packets == 0 {
        return Err(ExportError::Nothing { task: task.to_owned() });
    }
    Ok(piece)
}

/// The id of a task as it stands in files, if it is one.
pub(crate) fn id_of(task: &str) -> Option<String> {
    let is_id = task.len() == 32 && task.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| task.to_ascii_lowercase())
}

/// Gives the packets of a task to `each`, in order, with the place behind each: number of the capture and bytes of it.
/// `each` says whether to go on.
pub(crate) fn walk(
    dir: &Path,
    task: &str,
    after: Option<Cursor>,
    mut each: impl FnMut((u64, u64), LinkType, &Packet<'_>) -> Result<bool, ExportError>,
) -> Result<(), ExportError> {
    let id = id_of(task).ok_or_else(|| ExportError::BadTask { task: task.to_owned() })?;
    let mark = format!("task_id={id} ");
    let files = match list(dir) {
        Ok(files) => files,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()), // nothing was ever written
        Err(e) => return Err(e.into()),
    };
    let mut done = None;
    for file in files.iter().filter(|file| file.kind == Kind::Capture) {
        // One that was just compressed may be there twice.
        if after.is_some_and(|after| file.number < after.file) || done == Some(file.number) {
            continue;
        }
        done = Some(file.number);
        let skip = after
            .filter(|after| after.file == file.number)
            .map_or(0, |after| after.offset);
        let goes_on = walk_file(file, &mark, skip, &mut each);
        match goes_on {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(ExportError::Io(e)) if e.kind() == io::ErrorKind::NotFound => {} // deleted meanwhile
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn walk_file(
    file: &Listed,
    mark: &str,
    skip: u64,
    each: &mut impl FnMut((u64, u64), LinkType, &Packet<'_>) -> Result<bool, ExportError>,
) -> Result<bool, ExportError> {
    let mut input = open_reader(file)?;
    let mut buf = Vec::new();
    let mut offset = 0;
    let mut link = None;
    loop {
        let read = match (&mut input).take(1 << 20).read_to_end(&mut buf) {
            Err(source) if is_damage(&source) => {
                let file = file.path.clone();
                return Err(ExportError::Damaged { file, source });
            }
            read => read?,
        };
        let mut used = 0;
        loop {
            let (block, length) = match pcapng::take_block(&buf[used..]) {
                Ok(Some(taken)) => taken,
                Ok(None) => break,
                // It can be nothing but a file that somebody else has put there.
                Err(NotOurs) => return Ok(true),
            };
            used += length;
            offset += u64::try_from(length).unwrap_or_default();
            match block {
                Block::Interface(of) => link = Some(of),
                Block::Packet(packet) if offset > skip => {
                    let is_ours = packet.comments.first().is_some_and(|comment| comment.starts_with(mark));
                    if let Some(of) = link.filter(|_| is_ours)
                        && !each((file.number, offset), of, &packet)?
                    {
                        return Ok(false);
                    }
                }
                Block::Packet(_) | Block::Other => {}
            }
        }
        if read == 0 {
            return Ok(true);
        }
        buf.drain(..used);
    }
}
