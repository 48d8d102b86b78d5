use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use rmpv::Value;
use sha2::{Digest as _, Sha512};
use sluice_addr::Host;
use sluice_config::value::Secret;
use sluice_tls::config::{Certificates, PemSource};
use sluice_tls::server::TlsServerParams;
use sluice_tls::{HandshakeError, OpensslClientConfig, RustlsServerConfig, TlsStream};

use super::*;

fn collector() -> (TcpListener, FluentdConfig) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = FluentdConfig {
        address: listener.local_addr().unwrap().into(),
        connect_delay: Duration::from_millis(1),
        flush_interval: Duration::from_millis(1),
        ..FluentdConfig::default()
    };
    (listener, config)
}

fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    BufReader::new(stream)
}

fn read(stream: &mut BufReader<impl Read>) -> Vec<Value> {
    match rmpv::decode::read_value(stream).unwrap() {
        Value::Array(items) => items,
        other => panic!("{other}"),
    }
}

fn write(stream: &mut BufReader<impl Read + Write>, value: &Value) {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    stream.get_mut().write_all(&bytes).unwrap();
}

fn field<'a>(message: &'a [Value], key: &str) -> &'a Value {
    let map = message[2].as_map().unwrap();
    let (_, value) = map.iter().find(|(it, _)| it.as_str() == Some(key)).unwrap();
    value
}

fn user(message: &[Value]) -> &str {
    field(message, "user").as_str().unwrap()
}

fn digest(parts: &[&[u8]]) -> String {
    format!("{:x}", Sha512::digest(parts.concat()))
}

#[test]
fn a_message_is_tag_event_time_and_map() {
    let (listener, config) = collector();
    let logs = start(DriverConfig::from(config));
    logs.logger(LogKind::Task, "lt-a").log(Task::of("joe"));
    let message = read(&mut accept(&listener));
    assert_eq!(message.len(), 3);
    assert_eq!(message[0].as_str(), Some("sluice.Task"));
    let (kind, time) = message[1].as_ext().unwrap();
    assert_eq!((kind, time.len()), (0, 8));
    let secs = i64::from(u32::from_be_bytes(time[..4].try_into().unwrap()));
    assert!((Timestamp::now().unix_secs() - secs).abs() < 60);
    assert!(u32::from_be_bytes(time[4..].try_into().unwrap()) < 1_000_000_000);
    assert_eq!(field(&message, "daemon_name").as_str(), Some("g1"));
    assert_eq!(field(&message, "pid").as_u64(), Some(42));
    assert_eq!(field(&message, "depth").as_i64(), Some(-1));
    assert_eq!(field(&message, "reuse_connection").as_bool(), Some(true));
    assert_eq!(field(&message, "msg").as_str(), Some("done"));
    assert!(field(&message, "next_peer_addr").is_nil());
    assert!(field(&message, "wait_time").is_nil());
}

/// OB-02.
#[test]
fn strings_at_the_edges_of_their_encodings_arrive_whole() {
    let (listener, config) = collector();
    let logs = start(DriverConfig::from(config));
    let logger = logs.logger(LogKind::Task, "lt-a");
    let lengths = [0, 31, 32, 255, 256, 65_535, 65_536];
    for len in lengths {
        logger.log(Task::saying(&"m".repeat(len)));
    }
    let mut stream = accept(&listener);
    for len in lengths {
        let message = read(&mut stream);
        assert_eq!(field(&message, "msg").as_str().unwrap().len(), len);
    }
}

/// Plays the collector's part of the handshake.
fn shake(stream: &mut BufReader<impl Read + Write>, key: &str, auth: &[u8]) -> Vec<Value> {
    let nonce: &[u8] = b"\x00\xffnonce";
    write(
        stream,
        &Value::Array(vec![
            "HELO".into(),
            Value::Map(vec![
                ("nonce".into(), Value::Binary(nonce.to_vec())),
                ("auth".into(), Value::Binary(auth.to_vec())),
                ("keepalive".into(), true.into()),
                ("unknown".into(), Value::Array(vec![1.5.into(), Value::Nil])),
            ]),
        ]),
    );
    let ping = read(stream);
    let (host, salt) = (ping[1].as_str().unwrap(), ping[2].as_str().unwrap());
    let expected = digest(&[salt.as_bytes(), host.as_bytes(), nonce, key.as_bytes()]);
    let accepted = ping[3].as_str() == Some(&expected);
    let own = digest(&[salt.as_bytes(), b"collector", nonce, key.as_bytes()]);
    let reason = if accepted { "" } else { "shared_key mismatch" };
    write(
        stream,
        &Value::Array(vec![
            "PONG".into(),
            accepted.into(),
            reason.into(),
            "collector".into(),
            own.into(),
        ]),
    );
    ping
}

