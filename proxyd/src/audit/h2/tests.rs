mod ends;
mod frames;
mod refusals;

use std::sync::Mutex;

use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinSet;

use super::*;

const IDLE: Duration = Duration::from_secs(600);

fn settings() -> H2Interception {
    H2Interception::default()
}

/// Without services.
fn terms(settings: &H2Interception, idle: Duration) -> Terms<'_> {
    Terms {
        settings,
        idle,
        adapter: None,
    }
}

/// Notes what it is told; lets WebSocket through.
#[derive(Default)]
struct Seen(Mutex<Vec<StreamNote>>);

impl Watch for &'static Seen {
    fn admit(&self, protocol: &str) -> Admission {
        match protocol {
            "websocket" => Admission::Passed,
            "forbidden" => Admission::Forbidden,
            _ => Admission::Unknown,
        }
    }

    fn tunnel(&self, _: sluice_addr::Upstream, _: Stream, _: Stream) -> oneshot::Receiver<String> {
        unreachable!("no test here opens a tunnel")
    }

    fn stream_ended(&self, note: StreamNote) {
        self.0.lock().unwrap().push(note);
    }

    fn pinged(&self, _: Duration, _: Counts) {}
}

type Upstream = server::Connection<DuplexStream, Bytes>;

/// A client and an upstream with an intercepted connection between them.
struct Stage {
    client: client::SendRequest<Bytes>,
    upstream: Upstream,
    seen: &'static Seen,
    ended: JoinSet<Result<(), H2Error>>,
    client_ended: JoinSet<Result<(), h2::Error>>,
}

impl Stage {
    async fn new(settings: H2Interception) -> Self {
        Self::with(settings, IDLE, server::Builder::new(), client::Builder::new()).await
    }

    async fn with(
        settings: H2Interception,
        idle: Duration,
        upstream: server::Builder,
        client: client::Builder,
    ) -> Self {
        let (near, far) = duplex(1 << 16);
        let (to_upstream, at_upstream) = duplex(1 << 16);
        let seen: &'static Seen = Box::leak(Box::default());
        let mut ended = JoinSet::new();
        ended.spawn(async move { intercept(far, to_upstream, terms(&settings, idle), &seen).await.1 });
        let mut upstream = upstream.handshake::<_, Bytes>(at_upstream).await.unwrap();
        let (client, connection) = tokio::select! {
            client = client.handshake::<_, Bytes>(near) => client.unwrap(),
            _ = upstream.accept() => panic!("a request before there is a client"),
        };
        let mut client_ended = JoinSet::new();
        client_ended.spawn(connection);
        Self {
            client,
            upstream,
            seen,
            ended,
            client_ended,
        }
    }

    /// Sends a request, and takes it at the upstream.
    async fn ask(&mut self, request: Request<()>, ends: bool) -> (client::ResponseFuture, SendStream<Bytes>, Taken) {
        let (response, body) = self.client.send_request(request, ends).unwrap();
        let (request, respond) = self.upstream.accept().await.unwrap().unwrap();
        (response, body, Taken { request, respond })
    }

    /// Drives the upstream's connection until `work` is done.
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = work => done,
            more = self.upstream.accept() => panic!("the connection ended, or a request too many: {}", more.is_some()),
        }
    }
}

/// A request at the upstream.
struct Taken {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

impl Taken {
    fn answer(&mut self, status: u16, ends: bool) -> SendStream<Bytes> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        self.respond.send_response(response, ends).unwrap()
    }
}

fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

fn post() -> Request<()> {
    Request::post("https://o.test/p").body(()).unwrap()
}

async fn data(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = body.data().await;
    if let Some(Ok(bytes)) = &data {
        body.flow_control().release_capacity(bytes.len()).unwrap();
    }
    data
}

async fn all(body: &mut RecvStream) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(part) = data(body).await {
        whole.extend_from_slice(&part.unwrap());
    }
    whole
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())])
}

#[tokio::test]
async fn heads_bodies_and_trailers_pass_both_ways() {
    let mut stage = Stage::new(settings()).await;
    let (response, mut body, mut taken) = stage.ask(post(), false).await;
    assert_eq!(
        (taken.request.method(), taken.request.uri().path()),
        (&Method::POST, "/p")
    );
    body.send_data("up".into(), false).unwrap();
    body.send_trailers(trailers()).unwrap();
    let sent = stage.drive(all(taken.request.body_mut())).await;
    assert_eq!(sent, b"up");
    assert_eq!(
        stage.drive(taken.request.body_mut().trailers()).await.unwrap().unwrap()["x-sum"],
        "1"
    );
    let mut answer = taken.answer(200, false);
    answer.send_data("down".into(), false).unwrap();
    answer.send_trailers(trailers()).unwrap();
    let response = stage.drive(response).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut received = response.into_body();
    assert_eq!(stage.drive(all(&mut received)).await, b"down");
    assert_eq!(stage.drive(received.trailers()).await.unwrap().unwrap()["x-sum"], "1");
    stage.drive(tokio::task::yield_now()).await;
    let seen = stage.seen.0.lock().unwrap();
    let [note] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((note.client_stream, note.upstream_stream), (1, Some(1)));
    assert_eq!(
        (note.status, note.origin_status),
        (Some(StatusCode::OK), Some(StatusCode::OK))
    );
    assert!(
        note.error.is_none() && note.request_sent <= note.response_received,
        "{note:?}"
    );
}

