//! Tunnels: what CONNECT and Upgrade make of a connection, until its end.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use sluice_testkit::{Ca, Daemon, Nginx, Origin, assert_eventually, curl, python};
use sluice_tests::{nobody, noise, proxy};
use tokio::process::Command;

async fn started(server: &str) -> Daemon {
    Daemon::proxyd(&proxy(server, "")).start().await
}

fn ok(body: &[u8]) -> Vec<u8> {
    [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
        body,
    ]
    .concat()
}

#[tokio::test]
async fn curl_moves_big_bodies_through_a_tunnel() {
    let (up, down) = (Arc::new(noise(10 << 20)), Arc::new(noise(50 << 20)));
    let (wanted, sent) = (Arc::clone(&up), Arc::clone(&down));
    let origin = Origin::http(move |request| match request.method() {
        "GET" => ok(&sent),
        _ => ok(if request.body == *wanted { b"same" } else { b"another" }),
    });
    let daemon = started("").await;
    let file = daemon.group().dir().join("body");
    fs::write(&file, &*up).unwrap();
    let url = format!("http://{}/", origin.addr());
    let get = curl(&url).tunnel(daemon.addr("http")).run().await;
    assert_eq!((get.exit, get.connect_status, get.status), (0, 200, 200));
    assert!(get.body == *down);
    curl(&url)
        .tunnel(daemon.addr("http"))
        .arg("-T")
        .arg(&file)
        .run()
        .await
        .assert(200, "same");
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn both_directions_flow_at_once_and_arrive_whole() {
    let origin = Origin::echo();
    let daemon = started("").await;
    let target = origin.addr();
    let mut reading = TcpStream::connect(daemon.addr("http")).unwrap();
    let mut writing = reading.try_clone().unwrap();
    let sent = noise(30 << 20);
    let head = format!("CONNECT {target} HTTP/1.1\r\n\r\n");
    // Not a byte of the answer is waited for before the tunnel is used.
    let (mut all, expected) = (Vec::new(), sent.clone());
    let writer = thread::spawn(move || {
        writing.write_all(&[head.as_bytes(), &sent].concat())?;
        writing.shutdown(Shutdown::Write)
    });
    reading.read_to_end(&mut all).unwrap();
    writer.join().unwrap().unwrap();
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(all.starts_with(b"HTTP/1.1 200 "));
    assert!(all[end..] == expected, "{} bytes came back", all.len() - end);
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let task = stopped
        .log_records("Task")
        .into_iter()
        .find(|task| task["task_event"] == "Finished")
        .unwrap();
    for key in ["c_rd_bytes", "c_wr_bytes", "r_rd_bytes", "r_wr_bytes"] {
        assert_eq!(task[key], expected.len(), "{key} {task}");
    }
}

#[tokio::test]
async fn a_client_that_has_sent_all_still_gets_the_answer() {
    let origin = Origin::script(|conn| {
        let mut count = 0;
        while let Some(bytes) = conn.some()? {
            count += bytes.len();
        }
        conn.write(format!("{count} bytes").as_bytes())
    });
    let daemon = started("").await;
    for len in [0, 5, 1 << 20] {
        let mut wire = daemon.http_connect(origin.addr()).await;
        wire.send(noise(len)).await;
        wire.finish().await;
        assert_eq!(String::from_utf8(wire.rest().await).unwrap(), format!("{len} bytes"));
    }
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_client_may_go_on_after_the_upstream_has_sent_all() {
    let got = Arc::new(AtomicBool::new(false));
    let all = Arc::clone(&got);
    let origin = Origin::script(move |conn| {
        conn.write(b"bye")?;
        conn.stream().shutdown(Shutdown::Write)?;
        conn.until("the end")?;
        all.store(conn.some()?.is_none(), Ordering::SeqCst);
        Ok(())
    });
    let daemon = started("").await;
    let mut wire = daemon.http_connect(origin.addr()).await;
    assert_eq!(wire.rest().await, b"bye");
    wire.send(noise(1 << 20)).await;
    wire.send("the end").await;
    wire.finish().await;
    assert_eventually!(got.load(Ordering::SeqCst));
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let events: Vec<_> = stopped
        .log_records("Task")
        .iter()
        .map(|task| task["task_event"].clone())
        .collect();
    assert_eq!(events, ["UpstreamShutdown", "Finished"]);
}

/// OB-09.
#[tokio::test]
async fn bytes_right_behind_a_connect_are_the_first_of_the_tunnel_and_count_once() {
    let origin = Origin::echo();
    let daemon = started("").await;
    let head = format!("CONNECT {} HTTP/1.1\r\n\r\n", origin.addr());
    let first = "GET http://hidden/ HTTP/1.1\r\n\r\n";
    let mut wire = daemon.connect("http").await;
    wire.send(format!("{head}{first}")).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(wire.exactly(first.len()).await, first.as_bytes());
    // In pieces.
    let mut wire = daemon.connect("http").await;
    for byte in head.bytes().chain(first.bytes()) {
        wire.send([byte]).await;
    }
    wire.head().await;
    assert_eq!(wire.exactly(first.len()).await, first.as_bytes());
    drop(wire);
    assert_eq!(origin.received_text(), first.repeat(2));
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let tasks = stopped.log_records("Task");
    let finished: Vec<_> = tasks.iter().filter(|task| task["task_event"] == "Finished").collect();
    assert_eq!(finished.len(), 2);
    for task in finished {
        for key in ["c_rd_bytes", "c_wr_bytes", "r_rd_bytes", "r_wr_bytes"] {
            assert_eq!(task[key], first.len(), "{key} {task}");
        }
    }
}

#[tokio::test]
async fn after_a_refused_connect_the_connection_takes_the_next_request() {
    let origin = Origin::hello("hi");
    let echo = Origin::echo();
    let daemon = started("").await;
    let mut wire = daemon.connect("http").await;
    for _ in 0..2 {
        let answer = wire.ask(format!("CONNECT {} HTTP/1.1\r\n\r\n", nobody())).await;
        assert_eq!((answer.status, answer.header("connection")), (521, None));
        let answer = wire
            .ask(format!("GET http://{}/ HTTP/1.1\r\n\r\n", origin.addr()))
            .await;
        assert_eq!(answer.status, 200);
    }
    wire.send(format!("CONNECT {} HTTP/1.1\r\n\r\n", echo.addr())).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(wire.echo(b"ping").await, b"ping");
    drop(wire);
    // What stands behind a refused CONNECT was meant for the tunnel: it is not read as a request.
    let hidden = format!("GET http://{}/hidden HTTP/1.1\r\n\r\n", origin.addr());
    let mut wire = daemon.connect("http").await;
    let answer = wire.ask(format!("CONNECT {} HTTP/1.1\r\n\r\n{hidden}", nobody())).await;
    assert_eq!((answer.status, answer.header("connection")), (521, Some("close")));
    wire.assert_closed().await;
    drop(wire);
    assert!(!origin.received_text().contains("/hidden"));
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_connect_after_other_requests_is_served() {
    let origin = Origin::hello("hi");
    let echo = Origin::echo();
    let daemon = started("").await;
    let mut wire = daemon.connect("http").await;
    let get = format!("GET http://{}/ HTTP/1.1\r\n\r\n", origin.addr());
    // All in one segment.
    wire.send(format!("{get}{get}CONNECT {} HTTP/1.1\r\n\r\nping", echo.addr()))
        .await;
    assert_eq!(wire.answer().await.status, 200);
    assert_eq!(wire.answer().await.status, 200);
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(wire.exactly(4).await, b"ping");
    drop(wire);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn tls_passes_through_a_tunnel() {
    let ca = Ca::new();
    let nginx = Nginx::start_tls(&ca.issue(&["127.0.0.1", "localhost"])).await;
    nginx.write("big", noise(5 << 20));
    let daemon = started("").await;
    let trusted = ca.write(daemon.group().dir());
    let base = format!("https://{}", nginx.tls_addr());
    for version in ["--http1.1", "--http2"] {
        let answer = curl(&format!("{base}/hello.txt"))
            .proxy(daemon.addr("http"))
            .trust(&trusted)
            .arg(version);
        answer.run().await.assert(200, "hello\n");
    }
    let big = curl(&format!("{base}/big"))
        .proxy(daemon.addr("http"))
        .trust(&trusted)
        .run()
        .await;
    assert!(big.exit == 0 && big.body == noise(5 << 20));
    let mut openssl = Command::new("openssl");
    let proxy = daemon.addr("http").to_string();
    let target = nginx.tls_addr().to_string();
    openssl.args([
        "s_client",
        "-proxy",
        &proxy,
        "-connect",
        &target,
        "-verify_return_error",
        "-brief",
        "-CAfile",
    ]);
    let output = openssl
        .arg(&trusted)
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("Verification: OK"), "{said}");
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn an_idle_tunnel_ends_and_one_with_traffic_either_way_does_not() {
    let stop = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&stop);
    // One byte after the other, as long as the test likes.
    let ticking = Origin::script(move |conn| {
        conn.stream()
            .set_read_timeout(Some(std::time::Duration::from_millis(20)))?;
        while !ends.load(Ordering::SeqCst) {
            let _ = conn.some();
            conn.write(b".")?;
        }
        Ok(())
    });
    let silent = Origin::silent();
    let daemon = started("task_idle_check_interval: 100ms, task_idle_max_count: 2").await;
    let mut idle = daemon.http_connect(silent.addr()).await;
    let mut down = daemon.http_connect(ticking.addr()).await;
    idle.assert_closed().await;
    assert_eventually!(
        daemon.log_records("Task").iter().any(|task| task["reason"] == "Idle"),
        "{:?}",
        daemon.log_records("Task")
    );
    // It was alive three times as long as an idle one may be, with bytes from the upstream only.
    for _ in 0..45 {
        down.exactly(1).await;
    }
    stop.store(true, Ordering::SeqCst);
    down.rest().await;
    drop(down);
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let idle = stopped
        .log_records("Task")
        .iter()
        .filter(|task| task["reason"] == "Idle")
        .count();
    assert_eq!(idle, 1);
}

/// SK-05.
#[tokio::test]
async fn a_client_that_dies_takes_the_upstream_connection_along() {
    let gone = Arc::new(AtomicBool::new(false));
    let noticed = Arc::clone(&gone);
    let origin = Origin::script(move |conn| {
        while matches!(conn.some(), Ok(Some(_))) {}
        noticed.store(true, Ordering::SeqCst);
        Ok(())
    });
    let daemon = started("").await;
    let addr = daemon.addr("http").to_string();
    let script = "import socket,sys,os,signal\n\
        h,p=sys.argv[1].rsplit(':',1)\n\
        s=socket.create_connection((h,int(p)))\n\
        s.sendall(f'CONNECT {sys.argv[2]} HTTP/1.1\\r\\n\\r\\nx'.encode())\n\
        assert s.recv(100).startswith(b'HTTP/1.1 200')\n\
        os.kill(os.getpid(), signal.SIGKILL)\n";
    let killed = python(script, &[&addr, &origin.addr().to_string()]).await;
    assert_eq!(killed.code, None, "{killed:?}");
    assert_eventually!(gone.load(Ordering::SeqCst));
    assert_eventually!(daemon.status().await["tasks_alive"] == 0);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_reset_of_either_side_ends_the_other_one() {
    let origin = Origin::script(|conn| {
        conn.until("die")?;
        conn.reset()
    });
    let gone = Arc::new(AtomicBool::new(false));
    let noticed = Arc::clone(&gone);
    let watching = Origin::script(move |conn| {
        while matches!(conn.some(), Ok(Some(_))) {}
        noticed.store(true, Ordering::SeqCst);
        Ok(())
    });
    let daemon = started("").await;
    let mut wire = daemon.http_connect(origin.addr()).await;
    wire.send("die").await;
    wire.assert_closed().await;
    let client = TcpStream::connect(daemon.addr("http")).unwrap();
    (&client)
        .write_all(format!("CONNECT {} HTTP/1.1\r\n\r\n", watching.addr()).as_bytes())
        .unwrap();
    assert!((&client).read(&mut [0; 100]).unwrap() > 0);
    rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    assert_eventually!(gone.load(Ordering::SeqCst));
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let mut reasons: Vec<_> = stopped
        .log_records("Task")
        .iter()
        .map(|task| task["reason"].to_string())
        .collect();
    reasons.retain(|reason| reason != "null");
    reasons.sort();
    assert_eq!(reasons, ["\"ClientTcpReadFailed\"", "\"UpstreamReadFailed\""]);
}

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";

fn upgrade(origin: &Origin) -> String {
    format!(
        "GET http://{}/chat HTTP/1.1\r\nHost: h.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: eA==\r\n\r\n",
        origin.addr()
    )
}

#[tokio::test]
async fn an_upgrade_to_websocket_makes_a_tunnel() {
    let origin = Origin::script(|conn| {
        conn.head()?;
        // The first bytes of the new protocol come right behind the answer.
        conn.write(format!("{SWITCHING}X: y\r\n\r\nfirst").as_bytes())?;
        while let Some(bytes) = conn.some()? {
            conn.write(&bytes)?;
        }
        Ok(())
    });
    let daemon = started("").await;
    let mut wire = daemon.connect("http").await;
    wire.send(format!("{}early", upgrade(&origin))).await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    for line in ["Upgrade: websocket\r\n", "Connection: Upgrade\r\n", "X: y\r\n"] {
        assert_eq!(head.matches(line).count(), 1, "{head}");
    }
    assert_eq!(wire.exactly(10).await, b"firstearly");
    assert_eq!(wire.echo(b"ping").await, b"ping");
    wire.finish().await;
    wire.assert_closed().await;
    let got = origin.received_text();
    for line in [
        "GET /chat HTTP/1.1\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
    ] {
        assert_eq!(got.matches(line).count(), 1, "{got}");
    }
    daemon.stop().await.assert_clean();
}

/// CU-02, CU-03.
#[tokio::test]
async fn a_refused_upgrade_is_a_response_and_the_connection_goes_on() {
    let page = "no".repeat(1000);
    let body = page.clone();
    let origin = Origin::http(move |request| {
        if request.target() == "/chat" {
            format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        } else {
            ok(b"ok")
        }
    });
    let daemon = started("").await;
    let mut wire = daemon.connect("http").await;
    for _ in 0..2 {
        let answer = wire.ask(upgrade(&origin)).await;
        assert_eq!((answer.status, answer.body.as_slice()), (403, page.as_bytes()));
        let answer = wire
            .ask(format!("GET http://{}/ HTTP/1.1\r\n\r\n", origin.addr()))
            .await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"ok"[..]));
    }
    drop(wire);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_a_502() {
    let origin = Origin::script(|conn| {
        conn.head()?;
        conn.write(format!("{SWITCHING}\r\n").as_bytes())?;
        while conn.some()?.is_some() {}
        Ok(())
    });
    let daemon = started("").await;
    let addr = origin.addr();
    for request in [
        format!("GET http://{addr}/ HTTP/1.1\r\n\r\n"),
        format!("GET http://{addr}/ HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
        format!("GET http://{addr}/ HTTP/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
    ] {
        let mut wire = daemon.connect("http").await;
        assert_eq!(wire.ask(request).await.status, 502);
        wire.assert_closed().await;
    }
    daemon.stop().await.assert_clean();
}

/// A WebSocket server and a client of it, both of the `websockets` library. The client goes through an HTTP proxy, or
/// asks the proxy for the server by a well-known URI.
const WEBSOCKETS: &str = r#"
import asyncio, sys
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

async def echo(socket):
    async for message in socket:
        await socket.send(message)

async def main(proxy):
    async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        tunnel = connect(f"ws://127.0.0.1:{port}/", proxy=f"http://{proxy}", max_size=None)
        uri = f"ws://{proxy}/.well-known/easy-proxy/http/127.0.0.1/{port}/"
        for client in [tunnel, connect(uri, proxy=None, max_size=None)]:
            async with client as socket:
                for message in ["hello", b"\x00" * 10, "x" * 3_000_000, ""]:
                    await socket.send(message)
                    assert await socket.recv() == message
                await (await socket.ping())
            assert socket.close_code == 1000, socket.close_code
    print("done")

asyncio.run(main(sys.argv[1]))
"#;

#[tokio::test]
async fn websockets_work_by_connect_and_by_upgrade() {
    let daemon = started("").await;
    let run = python(WEBSOCKETS, &[&daemon.addr("http").to_string()]).await;
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "done\n"), "{}", run.stderr);
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let mut types: Vec<_> = stopped
        .log_records("Task")
        .into_iter()
        .filter(|task| task["task_event"] == "Finished")
        .map(|task| task["task_type"].to_string())
        .collect();
    types.sort();
    assert_eq!(types, ["\"HttpForward\"", "\"TcpConnect\""]);
}

#[tokio::test]
async fn a_thousand_tunnels_stand_side_by_side() {
    let origin = Origin::echo();
    let daemon = started("").await;
    let mut wires = Vec::new();
    for _ in 0..1000 {
        wires.push(daemon.http_connect(origin.addr()).await);
    }
    assert_eq!(daemon.status().await["tasks_alive"], 1000);
    for (n, wire) in wires.iter_mut().enumerate() {
        let text = n.to_string();
        assert_eq!(wire.echo(text.as_bytes()).await, text.as_bytes());
    }
    drop(wires);
    assert_eventually!(daemon.status().await["tasks_alive"] == 0);
    daemon.stop().await.assert_clean();
}
