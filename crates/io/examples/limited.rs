//! How exact speed limits are in real time: tunnels between TCP sockets on two threads, measured from second 1 to
//! second 6. `cargo run --release --example limited` prints a line for each kind of limit.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a measurement on the command line"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use sluice_io::pump::PumpOptions;
use sluice_io::relay::{IdleCheck, Relay, RelayEnd, Side, Watch};
use sluice_io::throttle::{Rate, Refill, SharedLimit};
use sluice_io::wheel::Wheel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

struct Silent;

impl Watch for Silent {
    fn read(&self, _: Side, _: u64) {}
    fn wrote(&self, _: Side, _: u64) {}
    fn half_closed(&self, _: Side) {}
    fn check(&self, _: usize) -> Option<RelayEnd> {
        None
    }
    fn ended(&mut self, _: RelayEnd) {}
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (a, b) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (a.unwrap(), b.unwrap().0)
}

/// Opens tunnels on this thread and keeps them busy for seven seconds.
async fn tunnels(number: usize, own: Option<Rate>, shared: Option<Arc<SharedLimit>>, arrived: Arc<AtomicU64>) {
    let wheel = Wheel::new();
    tokio::spawn(Arc::clone(&wheel).run());
    for _ in 0..number {
        let (mut client, from) = pair().await;
        let (to, mut upstream) = pair().await;
        let options = PumpOptions {
            rate: own,
            ..PumpOptions::default()
        };
        let idle = IdleCheck {
            timer: wheel.timer(),
            interval: Duration::from_secs(60),
        };
        let (from, to) = ((from.into(), Vec::new()), (to.into(), Vec::new()));
        let mut relay = Relay::new(from, to, (options, options), idle, Silent);
        if let Some(limit) = &shared {
            relay.share(Side::Client, Arc::clone(limit));
        }
        tokio::spawn(relay);
        tokio::spawn(async move { while client.write_all(&[1; 65_536]).await.is_ok() {} });
        let arrived = Arc::clone(&arrived);
        tokio::spawn(async move {
            let mut buf = vec![0; 262_144];
            while let Ok(n @ 1..) = upstream.read(&mut buf).await {
                arrived.fetch_add(n as u64, Relaxed);
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(7)).await;
}

fn measure(number: usize, own: Option<u64>, shared: Option<u64>) -> f64 {
    let per = Duration::from_secs(1);
    let own = own.map(|bytes| Rate { bytes, per });
    let shared = shared.map(|amount| {
        SharedLimit::bytes(Refill {
            amount,
            per,
            most: amount,
        })
    });
    let arrived = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (shared, arrived) = (shared.clone(), Arc::clone(&arrived));
            scope.spawn(move || {
                let share = (number + 1 - thread) / 2;
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(tunnels(share, own, shared, arrived));
            });
        }
        let timer = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        timer.block_on(async {
            let start = tokio::time::Instant::now();
            tokio::time::sleep_until(start + Duration::from_secs(1)).await;
            let (before, from) = (arrived.load(Relaxed), start.elapsed());
            tokio::time::sleep_until(start + Duration::from_secs(6)).await;
            (arrived.load(Relaxed) - before) as f64 / (start.elapsed() - from).as_secs_f64()
        })
    })
}

fn main() {
    for rate in [100_000, 1_000_000, 10_000_000, 100_000_000] {
        for tunnels in [1, 100] {
            if rate * tunnels as u64 <= 200_000_000 {
                let speed = measure(tunnels, Some(rate), None) / tunnels as f64;
                println!(
                    "{tunnels:>4} tunnels, {rate:>10} B/s each:     {:.4}",
                    speed / rate as f64
                );
            }
            let speed = measure(tunnels, None, Some(rate));
            println!(
                "{tunnels:>4} tunnels, {rate:>10} B/s together: {:.4}",
                speed / rate as f64
            );
        }
    }
}