#[tokio::test]
async fn both_directions_flow_at_the_same_time() {
    let mut stage = Stage::new(settings()).await;
    let (response, mut body, mut taken) = stage.ask(post(), false).await;
    let mut answer = taken.answer(200, false);
    let mut received = stage.drive(response).await.unwrap().into_body();
    for word in ["one", "two", "three"] {
        body.send_data(word.into(), false).unwrap();
        let heard = stage.drive(data(taken.request.body_mut())).await.unwrap().unwrap();
        answer.send_data(heard, false).unwrap();
        assert_eq!(stage.drive(data(&mut received)).await.unwrap().unwrap(), word);
    }
    body.send_data(Bytes::new(), true).unwrap();
    assert!(
        stage
            .drive(data(taken.request.body_mut()))
            .await
            .unwrap()
            .unwrap()
            .is_empty()
    );
    answer.send_data("bye".into(), true).unwrap();
    assert_eq!(stage.drive(all(&mut received)).await, b"bye");
}

#[tokio::test]
async fn more_than_all_windows_comes_through_to_a_slow_receiver() {
    let mut small = settings();
    small.stream_window_size.0 = 1 << 16;
    small.connection_window_size.0 = 1 << 16;
    let mut stage = Stage::new(small).await;
    let (response, _body, mut taken) = stage.ask(get("https://o.test/"), true).await;
    let mut answer = taken.answer(200, false);
    let mut received = stage.drive(response).await.unwrap().into_body();
    let whole: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    answer.send_data(whole.clone().into(), true).unwrap();
    assert!(stage.drive(all(&mut received)).await == whole);
}

/// H2-01.
#[tokio::test]
async fn empty_data_frames_neither_fail_nor_end_anything() {
    let mut stage = Stage::new(settings()).await;
    let (response, mut body, mut taken) = stage.ask(post(), false).await;
    body.send_data(Bytes::new(), false).unwrap();
    body.send_data("a".into(), false).unwrap();
    body.send_data(Bytes::new(), true).unwrap();
    assert_eq!(stage.drive(all(taken.request.body_mut())).await, b"a");
    let mut answer = taken.answer(200, false);
    answer.send_data(Bytes::new(), false).unwrap();
    answer.send_data(Bytes::new(), true).unwrap();
    let mut received = stage.drive(response).await.unwrap().into_body();
    assert_eq!(stage.drive(all(&mut received)).await, b"");
}

/// H2-02: the upstream's number if that is the lower one.
#[tokio::test]
async fn the_number_of_streams_is_announced() {
    for (ours, theirs, announced) in [(7, None, 7), (128, Some(3), 3), (2, Some(100), 2)] {
        let mut upstream = server::Builder::new();
        if let Some(theirs) = theirs {
            upstream.max_concurrent_streams(theirs);
        }
        let mut settings = settings();
        settings.max_concurrent_streams = ours;
        let mut stage = Stage::with(settings, IDLE, upstream, client::Builder::new()).await;
        let (response, _body, mut taken) = stage.ask(get("https://o.test/"), true).await;
        taken.answer(204, true);
        stage.drive(response).await.unwrap();
        assert_eq!(stage.client.current_max_send_streams(), announced);
    }
}

/// H2-05.
#[tokio::test]
async fn extended_connect_goes_by_its_protocol() {
    let mut upstream = server::Builder::new();
    upstream.enable_connect_protocol();
    let mut stage = Stage::with(settings(), IDLE, upstream, client::Builder::new()).await;
    let connect = |protocol: &'static str| {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri("https://o.test/chat")
            .body(())
            .unwrap();
        request.extensions_mut().insert(Protocol::from_static(protocol));
        request
    };
    // The upstream's SETTINGS are known to the client with the first answer at the latest.
    let (response, _body, mut taken) = stage.ask(get("https://o.test/"), true).await;
    taken.answer(204, true);
    stage.drive(response).await.unwrap();
    for (protocol, status) in [("connect-udp", 501), ("junk", 501), ("forbidden", 403)] {
        let (response, _body) = stage.client.send_request(connect(protocol), false).unwrap();
        assert_eq!(stage.drive(response).await.unwrap().status(), status);
    }
    let (response, mut body, mut taken) = stage.ask(connect("websocket"), false).await;
    assert_eq!(
        taken.request.extensions().get::<Protocol>().unwrap().as_str(),
        "websocket"
    );
    let mut answer = taken.answer(200, false);
    let mut received = stage.drive(response).await.unwrap().into_body();
    body.send_data("ping".into(), false).unwrap();
    let heard = stage.drive(data(taken.request.body_mut())).await.unwrap().unwrap();
    answer.send_data(heard, false).unwrap();
    assert_eq!(stage.drive(data(&mut received)).await.unwrap().unwrap(), "ping");
}

/// H2-07.
#[tokio::test]
async fn host_is_sent_exactly_if_the_client_sent_it() {
    let mut stage = Stage::new(settings()).await;
    let (_response, _body, taken) = stage.ask(get("https://o.test/"), true).await;
    assert!(!taken.request.headers().contains_key("host"));
    let with = Request::get("https://o.test/")
        .header("host", "o.test")
        .body(())
        .unwrap();
    let (_response, _body, taken) = stage.ask(with, true).await;
    assert_eq!(taken.request.headers()["host"], "o.test");
}

#[tokio::test]
async fn interim_responses_come_before_the_final_one() {
    let mut stage = Stage::new(settings()).await;
    let (mut response, _body, mut taken) = stage.ask(get("https://o.test/"), true).await;
    let hints = Response::builder()
        .status(103)
        .header("link", "</a.css>")
        .body(())
        .unwrap();
    taken.respond.send_informational(hints).unwrap();
    let interim = stage
        .drive(poll_fn(|cx| response.poll_informational(cx)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (interim.status().as_u16(), &interim.headers()["link"]),
        (103, &"</a.css>".parse().unwrap())
    );
    taken.answer(200, true);
    assert_eq!(stage.drive(response).await.unwrap().status(), 200);
}
