use super::*;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

fn bind(address: &str) -> UdpSocket {
    UdpBind::new(address.parse().unwrap()).open().unwrap()
}

/// Receives, in as many batches as it takes, until `count` datagrams are there.
fn receive_all(
    receiver: &mut Receiver,
    socket: &impl std::os::fd::AsFd,
    count: usize,
    mut each: impl FnMut(Received<'_>),
) -> usize {
    let (mut got, mut batches) = (0, 0);
    let start = Instant::now();
    while got < count {
        match receiver.receive(socket, BATCH, 4096) {
            Ok(n) => {
                assert!((1..=BATCH).contains(&n));
                got += n;
                batches += 1;
                receiver.datagrams().for_each(&mut each);
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{got} of {count} came");
    }
    batches
}

/// Few, so that several batches are needed.
const BATCH: usize = 5;

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + seed * 7) as u8).collect()
}

#[test]
fn lengths_and_sources_of_a_batch_are_exact_udp_01() {
    let dual = UdpBind {
        only_v6: Some(false),
        receive_buffer: Some(1 << 20),
        ..UdpBind::new("[::]:0".parse().unwrap())
    };
    let socket = dual.open().unwrap();
    let port = socket.local_addr().unwrap().port();
    let senders = [bind("127.0.0.1:0"), bind("[::1]:0"), bind("127.0.0.2:0")];
    let targets = [
        format!("127.0.0.1:{port}"),
        format!("[::1]:{port}"),
        format!("127.0.0.1:{port}"),
    ];
    let mut receiver = Receiver::new();
    // Sizes go up and down, so that a short one follows long ones in the same memory.
    let sizes: Vec<usize> = (0..=4096).step_by(61).flat_map(|size| [4096 - size, size]).collect();
    for (seed, group) in sizes.chunks(24).enumerate() {
        for (i, &size) in group.iter().enumerate() {
            let to = &targets[i % 3];
            assert_eq!(senders[i % 3].send_to(&pattern(seed + i, size), to).unwrap(), size);
        }
        let mut i = 0;
        let batches = receive_all(&mut receiver, &socket, group.len(), |datagram| {
            let expected = pattern(seed + i, group[i]);
            assert_eq!((datagram.length, datagram.payload), (expected.len(), &*expected));
            assert!(!datagram.is_truncated());
            let from = datagram.from.unwrap();
            let sender = senders[i % 3].local_addr().unwrap();
            assert_eq!((from.ip().to_canonical(), from.port()), (sender.ip(), sender.port()));
            assert_eq!(datagram.local, None);
            i += 1;
        });
        assert!(batches <= group.len(), "{batches}");
    }
}

#[test]
fn a_datagram_that_is_too_long_says_so_and_its_neighbours_are_whole_udp_08() {
    let (socket, sender) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let to = socket.local_addr().unwrap();
    let sizes = [10, 9000, 4096, 4097, 0, 20];
    for (i, &size) in sizes.iter().enumerate() {
        sender.send_to(&pattern(i, size), to).unwrap();
    }
    let mut receiver = Receiver::new();
    let mut i = 0;
    receive_all(&mut receiver, &socket, sizes.len(), |datagram| {
        assert_eq!(datagram.length, sizes[i]);
        assert_eq!(datagram.is_truncated(), sizes[i] > 4096);
        assert_eq!(datagram.payload, &pattern(i, sizes[i])[..sizes[i].min(4096)]);
        i += 1;
    });
}

#[test]
fn a_receiver_gives_only_what_the_last_batch_brought() {
    let (socket, sender) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let to = socket.local_addr().unwrap();
    for _ in 0..4 {
        sender.send_to(b"old and long", to).unwrap();
    }
    let mut receiver = Receiver::new();
    receive_all(&mut receiver, &socket, 4, |_| {});
    assert_eq!(
        receiver.receive(&socket, 8, 64).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    assert_eq!(receiver.datagrams().count(), 0);
    sender.send_to(b"new", to).unwrap();
    receive_all(&mut receiver, &socket, 1, |datagram| {
        assert_eq!(datagram.payload, b"new")
    });
    assert_eq!(receiver.datagrams().count(), 1);
    sender.send_to(b"1", to).unwrap();
    sender.send_to(b"2", to).unwrap();
    while receiver.receive(&socket, 1, 64).is_err() {}
    assert_eq!(receiver.datagrams().count(), 1);
}

/// A Unix socket stands for one with a tiny buffer: it takes as many datagrams as its peer's queue has room for.
#[test]
fn what_a_full_socket_did_not_take_is_sent_from_there_on_udp_02() {
    let (out, into) = UnixDatagram::pair().unwrap();
    let datagrams: &'static [[u8; 4]] = (0..500_u32).map(u32::to_be_bytes).collect::<Vec<_>>().leak();
    // In two parts each.
    let outgoing = |payload: &'static [u8; 4]| Outgoing {
        head: &payload[..3],
        payload: &payload[3..],
        to: None,
        from: None,
    };
    let (mut sender, mut receiver) = (Sender::new(), Receiver::new());
    let (mut sent, mut partial, mut got) = (0, 0, Vec::new());
    while sent < datagrams.len() {
        let rest = datagrams[sent..].iter().take(64);
        match sender.send(&out, rest.map(outgoing)) {
            Ok(n) => {
                assert!(n > 0);
                partial += usize::from(n < 64);
                sent += n;
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                receiver.receive(&into, 3, 16).unwrap();
                got.extend(receiver.datagrams().map(|datagram| {
                    assert_eq!((datagram.from, datagram.local), (None, None));
                    u32::from_be_bytes((datagram.payload).try_into().unwrap())
                }));
            }
        }
    }
    while receiver.receive(&into, 2, 16).is_ok() {
        let more = receiver.datagrams();
        got.extend(more.map(|datagram| u32::from_be_bytes((datagram.payload).try_into().unwrap())));
    }
    assert!(partial > 10, "{partial}");
    assert_eq!(got, (0..500).collect::<Vec<_>>());
}

