mod frames;

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

/// H2-03.
#[tokio::test(start_paused = true)]
async fn a_connection_is_closed_when_no_stream_was_open_for_a_while_and_not_before() {
    let mut stage = Stage::with(
        settings(),
        Duration::from_secs(30),
        server::Builder::new(),
        client::Builder::new(),
    )
    .await;
    let (response, _body, mut taken) = stage.ask(get("https://o.test/"), true).await;
    let mut answer = taken.answer(200, false);
    let mut received = stage.drive(response).await.unwrap().into_body();
    stage.drive(sleep(Duration::from_secs(100))).await;
    answer.send_data("late".into(), true).unwrap();
    assert_eq!(stage.drive(all(&mut received)).await, b"late");
    let began = Instant::now();
    let Stage {
        mut upstream,
        mut ended,
        mut client_ended,
        client: _client,
        ..
    } = stage;
    let ended = tokio::select! {
        ended = ended.join_next() => ended.unwrap().unwrap(),
        () = async { while upstream.accept().await.is_some() {}; std::future::pending().await } => unreachable!(),
    };
    assert!(matches!(ended, Err(H2Error::Idle(_))), "{ended:?}");
    assert!((29..35).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    client_ended.join_next().await.unwrap().unwrap().unwrap();
}

/// H2-04.
#[tokio::test]
async fn a_reset_by_either_side_reaches_the_other() {
    for during_upload in [true, false] {
        let mut stage = Stage::new(settings()).await;
        let (response, mut body, mut taken) = stage.ask(post(), false).await;
        let reason = if during_upload {
            body.send_data("part".into(), false).unwrap();
            body.send_reset(Reason::CANCEL);
            stage.drive(poll_fn(|cx| taken.respond.poll_reset(cx))).await
        } else {
            let mut answer = taken.answer(200, false);
            let _received = stage.drive(response).await.unwrap().into_body();
            body.send_reset(Reason::CANCEL);
            stage.drive(poll_fn(|cx| answer.poll_reset(cx))).await
        };
        assert_eq!(reason.unwrap(), Reason::CANCEL);

        let mut stage = Stage::new(settings()).await;
        let (response, _body, mut taken) = stage.ask(post(), false).await;
        if during_upload {
            taken.respond.send_reset(Reason::ENHANCE_YOUR_CALM);
            let error = stage.drive(response).await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
        } else {
            let mut answer = taken.answer(200, false);
            let mut received = stage.drive(response).await.unwrap().into_body();
            answer.send_reset(Reason::INTERNAL_ERROR);
            let error = stage.drive(data(&mut received)).await.unwrap().unwrap_err();
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        }
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

#[tokio::test]
async fn an_upstream_without_extended_connect_does_not_get_any() {
    let mut stage = Stage::new(settings()).await;
    let (response, _body, mut taken) = stage.ask(get("https://o.test/"), true).await;
    taken.answer(204, true);
    stage.drive(response).await.unwrap();
    assert!(!stage.client.is_extended_connect_protocol_enabled());
}

/// H2-06.
#[tokio::test]
async fn the_upstream_may_not_push() {
    let mut stage = Stage::new(settings()).await;
    let (_response, _body, mut taken) = stage.ask(get("https://o.test/"), true).await;
    assert!(taken.respond.push_request(get("https://o.test/style.css")).is_err());
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
async fn streams_that_are_open_when_the_client_leaves_have_their_records() {
    let mut stage = Stage::new(settings()).await;
    let (_waiting, _body, _taken) = stage.ask(post(), false).await;
    let (answered, _body, mut taken) = stage.ask(get("https://o.test/"), true).await;
    let _answer = taken.answer(200, false);
    let _received = stage.drive(answered).await.unwrap().into_body();
    stage.client_ended.shutdown().await;
    drop(stage.upstream);
    stage.ended.join_next().await.unwrap().unwrap().unwrap();
    let seen = stage.seen.0.lock().unwrap();
    let mut told: Vec<_> = seen
        .iter()
        .map(|note| {
            (
                note.client_stream,
                note.status,
                note.error.as_ref().map(ToString::to_string),
            )
        })
        .collect();
    told.sort();
    let cut = || Some("the connection ended before the stream".to_owned());
    assert_eq!(told, [(1, None, cut()), (3, Some(StatusCode::OK), cut())]);
}

/// H2-08.
#[tokio::test]
async fn an_upstream_that_goes_away_lets_running_streams_finish() {
    let mut stage = Stage::new(settings()).await;
    let (first, _body, mut one) = stage.ask(get("https://o.test/1"), true).await;
    let (second, _body, mut two) = stage.ask(get("https://o.test/2"), true).await;
    stage.upstream.graceful_shutdown();
    let Stage {
        client,
        mut upstream,
        mut ended,
        mut client_ended,
        ..
    } = stage;
    let mut driver = JoinSet::new();
    driver.spawn(async move { while upstream.accept().await.is_some() {} });
    let going = poll_fn(|cx| match client.clone().poll_ready(cx) {
        Poll::Ready(Err(error)) => Poll::Ready(error),
        _ => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    });
    let error = going.await;
    assert!(
        error.is_go_away() && error.reason() == Some(Reason::NO_ERROR),
        "{error:?}"
    );
    for (response, taken) in [(first, &mut one), (second, &mut two)] {
        taken.answer(200, false).send_data("whole".into(), true).unwrap();
        let mut received = response.await.unwrap().into_body();
        assert_eq!(all(&mut received).await, b"whole");
    }
    drop((one, two));
    ended.join_next().await.unwrap().unwrap().unwrap();
    client_ended.join_next().await.unwrap().unwrap().unwrap();
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

#[tokio::test]
async fn what_no_upstream_may_answer_is_a_502() {
    for (status, times, wanted) in [
        (103, 101, "interim responses without end"),
        (101, 1, "switches protocols"),
    ] {
        let mut stage = Stage::new(settings()).await;
        let (response, _body, mut taken) = stage.ask(get("https://o.test/"), true).await;
        for _ in 0..times {
            let interim = Response::builder().status(status).body(()).unwrap();
            taken.respond.send_informational(interim).unwrap();
        }
        assert_eq!(stage.drive(response).await.unwrap().status(), 502);
        let error = stage.seen.0.lock().unwrap()[0].error.take().unwrap();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn a_malformed_request_goes_nowhere() {
    let mut stage = Stage::new(settings()).await;
    let two_hosts = Request::get("https://o.test/")
        .header("host", "p.test")
        .body(())
        .unwrap();
    let (response, _body) = stage.client.send_request(two_hosts, true).unwrap();
    assert_eq!(stage.drive(response).await.unwrap().status(), 400);
}

#[tokio::test]
async fn an_expectation_is_refused_or_dropped() {
    let expecting = || {
        Request::post("https://o.test/")
            .header("expect", "100-continue")
            .body(())
            .unwrap()
    };
    let mut stage = Stage::new(settings()).await;
    let (response, _body) = stage.client.send_request(expecting(), false).unwrap();
    assert_eq!(stage.drive(response).await.unwrap().status(), 417);
    let mut lenient = settings();
    lenient.silent_drop_expect_header = true;
    let mut stage = Stage::new(lenient).await;
    let (_response, _body, taken) = stage.ask(expecting(), false).await;
    assert!(!taken.request.headers().contains_key("expect"));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_does_not_answer_in_time_is_a_504() {
    let mut stage = Stage::new(settings()).await;
    let (response, mut body, _taken) = stage.ask(post(), false).await;
    let began = Instant::now();
    stage.drive(sleep(Duration::from_secs(50))).await;
    body.send_data("end".into(), true).unwrap();
    // The time counts from the end of the request.
    assert_eq!(stage.drive(response).await.unwrap().status(), 504);
    assert!((109..112).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_is_whole_and_then_stops_it() {
    let mut stage = Stage::new(settings()).await;
    let (response, mut body, mut taken) = stage.ask(post(), false).await;
    taken.answer(413, false).send_data("too much".into(), true).unwrap();
    // Nobody reads the rest: the library resets the stream with NO_ERROR.
    drop(taken);
    let response = stage.drive(response).await.unwrap();
    assert_eq!(response.status(), 413);
    let mut received = response.into_body();
    assert_eq!(stage.drive(all(&mut received)).await, b"too much");
    let reason = stage.drive(poll_fn(|cx| body.poll_reset(cx))).await.unwrap();
    assert_eq!(reason, Reason::NO_ERROR);
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_at_once_end_the_connection() {
    let mut stage = Stage::new(settings()).await;
    let flood = async {
        loop {
            let mut client = stage.client.clone();
            if poll_fn(|cx| client.poll_ready(cx)).await.is_err() {
                return;
            }
            if let Ok((_, mut body)) = client.send_request(post(), false) {
                body.send_reset(Reason::CANCEL);
            }
            tokio::task::yield_now().await;
        }
    };
    let upstream = async {
        while stage.upstream.accept().await.is_some() {}
        std::future::pending().await
    };
    tokio::select! {
        () = flood => {}
        () = upstream => {}
    }
    let ended = stage.client_ended.join_next().await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().reason(), Some(Reason::ENHANCE_YOUR_CALM));
}

#[tokio::test(start_paused = true)]
async fn a_side_that_answers_no_ping_is_given_up() {
    let mut stage = Stage::new(settings()).await;
    let (_response, _body, _taken) = stage.ask(get("https://o.test/"), true).await;
    // Nobody drives the upstream's connection now.
    let ended = stage.ended.join_next().await.unwrap().unwrap();
    assert!(matches!(ended, Err(H2Error::UpstreamSilent(_))), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn silent_handshakes_end_by_their_limits() {
    let (_near, far) = duplex(1024);
    let (to_upstream, _at_upstream) = duplex(1024);
    let seen: &'static Seen = Box::leak(Box::default());
    let ended = intercept(far, to_upstream, terms(&settings(), IDLE), &seen).await.1;
    assert!(matches!(ended, Err(H2Error::UpstreamSettings(_))), "{ended:?}");
}
