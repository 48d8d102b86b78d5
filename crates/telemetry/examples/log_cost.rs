//! Prints what one call of `EventLogger::log` costs the thread that makes it, with a record of a task's size.
//!
//! Run with `cargo run --release -p sluice-telemetry --example log_cost`. Records go to a journal socket that a thread
//! of the example reads, in bursts that fit into the queue, so that nothing is dropped and the writer's work is apart.

use std::fmt;
use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sluice_telemetry::event::DatagramTarget;
use sluice_telemetry::event::{DriverConfig, LoggerConfig, SyslogConfig};
use sluice_telemetry::keys::{self, Dur, Fields, Timestamp, Uuid};
use sluice_telemetry::metrics::Registry;
use sluice_telemetry::{EventLogger, EventLogs, Identity, LogConfig, LogKind, LogType, Naming, Record};

/// About what a CONNECT task says.
struct Task {
    id: Uuid,
    server: &'static str,
    start: Timestamp,
    client: SocketAddr,
    upstream: Box<str>,
    peer: SocketAddr,
    bytes: [u64; 4],
    spent: Duration,
}

impl slog::KV for Task {
    fn serialize(&self, record: &slog::Record<'_>, out: &mut dyn slog::Serializer) -> slog::Result {
        Fields::new(record, out)
            .put(keys::SERVER_NAME, self.server)?
            .put(keys::TASK_ID, &self.id)?
            .put(keys::START_AT, &self.start)?
            .put(keys::CLIENT_ADDR, &self.client)?
            .put(keys::UPSTREAM, &*self.upstream)?
            .put(keys::NEXT_PEER_ADDR, &self.peer)?
            .put(keys::C_RD_BYTES, &self.bytes[0])?
            .put(keys::C_WR_BYTES, &self.bytes[1])?
            .put(keys::R_RD_BYTES, &self.bytes[2])?
            .put(keys::R_WR_BYTES, &self.bytes[3])?
            .put(keys::TOTAL_TIME, &Dur(self.spent))?
            .done()
    }
}

impl Record for Task {
    fn kind(&self) -> LogType {
        LogType::Task
    }
    fn message(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("finished")
    }
}

fn task() -> Task {
    Task {
        id: Uuid::new(),
        server: "edge",
        start: Timestamp::coarse(),
        client: SocketAddr::from(([127, 0, 0, 1], 50_000)),
        upstream: "www.example.net:443".into(),
        peer: SocketAddr::from(([127, 0, 0, 2], 443)),
        bytes: [1, 2, 3, 4],
        spent: Duration::from_millis(12),
    }
}

const BURST: usize = 1000;
const ROUNDS: usize = 200;

/// Nanoseconds for each of `BURST` calls, the median of all rounds; between rounds the queue is empty.
fn measure(drained: impl Fn(u64), mut call: impl FnMut()) -> u128 {
    let mut rounds: Vec<u128> = (1..=ROUNDS)
        .map(|round| {
            let from = Instant::now();
            for _ in 0..BURST {
                call();
            }
            let spent = from.elapsed().as_nanos() / BURST as u128;
            drained((round * BURST) as u64);
            spent
        })
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A receiver that takes everything: nothing has to read a UDP socket for the writer to go on.
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let config = LogConfig {
        task: Some(LoggerConfig {
            channel_size: 4096,
            ..DriverConfig::Syslog(SyslogConfig {
                target: Some(DatagramTarget::Udp {
                    peer: receiver.local_addr()?.into(),
                    bind_ip: None,
                }),
                ..SyslogConfig::default()
            })
            .into()
        }),
        ..LogConfig::default()
    };
    let identity = Identity::of_process("example", Naming::Sluice);
    let logs = EventLogs::start(&config, &identity, &Registry::new())?;
    let logger = logs.logger(LogKind::Task, "lt-edge");
    let drained = |_| {
        while logger.queued() > 0 {
            std::thread::yield_now();
        }
    };
    let build = measure(|_| (), || drop(black_box(task())));
    let log = measure(drained, || logger.log(task()));
    let discard = EventLogger::discard();
    let nothing = measure(|_| (), || discard.log_with(task));
    let mut out = io::stdout().lock();
    io::Write::write_fmt(
        &mut out,
        format_args!(
            "build a record: {build} ns\nbuild and log it: {log} ns (so log: {} ns)\nlog_with to discard: {nothing} ns\n",
            log.saturating_sub(build)
        ),
    )?;
    if !logs.shutdown(Duration::from_secs(5)) {
        return Err("records were left".into());
    }
    Ok(())
}
