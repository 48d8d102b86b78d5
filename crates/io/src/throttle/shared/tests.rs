use super::*;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};

const MEGABYTE: u64 = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);

fn per_second(amount: u64) -> Refill {
    Refill {
        amount,
        per: SECOND,
        most: amount,
    }
}

async fn take(member: &mut Member, want: u64) -> u64 {
    poll_fn(|cx| member.poll_granted(cx, Ask::Bytes(want))).await;
    let bytes = member.granted().bytes;
    assert!(bytes > 0 && bytes <= want, "{bytes} of {want}");
    bytes
}

/// Takes as much as it can, `each` at a time, of which it uses what `used` says.
#[expect(clippy::disallowed_methods, reason = "the tests' runtime counts no tasks")]
fn greedy(limit: &Arc<SharedLimit>, each: u64, used: fn(u64) -> u64) -> (Arc<AtomicU64>, JoinHandle<()>) {
    let count = Arc::new(AtomicU64::new(0));
    let moved = Arc::clone(&count);
    let mut member = Member::new(Arc::clone(limit));
    let task = tokio::spawn(async move {
        loop {
            let bytes = used(take(&mut member, each).await);
            member.settle(Grant { bytes, packets: 0 });
            moved.fetch_add(bytes, Relaxed);
        }
    });
    (count, task)
}

/// Bytes that all move from second 1 to second 6.
async fn in_five_seconds(counts: &[Arc<AtomicU64>]) -> f64 {
    let total = || counts.iter().map(|count| count.load(Relaxed)).sum::<u64>();
    sleep(SECOND).await;
    let before = total();
    sleep(5 * SECOND).await;
    (total() - before) as f64
}

