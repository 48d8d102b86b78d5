use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::wheel::Wheel;

#[derive(Default)]
struct Counts {
    end: std::sync::Mutex<Option<RelayEnd>>,
    read: [AtomicU64; 2],
    wrote: [AtomicU64; 2],
    half_closed: AtomicU64,
}

impl Watch for Arc<Counts> {
    fn read(&self, side: Side, n: u64) {
        self.read[side as usize].fetch_add(n, Relaxed);
    }
    fn wrote(&self, side: Side, n: u64) {
        self.wrote[side as usize].fetch_add(n, Relaxed);
    }
    fn half_closed(&self, _: Side) {
        self.half_closed.fetch_add(1, Relaxed);
    }
    fn check(&self, idle: usize) -> Option<RelayEnd> {
        (idle > 3).then_some(RelayEnd::Idle)
    }
    fn ended(&mut self, end: RelayEnd) {
        *self.end.lock().unwrap() = Some(end);
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (a, b) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (a.unwrap(), b.unwrap().0)
}

struct Tunnel {
    client: TcpStream,
    upstream: TcpStream,
    counts: Arc<Counts>,
    relay: tokio::task::JoinHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "the tests' runtime counts no tasks")]
async fn tunnel(interval: Duration, early: &[u8]) -> Tunnel {
    let wheel = Wheel::new();
    tokio::spawn(Arc::clone(&wheel).run());
    let (client, inner_client) = pair().await;
    let (upstream, inner_upstream) = pair().await;
    let counts = Arc::new(Counts::default());
    let idle = IdleCheck {
        timer: wheel.timer(),
        interval,
    };
    let relay = Relay::new(
        (inner_client.into(), early.to_vec()),
        (inner_upstream.into(), Vec::new()),
        (PumpOptions::default(), PumpOptions::default()),
        idle,
        Arc::clone(&counts),
    );
    Tunnel {
        client,
        upstream,
        counts,
        relay: tokio::spawn(relay),
    }
}

async fn ended(relay: tokio::task::JoinHandle<()>, counts: &Counts) -> RelayEnd {
    relay.await.unwrap();
    counts.end.lock().unwrap().take().unwrap()
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn bytes_and_half_close_pass_both_ways() {
    let mut t = tunnel(LONG, b"early ").await;
    t.client.write_all(b"bird").await.unwrap();
    t.client.shutdown().await.unwrap();
    let mut got = String::new();
    t.upstream.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "early bird");
    t.upstream.write_all(b"late answer").await.unwrap();
    drop(t.upstream);
    let mut got = String::new();
    t.client.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "late answer");
    let counts = Arc::clone(&t.counts);
    assert!(matches!(ended(t.relay, &counts).await, RelayEnd::Closed(Side::Client)));
    assert_eq!(counts.read[0].load(Relaxed), 4);
    assert_eq!(counts.wrote[1].load(Relaxed), 10);
    assert_eq!(counts.read[1].load(Relaxed), 11);
    assert_eq!(counts.wrote[0].load(Relaxed), 11);
    assert_eq!(counts.half_closed.load(Relaxed), 1);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the tests' runtime counts no tasks")]
async fn a_long_stream_in_both_directions_arrives_whole() {
    const SIZE: usize = 20 << 20;
    let t = tunnel(LONG, b"").await;
    let data: Arc<Vec<u8>> = Arc::new((0..SIZE).map(|i| (i / 7 % 251) as u8).collect());
    let mut ends = Vec::new();
    for stream in [t.client, t.upstream] {
        let (mut read, mut write) = stream.into_split();
        let sent = Arc::clone(&data);
        tokio::spawn(async move { write.write_all(&sent).await.unwrap() });
        let expected = Arc::clone(&data);
        ends.push(tokio::spawn(async move {
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.unwrap();
            assert!(got == *expected);
        }));
    }
    for end in ends {
        end.await.unwrap();
    }
    assert!(matches!(ended(t.relay, &t.counts).await, RelayEnd::Closed(_)));
    for counter in t.counts.read.iter().chain(&t.counts.wrote) {
        assert_eq!(counter.load(Relaxed), SIZE as u64);
    }
}

#[tokio::test]
async fn one_way_traffic_keeps_a_tunnel_open_and_silence_ends_it() {
    let mut t = tunnel(Duration::from_millis(100), b"").await;
    // Ten idle times long, one direction only.
    let mut got = [0; 1];
    let mut every = tokio::time::interval(Duration::from_millis(150));
    for _ in 0..10 {
        every.tick().await;
        t.upstream.write_all(b"x").await.unwrap();
        t.client.read_exact(&mut got).await.unwrap();
    }
    assert!(matches!(ended(t.relay, &t.counts).await, RelayEnd::Idle));
}

#[tokio::test]
async fn a_reset_by_one_end_ends_the_tunnel_and_says_which() {
    let t = tunnel(LONG, b"").await;
    t.upstream.set_zero_linger().unwrap();
    drop(t.upstream);
    assert!(matches!(
        ended(t.relay, &t.counts).await,
        RelayEnd::ReadFailed(Side::Upstream, _)
    ));
    drop(t.client);
}
