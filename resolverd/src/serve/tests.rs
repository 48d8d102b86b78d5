use std::{
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use bytes::BytesMut;
use sluice_config::Load;
use sluice_lifecycle::DataSocket;
use sluice_telemetry::{EventLogs, metrics::Registry};
use sluice_wire::dns::{Answer, Family, Origin, Query, Reply, put_frame, put_query, take_frame};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UdpSocket, UnixStream},
};

use super::*;
use crate::{
    config::Config,
    nameserver::{NameServer, Says, v4},
    resolvers::Workshop,
};

/// Resolvers, a folder for sockets, and the tasks that serve.
struct Bench {
    dir: tempfile::TempDir,
    config: Config,
    in_charge: InCharge,
    tasks: Tasks,
}

impl Bench {
    fn new(yaml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("main.yml");
        std::fs::write(&file, yaml).unwrap();
        let mut load = Load::open(&file);
        let config = Config::read(&mut load);
        load.finish().unwrap_or_else(|errors| panic!("{errors}"));
        let workshop = Workshop {
            tasks: Tasks::new(),
            logs: EventLogs::discard(),
            metrics: Registry::new(),
        };
        let resolvers = Resolvers::build(&config.resolvers, &Resolvers::default(), &workshop).unwrap();
        Self {
            dir,
            config,
            in_charge: Arc::new(ArcSwap::from_pointee(resolvers)),
            tasks: Tasks::new(),
        }
    }

    /// A resolver `main` that asks `server`, and an open door to it.
    fn of(server: &NameServer, allow: &str) -> Self {
        let (ip, port) = (server.address.ip(), server.address.port());
        Self::new(&format!(
            "resolver: [{{name: main, type: hickory, server: \"{ip}\", server_port: {port}}}]\n\
             resolverd: {{listen: [{{address: \"127.0.0.1:0\", resolver: main, allow: [{allow}]}}]}}\n"
        ))
    }

    fn own(&self) -> DataSocket {
        start_own(&self.path(), None, Vec::new(), &self.in_charge, &self.tasks).unwrap()
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("resolverd.dns")
    }

    async fn listening(&self) -> Listening {
        Listening::start(&self.config.own.listen[0], &self.in_charge, &self.tasks)
            .await
            .unwrap()
    }
}

fn query(id: u16, domain: &str, resolver: Option<&str>) -> Vec<u8> {
    put_query(&Query {
        id,
        domain,
        family: Family::V4,
        resolver,
    })
    .unwrap()
}

fn frames(messages: impl IntoIterator<Item = Vec<u8>>) -> BytesMut {
    let mut out = BytesMut::new();
    for message in messages {
        put_frame(&mut out, &message).unwrap();
    }
    out
}

