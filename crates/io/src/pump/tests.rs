use super::*;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Waker;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::throttle::Refill;

#[derive(Default)]
struct Count(AtomicU64);

impl Meter for Count {
    fn read(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
    fn wrote(&self, _: u64) {}
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (a, b) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (a.unwrap(), b.unwrap().0)
}

fn limited(bytes: u64) -> PumpOptions {
    PumpOptions {
        rate: Some(Rate {
            bytes,
            per: Duration::from_secs(1),
        }),
        ..PumpOptions::default()
    }
}

fn refill(amount: u64) -> Refill {
    Refill {
        amount,
        per: Duration::from_secs(1),
        most: amount,
    }
}

/// The clock stands still: what one poll moves is what the limit lets pass at once.
async fn moved_at_once(options: PumpOptions, shared: &[u64], before: u64) -> u64 {
    let (mut source, from) = pair().await;
    let (to, _sink) = pair().await;
    source.write_all(&vec![7; 100_000]).await.unwrap();
    from.readable().await.unwrap();
    let mut pump = Pump::new(UntilClose, options);
    for &amount in shared {
        pump.share(SharedLimit::bytes(refill(amount)));
    }
    // As if so much had passed already.
    pump.moved = before;
    let count = Count::default();
    let mut context = Context::from_waker(Waker::noop());
    let (mut from, mut to) = (from.into(), to.into());
    for _ in 0..10 {
        assert!(pump.poll(&mut context, &mut from, &mut to, &count).is_pending());
    }
    assert!(pump.pipe.is_none(), "a pump that waits for a limit keeps a pipe");
    count.0.load(Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_read_never_exceeds_the_quota_lm_01() {
    for before in [0, SPLICE_AFTER] {
        assert_eq!(moved_at_once(limited(10_000), &[], before).await, 500);
        assert_eq!(moved_at_once(limited(10_000), &[100_000], before).await, 500);
        assert_eq!(moved_at_once(PumpOptions::default(), &[10_000], before).await, 10_000);
        assert_eq!(
            moved_at_once(PumpOptions::default(), &[50_000, 7_000], before).await,
            7_000
        );
        assert_eq!(moved_at_once(limited(1_000_000), &[50_000, 7_000], before).await, 7_000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pump_whose_source_has_nothing_holds_nothing_back() {
    let limit = SharedLimit::bytes(refill(1000));
    let (_source, from) = pair().await;
    let (to, _sink) = pair().await;
    let mut idle = Pump::new(UntilClose, PumpOptions::default());
    idle.share(Arc::clone(&limit));
    let mut context = Context::from_waker(Waker::noop());
    let (mut from, mut to) = (from.into(), to.into());
    for _ in 0..10 {
        assert!(
            idle.poll(&mut context, &mut from, &mut to, &Count::default())
                .is_pending()
        );
    }
    // A stream that cannot tell whether it has something is asked, and gives back what it was granted.
    let (_secure_source, secure) = duplex(100);
    let mut secure = Stream::Secure(Box::new(secure));
    for _ in 0..10 {
        assert!(
            idle.poll(&mut context, &mut secure, &mut to, &Count::default())
                .is_pending()
        );
    }
    let (mut busy_source, mut busy) = {
        let (busy_source, busy) = duplex(5000);
        (busy_source, Stream::Secure(Box::new(busy)))
    };
    busy_source.write_all(&[1; 5000]).await.unwrap();
    let mut pump = Pump::new(UntilClose, PumpOptions::default());
    pump.share(limit);
    let count = Count::default();
    assert!(pump.poll(&mut context, &mut busy, &mut to, &count).is_pending());
    assert_eq!(count.0.load(Relaxed), 1000);
}

/// Writes for ever; says how much has come out of the other end of a pump.
#[expect(clippy::disallowed_methods, reason = "the tests' runtime counts no tasks")]
fn pumped(options: PumpOptions, shared: Option<Arc<SharedLimit>>) -> Arc<AtomicU64> {
    let (mut source, from) = duplex(64 * 1024);
    let (to, mut sink): (DuplexStream, _) = duplex(64 * 1024);
    tokio::spawn(async move { while source.write_all(&[1; 10_000]).await.is_ok() {} });
    tokio::spawn(async move {
        let mut pump = Pump::new(UntilClose, options);
        if let Some(limit) = shared {
            pump.share(limit);
        }
        let count = Count::default();
        let (mut from, mut to) = (Stream::Secure(Box::new(from)), Stream::Secure(Box::new(to)));
        poll_fn(|cx| pump.poll(cx, &mut from, &mut to, &count)).await.unwrap();
    });
    let arrived = Arc::<AtomicU64>::default();
    let counter = Arc::clone(&arrived);
    tokio::spawn(async move {
        let mut buf = vec![0; 65_536];
        while let Ok(n) = sink.read(&mut buf).await {
            counter.fetch_add(n as u64, Relaxed);
        }
    });
    arrived
}

/// Bytes in a second, measured from second 1 to second 6.
async fn speed(arrived: &[Arc<AtomicU64>]) -> f64 {
    let total = || arrived.iter().map(|n| n.load(Relaxed)).sum::<u64>();
    sleep(Duration::from_secs(1)).await;
    let before = total();
    sleep(Duration::from_secs(5)).await;
    (total() - before) as f64 / 5.0
}

#[tokio::test(start_paused = true)]
async fn limits_hold_within_two_percent_for_one_pump_and_for_a_hundred() {
    for pumps in [1, 100] {
        for rate in [100_000, 1_000_000] {
            let own: Vec<_> = (0..pumps).map(|_| pumped(limited(rate), None)).collect();
            let factor = speed(&own).await / (rate * pumps) as f64;
            assert!((0.98..=1.02).contains(&factor), "{pumps} at {rate} each: {factor}");
            let limit = SharedLimit::bytes(refill(rate));
            let shared: Vec<_> = (0..pumps)
                .map(|_| pumped(PumpOptions::default(), Some(Arc::clone(&limit))))
                .collect();
            let factor = speed(&shared).await / rate as f64;
            assert!((0.98..=1.02).contains(&factor), "{pumps} at {rate} together: {factor}");
        }
    }
}
