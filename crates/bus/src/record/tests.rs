use std::{
    io::{self, IoSlice},
    net::UdpSocket,
    pin::Pin,
    task::{Context, Poll},
};

use sluice_io::{SecureIo, Stream};
use sluice_wire::audit::{Message, Record, Welcome};
use sluice_wire::dump::{Direction, Pdu};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::*;
use crate::Router;

fn meta() -> FlowMeta {
    FlowMeta {
        task: [1; 16],
        depth: 1,
        auditor: "a".to_owned(),
        server: "s".to_owned(),
        user: None,
        upstream: "www.example:443".to_owned(),
        protocol: "http_1".to_owned(),
        rule: None,
        addresses: Addresses {
            client: "10.0.0.1:40000".parse().unwrap(),
            server: "10.0.0.2:8080".parse().unwrap(),
            local: "192.0.2.1:50000".parse().unwrap(),
            remote: "192.0.2.9:443".parse().unwrap(),
        },
        dissector: Dissector::Name("http".to_owned()),
        sniff: None,
    }
}

/// A peer that takes no more than three bytes of a write, and seven of one of several slices.
struct Slow(DuplexStream);

impl SecureIo for Slow {
    fn transport(&self) -> &Stream {
        unreachable!("no test asks for the socket below")
    }
}

impl AsyncRead for Slow {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Slow {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &buf[..buf.len().min(3)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        Pin::new(&mut self.0).poll_write(cx, &all[..all.len().min(7)])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A reader of exported PDUs, and what it has got.
struct Reader(UdpSocket);

impl Reader {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(socket)
    }

    fn dump(&self, packet_size: usize) -> Arc<UdpDump> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.0.local_addr().unwrap()).unwrap();
        UdpDump::new(socket, packet_size).unwrap()
    }

    /// The next pieces, until `bytes` of them have come: which way, and where in the stream.
    fn pieces(&self, bytes: usize) -> Vec<(Direction, u32, Vec<u8>)> {
        let mut pieces = Vec::new();
        let mut total = 0;
        let mut packet = [0; 65_536];
        while total < bytes {
            let length = self.0.recv(&mut packet).unwrap();
            let pdu = Pdu::take(&packet[..length]).unwrap();
            let outer = pdu.outer.unwrap();
            let direction = if outer == meta().addresses.outer(Direction::ToRemote) {
                Direction::ToRemote
            } else {
                Direction::ToClient
            };
            total += pdu.payload.len();
            pieces.push((direction, pdu.tcp.unwrap().seq, pdu.payload.to_vec()));
        }
        pieces
    }
}

fn bytes_of(pieces: &[(Direction, u32, Vec<u8>)], way: Direction) -> Vec<u8> {
    let of_way = pieces.iter().filter(|(direction, ..)| *direction == way);
    of_way.flat_map(|(.., bytes)| bytes.clone()).collect()
}

#[tokio::test]
async fn partial_writes_are_dumped_as_far_as_they_went_and_vectored_ones_once() {
    // TLS-19
    let reader = Reader::new();
    let dump = Arc::new(reader.dump(1480).flow(&meta()));
    let (near, mut far) = tokio::io::duplex(64);
    let stream = Stream::Secure(Box::new(Slow(near)));
    let mut recorded = Recorded::new(stream, Side::Remote, Arc::clone(&dump));
    assert_eq!(recorded.write(b"abcdefgh").await.unwrap(), 3);
    recorded.write_all(b"defgh").await.unwrap();
    let slices = [IoSlice::new(b"ijkl"), IoSlice::new(b""), IoSlice::new(b"mnopq")];
    // The count is one of bytes, over several slices.
    assert_eq!(recorded.write_vectored(&slices).await.unwrap(), 7);
    let pieces = reader.pieces(15);
    assert_eq!(bytes_of(&pieces, Direction::ToRemote), b"abcdefghijklmno");
    let places: Vec<u32> = pieces.iter().map(|(_, seq, _)| *seq).collect();
    assert_eq!(places, [1, 4, 7, 9, 13], "each piece stands where it went");
    far.write_all(b"answer").await.unwrap();
    let mut buf = [0; 4];
    recorded.read_exact(&mut buf).await.unwrap();
    assert_eq!(
        bytes_of(&reader.pieces(4), Direction::ToClient),
        b"answ",
        "what was read, not what has come"
    );
    let mut sent = [0; 15];
    far.read_exact(&mut sent).await.unwrap();
    assert_eq!(&sent, b"abcdefghijklmno");
}