#[test]
fn one_that_cannot_be_sent_is_reported_by_itself_udp_02() {
    let (socket, sender) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let to = Some(socket.local_addr().unwrap());
    let huge = vec![0; 70_000];
    let payloads: [&[u8]; 4] = [b"1", b"22", &huge, b"4444"];
    let outgoing = payloads.map(|payload| Outgoing {
        head: b"",
        payload,
        to,
        from: None,
    });
    let mut tables = Sender::new();
    assert_eq!(tables.send(&sender, outgoing).unwrap(), 2);
    let error = tables.send(&sender, outgoing[2..].iter().copied()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    assert_eq!(tables.send(&sender, outgoing[3..].iter().copied()).unwrap(), 1);
    assert_eq!(tables.send(&sender, []).unwrap(), 0);
    let mut lengths = Vec::new();
    receive_all(&mut Receiver::new(), &socket, 3, |datagram| {
        lengths.push(datagram.length);
    });
    assert_eq!(lengths, [1, 2, 4]);
}

#[test]
fn an_answer_leaves_from_the_address_that_was_asked_udp_06() {
    let v4 = UdpBind {
        tell_local: true,
        ..UdpBind::new("0.0.0.0:0".parse().unwrap())
    };
    let dual = UdpBind {
        tell_local: true,
        only_v6: Some(false),
        ..UdpBind::new("[::]:0".parse().unwrap())
    };
    for (server, asked) in [
        (&v4, "127.0.0.1"),
        (&v4, "127.0.0.2"),
        (&dual, "127.0.0.3"),
        (&dual, "::1"),
    ] {
        let server = server.open().unwrap();
        let asked = SocketAddr::new(asked.parse().unwrap(), server.local_addr().unwrap().port());
        let client = bind(if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" });
        client.send_to(b"?", asked).unwrap();
        let (mut to, mut from) = (None, None);
        receive_all(&mut Receiver::new(), &server, 1, |datagram| {
            (to, from) = (datagram.from, datagram.local);
        });
        assert_eq!(from.unwrap().ip.to_canonical(), asked.ip());
        // In either form, as callers may have brought it into the canonical one.
        let canonical = Local {
            ip: from.unwrap().ip.to_canonical(),
            ..from.unwrap()
        };
        let answers = [from.unwrap(), canonical].map(|from| Outgoing {
            head: b"!",
            payload: b"",
            to,
            from: Some(from),
        });
        assert_eq!(Sender::new().send(&server, answers).unwrap(), 2);
        receive_all(&mut Receiver::new(), &client, 2, |datagram| {
            assert_eq!(datagram.from, Some(asked));
        });
    }
}

#[test]
fn a_source_that_is_not_ours_is_an_error() {
    let socket = bind("127.0.0.1:0");
    let foreign = Outgoing {
        head: b"",
        payload: b"x",
        to: Some(socket.local_addr().unwrap()),
        from: Some(Local {
            ip: "192.0.2.1".parse().unwrap(),
            interface: 0,
        }),
    };
    assert!(Sender::new().send(bind("0.0.0.0:0"), [foreign]).is_err());
}

#[test]
fn options_reach_the_socket() {
    let wanted = UdpBind {
        receive_buffer: Some(40_000),
        send_buffer: Some(50_000),
        options: UdpOptions {
            time_to_live: Some(9),
            hop_limit: Some(8),
            type_of_service: Some(0x10),
            traffic_class: Some(0x20),
            netfilter_mark: None,
        },
        ..UdpBind::new("127.0.0.1:0".parse().unwrap())
    };
    let socket = wanted.open().unwrap();
    let options = socket2::SockRef::from(&socket);
    assert_eq!((options.ttl_v4().unwrap(), options.tos_v4().unwrap()), (9, 0x10));
    // The kernel keeps room for its own as well.
    assert_eq!(options.recv_buffer_size().unwrap(), 80_000);
    assert_eq!(options.send_buffer_size().unwrap(), 100_000);
    let address = "[::1]:0".parse().unwrap();
    let socket = UdpBind { address, ..wanted }.open().unwrap();
    let options = socket2::SockRef::from(&socket);
    assert_eq!(
        (options.unicast_hops_v6().unwrap(), options.tclass_v6().unwrap()),
        (8, 0x20)
    );
    let taken = socket.local_addr().unwrap();
    assert_eq!(UdpBind::new(taken).open().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let nowhere = UdpBind {
        interface: Some("no-such-device".into()),
        ..UdpBind::new("0.0.0.0:0".parse().unwrap())
    };
    assert!(nowhere.open().is_err());
}
