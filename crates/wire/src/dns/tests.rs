use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, SOA, opt::EdnsOption},
    },
};

use super::*;

const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

fn query(domain: &str, family: Family) -> Query<'_> {
    Query {
        id: 0x1234,
        domain,
        family,
        resolver: Some("main"),
    }
}

fn request(domain: &str, family: Family) -> Request {
    Request::take(&put_query(&query(domain, family)).unwrap()).unwrap()
}

fn name(text: &str) -> Name {
    name_of(text).unwrap()
}

/// A reply to an A query for `domain` with these answer records.
fn server_reply(domain: &str, answers: Vec<Record>) -> Message {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.add_query(hickory_proto::op::Query::query(name(domain), RecordType::A));
    message.add_answers(answers);
    message
}

fn a(owner: &str, ttl: u32, last: u8) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A::new(192, 0, 2, last)))
}

fn cname(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

fn answer(message: &Message) -> Result<Answer, ResolveError> {
    Reply::take(&message.to_vec().unwrap()).unwrap().answer(Origin::Server)
}

#[test]
fn query_and_request_agree() {
    let request = request("WWW.example.NET.", Family::V6);
    assert_eq!(request.id, 0x1234);
    assert_eq!(request.domain, "www.example.net");
    assert_eq!(request.family, Family::V6);
    assert_eq!(request.resolver.as_deref(), Some("main"));
    assert_eq!(request.payload, UDP_PAYLOAD);
}

#[test]
fn frame_split_at_every_byte_still_parses() {
    let message = put_query(&query("example.net", Family::V4)).unwrap();
    let mut stream = BytesMut::new();
    put_frame(&mut stream, &message).unwrap();
    put_frame(&mut stream, &message).unwrap();
    for split in 0..stream.len() {
        let mut buf = BytesMut::from(&stream[..split]);
        let mut taken = Vec::new();
        while let Some(frame) = take_frame(&mut buf, 4096).unwrap() {
            taken.push(frame);
        }
        buf.extend_from_slice(&stream[split..]);
        while let Some(frame) = take_frame(&mut buf, 4096).unwrap() {
            taken.push(frame);
        }
        assert!(buf.is_empty());
        assert_eq!(taken, [&message[..], &message[..]], "split at {split}");
    }
}

#[test]
fn frame_lengths_are_bounded() {
    let mut buf = BytesMut::new();
    buf.put_u16(4097);
    assert_eq!(
        take_frame(&mut buf, 4096),
        Err(FrameError::TooLong {
            length: 4097,
            limit: 4096
        })
    );
    let mut buf = BytesMut::from(&[0, 11][..]);
    assert_eq!(take_frame(&mut buf, 4096), Err(FrameError::TooShort { length: 11 }));
    assert!(put_frame(&mut buf, &[0; 65536]).is_err());
    assert_eq!(buf.len(), 2);
}

#[test]
fn names_that_dns_can_hold() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    for good in [
        "a",
        "_x._tcp.example.net",
        "xn--bcher-kva.example",
        "a-.b",
        "1.2",
        &longest,
    ] {
        assert_eq!(domain_of(&name_of(good).unwrap()).as_deref(), Some(good));
    }
    let too_long = format!("{longest}a");
    let long_label = "a".repeat(64);
    for bad in ["a..b", ".a", "a b", "bücher.example", "a\n", &too_long, &long_label] {
        assert_eq!(name_of(bad), Err(ResolveError::BadName), "{bad}");
    }
    for empty in ["", "."] {
        assert_eq!(name_of(empty), Err(ResolveError::EmptyDomain));
    }
    assert_eq!(domain_of(&Name::root()), None);
}

#[test]
fn replies_carry_addresses_both_ways() {
    for (family, addresses) in [
        (Family::V4, vec![IpAddr::V4(V4), IpAddr::V4(Ipv4Addr::LOCALHOST)]),
        (Family::V6, vec![IpAddr::V6(Ipv6Addr::LOCALHOST)]),
        (Family::V4, vec![]),
    ] {
        let outcome = Outcome::Addresses {
            addresses: &addresses,
            ttl: 42,
            stale: false,
        };
        let bytes = put_reply(&request("Example.net", family), &outcome, 65535);
        let reply = Reply::take(&bytes).unwrap();
        assert_eq!(reply.id(), 0x1234);
        assert!(reply.is_about("example.NET", family));
        assert!(!reply.is_about("example.org", family));
        assert!(!reply.is_about("www.example.net", family));
        assert!(!reply.is_about("net", family));
        let answer = reply.answer(Origin::Resolverd).unwrap();
        assert_eq!(answer.addresses, addresses);
        assert_eq!(answer.ttl, Some(42));
    }
}

