//! The records of tasks, failed connections and failed queries, field by field.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use serde_json::Value;
use sluice_testkit::{Ca, Daemon, Dnsmasq, Nginx, Origin, Statsd, assert_eventually};
use sluice_tests::{BlackHole, Gate, config_with, finished, nobody, proxy, resolving_proxy};

async fn started(server: &str, escaper: &str) -> Daemon {
    Daemon::proxyd(&proxy(server, escaper)).start().await
}

/// In every record.
const COMMON: &str = "time daemon_name pid log_type msg";
/// In every record of a task.
const TASK: &str = "server_type server_name task_type task_id task_event stage start_at total_time wait_time \
                    server_addr client_addr upstream";
const FORWARD: &str = "method uri user_agent pipeline_wait";
const CONNECTED: &str = "escaper next_bind_ip next_bound_addr next_peer_addr tcp_connect_tries tcp_connect_spend";
const FLOWING: &str = "c_rd_bytes c_wr_bytes r_rd_bytes r_wr_bytes";
const FORWARD_FLOWING: &str = "rsp_status origin_status dur_req_send_hdr dur_req_send_all";
const FORWARD_ANSWERED: &str = "dur_rsp_recv_hdr ready_time";

/// Asserts that a record has exactly these fields.
#[track_caller]
fn assert_fields(record: &Value, groups: &[&str]) {
    let wanted: BTreeSet<&str> = groups.iter().flat_map(|group| group.split_whitespace()).collect();
    let found: BTreeSet<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    let missing: Vec<_> = wanted.difference(&found).collect();
    let excess: Vec<_> = found.difference(&wanted).collect();
    assert!(
        missing.is_empty() && excess.is_empty(),
        "missing {missing:?}, excess {excess:?}: {record}"
    );
}

#[track_caller]
fn assert_values(record: &Value, values: &[(&str, Value)]) {
    for (key, value) in values {
        assert_eq!(record[key], *value, "{key}: {record}");
    }
}

/// Whether `text` is a number with three decimals and a unit.
fn is_duration(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    let number = text.trim_end_matches(|c: char| c.is_alphabetic() || c == 'µ');
    let decimals = number.split_once('.').map(|(_, decimals)| decimals.len());
    ["ns", "us", "µs", "ms", "s"].contains(&&text[number.len()..])
        && number.parse::<f64>().is_ok()
        && decimals == Some(3)
}

#[track_caller]
fn assert_forms(record: &Value) {
    for (key, value) in record.as_object().unwrap() {
        if key.ends_with("_time") || key.starts_with("dur_") || matches!(&**key, "pipeline_wait" | "tcp_connect_spend")
        {
            assert!(is_duration(value), "{key}: {record}");
        }
    }
    let start = record["start_at"].as_str().unwrap();
    assert!(
        start.len() == "2000-01-01T00:00:00.000000Z".len() && start.ends_with('Z') && start.as_bytes()[10] == b'T',
        "{record}"
    );
    let id = record["task_id"].as_str().unwrap();
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{record}"
    );
    // Time-based.
    assert_eq!(&id[12..13], "1", "{record}");
}

const ALL_EVENTS: &str = "flush_task_log_on_created: true, flush_task_log_on_connected: true, \
                          task_log_flush_interval: 200ms, task_idle_check_interval: 100ms, task_idle_max_count: 100";

