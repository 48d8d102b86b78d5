use std::{fs, os::unix::fs::MetadataExt};

use sluice_config::value::{ByteSize, Span};

use super::*;
use crate::config::{Compress, KeepConfig, RotateConfig};
use crate::pcapng::{Block, Packet, put_packet, take_block};

const STREAM: Id = [7; 16];

fn config() -> AuditdConfig {
    AuditdConfig {
        compress: Compress::None,
        ..AuditdConfig::default()
    }
}

fn write(store: &mut Store, seq: u64) {
    let packet = Packet {
        at: seq,
        data: &[1; 100],
        comments: vec!["task_id=1 flow=1"],
        way: None,
    };
    put_packet(store.capture(), &packet);
    store
        .events()
        .extend_from_slice(format!("{{\"n\":{seq}}}\n").as_bytes());
    store.follow(STREAM, seq);
}

/// The times of all packets, which count them.
fn packets(dir: &Path) -> Vec<u64> {
    let mut times = Vec::new();
    let mut done = None;
    for file in list(dir).unwrap().iter().filter(|file| file.kind == Kind::Capture) {
        assert_ne!(done.replace(file.number), Some(file.number), "a file is there twice");
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut open_reader(file).unwrap(), &mut bytes).unwrap();
        let mut rest = &bytes[..];
        while let Some((block, length)) = take_block(rest).unwrap() {
            if let Block::Packet(packet) = block {
                times.push(packet.at);
            }
            rest = &rest[length..];
        }
        assert!(rest.is_empty(), "a file is not whole");
    }
    times
}

fn names(dir: &Path) -> Vec<String> {
    let files = list(dir).unwrap();
    files
        .iter()
        .map(|file| file.path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_is_committed_is_there_and_nobody_else_may_read_it() {
    let dir = tempfile::TempDir::new().unwrap();
    let dir = dir.path().join("a/b");
    let mut store = Store::open(&dir, &config()).unwrap();
    assert!(names(&dir).is_empty(), "no file without need");
    for seq in 1..=3 {
        write(&mut store, seq);
        assert!(store.commit().unwrap() > 0);
    }
    assert_eq!(packets(&dir), [1, 2, 3]);
    assert_eq!(store.written_of(&STREAM), Some(3));
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    for file in fs::read_dir(&dir).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
    }
    assert!(Store::open(&dir, &config()).is_err(), "the folder is taken");
}

#[test]
fn a_crash_between_commits_leaves_nothing_half_and_nothing_twice() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut store = Store::open(dir.path(), &config()).unwrap();
    write(&mut store, 1);
    store.commit().unwrap();
    // Both files were appended to, but the journal was not told.
    write(&mut store, 2);
    store.capture.append(dir.path()).unwrap();
    store.events.append(dir.path()).unwrap();
    drop(store);
    let mut store = Store::open(dir.path(), &config()).unwrap();
    assert_eq!(packets(dir.path()), [1]);
    assert_eq!(store.last_of(&STREAM), Some(1));
    write(&mut store, 2);
    store.commit().unwrap();
    drop(store);
    assert_eq!(packets(dir.path()), [1, 2]);
    assert_eq!(names(dir.path()).len(), 4, "a new file after each start");
    let store = Store::open(dir.path(), &config()).unwrap();
    assert_eq!(store.last_of(&STREAM), Some(2));
    assert_eq!(packets(dir.path()), [1, 2]);
}

#[test]
fn events_alone_do_not_cut_the_capture_of_before() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut store = Store::open(dir.path(), &config()).unwrap();
    write(&mut store, 1);
    store.commit().unwrap();
    store.rotate();
    store.events().extend_from_slice(b"{}\n");
    store.commit().unwrap();
    drop(store);
    Store::open(dir.path(), &config()).unwrap();
    assert_eq!(packets(dir.path()), [1]);
}