#[test]
fn stale_answers_say_so() {
    let outcome = Outcome::Addresses {
        addresses: &[IpAddr::V4(V4)],
        ttl: 1,
        stale: true,
    };
    let bytes = put_reply(&request("example.net", Family::V4), &outcome, 65535);
    let reply = Reply::take(&bytes).unwrap();
    assert_eq!(reply.extended_error(), Some((3, "")));
    assert_eq!(reply.answer(Origin::Resolverd).unwrap().addresses.len(), 1);
}

#[test]
fn every_failure_survives_the_way_to_the_client() {
    for &error in ResolveError::ALL.iter().filter(|&&e| e != ResolveError::EmptyResult) {
        let outcome = Outcome::Failed {
            error,
            text: "why",
            ttl: 9,
        };
        let bytes = put_reply(&request("example.net", Family::V4), &outcome, 65535);
        let reply = Reply::take(&bytes).unwrap();
        assert_eq!(reply.answer(Origin::Resolverd), Err(error));
        assert_eq!(
            reply.negative_ttl(),
            (error == ResolveError::NotFound).then_some(9),
            "{error:?}"
        );
        if let Some((code, text)) = reply.extended_error() {
            assert_eq!((Some(code), text), (error.row().extended, "why"));
        }
    }
}

#[test]
fn table_rows_are_distinct_on_the_wire() {
    let mut seen = std::collections::HashSet::new();
    for &error in ResolveError::ALL {
        assert_eq!(error.row().error, error);
        let row = error.row();
        assert!(seen.insert((row.response_code, row.extended)), "{error:?}");
        if let Some(code) = row.extended {
            assert!(!(64..49152).contains(&code));
        }
    }
}

#[test]
fn extended_errors_of_other_servers_explain_only() {
    let mut message = server_reply("example.net", vec![]);
    message.metadata.response_code = ResponseCode::ServFail;
    let mut edns = Edns::new();
    edns.options_mut().insert(EdnsOption::Unknown(15, vec![0, 22]));
    message.set_edns(edns);
    assert_eq!(answer(&message), Err(ResolveError::ServFail));
    message.metadata.response_code = ResponseCode::NotZone;
    assert_eq!(answer(&message), Err(ResolveError::Unexpected));
}

#[test]
fn smallest_ttl_of_the_chain_counts() {
    let chain = || {
        vec![
            a("c.example.net", 300, 1),
            cname("b.example.net", 20, "c.example.net"),
            a("c.example.net", 200, 2),
            cname("A.example.net", 100, "b.example.net"),
            a("other.example.net", 1, 9),
        ]
    };
    let got = answer(&server_reply("a.example.net", chain())).unwrap();
    assert_eq!(got.ttl, Some(20));
    assert_eq!(got.addresses.len(), 2);
    for (ttl, expected) in [(0, 0), (1, 1), (u32::MAX, MAX_TTL)] {
        let got = answer(&server_reply("a.example.net", vec![a("a.example.net", ttl, 1)])).unwrap();
        assert_eq!(got.ttl, Some(expected));
    }
}

#[test]
fn alias_without_address_names_where_to_go_on() {
    let got = answer(&server_reply(
        "a.example.net",
        vec![cname("a.example.net", 60, "_x.example.net")],
    ))
    .unwrap();
    assert_eq!(got.addresses, Vec::<IpAddr>::new());
    assert_eq!(got.alias.as_deref(), Some("_x.example.net"));
}

#[test]
fn alias_loop_ends() {
    let got = answer(&server_reply(
        "a.example.net",
        vec![
            cname("a.example.net", 60, "b.example.net"),
            cname("b.example.net", 60, "a.example.net"),
        ],
    ))
    .unwrap();
    assert_eq!(got.addresses, Vec::<IpAddr>::new());
}

#[test]
fn negative_ttl_is_the_smaller_of_both_in_the_authority() {
    for (ttl, minimum, expected) in [(300, 60, 60), (60, 300, 60), (u32::MAX, u32::MAX, MAX_TTL)] {
        let mut message = server_reply("example.net", vec![]);
        let soa = SOA::new(Name::root(), Name::root(), 1, 2, 3, 4, minimum);
        message.add_authority(Record::from_rdata(name("net"), ttl, RData::SOA(soa)));
        assert_eq!(answer(&message).unwrap().ttl, Some(expected));
    }
}

#[test]
fn addresses_of_the_other_family_are_not_taken() {
    let record = Record::from_rdata(name("example.net"), 60, RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)));
    assert!(
        answer(&server_reply("example.net", vec![record]))
            .unwrap()
            .addresses
            .is_empty()
    );
}

#[test]
fn long_replies_are_cut_for_udp() {
    let addresses: Vec<IpAddr> = (0..100).map(|n| IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))).collect();
    let outcome = Outcome::Addresses {
        addresses: &addresses,
        ttl: 60,
        stale: false,
    };
    let request = request("example.net", Family::V4);
    let bytes = put_reply(&request, &outcome, 512);
    assert!(bytes.len() <= 512);
    let reply = Reply::take(&bytes).unwrap();
    assert!(reply.is_truncated());
    assert!(reply.is_about("example.net", Family::V4));
    assert!(
        !Reply::take(&put_reply(&request, &outcome, 65535))
            .unwrap()
            .is_truncated()
    );
}