#[test]
fn the_handshake_proves_key_and_user() {
    let (listener, config) = collector();
    let logs = start(DriverConfig::from(FluentdConfig {
        shared_key: Some(Secret::new("secret".to_owned())),
        username: "me".to_owned(),
        password: Secret::new("pw".to_owned()),
        hostname: Some("here".to_owned()),
        ..config
    }));
    logs.logger(LogKind::Escape, "le-a").log(Task::of("joe"));
    let mut stream = accept(&listener);
    let ping = shake(&mut stream, "secret", b"salt");
    assert_eq!(ping.len(), 6);
    assert_eq!(ping[0].as_str(), Some("PING"));
    assert_eq!(ping[1].as_str(), Some("here"));
    assert_eq!(ping[4].as_str(), Some("me"));
    assert_eq!(ping[5].as_str(), Some(&*digest(&[b"salt", b"me", b"pw"])));
    assert_eq!(user(&read(&mut stream)), "joe");
}

#[test]
fn no_user_is_told_to_a_collector_that_does_not_ask() {
    let (listener, config) = collector();
    let logs = start(DriverConfig::from(FluentdConfig {
        shared_key: Some(Secret::new("secret".to_owned())),
        username: "me".to_owned(),
        password: Secret::new("pw".to_owned()),
        ..config
    }));
    logs.logger(LogKind::Task, "lt-a").log(Task::of("joe"));
    let mut stream = accept(&listener);
    let ping = shake(&mut stream, "secret", b"");
    assert_eq!((ping[4].as_str(), ping[5].as_str()), (Some(""), Some("")));
    assert_eq!(user(&read(&mut stream)), "joe");
}

#[test]
fn a_refused_key_is_tried_again_after_the_delay_and_the_record_kept() {
    let (listener, config) = collector();
    let logs = start(DriverConfig::from(FluentdConfig {
        shared_key: Some(Secret::new("secret".to_owned())),
        ..config
    }));
    logs.logger(LogKind::Task, "lt-a").log(Task::of("joe"));
    shake(&mut accept(&listener), "other", b"");
    let mut stream = accept(&listener);
    shake(&mut stream, "secret", b"");
    assert_eq!(user(&read(&mut stream)), "joe");
}

#[test]
fn a_collector_that_does_not_know_the_key_gets_no_record() {
    let (listener, config) = collector();
    let logs = start(DriverConfig::from(FluentdConfig {
        shared_key: Some(Secret::new("secret".to_owned())),
        ..config
    }));
    logs.logger(LogKind::Task, "lt-a").log(Task::of("joe"));
    let mut stream = accept(&listener);
    write(&mut stream, &Value::Array(vec!["HELO".into(), Value::Map(vec![])]));
    read(&mut stream);
    write(
        &mut stream,
        &Value::Array(vec![
            "PONG".into(),
            true.into(),
            "".into(),
            "evil".into(),
            "0".repeat(128).into(),
        ]),
    );
    // The connection is closed without a record on it.
    assert!(rmpv::decode::read_value(&mut stream).is_err());
}

#[test]
fn a_flood_in_place_of_the_greeting_is_refused() {
    let (listener, config) = collector();
    let logs = start(DriverConfig::from(FluentdConfig {
        shared_key: Some(Secret::new("secret".to_owned())),
        ..config
    }));
    logs.logger(LogKind::Task, "lt-a").log(Task::of("joe"));
    for flood in [
        // A string of 4 GiB, an array of 2^32 arrays, nesting without end.
        b"\xdb\xff\xff\xff\xff".as_slice(),
        b"\xdd\xff\xff\xff\xff",
        &[0x91; 64],
    ] {
        let mut stream = accept(&listener);
        stream.get_mut().write_all(flood).unwrap();
        assert!(rmpv::decode::read_value(&mut stream).is_err());
    }
}

