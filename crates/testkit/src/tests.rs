//! The kit against itself.

use crate::{Ca, Ctl, Dnsmasq, Httpbin, Nginx, Origin, Statsd, Wire, curl, python};

#[tokio::test]
async fn an_echo_gives_back_and_closes() {
    let origin = Origin::echo();
    let mut wire = Wire::connect(origin.addr()).await;
    assert_eq!(wire.echo(b"ping").await, b"ping");
    wire.finish().await;
    wire.assert_closed().await;
    assert_eq!(origin.received(), [b"ping".to_vec()]);
}

#[tokio::test]
async fn an_http_origin_frames_bodies_and_keeps_the_connection() {
    let origin = Origin::http(|request| {
        let text = format!(
            "{} {} {}",
            request.method(),
            request.target(),
            String::from_utf8_lossy(&request.body)
        );
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\nX-T: 1\r\n\r\n",
            text.len()
        )
        .into()
    });
    let mut wire = Wire::connect(origin.addr()).await;
    let answer = wire.ask("POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(
        (answer.status, answer.body.as_slice(), answer.trailers.as_str()),
        (200, &b"POST /a abc"[..], "X-T: 1\r\n")
    );
    let answer = wire
        .ask("PUT /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n")
        .await;
    assert_eq!(answer.body, b"PUT /b hi!");
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test]
async fn a_script_may_reset_and_close_at_will() {
    let origin = Origin::script(|conn| {
        conn.head()?;
        if conn.index() == 0 {
            conn.reset()
        } else {
            conn.write(b"bye")
        }
    });
    let mut wire = Wire::connect(origin.addr()).await;
    wire.send("GET / HTTP/1.1\r\n\r\n").await;
    assert!(wire.rest().await.is_empty());
    let mut wire = Wire::connect(origin.addr()).await;
    wire.send("GET / HTTP/1.1\r\n\r\nand more that nobody reads").await;
    assert_eq!(wire.rest().await, b"bye");
}

#[tokio::test]
async fn curl_fetches_from_nginx_with_and_without_tls() {
    let ca = Ca::new();
    let nginx = Nginx::start_tls(&ca.issue(&["127.0.0.1"])).await;
    curl(&format!("http://{}/hello.txt", nginx.addr()))
        .run()
        .await
        .assert(200, "hello\n");
    let dir = tempfile::tempdir().unwrap();
    let answer = curl(&format!("https://{}/hello.txt", nginx.tls_addr()))
        .trust(ca.write(dir.path()))
        .run()
        .await;
    answer.assert(200, "hello\n");
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    crate::assert_eventually!(nginx.access() == ["GET /hello.txt HTTP/1.1 200 6", "GET /hello.txt HTTP/2.0 200 6"]);
}

#[tokio::test]
async fn dnsmasq_answers_dig_and_counts() {
    let mut dns = Dnsmasq::new()
        .host("a.test", &["127.0.0.9", "::9"])
        .alias("b.test", "a.test")
        .start()
        .await;
    let ask = async |name: &str, port: u16| {
        let mut dig = tokio::process::Command::new("dig");
        dig.args([
            "@127.0.0.1",
            "-p",
            &port.to_string(),
            "+short",
            "+tries=1",
            "+time=2",
            name,
        ]);
        String::from_utf8(dig.output().await.unwrap().stdout).unwrap()
    };
    let port = dns.addr().port();
    assert_eq!(ask("a.test", port).await, "127.0.0.9\n");
    assert_eq!(ask("b.test", port).await, "a.test.\n127.0.0.9\n");
    assert_eq!(ask("no.test", port).await, "");
    crate::assert_eventually!(dns.queries("a.test") == 1);
    dns.kill().await;
    assert!(ask("a.test", port).await.contains("no servers"));
    dns.restart().await;
    assert_eq!(ask("a.test", port).await, "127.0.0.9\n");
}

#[tokio::test]
async fn httpbin_serves_a_python_client() {
    let httpbin = Httpbin::start().await;
    let program = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())";
    let exited = python(program, &[&format!("http://{}/base64/aGVsbG8=", httpbin.addr())]).await;
    assert_eq!((exited.code, exited.stdout.trim()), (Some(0), "hello"), "{exited:?}");
}

#[tokio::test]
async fn statsd_lines_are_added_up() {
    let statsd = Statsd::start();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for packet in ["a.b:1|c|#x:1\na.b:2|c|#x:2", "a.b:4|c|#x:1\ng:7|g"] {
        socket.send_to(packet.as_bytes(), statsd.addr()).unwrap();
    }
    crate::assert_eventually!(statsd.lines().len() == 4);
    assert_eq!(
        (statsd.total("a.b", &[("x", "1")]), statsd.total("a.b", &[])),
        (5.0, 7.0)
    );
    assert_eq!(statsd.last("g", &[]), Some(7.0));
}

#[tokio::test]
async fn a_control_socket_that_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Ctl::connect(&dir.path().join("none.ctl")).await.is_err());
}
