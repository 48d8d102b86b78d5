use std::sync::mpsc;

use super::*;
use crate::metrics::{Collector, Emit, Gauge, Line, Rule, Source};

/// Holds up the writer that formats it until the other end says so.
struct Gate {
    entered: mpsc::Sender<()>,
    open: Mutex<mpsc::Receiver<()>>,
}

impl slog::KV for Gate {
    fn serialize(&self, _: &slog::Record<'_>, _: &mut dyn slog::Serializer) -> slog::Result {
        self.entered.send(()).unwrap();
        let _ = lock(&self.open).recv();
        Ok(())
    }
}

impl Record for Gate {
    fn kind(&self) -> LogType {
        LogType::Escape
    }
    fn message(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

fn gate() -> (Gate, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (entered, when_entered) = mpsc::channel();
    let (open_it, open) = mpsc::channel();
    let gate = Gate {
        entered,
        open: Mutex::new(open),
    };
    (gate, when_entered, open_it)
}

fn journal(path: &Path, channel_size: usize) -> LoggerConfig {
    LoggerConfig {
        channel_size,
        ..DriverConfig::Journal(JournalConfig::at(path)).into()
    }
}

#[test]
fn a_discarded_record_is_not_even_built() {
    let logs = start(DriverConfig::Discard);
    let logger = logs.logger(LogKind::Task, "lt-a");
    assert!(!logger.enabled());
    logger.log_with(|| -> Task { panic!("built") });
    assert!(logs.shutdown(Duration::ZERO));
}

#[test]
fn one_name_is_one_logger_and_kinds_can_differ() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig {
        task: Some(journal(&dir.path().join("j"), 4)),
        ..LogConfig::default()
    };
    let logs = EventLogs::start(&config, &identity(), &Registry::new()).unwrap();
    let one = logs.logger(LogKind::Task, "lt-a");
    let two = logs.logger(LogKind::Task, "lt-a");
    let other = logs.logger(LogKind::Task, "lt-b");
    let (one, two, other) = (one.open.unwrap(), two.open.unwrap(), other.open.unwrap());
    assert!(Arc::ptr_eq(&one.channel, &two.channel));
    assert!(!Arc::ptr_eq(&one.channel, &other.channel));
    assert!(!logs.logger(LogKind::Escape, "le-a").enabled());
}

/// OB-05.
#[test]
fn a_full_queue_drops_and_counts_and_the_writer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let socket = receiver(&path);
    let logs = start_with(journal(&path, 4));
    let logger = logs.logger(LogKind::Task, "lt-a");

    let (gate, entered, open) = gate();
    logger.log(gate);
    entered.recv_timeout(SOON).unwrap();
    // The writer holds the gate record; four fit into the queue behind it.
    for user in ["a", "b", "c", "d", "lost", "lost too"] {
        logger.log(Task::of(user));
    }
    assert_eq!(numbers(&logger).3, [0, 2, 0, 0]);
    drop(open);
    assert!(logs.shutdown(SOON));

    receive(&socket);
    for user in ["a", "b", "c", "d"] {
        let entry = receive_text(&socket);
        assert!(entry.contains(&format!("\nUSER={user}\n")), "{entry}");
    }
    let (total, pass, bytes, drops) = numbers(&logger);
    assert_eq!((total, pass), (7, 5));
    assert!(bytes > 0);
    assert_eq!(pass + drops.iter().sum::<u64>(), total);
}

#[test]
fn the_writer_is_woken_when_the_queue_passes_half() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let socket = receiver(&path);
    let config = journal(&path, 16);
    let writer = Writer::start_polling(&config, &identity(), Duration::from_secs(3600)).unwrap();
    let logger = EventLogger {
        open: Some(writer.logger("lt-a", &Registry::new())),
        tap: None,
    };
    for _ in 0..9 {
        logger.log(Task::of("x"));
    }
    // The ninth calls; the eight that stood in the queue then are written.
    for _ in 0..8 {
        receive(&socket);
    }
}

/// Takes entries until the word `stop` comes: their `USER` fields.
fn users_until_stop(socket: UnixDatagram) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let entries = std::iter::from_fn(|| Some(receive_text(&socket)).filter(|entry| entry != "stop"));
        entries
            .map(|entry| {
                let user = entry.lines().find_map(|line| line.strip_prefix("USER="));
                user.unwrap().to_owned()
            })
            .collect()
    })
}

fn stop(path: &Path) {
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(b"stop", path).unwrap();
}

#[test]
fn what_is_queued_at_shutdown_is_written_and_what_comes_later_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let socket = receiver(&path);
    let logs = start_with(journal(&path, 1000));
    let logger = logs.logger(LogKind::Task, "lt-a");
    for _ in 0..100 {
        logger.log(Task::of("x"));
    }
    let reader = users_until_stop(socket);
    assert!(logs.shutdown(SOON));
    stop(&path);
    let read = reader.join().unwrap().len() as u64;
    logger.log(Task::of("late"));
    let late = logs.logger(LogKind::Task, "lt-new");
    late.log(Task::of("late"));
    assert_eq!(numbers(&late).3, [1, 0, 0, 0]);
    let (total, pass, _, drops) = numbers(&logger);
    // A machine that does not let the reader run for 100 ms makes it a stuck one.
    assert_eq!((total, pass + drops[3], pass, drops[0]), (101, 100, read, 1));
}

