//! The sending side.

use std::net::{IpAddr, SocketAddr};

use super::{
    Addresses, DATA, Direction, Dissector, EXPORTED_PDU, Endpoints, HTTP2, MIN_PACKET_SIZE, TCP, TCP_FLAGS,
    TCP_INFO_LENGTH, TCP_INFO_VERSION, frames::Frames, tag,
};

/// One stream on its way into datagrams.
#[derive(Clone, Debug)]
pub struct DumpWriter {
    to_client: Half,
    to_remote: Half,
    packet_size: usize,
    packet: Vec<u8>,
}

/// One direction: its headers but for the counters, and how far it is.
#[derive(Clone, Debug)]
struct Half {
    before: Vec<u8>,
    seq: u32,
    /// With [`DumpWriter::framed`]: how far its frames are, and the headers of what begins in the middle of one.
    frames: Option<(Frames, Vec<u8>)>,
}

/// What follows the counters: flags, urgent pointer, end of options.
const AFTER_COUNTERS: usize = 1 + 2 + 2 + 4;

/// Two headers with addresses of IPv6 need less than this, and a dissector's name.
const MAX_NAME: usize = 256;

impl DumpWriter {
    /// A stream of which nothing was sent yet; datagrams hold at most `packet_size` bytes, and
    /// [`MIN_PACKET_SIZE`] at least. A name of a dissector is cut to 256 bytes.
    pub fn new(addresses: &Addresses, dissector: &Dissector, packet_size: usize) -> Self {
        let half = |direction| Half {
            before: headers(addresses.outer(direction), addresses.inner(direction), dissector),
            seq: 1,
            frames: None,
        };
        Self {
            to_client: half(Direction::ToClient),
            to_remote: half(Direction::ToRemote),
            packet_size: packet_size.max(MIN_PACKET_SIZE),
            packet: Vec::new(),
        }
    }

    /// The same for a reader that dissects each datagram by itself: of HTTP/2 they end where a frame does, as far as
    /// there is room and [`whole`](Self::whole) is asked before; what begins inside of a frame bears the name of no protocol.
    pub fn framed(addresses: &Addresses, dissector: &Dissector, packet_size: usize) -> Self {
        let mut writer = Self::new(addresses, dissector, packet_size);
        if matches!(dissector, Dissector::Name(name) if name == HTTP2) {
            let data = Dissector::Name(DATA.to_owned());
            let before = |direction| headers(addresses.outer(direction), addresses.inner(direction), &data);
            writer.to_client.frames = Some((Frames::default(), before(Direction::ToClient)));
            writer.to_remote.frames = Some((Frames::of_client(), before(Direction::ToRemote)));
        }
        writer
    }

    /// How much of `data` is better put now, as it ends where a frame does, or fills a datagram. The rest should wait for
    /// what follows.
    pub fn whole(&self, direction: Direction, data: &[u8]) -> usize {
        let half = match direction {
            Direction::ToClient => &self.to_client,
            Direction::ToRemote => &self.to_remote,
        };
        let Some((frames, _)) = &half.frames else {
            return data.len();
        };
        let room = half.room(self.packet_size);
        match frames.whole(data) {
            0 if data.len() >= room => room,
            whole => whole,
        }
    }

    /// Gives the datagrams for `data` to `send`, none for no data.
    pub fn put(&mut self, direction: Direction, mut data: &[u8], mut send: impl FnMut(&[u8])) {
        let (half, other) = match direction {
            Direction::ToClient => (&mut self.to_client, &self.to_remote),
            Direction::ToRemote => (&mut self.to_remote, &self.to_client),
        };
        let room = half.room(self.packet_size);
        while !data.is_empty() {
            let (piece, rest) = data.split_at(half.next(data, room));
            data = rest;
            // A stream's numbers go around at 2^32, as TCP's do.
            let next = half.seq.wrapping_add(u32::try_from(piece.len()).unwrap_or_default());
            let packet = &mut self.packet;
            packet.clear();
            packet.extend_from_slice(half.headers());
            if let Some((frames, _)) = &mut half.frames {
                frames.pass(piece);
            }
            for number in [half.seq, next, other.seq] {
                packet.extend_from_slice(&number.to_be_bytes());
            }
            packet.push(1); // what is here is not put together again
            packet.extend_from_slice(&TCP_FLAGS.to_be_bytes());
            packet.extend_from_slice(&[0, 0]); // urgent pointer
            put_option(packet, tag::END_OF_OPT, &[]);
            packet.extend_from_slice(piece);
            half.seq = next;
            send(packet);
        }
    }
}

