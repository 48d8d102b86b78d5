use std::path::Path;

use sluice_wire::audit::{Dump, Flow, Id, Message, Record, Refusal, RefusalCode, Welcome, put_dump};
use sluice_wire::dump::Addresses;

use super::*;
use crate::{Event, Peer, Router, wait};

const LIMIT: Duration = Duration::from_secs(20);

/// An auditd that keeps what it is told in memory.
struct Auditd {
    router: Router,
    instance: Id,
    written: u64,
    greeted: bool,
}

/// What it was told, as far as the tests look at it.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Flow(u64),
    Dump(u64),
    End(u64),
    Lost(u64),
}

impl Auditd {
    fn start(path: &Path, instance: u8, written: u64) -> Self {
        Self {
            router: Router::bind(path).unwrap(),
            instance: [instance; 16],
            written,
            greeted: false,
        }
    }

    fn recv(&self) -> (Peer, Vec<u8>) {
        let start = Instant::now();
        loop {
            if let Some(received) = self.router.recv().unwrap() {
                return received;
            }
            assert!(start.elapsed() < LIMIT, "nothing came");
            wait(&[Event::Readable(self.router.socket())], LIMIT).unwrap();
        }
    }

    /// Takes messages until `enough`; acknowledges each batch if it is to.
    fn take(&mut self, acknowledge: bool, mut enough: impl FnMut(&[Told]) -> bool) -> Vec<Told> {
        let mut told = Vec::new();
        while !enough(&told) {
            let (peer, message) = self.recv();
            let answer = match Message::take(&message).unwrap().unwrap() {
                Message::Hello(hello) => {
                    self.greeted = true;
                    Message::Welcome(Welcome {
                        stream: hello.stream,
                        instance: self.instance,
                        written: self.written,
                    })
                }
                Message::Batch(_) if !self.greeted => Message::Refusal(Refusal {
                    code: RefusalCode::NoHello,
                    text: "who is it?".to_owned(),
                }),
                Message::Batch(batch) => {
                    assert!(batch.seq == 0 || batch.seq == self.written + 1, "out of order");
                    for record in batch.records() {
                        match record.unwrap() {
                            Record::Flow(flow) => told.push(Told::Flow(flow.flow)),
                            Record::Dump(dump) => told.push(Told::Dump(dump.flow)),
                            Record::End(flow) => told.push(Told::End(flow)),
                            Record::Gap(gap) => told.push(Told::Lost(gap.records)),
                            other => panic!("{other:?}"),
                        }
                    }
                    if batch.seq == 0 {
                        continue;
                    }
                    self.written = batch.seq;
                    if !acknowledge {
                        continue;
                    }
                    Message::Ack {
                        stream: batch.stream,
                        seq: batch.seq,
                    }
                }
                other => panic!("{other:?}"),
            };
            assert!(self.router.send(&peer, &answer.to_vec()).unwrap());
        }
        told
    }
}

fn sender(path: &Path, queue: usize) -> Sender {
    Sender::start(&config(path, queue)).unwrap()
}

fn config(path: &Path, queue: usize) -> SenderConfig {
    SenderConfig {
        path: path.to_owned(),
        name: "test".to_owned(),
        queue,
        grace: LIMIT,
    }
}

fn flow(flow: u64) -> Flow {
    let any = "127.0.0.1:1".parse().unwrap();
    Flow {
        flow,
        at: 1,
        task: [1; 16],
        depth: 1,
        auditor: "a".to_owned(),
        server_name: "s".to_owned(),
        user: None,
        upstream: "h:1".to_owned(),
        protocol: "http_1".to_owned(),
        rule: None,
        addresses: Addresses {
            client: any,
            server: any,
            local: any,
            remote: any,
        },
    }
}

fn piece(number: u64, length: usize) -> Vec<u8> {
    let mut record = Vec::new();
    let pdu = vec![0; length];
    put_dump(
        &mut record,
        &Dump {
            flow: number,
            at: number,
            pdu: &pdu,
        },
    );
    record
}

fn dumps(told: &[Told]) -> Vec<u64> {
    told.iter()
        .filter_map(|told| match told {
            Told::Dump(number) => Some(*number),
            _ => None,
        })
        .collect()
}

