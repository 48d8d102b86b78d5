use std::net::UdpSocket;

use time::format_description::well_known::Rfc3339;

use super::*;

fn udp() -> (UdpSocket, DatagramTarget) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let target = DatagramTarget::Udp {
        peer: socket.local_addr().unwrap().into(),
        bind_ip: None,
    };
    (socket, target)
}

/// What one record becomes under `config`.
fn sent(config: SyslogConfig, record: Task) -> String {
    let (socket, target) = udp();
    let logs = start(DriverConfig::Syslog(SyslogConfig {
        target: Some(target),
        ..config
    }));
    logs.logger(LogKind::Task, "lt-a").log(record);
    let mut datagram = [0; 65536];
    let len = socket.recv(&mut datagram).unwrap();
    String::from_utf8(datagram[..len].to_vec()).unwrap()
}

fn rfc5424() -> SyslogConfig {
    SyslogConfig {
        header: Header::Rfc5424 {
            enterprise_id: 7,
            message_id: Some("m1".to_owned()),
        },
        ..SyslogConfig::default()
    }
}

const FIELDS_3164: &str = r#", daemon_name="g1", pid=42, log_type="Task", task_id="00000000000000000000000000000abc", user="joe", client_addr="127.0.0.1:9", total_time="1.234ms", c_rd_bytes=0, depth=-1, reuse_connection=true, method="GET""#;

/// OB-01.
#[test]
fn rfc_3164_has_a_local_time_and_fields_after_the_message() {
    let text = sent(SyslogConfig::default(), Task::of("joe"));
    // Facility daemon (3), severity notice (5).
    let rest = text.strip_prefix("<29>").unwrap();
    let (time, rest) = rest.split_at(15);
    let layout =
        time::macros::format_description!("[month repr:short] [day padding:space] [hour]:[minute]:[second] [year]");
    time::PrimitiveDateTime::parse(&format!("{time} 2026"), layout).expect("a time of RFC 3164");
    assert_eq!(rest, format!(" sluice[42]: done{FIELDS_3164}"));
}

