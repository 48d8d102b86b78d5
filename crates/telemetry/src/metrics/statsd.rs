//! Sends the numbers to StatsD: one thread, cadence for the lines, an own sink for the datagrams.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::panic::RefUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cadence::{Counted as _, Gauged as _, Metric, MetricBuilder, MetricSink, StatsdClient};

use super::collector::{Collector, Emit, Gauge, Line, Rule, sanitised};
use super::config::StatConfig;
use super::registry::{Reader, Source};
use crate::transport::{Datagrams, Target};

type Map<V> = HashMap<u64, V, foldhash::quality::RandomState>;

/// The emitting thread.
pub(super) struct Emitter {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    asked: Mutex<Option<Last>>,
    changed: Condvar,
}

/// How to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// With the last values.
    Emission,
    /// As it is.
    Nothing,
}

impl Emitter {
    pub(super) fn start(
        config: &StatConfig,
        target: Target,
        prefix: &str,
        group: &str,
        reader: Reader,
    ) -> io::Result<Self> {
        let sink = SegmentSink::new(config, target);
        let mut emission = Emission::new(reader, sink, prefix, group);
        let interval = config.emit_interval.max(Duration::from_millis(1));
        let stop = Arc::new(Stop::default());
        let asked = Arc::clone(&stop);
        let thread = thread::Builder::new().name("stat-main".to_owned()).spawn(move || {
            let mut next = Instant::now() + interval;
            loop {
                match asked.wait_until(next) {
                    Some(Last::Nothing) => return,
                    Some(Last::Emission) => return emission.emit(),
                    None => emission.emit(),
                }
                // A late period is not made up for.
                next = (next + interval).max(Instant::now());
            }
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Emits once more and ends.
    pub(super) fn stop(mut self) {
        self.end(Last::Emission);
    }

    fn end(&mut self, last: Last) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        *self.stop.asked() = Some(last);
        self.stop.changed.notify_all();
        // Only a panic in a source fails it, and that was told by the panic hook.
        let _ = thread.join();
    }
}

impl Drop for Emitter {
    fn drop(&mut self) {
        self.end(Last::Nothing);
    }
}

impl fmt::Debug for Emitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Emitter")
    }
}

impl Stop {
    fn asked(&self) -> std::sync::MutexGuard<'_, Option<Last>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until(&self, at: Instant) -> Option<Last> {
        let patience = at.saturating_duration_since(Instant::now());
        let (asked, _) = self
            .changed
            .wait_timeout_while(self.asked(), patience, |asked| asked.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        *asked
    }
}

/// Makes lines of the numbers.
struct Emission {
    reader: Reader,
    lines: Lines,
    /// By source, what was told last.
    told: Map<Told>,
}

/// What was told last of one source, by [`Line::id`].
#[derive(Default)]
struct Told {
    counters: Map<u64>,
    gauges: HashSet<u64, foldhash::quality::RandomState>,
}

struct Lines {
    client: StatsdClient,
    group: String,
}

impl Emission {
    fn new(reader: Reader, sink: SegmentSink, prefix: &str, group: &str) -> Self {
        let client = StatsdClient::builder(&sanitised(prefix), sink)
            // The sink reports what it cannot send.
            .with_error_handler(|_| {})
            .build();
        Self {
            reader,
            lines: Lines {
                client,
                group: sanitised(group),
            },
            told: Map::default(),
        }
    }

    fn emit(&mut self) {
        let (live, departed) = self.reader.sources();
        for (id, source) in live {
            let told = self.told.entry(id).or_default();
            self.lines.tell(&*source, told);
        }
        for (id, source) in departed {
            let mut told = self.told.remove(&id).unwrap_or_default();
            self.lines.tell(&*source, &mut told);
        }
        // The sink reports its errors itself.
        let _ = self.lines.client.flush();
    }
}

impl Lines {
    fn tell(&self, source: &dyn Source, told: &mut Told) {
        let mut writer = Writer { lines: self, told };
        source.collect(&mut Collector::new(&mut writer, true));
    }