#[tokio::test]
async fn what_a_client_sends_goes_to_the_upstream() {
    let reader = Reader::new();
    let dump = Arc::new(reader.dump(1480).flow(&meta()));
    let (near, mut far) = tokio::io::duplex(64);
    let mut recorded = Recorded::new(Stream::Secure(Box::new(Slow(near))), Side::Client, dump).into_stream();
    far.write_all(b"ask").await.unwrap();
    recorded.read_exact(&mut [0; 3]).await.unwrap();
    recorded.write_all(b"yes").await.unwrap();
    let pieces = reader.pieces(6);
    assert_eq!(bytes_of(&pieces, Direction::ToRemote), b"ask");
    assert_eq!(bytes_of(&pieces, Direction::ToClient), b"yes");
}

#[test]
fn datagrams_keep_to_their_size_and_lost_ones_are_counted() {
    let reader = Reader::new();
    let dump = reader.dump(0);
    dump.flow(&meta()).to_client(&[7; 5000]);
    let pieces = reader.pieces(5000);
    assert!(pieces.len() >= 5, "{}", pieces.len());
    assert_eq!(
        dump.stats(),
        UdpDumpStats {
            sent: pieces.len() as u64,
            lost: 0
        }
    );
    // Nobody listens any more: the system says so at the second packet.
    drop(reader);
    for _ in 0..3 {
        dump.flow(&meta()).to_client(b"x");
    }
    assert!(dump.stats().lost >= 1);
}

