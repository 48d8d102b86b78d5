//! Answers that are kept, and given when the server has none.

use super::*;

#[tokio::test(start_paused = true)]
async fn stale_answers_are_given_at_once_when_the_server_is_gone() {
    let place = Place::new();
    let (_requests, server) = serve(place.listen(), |_| addresses(60));
    let resolver = place.resolver();
    lookup(&resolver, "example.net").await.unwrap();
    server.abort();
    let _ = server.await;
    until_down(&resolver).await;
    assert_eq!(lookup(&resolver, "example.net").await, from(Source::Cache));
    tokio::time::advance(Duration::from_secs(61)).await;
    let asked = Instant::now();
    for _ in 0..3 {
        assert_eq!(lookup(&resolver, "example.net").await, from(Source::Stale));
    }
    assert_eq!(asked.elapsed(), Duration::ZERO);
    tokio::time::advance(Duration::from_secs(3601)).await;
    assert_eq!(
        lookup(&resolver, "example.net").await,
        Err(ResolveError::NoResolverRunning)
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_lookups_get_stale_answers_when_the_server_goes() {
    let place = Place::new();
    let listener = place.listen();
    let resolver = place.resolver();
    let server = spawn(async move {
        let mut conversation = Conversation::accept(&listener).await;
        let request = conversation.request().await.unwrap();
        conversation.reply(&request, &addresses(1)).await;
        conversation.request().await.unwrap();
    });
    lookup(&resolver, "example.net").await.unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(lookup(&resolver, "example.net").await, from(Source::Stale));
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stale_answers_replace_those_of_a_stuck_server_after_a_while() {
    let place = Place::new();
    let listener = place.listen();
    let resolver = place.resolver();
    let server = spawn(async move {
        let mut conversation = Conversation::accept(&listener).await;
        let request = conversation.request().await.unwrap();
        conversation.reply(&request, &addresses(1)).await;
        pending().await
    });
    lookup(&resolver, "example.net").await.unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    let start = Instant::now();
    assert_eq!(lookup(&resolver, "example.net").await, from(Source::Stale));
    assert!(start.elapsed() >= Duration::from_millis(1800));
    let again = Instant::now();
    assert_eq!(lookup(&resolver, "example.net").await, from(Source::Stale));
    assert_eq!(again.elapsed(), Duration::ZERO);
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn stale_answers_win_over_failures_but_not_over_denials() {
    for (error, expected) in [
        (ResolveError::ServFail, from(Source::Stale)),
        (ResolveError::NotFound, Err(ResolveError::NotFound)),
    ] {
        let place = Place::new();
        let listener = place.listen();
        let script = spawn(async move {
            let mut conversation = Conversation::accept(&listener).await;
            for outcome in [addresses(1), failure(error)] {
                let request = conversation.request().await.unwrap();
                conversation.reply(&request, &outcome).await;
            }
            pending().await
        });
        let resolver = place.resolver();
        lookup(&resolver, "example.net").await.unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(lookup(&resolver, "example.net").await, expected);
        script.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn denials_are_kept_as_long_as_they_say() {
    let place = Place::new();
    let (mut requests, _server) = serve(place.listen(), |_| failure(ResolveError::NotFound));
    let resolver = place.resolver();
    for expected in [1, 1, 2] {
        assert_eq!(lookup(&resolver, "example.net").await, Err(ResolveError::NotFound));
        assert_eq!(requests.len(), expected);
        tokio::time::advance(Duration::from_secs(if requests.len() == 1 { 31 } else { 0 })).await;
    }
    requests.close();
}
