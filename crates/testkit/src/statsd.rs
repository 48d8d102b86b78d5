//! A receiver for StatsD.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Takes StatsD packets on a loopback UDP port.
#[derive(Debug)]
pub struct Statsd {
    addr: SocketAddr,
    lines: Arc<Mutex<Vec<StatsdLine>>>,
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
        let lines = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&lines);
        thread::spawn(move || {
            let mut packet = vec![0; 64 * 1024];
            while let Ok((length, _)) = socket.recv_from(&mut packet) {
                let text = String::from_utf8_lossy(packet.get(..length).unwrap_or_default()).into_owned();
                if text == STOP {
                    return;
                }
                let parsed = text.lines().filter_map(StatsdLine::parse);
                taken.lock().unwrap_or_else(PoisonError::into_inner).extend(parsed);
            }
        });
        Self { addr, lines }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A `stat` section that sends here ten times a second.
    pub fn section(&self) -> String {
        format!("stat: {{target: {{udp: \"{}\"}}, emit_interval: 100ms}}\n", self.addr)
    }

    /// All that has come.
    pub fn lines(&self) -> Vec<StatsdLine> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

impl Drop for Statsd {
    fn drop(&mut self) {
        if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
            let _ = socket.send_to(STOP.as_bytes(), self.addr);
        }
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
}
