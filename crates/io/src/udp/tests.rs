use super::*;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_sys::udp::{Outgoing, UdpBind};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use crate::relay::IdleCheck;
use crate::throttle::{DatagramLimits, DatagramRate, PacketRate, Refill, SharedLimit};
use crate::wheel::Wheel;

/// Ends on the network: the client's datagrams begin with the four bytes of an IPv4 address and a port, those of the other
/// end go wherever these say.
struct Network {
    near: Socket,
    client: SocketAddr,
    far: Socket,
    ended: Ended,
}

const HEAD: usize = 6;
const SIZE: usize = 4096;

fn put_head(far: SocketAddr, heads: &mut Vec<u8>) {
    let SocketAddr::V4(far) = far else { unreachable!() };
    heads.extend_from_slice(&far.ip().octets());
    heads.extend_from_slice(&far.port().to_be_bytes());
}

fn take_head(datagram: &[u8]) -> SocketAddr {
    let ip: [u8; 4] = datagram[..4].try_into().unwrap();
    (ip, u16::from_be_bytes([datagram[4], datagram[5]])).into()
}

impl Ends for Network {
    type Far = SocketAddr;
    type Error = Option<io::Error>;

    fn poll_receive(
        &mut self,
        from: Side,
        cx: &mut Context<'_>,
        receiver: &mut Receiver,
        parcels: &mut Vec<Parcel<SocketAddr>>,
    ) -> Poll<Result<usize, Self::Error>> {
        let (socket, head) = match from {
            Side::Client => (&self.near, HEAD),
            Side::Upstream => (&self.far, 0),
        };
        let came = std::task::ready!(socket.poll_receive(cx, receiver, 8, SIZE + head)).map_err(Some)?;
        let whole = receiver.datagrams().filter(|datagram| !datagram.is_truncated());
        parcels.extend(whole.map(|datagram| Parcel {
            start: datagram.start + head,
            len: datagram.length - head,
            far: match from {
                Side::Client => take_head(datagram.payload),
                Side::Upstream => datagram.from.unwrap(),
            },
        }));
        Poll::Ready(Ok(came))
    }

    fn poll_send(
        &mut self,
        to: Side,
        cx: &mut Context<'_>,
        tables: &mut Tables,
        memory: &[u8],
        parcels: &[Parcel<SocketAddr>],
    ) -> Poll<Result<Done, Self::Error>> {
        tables.heads.clear();
        parcels
            .iter()
            .for_each(|parcel| put_head(parcel.far, &mut tables.heads));
        let outgoing = tables.heads.chunks(HEAD).zip(parcels).map(|(head, parcel)| Outgoing {
            head: if to == Side::Client { head } else { b"" },
            payload: parcel.payload(memory),
            to: Some(if to == Side::Client { self.client } else { parcel.far }),
            from: None,
        });
        let socket = if to == Side::Client { &self.near } else { &self.far };
        let sent = std::task::ready!(socket.poll_send(cx, &mut tables.sender, outgoing)).map_err(Some)?;
        Poll::Ready(Ok(Done::Sent(sent)))
    }

    fn check(&self, idle: usize) -> Option<Self::Error> {
        (idle > 3).then_some(None)
    }

    fn ended(&mut self, why: Self::Error) {
        *self.ended.lock().unwrap() = Some(why.map_or_else(|| "idle".to_owned(), |error| error.to_string()));
    }
}

type Ended = Arc<Mutex<Option<String>>>;

/// Ends without a network: datagrams come from the client as they were put in, and the other end takes as many at a time
/// as it is told to.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<FakeState>>);

#[derive(Default)]
struct FakeState {
    to_come: VecDeque<Vec<u8>>,
    /// For each call: how many are taken; none is not ready. After these everything is.
    takes: VecDeque<Option<Done>>,
    got: Vec<Vec<u8>>,
}

impl Ends for Fake {
    type Far = ();
    type Error = ();

