//! Event logs against receivers made in the test.

mod fluentd;
mod journal;
mod queue;
mod stdout;
mod syslog;

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::Naming;
use crate::keys::{self, Dur, Fields, Uuid};
use crate::metrics::Registry;

/// Longest wait for what must come.
const SOON: Duration = Duration::from_secs(20);

/// A record with a field of each sort.
struct Task {
    user: String,
    message: String,
    wait: Duration,
}

impl Task {
    fn of(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            message: "done".to_owned(),
            wait: Duration::ZERO,
        }
    }

    fn saying(message: &str) -> Self {
        Self {
            message: message.to_owned(),
            ..Self::of("joe")
        }
    }
}

impl slog::KV for Task {
    fn serialize(&self, record: &slog::Record<'_>, out: &mut dyn slog::Serializer) -> slog::Result {
        let peer: Option<SocketAddr> = None;
        Fields::new(record, out)
            .put(keys::TASK_ID, &Uuid::from_u128(0xabc))?
            .put(keys::USER, self.user.as_str())?
            .put(keys::NEXT_PEER_ADDR, &peer)?
            .put(keys::CLIENT_ADDR, &SocketAddr::from(([127, 0, 0, 1], 9)))?
            .put(keys::WAIT_TIME, &Dur(self.wait))?
            .put(keys::TOTAL_TIME, &Dur(Duration::from_micros(1234)))?
            .put(keys::C_RD_BYTES, &0_u64)?
            .put(keys::DEPTH, &-1_i32)?
            .put(keys::REUSE_CONNECTION, &true)?
            .show(keys::METHOD, "GET")?
            .done()
    }
}

impl Record for Task {
    fn kind(&self) -> LogType {
        LogType::Task
    }
    fn message(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn identity() -> Identity {
    Identity {
        daemon_group: "g1".to_owned(),
        product: Naming::Sluice,
        pid: 42,
    }
}

fn start(driver: DriverConfig) -> EventLogs {
    start_with(LoggerConfig::from(driver))
}

fn start_with(config: LoggerConfig) -> EventLogs {
    let config = LogConfig {
        default: config,
        ..LogConfig::default()
    };
    EventLogs::start(&config, &identity(), &Registry::new()).unwrap()
}

/// Total, passed, bytes, and drops: closed, overflow, format, unreachable.
fn numbers(logger: &EventLogger) -> (u64, u64, u64, [u64; 4]) {
    logger.open.as_ref().unwrap().channel.stats.numbers()
}

fn receiver(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn receive(socket: &UnixDatagram) -> Vec<u8> {
    let mut datagram = vec![0; 256 * 1024];
    let len = socket.recv(&mut datagram).unwrap();
    datagram.truncate(len);
    datagram
}

fn receive_text(socket: &UnixDatagram) -> String {
    String::from_utf8(receive(socket)).unwrap()
}
