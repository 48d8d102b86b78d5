use std::io::Write as _;

use sluice_config::Load;

use super::*;

/// What `log: <yaml>` is, or all that is said against it.
fn read(yaml: &str) -> Result<LogConfig, String> {
    let mut file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    writeln!(file, "log: {yaml}").unwrap();
    let mut load = Load::open(file.path());
    let config = load.daemon_section("proxyd", "log");
    load.finish().map_err(|errors| errors.to_string())?;
    Ok(config.unwrap())
}

fn default_of(yaml: &str) -> LoggerConfig {
    read(yaml).unwrap().default
}

fn syslog(yaml: &str) -> SyslogConfig {
    match default_of(&format!("{{syslog: {yaml}}}")).driver {
        DriverConfig::Syslog(syslog) => syslog,
        other => panic!("{other:?}"),
    }
}

fn fluentd(yaml: &str) -> FluentdConfig {
    match default_of(&format!("{{fluentd: {yaml}}}")).driver {
        DriverConfig::Fluentd(fluentd) => *fluentd,
        other => panic!("{other:?}"),
    }
}

fn udp(peer: &str, bind_ip: Option<&str>) -> Option<DatagramTarget> {
    Some(DatagramTarget::Udp {
        peer: peer.parse::<SocketAddr>().unwrap().into(),
        bind_ip: bind_ip.map(|ip| ip.parse().unwrap()),
    })
}

fn unix(path: &str) -> Option<DatagramTarget> {
    Some(DatagramTarget::Unix(path.into()))
}

#[test]
fn nothing_and_the_word_discard_are_the_same() {
    assert_eq!(read("").unwrap(), LogConfig::default());
    assert_eq!(read("discard").unwrap(), LogConfig::default());
    assert_eq!(read("{}").unwrap(), LogConfig::default());
    assert_eq!(default_of("{default: {}}"), LoggerConfig::default());
}

#[test]
fn a_driver_s_name_is_the_driver_with_its_defaults() {
    let driver = |yaml| default_of(yaml).driver;
    assert_eq!(driver("journal"), DriverConfig::Journal(JournalConfig::default()));
    assert_eq!(driver("stdout"), DriverConfig::Stdout(StdoutConfig::default()));
    assert_eq!(driver("fluentd"), FluentdConfig::default().into());
    let named = SyslogConfig {
        facility: Facility::User,
        ..SyslogConfig::default()
    };
    assert_eq!(driver("syslog"), DriverConfig::Syslog(named));
    assert_eq!(syslog(""), SyslogConfig::default(), "facility daemon");
    assert_eq!(fluentd(""), FluentdConfig::default());
}

#[test]
fn each_kind_has_its_own_entry_or_the_default() {
    let config = read("{default: journal, task: stdout, audit: {Async-Channel-Size: 8}}").unwrap();
    let driver = |kind| &config.of(kind).driver;
    assert_eq!(driver(LogKind::Task), &DriverConfig::Stdout(StdoutConfig::default()));
    assert_eq!(
        driver(LogKind::Escape),
        &DriverConfig::Journal(JournalConfig::default())
    );
    assert_eq!(driver(LogKind::Resolve), driver(LogKind::Escape));
    assert_eq!(driver(LogKind::Audit), &DriverConfig::Discard);
    assert_eq!(config.of(LogKind::Audit).channel_size, 8);
}

#[test]
fn of_several_defaults_or_drivers_the_last_one_counts() {
    let driver = |yaml| default_of(yaml).driver;
    assert!(matches!(
        driver("{default: journal, syslog: {}}"),
        DriverConfig::Syslog(_)
    ));
    assert!(matches!(
        driver("{syslog: {}, default: journal}"),
        DriverConfig::Journal(_)
    ));
    let task = read("{task: {fluentd: {}, journal: {}}}").unwrap().task.unwrap();
    assert!(matches!(task.driver, DriverConfig::Journal(_)));
    let task = read("{task: {journal: , fluentd: '127.0.0.1:5'}}")
        .unwrap()
        .task
        .unwrap();
    assert!(matches!(task.driver, DriverConfig::Fluentd(_)));
}

#[test]
fn queue_threads_and_sampling_have_two_names_and_limits() {
    for yaml in [
        "{default: {stdout: {format: json}, channel_size: 10, thread_number: 2, io_error_sampling_offset: 16}}",
        "{default: {stdout: {format: JSON}, async_channel_size: 10, async_thread_number: '2', io_error_sampling_offset: 16}}",
    ] {
        let config = default_of(yaml);
        let json = StdoutConfig {
            format: StdoutFormat::Json,
        };
        assert_eq!(config.driver, DriverConfig::Stdout(json));
        assert_eq!(
            (
                config.channel_size,
                config.thread_number,
                config.io_error_sampling_offset
            ),
            (10, 2, 16)
        );
    }
}

