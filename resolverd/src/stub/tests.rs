use std::net::{IpAddr, SocketAddr};

use hickory_net::{
    proto::{op::ResponseCode, rr::RecordType},
    xfer::Protocol,
};
use sluice_lifecycle::Tasks;
use sluice_wire::dns::Family::{V4, V6};
use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::nameserver::{Listens, NameServer, Says, a, aaaa, client, cname, v4};

const TIMING: Timing = Timing {
    connect: Duration::from_secs(5),
    request: Duration::from_secs(5),
    tries: 2,
    resend: Duration::from_secs(1),
    packets: 2,
};

fn sockets() -> Sockets {
    let options = SocketOptions {
        connect_timeout: TIMING.connect,
        ..SocketOptions::default()
    };
    Sockets::new(options, Tasks::new())
}

fn server(address: SocketAddr, transport: Transport) -> Server {
    Server::new(address, transport, TIMING, sockets())
}

/// Asks these servers in turn, far apart.
fn stub(servers: Vec<Server>) -> Stub {
    stub_with(Duration::from_secs(10), servers)
}

fn stub_with(wait: Duration, servers: Vec<Server>) -> Stub {
    let steps = (0..servers.len()).map(|server| Step { server, wait }).collect();
    Stub::new(servers, Plan { steps, rotate: false })
}

fn plain(servers: &[&NameServer]) -> Stub {
    stub(servers.iter().map(|it| server(it.address, Transport::Plain)).collect())
}

fn encryption(name: &str, trusting: bool) -> Encryption {
    Encryption {
        name: name.to_owned().try_into().unwrap(),
        config: client(trusting),
    }
}

fn transport(listens: Listens, encryption: Encryption) -> Transport {
    match listens {
        Listens::Plain => Transport::Plain,
        Listens::Tls => Transport::Tls(encryption),
        Listens::Https => Transport::Https(encryption),
        Listens::H3 => Transport::H3(encryption),
        Listens::Quic => Transport::Quic(encryption),
    }
}

fn found(addresses: &[IpAddr], ttl: u32) -> Result<Found, Failure> {
    Ok(Found {
        addresses: addresses.to_vec(),
        ttl,
    })
}

async fn error(stub: &Stub, domain: &str) -> ResolveError {
    stub.query(domain, V4).await.unwrap_err().error
}

/// A port on which nobody listens.
async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A UDP port that never answers.
async fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn every_transport_answers() {
    let cases = [
        (Listens::Plain, Protocol::Udp),
        (Listens::Tls, Protocol::Tls),
        (Listens::Https, Protocol::Https),
        (Listens::H3, Protocol::H3),
        (Listens::Quic, Protocol::Quic),
    ];
    for (listens, protocol) in cases {
        for name in ["dns.example.net", "127.0.0.1"] {
            let upstream = NameServer::start_at("127.0.0.1:0", listens, |asked| match asked.record_type {
                RecordType::A => Says::Records(vec![("www.example.net", 300, a(1))]),
                _ => Says::Records(vec![("www.example.net", 200, aaaa(1))]),
            })
            .await;
            let stub = stub(vec![server(
                upstream.address,
                transport(listens, encryption(name, true)),
            )]);
            let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
            for _ in 0..3 {
                assert_eq!(
                    stub.query("www.example.net", V4).await,
                    found(&[v4(1)], 300),
                    "{listens:?}"
                );
                assert_eq!(
                    stub.query("www.example.net", V6).await,
                    found(&[v6], 200),
                    "{listens:?}"
                );
            }
            assert!(upstream.asked().iter().all(|asked| asked.protocol == protocol));
            let condition = stub.conditions().remove(0);
            assert_eq!((condition.asked, condition.answered), (6, 6));
            assert_eq!(condition.connected, listens != Listens::Plain);
        }
    }
}