    fn tag<'m, 'c, T>(&'m self, metric: MetricBuilder<'m, 'c, T>, line: &'m Line<'_>) -> MetricBuilder<'m, 'c, T>
    where
        T: Metric + From<String>,
    {
        let metric = metric.with_tag("daemon_group", &self.group);
        line.tags
            .iter()
            .fold(metric, |metric, (key, value)| metric.with_tag(key, value))
    }
}

/// Writes the lines of one source.
struct Writer<'a> {
    lines: &'a Lines,
    told: &'a mut Told,
}

impl Emit for Writer<'_> {
    fn counter(&mut self, line: &Line<'_>, _: Rule, value: u64) {
        let last = self.told.counters.entry(line.id).or_default();
        let more = value.saturating_sub(*last);
        *last = value;
        self.lines
            .tag(self.lines.client.count_with_tags(line.name, more), line)
            .send();
    }

    fn gauge(&mut self, line: &Line<'_>, rule: Rule, value: Gauge) {
        if rule == Rule::NonZero {
            if value.is_zero() && !self.told.gauges.contains(&line.id) {
                return;
            }
            self.told.gauges.insert(line.id);
        }
        let client = &self.lines.client;
        let metric = match value {
            Gauge::Float(value) => client.gauge_with_tags(line.name, value),
            // Cadence has no signed gauge; an f64 without fraction is written as an integer.
            Gauge::Int(value) => client.gauge_with_tags(line.name, value as f64),
            Gauge::Uint(value) => client.gauge_with_tags(line.name, value),
        };
        self.lines.tag(metric, line).send();
    }
}

/// Gathers lines up to `cache_size`, then sends them in datagrams of at most `max_segment_size`.
struct SegmentSink {
    cache_size: usize,
    max_segment_size: usize,
    state: Mutex<State>,
}

struct State {
    lines: Vec<u8>,
    socket: Datagrams,
    reported: Option<Instant>,
}

// The socket is only used under the lock and made anew after an error.
impl RefUnwindSafe for State {}

impl SegmentSink {
    fn new(config: &StatConfig, target: Target) -> Self {
        Self {
            cache_size: config.cache_size.max(1),
            max_segment_size: config.max_segment_size_for(&target),
            state: Mutex::new(State {
                lines: Vec::new(),
                socket: Datagrams::impatient(target),
                reported: None,
            }),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetricSink for SegmentSink {
    fn emit(&self, line: &str) -> io::Result<usize> {
        let mut state = self.state();
        if !state.lines.is_empty() && state.lines.len() + line.len() + 1 > self.cache_size {
            state.send(self.max_segment_size);
        }
        state.lines.extend_from_slice(line.as_bytes());
        state.lines.push(b'\n');
        Ok(line.len())
    }

    fn flush(&self) -> io::Result<()> {
        self.state().send(self.max_segment_size);
        Ok(())
    }
}

impl State {
    /// Sends everything; after an error the rest of the batch is dropped.
    fn send(&mut self, max_segment_size: usize) {
        let lines = std::mem::take(&mut self.lines);
        for segment in segments(&lines, max_segment_size) {
            if let Err(error) = self.socket.send(segment) {
                self.report(&error);
                break;
            }
        }
        self.lines = lines;
        self.lines.clear();
    }

    /// Says so in the process log, at most once a second.
    fn report(&mut self, error: &io::Error) {
        let now = Instant::now();
        let recently = |at: Instant| now.duration_since(at) < Duration::from_secs(1);
        if !self.reported.is_some_and(recently) {
            self.reported = Some(now);
            warn!("sending metrics failed"; "reason" => %error);
        }
    }
}

/// Cuts whole lines into pieces of at most `max` bytes; a longer line is a piece of its own.
fn segments(lines: &[u8], max: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        let mut end = 0;
        for line in rest.split_inclusive(|byte| *byte == b'\n') {
            if end > 0 && end + line.len() > max {
                break;
            }
            end += line.len();
        }
        let (segment, tail) = rest.split_at(end);
        rest = tail;
        (!segment.is_empty()).then_some(segment)
    })
}

#[cfg(test)]
mod tests;
