//! How streams and connections end.

use super::*;

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