#[test]
fn other_questions_get_their_response_code() {
    let rejected = |edit: &dyn Fn(&mut Message)| {
        let bytes = put_query(&query("example.net", Family::V4)).unwrap();
        let mut message = Message::from_vec(&bytes).unwrap();
        edit(&mut message);
        match Request::take(&message.to_vec().unwrap()) {
            Err(Rejected::Answered { code, reply }) => {
                let reply = Message::from_vec(&reply).unwrap();
                assert_eq!(u16::from(reply.metadata.response_code), u16::from(code)); // 16 has two names
                assert_eq!(reply.metadata.id, 0x1234);
                assert_eq!(reply.metadata.message_type, MessageType::Response);
                code
            }
            other => panic!("{other:?}"),
        }
    };
    let question = |record_type| hickory_proto::op::Query::query(name("example.net"), record_type);
    assert_eq!(
        rejected(&|m| m.queries = vec![question(RecordType::MX)]),
        ResponseCode::NotImp
    );
    assert_eq!(
        rejected(&|m| m.queries = vec![question(RecordType::AXFR)]),
        ResponseCode::Refused
    );
    assert_eq!(rejected(&|m| m.queries.clear()), ResponseCode::FormErr);
    assert_eq!(
        rejected(&|m| m.queries.push(question(RecordType::A))),
        ResponseCode::FormErr
    );
    assert_eq!(rejected(&|m| m.metadata.op_code = OpCode::Notify), ResponseCode::NotImp);
    assert_eq!(
        rejected(&|m| {
            m.queries[0].set_query_class(hickory_proto::rr::DNSClass::CH);
        }),
        ResponseCode::Refused
    );
    assert_eq!(
        rejected(&|m| {
            m.edns.as_mut().unwrap().set_version(1);
        }),
        ResponseCode::BADVERS
    );
}

#[test]
fn what_is_no_query_gets_no_reply() {
    let outcome = Outcome::Addresses {
        addresses: &[],
        ttl: 0,
        stale: false,
    };
    let reply = put_reply(&request("example.net", Family::V4), &outcome, 512);
    assert_eq!(Request::take(&reply).unwrap_err(), Rejected::Ignored);
    assert_eq!(Request::take(&[0; 11]).unwrap_err(), Rejected::Ignored);
    assert!(matches!(
        Request::take(&[0; 12]).unwrap_err(),
        Rejected::Answered {
            code: ResponseCode::FormErr,
            ..
        }
    ));
}

#[test]
fn cut_replies_are_malformed_at_every_byte() {
    let outcome = Outcome::Addresses {
        addresses: &[IpAddr::V4(V4)],
        ttl: 60,
        stale: false,
    };
    let bytes = put_reply(&request("example.net", Family::V4), &outcome, 512);
    for end in 0..bytes.len() {
        let expected = if end < 12 {
            ParseError::NotAReply
        } else {
            ParseError::Malformed { id: 0x1234 }
        };
        assert_eq!(Reply::take(&bytes[..end]).unwrap_err(), expected, "cut at {end}");
    }
}

#[test]
fn every_message_of_the_corpus_can_be_read() {
    let corpus = std::path::Path::new("../../fuzz/corpus/wire_dns");
    let mut messages = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        properties::message(&std::fs::read(entry.unwrap().path()).unwrap());
        messages += 1;
    }
    assert!(messages >= 10, "{messages}");
}

#[test]
fn the_documented_table_is_ours() {
    let path = std::path::Path::new("../../doc/resolver-protocol.md");
    let doc = std::fs::read_to_string(path).unwrap();
    let blank = |cell: &str| {
        if cell.is_empty() {
            " |".to_owned()
        } else {
            format!(" {cell} |")
        }
    };
    let rows: Vec<String> = ResolveError::ALL
        .iter()
        .map(|error| {
            let row = error.row();
            let code = match row.response_code {
                ResponseCode::FormErr => "FORMERR",
                ResponseCode::NXDomain => "NXDOMAIN",
                ResponseCode::NoError => "NOERROR",
                ResponseCode::NotImp => "NOTIMP",
                ResponseCode::Refused => "REFUSED",
                ResponseCode::ServFail => "SERVFAIL",
                other => panic!("{other:?}"),
            };
            let extended = row.extended.map_or_else(String::new, |code| code.to_string());
            let cells = [
                code,
                &extended,
                row.error_type,
                row.error_subtype,
                row.metric.unwrap_or_default(),
            ];
            format!("|{}", cells.map(blank).concat())
        })
        .collect();
    assert!(doc.contains(&rows.join("\n")), "{}", rows.join("\n"));
}
