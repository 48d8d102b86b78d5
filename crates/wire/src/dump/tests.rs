use super::*;

fn addresses() -> Addresses {
    Addresses {
        client: "10.0.0.1:40000".parse().unwrap(),
        server: "10.0.0.2:8080".parse().unwrap(),
        local: "192.0.2.1:50000".parse().unwrap(),
        remote: "192.0.2.9:443".parse().unwrap(),
    }
}

fn packets(writer: &mut DumpWriter, direction: Direction, data: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    writer.put(direction, data, |packet| packets.push(packet.to_vec()));
    packets
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_piece_is_byte_for_byte_what_udpdump_readers_know() {
    let mut writer = DumpWriter::new(&addresses(), &Dissector::Name("http".to_owned()), 1480);
    let packet = packets(&mut writer, Direction::ToRemote, b"GET").remove(0);
    let outer = concat!(
        "000c000c",
        "6578706f727465645f706475", // exported_pdu
        "001400040a000001",
        "001500040a000002",
        "0019000400009c40",
        "001a000400001f90",
        "00000000",
    );
    let inner = concat!(
        "000c0004",
        "68747470", // http
        "00140004c0000201",
        "00150004c0000209",
        "001900040000c350",
        "001a0004000001bb",
        "0018000400000002",
        "00220013",
        "0001",
        "00000001",
        "00000004",
        "00000001",
        "01",
        "0018",
        "0000",
        "00000000",
    );
    assert_eq!(hex(&packet), format!("{outer}{inner}474554"));
}

#[test]
fn the_way_back_has_its_ends_turned_and_counts_for_itself() {
    let mut writer = DumpWriter::new(&addresses(), &Dissector::TlsPort(443), 1480);
    packets(&mut writer, Direction::ToRemote, b"question");
    let packet = packets(&mut writer, Direction::ToClient, b"answer").remove(0);
    let pdu = Pdu::take(&packet).unwrap();
    assert_eq!(pdu.outer, Some(addresses().outer(Direction::ToRemote).reversed()));
    assert_eq!(pdu.inner.unwrap().src, addresses().remote);
    assert_eq!(pdu.dissector, Dissector::TlsPort(443));
    let tcp = TcpInfo {
        seq: 1,
        next_seq: 7,
        ack: 9,
    };
    assert_eq!((pdu.tcp, pdu.payload), (Some(tcp), &b"answer"[..]));
}

#[test]
fn long_pieces_are_split_at_the_limit_and_counted_on() {
    let data: Vec<u8> = (0..5000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for limit in [0, 1200, 1480, MAX_PACKET_SIZE] {
        let mut writer = DumpWriter::new(&addresses(), &Dissector::TcpPort(25), limit);
        let packets = packets(&mut writer, Direction::ToClient, &data);
        assert!(packets.iter().all(|packet| packet.len() <= limit.max(MIN_PACKET_SIZE)));
        assert_eq!(packets.len() > 1, limit < 5000);
        let mut seen = Vec::new();
        for packet in &packets {
            let pdu = Pdu::take(packet).unwrap();
            assert_eq!(pdu.tcp.unwrap().seq as usize, seen.len() + 1);
            seen.extend_from_slice(pdu.payload);
        }
        assert_eq!(seen, data);
    }
}

#[test]
fn no_data_is_no_packet() {
    let mut writer = DumpWriter::new(&addresses(), &Dissector::TcpPort(80), 1480);
    assert!(packets(&mut writer, Direction::ToRemote, b"").is_empty());
}

#[test]
fn ends_of_two_families_are_both_told_as_ipv6() {
    let mixed = Addresses {
        client: "[::ffff:10.0.0.1]:1".parse().unwrap(),
        local: "[2001:db8::1]:2".parse().unwrap(),
        ..addresses()
    };
    let mut writer = DumpWriter::new(&mixed, &Dissector::TcpPort(80), 1480);
    let packet = packets(&mut writer, Direction::ToRemote, b"x").remove(0);
    let pdu = Pdu::take(&packet).unwrap();
    assert_eq!(pdu.outer.unwrap().src, "10.0.0.1:1".parse().unwrap());
    assert_eq!(pdu.inner.unwrap().dst, "[::ffff:192.0.2.9]:443".parse().unwrap());
}

#[test]
fn what_is_cut_off_is_an_error_at_every_byte() {
    let mut writer = DumpWriter::new(&addresses(), &Dissector::Name("http".to_owned()), 1480);
    let packet = packets(&mut writer, Direction::ToRemote, b"GET").remove(0);
    for end in 0..packet.len() - 3 {
        assert_eq!(Pdu::take(&packet[..end]), Err(DumpError::Cut), "{end}");
    }
}

#[test]
fn headers_of_others_are_read() {
    // One header, its name padded with zeros, with an option that we do not know.
    let mut packet = vec![0, 12, 0, 8];
    packet.extend_from_slice(b"dns\0\0\0\0\0");
    packet.extend_from_slice(&[0, 99, 0, 2, 1, 1, 0, 0, 0, 0]);
    packet.extend_from_slice(b"bytes");
    let pdu = Pdu::take(&packet).unwrap();
    assert_eq!(
        (pdu.dissector, pdu.inner, pdu.payload),
        (Dissector::Name("dns".to_owned()), None, &b"bytes"[..])
    );
    assert_eq!(
        Pdu::take(&[0, 20, 0, 3, 1, 2, 3]),
        Err(DumpError::Length { tag: 20, length: 3 })
    );
    assert_eq!(Pdu::take(&[0, 0, 0, 0, 1]), Err(DumpError::NoDissector));
}

#[test]
fn every_datagram_of_the_corpus_keeps_the_properties() {
    let corpus = std::path::Path::new("../../fuzz/corpus/wire_dump");
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        properties::datagram(&std::fs::read(entry.unwrap().path()).unwrap());
        seen += 1;
    }
    assert!(seen >= 4);
}
