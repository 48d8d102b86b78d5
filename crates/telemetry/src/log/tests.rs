use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use super::*;

fn receiver(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

fn receive(socket: &UnixDatagram) -> String {
    let mut datagram = [0; 4096];
    let len = socket.recv(&mut datagram).unwrap();
    String::from_utf8(datagram[..len].to_vec()).unwrap()
}

fn logger(output: Output) -> Logger {
    Logger::root(ProcessDrain(Mutex::new(output)), slog::o!())
}

#[test]
fn journald_gets_priority_ident_and_code_position() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let socket = receiver(&path);
    let log = logger(Output::journal("sluice", Target::Unix(path)));
    slog::warn!(log, "no resolver"; "server" => "edge", "tries" => 3);
    let line = line!() - 1;
    assert_eq!(
        receive(&socket),
        format!(
            "PRIORITY=4\nSYSLOG_IDENTIFIER=sluice\nCODE_POSITION={}:{line}\nTRIES=3\nSERVER=edge\nMESSAGE=no resolver\n",
            file!()
        )
    );
    slog::log!(log, Level::Info, NOTICE, "ready");
    assert!(receive(&socket).starts_with("PRIORITY=5\n"));
}

#[test]
fn syslog_gets_facility_daemon_and_the_level() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let socket = receiver(&path);
    let log = logger(Output::syslog("sluice", Target::Unix(path)));
    slog::error!(log, "bind failed"; "port" => 80);
    let text = receive(&socket);
    assert!(text.starts_with("<27>"), "{text}");
    let pid = std::process::id();
    assert!(
        text.ends_with(&format!(" sluice[{pid}]: bind failed, port=80")),
        "{text}"
    );
}

#[test]
fn a_line_for_people_has_position_message_and_fields() {
    let mut human = Human::new(false);
    let mut line = Vec::new();
    let event = Event {
        at: Timestamp::now(),
        severity: Severity::Warning,
        level: "WARN",
        log_type: None,
        position: Some(("src/x.rs", 7)),
        message: &"no\nresolver",
        fields: &|out| out.emit_str("server".into(), "edge"),
    };
    human.process(&event, &mut line).unwrap();
    let line = String::from_utf8(line).unwrap();
    let (_, rest) = line.split_at("Nov 22 10:00:00.123".len());
    assert_eq!(rest, " WARN [src/x.rs:7] no\\nresolver, server: edge\n");
}

/// The only test that starts the real one: a process has one.
#[test]
fn macros_check_the_level_first_and_libraries_are_heard_at_debug() {
    assert!(!enabled(Level::Error), "nothing is written before init");
    crate::error!("to nobody"; "built" => { panic!("built"); #[expect(unreachable_code, reason = "it must not be reached")] 1 });
    crate::notice!("to nobody");

    let guard = init(&ProcessLog {
        verbosity: 2,
        sink: Sink::Stderr,
        ident: "sluice".to_owned(),
    });
    assert!(enabled(Level::Debug));
    assert!(!enabled(Level::Trace));
    crate::trace!("not written {}", {
        panic!("built");
        #[expect(unreachable_code, reason = "it must not be reached")]
        1
    });
    crate::debug!("written {}", 1; "first" => "value", "second" => 2);
    assert_eq!(log::max_level(), log::LevelFilter::Debug);
    log::debug!(target: "hickory", "a library speaks");

    let second = init(&ProcessLog {
        verbosity: 0,
        sink: Sink::Stderr,
        ident: "other".to_owned(),
    });
    drop(second);
    assert!(enabled(Level::Debug), "the first one goes on");
    drop(guard);
    assert!(!enabled(Level::Error));
}