#[tokio::test]
async fn many_queries_share_a_connection() {
    for listens in [Listens::Tls, Listens::Https, Listens::H3, Listens::Quic] {
        let upstream = NameServer::start_at("127.0.0.1:0", listens, |_| Says::Many(1)).await;
        let stub = stub(vec![server(
            upstream.address,
            transport(listens, encryption("dns.example.net", true)),
        )]);
        let count = if listens == Listens::H3 { 90 } else { 200 }; // this server closes after 100
        let mut queries: FuturesUnordered<_> = (0..count)
            .map(|n| {
                let stub = &stub;
                async move { stub.query(&format!("n{n}.example.net"), V4).await }
            })
            .collect();
        while let Some(result) = queries.next().await {
            assert_eq!(result, found(&[v4(0)], 60), "{listens:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_has_served_enough_is_replaced() {
    let upstream = NameServer::start_at("127.0.0.1:0", Listens::H3, |_| Says::Many(1)).await;
    let stub = stub(vec![server(
        upstream.address,
        Transport::H3(encryption("dns.example.net", true)),
    )]);
    for _ in 0..250 {
        assert_eq!(stub.query("example.net", V4).await, found(&[v4(0)], 60));
    }
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused() {
    for listens in [Listens::Tls, Listens::Https, Listens::H3, Listens::Quic] {
        let upstream = NameServer::start_at("127.0.0.1:0", listens, |_| Says::Many(1)).await;
        for encryption in [
            encryption("dns.example.net", false),
            encryption("other.example.net", true),
        ] {
            let stub = stub(vec![server(upstream.address, transport(listens, encryption))]);
            let failure = stub.query("example.net", V4).await.unwrap_err();
            assert_eq!(failure.error, ResolveError::ConnectionRefused, "{listens:?}");
            let (_, reason) = stub.conditions().remove(0).last_failure.unwrap();
            assert!(reason.contains("certificate"), "{listens:?}: {reason}");
        }
    }
}

#[tokio::test]
async fn truncated_answers_are_fetched_over_tcp() {
    let upstream = NameServer::start(|_| Says::TruncatedOverUdp(200)).await;
    let found = plain(&[&upstream]).query("example.net", V4).await.unwrap();
    assert_eq!(found.addresses.len(), 200);
    let protocols: Vec<_> = upstream.asked().iter().map(|asked| asked.protocol).collect();
    assert_eq!(protocols, [Protocol::Udp, Protocol::Tcp]);
}

#[tokio::test]
async fn nodata_is_an_empty_answer() {
    let upstream = NameServer::start(|_| Says::Records(vec![])).await;
    let found = plain(&[&upstream]).query("example.net", V6).await.unwrap();
    assert!(found.addresses.is_empty());
}

#[tokio::test]
async fn response_codes_are_told_apart() {
    let upstream = NameServer::start(|asked| {
        Says::Code(match &*asked.name {
            "nxdomain" => ResponseCode::NXDomain,
            "servfail" => ResponseCode::ServFail,
            "refused" => ResponseCode::Refused,
            "notimp" => ResponseCode::NotImp,
            "formerr" => ResponseCode::FormErr,
            _ => ResponseCode::NotZone,
        })
    })
    .await;
    let stub = plain(&[&upstream]);
    for (name, expected) in [
        ("nxdomain", ResolveError::NotFound),
        ("servfail", ResolveError::ServFail),
        ("refused", ResolveError::Refused),
        ("notimp", ResolveError::NotImp),
        ("formerr", ResolveError::FormErr),
        ("other", ResolveError::Unexpected),
        ("bad..name", ResolveError::BadName),
    ] {
        assert_eq!(error(&stub, name).await, expected, "{name}");
    }
}

#[tokio::test]
async fn aliases_are_followed_to_their_end() {
    let upstream = NameServer::start(|asked| match &*asked.name {
        "www.example.net" => Says::Records(vec![("www.example.net", 50, cname("_x.example.net"))]),
        "_x.example.net" => Says::Records(vec![
            ("_x.example.net", 40, cname("end.example.net")),
            ("end.example.net", 90, a(9)),
        ]),
        "only.example.net" => Says::Records(vec![("only.example.net", 50, cname("nowhere.example.net"))]),
        "loop.example.net" => Says::Records(vec![("loop.example.net", 50, cname("pool.example.net"))]),
        "pool.example.net" => Says::Records(vec![("pool.example.net", 50, cname("loop.example.net"))]),
        _ => Says::Records(vec![]),
    })
    .await;
    let stub = plain(&[&upstream]);
    assert_eq!(stub.query("www.example.net", V4).await, found(&[v4(9)], 40)); // DNS-03
    assert_eq!(stub.query("only.example.net", V4).await, found(&[], 50)); // DNS-02
    assert_eq!(stub.query("loop.example.net", V4).await, found(&[], 50));
    assert!(upstream.asked().len() < 20);
}

#[tokio::test]
async fn the_next_server_is_asked_after_a_failure_at_once() {
    let failing = NameServer::start(|_| Says::Code(ResponseCode::ServFail)).await;
    let good = NameServer::start(|_| Says::Many(1)).await;
    let closed = server(closed_port().await, Transport::Plain);
    let stub = stub(vec![
        closed,
        server(failing.address, Transport::Plain),
        server(good.address, Transport::Plain),
    ]);
    let start = Instant::now();
    assert_eq!(stub.query("example.net", V4).await, found(&[v4(0)], 60));
    assert!(start.elapsed() < Duration::from_millis(900));
}

#[tokio::test]
async fn a_denial_ends_the_query() {
    let denying = NameServer::start(|_| Says::Code(ResponseCode::NXDomain)).await;
    let other = NameServer::start(|_| Says::Many(1)).await;
    assert_eq!(
        error(&plain(&[&denying, &other]), "example.net").await,
        ResolveError::NotFound
    );
    assert!(other.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_passed_by_after_its_turn() {
    let (_socket, silent) = silent().await;
    let good = NameServer::start(|_| Says::Many(1)).await;
    let second = Duration::from_secs(1);
    let both = stub_with(
        second,
        vec![server(silent, Transport::Plain), server(good.address, Transport::Plain)],
    );
    let start = Instant::now();
    assert_eq!(both.query("example.net", V4).await, found(&[v4(0)], 60));
    assert_eq!(start.elapsed().as_secs(), 1);
    let alone = stub_with(second, vec![server(silent, Transport::Plain)]);
    assert_eq!(error(&alone, "example.net").await, ResolveError::Timeout);
}

#[tokio::test]
async fn closed_ports_are_noticed() {
    let address = closed_port().await;
    for transport in [
        Transport::Plain,
        Transport::Tls(encryption("dns.example.net", true)),
        Transport::Https(encryption("dns.example.net", true)),
    ] {
        let stub = stub(vec![server(address, transport)]);
        assert_eq!(error(&stub, "example.net").await, ResolveError::ConnectionRefused);
        let condition = stub.conditions().remove(0);
        assert_eq!(
            (condition.answered, condition.failed_in_a_row, condition.connected),
            (0, 1, false)
        );
    }
}

/// DNS-06.
#[tokio::test]
async fn a_server_that_comes_back_is_used_again() {
    for listens in [Listens::Plain, Listens::Tls, Listens::Https] {
        let upstream = NameServer::start_at("127.0.0.1:0", listens, |_| Says::Many(1)).await;
        let address = upstream.address;
        let stub = stub(vec![server(
            address,
            transport(listens, encryption("dns.example.net", true)),
        )]);
        assert_eq!(stub.query("example.net", V4).await, found(&[v4(0)], 60));
        upstream.stop().await;
        for _ in 0..50 {
            assert_eq!(
                error(&stub, "example.net").await,
                ResolveError::ConnectionRefused,
                "{listens:?}"
            );
        }
        let _upstream = NameServer::start_at(&address.to_string(), listens, |_| Says::Many(2)).await;
        for _ in 0..50 {
            let found = stub.query("example.net", V4).await.unwrap();
            assert_eq!(found.addresses.len(), 2, "{listens:?}");
        }
    }
}

#[tokio::test]
async fn servers_take_turns() {
    let (first, second) = (
        NameServer::start(|_| Says::Many(1)).await,
        NameServer::start(|_| Says::Many(1)).await,
    );
    let mut stub = plain(&[&first, &second]);
    stub.plan.rotate = true;
    for _ in 0..10 {
        stub.query("example.net", V4).await.unwrap();
    }
    assert_eq!((first.asked().len(), second.asked().len()), (5, 5));
}

#[tokio::test]
async fn sockets_leave_from_where_they_are_told() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let options = SocketOptions {
        bind_v4: Some("127.0.0.7".parse().unwrap()),
        ..SocketOptions::default()
    };
    let sockets = Sockets::new(options, Tasks::new());
    let server = Server::new(upstream.local_addr().unwrap(), Transport::Plain, TIMING, sockets);
    let (_, from) = tokio::join!(
        async { tokio::time::timeout(Duration::from_millis(50), server.ask("example.net", V4)).await },
        async { upstream.recv_from(&mut [0; 512]).await.unwrap().1 }
    );
    assert_eq!(from.ip().to_string(), "127.0.0.7");
}
