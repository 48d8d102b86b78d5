mod cache;
mod network;
mod stale;

use std::{
    future::pending,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use bytes::BytesMut;
use sluice_wire::dns::{Outcome, Request, put_frame, put_reply, take_frame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket, UnixListener, UnixStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use super::*;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn addresses(ttl: u32) -> Outcome<'static> {
    Outcome::Addresses {
        addresses: &[ADDRESS],
        ttl,
        stale: false,
    }
}

fn failure(error: ResolveError) -> Outcome<'static> {
    Outcome::Failed {
        error,
        text: "",
        ttl: 60,
    }
}

/// A socket path, and the directory that goes with it.
struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolverd.dns");
        Self { _dir: dir, path }
    }

    fn listen(&self) -> UnixListener {
        let _ = std::fs::remove_file(&self.path);
        UnixListener::bind(&self.path).unwrap()
    }

    fn resolver(&self) -> Resolver {
        resolver(Address::Unix(self.path.clone()))
    }
}

#[expect(clippy::disallowed_methods, reason = "tests have no `Tasks`")]
fn spawn(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(future)
}

fn resolver(peer: Address) -> Resolver {
    let (resolver, driver) = Resolver::new(peer, Options::default());
    spawn(driver.run());
    resolver
}

/// One accepted connection.
struct Conversation {
    stream: UnixStream,
    input: BytesMut,
}

impl Conversation {
    async fn accept(listener: &UnixListener) -> Self {
        Self {
            stream: listener.accept().await.unwrap().0,
            input: BytesMut::new(),
        }
    }

