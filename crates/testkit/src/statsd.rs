//! A receiver for StatsD.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Takes StatsD packets on a loopback UDP port.
#[derive(Debug)]
pub struct Statsd {
    addr: SocketAddr,
    taken: Arc<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    lines: Mutex<Lines>,
    marked: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    all: Vec<StatsdLine>,
    /// Markers of [`Statsd::lines`] that have come.
    marks: usize,
}

/// One metric of a packet.
#[derive(Clone, Debug, PartialEq)]
pub struct StatsdLine {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// `c`, `g` or `ms`.
    pub kind: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl StatsdLine {
    /// Reads `name:value|kind|#tag:value,…`.
    fn parse(line: &str) -> Option<Self> {
        let (name, rest) = line.split_once(':')?;
        let mut parts = rest.split('|');
        let value = parts.next()?.parse().ok()?;
        let kind = parts.next()?.to_owned();
        let tags = parts.find_map(|part| part.strip_prefix('#')).unwrap_or_default();
        let tags = tags.split(',').filter(|tag| !tag.is_empty()).map(|tag| {
            let (key, value) = tag.split_once(':').unwrap_or((tag, ""));
            (key.to_owned(), value.to_owned())
        });
        Some(Self {
            name: name.to_owned(),
            value,
            kind,
            tags: tags.collect(),
        })
    }

    fn has(&self, name: &str, tags: &[(&str, &str)]) -> bool {
        self.name == name
            && tags
                .iter()
                .all(|(key, value)| self.tags.get(*key).is_some_and(|found| found == value))
    }
}

impl Statsd {
    /// Starts to listen.
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let taken = Arc::new(Taken::default());
        let takes = Arc::clone(&taken);
        thread::spawn(move || {
            let mut packet = vec![0; 64 * 1024];
            while let Ok((length, _)) = socket.recv_from(&mut packet) {
                let text = String::from_utf8_lossy(packet.get(..length).unwrap_or_default()).into_owned();
                let mut lines = takes.lines.lock().unwrap_or_else(PoisonError::into_inner);
                match text.as_str() {
                    STOP => return,
                    MARK => {
                        lines.marks += 1;
                        takes.marked.notify_all();
                    }
                    text => lines.all.extend(text.lines().filter_map(StatsdLine::parse)),
                }
            }
        });
        Self { addr, taken }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A `stat` section that sends here ten times a second.
    pub fn section(&self) -> String {
        format!("stat: {{target: {{udp: \"{}\"}}, emit_interval: 100ms}}\n", self.addr)
    }

    /// All that was sent before, also what still lay in the socket.
    pub fn lines(&self) -> Vec<StatsdLine> {
        let mut lines = self.taken.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lines.marks;
        for _ in 0..60 {
            // What comes to a socket over loopback is read in the order in which it was sent. A marker for which there
            // is no room is lost, as anything else would be.
            send(self.addr, MARK);
            let waited = self
                .taken
                .marked
                .wait_timeout_while(lines, Duration::from_secs(1), |lines| lines.marks == before);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
            if lines.marks > before {
                return lines.all.clone();
            }
        }
        panic!("the receiver of metrics does not receive");
    }

    /// The sum of a counter over all lines with these tags.
    pub fn total(&self, name: &str, tags: &[(&str, &str)]) -> f64 {
        self.lines()
            .iter()
            .filter(|line| line.has(name, tags))
            .map(|line| line.value)
            .sum()
    }

    /// The last value of a gauge with these tags.
    pub fn last(&self, name: &str, tags: &[(&str, &str)]) -> Option<f64> {
        self.lines()
            .iter()
            .rev()
            .find(|line| line.has(name, tags))
            .map(|line| line.value)
    }
}

/// Ends the thread.
const STOP: &str = "stop";

/// Tells that all before has been taken.
const MARK: &str = "mark";

fn send(to: SocketAddr, text: &str) {
    if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
        let _ = socket.send_to(text.as_bytes(), to);
    }
}

impl Drop for Statsd {
    fn drop(&mut self) {
        send(self.addr, STOP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = StatsdLine::parse("sluice.server.task.total:3|c|#daemon_group:x,server:lt,empty").unwrap();
        assert_eq!(
            (line.name.as_str(), line.value, line.kind.as_str()),
            ("sluice.server.task.total", 3.0, "c")
        );
        assert!(line.has("sluice.server.task.total", &[("server", "lt"), ("daemon_group", "x")]));
        assert!(!line.has("sluice.server.task.total", &[("server", "other")]));
        assert_eq!(StatsdLine::parse("nonsense"), None);
    }

    #[test]
    fn what_was_sent_has_come() {
        let statsd = Statsd::start();
        for n in 1..=200 {
            send(statsd.addr(), &format!("a:1|c\nb:{n}|g"));
            assert_eq!(
                (statsd.total("a", &[]), statsd.last("b", &[])),
                (f64::from(n), Some(f64::from(n)))
            );
        }
    }
}