    fn poll_receive(
        &mut self,
        from: Side,
        _: &mut Context<'_>,
        receiver: &mut Receiver,
        parcels: &mut Vec<Parcel<()>>,
    ) -> Poll<Result<usize, ()>> {
        let mut state = self.0.lock().unwrap();
        let most = if from == Side::Client { 8 } else { 0 };
        let batch: Vec<_> = (0..most).map_while(|_| state.to_come.pop_front()).collect();
        if batch.is_empty() {
            return Poll::Pending;
        }
        // Through a socket of its own into the memory that datagrams lie in.
        let (out, into) = std::os::unix::net::UnixDatagram::pair().unwrap();
        batch.iter().for_each(|datagram| assert!(out.send(datagram).is_ok()));
        assert_eq!(receiver.receive(&into, 8, 2000).unwrap(), batch.len());
        parcels.extend(receiver.datagrams().map(|datagram| Parcel {
            start: datagram.start,
            len: datagram.length,
            far: (),
        }));
        Poll::Ready(Ok(batch.len()))
    }

    fn poll_send(
        &mut self,
        to: Side,
        cx: &mut Context<'_>,
        _: &mut Tables,
        memory: &[u8],
        parcels: &[Parcel<()>],
    ) -> Poll<Result<Done, ()>> {
        assert!(to == Side::Upstream && !parcels.is_empty());
        let mut state = self.0.lock().unwrap();
        let done = match state.takes.pop_front() {
            None => Done::Sent(parcels.len()),
            Some(None) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Some(Done::Sent(n))) => Done::Sent(n.min(parcels.len())),
            Some(Some(Done::Dropped(n))) => Done::Dropped(n.min(parcels.len())),
        };
        if let Done::Sent(n) = done {
            let payloads = parcels[..n].iter().map(|parcel| parcel.payload(memory).to_vec());
            state.got.extend(payloads);
        }
        Poll::Ready(Ok(done))
    }

    fn check(&self, _: usize) -> Option<()> {
        None
    }

    fn ended(&mut self, (): ()) {}
}

#[expect(clippy::disallowed_methods, reason = "the tests' runtime counts no tasks")]
fn idle(interval: Duration) -> IdleCheck {
    let wheel = Wheel::new();
    tokio::spawn(Arc::clone(&wheel).run());
    IdleCheck {
        timer: wheel.timer(),
        interval,
    }
}

const LONG: Duration = Duration::from_secs(60);

fn options(up: Option<Box<DatagramLimits>>) -> RelayOptions {
    RelayOptions {
        yield_size: 1 << 20,
        up,
        down: None,
    }
}

fn open() -> Socket {
    let bind = UdpBind {
        receive_buffer: Some(1 << 20),
        ..UdpBind::new("127.0.0.1:0".parse().unwrap())
    };
    Socket::new(bind.open().unwrap()).unwrap()
}

/// A client, a server, and a relay between them.
struct Association {
    client: UdpSocket,
    origin: UdpSocket,
    ended: Ended,
    relay: tokio::task::JoinHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "the tests' runtime counts no tasks")]
async fn association(interval: Duration, options: RelayOptions) -> Association {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let origin = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = (open(), open());
    client.connect(near.local_addr().unwrap()).await.unwrap();
    let ended = Ended::default();
    let ends = Network {
        near,
        client: client.local_addr().unwrap(),
        far,
        ended: Arc::clone(&ended),
    };
    let relay = tokio::spawn(Relay::new(ends, options, idle(interval)));
    Association {
        client,
        origin,
        ended,
        relay,
    }
}

impl Association {
    async fn ask(&self, payload: &[u8]) {
        let mut datagram = Vec::new();
        put_head(self.origin.local_addr().unwrap(), &mut datagram);
        datagram.extend_from_slice(payload);
        self.client.send(&datagram).await.unwrap();
    }

    /// The next datagram at the origin, which is answered with the same.
    async fn echo(&self) -> Vec<u8> {
        let mut buf = [0; 10_000];
        let (n, from) = timeout(Duration::from_secs(5), self.origin.recv_from(&mut buf))
            .await
            .unwrap()
            .unwrap();
        self.origin.send_to(&buf[..n], from).await.unwrap();
        buf[..n].to_vec()
    }