    /// The next query; `None` once the client has closed.
    async fn request(&mut self) -> Option<Request> {
        loop {
            if let Some(frame) = take_frame(&mut self.input, 4096).unwrap() {
                return Some(Request::take(&frame).unwrap());
            }
            if self.stream.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn reply(&mut self, request: &Request, outcome: &Outcome<'_>) {
        self.raw(&put_reply(request, outcome, 65535)).await;
    }

    async fn raw(&mut self, message: &[u8]) {
        let mut framed = BytesMut::new();
        put_frame(&mut framed, message).unwrap();
        self.stream.write_all(&framed).await.unwrap();
    }
}

/// A server that answers each query by `outcome` and tells which it got.
fn serve(
    listener: UnixListener,
    outcome: impl Fn(&Request) -> Outcome<'static> + Send + 'static,
) -> (mpsc::Receiver<Request>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(1000);
    let task = spawn(async move {
        loop {
            let mut conversation = Conversation::accept(&listener).await;
            while let Some(request) = conversation.request().await {
                conversation.reply(&request, &outcome(&request)).await;
                sender.try_send(request).unwrap();
            }
        }
    });
    (receiver, task)
}

async fn lookup(resolver: &Resolver, domain: &str) -> Result<Answer, ResolveError> {
    resolver.lookup("main", domain, Family::V4).await
}

fn from(source: Source) -> Result<Answer, ResolveError> {
    Ok(Answer {
        addresses: [ADDRESS].into(),
        source,
    })
}

/// Waits until the driver has seen what happened to its connection.
async fn until_down(resolver: &Resolver) {
    while !matches!(resolver.condition().link, Link::Down { .. }) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn answers_are_asked_for_once_and_kept() {
    let place = Place::new();
    let (mut requests, _server) = serve(place.listen(), |_| addresses(60));
    let resolver = place.resolver();
    assert_eq!(lookup(&resolver, "example.net").await, from(Source::Peer));
    assert_eq!(lookup(&resolver, "example.net").await, from(Source::Cache));
    let request = requests.recv().await.unwrap();
    assert_eq!(request.domain, "example.net");
    assert_eq!(request.resolver.as_deref(), Some("main"));
    assert!(requests.try_recv().is_err());
    let (name, stats) = resolver.stats().remove(0);
    assert_eq!((&*name, stats.cached[0].load(Ordering::Relaxed)), ("main", 1));
    assert_eq!(resolver.condition().link, Link::Up);
}

#[tokio::test]
async fn resolvers_and_families_are_told_apart() {
    let place = Place::new();
    let (mut requests, _server) = serve(place.listen(), |_| Outcome::Addresses {
        addresses: &[],
        ttl: 60,
        stale: false,
    });
    let resolver = place.resolver();
    for (name, family) in [("main", Family::V4), ("main", Family::V6), ("other", Family::V4)] {
        let answer = resolver.lookup(name, "example.net", family).await.unwrap();
        assert!(answer.addresses.is_empty());
        let request = requests.recv().await.unwrap();
        assert_eq!((request.resolver.as_deref(), request.family), (Some(name), family));
    }
    assert_eq!(
        resolver.lookup("main", "example.net", Family::V6).await.unwrap().source,
        Source::Cache
    );
}

#[tokio::test]
async fn lookups_of_one_name_share_a_query() {
    let place = Place::new();
    let listener = place.listen();
    let resolver = place.resolver();
    let mut lookups = JoinSet::new();
    for _ in 0..50 {
        let resolver = resolver.clone();
        lookups.spawn(async move { lookup(&resolver, "example.net").await });
    }
    let mut conversation = Conversation::accept(&listener).await;
    let request = conversation.request().await.unwrap();
    conversation.reply(&request, &failure(ResolveError::ServFail)).await;
    while let Some(answer) = lookups.join_next().await {
        assert_eq!(answer.unwrap(), Err(ResolveError::ServFail)); // DNS-05
    }
    assert!(conversation.input.is_empty());
}

#[tokio::test]
async fn answers_may_come_in_any_order() {
    let place = Place::new();
    let listener = place.listen();
    let resolver = place.resolver();
    let mut lookups = JoinSet::new();
    for n in 0..20u8 {
        let resolver = resolver.clone();
        lookups.spawn(async move { (n, lookup(&resolver, &format!("n{n}.example.net")).await) });
    }
    let mut conversation = Conversation::accept(&listener).await;
    let mut requests = Vec::new();
    for _ in 0..20 {
        requests.push(conversation.request().await.unwrap());
    }
    for request in requests.iter().rev() {
        let n: u8 = request.domain[1..request.domain.find('.').unwrap()].parse().unwrap();
        let addresses = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))];
        let outcome = Outcome::Addresses {
            addresses: &addresses,
            ttl: 1,
            stale: false,
        };
        conversation.reply(request, &outcome).await;
    }
    while let Some(done) = lookups.join_next().await {
        let (n, answer) = done.unwrap();
        assert_eq!(*answer.unwrap().addresses, [IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))]);
    }
}

#[tokio::test]
async fn unanswered_queries_are_sent_again_to_a_restarted_server() {
    let place = Place::new();
    let listener = place.listen();
    let resolver = place.resolver();
    let waiting = {
        let resolver = resolver.clone();
        spawn(async move { assert_eq!(lookup(&resolver, "example.net").await, from(Source::Peer)) })
    };
    let mut conversation = Conversation::accept(&listener).await;
    conversation.request().await.unwrap();
    drop((conversation, listener));
    until_down(&resolver).await;
    let (mut requests, _server) = serve(place.listen(), |_| addresses(60));
    waiting.await.unwrap();
    assert_eq!(requests.recv().await.unwrap().domain, "example.net");
}