#[tokio::test]
async fn a_forward_task_tells_of_its_whole_life() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::script(move |conn| {
        while conn.head()?.is_some() {
            conn.write(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n\r\nab")?;
            held.pass()?;
            conn.write(b"cd")?;
        }
        Ok(())
    });
    let daemon = started(&format!("{ALL_EVENTS}, log_uri_max_chars: 40"), "bind_ip: 127.0.0.9").await;
    let mut wire = daemon.connect("http").await;
    let client = wire.local_addr().to_string();
    let long = "x".repeat(100);
    let addr = origin.addr();
    wire.send(format!(
        "GET http://u:secret@{addr}/{long} HTTP/1.1\r\nUser-Agent: one/1\r\nUser-Agent: two\r\n\r\n"
    ))
    .await;
    assert_eventually!(
        daemon
            .log_records("Task")
            .iter()
            .any(|task| task["task_event"] == "Periodic")
    );
    gate.open();
    assert_eq!(wire.answer().await.body, b"abcd");
    let again = format!("HEAD http://{addr}/ HTTP/1.1\r\nUser-Agent: x\r\n\r\n");
    wire.send(again).await;
    wire.head().await;
    drop(wire);
    assert_eventually!(finished(&daemon).len() == 2);
    let records = daemon.log_records("Task");
    let id = &records[0]["task_id"];
    let of = |event: &str| {
        let found = records
            .iter()
            .find(|task| task["task_event"] == event && task["task_id"] == *id);
        found.unwrap_or_else(|| panic!("no {event}: {records:?}"))
    };
    let upstream = addr.to_string();
    for record in &records {
        assert_forms(record);
        assert_values(
            record,
            &[
                ("server_type", "HttpProxy".into()),
                ("server_name", "http".into()),
                ("task_type", "HttpForward".into()),
                ("daemon_name", "".into()),
                ("pid", daemon.pid().into()),
                ("upstream", upstream.as_str().into()),
                ("client_addr", client.as_str().into()),
                ("server_addr", daemon.addr("http").to_string().into()),
            ],
        );
        let uri = record["uri"].as_str().unwrap();
        assert!(!record.to_string().contains("secret"), "{record}");
        assert!(uri.len() <= 40 && uri.starts_with("http://"), "{record}");
    }
    assert_fields(of("Created"), &[COMMON, TASK, FORWARD]);
    assert_values(
        of("Created"),
        &[
            ("stage", "Created".into()),
            ("method", "GET".into()),
            ("user_agent", "one/1".into()),
        ],
    );
    let connected = [COMMON, TASK, FORWARD, CONNECTED, "reuse_connection"];
    assert_fields(of("Connected"), &connected);
    assert_values(
        of("Connected"),
        &[
            ("stage", "Connected".into()),
            ("escaper", "out".into()),
            ("next_bind_ip", "127.0.0.9".into()),
            ("next_peer_addr", upstream.as_str().into()),
            ("tcp_connect_tries", 1.into()),
            ("reuse_connection", false.into()),
        ],
    );
    assert!(
        of("Connected")["next_bound_addr"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.9:")
    );
    let flowing = [&connected[..], &[FLOWING, FORWARD_FLOWING, FORWARD_ANSWERED]].concat();
    assert_fields(of("Periodic"), &flowing);
    assert_values(
        of("Periodic"),
        &[("stage", "Relaying".into()), ("origin_status", 206.into())],
    );
    let ended = [&flowing[..], &["reason", "dur_rsp_recv_all"]].concat();
    assert_fields(of("Finished"), &ended);
    let ok = [
        ("stage", Value::from("Finished")),
        ("reason", "Finished".into()),
        ("rsp_status", 206.into()),
        ("origin_status", 206.into()),
    ];
    assert_values(of("Finished"), &ok);
    let second = finished(&daemon).pop().unwrap();
    assert_values(&second, &[("method", "HEAD".into()), ("reuse_connection", true.into())]);
    assert_ne!(second["task_id"], *id);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_tunnel_tells_of_its_whole_life() {
    let origin = Origin::echo();
    let daemon = started(ALL_EVENTS, "bind_ip: 127.0.0.9").await;
    let mut wire = daemon.http_connect(origin.addr()).await;
    assert_eq!(wire.echo(b"ping").await, b"ping");
    assert_eventually!(
        daemon
            .log_records("Task")
            .iter()
            .any(|task| task["task_event"] == "Periodic")
    );
    wire.finish().await;
    wire.assert_closed().await;
    assert_eventually!(finished(&daemon).len() == 1);
    let records = daemon.log_records("Task");
    let of = |event: &str| {
        let found = records.iter().find(|task| task["task_event"] == event);
        found.unwrap_or_else(|| panic!("no {event}: {records:?}"))
    };
    records.iter().for_each(assert_forms);
    assert_fields(of("Created"), &[COMMON, TASK]);
    assert_fields(of("Connected"), &[COMMON, TASK, CONNECTED]);
    let flowing = [COMMON, TASK, CONNECTED, FLOWING, "ready_time"];
    assert_fields(of("Periodic"), &flowing);
    assert_values(of("Periodic"), &[("c_rd_bytes", 4.into()), ("r_rd_bytes", 4.into())]);
    let half = [
        COMMON,
        TASK,
        "escaper next_bound_addr next_peer_addr",
        FLOWING,
        "ready_time",
    ];
    assert_fields(of("ClientShutdown"), &half);
    assert_fields(of("Finished"), &[&flowing[..], &["reason"]].concat());
    assert_values(
        of("Finished"),
        &[
            ("task_type", "TcpConnect".into()),
            ("reason", "ClosedByClient".into()),
            ("c_rd_bytes", 4.into()),
            ("c_wr_bytes", 4.into()),
            ("r_rd_bytes", 4.into()),
            ("r_wr_bytes", 4.into()),
        ],
    );
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_failed_connection_has_its_reason_in_both_records() {
    let hole = BlackHole::on("127.0.0.1:0");
    let dns = Dnsmasq::new().start().await;
    let yaml = resolving_proxy(
        dns.addr(),
        "",
        "no_ipv6: true, bind_ip: 127.0.0.9, tcp_connect: {max_retry: 0, each_timeout: 100ms}",
    )
    .replace("allow: [127.0.0.0/8, '::1']", "allow: [127.0.0.1]");
    let resolverd = Daemon::resolverd(&yaml).start().await;
    let daemon = resolverd.group().proxyd().await;
    let rows = [
        (nobody().to_string(), "UpstreamNotConnected", "ConnectFailed"),
        (hole.addr().to_string(), "UpstreamNotConnected", "TimeoutByRule"),
        ("unknown.test:80".to_owned(), "UpstreamNotResolved", "ResolveFailed"),
        ("127.0.0.2:80".to_owned(), "ForbiddenByRule", "ForbiddenRemoteAddress"),
        ("[::1]:80".to_owned(), "ForbiddenByRule", "ForbiddenAddressFamily"),
    ];
    for (target, _, _) in &rows {
        let get = format!("GET http://{target}/ HTTP/1.1\r\nUser-Agent: x\r\n\r\n");
        assert!(daemon.connect("http").await.ask(get).await.status >= 400);
    }
    assert_eventually!(daemon.log_records("Escape").len() == rows.len() && finished(&daemon).len() == rows.len());
    for (target, task_reason, escape_reason) in &rows {
        let of = |records: Vec<Value>| {
            let found = records
                .into_iter()
                .find(|record| record["upstream"].as_str() == Some(target.trim_end_matches('/')));
            found.unwrap_or_else(|| panic!("no record of {target}"))
        };
        let task = of(finished(&daemon));
        assert_values(
            &task,
            &[
                ("reason", (*task_reason).into()),
                ("escaper", "out".into()),
                ("origin_status", 0.into()),
            ],
        );
        assert!(task["msg"].as_str().is_some_and(|text| text.len() > 10), "{task}");
        assert!(task["ready_time"].is_null(), "{task}");
        let escape = of(daemon.log_records("Escape"));
        assert_values(
            &escape,
            &[
                ("reason", (*escape_reason).into()),
                ("task_id", task["task_id"].clone()),
                ("escaper_type", "DirectFixed".into()),
                ("escaper_name", "out".into()),
                ("escape_type", "TcpConnect".into()),
            ],
        );
        let common = [
            COMMON,
            "escaper_type escaper_name escape_type task_id upstream tcp_connect_tries reason",
        ];
        let tried = matches!(*escape_reason, "ConnectFailed" | "TimeoutByRule");
        if tried {
            assert_fields(
                &escape,
                &[&common[..], &["next_bind_ip next_peer_addr tcp_connect_spend"]].concat(),
            );
            assert_eq!(escape["next_peer_addr"], target.as_str());
        }
        assert_eq!(escape["tcp_connect_tries"], i32::from(tried), "{escape}");
    }
    assert_eventually!(!resolverd.log_records("Resolve").is_empty());
    let resolve = resolverd.log_records("Resolve").pop().unwrap();
    assert_fields(
        &resolve,
        &[
            COMMON,
            "resolver_type resolver_name query_type duration rr_source error_type error_subtype domain server \
             server_port",
        ],
    );
    assert_values(
        &resolve,
        &[
            ("resolver_type", "hickory".into()),
            ("resolver_name", "dns".into()),
            ("query_type", "A".into()),
            ("rr_source", "query".into()),
            ("error_type", "ServerError".into()),
            ("error_subtype", "NOTFOUND".into()),
            ("domain", "unknown.test".into()),
        ],
    );
    daemon.stop().await.assert_clean();
    resolverd.stop().await.assert_clean();
}

#[tokio::test]
async fn a_failed_handshake_has_its_record() {
    let (ca, other) = (Ca::new(), Ca::new());
    let nginx = Nginx::start_tls(&other.issue(&["127.0.0.1"])).await;
    let yaml = proxy("tls_client: {ca_certificate: '%dir%/ca.pem'}", "");
    let group = sluice_testkit::Group::new(&yaml);
    group.write_file("ca.pem", ca.pem());
    let daemon = group.proxyd().await;
    let get = format!("GET https://{}/ HTTP/1.1\r\nUser-Agent: x\r\n\r\n", nginx.tls_addr());
    assert_eq!(daemon.connect("http").await.ask(get).await.status, 525);
    assert_eventually!(daemon.log_records("Escape").len() == 1 && finished(&daemon).len() == 1);
    let escape = daemon.log_records("Escape").pop().unwrap();
    assert_fields(
        &escape,
        &[
            COMMON,
            "escaper_type escaper_name escape_type task_id upstream next_bound_addr next_peer_addr tls_name tls_peer \
             tls_application",
        ],
    );
    assert_values(
        &escape,
        &[
            ("escape_type", "TlsHandshake".into()),
            ("tls_name", "127.0.0.1".into()),
            ("tls_peer", nginx.tls_addr().to_string().into()),
            ("tls_application", "HttpForward".into()),
        ],
    );
    assert_eq!(finished(&daemon)[0]["reason"], "UpstreamTlsHandshakeFailed");
    daemon.stop().await.assert_clean();
}

/// OB-04.
#[tokio::test]
async fn servers_may_share_a_logger_and_each_record_keeps_its_kind_and_server() {
    let origin = Origin::hello("hi");
    let statsd = Statsd::start();
    let servers = ["one", "two"].map(|name| {
        format!(
            "  - {{name: {name}, type: http_proxy, listen: '127.0.0.1:%{name}%', escaper: out, shared_logger: both}}\n"
        )
    });
    let daemon = Daemon::proxyd(&(config_with(&servers.concat()) + &statsd.section()))
        .start()
        .await;
    for port in ["one", "two"] {
        let get = format!("GET http://{}/ HTTP/1.1\r\nConnection: close\r\n\r\n", origin.addr());
        assert_eq!(daemon.connect(port).await.ask(get).await.status, 200);
    }
    assert_eventually!(finished(&daemon).len() == 2);
    let names: BTreeSet<_> = finished(&daemon)
        .iter()
        .map(|task| task["server_name"].to_string())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eventually!(statsd.total("sluice.logger.message.pass", &[("logger", "lt-both")]) == 2.0);
    assert_eq!(
        statsd.total("sluice.logger.message.total", &[("logger", "lt-one")]),
        0.0
    );
    daemon.stop().await.assert_clean();
}
