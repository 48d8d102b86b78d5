use std::time::Duration;

use crate::frames::{
    ACK, CONTINUATION, DATA, GOAWAY, HEAD, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use crate::{BURST, Guard, Offence, PREFACE, Refused};

fn frame(kind: u8, flags: u8, length: u16) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    let mut frame = vec![0, high, low, kind, flags, 0, 0, 0, 1];
    frame.resize(HEAD + usize::from(length), 0);
    frame
}

/// How many bytes of `sent`, which come from a client at once and in pieces of `size`, go on, and why no more.
fn guarded(sent: &[u8], size: usize) -> (usize, Option<Offence>) {
    let mut guard = Guard::of_client();
    let mut got = 0;
    for piece in sent.chunks(size) {
        match guard.received(piece, || Duration::ZERO) {
            Ok(()) => got += piece.len(),
            Err(Refused { at, offence }) => return (got + at, Some(offence)),
        }
    }
    (got, None)
}

/// A client that has sent everything that it may for nothing.
fn spent() -> Vec<u8> {
    let many = usize::try_from(BURST).unwrap() - 1;
    [
        vec![b'x'; PREFACE],
        frame(SETTINGS, 0, 0),
        frame(PING, 0, 8).repeat(many),
    ]
    .concat()
}

#[test]
fn frames_are_found_in_any_pieces() {
    let good = [
        vec![b'x'; PREFACE],
        frame(SETTINGS, 0, 6),
        frame(SETTINGS, ACK, 0),
        frame(HEADERS, 4, 300),
        frame(PING, 0, 8),
        frame(0x77, 0xff, 0),
    ]
    .concat();
    let bad = [&good[..], &frame(PING, 0, 7)].concat();
    for size in [1, 2, 7, 100, bad.len()] {
        assert_eq!(guarded(&good, size), (good.len(), None), "{size}");
        let (got, offence) = guarded(&bad, size);
        assert_eq!(offence, Some(Offence::Size(PING)), "{size}");
        assert!(got >= good.len() && got < good.len() + HEAD, "{size}: {got}");
    }
}

#[test]
fn frames_have_their_sizes_and_settings_come_first() {
    let begun = [vec![b'x'; PREFACE], frame(SETTINGS, 0, 0)].concat();
    for (kind, flags, length, good) in [
        (PRIORITY, 0, 4, false),
        (RST_STREAM, 0, 3, false),
        (RST_STREAM, 0, 4, true),
        (SETTINGS, 0, 5, false),
        (SETTINGS, ACK, 6, false),
        (PING, ACK, 9, false),
        (GOAWAY, 0, 7, false),
        (GOAWAY, 0, 80, true),
        (WINDOW_UPDATE, 0, 5, false),
        (DATA, 0, 0, true),
    ] {
        let sent = [&begun[..], &frame(kind, flags, length)].concat();
        let wanted = (!good).then_some(Offence::Size(kind));
        assert_eq!(guarded(&sent, sent.len()).1, wanted, "{kind} {length}");
    }
    for first in [frame(PING, 0, 8), frame(SETTINGS, ACK, 0)] {
        let sent = [vec![b'x'; PREFACE], first].concat();
        assert_eq!(guarded(&sent, sent.len()), (PREFACE, Some(Offence::NoSettings)));
    }
}

#[test]
fn a_peer_sends_as_much_as_it_has_earned() {
    let begun = spent();
    assert_eq!(guarded(&begun, begun.len()), (begun.len(), None));
    let next = frame(WINDOW_UPDATE, 0, 4);
    let over = [&begun[..], &next[..]].concat();
    assert_eq!(guarded(&over, over.len()), (begun.len(), Some(Offence::Flood)));
    for (message, earned) in [
        (frame(DATA, 0, 1), 4),
        (frame(HEADERS, 0, 1), 4),
        (frame(CONTINUATION, 0, 1), 0),
        (frame(DATA, 0, 0), 0),
    ] {
        let is_free = message[3] == CONTINUATION;
        let sent = [&begun[..], &message[..], &next.repeat(earned)].concat();
        assert_eq!(guarded(&sent, sent.len()).1.is_none(), earned > 0 || is_free);
        let over = [&sent[..], &next[..]].concat();
        assert_eq!(guarded(&over, over.len()).1, Some(Offence::Flood));
    }
}

#[test]
fn time_and_what_is_sent_to_a_peer_earn_it_frames() {
    let mut guard = Guard::of_client();
    guard.received(&spent(), || Duration::ZERO).unwrap();
    let now = || Duration::from_secs(1);
    let next = frame(WINDOW_UPDATE, 0, 4);
    guard.received(&next.repeat(100), now).unwrap();
    guard.sent(&frame(DATA, 0, 100).repeat(2));
    guard.received(&next.repeat(8), now).unwrap();
    let refused = guard.received(&next, now).unwrap_err();
    assert_eq!((refused.at, refused.offence), (0, Offence::Flood));
}

#[test]
fn corpus_of_the_fuzz_target_holds() {
    let corpus = "../../fuzz/corpus/http2_conversation";
    let mut count = 0;
    for file in std::fs::read_dir(corpus).unwrap() {
        crate::properties::conversation(&std::fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 5);
}
