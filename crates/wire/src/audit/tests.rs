use super::*;
use crate::dump::Addresses;

const STREAM: Id = [7; 16];

fn flow() -> Flow {
    Flow {
        flow: 300,
        at: 1_700_000_000_000_000_000,
        task: [9; 16],
        depth: 1,
        auditor: "default".to_owned(),
        server_name: "http".to_owned(),
        user: Some("alice".to_owned()),
        upstream: "www.example:443".to_owned(),
        protocol: "http_1".to_owned(),
        rule: None,
        addresses: Addresses {
            client: "10.0.0.1:40000".parse().unwrap(),
            server: "10.0.0.2:8080".parse().unwrap(),
            local: "[2001:db8::1]:50000".parse().unwrap(),
            remote: "[2001:db8::9]:443".parse().unwrap(),
        },
    }
}

fn event() -> Event {
    Event {
        at: 5,
        kind: "Intercept".to_owned(),
        task: Some([9; 16]),
        fields: vec![
            ("method".to_owned(), "GET".into()),
            ("rsp_status".to_owned(), 200.into()),
            ("below".to_owned(), Value::Int(-70_000)),
            ("ratio".to_owned(), Value::Float(0.5)),
            ("cached".to_owned(), false.into()),
            ("nothing".to_owned(), Value::Nil),
            ("long".to_owned(), "x".repeat(70_000).into()),
        ],
    }
}

fn gap() -> Gap {
    Gap {
        at: 6,
        records: 12,
        bytes: 70_000,
        reason: "queue full".to_owned(),
    }
}

/// One of each, with their bytes.
fn records() -> (Vec<Record<'static>>, Vec<u8>) {
    let dump = Dump {
        flow: 300,
        at: u64::MAX,
        pdu: &[1; 300],
    };
    let mut bytes = Vec::new();
    put_flow(&mut bytes, &flow());
    put_dump(&mut bytes, &dump);
    put_event(&mut bytes, &event());
    put_gap(&mut bytes, &gap());
    put_end(&mut bytes, 300);
    let records = vec![
        Record::Flow(Box::new(flow())),
        Record::Dump(dump),
        Record::Event(event()),
        Record::Gap(gap()),
        Record::End(300),
    ];
    (records, bytes)
}

#[test]
fn a_batch_comes_out_as_it_went_in() {
    let (records, bytes) = records();
    let mut message = Vec::new();
    put_batch(&mut message, &STREAM, 70_000, 5, &bytes);
    let Some(Message::Batch(batch)) = Message::take(&message).unwrap() else {
        panic!("no batch");
    };
    assert_eq!((batch.stream, batch.seq, batch.len()), (STREAM, 70_000, 5));
    assert_eq!(batch.records().collect::<Result<Vec<_>, _>>().unwrap(), records);
    properties::message(&message);
}

#[test]
fn other_messages_come_out_as_they_went_in() {
    for message in [
        Message::Ack { stream: STREAM, seq: 3 },
        Message::Hello(Hello {
            stream: STREAM,
            base: 1,
            sender: "proxyd 17".to_owned(),
        }),
        Message::Refusal(Refusal {
            code: RefusalCode::NoHello,
            text: "say hello first".to_owned(),
        }),
        Message::Welcome(Welcome {
            stream: STREAM,
            instance: [8; 16],
            written: u64::MAX,
        }),
    ] {
        assert_eq!(Message::take(&message.to_vec()).unwrap().unwrap(), message);
    }
}

#[test]
fn a_message_that_is_cut_anywhere_is_malformed() {
    let (_, bytes) = records();
    let mut message = Vec::new();
    put_batch(&mut message, &STREAM, 1, 5, &bytes);
    for end in (0..message.len()).step_by(7) {
        assert!(Message::take(&message[..end]).is_err(), "{end}");
    }
    message.push(0);
    assert_eq!(Message::take(&message), Err(Malformed::NotMsgpack));
}

#[test]
fn what_a_later_version_adds_is_skipped() {
    // {"v": 2, "type": "novelty", "x": [{}, 1]}
    let novelty = b"\x83\xa1v\x02\xa4type\xa7novelty\xa1x\x92\x80\x01";
    assert_eq!(Message::take(novelty), Ok(None));
    assert_eq!(Record::take(novelty), Ok(Record::Unknown));
    // {"type": "end", "flow": 1, "x": [nil, ext]}
    let end = b"\x83\xa4type\xa3end\xa4flow\x01\xa1x\x92\xc0\xd4\x01\x02";
    assert_eq!(Record::take(end), Ok(Record::End(1)));
}

#[test]
fn what_is_no_record_is_an_error_in_its_place() {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"\xa3abc"); // text instead of a map
    put_end(&mut bytes, 4);
    let mut message = Vec::new();
    put_batch(&mut message, &STREAM, 1, 2, &bytes);
    let Some(Message::Batch(batch)) = Message::take(&message).unwrap() else {
        panic!("no batch");
    };
    let records: Vec<_> = batch.records().collect();
    assert_eq!(records, [Err(Malformed::NotMsgpack), Ok(Record::End(4))]);
    assert_eq!(
        Record::take(b"\x81\xa4type\xa4dump"),
        Err(Malformed::Missing { key: "flow" })
    );
    assert_eq!(
        Record::take(b"\x81\xa4flow\xa1x"),
        Err(Malformed::BadValue { key: "flow" })
    );
}

#[test]
fn heads_that_announce_billions_cost_nothing() {
    for bomb in [
        &b"\xdf\xff\xff\xff\xff"[..],
        b"\x81\xa7records\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffx",
    ] {
        assert!(Message::take(bomb).is_err());
        assert!(Record::take(bomb).is_err());
    }
    let long = vec![0; MAX_MESSAGE + 1];
    assert!(matches!(Message::take(&long), Err(Malformed::TooLong { .. })));
    assert!(matches!(Record::take(&long), Err(Malformed::TooLong { .. })));
}

#[test]
fn every_message_of_the_corpus_keeps_the_properties() {
    let corpus = std::path::Path::new("../../fuzz/corpus/wire_audit");
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        properties::message(&std::fs::read(entry.unwrap().path()).unwrap());
        seen += 1;
    }
    assert!(seen >= 4);
}
