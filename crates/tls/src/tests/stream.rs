//! What both kinds of stream promise.

use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex, split};

use super::*;
use crate::config::RustlsClientConfig;
use crate::{Alert, Closure};

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// Both ends on a connection that takes `room` bytes at a time, for each server library.
async fn pairs(room: usize) -> Vec<(&'static str, TlsStream<DuplexStream>, TlsStream<DuplexStream>)> {
    let ca = Ca::new("ca");
    let connector = connector(&ca.client());
    let mut pairs = Vec::new();
    for (backend, acceptor) in backends(&params(&ca.server(&["a.test"]))) {
        let (near, far) = duplex(room);
        let name = host("a.test");
        let (client, server) = tokio::join!(sent(connector.connect(near, &name, 443, &[])), acceptor.accept(far));
        pairs.push((backend, client.unwrap(), server.unwrap()));
    }
    pairs
}

#[tokio::test]
async fn bytes_and_half_close_pass_both_ways() {
    for (backend, mut client, mut server) in pairs(1024).await {
        let data = pattern(300_000);
        let send = async {
            client.write_all(&data).await.unwrap();
            client.shutdown().await.unwrap();
            let mut back = Vec::new();
            client.read_to_end(&mut back).await.unwrap();
            back
        };
        let answer = async {
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.unwrap();
            server.write_all(&got).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let (back, ()) = tokio::join!(send, answer);
        assert!(back == data, "{backend}");
        assert_eq!(client.closure(), Some(Closure::Orderly), "{backend}");
        assert_eq!(server.closure(), Some(Closure::Orderly), "{backend}");
    }
}

async fn pump(mut reader: impl AsyncRead + Unpin, mut writer: impl AsyncWrite + Unpin, data: &[u8]) -> Vec<u8> {
    let write = async {
        for piece in data.chunks(7001) {
            writer.write_all(piece).await.unwrap();
            writer.flush().await.unwrap();
        }
        writer.shutdown().await.unwrap();
    };
    let read = async {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        got
    };
    tokio::join!(write, read).1
}

#[tokio::test]
async fn both_directions_at_once_through_a_narrow_connection_never_stall() {
    for (backend, client, server) in pairs(2000).await {
        let data = pattern(200_000);
        let (client_reader, client_writer) = split(client);
        let (server_reader, server_writer) = split(server);
        let (at_client, at_server) = tokio::join!(
            pump(client_reader, client_writer, &data),
            pump(server_reader, server_writer, &data)
        );
        assert!(at_client == data && at_server == data, "{backend}");
    }
}

#[tokio::test]
async fn a_connection_that_just_ends_is_not_an_end_of_data() {
    for (backend, mut client, server) in pairs(4096).await {
        drop(server);
        let mut buf = [0; 16];
        let error = client.read(&mut buf).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{backend}");
        assert_eq!(client.closure(), None, "{backend}");
    }
    for (backend, client, mut server) in pairs(4096).await {
        drop(client);
        let mut buf = [0; 16];
        assert_eq!(
            server.read(&mut buf).await.unwrap_err().kind(),
            ErrorKind::UnexpectedEof,
            "{backend}"
        );
    }
}

#[tokio::test]
async fn pieces_written_together_become_one_record() {
    for (backend, mut client, mut server) in pairs(64 * 1024).await {
        for stream in [&mut client, &mut server] {
            assert!(stream.is_write_vectored(), "{backend}");
            let pieces = [
                IoSlice::new(b"head "),
                IoSlice::new(b""),
                IoSlice::new(b"body "),
                IoSlice::new(b"tail"),
            ];
            assert_eq!(stream.write_vectored(&pieces).await.unwrap(), 14, "{backend}");
            stream.flush().await.unwrap();
        }
        let mut buf = [0; 64];
        assert_eq!(client.read(&mut buf).await.unwrap(), 14, "{backend}");
        assert_eq!(server.read(&mut buf).await.unwrap(), 14, "{backend}");
        assert_eq!(buf.get(..14), Some(&b"head body tail"[..]), "{backend}");
    }
}

/// Polls one write once.
async fn try_write(stream: &mut TlsStream<DuplexStream>, data: &[u8]) -> Option<usize> {
    poll_fn(|cx| match Pin::new(&mut *stream).poll_write(cx, data) {
        Poll::Ready(n) => Poll::Ready(Some(n.unwrap())),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn a_write_given_up_has_written_nothing() {
    for (backend, mut client, mut server) in pairs(2000).await {
        let mut taken = Vec::new();
        let first = pattern(64 * 1024);
        let mut rest = &first[..];
        while let Some(n) = try_write(&mut client, rest).await {
            taken.extend_from_slice(&rest[..n]);
            rest = &rest[n..];
        }
        // Another text than the one given up, and shorter.
        let write = async {
            client.write_all(b"something else").await.unwrap();
            client.shutdown().await.unwrap();
        };
        let read = async {
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.unwrap();
            got
        };
        let ((), got) = tokio::join!(write, read);
        taken.extend_from_slice(b"something else");
        assert!(got == taken, "{backend}");
    }
}

#[tokio::test(start_paused = true)]
async fn shutting_down_toward_a_peer_that_reads_nothing_waits_quietly() {
    for (backend, mut client, _server) in pairs(2000).await {
        while try_write(&mut client, &[0; 16 * 1024]).await.is_some() {}
        let mut polls = 0;
        let shutdown = poll_fn(|cx| {
            polls += 1;
            Pin::new(&mut client).poll_shutdown(cx)
        });
        tokio::time::timeout(std::time::Duration::from_secs(60), shutdown)
            .await
            .unwrap_err();
        assert!(polls < 10, "{backend}: {polls}");
    }
}

/// A peer may ask for new keys as often as it likes, and is answered each time (RFC 8446 §4.6.3).
#[tokio::test]
async fn answers_that_a_peer_does_not_read_are_not_piled_up() {
    const MOST: usize = 1 << 20;
    let ca = Ca::new("ca");
    let config = RustlsClientConfig {
        ca_certificate: Some(ca.certificates()),
        no_default_ca_certificate: true,
        ..RustlsClientConfig::default()
    };
    let client = crate::rustls_client(&config, here()).unwrap();
    let acceptor = params(&ca.server(&["a.test"])).openssl().unwrap();
    let (near, far) = duplex(1000);
    let connector = tokio_rustls::TlsConnector::from(client.config);
    let (client, server) = tokio::join!(
        connector.connect("a.test".try_into().unwrap(), near),
        acceptor.accept(far)
    );
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    let mut asked = 0;
    let mut got = [0; 16];
    // Until neither can go on.
    let mut stuck = 0;
    while stuck < 3 && asked < MOST {
        tokio::task::yield_now().await;
        let (sent, read) = poll_fn(|cx| {
            let sent = Pin::new(&mut client).poll_flush(cx).map(Result::unwrap);
            let mut buf = tokio::io::ReadBuf::new(&mut got);
            let read = Pin::new(&mut server).poll_read(cx, &mut buf).map(Result::unwrap);
            Poll::Ready((sent, read))
        })
        .await;
        assert!(read.is_pending());
        if sent.is_ready() {
            client.get_mut().1.refresh_traffic_keys().unwrap();
            asked += 27;
            stuck = 0;
        } else {
            stuck += 1;
        }
    }
    assert!(asked < MOST, "{asked} bytes are taken and their answers kept");
    // Once the peer reads, the server goes on to the end.
    let (mut raw, _) = client.into_inner();
    raw.shutdown().await.unwrap();
    let mut sink = tokio::io::sink();
    let ended = async {
        tokio::select! {
            read = server.read(&mut got) => read,
            _ = tokio::io::copy(&mut raw, &mut sink) => unreachable!("the server keeps its side open"),
        }
    };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), ended)
        .await
        .unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn the_alert_of_a_peer_that_refuses_late_is_told() {
    // In TLS 1.3 the client is done before the server has looked at its certificate.
    let ca = Ca::new("ca");
    let mut config = ca.server(&["a.test"]);
    config.enable_client_auth = true;
    config.ca_certificate = Some(ca.certificates());
    for (backend, acceptor) in backends(&params(&config)) {
        let (client, server) = shake(&connector(&ca.client()), "a.test", &[], &acceptor).await;
        assert!(server.is_err(), "{backend}");
        let mut client = client.unwrap();
        let error = client.read(&mut [0; 16]).await.unwrap_err();
        assert_eq!(crate::PeerAlert::of(&error), Some(Alert(116)), "{backend}: {error}");
        assert_eq!(client.closure(), Some(Closure::Abortive(Alert(116))), "{backend}");
    }
}
