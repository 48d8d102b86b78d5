use std::io::{IoSliceMut, Read as _, Seek as _};
use std::mem::MaybeUninit;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::*;

#[test]
fn an_entry_has_native_fields_with_upper_case_keys() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let socket = receiver(&path);
    let logs = start(DriverConfig::Journal(JournalConfig::at(&path)));
    logs.logger(LogKind::Task, "lt-a").log(Task::of("joe"));
    assert_eq!(
        receive_text(&socket),
        "PRIORITY=5\nSYSLOG_IDENTIFIER=sluice\nDAEMON_NAME=g1\nPID=42\nLOG_TYPE=Task\n\
         TASK_ID=00000000000000000000000000000abc\nUSER=joe\nCLIENT_ADDR=127.0.0.1:9\nTOTAL_TIME=1.234ms\n\
         C_RD_BYTES=0\nDEPTH=-1\nREUSE_CONNECTION=true\nMETHOD=GET\nMESSAGE=done\n"
    );
}

#[test]
fn a_value_with_a_line_feed_is_sent_with_its_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let socket = receiver(&path);
    let logs = start(DriverConfig::Journal(JournalConfig::at(&path)));
    logs.logger(LogKind::Task, "lt-a").log(Task::saying("one\nPRIORITY=0"));
    let entry = receive(&socket);
    let expected = b"MESSAGE\n\x0e\0\0\0\0\0\0\0one\nPRIORITY=0\n";
    assert!(entry.ends_with(expected), "{}", entry.escape_ascii());
}

#[test]
fn an_entry_longer_than_a_datagram_comes_as_a_sealed_memory_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let socket = receiver(&path);
    let logs = start(DriverConfig::Journal(JournalConfig::at(&path)));
    let logger = logs.logger(LogKind::Task, "lt-a");
    let long = "x".repeat(8 * 1024 * 1024);
    logger.log(Task::saying(&long));

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut nothing = [0; 16];
    let got = recvmsg(
        &socket,
        &mut [IoSliceMut::new(&mut nothing)],
        &mut ancillary,
        RecvFlags::empty(),
    )
    .unwrap();
    assert_eq!(got.bytes, 0);
    let Some(RecvAncillaryMessage::ScmRights(mut files)) = ancillary.drain().next() else {
        panic!("no file came");
    };
    let mut file = std::fs::File::from(files.next().unwrap());
    let mut entry = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut entry).unwrap();
    assert!(entry.starts_with("PRIORITY=5\n"));
    assert!(entry.ends_with("xxx\n"));
    assert!(logs.shutdown(SOON));
    assert_eq!(numbers(&logger).1, 1);
}
