//! Blocks of pcapng files (draft-ietf-opsawg-pcapng), written and read; little-endian, one section, one interface.

/// What packets of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkType {
    /// IPv4 or IPv6 packets.
    Raw,
    /// Wireshark's exported PDUs.
    UpperPdu,
}

impl LinkType {
    fn number(self) -> u16 {
        match self {
            Self::Raw => 101,
            Self::UpperPdu => 252,
        }
    }

    fn of(number: u16) -> Option<Self> {
        [Self::Raw, Self::UpperPdu]
            .into_iter()
            .find(|link| link.number() == number)
    }
}

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const MAGIC: u32 = 0x1a2b_3c4d;

const OPT_COMMENT: u16 = 1;
const OPT_IF_NAME: u16 = 2;
const OPT_USER_APPL: u16 = 4;
const OPT_IF_TSRESOL: u16 = 9;
const OPT_FLAGS: u16 = 2;

/// Resolution of times: 10^-9 s.
const NANOSECONDS: u8 = 9;

/// The longest block that is read.
const MAX_BLOCK: usize = 1 << 20;

/// The longest comment that is written.
const MAX_COMMENT: usize = 4096;

/// Which way a packet went, as seen by the client: pcapng's flags of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Inbound = 1,
    Outbound = 2,
}

/// One packet of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    /// Nanoseconds since 1970.
    pub(crate) at: u64,
    pub(crate) data: &'a [u8],
    pub(crate) comments: Vec<&'a str>,
    pub(crate) way: Option<Way>,
}

/// One block of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Block<'a> {
    Interface(LinkType),
    Other,
    Packet(Packet<'a>),
}

/// Appends what a file begins with.
pub(crate) fn put_head(out: &mut Vec<u8>, link: LinkType) {
    block(out, SECTION, |out| {
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&1_u16.to_le_bytes());
        out.extend_from_slice(&0_u16.to_le_bytes());
        out.extend_from_slice(&u64::MAX.to_le_bytes()); // the section's length is not given
        let writer = concat!("sluice auditd ", env!("CARGO_PKG_VERSION"));
        option(out, OPT_USER_APPL, writer.as_bytes());
        option(out, 0, &[]);
    });
    block(out, INTERFACE, |out| {
        out.extend_from_slice(&link.number().to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&0_u32.to_le_bytes()); // packets are never cut
        option(out, OPT_IF_NAME, b"sluice");
        option(out, OPT_IF_TSRESOL, &[NANOSECONDS]);
        option(out, 0, &[]);
    });
}

/// Appends a packet.
pub(crate) fn put_packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    block(out, PACKET, |out| {
        out.extend_from_slice(&0_u32.to_le_bytes()); // the interface
        let high = u32::try_from(packet.at >> 32).unwrap_or_default();
        let low = u32::try_from(packet.at & u64::from(u32::MAX)).unwrap_or_default();
        let length = u32::try_from(packet.data.len()).unwrap_or(u32::MAX);
        for number in [high, low, length, length] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(packet.data);
        pad(out, packet.data.len());
        for comment in &packet.comments {
            option(out, OPT_COMMENT, cut(comment).as_bytes());
        }
        if let Some(way) = packet.way {
            option(out, OPT_FLAGS, &(way as u32).to_le_bytes());
        }
        option(out, 0, &[]);
    });
}

/// The longest front of `text` that a comment may be, and whole characters of it.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_COMMENT))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    body(out);
    // Records have a limit of a megabyte, so this always fits.
    let length = u32::try_from(out.len() - start + 4).unwrap_or(u32::MAX).to_le_bytes();
    out[start + 4..start + 8].copy_from_slice(&length);
    out.extend_from_slice(&length);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or_default().to_le_bytes());
    out.extend_from_slice(value);
    pad(out, value.len());
}

fn pad(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&[0; 3][..length.next_multiple_of(4) - length]);
}

/// The bytes are no file of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no pcapng file of auditd's")]
pub(crate) struct NotOurs;

