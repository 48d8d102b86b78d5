//! Servers that are reached over UDP and TCP.

use super::*;

/// Reads one query from a UDP socket.
async fn packet(socket: &UdpSocket) -> (Request, SocketAddr) {
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
    (Request::take(&buffer[..length]).unwrap(), from)
}

#[tokio::test]
async fn any_udp_server_will_do() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let resolver = resolver(Address::Udp(socket.local_addr().unwrap()));
    assert_eq!(resolver.condition().link, Link::Idle);
    let server = spawn(async move {
        let (request, from) = packet(&socket).await;
        assert_eq!(request.resolver, None);
        let mut forged = request.clone();
        forged.id ^= 1;
        for request in [&forged, &request] {
            let reply = put_reply(request, &addresses(60), 512);
            socket.send_to(&reply, from).await.unwrap();
        }
    });
    assert_eq!(lookup(&resolver, "example.net").await, from(Source::Peer));
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lost_packets_are_sent_again() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let resolver = resolver(Address::Udp(socket.local_addr().unwrap()));
    let server = spawn(async move {
        let (first, _) = packet(&socket).await;
        let (second, from) = packet(&socket).await;
        assert_eq!(first.id, second.id);
        let reply = put_reply(&second, &addresses(60), 512);
        socket.send_to(&reply, from).await.unwrap();
    });
    assert_eq!(lookup(&resolver, "example.net").await, from(Source::Peer));
    server.await.unwrap();
}

#[tokio::test]
async fn truncated_answers_are_fetched_over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    let resolver = resolver(Address::Udp(address));
    let server = spawn(async move {
        let many: Vec<IpAddr> = (0..100).map(|n| Ipv4Addr::new(192, 0, 2, n).into()).collect();
        let outcome = Outcome::Addresses {
            addresses: &many,
            ttl: 60,
            stale: false,
        };
        let (request, from) = packet(&socket).await;
        socket.send_to(&put_reply(&request, &outcome, 512), from).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut input = BytesMut::new();
        let frame = loop {
            if let Some(frame) = take_frame(&mut input, 4096).unwrap() {
                break frame;
            }
            stream.read_buf(&mut input).await.unwrap();
        };
        let mut output = BytesMut::new();
        put_frame(
            &mut output,
            &put_reply(&Request::take(&frame).unwrap(), &outcome, 65535),
        )
        .unwrap();
        stream.write_all(&output).await.unwrap();
    });
    assert_eq!(lookup(&resolver, "example.net").await.unwrap().addresses.len(), 100);
    server.await.unwrap();
}

#[tokio::test]
async fn a_tcp_server_may_close_between_queries() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let resolver = resolver(Address::Tcp(listener.local_addr().unwrap()));
    let server = spawn(async move {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut input = BytesMut::new();
            stream.read_buf(&mut input).await.unwrap();
            let frame = take_frame(&mut input, 4096).unwrap().unwrap();
            let mut output = BytesMut::new();
            put_frame(
                &mut output,
                &put_reply(&Request::take(&frame).unwrap(), &addresses(60), 65535),
            )
            .unwrap();
            stream.write_all(&output).await.unwrap();
        }
    });
    for n in 0..3 {
        let answer = lookup(&resolver, &format!("n{n}.example.net")).await;
        assert_eq!(answer, from(Source::Peer));
    }
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closed_udp_port_fails_lookups_at_their_deadline() {
    let address = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let resolver = resolver(Address::Udp(address));
    assert_eq!(
        lookup(&resolver, "example.net").await,
        Err(ResolveError::ConnectionRefused)
    );
}

#[tokio::test]
async fn a_closed_udp_port_is_noticed_at_once() {
    let address = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let resolver = resolver(Address::Udp(address));
    let start = Instant::now();
    tokio::select! {
        _ = lookup(&resolver, "example.net") => panic!("nobody answers"),
        () = until_down(&resolver) => {}
    }
    assert!(start.elapsed() < Duration::from_millis(500));
}
