//! Against a generator of this file, over either way to it.

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::BytesMut;
use sluice_wire::mint::{ErrorCode, Form, MintRequest, MintResponse, Minted, PrivateKey, put_response, take_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UdpSocket, UnixListener, UnixStream};

use super::*;
use crate::peer::Asks;

/// A self-signed certificate and its key, in PEM; what it says matters to nobody here.
static LEAF: LazyLock<(String, String)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["leaf.test".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
});

fn minted(ttl: u32) -> Minted {
    Minted {
        chain: LEAF.0.clone(),
        key: PrivateKey::Pem(LEAF.1.clone()),
        ttl,
    }
}

fn answer(request: &MintRequest, outcome: Result<Minted, MintError>) -> MintResponse {
    MintResponse {
        id: request.id,
        host: request.host.clone(),
        service: request.service,
        usage: request.usage,
        outcome,
    }
}

fn refusal(code: ErrorCode) -> MintError {
    MintError {
        code,
        text: "no".to_owned(),
    }
}

/// A generator's end of a connection.
struct Peer {
    stream: UnixStream,
    input: BytesMut,
}

impl Peer {
    async fn accept(listener: &UnixListener) -> Self {
        Self {
            stream: listener.accept().await.unwrap().0,
            input: BytesMut::new(),
        }
    }

    async fn next(&mut self) -> MintRequest {
        loop {
            if let Some(message) = take_frame(&mut self.input).unwrap() {
                return MintRequest::take(&message, Form::Stream).unwrap();
            }
            assert_ne!(self.stream.read_buf(&mut self.input).await.unwrap(), 0, "closed");
        }
    }

    async fn answer(&mut self, request: &MintRequest, outcome: Result<Minted, MintError>) {
        let mut out = BytesMut::new();
        put_response(&mut out, &answer(request, outcome), Form::Stream).unwrap();
        self.stream.write_all(&out).await.unwrap();
    }
}

struct Rig {
    _dir: tempfile::TempDir,
    listener: UnixListener,
    leaves: Leaves,
}

/// A client with its driver at work, and the socket that it connects to.
fn rig(options: Options) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("certgend.mint");
    let listener = UnixListener::bind(&path).unwrap();
    let (leaves, driver) = Leaves::new(Address::Unix(path), options);
    sluice_lifecycle::Tasks::new().spawn(driver.run());
    Rig {
        _dir: dir,
        listener,
        leaves,
    }
}

fn spawn_get(leaves: &Leaves, host: &str) -> tokio::task::JoinHandle<Result<Leaf, MintFailure>> {
    let leaves = leaves.clone();
    let key = Key::of_tls(host);
    sluice_lifecycle::Tasks::new().spawn(async move { leaves.get(&key, Some(b"upstream".to_vec())).await })
}

#[tokio::test]
async fn those_who_ask_for_one_host_share_a_request_and_the_next_ones_its_answer() {
    let rig = rig(Options::default());
    let mut peer = Peer::accept(&rig.listener).await;
    let all: Vec<_> = (0..5).map(|_| spawn_get(&rig.leaves, "A.test")).collect();
    let request = peer.next().await;
    assert_eq!((&*request.host, request.service), ("a.test", Service::Http));
    assert_eq!(request.cert, Some(Certificate::Der(b"upstream".to_vec())));
    peer.answer(&request, Ok(minted(60))).await;
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert!(matches!(rig.leaves.probe(&Key::of_tls("a.test")), Probe::Fresh(_)));
    rig.leaves.get(&Key::of_tls("a.test"), None).await.unwrap();
    assert_eq!(rig.leaves.condition().in_flight, 0);
}