#[test]
fn syslog_targets_have_many_forms() {
    for (yaml, target) in [
        ("{target_udp: '127.0.0.1:514'}", udp("127.0.0.1:514", None)),
        (
            "{backend_udp: {addr: '[::1]:514', bind: '::1'}}",
            udp("[::1]:514", Some("::1")),
        ),
        (
            "{target_udp: {bind: 127.0.0.2}}",
            udp("127.0.0.1:514", Some("127.0.0.2")),
        ),
        ("{target_unix: /run/log}", unix("/run/log")),
        ("{backend-unix: {path: /run/log}}", unix("/run/log")),
        ("{target: {udp: '127.0.0.1:514'}}", udp("127.0.0.1:514", None)),
        ("{backend: {unix: {path: /run/log}}}", unix("/run/log")),
        ("{target_unix: /a, target_udp: '127.0.0.1:1'}", udp("127.0.0.1:1", None)),
        ("{target_udp: '127.0.0.1:1', target_unix: /a}", unix("/a")),
        ("{target_unix: /a, target: {udp: '127.0.0.1:1', unix: /b}}", unix("/b")),
        ("{}", None),
    ] {
        assert_eq!(syslog(yaml).target, target, "{yaml}");
    }
}

#[test]
fn syslog_formats_have_three_forms() {
    let rfc5424 = |enterprise_id, message_id: Option<&str>| Header::Rfc5424 {
        enterprise_id,
        message_id: message_id.map(str::to_owned),
    };
    for (yaml, header) in [
        ("{format_rfc5424: 7}", rfc5424(7, None)),
        ("{format_rfc5424: m1}", rfc5424(0, Some("m1"))),
        (
            "{format_rfc5424: {enterprise_id: 8, message_id: m2}}",
            rfc5424(8, Some("m2")),
        ),
        ("{format_rfc5424: {}}", rfc5424(0, None)),
        ("{}", Header::Rfc3164),
    ] {
        assert_eq!(syslog(yaml).header, header, "{yaml}");
    }
    let cee = syslog("{use_cls: yes, cee_cookie: '@j:', emit_hostname: true, append_report_ts: on}");
    assert!(cee.use_cee_log_syntax && cee.emit_hostname && cee.append_report_ts);
    assert_eq!(cee.cee_event_flag, "@j:");
}

#[test]
fn fluentd_takes_every_key() {
    let config = fluentd(
        "{addr: '127.0.0.1:5', bind: 127.0.0.2, shared_key: s, username: u, password: p, hostname: h, \
         tcp_keepalive: 30s, tls: {}, tls_name: a.example, connect_timeout: 1s, connect_delay: 2s, write_timeout: 3s, flush_interval: 4s, \
         retry_queue_len: 5}",
    );
    let expected = FluentdConfig {
        address: SocketAddr::from(([127, 0, 0, 1], 5)).into(),
        bind_ip: Some([127, 0, 0, 2].into()),
        shared_key: Some(Secret::new("s".to_owned())),
        username: "u".to_owned(),
        password: Secret::new("p".to_owned()),
        hostname: Some("h".to_owned()),
        tcp_keepalive: TcpKeepalive {
            idle_time: sluice_config::value::Span::secs(30),
            ..TcpKeepalive::ON
        },
        tls_client: Some(OpensslClientConfig::default()),
        tls_name: Some(Host::parse("a.example").unwrap()),
        base_dir: PathBuf::new(),
        connect_timeout: Duration::from_secs(1),
        connect_delay: Duration::from_secs(2),
        write_timeout: Duration::from_secs(3),
        flush_interval: Duration::from_secs(4),
        retry_queue_len: 5,
    };
    assert_eq!(config, expected);
    assert!(!format!("{config:?}").contains("\"s\""));
}

#[test]
fn what_is_wrong_is_told_with_its_path() {
    for (yaml, path, message) in [
        (
            "syslogd",
            "log",
            "expected `discard`, `fluentd`, `journal`, `stdout` or `syslog`, found `syslogd`",
        ),
        ("{journal: {}}", "log", "unknown key `journal`"),
        ("{default: {discard: {}}}", "log.default", "unknown key `discard`"),
        (
            "{default: {journal: {path: /x}}}",
            "log.default.journal",
            "unknown key `path`",
        ),
        (
            "{default: {io_error_sampling_offset: 17}}",
            "log.default.io_error_sampling_offset",
            "from 0 to 16, found `17`",
        ),
        (
            "{default: {async_channel_size: 0}}",
            "log.default.async_channel_size",
            "from 1 to 1048576, found `0`",
        ),
        (
            "{task: {thread_number: 1000}}",
            "log.task.thread_number",
            "from 1 to 64, found `1000`",
        ),
        (
            "{syslog: {target_unix: log}}",
            "log.syslog.target_unix",
            "an absolute path",
        ),
        (
            "{syslog: {target_udp: 'a:1'}}",
            "log.syslog.target_udp",
            "expected an address",
        ),
        (
            "{syslog: {format_rfc5424: 'a b'}}",
            "log.syslog.format_rfc5424",
            "1 to 32 printable",
        ),
        (
            "{fluentd: {tls_name: a.example}}",
            "log.fluentd.tls_name",
            "no `tls_client`",
        ),
        (
            "{fluentd: {write_timeout: 0}}",
            "log.fluentd.write_timeout",
            "longer than 0",
        ),
        (
            "{default: {stdout: {format: xml}}}",
            "log.default.stdout.format",
            "expected `human` or `json`, found `xml`",
        ),
    ] {
        let said = read(yaml).unwrap_err();
        assert!(said.contains(&format!(" {path}: ")), "{yaml}: {said}");
        assert!(said.contains(message), "{yaml}: {said}");
    }
}

#[test]
fn the_schema_can_be_made() {
    let schema = schemars::schema_for!(LogConfig).to_value().to_string();
    for key in ["async_channel_size", "target_udp", "retry_queue_len", "format_rfc5424"] {
        assert!(schema.contains(key), "{schema}");
    }
}