#[test]
fn a_restarted_collector_is_found_and_nothing_is_lost() {
    let (listener, config) = collector();
    let logs = start(DriverConfig::from(config));
    let logger = logs.logger(LogKind::Task, "lt-a");
    logger.log(Task::of("first"));
    let mut stream = accept(&listener);
    assert_eq!(user(&read(&mut stream)), "first");
    drop(stream);
    logger.log(Task::of("second"));
    let mut stream = accept(&listener);
    assert_eq!(user(&read(&mut stream)), "second");
    assert!(logs.shutdown(SOON));
    let (total, pass, _, drops) = numbers(&logger);
    assert_eq!((total, pass, drops), (2, 2, [0; 4]));
}

#[test]
fn while_the_collector_is_away_the_retry_queue_is_kept_and_the_rest_counted() {
    // Bound, so that nobody else gets the port, but not listening yet: a connect is refused.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    let logs = start(DriverConfig::from(FluentdConfig {
        address: socket.local_addr().unwrap().as_socket().unwrap().into(),
        connect_delay: Duration::from_millis(300),
        flush_interval: Duration::from_millis(1),
        retry_queue_len: 3,
        ..FluentdConfig::default()
    }));
    let logger = logs.logger(LogKind::Task, "lt-a");
    for number in 0..10 {
        logger.log(Task::of(&number.to_string()));
    }
    let from = Instant::now();
    while numbers(&logger).3[3] < 7 {
        assert!(from.elapsed() < SOON);
        std::thread::yield_now();
    }
    socket.listen(1).unwrap();
    let mut stream = accept(&socket.into());
    let kept: Vec<String> = (0..3).map(|_| user(&read(&mut stream)).to_owned()).collect();
    assert!(kept.is_sorted(), "{kept:?}");
    assert!(logs.shutdown(SOON));
    let (total, pass, _, drops) = numbers(&logger);
    assert_eq!((total, pass, drops), (10, 3, [0, 0, 0, 7]));
}

#[test]
fn a_collector_that_does_not_read_costs_the_record_it_is_stuck_in() {
    let (listener, config) = collector();
    let logs = start_with(LoggerConfig {
        driver: DriverConfig::from(FluentdConfig {
            write_timeout: Duration::from_millis(50),
            ..config
        }),
        ..LoggerConfig::default()
    });
    let logger = logs.logger(LogKind::Task, "lt-a");
    let (stuck, _) = {
        // More than the socket buffers of both sides hold.
        logger.log(Task::saying(&"x".repeat(32 * 1024 * 1024)));
        listener.accept().unwrap()
    };
    let from = Instant::now();
    while numbers(&logger).3[3] == 0 {
        assert!(from.elapsed() < SOON);
        std::thread::yield_now();
    }
    drop(stuck);
    logger.log(Task::of("next"));
    assert_eq!(user(&read(&mut accept(&listener))), "next");
}

#[test]
fn a_bind_ip_is_the_connection_s_local_address() {
    let (listener, config) = collector();
    let logs = start(DriverConfig::from(FluentdConfig {
        bind_ip: Some([127, 0, 0, 5].into()),
        ..config
    }));
    logs.logger(LogKind::Task, "lt-a").log(Task::of("joe"));
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.5");
}

/// The collector's side of a TLS connection, for blocking use.
struct TlsSide {
    stream: TlsStream<tokio::net::TcpStream>,
    runtime: tokio::runtime::Runtime,
}

impl TlsSide {
    /// Accepts one connection; `Err` if its handshake fails.
    fn accept(
        listener: &TcpListener,
        certificate: &rcgen::CertifiedKey<rcgen::KeyPair>,
    ) -> Result<Self, HandshakeError> {
        let pem = |text: String| PemSource::Inline(Secret::new(text));
        let config = RustlsServerConfig {
            certificate: Some(Certificates(vec![pem(certificate.cert.pem())])),
            private_key: Some(pem(certificate.signing_key.serialize_pem())),
            ..RustlsServerConfig::default()
        };
        let acceptor = TlsServerParams::from_rustls(&config, Path::new(""))
            .unwrap()
            .rustls()
            .unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let stream = runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            acceptor.accept(stream).await
        })?;
        Ok(Self { stream, runtime })
    }
}