#[tokio::test]
async fn answers_may_come_in_any_order() {
    let rig = rig(Options::default());
    let mut peer = Peer::accept(&rig.listener).await;
    let hosts = ["a.test", "b.test", "c.test"];
    let mut asked: HashMap<_, _> = hosts.map(|host| (host.to_owned(), spawn_get(&rig.leaves, host))).into();
    let mut requests = Vec::new();
    for _ in hosts {
        requests.push(peer.next().await);
    }
    for request in requests.iter().rev() {
        peer.answer(request, Ok(minted(60))).await;
        asked.remove(&request.host).unwrap().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_has_no_answer_is_asked_again_after_a_reconnect() {
    let rig = rig(Options::default());
    let mut peer = Peer::accept(&rig.listener).await;
    let asked = spawn_get(&rig.leaves, "a.test");
    peer.next().await;
    drop(peer);
    let mut peer = Peer::accept(&rig.listener).await;
    let request = peer.next().await;
    peer.answer(&request, Ok(minted(60))).await;
    asked.await.unwrap().unwrap();
}

/// TLS-16.
#[tokio::test]
async fn a_lost_answer_ends_in_time_and_the_next_one_asks_again() {
    let rig = rig(Options {
        query_timeout: Duration::from_millis(200),
        wait_timeout: Duration::from_millis(200),
        ..Options::default()
    });
    let mut peer = Peer::accept(&rig.listener).await;
    let (one, two) = (spawn_get(&rig.leaves, "a.test"), spawn_get(&rig.leaves, "a.test"));
    peer.next().await;
    for waiter in [one, two] {
        assert!(matches!(waiter.await.unwrap(), Err(MintFailure::TimedOut(_))));
    }
    // The request ends a moment after those who waited for it.
    let again = loop {
        let again = spawn_get(&rig.leaves, "a.test");
        match tokio::time::timeout(Duration::from_millis(100), peer.next()).await {
            Ok(request) => {
                peer.answer(&request, Ok(minted(60))).await;
                break again;
            }
            Err(_) => drop(again),
        }
    };
    again.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_refusal_is_told_and_kept_for_a_moment() {
    let rig = rig(Options::default());
    let mut peer = Peer::accept(&rig.listener).await;
    let asked = spawn_get(&rig.leaves, "bank.test");
    let request = peer.next().await;
    peer.answer(&request, Err(refusal(ErrorCode::NeverMint))).await;
    let failure = asked.await.unwrap().unwrap_err();
    assert!(failure.is_policy(), "{failure}");
    assert!(matches!(rig.leaves.probe(&Key::of_tls("bank.test")), Probe::Refused(_)));
    let asked = spawn_get(&rig.leaves, "busy.test");
    let request = peer.next().await;
    peer.answer(&request, Err(refusal(ErrorCode::Busy))).await;
    assert!(!asked.await.unwrap().unwrap_err().is_policy());
    assert!(matches!(rig.leaves.probe(&Key::of_tls("busy.test")), Probe::Nothing));
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_is_a_failure() {
    let rig = rig(Options::default());
    let mut peer = Peer::accept(&rig.listener).await;
    let asked = spawn_get(&rig.leaves, "a.test");
    let request = peer.next().await;
    let other = Minted {
        chain: "-----BEGIN NOTHING-----".to_owned(),
        ..minted(60)
    };
    peer.answer(&request, Ok(other)).await;
    assert!(matches!(asked.await.unwrap(), Err(MintFailure::Unusable(_))));
}

#[tokio::test]
async fn a_generator_that_is_away_costs_a_moment_once_and_then_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (leaves, driver) = Leaves::new(Address::Unix(dir.path().join("none")), Options::default());
    sluice_lifecycle::Tasks::new().spawn(driver.run());
    let failure = leaves.get(&Key::of_tls("a.test"), None).await.unwrap_err();
    assert!(matches!(failure, MintFailure::Unreachable(_)), "{failure}");
    let start = Instant::now();
    leaves.get(&Key::of_tls("b.test"), None).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn datagrams_are_asked_again_and_answered_by_name() {
    let generator = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (leaves, driver) = Leaves::new(Address::Udp(generator.local_addr().unwrap()), Options::default());
    sluice_lifecycle::Tasks::new().spawn(driver.run());
    let asked = spawn_get(&leaves, "example.com");
    let mut packet = vec![0; 2048];
    let (_, _) = generator.recv_from(&mut packet).await.unwrap();
    // The first one is lost.
    let (n, from) = generator.recv_from(&mut packet).await.unwrap();
    assert_eq!(
        packet[..n],
        *b"\x84\x01\xabexample.com\x02\x00\x04\x00\x03\xc4\x08upstream"
    );
    let request = MintRequest::take(&packet[..n], Form::Datagram).unwrap();
    let mut out = BytesMut::new();
    put_response(
        &mut out,
        &MintResponse {
            host: "other.test".to_owned(),
            ..answer(&request, Ok(minted(0)))
        },
        Form::Datagram,
    )
    .unwrap();
    generator.send_to(&out, from).await.unwrap();
    generator.send_to(b"junk", from).await.unwrap();
    out.clear();
    put_response(&mut out, &answer(&request, Ok(minted(0))), Form::Datagram).unwrap();
    generator.send_to(&out, from).await.unwrap();
    asked.await.unwrap().unwrap();
}

/// A state, and moments after its beginning.
fn state(capacity: usize) -> (State, impl Fn(u64) -> Instant) {
    let start = Instant::now();
    let options = Options {
        capacity,
        ..Options::default()
    };
    (State::new(options, false), move |secs| {
        start + Duration::from_secs(secs)
    })
}

fn settle(state: &mut State, host: &str, outcome: Result<Minted, MintError>, now: Instant) {
    let key = Key::of_tls(host);
    state.refresh(&key, None, now);
    let mut request = None;
    let mut read = |message: &[u8]| request = MintRequest::take(&message[4..], Form::Stream).ok();
    while state.flights.take_unsent(now, &mut read) {}
    let request = request.unwrap();
    assert_eq!(request.host, host);
    assert!(state.answered(answer(&request, outcome), now));
}

#[test]
fn a_leaf_is_fresh_then_stale_then_gone() {
    let (mut state, at) = state(8);
    let key = Key::of_tls("a.test");
    settle(&mut state, "a.test", Ok(minted(60)), at(0));
    assert!(matches!(state.probe(&key, at(59)), Probe::Fresh(_)));
    assert!(matches!(state.probe(&key, at(61)), Probe::Stale(_)));
    assert!(matches!(state.probe(&key, at(359)), Probe::Stale(_)));
    assert!(matches!(state.probe(&key, at(361)), Probe::Nothing));
}

#[test]
fn times_are_bounded_whatever_the_generator_says() {
    let (mut state, at) = state(8);
    let key = Key::of_tls("a.test");
    settle(&mut state, "a.test", Ok(minted(86400)), at(0));
    assert!(matches!(state.probe(&key, at(301)), Probe::Stale(_)));
    settle(&mut state, "a.test", Ok(minted(0)), at(400));
    assert!(matches!(state.probe(&key, at(409)), Probe::Fresh(_)));
    assert!(matches!(state.probe(&key, at(411)), Probe::Stale(_)));
}

#[test]
fn an_old_leaf_goes_on_while_the_generator_is_away_or_fails_but_not_against_its_rules() {
    let (mut state, at) = state(8);
    let key = Key::of_tls("a.test");
    settle(&mut state, "a.test", Ok(minted(60)), at(0));
    state.disconnected("killed", at(1000));
    assert!(matches!(state.begin(&key, None, at(1002)), Begun::Known(Ok(_))));
    assert!(matches!(
        state.begin(&Key::of_tls("new.test"), None, at(1002)),
        Begun::Known(Err(MintFailure::Unreachable(_)))
    ));
    state.connected();
    state.flights.send_all_again();
    settle(&mut state, "a.test", Err(refusal(ErrorCode::Failed)), at(1003));
    assert!(state.give_up(&key, Duration::ZERO, at(1004)).is_ok());
    settle(&mut state, "a.test", Err(refusal(ErrorCode::NeverMint)), at(1005));
    assert!(matches!(state.probe(&key, at(1006)), Probe::Refused(_)));
}

#[test]
fn a_silent_generator_is_waited_for_once() {
    let (mut state, at) = state(8);
    let wait = |state: &mut State, host: &str, now| match state.begin(&Key::of_tls(host), None, now) {
        Begun::Awaited { wait, .. } => wait,
        Begun::Known(_) => panic!("`{host}` is not known"),
    };
    let whole = Options::default().wait_timeout;
    assert_eq!(wait(&mut state, "a.test", at(0)), whole);
    assert_eq!(wait(&mut state, "b.test", at(1)), whole);
    let outcome = state.give_up(&Key::of_tls("a.test"), whole, at(4));
    assert!(matches!(outcome, Err(MintFailure::TimedOut(_))), "{outcome:?}");
    assert!(wait(&mut state, "c.test", at(4)) < whole);
    // Until it is heard again.
    settle(&mut state, "d.test", Ok(minted(60)), at(5));
    assert_eq!(wait(&mut state, "e.test", at(5)), whole);
}

#[test]
fn the_table_is_bounded_and_who_is_asked_for_stays() {
    let (mut state, at) = state(3);
    for host in ["a.test", "b.test", "c.test"] {
        settle(&mut state, host, Ok(minted(60)), at(0));
    }
    assert!(matches!(state.probe(&Key::of_tls("a.test"), at(1)), Probe::Fresh(_)));
    settle(&mut state, "d.test", Ok(minted(60)), at(2));
    assert_eq!(state.condition().cached, 3);
    assert!(matches!(state.probe(&Key::of_tls("a.test"), at(3)), Probe::Fresh(_)));
    assert!(matches!(state.probe(&Key::of_tls("b.test"), at(3)), Probe::Nothing));
}

#[test]
fn an_answer_to_another_question_is_no_answer() {
    let (mut state, at) = state(8);
    state.refresh(&Key::of_tls("a.test"), None, at(0));
    let request = MintRequest {
        id: Some(1),
        ..MintRequest::new("b.test")
    };
    assert!(!state.answered(answer(&request, Ok(minted(60))), at(0)));
    let request = MintRequest {
        id: Some(7),
        ..MintRequest::new("a.test")
    };
    assert!(!state.answered(answer(&request, Ok(minted(60))), at(0)));
}
