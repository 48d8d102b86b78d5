//! Copies of what is inside of TLS (`tls_stream_dump`), to the group's auditd or to any reader of exported PDUs.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use sluice_bus::{FlowDump, FlowMeta, Policy, Recorded, Side, UdpDump, UdpDumpStats};
use sluice_config::value::{ByteSize, ResolveAddrError};
use sluice_io::Stream;
use sluice_sniff::{Hints, Limits, Protocol, Verdict, of_client, of_server};
use sluice_sys::udp::{UdpBind, connect};
use sluice_telemetry::metrics::Shards;
use sluice_telemetry::warn;
use sluice_wire::dump::{Addresses, DEFAULT_PACKET_SIZE, Direction, Dissector};
use tokio::net::TcpStream;

use super::Flow;
use super::config::{AuditorConfig, OnAuditdFailure};
use super::record::{Recording, id};
use super::tls::{Sides, Surroundings, of_alpn};
use crate::client::Client;
use crate::config::udp_options;
use crate::http::exchange::Upstream;
use crate::peer::Address;
use crate::user::Permit;

/// How long a stream waits for auditd, if its auditor wants it to.
const STALL: Duration = Duration::from_secs(10);

/// Where copies go.
pub(super) struct Dump {
    transport: Transport,
    /// Whose side of the stream is copied.
    side: Side,
}

enum Transport {
    Auditd(Arc<Recording>, Policy),
    Udp {
        peer: SocketAddr,
        packet_size: usize,
        /// What a socket is made of.
        bind: Box<UdpBind>,
        /// One for each worker, made when it is needed; none where that has failed.
        sockets: Shards<OnceLock<Option<Arc<UdpDump>>>>,
    },
}

impl Dump {
    /// Where copies go by `config`, if anywhere.
    ///
    /// # Errors
    /// If the name of the reader leads to no address.
    pub(super) fn new(config: &AuditorConfig, around: &Surroundings) -> Result<Option<Self>, ResolveAddrError> {
        let Some(dump) = &config.tls_stream_dump else {
            return Ok(None);
        };
        let policy = match config.on_auditd_failure {
            OnAuditdFailure::Drop => Policy::Drop,
            OnAuditdFailure::Stall => Policy::Stall(STALL),
        };
        let peer = match (&dump.peer, &around.recorder) {
            (Some(peer), _) => Some(peer.resolve()?),
            (None, Address::Udp(address)) => Some(*address),
            (None, Address::Unix(_) | Address::Tcp(_)) => None,
        };
        let transport = match (peer, &around.recording) {
            (Some(peer), _) => Transport::Udp {
                peer,
                packet_size: dump.packet_size.unwrap_or(DEFAULT_PACKET_SIZE),
                bind: Box::new(UdpBind {
                    receive_buffer: dump.socket_buffer.recv.map(ByteSize::as_usize),
                    send_buffer: dump.socket_buffer.send.map(ByteSize::as_usize),
                    options: udp_options(dump.misc_opts),
                    ..UdpBind::new(any_of(peer))
                }),
                sockets: Shards::with(OnceLock::new),
            },
            (None, Some(recording)) => Transport::Auditd(Arc::clone(recording), policy),
            (None, None) => return Ok(None),
        };
        let side = if dump.client_side { Side::Client } else { Side::Remote };
        Ok(Some(Self { transport, side }))
    }

    /// What stands in `status` of copies that go to a reader over UDP.
    pub(super) fn status(&self) -> Option<Value> {
        let Transport::Udp { peer, sockets, .. } = &self.transport else {
            return None;
        };
        let sum = |count: fn(UdpDumpStats) -> u64| {
            sockets.sum(|socket| {
                socket
                    .get()
                    .and_then(Option::as_ref)
                    .map_or(0, |dump| count(dump.stats()))
            })
        };
        Some(json!({
            "peer": peer.to_string(),
            "sent": sum(|stats| stats.sent),
            "lost": sum(|stats| stats.lost),
        }))
    }

    /// Begins the copy of a stream; none if it cannot be made.
    fn flow(&self, meta: &FlowMeta) -> Option<FlowDump> {
        match &self.transport {
            Transport::Auditd(recording, policy) => Some(recording.recorder().flow(meta, *policy)),
            Transport::Udp {
                peer,
                packet_size,
                bind,
                sockets,
            } => {
                let socket = sockets.mine().get_or_init(|| open(*peer, *packet_size, bind));
                socket.as_ref().map(|socket| socket.flow(meta))
            }
        }
    }
}