    async fn answer(&self) -> Vec<u8> {
        let mut buf = [0; 10_000];
        let n = timeout(Duration::from_secs(5), self.client.recv(&mut buf))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(take_head(&buf), self.origin.local_addr().unwrap());
        buf[HEAD..n].to_vec()
    }
}

#[tokio::test]
async fn datagrams_pass_both_ways_empty_ones_too_cu_08() {
    let a = association(LONG, options(None)).await;
    for size in [0, 1, 0, 1472, 4096, 0, 7] {
        let payload: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        a.ask(&payload).await;
        assert_eq!(a.echo().await, payload);
        assert_eq!(a.answer().await, payload);
    }
    assert!(!a.relay.is_finished());
}

#[tokio::test]
async fn a_datagram_over_the_packet_size_is_dropped_and_never_cut_udp_08() {
    let a = association(LONG, options(None)).await;
    a.ask(&[1; 9000]).await;
    a.ask(&[2; 4097]).await;
    a.ask(b"fits").await;
    assert_eq!(a.echo().await, b"fits");
    assert_eq!(a.answer().await, b"fits");
    a.ask(b"again").await;
    let mut buf = [0; 10];
    let (_, relay) = a.origin.recv_from(&mut buf).await.unwrap();
    a.origin.send_to(&[3; 4097], relay).await.unwrap();
    a.origin.send_to(b"short", relay).await.unwrap();
    assert_eq!(a.answer().await, b"short");
}

#[tokio::test(start_paused = true)]
async fn datagrams_that_meet_an_exhausted_limit_are_sent_later_in_order_cu_09() {
    let rate = DatagramRate {
        bytes: None,
        packets: Some(PacketRate {
            packets: 10,
            per: Duration::from_secs(1),
        }),
    };
    let a = association(LONG, options(DatagramLimits::new(rate, []))).await;
    let start = Instant::now();
    for i in 0..100_u8 {
        a.ask(&[i; 100]).await;
    }
    for i in 0..100_u8 {
        let mut buf = [0; 200];
        let n = a.origin.recv(&mut buf).await.unwrap();
        assert_eq!(buf[..n], [i; 100]);
        let slice = u64::from(i) / 10;
        assert!(
            start.elapsed().as_millis() as u64 / 1000 >= slice,
            "{i}: {:?}",
            start.elapsed()
        );
    }
    assert!(start.elapsed() < Duration::from_millis(9100), "{:?}", start.elapsed());
}

#[tokio::test]
async fn one_way_traffic_keeps_a_relay_open_and_silence_ends_it_udp_03() {
    let a = association(Duration::from_millis(100), options(None)).await;
    a.ask(b"hello").await;
    let mut buf = [0; 10];
    let (_, relay) = a.origin.recv_from(&mut buf).await.unwrap();
    let mut every = tokio::time::interval(Duration::from_millis(150));
    for _ in 0..10 {
        every.tick().await;
        a.origin.send_to(b"x", relay).await.unwrap();
        assert_eq!(a.answer().await, b"x");
    }
    for _ in 0..10 {
        every.tick().await;
        a.ask(b"y").await;
        assert_eq!(a.origin.recv(&mut buf).await.unwrap(), 1);
    }
    timeout(Duration::from_secs(5), a.relay).await.unwrap().unwrap();
    assert_eq!(a.ended.lock().unwrap().as_deref(), Some("idle"));
}