#[tokio::test(start_paused = true)]
async fn the_speed_holds_for_one_and_for_a_hundred() {
    for (amount, members, each) in [
        (MEGABYTE, 1, 16_384),
        (MEGABYTE, 100, 16_384),
        (MEGABYTE, 100, 100),
        (100 * MEGABYTE, 1, 262_144),
        (100 * MEGABYTE, 100, 262_144),
        (10_000, 100, 16_384),
        (300, 1, 16_384),
    ] {
        let limit = SharedLimit::bytes(per_second(amount));
        let (counts, tasks): (Vec<_>, Vec<_>) = (0..members).map(|_| greedy(&limit, each, |n| n)).unzip();
        let speed = in_five_seconds(&counts).await / 5.0 / amount as f64;
        assert!((0.98..=1.02).contains(&speed), "{amount} {members} {each}: {speed}");
        for task in tasks {
            task.abort();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_get_the_same_share_each() {
    let limit = SharedLimit::bytes(per_second(MEGABYTE));
    let (counts, _tasks): (Vec<_>, Vec<_>) = (0..100).map(|_| greedy(&limit, 16_384, |n| n)).unzip();
    // The burst goes to whoever comes first.
    sleep(SECOND).await;
    let before: Vec<u64> = counts.iter().map(|count| count.load(Relaxed)).collect();
    sleep(60 * SECOND).await;
    let each = || {
        counts
            .iter()
            .zip(&before)
            .map(|(count, before)| count.load(Relaxed) - before)
    };
    let (least, most) = (each().min().unwrap(), each().max().unwrap());
    assert!(least > 590_000 && most < 610_000, "{least} to {most}");
}

#[tokio::test(start_paused = true)]
async fn those_who_want_little_get_it_beside_those_who_want_all() {
    let limit = SharedLimit::bytes(per_second(MEGABYTE));
    let _greedy: Vec<_> = (0..10).map(|_| greedy(&limit, 262_144, |n| n)).collect();
    sleep(SECOND).await;
    let mut modest = Member::new(Arc::clone(&limit));
    for _ in 0..100 {
        sleep(Duration::from_millis(10)).await;
        let start = Instant::now();
        let bytes = take(&mut modest, 100).await;
        modest.settle(Grant { bytes, packets: 0 });
        // One turn of each of the ten.
        assert!(start.elapsed() < Duration::from_millis(70), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_used_goes_back() {
    let limit = SharedLimit::bytes(per_second(MEGABYTE));
    let (counts, _tasks): (Vec<_>, Vec<_>) = (0..20).map(|_| greedy(&limit, 16_384, |n| n.div_ceil(10))).unzip();
    let speed = in_five_seconds(&counts).await / 5.0 / MEGABYTE as f64;
    assert!((0.98..=1.02).contains(&speed), "{speed}");
}

#[tokio::test(start_paused = true)]
async fn waiters_that_leave_cost_nothing() {
    let limit = SharedLimit::bytes(per_second(MEGABYTE));
    let (count, _task) = greedy(&limit, 16_384, |n| n);
    sleep(SECOND).await;
    let before = count.load(Relaxed);
    for _ in 0..50 {
        let crowd: Vec<_> = (0..1000).map(|_| greedy(&limit, 16_384, |_| 0).1).collect();
        tokio::task::yield_now().await;
        for task in crowd {
            task.abort();
        }
        sleep(Duration::from_millis(100)).await;
    }
    let speed = (count.load(Relaxed) - before) as f64 / 5.0 / MEGABYTE as f64;
    assert!((0.98..=1.02).contains(&speed), "{speed}");
    assert!(limit.lock().waiting.len() <= 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_nobody_polls_any_more_holds_nobody_up() {
    let limit = SharedLimit::bytes(per_second(MEGABYTE));
    let mut first = Member::new(Arc::clone(&limit));
    first.settle(Grant::default());
    let all = take(&mut first, MEGABYTE).await;
    first.settle(Grant { bytes: all, packets: 0 });
    let mut forgotten = Member::new(Arc::clone(&limit));
    poll_fn(|cx| {
        assert!(forgotten.poll_granted(cx, Ask::Bytes(1000)).is_pending());
        Poll::Ready(())
    })
    .await;
    let (counts, _tasks): (Vec<_>, Vec<_>) = (0..10).map(|_| greedy(&limit, 16_384, |n| n)).unzip();
    let speed = in_five_seconds(&counts).await / 5.0 / MEGABYTE as f64;
    assert!((0.98..=1.02).contains(&speed), "{speed}");
    // It gets its turn like everybody when it comes back.
    let start = Instant::now();
    assert_eq!(take(&mut forgotten, 1000).await, 1000);
    assert!(start.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn waiting_takes_no_cpu_lm_04() {
    let limit = SharedLimit::bytes(per_second(MEGABYTE));
    let mut member = Member::new(Arc::clone(&limit));
    let mut polls = 0;
    for _ in 0..1000 {
        poll_fn(|cx| {
            polls += 1;
            member.poll_granted(cx, Ask::Bytes(16_384))
        })
        .await;
        let used = member.granted();
        member.settle(used);
    }
    assert!(polls <= 2000, "{polls}");
}

#[tokio::test(start_paused = true)]
async fn the_burst_may_pass_at_once_and_again_after_a_pause() {
    let refill = Refill {
        amount: 1000,
        per: SECOND,
        most: 5000,
    };
    let limit = SharedLimit::bytes(refill);
    let mut member = Member::new(limit);
    for _ in 0..2 {
        let start = Instant::now();
        let mut moved = 0;
        while moved < 5000 {
            let used = Grant {
                bytes: take(&mut member, 700).await,
                packets: 0,
            };
            member.settle(used);
            moved += used.bytes;
        }
        assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
        advance(Duration::from_secs(3600)).await;
    }
}

/// The tokens are counted, not the time: what several threads take while the clock stands still is what was there.
#[test]
fn threads_get_what_is_there_between_them() {
    let limit = SharedLimit::bytes(Refill {
        amount: 1,
        per: Duration::from_secs(1 << 30),
        most: MEGABYTE,
    });
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                let mut member = Member::new(Arc::clone(&limit));
                runtime.block_on(async {
                    let taking = async {
                        for turn in 0_u64.. {
                            let bytes = take(&mut member, 1 + turn % 100).await;
                            // Every third grant is not used, every seventh in part.
                            let bytes = if turn % 3 == 0 { 0 } else { bytes - u64::from(turn % 7 == 0 && bytes > 1) };
                            member.settle(Grant { bytes, packets: 0 });
                            total.fetch_add(bytes, Relaxed);
                        }
                    };
                    tokio::select! {
                        () = taking => {}
                        () = async { while total.load(Relaxed) + 100 < MEGABYTE { tokio::task::yield_now().await } } => {}
                    }
                });
            });
        }
    });
    let total = total.into_inner();
    assert!(total <= MEGABYTE && total + 400 >= MEGABYTE, "{total}");
}

/// LM-01.
#[tokio::test(start_paused = true)]
async fn what_passes_without_a_pump_takes_its_time_too() {
    let limit = SharedLimit::bytes(Refill {
        amount: 10_000,
        per: SECOND,
        most: 1,
    });
    let start = Instant::now();
    let passing = (0..4).map(|_| limit.pass(5_000));
    futures_util::future::join_all(passing).await;
    let took = start.elapsed();
    assert!(
        took > Duration::from_millis(1_900) && took < Duration::from_millis(2_100),
        "{took:?}"
    );
    limit.pass(0).await;
}
