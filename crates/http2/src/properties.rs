//! What holds for any bytes; called by the fuzz target, and by the test that replays its corpus.

use std::time::Duration;

use crate::frames::{ACK, DATA, HEAD, HEADERS, SETTINGS};
use crate::{BURST, Guard, Offence, PER_MESSAGE, PER_SECOND, PREFACE};

/// The most bytes of a conversation.
const MOST: usize = 1 << 16;

/// Bytes of one side that come at one time.
struct Piece {
    at: Duration,
    is_sent: bool,
    bytes: Vec<u8>,
}

/// What became of a conversation.
#[derive(Debug, PartialEq, Eq)]
struct Course {
    /// How many of the peer's bytes went on.
    passed: usize,
    offence: Option<Offence>,
}

/// A frame of the peer.
struct Frame {
    at: usize,
    length: usize,
    kind: u8,
    flags: u8,
}

/// Checks one conversation. The first byte says of which side the peer is; then each piece has three bytes of its own:
/// who sends it and tenths of a second before it, its length, how often it comes again.
///
/// # Panics
/// If something does not hold.
pub fn conversation(data: &[u8]) {
    let Some((side, rest)) = data.split_first() else {
        return;
    };
    let is_client = side & 1 == 1;
    let pieces = pieces(rest);
    let whole = run(is_client, &pieces, usize::MAX);
    for size in [1, 7] {
        let cut = run(is_client, &pieces, size);
        assert_eq!(cut.offence, whole.offence, "in pieces of {size}");
    }
    let bytes = |is_sent: bool| -> Vec<u8> {
        let of_side = pieces.iter().filter(|piece| piece.is_sent == is_sent);
        of_side.flat_map(|piece| piece.bytes.iter().copied()).collect()
    };
    let (read_from, sent_from) = if is_client { (PREFACE, 0) } else { (0, PREFACE) };
    let sent = frames(&bytes(true), sent_from);
    let received = bytes(false);
    let frames = frames(&received, read_from);
    let (taken, refused) = match whole.offence {
        None => {
            assert_eq!(whole.passed, received.len());
            (&frames[..], None)
        }
        Some(offence) => {
            let n = frames.partition_point(|frame| frame.at + HEAD <= whole.passed);
            (&frames[..n], Some((&frames[n], offence)))
        }
    };
    if let Some(first) = taken.first() {
        assert!(first.kind == SETTINGS && first.flags & ACK == 0);
    }
    assert!(taken.iter().all(Frame::is_well_sized));
    let heads = taken.iter().filter(|frame| frame.kind == HEADERS).count();
    let data = taken
        .iter()
        .filter(|frame| frame.kind == DATA && frame.length > 0)
        .count();
    let of_us = sent.iter().filter(|frame| matches!(frame.kind, HEADERS | DATA)).count();
    let others = taken.iter().filter(|frame| frame.is_other()).count() as u64;
    let tenths = pieces.last().map_or(0, |piece| {
        piece.at.as_secs() * 10 + u64::from(piece.at.subsec_millis()) / 100
    });
    let earned = (heads + data + of_us) as u64 * PER_MESSAGE + tenths * PER_SECOND / 10;
    assert!(others <= BURST + earned, "{others} frames for {earned}");
    match refused {
        None => {}
        Some((frame, Offence::Flood)) => assert!(frame.is_other() && others >= BURST),
        Some((frame, Offence::NoSettings)) => {
            assert!(taken.is_empty() && (frame.kind != SETTINGS || frame.flags & ACK != 0));
        }
        Some((frame, Offence::Size(kind))) => assert!(frame.kind == kind && !frame.is_well_sized()),
    }
}

impl Frame {
    /// Whether neither a head nor data, which the peer may send without having earned it.
    fn is_other(&self) -> bool {
        !matches!(self.kind, HEADERS | 9) && (self.kind != DATA || self.length == 0)
    }

    fn is_well_sized(&self) -> bool {
        match (self.kind, self.flags & 1) {
            (2, _) => self.length == 5,
            (3 | 8, _) => self.length == 4,
            (4, 0) => self.length.is_multiple_of(6),
            (4, _) => self.length == 0,
            (6, _) => self.length == 8,
            (7, _) => self.length > 7,
            _ => true,
        }
    }
}

fn pieces(mut rest: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut at, mut total) = (Duration::ZERO, 0);
    while let Some(([how, length, again], behind)) = rest.split_first_chunk::<3>() {
        let (bytes, behind) = behind.split_at(behind.len().min(usize::from(*length)));
        rest = behind;
        let bytes = bytes.repeat(usize::from(*again) + 1);
        total += bytes.len();
        if total > MOST {
            break;
        }
        at += Duration::from_millis(100) * u32::from(how >> 1);
        pieces.push(Piece {
            at,
            is_sent: how & 1 == 1,
            bytes,
        });
    }
    pieces
}

/// Shows a conversation to a guard, in pieces of at most `size`.
fn run(is_client: bool, pieces: &[Piece], size: usize) -> Course {
    let mut guard = if is_client {
        Guard::of_client()
    } else {
        Guard::of_upstream()
    };
    let mut passed = 0;
    for piece in pieces {
        for bytes in piece.bytes.chunks(size) {
            if piece.is_sent {
                guard.sent(bytes);
                continue;
            }
            if let Err(refused) = guard.received(bytes, || piece.at) {
                assert!(refused.at < bytes.len());
                return Course {
                    passed: passed + refused.at,
                    offence: Some(refused.offence),
                };
            }
            passed += bytes.len();
        }
    }
    Course { passed, offence: None }
}

/// The frames of a stream whose heads are complete.
fn frames(bytes: &[u8], mut at: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some([a, b, c, kind, flags, ..]) = bytes.get(at..at + HEAD) {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        frames.push(Frame {
            at,
            length,
            kind: *kind,
            flags: *flags,
        });
        at += HEAD + length;
    }
    frames
}