/// Any address of the family of this one.
fn any_of(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

fn open(peer: SocketAddr, packet_size: usize, bind: &UdpBind) -> Option<Arc<UdpDump>> {
    let opened = bind
        .open()
        .and_then(|socket| connect(&socket, peer).map(|()| socket))
        .and_then(|socket| UdpDump::new(socket, packet_size));
    opened
        .inspect_err(|error| warn!("copies of streams cannot be sent"; "peer" => %peer, "error" => %error))
        .ok()
}

impl Flow {
    /// Lets what goes through `sides`, from which TLS was taken off, be copied, if the auditor does that. Nothing of it
    /// has been read yet.
    pub(super) fn recorded(&self, mut sides: Sides, alpn: Option<&[u8]>) -> Sides {
        let Some(dump) = &self.auditor.dump else {
            return sides;
        };
        let protocol = alpn.and_then(of_alpn);
        let meta = FlowMeta {
            task: id(self.task.id),
            depth: self.depth,
            auditor: self.auditor.name.to_string(),
            server: self.task.server().name.to_string(),
            user: self.task.permit().and_then(Permit::log_name).map(ToString::to_string),
            upstream: self.upstream.to_string(),
            protocol: protocol.map_or("_unknown", Protocol::as_str).to_owned(),
            rule: Some(self.rule(protocol)),
            addresses: self.addresses(&sides),
            dissector: protocol
                .and_then(dissector)
                .unwrap_or(Dissector::TlsPort(self.upstream.port)),
            sniff: protocol.is_none().then_some(sniff),
        };
        let Some(flow) = dump.flow(&meta).map(Arc::new) else {
            return sides;
        };
        match dump.side {
            Side::Client => {
                let Client {
                    stream,
                    buf,
                    timer,
                    peers,
                    waiting_since,
                } = *sides.client;
                sides.client = Box::new(Client {
                    stream: Recorded::new(stream, Side::Client, flow).into_stream(),
                    buf,
                    timer,
                    peers,
                    waiting_since,
                });
            }
            Side::Remote => {
                let stream = Recorded::new(sides.upstream.stream, Side::Remote, flow).into_stream();
                sides.upstream = Upstream {
                    stream,
                    ..sides.upstream
                };
            }
        }
        sides
    }
}

impl Flow {
    /// The local and the remote address of an upstream connection of its stream, or of the one that it is inside of.
    pub(super) fn upstream_ends(&self, upstream: &Stream) -> Option<[SocketAddr; 2]> {
        upstream.tcp().map(ends).or(self.shared)
    }

    /// The four ends.
    fn addresses(&self, sides: &Sides) -> Addresses {
        let none = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let [local, remote] = self.upstream_ends(&sides.upstream.stream).unwrap_or([none; 2]);
        Addresses {
            client: sides.client.peers.client,
            server: sides.client.peers.server,
            local,
            remote,
        }
    }

    /// What has decided that the stream is looked into, and how: keys of the configuration, with commas between them.
    fn rule(&self, protocol: Option<Protocol>) -> String {
        let permit = self.task.permit();
        let drawn = if permit.is_some() { "user.audit" } else { "auditor" };
        let tls = permit
            .and_then(Permit::tls_client)
            .map(|_| "site.tls_client".to_owned());
        let policy = protocol.and_then(|protocol| self.auditor.rule(protocol, &self.upstream));
        let more = tls.into_iter().chain(policy);
        more.fold(drawn.to_owned(), |rule, part| rule + "," + &part)
    }
}

/// Wireshark's word for a protocol, of those that it has long known.
fn dissector(protocol: Protocol) -> Option<Dissector> {
    let name = match protocol {
        Protocol::Ftp => "ftp",
        Protocol::Http1 => "http",
        Protocol::Http2 => "http2",
        Protocol::Imap => "imap",
        Protocol::Mqtt => "mqtt",
        Protocol::Pop3 => "pop",
        Protocol::Smtp => "smtp",
        Protocol::Ssh => "ssh",
        Protocol::TlsLegacy | Protocol::TlsModern => "tls",
        _ => return None,
    };
    Some(Dissector::Name(name.to_owned()))
}

/// Who makes sense of the first bytes of a stream of which no ALPN has told anything.
fn sniff(direction: Direction, data: &[u8]) -> Option<Dissector> {
    let (hints, limits) = (Hints::default(), Limits::default());
    let verdict = match direction {
        Direction::ToClient => of_server(data, hints, &limits),
        Direction::ToRemote => of_client(data, hints, &limits),
    };
    match verdict {
        Verdict::Is(protocol) => dissector(protocol),
        Verdict::More | Verdict::Not => None,
    }
}

/// The local and the remote address of a connection; one that the system no longer knows is all zeros.
fn ends(tcp: &TcpStream) -> [SocketAddr; 2] {
    let none = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    [tcp.local_addr(), tcp.peer_addr()].map(|end| end.unwrap_or(none))
}
