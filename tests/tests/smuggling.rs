//! Malformed, smuggling and merely unusual messages: each gets the answer, or is forwarded byte for byte, as the table
//! `sluice_http1::cases` says. One proxy for all; each row has an origin of its own.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_http1::cases::{ORIGIN, RequestCase, RequestExpect, ResponseCase, ResponseExpect, requests, responses};
use sluice_testkit::{Daemon, Origin, Wire, assert_eventually};
use sluice_tests::proxy;
use tokio::task::JoinSet;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Above this the proxy cannot have seen a whole message before it begins to send it.
const BUFFER: usize = 16 * 1024;

/// Puts the origin's address in the place of its name.
fn addressed(bytes: &[u8], origin: SocketAddr) -> Vec<u8> {
    let name = ORIGIN.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(name.len()).position(|window| window == name) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(origin.to_string().as_bytes());
        rest = &rest[at + name.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// Runs a check for each row and names all rows that fail, not only the first.
async fn check_all<R, F: Future<Output = ()> + Send + 'static>(
    rows: impl IntoIterator<Item = R>,
    name: impl Fn(&R) -> &'static str,
    check: impl Fn(R) -> F,
) {
    let mut failed = Vec::new();
    let mut count = 0;
    for row in rows {
        let name = name(&row);
        let mut one = JoinSet::new();
        one.spawn(check(row));
        if one.join_next().await.is_none_or(|ended| ended.is_err()) {
            failed.push(name);
        }
        count += 1;
    }
    assert!(failed.is_empty(), "{} of {count} rows fail: {failed:#?}", failed.len());
}

/// A request that must reach the origin whole and alone; what the origin has got before it belongs to the row.
async fn marker(proxy: SocketAddr, origin: &Origin) -> Vec<u8> {
    let addr = origin.addr();
    let mut wire = Wire::connect(proxy).await;
    let answer = wire
        .ask(format!("GET http://{addr}/marker HTTP/1.1\r\nHost: {addr}\r\n\r\n"))
        .await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"ok"[..]));
    format!("GET /marker HTTP/1.1\r\nHost: {addr}\r\n\r\n").into_bytes()
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..600).unwrap_or(bytes)).into_owned()
}

fn assert_same(got: &[u8], wanted: &[u8]) {
    assert!(got == wanted, "got {:?}\nnot {:?}", shown(got), shown(wanted));
}

async fn check_request(proxy: SocketAddr, row: RequestCase, pieces: usize) {
    let origin = Origin::script(|conn| {
        while conn.request()?.is_some() {
            conn.write(OK)?;
        }
        Ok(())
    });
    let sent = addressed(&row.client, origin.addr());
    let mut wire = Wire::connect(proxy).await;
    for piece in sent.chunks(pieces.min(sent.len())) {
        wire.try_send(piece).await;
    }
    match row.expect {
        RequestExpect::Refuse(status) => {
            let answer = wire.answer().await;
            assert_eq!(answer.status, status, "{}", answer.head);
            assert_eq!(answer.header("connection"), Some("close"), "{}", answer.head);
            // Nothing hidden behind is answered.
            wire.assert_closed().await;
            let marker = marker(proxy, &origin).await;
            let got = origin.received().concat();
            if sent.len().min(pieces) <= BUFFER && sent.len() <= pieces {
                assert_same(&got, &marker);
            } else {
                // What has gone out already must have stayed incomplete: its connection served nothing more.
                let last = origin.received().pop().unwrap_or_default();
                assert_same(&last, &marker);
                assert!(origin.accepted() <= 2);
            }
        }
        RequestExpect::Forward(wanted) => {
            let wanted = addressed(&wanted, origin.addr());
            let answer = wire.answer().await;
            assert_eq!(
                (answer.status, answer.body.as_slice()),
                (200, &b"ok"[..]),
                "{}",
                answer.head
            );
            wire.finish().await;
            wire.assert_closed().await;
            let marker = marker(proxy, &origin).await;
            // The connection was kept, so no byte too many can hide; kept for this client alone, if it is authenticated.
            let bound = row.covers.contains(&"H1-24");
            assert_eq!(origin.accepted(), if bound { 2 } else { 1 });
            assert_same(&origin.received().concat(), &[wanted, marker].concat());
        }
    }
}

#[tokio::test]
async fn each_request_is_refused_or_forwarded_byte_for_byte() {
    let daemon = Daemon::proxyd(&proxy("", "")).start().await;
    let addr = daemon.addr("http");
    assert!(requests().len() > 200);
    check_all(requests(), |row| row.name, |row| check_request(addr, row, usize::MAX)).await;
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_request_in_pieces_fares_as_one_sent_at_once() {
    let daemon = Daemon::proxyd(&proxy("", "")).start().await;
    let addr = daemon.addr("http");
    let small = || requests().into_iter().filter(|row| row.client.len() < BUFFER);
    for pieces in [1, 7] {
        check_all(small(), |row| row.name, |row| check_request(addr, row, pieces)).await;
    }
    daemon.stop().await.assert_clean();
}

async fn check_response(proxy: SocketAddr, row: ResponseCase) {
    let ended = Arc::new(AtomicBool::new(false));
    let (bytes, closes, end) = (row.origin.clone(), row.closes, Arc::clone(&ended));
    let origin = Origin::script(move |conn| {
        let mut first = conn.index() == 0;
        while conn.head()?.is_some() {
            conn.write(if first { &bytes } else { OK })?;
            if first && closes {
                return Ok(());
            }
            first = false;
        }
        end.fetch_or(conn.index() == 0, Ordering::SeqCst);
        Ok(())
    });
    let addr = origin.addr();
    let mut wire = Wire::connect(proxy).await;
    let head = format!(" http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    wire.send(format!("{}{head}", row.method)).await;
    let (keeps_client, keeps_upstream) = match row.expect {
        ResponseExpect::BadGateway => {
            let answer = wire.answer().await;
            assert_eq!(answer.status, 502, "{}", answer.head);
            (false, false)
        }
        ResponseExpect::Forward {
            client,
            keeps_client,
            keeps_upstream,
        } => {
            assert_same(&wire.exactly(client.len()).await, &client);
            (keeps_client, keeps_upstream)
        }
    };
    if !keeps_upstream && !closes {
        assert_eventually!(ended.load(Ordering::SeqCst), "the upstream connection stays open");
    }
    if keeps_client {
        let answer = wire.ask(format!("GET{head}")).await;
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (200, &b"ok"[..]),
            "{}",
            answer.head
        );
    } else {
        wire.assert_closed().await;
        marker(proxy, &origin).await;
    }
    assert_eq!(origin.accepted(), if keeps_upstream { 1 } else { 2 });
}

#[tokio::test]
async fn each_response_is_forwarded_byte_for_byte_or_a_bad_gateway() {
    let daemon = Daemon::proxyd(&proxy("", "")).start().await;
    let addr = daemon.addr("http");
    assert!(responses().len() > 80);
    check_all(responses(), |row| row.name, |row| check_response(addr, row)).await;
    daemon.stop().await.assert_clean();
}
