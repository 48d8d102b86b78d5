//! Takes records of the `log` crate, and of `tracing` by way of it, into the process log.

use slog::{Level, Record, RecordLocation, RecordStatic};

/// Takes them from debug level on; below, libraries do not even ask.
pub(super) fn install(level: Level) {
    let filter = match level {
        Level::Debug => log::LevelFilter::Debug,
        Level::Trace => log::LevelFilter::Trace,
        _ => return,
    };
    if log::set_logger(&Bridge).is_ok() {
        log::set_max_level(filter);
    }
}

struct Bridge;

fn level_of(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warning,
        log::Level::Info => Level::Info,
        log::Level::Debug => Level::Debug,
        log::Level::Trace => Level::Trace,
    }
}

impl log::Log for Bridge {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        super::enabled(level_of(metadata.level()))
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let location = RecordLocation {
            file: record.file_static().unwrap_or("unknown"),
            line: record.line().unwrap_or(0),
            column: 0,
            function: "",
            module: record.module_path_static().unwrap_or(""),
        };
        let fixed = RecordStatic {
            location: &location,
            tag: "",
            level: level_of(record.level()),
        };
        let values = slog::b!("library" => record.target());
        super::root().log(&Record::new(&fixed, record.args(), values));
    }

    fn flush(&self) {}
}