#[tokio::test]
async fn names_are_looked_up_before_the_server_is_there() {
    let place = Place::new();
    let resolver = place.resolver();
    until_down(&resolver).await;
    assert!(resolver.condition().last_error.unwrap().contains("No such file"));
    let waiting = {
        let resolver = resolver.clone();
        spawn(async move { assert_eq!(lookup(&resolver, "example.net").await, from(Source::Peer)) })
    };
    let _server = serve(place.listen(), |_| addresses(60));
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lookups_fail_at_their_deadline_with_the_reason() {
    let place = Place::new();
    let resolver = place.resolver();
    let start = Instant::now();
    assert_eq!(
        lookup(&resolver, "example.net").await,
        Err(ResolveError::NoResolverRunning)
    );
    assert_eq!(start.elapsed().as_secs(), 10);
    let listener = place.listen();
    let silent = spawn(async move {
        let _conversation = Conversation::accept(&listener).await;
        pending().await
    });
    assert_eq!(
        lookup(&resolver, "example.org").await,
        Err(ResolveError::DriverTimedOut)
    );
    silent.abort();
}

#[tokio::test]
async fn garbage_ends_the_connection_but_not_the_lookup() {
    for garbage in [&b"\0\x05hello"[..], b"\0\x0cHTTP/1.1 400 no", b"\0\x00"] {
        let place = Place::new();
        let listener = place.listen();
        let resolver = place.resolver();
        let waiting = {
            let resolver = resolver.clone();
            spawn(async move { assert_eq!(lookup(&resolver, "example.net").await, from(Source::Peer)) })
        };
        let mut conversation = Conversation::accept(&listener).await;
        conversation.request().await.unwrap();
        conversation.stream.write_all(garbage).await.unwrap();
        assert!(conversation.request().await.is_none(), "{garbage:?}");
        let _server = serve(listener, |_| addresses(60));
        waiting.await.unwrap();
    }
}

#[tokio::test]
async fn a_broken_reply_fails_its_own_lookup_only() {
    let place = Place::new();
    let listener = place.listen();
    let resolver = place.resolver();
    let server = spawn(async move {
        let mut conversation = Conversation::accept(&listener).await;
        let request = conversation.request().await.unwrap();
        let whole = put_reply(&request, &addresses(60), 65535);
        conversation.raw(&whole[..whole.len() - 3]).await;
        let request = conversation.request().await.unwrap();
        let mut other = request.clone();
        other.family = Family::V6; // answers another question
        conversation.reply(&other, &addresses(60)).await;
        let mut unasked = conversation.request().await.unwrap();
        unasked.id ^= 1;
        conversation.reply(&unasked, &addresses(60)).await;
        unasked.id ^= 1;
        conversation.reply(&unasked, &addresses(60)).await;
        pending().await
    });
    assert_eq!(lookup(&resolver, "a.example.net").await, Err(ResolveError::BadResponse));
    assert_eq!(lookup(&resolver, "b.example.net").await, Err(ResolveError::BadResponse));
    assert_eq!(lookup(&resolver, "c.example.net").await, from(Source::Peer));
    server.abort();
}

#[tokio::test]
async fn names_that_are_none_fail_at_once() {
    let place = Place::new();
    let resolver = place.resolver();
    assert_eq!(lookup(&resolver, "").await, Err(ResolveError::EmptyDomain));
    assert_eq!(lookup(&resolver, "a..b").await, Err(ResolveError::BadName));
}

#[tokio::test]
async fn a_stranger_on_the_socket_is_not_believed() {
    if !rustix::process::geteuid().is_root() {
        return; // root is always trusted, so only root can make a stranger
    }
    let (_, driver) = Resolver::new(Address::Unix("/nowhere".into()), Options::default());
    assert!(driver.trusts(0));
    assert!(!driver.trusts(65534));
    let options = Options {
        peer_uid: Some(65534),
        ..Options::default()
    };
    assert!(Resolver::new(Address::Unix("/nowhere".into()), options).1.trusts(65534));
}

#[tokio::test]
async fn the_driver_ends_with_the_last_handle() {
    let place = Place::new();
    let _server = serve(place.listen(), |_| addresses(60));
    let (resolver, driver) = Resolver::new(Address::Unix(place.path.clone()), Options::default());
    let task = spawn(driver.run());
    let clone = resolver.clone();
    lookup(&resolver, "example.net").await.unwrap();
    drop(resolver);
    assert_eq!(lookup(&clone, "example.net").await, from(Source::Cache));
    drop(clone);
    task.await.unwrap();
}