#[test]
fn shutdown_gives_up_at_its_deadline_and_counts_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let logs = start_with(journal(&dir.path().join("none"), 10));
    let logger = logs.logger(LogKind::Task, "lt-a");
    let (gate, entered, _open) = gate();
    logger.log(gate);
    entered.recv_timeout(SOON).unwrap();
    logger.log(Task::of("left"));
    assert!(!logs.shutdown(Duration::from_millis(10)));
    assert_eq!(numbers(&logger).3[0], 1);
}

#[test]
fn a_panic_in_a_record_costs_that_record_alone() {
    struct Broken;
    impl slog::KV for Broken {
        fn serialize(&self, _: &slog::Record<'_>, _: &mut dyn slog::Serializer) -> slog::Result {
            panic!("a bug")
        }
    }
    impl Record for Broken {
        fn kind(&self) -> LogType {
            LogType::Resolve
        }
        fn message(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            Ok(())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let socket = receiver(&path);
    let logs = start_with(journal(&path, 10));
    let logger = logs.logger(LogKind::Task, "lt-a");
    logger.log(Broken);
    logger.log(Task::of("after"));
    assert!(receive_text(&socket).contains("USER=after"));
    assert!(logs.shutdown(SOON));
    assert_eq!(numbers(&logger).3, [0, 0, 1, 0]);
}

#[test]
fn records_of_several_loggers_come_in_the_order_of_their_making() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let socket = receiver(&path);
    let logs = start_with(journal(&path, 100));
    let (a, b) = (logs.logger(LogKind::Task, "lt-a"), logs.logger(LogKind::Escape, "le-b"));
    let (gate, entered, open) = gate();
    a.log(gate);
    entered.recv_timeout(SOON).unwrap();
    for (logger, user, at) in [(&b, "1", 1), (&a, "2", 2), (&b, "3", 3), (&a, "4", 4)] {
        let record = Task::of(user);
        let at = Timestamp::from_unix(at, 0);
        let channel = &logger.open.as_ref().unwrap().channel;
        channel.offer(|| Box::new(Stamped { at, record }));
    }
    drop(open);
    assert!(logs.shutdown(SOON));
    receive(&socket);
    for user in ["1", "2", "3", "4"] {
        let entry = receive_text(&socket);
        assert!(entry.contains(&format!("\nUSER={user}\n")), "{entry}");
    }
}

#[test]
fn a_logger_that_nobody_holds_is_forgotten_after_its_last_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let socket = receiver(&path);
    let registry = Registry::new();
    let config = LogConfig {
        default: journal(&path, 10),
        ..LogConfig::default()
    };
    let logs = EventLogs::start(&config, &identity(), &registry).unwrap();
    let logger = logs.logger(LogKind::Task, "lt-a");
    logger.log(Task::of("last"));
    let channel = Arc::downgrade(&logger.open.as_ref().unwrap().channel);
    drop(logger);
    receive(&socket);
    let from = Instant::now();
    while format!("{registry:?}") != "Registry(0 sources)" {
        assert!(from.elapsed() < SOON, "still held");
        std::thread::yield_now();
    }
    assert_eq!(channel.strong_count(), 0);
}

#[test]
fn several_writer_threads_write_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let socket = receiver(&path);
    let logs = start_with(LoggerConfig {
        thread_number: 3,
        ..journal(&path, 4096)
    });
    let logger = logs.logger(LogKind::Task, "lt-a");
    let reader = users_until_stop(socket);
    for number in 0..500 {
        logger.log(Task::of(&number.to_string()));
    }
    assert!(logs.shutdown(SOON));
    stop(&path);
    let mut users = reader.join().unwrap();
    let read = users.len();
    users.sort();
    users.dedup();
    assert_eq!(users.len(), read, "something came twice");
    let (total, pass, _, drops) = numbers(&logger);
    assert_eq!((total, pass, pass + drops[3]), (500, read as u64, 500));
}

#[test]
fn the_numbers_carry_the_documented_names_and_tags() {
    struct Seen(Vec<String>);
    impl Emit for Seen {
        fn counter(&mut self, line: &Line<'_>, _: Rule, value: u64) {
            let tags: Vec<_> = line.tags.iter().filter(|(key, _)| *key != "stat_id").collect();
            self.0.push(format!("{} {tags:?} {value}", line.name));
        }
        fn gauge(&mut self, _: &Line<'_>, _: Rule, _: Gauge) {}
    }
    let dir = tempfile::tempdir().unwrap();
    let logs = start_with(journal(&dir.path().join("none"), 10));
    let logger = logs.logger(LogKind::Task, "lt-a");
    logger.log(Task::of("x"));
    assert!(logs.shutdown(SOON));
    let mut seen = Seen(Vec::new());
    let stats = &logger.open.as_ref().unwrap().channel.stats;
    stats.collect(&mut Collector::new(&mut seen, true));
    assert_eq!(
        seen.0,
        [
            r#"logger.message.total [("logger", "lt-a")] 1"#,
            r#"logger.message.pass [("logger", "lt-a")] 0"#,
            r#"logger.traffic.pass [("logger", "lt-a")] 0"#,
            r#"logger.message.drop [("logger", "lt-a"), ("drop_type", "PeerUnreachable")] 1"#,
        ]
    );
}