#[test]
fn quotes_and_control_characters_cannot_leave_their_value() {
    let text = sent(
        SyslogConfig {
            facility: Facility::User,
            ..SyslogConfig::default()
        },
        Task::of("a\"b\\c\n<0>"),
    );
    assert!(text.starts_with("<13>"));
    assert!(text.contains(r#", user="a\"b\\c\n<0>", "#), "{text}");
}

/// OB-01.
#[test]
fn rfc_5424_has_a_valid_utc_time_and_one_structured_element() {
    let text = sent(rfc5424(), Task::of("a]\"\\"));
    let words: Vec<&str> = text.splitn(8, ' ').collect();
    assert_eq!(words[0], "<29>1");
    let at = time::OffsetDateTime::parse(words[1], &Rfc3339).expect("a time of RFC 5424");
    assert!((time::OffsetDateTime::now_utc() - at).abs() < time::Duration::minutes(1));
    assert_eq!(words[1].len(), "2026-11-22T10:00:00.123456Z".len());
    assert_eq!(words[2..7], ["-", "sluice", "42", "m1", "[sluice@7"]);
    assert!(words[7].contains(r#" user="a\]\"\\" "#), "{text}");
    assert!(words[7].contains(r#" c_rd_bytes="0" "#), "{text}");
    assert!(words[7].ends_with(r#" method="GET"] done"#), "{text}");
}

#[test]
fn a_cee_body_is_json_behind_the_cookie() {
    let config = SyslogConfig {
        use_cee_log_syntax: true,
        cee_event_flag: "@json:".to_owned(),
        append_report_ts: true,
        ..rfc5424()
    };
    let text = sent(config, Task::of("joe"));
    let (head, body) = text.split_once(" - @json:").unwrap();
    assert!(head.ends_with(" sluice 42 m1"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["msg"], "done");
    assert_eq!(body["c_rd_bytes"], 0);
    assert_eq!(body["log_type"], "Task");
    assert!(body.get("next_peer_addr").is_none());
    assert!(body["report_ts"].as_i64().unwrap() > 1_700_000_000);

    let config = SyslogConfig {
        use_cee_log_syntax: true,
        ..SyslogConfig::default()
    };
    assert!(sent(config, Task::of("joe")).contains(" sluice[42]: @cee:{\"daemon_name\":\"g1\","));
}

#[test]
fn host_name_and_report_time_are_there_when_asked_for() {
    let config = SyslogConfig {
        emit_hostname: true,
        append_report_ts: true,
        ..SyslogConfig::default()
    };
    let text = sent(config, Task::of("joe"));
    let host = config::hostname();
    assert!(text[19..].starts_with(&format!(" {host} sluice[42]: ")), "{text}");
    let (_, ts) = text.rsplit_once(", report_ts=").unwrap();
    let now = Timestamp::now().unix_secs();
    assert!((now - 60..=now).contains(&ts.parse().unwrap()), "{ts}");
}

/// OB-03.
#[test]
fn a_restarted_syslogd_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let first = receiver(&path);
    let logs = start(DriverConfig::Syslog(SyslogConfig {
        target: Some(DatagramTarget::Unix(path.clone())),
        ..SyslogConfig::default()
    }));
    let logger = logs.logger(LogKind::Task, "lt-a");
    logger.log(Task::of("before"));
    assert!(receive_text(&first).contains("user=\"before\""));

    drop(first);
    std::fs::remove_file(&path).unwrap();
    let second = receiver(&path);
    logger.log(Task::of("after"));
    assert!(receive_text(&second).contains("user=\"after\""));
    assert!(logs.shutdown(SOON));
    let (total, pass, _, drops) = numbers(&logger);
    assert_eq!((total, pass, drops), (2, 2, [0; 4]));
}

#[test]
fn an_absent_syslogd_costs_records_but_no_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let logs = start(DriverConfig::Syslog(SyslogConfig {
        target: Some(DatagramTarget::Unix(path.clone())),
        ..SyslogConfig::default()
    }));
    let logger = logs.logger(LogKind::Task, "lt-a");
    logger.log(Task::of("lost"));
    while numbers(&logger).3[3] == 0 {
        std::thread::yield_now();
    }
    let socket = receiver(&path);
    logger.log(Task::of("found"));
    assert!(receive_text(&socket).contains("user=\"found\""));
}

#[test]
fn a_stuck_syslogd_costs_one_wait_and_is_used_again_when_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let socket = receiver(&path);
    let logs = start(DriverConfig::Syslog(SyslogConfig {
        target: Some(DatagramTarget::Unix(path)),
        ..SyslogConfig::default()
    }));
    let logger = logs.logger(LogKind::Task, "lt-a");
    let settled = |offered: u64| {
        let from = Instant::now();
        loop {
            let (total, pass, _, drops) = numbers(&logger);
            assert_eq!(total, offered);
            if pass + drops.iter().sum::<u64>() == offered {
                return pass;
            }
            assert!(from.elapsed() < SOON, "{pass} {drops:?}");
            std::thread::yield_now();
        }
    };
    for _ in 0..2000 {
        logger.log(Task::of("x"));
    }
    let from = Instant::now();
    let pass = settled(2000);
    assert!(pass < 2000, "the receiver took everything");
    assert!(from.elapsed() < Duration::from_secs(5), "each record waited");
    for _ in 0..pass {
        receive(&socket);
    }
    logger.log(Task::of("again"));
    assert!(receive_text(&socket).contains("user=\"again\""));
}

#[test]
fn a_datagram_that_is_too_long_is_a_format_error() {
    let (_socket, target) = udp();
    let logs = start(DriverConfig::Syslog(SyslogConfig {
        target: Some(target),
        ..SyslogConfig::default()
    }));
    let logger = logs.logger(LogKind::Task, "lt-a");
    logger.log(Task::saying(&"x".repeat(70_000)));
    assert!(logs.shutdown(SOON));
    assert_eq!(numbers(&logger).3, [0, 0, 1, 0]);
}
