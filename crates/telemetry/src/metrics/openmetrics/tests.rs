use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;
use crate::metrics::{Listen, OpenMetricsConfig, Registry, Source, StatConfig, StatThread, start};
use crate::naming::{Identity, Naming};

const SOON: Duration = Duration::from_secs(20);

struct Edge;

impl Source for Edge {
    fn collect(&self, out: &mut Collector<'_>) {
        let mut object = out.object(&[("server", "a\"b\\c\nd"), ("stat_id", "7"), ("empty", "")]);
        object.counter("server.task.total", Rule::Always, &[], 5);
        object.gauge("server.task.alive", Rule::Always, &[], -1);
        object.counter("server.traffic.in.bytes", Rule::Set { lead: 0 }, &[], 0);
        object.counter("server.traffic.out.bytes", Rule::Always, &[("transport", "tcp")], 9);
        object.counter("server.forbidden.auth_failed", Rule::NonZero, &[], 0);
        object.gauge(
            "user.site.shop.task.ready.duration",
            Rule::Always,
            &[("quantile", "0.50")],
            1.5,
        );
        object.counter("own.thing", Rule::Always, &[], 1);
    }
}

const PAGE: &str = r#"# TYPE sluice_own_thing counter
sluice_own_thing_total{daemon_group="g1",server="a\"b\\c\nd",stat_id="7"} 1
# TYPE sluice_server_task counter
# HELP sluice_server_task Tasks started
sluice_server_task_total{daemon_group="g1",server="a\"b\\c\nd",stat_id="7"} 5
# TYPE sluice_server_task_alive gauge
# HELP sluice_server_task_alive Tasks running now
sluice_server_task_alive{daemon_group="g1",server="a\"b\\c\nd",stat_id="7"} -1
# TYPE sluice_server_traffic_out_bytes counter
# UNIT sluice_server_traffic_out_bytes bytes
# HELP sluice_server_traffic_out_bytes Bytes to clients above the transport layer
sluice_server_traffic_out_bytes_total{daemon_group="g1",server="a\"b\\c\nd",stat_id="7",transport="tcp"} 9
# TYPE sluice_user_site_shop_task_ready_duration gauge
# HELP sluice_user_site_shop_task_ready_duration Quantiles of the time from creation to relaying, in nanoseconds
sluice_user_site_shop_task_ready_duration{daemon_group="g1",server="a\"b\\c\nd",stat_id="7",quantile="0.50"} 1.5
# EOF
"#;

fn page(registry: &Registry) -> Page {
    Page::new(registry.reader(), &"sluice".into(), &"g1".into())
}

#[test]
fn the_page_is_openmetrics_text() {
    let registry = Registry::new();
    let _registration = registry.register(Arc::new(Edge));
    let mut page = page(&registry);
    assert_eq!(page.render(), PAGE);
    assert_eq!(page.render(), PAGE, "values are absolute");
}

#[test]
fn two_objects_with_the_same_tags_are_one_series() {
    let registry = Registry::new();
    let first = registry.register(Arc::new(Edge));
    let _second = registry.register(Arc::new(Edge));
    let mut page = page(&registry);
    let both = PAGE.replace("} 1\n", "} 2\n").replace("} 5\n", "} 10\n");
    assert_eq!(page.render(), both.replace("} 9\n", "} 18\n"));
    drop(first);
    assert_eq!(page.render(), both.replace("} 9\n", "} 18\n"), "shown once more");
    assert_eq!(page.render(), PAGE);
}

#[test]
fn an_empty_registry_is_an_empty_page() {
    assert_eq!(page(&Registry::new()).render(), "# EOF\n");
}

fn endpoint(listen: Listen) -> (StatThread, Registry, crate::metrics::Registration) {
    let registry = Registry::new();
    let registration = registry.register(Arc::new(Edge));
    let config = StatConfig {
        openmetrics: Some(OpenMetricsConfig { listen }),
        ..StatConfig::default()
    };
    let identity = Identity {
        daemon_group: "g1".to_owned(),
        product: Naming::Sluice,
        pid: 42,
    };
    let thread = start(&config, &identity, registry.clone()).unwrap();
    (thread, registry, registration)
}

fn tcp() -> (StatThread, Registry, crate::metrics::Registration) {
    endpoint(Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))))
}

fn ask(thread: &StatThread, request: &str) -> String {
    let mut stream = TcpStream::connect(thread.endpoint_addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_scrape_gets_the_page_with_its_type_and_length() {
    let (thread, _registry, _registration) = tcp();
    let answer = ask(&thread, "GET /metrics?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let expected = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{PAGE}",
        PAGE.len()
    );
    assert_eq!(answer, expected);
    let head = ask(&thread, "HEAD /metrics HTTP/1.0\r\n\r\n");
    assert_eq!(head, expected.strip_suffix(PAGE).unwrap());
}

#[test]
fn whatever_else_is_asked_gets_its_status() {
    let (thread, _registry, _registration) = tcp();
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("GET /metrics HTTP/2.0\r\n\r\n", "505 HTTP Version Not Supported"),
        ("nonsense\r\n\r\n", "400 Bad Request"),
        ("GET  /metrics HTTP/1.1\r\n\r\n", "400 Bad Request"),
    ] {
        let answer = ask(&thread, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{request:?}: {answer}"
        );
    }
    // Exactly the limit: nothing is left unread that would reset the connection.
    let long = "x".repeat(8 * 1024);
    assert!(ask(&thread, &long).starts_with("HTTP/1.1 431 "));
}

#[test]
fn a_client_that_says_nothing_is_left_after_a_while() {
    let (thread, _registry, _registration) = tcp();
    let mut silent = TcpStream::connect(thread.endpoint_addr().unwrap()).unwrap();
    silent.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    assert!(ask(&thread, "GET /metrics HTTP/1.1\r\n\r\n").ends_with("# EOF\n"));
    silent.set_read_timeout(Some(SOON)).unwrap();
    assert!(matches!(silent.read(&mut [0; 16]), Ok(0) | Err(_)));
}

#[test]
fn a_unix_socket_answers_too_and_is_removed_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.sock");
    // A socket file that a killed process left does not matter.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (thread, _registry, _registration) = endpoint(Listen::Unix(path.clone()));
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(PAGE));

    // The next generation takes the path over; the old one leaves it alone.
    let (next, _registry, _registration) = endpoint(Listen::Unix(path.clone()));
    thread.stop();
    assert!(UnixStream::connect(&path).is_ok());
    next.stop();
    assert!(!path.exists());
}

#[test]
fn an_address_in_use_is_waited_for() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = holder.local_addr().unwrap();
    let (mut thread, _registry, _registration) = endpoint(Listen::Tcp(addr));
    assert_eq!(thread.endpoint_addr(), None);
    drop(holder);
    let from = std::time::Instant::now();
    while thread.endpoint_addr().is_none() {
        assert!(from.elapsed() < SOON);
        std::thread::yield_now();
    }
    assert!(ask(&thread, "GET /metrics HTTP/1.1\r\n\r\n").ends_with(PAGE));
    thread.close_endpoint();
    assert!(TcpStream::connect(addr).is_err());
}
