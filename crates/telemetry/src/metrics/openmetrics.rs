//! The numbers for scrapers: OpenMetrics 1.0 text over a small HTTP/1.1 responder on a thread of its own.

mod endpoint;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

pub(super) use endpoint::Endpoint;

use super::collector::{Collector, Emit, Gauge, Line, Rule, openmetrics_name};
use super::help::help;
use super::registry::Reader;

/// The media type of the page.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Renders pages.
pub(super) struct Page {
    reader: Reader,
    prefix: Arc<str>,
    group: Arc<str>,
    /// Gauges told under [`Rule::NonZero`].
    told: HashSet<u64>,
}

impl Page {
    pub(super) fn new(reader: Reader, prefix: &Arc<str>, group: &Arc<str>) -> Self {
        Self {
            reader,
            prefix: Arc::clone(prefix),
            group: Arc::clone(group),
            told: HashSet::new(),
        }
    }

    /// All numbers of this moment.
    fn render(&mut self) -> String {
        let mut families = Families {
            prefix: &self.prefix,
            group: &self.group,
            told: &mut self.told,
            all: BTreeMap::new(),
        };
        let (live, departed) = self.reader.sources();
        for (_, source) in live.into_iter().chain(departed) {
            source.collect(&mut Collector::new(&mut families, false));
        }
        let mut out = String::new();
        for (name, family) in &families.all {
            family.render(name, &mut out);
        }
        out.push_str("# EOF\n");
        out
    }
}

/// Samples of one name.
struct Family {
    counter: bool,
    unit: Option<&'static str>,
    help: Option<&'static str>,
    /// By their labels as written.
    samples: BTreeMap<String, Gauge>,
}

struct Families<'a> {
    prefix: &'a str,
    group: &'a str,
    told: &'a mut HashSet<u64>,
    all: BTreeMap<String, Family>,
}

impl Families<'_> {
    /// The family of a metric; `None` if another kind has the name.
    fn family(&mut self, name: &str, counter: bool) -> Option<&mut Family> {
        let mut joined = openmetrics_name(self.prefix, name);
        // The samples of a counter end in `_total`, the family's own name does not.
        if counter && joined.ends_with("_total") {
            joined.truncate(joined.len() - "_total".len());
        }
        let family = self.all.entry(joined).or_insert_with_key(|joined| Family {
            counter,
            unit: joined.ends_with("_bytes").then_some("bytes"),
            help: help(name),
            samples: BTreeMap::new(),
        });
        (family.counter == counter).then_some(family)
    }

    /// `{daemon_group="g",server="s"}`; of two tags with one name the first counts, empty ones are left out.
    fn labels(&self, tags: &[(&str, &str)]) -> String {
        let mut labels = String::new();
        let mut seen: Vec<String> = Vec::with_capacity(tags.len() + 1);
        for (key, value) in std::iter::once(&("daemon_group", self.group)).chain(tags) {
            let key = openmetrics_name("", key);
            if value.is_empty() || seen.contains(&key) {
                continue;
            }
            labels.push(if seen.is_empty() { '{' } else { ',' });
            labels.push_str(&key);
            labels.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => labels.push_str("\\\\"),
                    '"' => labels.push_str("\\\""),
                    '\n' => labels.push_str("\\n"),
                    c => labels.push(c),
                }
            }
            labels.push('"');
            seen.push(key);
        }
        if !seen.is_empty() {
            labels.push('}');
        }
        labels
    }
}

impl Emit for Families<'_> {
    fn counter(&mut self, line: &Line<'_>, _: Rule, value: u64) {
        let labels = self.labels(line.tags);
        let Some(family) = self.family(line.name, true) else {
            return;
        };
        // Two objects with the same tags are one series, as they are for a StatsD server.
        match family.samples.entry(labels) {
            Entry::Vacant(new) => {
                new.insert(Gauge::Uint(value));
            }
            Entry::Occupied(mut known) => {
                if let Gauge::Uint(sum) = known.get_mut() {
                    *sum = sum.saturating_add(value);
                }
            }
        }
    }

    fn gauge(&mut self, line: &Line<'_>, rule: Rule, value: Gauge) {
        let labels = self.labels(line.tags);
        if rule == Rule::NonZero {
            if value.is_zero() && !self.told.contains(&line.id) {
                return;
            }
            self.told.insert(line.id);
        }
        if let Some(family) = self.family(line.name, false) {
            family.samples.insert(labels, value);
        }
    }
}

impl Family {
    fn render(&self, name: &str, out: &mut String) {
        let kind = if self.counter { "counter" } else { "gauge" };
        let suffix = if self.counter { "_total" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# TYPE {name} {kind}");
        if let Some(unit) = self.unit {
            let _ = writeln!(out, "# UNIT {name} {unit}");
        }
        if let Some(help) = self.help {
            let _ = writeln!(out, "# HELP {name} {help}");
        }
        for (labels, value) in &self.samples {
            let _ = match value {
                Gauge::Float(value) if value.is_infinite() => {
                    let sign = if *value > 0.0 { '+' } else { '-' };
                    writeln!(out, "{name}{suffix}{labels} {sign}Inf")
                }
                Gauge::Float(value) => writeln!(out, "{name}{suffix}{labels} {value}"),
                Gauge::Int(value) => writeln!(out, "{name}{suffix}{labels} {value}"),
                Gauge::Uint(value) => writeln!(out, "{name}{suffix}{labels} {value}"),
            };
        }
    }
}

#[cfg(test)]
mod tests;
