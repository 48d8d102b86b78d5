use super::super::channel::Stats;
use super::super::driver::{IoErrors, Stdout};
use super::*;
use crate::render::human::{LocalTime, push_day_and_time};
use crate::render::{Event, Severity};

#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const AT: (i64, u32) = (1_795_341_600, 7_654_321);

fn written(format: StdoutFormat, terminal: bool, message: &str) -> String {
    let pipe = Pipe::default();
    let mut stdout = Stdout::new(format, terminal, Box::new(pipe.clone()));
    let stats = Arc::new(Stats::new("lt-a"));
    let mut errors = IoErrors::new(0);
    let fields = |out: &mut dyn slog::Serializer| {
        out.emit_str("user".into(), "a\nb")?;
        out.emit_u64("c_rd_bytes".into(), 0)?;
        out.emit_none("next_peer_addr".into())
    };
    let event = Event {
        at: Timestamp::from_unix(AT.0, AT.1),
        severity: Severity::Notice,
        level: "INFO",
        log_type: Some(LogType::Task),
        position: None,
        message: &message,
        fields: &fields,
    };
    stdout.write(&event, &stats, &mut errors);
    stdout.flush(&mut errors);
    let bytes = lock(&pipe.0).clone();
    assert_eq!(stats.numbers(), (0, 1, bytes.len() as u64, [0; 4]));
    String::from_utf8(bytes).unwrap()
}

fn local_time() -> String {
    let mut time = Vec::new();
    let at = Timestamp::from_unix(AT.0, AT.1);
    push_day_and_time(&mut time, LocalTime::default().of(at), '0');
    String::from_utf8(time).unwrap()
}

#[test]
fn a_pipe_gets_sorted_keys_with_colons_and_the_message_last() {
    let line = written(StdoutFormat::Human, false, "closed by client");
    let time = local_time();
    assert_eq!(
        line,
        format!("{time}.007 INFO c_rd_bytes: 0, user: a\\nb, closed by client\n")
    );
}

#[test]
fn an_empty_message_is_a_pair_of_parentheses() {
    assert!(written(StdoutFormat::Human, false, "").ends_with(", ()\n"));
}

#[test]
fn a_terminal_gets_bold_keys_with_equals_signs() {
    let line = written(StdoutFormat::Human, true, "x");
    assert!(
        line.ends_with(" \x1b[32mINFO\x1b[0m \x1b[1mc_rd_bytes\x1b[0m=0, \x1b[1muser\x1b[0m=a\\nb, x\n"),
        "{line:?}"
    );
}

#[test]
fn json_is_one_object_a_line_with_numbers_as_numbers() {
    assert_eq!(
        written(StdoutFormat::Json, true, "say \"hi\""),
        "{\"time\":\"2026-11-22T10:00:00.007654Z\",\"user\":\"a\\nb\",\"c_rd_bytes\":0,\"msg\":\"say \\\"hi\\\"\"}\n"
    );
}

#[test]
fn a_reader_that_went_away_is_counted() {
    struct Gone;
    impl std::io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut stdout = Stdout::new(StdoutFormat::Json, false, Box::new(Gone));
    let stats = Arc::new(Stats::new("lt-a"));
    let event = Event {
        at: Timestamp::now(),
        severity: Severity::Notice,
        level: "INFO",
        log_type: None,
        position: None,
        message: &"",
        fields: &|_| Ok(()),
    };
    let mut errors = IoErrors::new(0);
    stdout.write(&event, &stats, &mut errors);
    stdout.flush(&mut errors);
    assert_eq!(stats.numbers(), (0, 0, 0, [0, 0, 0, 1]));
}