#[test]
fn after_a_crash_of_the_machine_what_is_whole_is_kept() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut store = Store::open(dir.path(), &config()).unwrap();
    for seq in 1..=2 {
        write(&mut store, seq);
        store.commit().unwrap();
    }
    drop(store);
    // The journal did not reach the disk, and the last block only in part.
    fs::remove_file(dir.path().join("journal")).unwrap();
    let capture = &list(dir.path()).unwrap()[0];
    let file = OpenOptions::new().write(true).open(&capture.path).unwrap();
    file.set_len(capture.length - 10).unwrap();
    Store::open(dir.path(), &config()).unwrap();
    assert_eq!(packets(dir.path()), [1]);
}

#[test]
fn a_torn_journal_counts_up_to_its_last_whole_entry() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut store = Store::open(dir.path(), &config()).unwrap();
    for seq in 1..=2 {
        write(&mut store, seq);
        store.commit().unwrap();
    }
    drop(store);
    let path = dir.path().join("journal");
    let length = fs::metadata(&path).unwrap().len();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(length - 1)
        .unwrap();
    let store = Store::open(dir.path(), &config()).unwrap();
    assert_eq!((store.last_of(&STREAM), packets(dir.path())), (Some(1), vec![1]));
}

#[test]
fn files_are_closed_by_size_and_compressed_whole() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = AuditdConfig {
        rotate: RotateConfig {
            size: ByteSize(1000),
            ..RotateConfig::default()
        },
        ..AuditdConfig::default()
    };
    let mut store = Store::open(dir.path(), &config).unwrap();
    let mut closed = 0;
    for seq in 1..=50 {
        write(&mut store, seq);
        store.commit().unwrap();
        closed += store.rotate_if_due();
    }
    assert!(closed >= 5, "{closed}");
    let tidied = store.tidy().run(SystemTime::now()).unwrap();
    assert_eq!(tidied.compressed, closed);
    let names = names(dir.path());
    assert_eq!(
        names.iter().filter(|name| !name.ends_with(".gz")).count(),
        2,
        "the open ones: {names:?}"
    );
    assert_eq!(packets(dir.path()), (1..=50).collect::<Vec<_>>());
}

#[test]
fn the_oldest_files_go_first_and_the_open_ones_never() {
    let dir = tempfile::TempDir::new().unwrap();
    let limits = |keep| AuditdConfig { keep, ..config() };
    let none = KeepConfig::default();
    let mut store = Store::open(dir.path(), &limits(none)).unwrap();
    for seq in 1..=6 {
        write(&mut store, seq);
        store.commit().unwrap();
        store.rotate();
    }
    write(&mut store, 7);
    store.commit().unwrap();
    let run = |store: &mut Store, keep, now| {
        store.configure(&limits(keep));
        store.tidy().run(now).unwrap().deleted
    };
    let now = SystemTime::now();
    assert_eq!(run(&mut store, none, now), 0);
    assert_eq!(run(&mut store, KeepConfig { files: Some(4), ..none }, now), 6);
    assert_eq!(packets(dir.path()), [4, 5, 6, 7]);
    let one = list(dir.path()).unwrap()[0].length;
    assert!(
        run(
            &mut store,
            KeepConfig {
                size: ByteSize(one * 3),
                ..none
            },
            now
        ) >= 2
    );
    assert_eq!(packets(dir.path()).last(), Some(&7));
    let late = now + Duration::from_secs(100);
    run(
        &mut store,
        KeepConfig {
            age: Span::secs(50),
            ..none
        },
        late,
    );
    assert_eq!(packets(dir.path()), [7]);
}

#[test]
fn half_compressed_and_twice_there_are_put_right() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut store = Store::open(dir.path(), &AuditdConfig::default()).unwrap();
    write(&mut store, 1);
    store.commit().unwrap();
    store.rotate();
    let plain = list(dir.path()).unwrap()[0].path.clone();
    let bytes = fs::read(&plain).unwrap();
    store.tidy().run(SystemTime::now()).unwrap();
    drop(store);
    fs::write(&plain, bytes).unwrap();
    fs::write(
        dir.path().join("capture-000009-20261125T171500Z.pcapng.gz.part"),
        b"half",
    )
    .unwrap();
    Store::open(dir.path(), &config()).unwrap();
    assert_eq!(packets(dir.path()), [1]);
    assert!(
        !fs::read_dir(dir.path())
            .unwrap()
            .any(|entry| entry.unwrap().path().to_str().unwrap().ends_with("part"))
    );
}