/// Takes one block off the front of `buf`: the block and its length. `Ok(None)` asks for more bytes.
pub(crate) fn take_block(buf: &[u8]) -> Result<Option<(Block<'_>, usize)>, NotOurs> {
    let Some((kind, length)) = u32_at(buf, 0).zip(u32_at(buf, 4)) else {
        return Ok(None);
    };
    let length = usize::try_from(length).map_err(|_| NotOurs)?;
    if !(12..=MAX_BLOCK).contains(&length) || length % 4 != 0 {
        return Err(NotOurs);
    }
    let Some(whole) = buf.get(..length) else {
        return Ok(None);
    };
    if u32_at(whole, length - 4) != u32_at(whole, 4) {
        return Err(NotOurs);
    }
    let body = &whole[8..length - 4];
    let block = match kind {
        SECTION if u32_at(body, 0) != Some(MAGIC) => return Err(NotOurs),
        INTERFACE => {
            let number = body.first_chunk().map(|bytes| u16::from_le_bytes(*bytes));
            Block::Interface(number.and_then(LinkType::of).ok_or(NotOurs)?)
        }
        PACKET => Block::Packet(packet(body).ok_or(NotOurs)?),
        _ => Block::Other,
    };
    Ok(Some((block, length)))
}

fn packet(body: &[u8]) -> Option<Packet<'_>> {
    let at = u64::from(u32_at(body, 4)?) << 32 | u64::from(u32_at(body, 8)?);
    let length = usize::try_from(u32_at(body, 12)?).ok()?;
    let rest = body.get(20..)?;
    let data = rest.get(..length)?;
    let mut options = rest.get(length.checked_next_multiple_of(4)?..)?;
    let mut packet = Packet {
        at,
        data,
        comments: Vec::new(),
        way: None,
    };
    while let Some((code, length)) = u16_at(options, 0).zip(u16_at(options, 2)) {
        if code == 0 {
            break;
        }
        let length = usize::from(length);
        let value = options.get(4..4 + length)?;
        match code {
            OPT_COMMENT => packet.comments.push(std::str::from_utf8(value).ok()?),
            OPT_FLAGS => {
                packet.way = match u32_at(value, 0)? & 3 {
                    1 => Some(Way::Inbound),
                    2 => Some(Way::Outbound),
                    _ => None,
                };
            }
            _ => {}
        }
        options = options.get(4 + length.next_multiple_of(4)..)?;
    }
    Some(packet)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (Vec<u8>, Packet<'static>) {
        let packet = Packet {
            at: 1_700_000_000_123_456_789,
            data: b"bytes",
            comments: vec!["task=1", "ü"],
            way: Some(Way::Outbound),
        };
        let mut out = Vec::new();
        put_head(&mut out, LinkType::UpperPdu);
        put_packet(&mut out, &packet);
        (out, packet)
    }

    #[test]
    fn what_is_written_is_read() {
        let (file, packet) = file();
        let mut rest = &file[..];
        let mut blocks = Vec::new();
        while let Some((block, length)) = take_block(rest).unwrap() {
            blocks.push(block);
            rest = &rest[length..];
        }
        let interface = Block::Interface(LinkType::UpperPdu);
        assert_eq!(blocks, [Block::Other, interface, Block::Packet(packet)]);
        assert!(rest.is_empty());
    }

    #[test]
    fn a_file_that_is_cut_asks_for_more_and_garbage_is_refused() {
        let (file, _) = file();
        let head = {
            let mut out = Vec::new();
            put_head(&mut out, LinkType::UpperPdu);
            out.len()
        };
        for end in head..file.len() {
            assert_eq!(take_block(&file[head..end]), Ok(None));
        }
        assert_eq!(take_block(&[0xff; 64]), Err(NotOurs));
        let mut bad = file[head..].to_vec();
        let last = bad.len() - 1;
        bad[last] = 1; // the lengths at both ends differ
        assert_eq!(take_block(&bad), Err(NotOurs));
    }

    #[test]
    fn long_comments_are_cut_between_characters() {
        let long = "ä".repeat(4000);
        assert_eq!(cut(&long).len(), MAX_COMMENT);
        assert_eq!(cut(&format!("x{long}")).len(), MAX_COMMENT - 1);
        assert_eq!(cut("short"), "short");
    }
}
