use super::*;
use crate::throttle::Refill;
use std::future::poll_fn;
use tokio::time::sleep;

const SLICE: Duration = Duration::from_millis(1024);

async fn send(limits: &mut DatagramLimits, sizes: &[u64]) -> usize {
    let sent = poll_fn(|cx| limits.poll_allowed(cx, sizes.iter().copied())).await;
    assert!((1..=sizes.len()).contains(&sent));
    limits.settle(sizes[..sent].iter().copied());
    sent
}

fn packets(packets: u64) -> DatagramRate {
    DatagramRate {
        bytes: None,
        packets: Some(PacketRate { packets, per: SLICE }),
    }
}

fn bytes(bytes: u64) -> DatagramRate {
    DatagramRate {
        bytes: Some(Rate { bytes, per: SLICE }),
        packets: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_packet_limit_of_n_lets_exactly_n_through_per_slice_udp_05() {
    for most in [1, 2, 10] {
        let mut limits = DatagramLimits::new(packets(most), []).unwrap();
        let start = Instant::now();
        let mut at = Vec::new();
        while at.len() < 20 * most as usize {
            let sent = send(&mut limits, &[100; 8]).await;
            at.extend(std::iter::repeat_n(start.elapsed(), sent));
        }
        for slice in 0..19 {
            // A timer may come a millisecond late; it never comes early.
            let (from, to) = (SLICE * slice, SLICE * (slice + 1));
            let late = Duration::from_millis(1) * slice;
            let inside = at.iter().filter(|&&at| at >= from + late && at < to + late).count();
            assert_eq!(inside, most as usize, "slice {slice} of {most}");
        }
        for (first, from) in at.iter().enumerate() {
            let within = at[first..].iter().take_while(|&&at| at < *from + SLICE).count();
            assert!(within <= most as usize);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_byte_limit_holds_for_datagrams_small_and_larger_than_all_that_may_pass_at_once() {
    for (rate, size) in [
        (1 << 20, 1200),
        (1 << 20, 60_000),
        (10_240, 1200),
        (10_240, 1),
        (500, 1200),
    ] {
        let mut limits = DatagramLimits::new(bytes(rate), []).unwrap();
        sleep(SLICE).await;
        let start = Instant::now();
        let mut moved = 0;
        while moved < 20 * rate {
            moved += send(&mut limits, &[size; 3]).await as u64 * size;
        }
        let wanted = moved as f64 / rate as f64 * 1.024;
        let took = start.elapsed().as_secs_f64();
        // What passes at once in the beginning, and the last datagram, for which nobody waits.
        let free = 0.06 + size as f64 / rate as f64 * 1.024;
        assert!(
            took <= wanted * 1.001 && took >= wanted - free,
            "{rate} {size}: {took}, not {wanted}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_shared_limit_is_charged_by_payload_and_gets_back_what_was_not_sent_udp_04() {
    let shared = SharedLimit::new(
        Some(Refill {
            amount: 1_000_000,
            per: Duration::from_secs(1),
            most: 1_000_000,
        }),
        None,
    );
    let mut limits = DatagramLimits::new(DatagramRate::default(), [shared]).unwrap();
    let sizes = [1000, 1, 0, 1472, 500, 9000, 30, 1000];
    let mut moved = 0;
    let mut turn = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(11) {
        let allowed = poll_fn(|cx| limits.poll_allowed(cx, sizes.iter().copied())).await;
        // The socket takes fewer than are allowed, sometimes none.
        turn += 1;
        let sent = if turn % 3 == 0 {
            0
        } else {
            allowed.div_ceil(1 + turn % 2)
        };
        limits.settle(sizes[..sent].iter().copied());
        moved += sizes[..sent].iter().sum::<u64>();
        if sent == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    // Ten seconds, and the burst.
    let speed = (moved as f64 - 1e6) / 11.0 / 1e6;
    assert!((0.99..=1.01).contains(&speed), "{speed}");
}

#[tokio::test(start_paused = true)]
async fn many_under_one_packet_limit_share_it() {
    let refill = Refill {
        amount: 100,
        per: Duration::from_secs(1),
        most: 100,
    };
    let shared = SharedLimit::new(None, Some(refill));
    let count = async |shared| {
        let mut limits = DatagramLimits::new(DatagramRate::default(), [shared]).unwrap();
        let start = Instant::now();
        let mut sent = 0;
        loop {
            let n = send(&mut limits, &[1000; 4]).await;
            match start.elapsed().as_secs() {
                // The burst goes to whoever comes first.
                0 => {}
                11.. => return sent,
                _ => sent += n,
            }
        }
    };
    let all = futures_util::future::join_all((0..10).map(|_| count(Arc::clone(&shared)))).await;
    assert!(all.iter().all(|sent| (98..=102).contains(sent)), "{all:?}");
    assert!((999..=1001).contains(&all.iter().sum::<usize>()), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn the_strictest_of_several_limits_decides() {
    let per_second = |amount| Refill {
        amount,
        per: Duration::from_secs(1),
        most: amount,
    };
    let wide = SharedLimit::bytes(per_second(1_000_000));
    let narrow = SharedLimit::new(None, Some(per_second(10)));
    let own = DatagramRate {
        bytes: Some(Rate {
            bytes: 100_000,
            per: SLICE,
        }),
        packets: None,
    };
    let mut limits = DatagramLimits::new(own, [Arc::clone(&wide), narrow]).unwrap();
    let start = Instant::now();
    let mut sent = 0;
    while sent < 110 {
        sent += send(&mut limits, &[1000; 4]).await;
    }
    let took = start.elapsed().as_secs_f64();
    assert!((9.9..10.2).contains(&took), "{took}");
    // The wide one has lost only what has passed.
    drop(limits);
    let mut all = DatagramLimits::new(DatagramRate::default(), [wide]).unwrap();
    assert_eq!(send(&mut all, &[1000; 1500]).await, 1000);
}

#[test]
fn no_limit_is_no_object() {
    assert!(DatagramLimits::new(DatagramRate::default(), []).is_none());
}
