//! Protocols whose first message is not text.

use crate::line::{after, either, take};
use crate::{Limits, Protocol, Verdict};

/// The most bytes that are needed: a DNS message up to the end of its question.
pub(crate) const MOST: usize = 2 + DNS_HEADER + DNS_NAME + 4;
const DNS_HEADER: usize = 12;
/// The longest name on the wire (RFC 1035 §3.1).
const DNS_NAME: usize = 255;

/// The handshake of either side (BEP 3).
pub(crate) fn bittorrent(bytes: &[u8]) -> Verdict {
    either(after(bytes, b"\x13BitTorrent protocol").map(|_| Verdict::Is(Protocol::BitTorrent)))
}

/// The SETTINGS that an HTTP/2 server begins with, as many do before they have heard its client (RFC 9113 §3.4, §6.5).
pub(crate) fn settings(bytes: &[u8]) -> Verdict {
    either(frame_of_settings(bytes))
}

fn frame_of_settings(bytes: &[u8]) -> Result<Verdict, Verdict> {
    // There are not so many settings that the length would need more than its last byte.
    let ([length], rest) = take::<1>(after(bytes, b"\0\0")?)?;
    if length % 6 != 0 {
        return Ok(Verdict::Not);
    }
    // The type, no flags, the connection itself.
    after(rest, b"\x04\0\0\0\0\0")?;
    Ok(Verdict::Is(Protocol::Http2))
}

/// A query behind two bytes of length (RFC 1035 §4.2.2).
pub(crate) fn dns(bytes: &[u8]) -> Verdict {
    either(query(bytes))
}

fn query(bytes: &[u8]) -> Result<Verdict, Verdict> {
    let (length, message) = take::<2>(bytes)?;
    let length = usize::from(u16::from_be_bytes(length));
    if length < DNS_HEADER + 5 {
        return Ok(Verdict::Not);
    }
    // Its end is not waited for, and not read past.
    let message = message.get(..length).unwrap_or(message);
    let cut = |verdict| if message.len() == length { Verdict::Not } else { verdict };
    let (_id, rest) = take::<2>(message)?;
    let (flags, rest) = take::<2>(rest)?;
    let flags = u16::from_be_bytes(flags);
    let (is_response, opcode, code) = (flags & 0x8000 != 0, (flags >> 11) & 0xf, flags & 0xf);
    if is_response || opcode > 6 || opcode == 3 || code != 0 {
        return Ok(Verdict::Not);
    }
    let (questions, rest) = take::<2>(rest)?;
    let (answers, rest) = take::<2>(rest)?;
    // Authorities and additional records: an update (RFC 2136) and an EDNS option have some.
    let (_, mut rest) = take::<4>(rest)?;
    if u16::from_be_bytes(questions) != 1 || (opcode == 0 && u16::from_be_bytes(answers) != 0) {
        return Ok(Verdict::Not);
    }
    let mut name = 0;
    loop {
        let ([label], after) = take::<1>(rest).map_err(cut)?;
        name += 1 + usize::from(label);
        if label > 63 || name > DNS_NAME {
            return Ok(Verdict::Not);
        }
        if label == 0 {
            rest = after;
            break;
        }
        rest = after.get(usize::from(label)..).ok_or_else(|| cut(Verdict::More))?;
    }
    let (_, rest) = take::<2>(rest).map_err(cut)?;
    let (class, _) = take::<2>(rest).map_err(cut)?;
    // IN, CH, HS, NONE and ANY.
    Ok(match u16::from_be_bytes(class) {
        1 | 3 | 4 | 254 | 255 => Verdict::Is(Protocol::Dns),
        _ => Verdict::Not,
    })
}

/// A request of a client (RFC 4511 §4.1.1): a sequence of a message id and an operation.
pub(crate) fn ldap(bytes: &[u8], limits: &Limits) -> Verdict {
    either(operation(bytes, limits))
}

