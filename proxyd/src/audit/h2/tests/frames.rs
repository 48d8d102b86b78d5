//! What peers do that no library would.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// A client and an upstream whose frames a test writes itself; the upstream has sent its SETTINGS.
async fn raw() -> (DuplexStream, DuplexStream, JoinSet<Result<(), H2Error>>) {
    let (client, far) = duplex(1 << 20);
    let (to_upstream, mut upstream) = duplex(1 << 20);
    let seen: &'static Seen = Box::leak(Box::default());
    let mut ended = JoinSet::new();
    ended.spawn(async move { intercept(far, to_upstream, terms(&settings(), IDLE), &seen).await.1 });
    upstream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
    (client, upstream, ended)
}

/// A request that has come to such an upstream.
struct Asked {
    client: client::SendRequest<Bytes>,
    response: client::ResponseFuture,
    upstream: DuplexStream,
    ended: JoinSet<Result<(), H2Error>>,
    _client_ended: JoinSet<Result<(), h2::Error>>,
}

impl Asked {
    async fn new() -> Self {
        let (near, mut upstream, ended) = raw().await;
        let (mut client, connection) = client::handshake(near).await.unwrap();
        let mut client_ended = JoinSet::new();
        client_ended.spawn(connection);
        let (response, _body) = client.send_request(get("https://o.test/"), true).unwrap();
        upstream.read_exact(&mut [0; 24]).await.unwrap();
        read_up_to(1, &mut upstream).await;
        Self {
            client,
            response,
            upstream,
            ended,
            _client_ended: client_ended,
        }
    }
}

/// Reads frames up to one of a type; its payload.
async fn read_up_to(wanted: u8, from: &mut DuplexStream) -> Vec<u8> {
    loop {
        let mut head = [0; 9];
        from.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        from.read_exact(&mut payload).await.unwrap();
        if head[3] == wanted {
            return payload;
        }
    }
}

#[tokio::test]
async fn a_request_that_an_upstream_did_not_take_before_it_went_away_may_be_made_again() {
    let mut asked = Asked::new().await;
    let goaway = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
    asked.upstream.write_all(goaway).await.unwrap();
    let error = asked.response.await.unwrap_err();
    assert!(error.is_reset() && error.is_remote(), "{error:?}");
    assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
}

/// Each of these costs its sender nothing, and us an answer or some thought.
#[tokio::test]
async fn frames_that_flood_or_have_a_wrong_size_end_the_connection() {
    for (frame, wanted) in [
        (&b"\0\0\x08\x06\0\0\0\0\0PINGPING"[..], Reason::ENHANCE_YOUR_CALM),
        (b"\0\0\x00\x04\0\0\0\0\0", Reason::ENHANCE_YOUR_CALM),
        (b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01", Reason::ENHANCE_YOUR_CALM),
        (b"\0\0\x00\x77\0\0\0\0\0", Reason::ENHANCE_YOUR_CALM),
        (b"\0\0\x03\x06\0\0\0\0\0PIN", Reason::FRAME_SIZE_ERROR),
    ] {
        let (mut client, _upstream, mut ended) = raw().await;
        client
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .unwrap();
        client.write_all(&frame.repeat(1200)).await.unwrap();
        let goaway = read_up_to(7, &mut client).await;
        assert_eq!(goaway[4..8], u32::from(wanted).to_be_bytes(), "{frame:?}");
        drop(client);
        let error = ended.join_next().await.unwrap().unwrap().unwrap_err();
        assert!(matches!(error, H2Error::ClientFrames(_)), "{error}");
    }
}

/// The request that it was to answer is told so.
#[tokio::test]
async fn an_upstream_whose_frames_flood_is_a_502() {
    let mut asked = Asked::new().await;
    let pings = b"\0\0\x08\x06\0\0\0\0\0PINGPING".repeat(1200);
    asked.upstream.write_all(&pings).await.unwrap();
    assert_eq!(asked.response.await.unwrap().status(), 502);
    drop(asked.client);
    let error = asked.ended.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, H2Error::UpstreamFrames(_)), "{error}");
}
