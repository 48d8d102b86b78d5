//! Blocks of pcapng files (draft-ietf-opsawg-pcapng), written and read; little-endian, one section, one interface.

use std::borrow::Cow;
use std::time::Duration;

use byteorder::LittleEndian;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{self, RawBlock};
use pcap_file::{DataLink, Endianness, PcapError};

/// What packets of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkType {
    /// IPv4 or IPv6 packets.
    Raw,
    /// Wireshark's exported PDUs.
    UpperPdu,
}

impl LinkType {
    fn number(self) -> u32 {
        match self {
            Self::Raw => 101,
            Self::UpperPdu => 252,
        }
    }

    fn of(link: DataLink) -> Option<Self> {
        [Self::Raw, Self::UpperPdu]
            .into_iter()
            .find(|known| known.number() == u32::from(link))
    }
}

/// Resolution of times: 10^-9 s. The library writes nothing else.
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
    let writer = concat!("sluice auditd ", env!("CARGO_PKG_VERSION"));
    put(
        out,
        &pcapng::Block::SectionHeader(SectionHeaderBlock {
            endianness: Endianness::Little,
            major_version: 1,
            minor_version: 0,
            section_length: -1, // not given
            options: vec![SectionHeaderOption::UserApplication(writer.into())],
        }),
    );
    put(
        out,
        &pcapng::Block::InterfaceDescription(InterfaceDescriptionBlock {
            linktype: link.number().into(),
            snaplen: 0, // packets are never cut
            options: vec![
                InterfaceDescriptionOption::IfName("sluice".into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        }),
    );
}

/// Appends a packet.
pub(crate) fn put_packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    let comments = packet
        .comments
        .iter()
        .map(|comment| EnhancedPacketOption::Comment(cut(comment).into()));
    let way = packet.way.map(|way| EnhancedPacketOption::Flags(way as u32));
    put(
        out,
        &pcapng::Block::EnhancedPacket(EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(packet.at),
            // Records have a limit of a megabyte, so this always fits.
            original_len: u32::try_from(packet.data.len()).unwrap_or(u32::MAX),
            data: Cow::Borrowed(packet.data),
            options: comments.chain(way).collect(),
        }),
    );
}

fn put(out: &mut Vec<u8>, block: &pcapng::Block<'_>) {
    block
        .write_to::<LittleEndian, _>(out)
        .expect("memory takes whatever is written");
}

/// The longest front of `text` that a comment may be, and whole characters of it.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_COMMENT))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// The bytes are no file of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no pcapng file of auditd's")]
pub(crate) struct NotOurs;

/// Takes one block off the front of `buf`: the block and its length. `Ok(None)` asks for more bytes.
pub(crate) fn take_block(buf: &[u8]) -> Result<Option<(Block<'_>, usize)>, NotOurs> {
    let Some(length) = buf.get(4..).and_then(<[u8]>::first_chunk) else {
        return Ok(None);
    };
    // A length that nothing of ours has is told before its bytes are waited for.
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| NotOurs)?;
    if !(12..=MAX_BLOCK).contains(&length) || length % 4 != 0 {
        return Err(NotOurs);
    }
    let raw = match RawBlock::from_slice::<LittleEndian>(buf) {
        Ok((_, raw)) => raw,
        Err(PcapError::IncompleteBuffer) => return Ok(None),
        Err(_) => return Err(NotOurs),
    };
    let block = match raw.try_into_block::<LittleEndian>().map_err(|_| NotOurs)? {
        pcapng::Block::SectionHeader(header) if header.endianness == Endianness::Big => return Err(NotOurs),
        pcapng::Block::InterfaceDescription(interface) => {
            Block::Interface(LinkType::of(interface.linktype).ok_or(NotOurs)?)
        }
        pcapng::Block::EnhancedPacket(packet) => Block::Packet(ours(packet).ok_or(NotOurs)?),
        _ => Block::Other,
    };
    Ok(Some((block, length)))
}

fn ours(block: EnhancedPacketBlock<'_>) -> Option<Packet<'_>> {
    let Cow::Borrowed(data) = block.data else { return None };
    let mut packet = Packet {
        at: u64::try_from(block.timestamp.as_nanos()).ok()?,
        data,
        comments: Vec::new(),
        way: None,
    };
    for option in block.options {
        match option {
            EnhancedPacketOption::Comment(Cow::Borrowed(text)) => packet.comments.push(text),
            EnhancedPacketOption::Flags(flags) => {
                packet.way = match flags & 3 {
                    1 => Some(Way::Inbound),
                    2 => Some(Way::Outbound),
                    _ => None,
                };
            }
            _ => {}
        }
    }
    Some(packet)
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