fn operation(bytes: &[u8], limits: &Limits) -> Result<Verdict, Verdict> {
    let (tag, rest) = take::<1>(bytes)?;
    if tag != [0x30] {
        return Ok(Verdict::Not);
    }
    let (length, rest) = ber_length(rest)?;
    if length < 5 || length > limits.ldap_request {
        return Ok(Verdict::Not);
    }
    let (tag, rest) = take::<1>(rest)?;
    if tag != [0x02] {
        return Ok(Verdict::Not);
    }
    let ([id_length], rest) = take::<1>(rest)?;
    // 0 to 2147483647.
    if !(1..=4).contains(&id_length) || rest.first().is_some_and(|byte| byte & 0x80 != 0) {
        return Ok(Verdict::Not);
    }
    let rest = rest.get(usize::from(id_length)..).ok_or(Verdict::More)?;
    let ([operation], _) = take::<1>(rest)?;
    // Requests: bind, unbind, search, modify, add, delete, modify DN, compare, abandon, extended.
    Ok(match operation {
        0x60 | 0x42 | 0x63 | 0x66 | 0x68 | 0x4a | 0x6c | 0x6e | 0x50 | 0x77 => Verdict::Is(Protocol::Ldap),
        _ => Verdict::Not,
    })
}

/// A definite length (X.690 §8.1.3) of up to four bytes.
fn ber_length(bytes: &[u8]) -> Result<(usize, &[u8]), Verdict> {
    let ([first], mut rest) = take::<1>(bytes)?;
    if first < 0x80 {
        return Ok((usize::from(first), rest));
    }
    let count = first & 0x7f;
    if !(1..=4).contains(&count) {
        return Err(Verdict::Not);
    }
    let mut length: u32 = 0;
    for _ in 0..count {
        let ([byte], after) = take::<1>(rest)?;
        length = (length << 8) | u32::from(byte);
        rest = after;
    }
    Ok((usize::try_from(length).map_err(|_| Verdict::Not)?, rest))
}

/// CONNECT of a client (MQTT 3.1, 3.1.1 and 5.0, §3.1).
pub(crate) fn mqtt(bytes: &[u8]) -> Verdict {
    either(connect(bytes))
}

fn connect(bytes: &[u8]) -> Result<Verdict, Verdict> {
    let (kind, mut rest) = take::<1>(bytes)?;
    if kind != [0x10] {
        return Ok(Verdict::Not);
    }
    let mut length = 0;
    loop {
        let ([byte], after) = take::<1>(rest)?;
        length += 1;
        rest = after;
        if byte & 0x80 == 0 {
            break;
        }
        if length == 4 {
            return Ok(Verdict::Not);
        }
    }
    match after(rest, b"\x00\x04MQTT") {
        Err(Verdict::Not) => after(rest, b"\x00\x06MQIsdp").map(|_| Verdict::Is(Protocol::Mqtt)),
        other => other.map(|_| Verdict::Is(Protocol::Mqtt)),
    }
}

/// C0 and the fixed part of C1 of a client (RTMP 1.0 §5.2).
pub(crate) fn rtmp(bytes: &[u8]) -> Verdict {
    either(handshake(bytes))
}

fn handshake(bytes: &[u8]) -> Result<Verdict, Verdict> {
    let (version, rest) = take::<1>(bytes)?;
    if version != [3] {
        return Ok(Verdict::Not);
    }
    let (_time, rest) = take::<4>(rest)?;
    let (zero, _) = take::<4>(rest)?;
    Ok(if zero == [0; 4] {
        Verdict::Is(Protocol::Rtmp)
    } else {
        Verdict::Not
    })
}

/// A bind of a client (SMPP 3.4 §4.1).
pub(crate) fn smpp(bytes: &[u8]) -> Verdict {
    // bind_receiver, bind_transmitter, bind_transceiver. The least has five empty strings' ends and two bytes.
    either(pdu(bytes, &[1, 2, 9], 23..=128))
}

/// What a message centre opens a connection of its own with (SMPP 3.4 §4.1.7).
pub(crate) fn outbind(bytes: &[u8]) -> Verdict {
    either(pdu(bytes, &[11], 18..=64))
}

fn pdu(bytes: &[u8], commands: &[u32], lengths: std::ops::RangeInclusive<u32>) -> Result<Verdict, Verdict> {
    // Few bytes shall not be waited upon for what they cannot become.
    after(bytes, &[0; 3])?;
    let (length, rest) = take::<4>(bytes)?;
    if !lengths.contains(&u32::from_be_bytes(length)) {
        return Ok(Verdict::Not);
    }
    let (command, rest) = take::<4>(rest)?;
    if !commands.contains(&u32::from_be_bytes(command)) {
        return Ok(Verdict::Not);
    }
    let (status, rest) = take::<4>(rest)?;
    let (sequence, _) = take::<4>(rest)?;
    let good = status == [0; 4] && (1..=0x7fff_ffff).contains(&u32::from_be_bytes(sequence));
    Ok(if good {
        Verdict::Is(Protocol::Smpp)
    } else {
        Verdict::Not
    })
}
