//! What is not passed on.

use super::*;

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