impl Half {
    /// The longest piece.
    fn room(&self, packet_size: usize) -> usize {
        packet_size.saturating_sub(self.before.len() + 12 + AFTER_COUNTERS)
    }

    /// The length of the next piece.
    fn next(&self, data: &[u8], room: usize) -> usize {
        let most = data.len().min(room);
        let whole = self
            .frames
            .as_ref()
            .map(|(frames, _)| frames.whole(data.get(..most).unwrap_or(data)));
        whole.filter(|whole| *whole > 0).unwrap_or(most)
    }

    fn headers(&self) -> &[u8] {
        match &self.frames {
            Some((frames, inside)) if frames.is_inside() => inside,
            _ => &self.before,
        }
    }
}

/// Both headers, up to the counters.
fn headers(outer: Endpoints, inner: Endpoints, dissector: &Dissector) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    put_option(&mut out, tag::DISSECTOR_NAME, EXPORTED_PDU.as_bytes());
    put_endpoints(&mut out, outer);
    put_option(&mut out, tag::END_OF_OPT, &[]);
    match dissector {
        Dissector::Name(name) => {
            let name = name.as_bytes();
            put_option(&mut out, tag::DISSECTOR_NAME, name.get(..MAX_NAME).unwrap_or(name));
        }
        Dissector::TcpPort(port) => put_table(&mut out, "tcp.port", *port),
        Dissector::TlsPort(port) => put_table(&mut out, "tls.port", *port),
    }
    put_endpoints(&mut out, inner);
    put_option(&mut out, tag::PORT_TYPE, &TCP.to_be_bytes());
    out.extend_from_slice(&tag::TCP_INFO_DATA.to_be_bytes());
    put_length(&mut out, TCP_INFO_LENGTH);
    out.extend_from_slice(&TCP_INFO_VERSION.to_be_bytes());
    out
}

fn put_table(out: &mut Vec<u8>, table: &str, port: u16) {
    put_option(out, tag::DISSECTOR_TABLE_NAME, table.as_bytes());
    put_option(out, tag::DISSECTOR_TABLE_NAME_NUM_VAL, &u32::from(port).to_be_bytes());
}

fn put_endpoints(out: &mut Vec<u8>, endpoints: Endpoints) {
    let (src, dst) = one_family(endpoints);
    for (address, v4, v6) in [(src, tag::IPV4_SRC, tag::IPV6_SRC), (dst, tag::IPV4_DST, tag::IPV6_DST)] {
        match address {
            IpAddr::V4(ip) => put_option(out, v4, &ip.octets()),
            IpAddr::V6(ip) => put_option(out, v6, &ip.octets()),
        }
    }
    let port = |address: SocketAddr| u32::from(address.port()).to_be_bytes();
    put_option(out, tag::SRC_PORT, &port(endpoints.src));
    put_option(out, tag::DST_PORT, &port(endpoints.dst));
}

/// Addresses as dissectors want them: both of IPv4, or both of IPv6.
pub(super) fn one_family(endpoints: Endpoints) -> (IpAddr, IpAddr) {
    let wide = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        wide @ IpAddr::V6(_) => wide,
    };
    match (endpoints.src.ip().to_canonical(), endpoints.dst.ip().to_canonical()) {
        (src, dst) if src.is_ipv4() == dst.is_ipv4() => (src, dst),
        (src, dst) => (wide(src), wide(dst)),
    }
}

fn put_option(out: &mut Vec<u8>, tag: u16, value: &[u8]) {
    out.extend_from_slice(&tag.to_be_bytes());
    put_length(out, value.len());
    out.extend_from_slice(value);
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // No option of ours is longer than `MAX_NAME`.
    out.extend_from_slice(&u16::try_from(length).unwrap_or_default().to_be_bytes());
}