#[test]
fn records_arrive_in_order_and_are_forgotten_once_acknowledged() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("dump");
    let sender = sender(&path, 64 << 20);
    for number in 0..5000 {
        sender.push(1, &piece(number, 200)).unwrap();
    }
    let mut auditd = Auditd::start(&path, 1, 0);
    let told = auditd.take(true, |told| told.len() == 5000);
    assert_eq!(dumps(&told), (0..5000).collect::<Vec<_>>());
    assert!(sender.finish(LIMIT), "something was left");
}

#[test]
fn what_was_not_acknowledged_is_sent_again_to_the_next_auditd() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("dump");
    let sender = sender(&path, 64 << 20);
    let mut first = Auditd::start(&path, 1, 0);
    sender.begin(&flow(7));
    sender.push(1, &piece(1, 10)).unwrap();
    first.take(true, |told| told.contains(&Told::Dump(1)));
    let position = sender.push(1, &piece(2, 10)).unwrap();
    first.take(false, |told| told.contains(&Told::Dump(2)));
    let written = first.written;
    drop(first);
    assert!(!sender.is_acknowledged(position));
    sender.push(1, &piece(3, 10)).unwrap();
    // The next one has what the first has acknowledged, and nothing of what it took without a word.
    let mut second = Auditd::start(&path, 2, written - 1);
    let told = second.take(true, |told| told.contains(&Told::Dump(3)));
    assert_eq!(told, [Told::Flow(7), Told::Dump(2), Told::Dump(3)]);
    sender.end(7);
    assert_eq!(second.take(true, |told| !told.is_empty()), [Told::End(7)]);
    assert!(sender.stats().resent >= 1);
    assert!(sender.finish(LIMIT));
}

#[test]
fn what_does_not_fit_is_lost_and_marked_in_its_place() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("dump");
    let sender = sender(&path, 10_000);
    let refused = (0..100)
        .filter(|number| sender.push(1, &piece(*number, 960)).is_err())
        .count();
    assert_eq!(refused, 90);
    assert_eq!(sender.stats().dropped, 90);
    assert!(
        sender.push_and_wait(1, &piece(100, 960)).is_ok(),
        "beyond the limit for those who wait"
    );
    let mut auditd = Auditd::start(&path, 1, 0);
    let told = auditd.take(true, |told| told.iter().any(|told| matches!(told, Told::Lost(_))));
    assert_eq!(told.get(10..), Some(&[Told::Lost(90), Told::Dump(100)][..]));
    assert!(sender.finish(LIMIT));
}

#[test]
fn one_can_wait_until_a_record_is_written() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("dump");
    let sender = sender(&path, 1 << 20);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let position = sender.push(1, &piece(1, 10)).unwrap();
    runtime.block_on(async {
        let soon = tokio::time::timeout(Duration::from_millis(20), sender.acknowledged(position));
        assert!(soon.await.is_err(), "nobody has written it");
    });
    let mut auditd = Auditd::start(&path, 1, 0);
    auditd.take(true, |told| !told.is_empty());
    runtime.block_on(async {
        let soon = tokio::time::timeout(LIMIT, sender.acknowledged(position));
        soon.await.unwrap();
    });
    assert!(sender.stats().connected);
}

#[test]
fn without_anybody_it_ends_in_time() {
    let dir = tempfile::TempDir::new().unwrap();
    let sender = sender(&dir.path().join("dump"), 1 << 20);
    sender.push(1, &piece(1, 10)).unwrap();
    assert!(!sender.finish(Duration::from_millis(50)));
}

#[test]
fn an_auditd_that_was_never_there_is_not_expected_until_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dump");
    let sender = Sender::start(&SenderConfig {
        grace: Duration::ZERO,
        ..config(&path, 1 << 20)
    })
    .unwrap();
    let start = Instant::now();
    while sender.is_expected() {
        assert!(start.elapsed() < LIMIT, "it is still expected");
        std::thread::yield_now();
    }
    let mut auditd = Auditd::start(&path, 1, 0);
    sender.begin(&flow(1));
    auditd.take(true, |told| told.contains(&Told::Flow(1)));
    assert!(sender.is_expected());
    drop(auditd);
    std::fs::remove_file(&path).unwrap();
    assert!(sender.is_expected(), "it will be back");
}