#[test]
fn a_reader_that_has_come_back_gets_the_first_datagram_too() {
    let reader = Reader::new();
    let address = reader.0.local_addr().unwrap();
    let dump = reader.dump(1480);
    drop(reader);
    dump.flow(&meta()).to_client(b"lost");
    let reader = Reader(UdpSocket::bind(address).unwrap());
    reader.0.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    dump.flow(&meta()).to_client(b"first");
    dump.flow(&meta()).to_client(b"second");
    assert_eq!(bytes_of(&reader.pieces(11), Direction::ToClient), b"firstsecond");
    assert_eq!(dump.stats(), UdpDumpStats { sent: 3, lost: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_stalled_stream_ends_and_one_that_may_lose_goes_on() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = SenderConfig {
        path: dir.path().join("dump"), // where nobody is
        name: "test".to_owned(),
        queue: 1 << 20,
        grace: Duration::from_secs(5),
    };
    let recorder = Recorder::start(&config).unwrap();
    let free = recorder.flow(&meta(), Policy::Drop);
    free.to_remote(b"x");
    assert!(!free.is_strict());
    free.ready().await.unwrap();
    let limit = Duration::from_secs(7);
    let strict = Arc::new(recorder.flow(&meta(), Policy::Stall(limit)));
    assert_eq!(
        strict.ready().await,
        Err(Stalled { limit }),
        "not even its beginning is written"
    );
    let (near, mut far) = tokio::io::duplex(64);
    let mut recorded = Recorded::new(Stream::Secure(Box::new(Slow(near))), Side::Remote, strict);
    far.write_all(b"secret").await.unwrap();
    let error = recorded.read(&mut [0; 6]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("within 7 s"), "{error}");
    let error = recorded.write_all(b"secret").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(recorded.read(&mut [0; 6]).await.is_err(), "not even when asked again");
    drop(recorded);
    let mut sent = Vec::new();
    far.read_to_end(&mut sent).await.unwrap();
    assert_eq!(sent, b"", "nothing unwritten has gone on");
}

/// An auditd that acknowledges when it is told to.
struct Auditd {
    router: Router,
    peer: Option<crate::Peer>,
    stream: Id,
}

impl Auditd {
    fn bind(path: &std::path::Path) -> Self {
        Self {
            router: Router::bind(path).unwrap(),
            peer: None,
            stream: [0; 16],
        }
    }

    /// The number of the next batch.
    fn batch(&mut self) -> u64 {
        self.pdus().0
    }

    /// The number of the next batch, and of its PDUs who dissects them, and their bytes.
    fn pdus(&mut self) -> (u64, Vec<(Dissector, Vec<u8>)>) {
        loop {
            let Some((peer, message)) = self.router.recv().unwrap() else {
                crate::wait(&[crate::Event::Readable(self.router.socket())], Duration::from_secs(20)).unwrap();
                continue;
            };
            match Message::take(&message).unwrap().unwrap() {
                Message::Hello(hello) => {
                    self.stream = hello.stream;
                    let welcome = Message::Welcome(Welcome {
                        stream: hello.stream,
                        instance: [9; 16],
                        written: 0,
                    });
                    self.router.send(&peer, &welcome.to_vec()).unwrap();
                    self.peer = Some(peer);
                }
                Message::Batch(batch) if batch.seq > 0 => {
                    let pdu = |record| match record {
                        Ok(Record::Dump(dump)) => Some(Pdu::take(dump.pdu).unwrap()),
                        _ => None,
                    };
                    let pdus = batch.records().filter_map(pdu);
                    return (
                        batch.seq,
                        pdus.map(|pdu| (pdu.dissector, pdu.payload.to_vec())).collect(),
                    );
                }
                _ => {}
            }
        }
    }

    fn acknowledge(&self, seq: u64) {
        let ack = Message::Ack {
            stream: self.stream,
            seq,
        };
        self.router.send(self.peer.as_ref().unwrap(), &ack.to_vec()).unwrap();
    }
}

/// Polls once.
async fn is_pending<F: Future>(future: Pin<&mut F>) -> bool {
    let mut future = future;
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

#[tokio::test]
async fn of_a_stream_that_may_lose_nothing_what_is_acknowledged_goes_on_and_no_more() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = SenderConfig {
        path: dir.path().join("dump"),
        name: "test".to_owned(),
        queue: 1 << 20,
        grace: Duration::from_secs(5),
    };
    let mut auditd = Auditd::bind(&config.path);
    let recorder = Recorder::start(&config).unwrap();
    let strict = Arc::new(recorder.flow(&meta(), Policy::Stall(Duration::from_secs(20))));
    let (near, mut far) = tokio::io::duplex(64);
    let mut recorded = Recorded::new(Stream::Secure(Box::new(Slow(near))), Side::Remote, strict);
    let begun = auditd.batch();
    auditd.acknowledge(begun);
    // What is written: several slices as one, and more than the peer takes at a time.
    {
        let slices = [IoSlice::new(b"a sec"), IoSlice::new(b"ret")];
        let mut write = std::pin::pin!(recorded.write_vectored(&slices));
        assert!(is_pending(write.as_mut()).await);
        let seq = auditd.batch();
        assert!(is_pending(write.as_mut()).await);
        let mut nothing = [0; 1];
        assert!(
            is_pending(std::pin::pin!(far.read(&mut nothing))).await,
            "it has gone on"
        );
        auditd.acknowledge(seq);
        assert_eq!(write.await.unwrap(), 8);
    }
    let mut sent = [0; 8];
    far.read_exact(&mut sent).await.unwrap();
    assert_eq!(&sent, b"a secret");
    // What is read: given once it is written, in pieces as there is room.
    far.write_all(b"answer").await.unwrap();
    let mut buf = [0; 6];
    {
        let mut read = std::pin::pin!(recorded.read(&mut buf));
        assert!(is_pending(read.as_mut()).await);
        let seq = auditd.batch();
        assert!(is_pending(read.as_mut()).await);
        auditd.acknowledge(seq);
        assert_eq!(read.await.unwrap(), 6);
    }
    assert_eq!(&buf, b"answer");
    far.write_all(b"more").await.unwrap();
    let mut all = [0; 4];
    let mut read = std::pin::pin!(recorded.read_exact(&mut all));
    assert!(is_pending(read.as_mut()).await);
    let seq = auditd.batch();
    auditd.acknowledge(seq);
    read.await.unwrap();
    assert_eq!(&all, b"more");
}

/// A frame of this many bytes.
fn frame(length: usize) -> Vec<u8> {
    let mut frame = u32::try_from(length).unwrap().to_be_bytes()[1..].to_vec();
    frame.resize(9 + length, 0);
    frame
}

/// PDUs of the next batches, until there are `bytes` of them.
fn pdus(auditd: &mut Auditd, bytes: usize) -> Vec<(Dissector, Vec<u8>)> {
    let mut all = Vec::new();
    while all.iter().map(|(_, bytes): &(_, Vec<u8>)| bytes.len()).sum::<usize>() < bytes {
        let (seq, mut pdus) = auditd.pdus();
        all.append(&mut pdus);
        auditd.acknowledge(seq);
    }
    all
}

#[tokio::test]
async fn frames_of_http2_are_not_cut_in_pdus_however_they_are_read() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = SenderConfig {
        path: dir.path().join("dump"),
        name: "test".to_owned(),
        queue: 4 << 20,
        grace: Duration::from_secs(5),
    };
    let mut auditd = Auditd::bind(&config.path);
    let recorder = Recorder::start(&config).unwrap();
    let http2 = FlowMeta {
        dissector: Dissector::Name("http2".to_owned()),
        ..meta()
    };
    let all: Vec<u8> = [
        frame(0),
        frame(3),
        frame(100_000),
        frame(70),
        frame(260_000),
        frame(1),
        frame(9),
    ]
    .concat();
    for step in [1, 7, 16_384, 1 << 20] {
        let flow = recorder.flow(&http2, Policy::Drop);
        all.chunks(step).for_each(|piece| flow.to_client(piece));
        flow.to_client(&frame(50)[..20]);
        drop(flow);
        let pdus = pdus(&mut auditd, all.len() + 20);
        let (http, data): (Vec<_>, Vec<_>) = pdus.iter().partition(|(dissector, _)| *dissector == http2.dissector);
        // Wireshark takes no larger one than 256 KiB: a larger frame is one and a rest without a name.
        assert_eq!(data.len(), 1, "{step}");
        let whole = http.iter().filter(|(_, bytes)| {
            let mut rest = &bytes[..];
            while rest.len() >= 9 {
                let length = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
                rest = rest.get(9 + length..).unwrap_or(&[0]);
            }
            rest.is_empty()
        });
        assert_eq!(
            whole.count(),
            http.len() - 2,
            "{step}: but for the front of the large one, and what is left at the end"
        );
        let bytes: Vec<u8> = pdus.into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert_eq!(bytes[..all.len()], all, "{step}");
    }
    // Where nothing may go on unrecorded, it goes on when the frame is whole.
    let strict = Arc::new(recorder.flow(&http2, Policy::Stall(Duration::from_secs(20))));
    let (near, mut far) = tokio::io::duplex(64);
    let mut recorded = Recorded::new(Stream::Secure(Box::new(Slow(near))), Side::Remote, strict);
    let mut buf = [0; 100];
    let mut read = std::pin::pin!(recorded.read(&mut buf));
    far.write_all(&frame(20)[..15]).await.unwrap();
    assert!(is_pending(read.as_mut()).await);
    far.write_all(&frame(20)[15..]).await.unwrap();
    assert!(is_pending(read.as_mut()).await);
    assert_eq!(pdus(&mut auditd, 29)[0].1, frame(20));
    assert_eq!(read.await.unwrap(), 29);
}