/// Runs a relay from one fake end to the other until everything has arrived.
async fn fake_relay(
    datagrams: &[Vec<u8>],
    takes: Vec<Option<Done>>,
    limits: Option<Box<DatagramLimits>>,
) -> Vec<Vec<u8>> {
    let ends = Fake::default();
    {
        let mut state = ends.0.lock().unwrap();
        state.to_come = datagrams.iter().cloned().collect();
        state.takes = takes.into();
    }
    let relay = Relay::new(ends.clone(), options(limits), idle(LONG));
    let all_came = async {
        loop {
            {
                let state = ends.0.lock().unwrap();
                if state.to_come.is_empty() && state.takes.is_empty() {
                    return;
                }
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = relay => panic!("the relay has ended"),
        all_came = timeout(Duration::from_secs(3600), all_came) => all_came.unwrap(),
    }
    std::mem::take(&mut ends.0.lock().unwrap().got)
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_takes_some_at_a_time_gets_all_once_and_in_order_udp_02() {
    let datagrams: Vec<Vec<u8>> = (0..200_usize).map(|i| vec![i as u8; i * 7 % 1500]).collect();
    let some = |n| Some(Done::Sent(n));
    let takes = [some(3), None, some(1), some(1), None, None, some(2), some(8), None]
        .repeat(15)
        .into_iter()
        .collect();
    assert_eq!(fake_relay(&datagrams, takes, None).await, datagrams);
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_not_charged_and_the_rest_goes_on() {
    let shared = SharedLimit::new(
        None,
        Some(Refill {
            amount: 1,
            per: Duration::from_secs(1 << 20),
            most: 101,
        }),
    );
    let datagrams: Vec<Vec<u8>> = (0..200_u8).map(|i| vec![i]).collect();
    // Every other one cannot be sent: 100 can, and the limit lets one more pass.
    let takes = [None, Some(Done::Sent(1)), Some(Done::Dropped(1))].repeat(100);
    let limits = DatagramLimits::new(DatagramRate::default(), [shared]);
    let start = Instant::now();
    let got = fake_relay(&datagrams, takes, limits).await;
    assert!(start.elapsed() < Duration::from_secs(10));
    let even: Vec<Vec<u8>> = datagrams.into_iter().step_by(2).collect();
    assert_eq!(got, even);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_was_given_datagrams_sends_them_first() {
    let ends = Fake::default();
    ends.0.lock().unwrap().to_come.push_back(b"later".to_vec());
    let mut relay = Relay::new(ends.clone(), options(None), idle(LONG));
    let parcel = |start, len| Parcel { start, len, far: () };
    relay.preload(b"..early.bird", vec![parcel(2, 5), parcel(8, 4)]);
    let _ = timeout(Duration::from_secs(1), relay).await;
    assert_eq!(ends.0.lock().unwrap().got, [&b"early"[..], b"bird", b"later"]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_relay_owns_no_list_and_no_buffer() {
    let ends = Fake::default();
    ends.0.lock().unwrap().to_come.push_back(vec![1; 1000]);
    let mut relay = Relay::new(ends.clone(), options(None), idle(Duration::from_millis(200)));
    let _ = timeout(Duration::from_millis(950), &mut relay).await;
    assert_eq!(relay.came(), 1);
    assert_eq!(relay.owned(), 0);
    assert!(size_of::<Relay<Fake>>() <= 320, "{}", size_of::<Relay<Fake>>());
}

#[tokio::test]
async fn a_flood_lets_other_tasks_have_their_turn() {
    let ends = Fake::default();
    ends.0.lock().unwrap().to_come = (0..1000).map(|_| vec![0; 1000]).collect();
    let small = RelayOptions {
        yield_size: 10_000,
        ..RelayOptions::default()
    };
    let mut relay = Relay::new(ends.clone(), small, idle(LONG));
    let mut turns = 0;
    while !ends.0.lock().unwrap().to_come.is_empty() {
        std::future::poll_fn(|cx| {
            assert!(std::pin::Pin::new(&mut relay).poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        turns += 1;
    }
    assert!((50..=120).contains(&turns), "{turns}");
}

#[test]
fn a_batch_has_a_bound() {
    assert_eq!(batch_size(8, 4096), 8);
    assert_eq!(batch_size(0, 4096), 1);
    assert_eq!(batch_size(usize::MAX, 65_536), 16);
    assert_eq!(batch_size(usize::MAX, 1), sluice_sys::udp::MOST);
}