impl Read for TlsSide {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = tokio::io::AsyncReadExt::read(&mut self.stream, buf);
        self.runtime.block_on(async { tokio::time::timeout(SOON, read).await? })
    }
}

impl Write for TlsSide {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.runtime.block_on(async {
            tokio::io::AsyncWriteExt::write_all(&mut self.stream, buf).await?;
            tokio::io::AsyncWriteExt::flush(&mut self.stream).await?;
            Ok(buf.len())
        })
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn certificate() -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(["collector.example".to_owned()]).unwrap()
}

/// A client that trusts this certificate alone.
fn trusting(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> OpensslClientConfig {
    OpensslClientConfig {
        ca_certificate: Some(Certificates(vec![PemSource::Inline(Secret::new(
            certificate.cert.pem(),
        ))])),
        no_default_ca_certificate: true,
        ..OpensslClientConfig::default()
    }
}

#[test]
fn the_whole_conversation_can_go_through_tls() {
    let certificate = certificate();
    let (listener, config) = collector();
    let logs = start(DriverConfig::from(FluentdConfig {
        tls_client: Some(trusting(&certificate)),
        tls_name: Some(Host::parse("collector.example").unwrap()),
        shared_key: Some(Secret::new("secret".to_owned())),
        ..config
    }));
    let logger = logs.logger(LogKind::Task, "lt-a");
    logger.log(Task::of("first"));
    let mut stream = BufReader::new(TlsSide::accept(&listener, &certificate).unwrap());
    shake(&mut stream, "secret", b"");
    assert_eq!(user(&read(&mut stream)), "first");
    // The connection is kept, whatever tickets came on it.
    logger.log(Task::of("second"));
    assert_eq!(user(&read(&mut stream)), "second");

    drop(stream);
    logger.log(Task::of("third"));
    let mut stream = BufReader::new(TlsSide::accept(&listener, &certificate).unwrap());
    shake(&mut stream, "secret", b"");
    assert_eq!(user(&read(&mut stream)), "third");
}

#[test]
fn a_collector_of_another_name_gets_no_record() {
    let certificate = certificate();
    let (listener, config) = collector();
    let logs = start(DriverConfig::from(FluentdConfig {
        tls_client: Some(trusting(&certificate)),
        tls_name: Some(Host::parse("other.example").unwrap()),
        retry_queue_len: 0,
        ..config
    }));
    let logger = logs.logger(LogKind::Task, "lt-a");
    logger.log(Task::of("joe"));
    assert!(TlsSide::accept(&listener, &certificate).is_err());
    let from = Instant::now();
    while numbers(&logger).3[3] == 0 {
        assert!(from.elapsed() < SOON);
        std::thread::yield_now();
    }
}

#[test]
fn an_unusable_tls_file_is_told_at_the_start() {
    let mut config = LogConfig {
        default: DriverConfig::from(FluentdConfig {
            tls_client: Some(OpensslClientConfig {
                ca_certificate: Some(Certificates(vec![PemSource::File("none.pem".into())])),
                ..OpensslClientConfig::default()
            }),
            ..FluentdConfig::default()
        })
        .into(),
        ..LogConfig::default()
    };
    config.set_base_dir(Path::new("/nowhere"));
    let error = EventLogs::start(&config, &identity(), &Registry::new()).unwrap_err();
    assert!(
        matches!(&error, StartError::Tls(reason) if reason.to_string().contains("/nowhere/none.pem")),
        "{error:?}"
    );
}

#[test]
fn secrets_are_not_in_the_debug_form() {
    let config = FluentdConfig {
        shared_key: Some(Secret::new("sesame".to_owned())),
        password: Secret::new("hunter2".to_owned()),
        ..FluentdConfig::default()
    };
    let text = format!("{:?}", DriverConfig::from(config));
    assert!(!text.contains("sesame") && !text.contains("hunter2"), "{text}");
}
