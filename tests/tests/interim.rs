//! 1xx responses, and requests that wait for one before they send their body.

use std::sync::Arc;

use sluice_testkit::{Daemon, Origin, assert_eventually, curl};
use sluice_tests::{noise, proxy};

async fn started() -> Daemon {
    Daemon::proxyd(&proxy("", "")).start().await
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

fn expecting(origin: &Origin) -> String {
    format!(
        "POST http://{}/ HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        origin.addr()
    )
}

/// H1-12.
#[tokio::test]
async fn the_origin_decides_when_the_body_is_sent() {
    let origin = Origin::script(|conn| {
        while let Some(head) = conn.head()? {
            assert!(head.contains("Expect: 100-continue\r\n"), "{head}");
            conn.write(CONTINUE)?;
            conn.exactly(5)?;
            conn.write(OK)?;
        }
        Ok(())
    });
    let daemon = started().await;
    let mut wire = daemon.connect("http").await;
    for _ in 0..2 {
        wire.send(expecting(&origin)).await;
        assert_eq!(wire.head().await.as_bytes(), CONTINUE);
        let answer = wire.ask("hello").await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"ok"[..]));
    }
    assert_eq!(origin.accepted(), 1);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn curl_uploads_after_100_continue() {
    let body = Arc::new(noise(3 << 20));
    let wanted = Arc::clone(&body);
    let origin = Origin::http(move |request| {
        assert!(request.header("expect").is_some());
        if request.body == *wanted {
            OK.to_vec()
        } else {
            b"HTTP/1.1 400 Another\r\n\r\n".to_vec()
        }
    });
    let daemon = started().await;
    let file = daemon.group().dir().join("body");
    std::fs::write(&file, &*body).unwrap();
    for framing in ["X: y", "Transfer-Encoding: chunked"] {
        let put = curl(&format!("http://{}/", origin.addr()))
            .proxy(daemon.addr("http"))
            .header("Expect: 100-continue")
            .header(framing)
            .args(["--expect100-timeout", "30", "-T"])
            .arg(&file)
            .run()
            .await;
        put.assert(200, "ok");
        assert!(put.head.starts_with("HTTP/1.1 100 Continue\r\n"), "{}", put.head);
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_client_that_gets_tired_of_waiting_sends_its_body() {
    let origin = Origin::script(|conn| {
        conn.until("hello")?;
        conn.write(OK)
    });
    let daemon = started().await;
    let mut wire = daemon.connect("http").await;
    wire.send(expecting(&origin)).await;
    assert_eventually!(origin.received_text().ends_with("\r\n\r\n"));
    assert_eq!(wire.ask("hello").await.status, 200);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_refusal_in_place_of_100_reaches_the_client_and_the_body_is_not_waited_for() {
    for status in ["413 Content Too Large", "417 Expectation Failed"] {
        let refusal = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno").into_bytes();
        let origin = Origin::script(move |conn| {
            conn.head()?;
            conn.write(&refusal)?;
            // Keeps its connection open.
            while conn.some()?.is_some() {}
            Ok(())
        });
        let daemon = started().await;
        let mut wire = daemon.connect("http").await;
        let answer = wire.ask(expecting(&origin)).await;
        assert_eq!(
            (answer.status.to_string().as_str(), answer.body.as_slice()),
            (&status[..3], &b"no"[..])
        );
        // Whether the body comes or not cannot be known: the connection takes no other request.
        assert_eq!(answer.header("connection"), Some("close"));
        wire.assert_closed().await;
        assert!(origin.received_text().contains("Expect: 100-continue\r\n"));
        drop(wire);
        daemon.stop().await.assert_clean();
    }
}

/// H1-12.
#[tokio::test]
async fn a_100_after_the_whole_body_is_swallowed() {
    let origin = Origin::script(|conn| {
        while conn.until("hello")?.is_some() {
            conn.write(&[CONTINUE, OK].concat())?;
            conn.until("world")?;
            conn.write(CONTINUE)?;
            conn.write(OK)?;
        }
        Ok(())
    });
    let daemon = started().await;
    let mut wire = daemon.connect("http").await;
    for body in ["hello", "world", "hello", "world"] {
        wire.send(format!("{}{body}", expecting(&origin))).await;
        assert_eq!(wire.exactly(OK.len()).await, OK, "{body}");
    }
    assert_eq!(origin.accepted(), 1);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn an_unasked_100_is_no_answer() {
    let origin = Origin::script(|conn| {
        while conn.head()?.is_some() {
            conn.write(CONTINUE)?;
            conn.write(OK)?;
        }
        Ok(())
    });
    let daemon = started().await;
    let mut wire = daemon.connect("http").await;
    for _ in 0..2 {
        wire.send(format!("GET http://{}/ HTTP/1.1\r\n\r\n", origin.addr()))
            .await;
        assert_eq!(wire.exactly(OK.len()).await, OK);
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn early_hints_go_to_http_1_1_clients_only() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    let origin = Origin::script(move |conn| {
        while conn.head()?.is_some() {
            // All in one segment, and one by one.
            conn.write(format!("{hints}{hints}").as_bytes())?;
            conn.write_pieces(hints.as_bytes().chunks(1))?;
            conn.write(OK)?;
        }
        Ok(())
    });
    let daemon = started().await;
    let addr = origin.addr();
    let mut wire = daemon.connect("http").await;
    for _ in 0..2 {
        wire.send(format!("GET http://{addr}/ HTTP/1.1\r\n\r\n")).await;
        for _ in 0..3 {
            assert_eq!(wire.head().await, hints);
        }
        assert_eq!(wire.exactly(OK.len()).await, OK);
    }
    let answer = wire.ask(format!("GET http://{addr}/ HTTP/1.0\r\n\r\n")).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"ok"[..]));
    assert!(!answer.head.contains("Link"), "{}", answer.head);
    wire.assert_closed().await;
    assert_eq!(origin.accepted(), 1);
    drop(wire);
    daemon.stop().await.assert_clean();
}