async fn read_reply(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Option<Reply> {
    loop {
        if let Some(frame) = take_frame(buffer, 65535).unwrap() {
            return Some(Reply::take(&frame).unwrap());
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// One query on a stream of its own.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, message: Vec<u8>) -> Option<Reply> {
    stream.write_all(&frames([message])).await.unwrap();
    read_reply(&mut stream, &mut BytesMut::new()).await
}

fn addresses(reply: &Reply) -> Result<Vec<IpAddr>, ResolveError> {
    reply
        .answer(Origin::Resolverd)
        .map(|Answer { addresses, .. }| addresses)
}

#[tokio::test]
async fn the_groups_socket_answers_for_the_named_resolver() {
    let server = NameServer::start(|_| Says::Many(1)).await;
    let bench = Bench::of(&server, "");
    let own = bench.own();
    assert_eq!(
        std::fs::metadata(bench.path()).unwrap().permissions().mode() & 0o777,
        0o660
    );
    for (resolver, expected) in [
        (Some("main"), Ok(vec![v4(0)])),
        (Some("other"), Err(ResolveError::NoResolverRunning)),
        (None, Err(ResolveError::NoResolverRunning)),
    ] {
        let stream = UnixStream::connect(bench.path()).await.unwrap();
        let reply = exchange(stream, query(7, "Example.net", resolver)).await.unwrap();
        assert_eq!((reply.id(), addresses(&reply)), (7, expected));
        assert!(reply.is_about("example.net", Family::V4));
    }
    drop(own);
    assert!(!bench.path().exists());
}

#[tokio::test]
async fn queries_are_pipelined_and_answered_as_they_get_ready() {
    let server = NameServer::start(|asked| {
        if asked.name.starts_with("slow") {
            Says::Nothing
        } else {
            Says::Many(1)
        }
    })
    .await;
    let bench = Bench::of(&server, "");
    let _own = bench.own();
    let mut stream = UnixStream::connect(bench.path()).await.unwrap();
    let names = (0..200).map(|n| {
        query(
            n,
            &format!("{}{n}.example.net", if n == 0 { "slow" } else { "n" }),
            Some("main"),
        )
    });
    stream.write_all(&frames(names)).await.unwrap();
    let mut buffer = BytesMut::new();
    let mut ids = Vec::new();
    while ids.len() < 199 {
        let reply = read_reply(&mut stream, &mut buffer).await.unwrap();
        assert_eq!(addresses(&reply), Ok(vec![v4(0)]));
        ids.push(reply.id());
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn broken_framing_ends_the_connection_after_what_was_asked() {
    let server = NameServer::start(|_| Says::Many(1)).await;
    let bench = Bench::of(&server, "");
    let _own = bench.own();
    for garbage in [&b"\0\x01x"[..], b"\xff\xff", b"\0\x0c\0\0\x80\0\0\0\0\0\0\0\0\0"] {
        let mut stream = UnixStream::connect(bench.path()).await.unwrap();
        let mut bytes = frames([query(1, "example.net", Some("main"))]);
        bytes.extend_from_slice(garbage);
        stream.write_all(&bytes).await.unwrap();
        let mut buffer = BytesMut::new();
        assert_eq!(read_reply(&mut stream, &mut buffer).await.unwrap().id(), 1);
        assert!(read_reply(&mut stream, &mut buffer).await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_answers_what_was_asked() {
    let server = NameServer::start(|_| Says::Nothing).await;
    let bench = Bench::of(&server, "");
    let _own = bench.own();
    let mut stream = UnixStream::connect(bench.path()).await.unwrap();
    stream
        .write_all(&frames([query(1, "example.net", Some("main"))]))
        .await
        .unwrap();
    while server.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    bench.tasks.stop();
    let mut buffer = BytesMut::new();
    let reply = read_reply(&mut stream, &mut buffer).await.unwrap();
    assert_eq!(addresses(&reply), Err(ResolveError::Timeout));
    assert!(read_reply(&mut stream, &mut buffer).await.is_none());
    assert!(bench.tasks.wait(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_dead_socket_is_replaced_but_nothing_else() {
    let bench = Bench::new("resolver: [{name: main, type: deny_all}]");
    drop(std::os::unix::net::UnixListener::bind(bench.path()).unwrap());
    let own = bench.own();
    let stream = UnixStream::connect(own.path()).await.unwrap();
    let reply = exchange(stream, query(1, "example.net", Some("main"))).await.unwrap();
    assert_eq!(addresses(&reply), Err(ResolveError::NoResolverSet));
    drop(own);
    std::fs::write(bench.path(), "precious").unwrap();
    let result = start_own(&bench.path(), None, Vec::new(), &bench.in_charge, &bench.tasks);
    assert!(result.is_err());
    assert_eq!(std::fs::read(bench.path()).unwrap(), b"precious");
}

async fn over_udp(address: SocketAddr, message: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address).await.unwrap();
    socket.send(message).await.unwrap();
    let mut packet = vec![0; 65535];
    let length = socket.recv(&mut packet).await.unwrap();
    packet.truncate(length);
    packet
}

#[tokio::test]
async fn other_programs_are_answered_over_udp_and_tcp() {
    let server = NameServer::start(|_| Says::Many(200)).await;
    let bench = Bench::of(&server, "127.0.0.0/8");
    let listening = bench.listening().await;
    let over_tcp = exchange(
        TcpStream::connect(listening.bound()).await.unwrap(),
        query(1, "example.net", None),
    )
    .await;
    assert_eq!(addresses(&over_tcp.unwrap()).unwrap().len(), 200);
    let packet = over_udp(listening.bound(), &query(2, "example.net", None)).await;
    assert!(packet.len() <= 1232);
    let reply = Reply::take(&packet).unwrap();
    assert!(reply.is_truncated() && reply.id() == 2);
}

#[tokio::test]
async fn strangers_are_refused() {
    let server = NameServer::start(|_| Says::Many(1)).await;
    let bench = Bench::of(&server, "192.0.2.0/24");
    let listening = bench.listening().await;
    let reply = Reply::take(&over_udp(listening.bound(), &query(1, "example.net", None)).await).unwrap();
    assert_eq!(addresses(&reply), Err(ResolveError::NoResolverSet));
    let stream = TcpStream::connect(listening.bound()).await.unwrap();
    assert!(exchange(stream, query(1, "example.net", None)).await.is_none());
    listening.prepare(&ListenConfig {
        allow: ["127.0.0.1/32".parse().unwrap()]
            .into_iter()
            .map(crate::config::Network)
            .collect(),
        ..bench.config.own.listen[0].clone()
    });
    listening.commit();
    let stream = TcpStream::connect(listening.bound()).await.unwrap();
    let reply = exchange(stream, query(1, "example.net", None)).await.unwrap();
    assert_eq!(addresses(&reply), Ok(vec![v4(0)]));
}

#[tokio::test(start_paused = true)]
async fn silent_tcp_connections_are_closed() {
    let server = NameServer::start(|_| Says::Many(1)).await;
    let bench = Bench::of(&server, "127.0.0.1");
    let listening = bench.listening().await;
    let mut stream = TcpStream::connect(listening.bound()).await.unwrap();
    let start = Instant::now();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(start.elapsed().as_secs(), 30);
}
