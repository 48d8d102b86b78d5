//! What holds for any bytes, for tests and the fuzz target.

#![expect(clippy::unwrap_used, reason = "a panic here is a finding")]

use super::{Addresses, Direction, Dissector, DumpWriter, Endpoints, MIN_PACKET_SIZE, Pdu};

/// Reads `data` as a datagram; what it holds is written by our own writer and read again.
pub fn datagram(data: &[u8]) {
    let Ok(pdu) = Pdu::take(data) else {
        return;
    };
    assert!(pdu.payload.len() < data.len());
    let Some(inner) = pdu.inner else {
        return;
    };
    let outer = pdu.outer.unwrap_or(inner);
    let addresses = Addresses {
        client: outer.src,
        server: outer.dst,
        local: inner.src,
        remote: inner.dst,
    };
    let http2 = Dissector::Name("http2".to_owned());
    for mut writer in [
        DumpWriter::new(&addresses, &pdu.dissector, 0),
        DumpWriter::framed(&addresses, &http2, 0),
    ] {
        for direction in [Direction::ToRemote, Direction::ToClient] {
            written(&mut writer, direction, &addresses, pdu.payload);
        }
    }
}

/// What is written in two steps is all there, in order.
fn written(writer: &mut DumpWriter, direction: Direction, addresses: &Addresses, data: &[u8]) {
    let mut payload = Vec::new();
    let (whole, rest) = data.split_at(writer.whole(direction, data));
    for part in [whole, rest] {
        writer.put(direction, part, |packet| {
            assert!(packet.len() <= MIN_PACKET_SIZE);
            let piece = Pdu::take(packet).unwrap();
            assert_eq!(ports(piece.outer), ports(Some(addresses.outer(direction))));
            assert_eq!(ports(piece.inner), ports(Some(addresses.inner(direction))));
            assert_eq!(piece.tcp.unwrap().seq as usize, payload.len() + 1);
            payload.extend_from_slice(piece.payload);
            assert_eq!(piece.tcp.unwrap().next_seq as usize, payload.len() + 1);
        });
    }
    assert_eq!(payload, data);
}

/// Addresses may come back mapped into the other family, ports may not change.
fn ports(endpoints: Option<Endpoints>) -> Option<(u16, u16)> {
    endpoints.map(|endpoints| (endpoints.src.port(), endpoints.dst.port()))
}
