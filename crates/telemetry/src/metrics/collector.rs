//! What a source tells its numbers to.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::LazyLock;

/// When a number is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Every time, 0 too.
    Always,
    /// From the first non-zero value on.
    NonZero,
    /// Once `lead`, the leading counter of a set, is not 0; then the whole set every time.
    Set {
        /// Present value of the leading counter.
        lead: u64,
    },
}

/// Value of a gauge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gauge {
    /// A real number.
    Float(f64),
    /// An integer that may be negative.
    Int(i64),
    /// An integer that is not.
    Uint(u64),
}

impl Gauge {
    pub(super) fn is_zero(self) -> bool {
        match self {
            Self::Float(value) => value == 0.0,
            Self::Int(value) => value == 0,
            Self::Uint(value) => value == 0,
        }
    }
}

impl From<f64> for Gauge {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}
impl From<i32> for Gauge {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}
impl From<i64> for Gauge {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
impl From<u64> for Gauge {
    fn from(value: u64) -> Self {
        Self::Uint(value)
    }
}
impl From<usize> for Gauge {
    fn from(value: usize) -> Self {
        Self::Uint(value as u64)
    }
}

/// Takes what a [`Collector`] was told, tags complete.
pub(crate) trait Emit {
    fn counter(&mut self, line: &Line<'_>, rule: Rule, value: u64);
    fn gauge(&mut self, line: &Line<'_>, rule: Rule, value: Gauge);
}

/// One number's name and place.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    /// All tags but `daemon_group`.
    pub(crate) tags: &'a [(&'a str, &'a str)],
    /// The same for the same number of the same object, also when its static tags or `online` have changed.
    pub(crate) id: u64,
}

/// The tag that changes in the life of an object.
const ONLINE: &str = "online";

static HASHER: LazyLock<foldhash::quality::RandomState> = LazyLock::new(Default::default);

/// Takes the numbers of one source.
pub struct Collector<'a> {
    out: &'a mut dyn Emit,
    sanitise: bool,
    /// Hash of what the current object is known by.
    object: u64,
    /// Text of the current object's tags.
    text: String,
    tags: Vec<(Range<usize>, Range<usize>)>,
}

impl<'a> Collector<'a> {
    /// `sanitise`: replaces what has a meaning of its own on the wire.
    pub(crate) fn new(out: &'a mut dyn Emit, sanitise: bool) -> Self {
        Self {
            out,
            sanitise,
            object: 0,
            text: String::new(),
            tags: Vec::new(),
        }
    }

    /// Begins an object with its common tags, in their documented order. `daemon_group` is not among them: it is
    /// added to everything.
    ///
    /// An object is known by these tags: under the same ones it is the same, whatever `online` says and whatever
    /// [`Object::tag`] adds, and its counters go on.
    pub fn object(&mut self, tags: &[(&str, &str)]) -> Object<'_, 'a> {
        let mut hasher = HASHER.build_hasher();
        for tag in tags.iter().filter(|(key, _)| *key != ONLINE) {
            tag.hash(&mut hasher);
        }
        self.object = hasher.finish();
        self.text.clear();
        self.tags.clear();
        let mut object = Object { collector: self };
        for (key, value) in tags {
            object.push_tag(key, value);
        }
        object
    }

    fn push(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        if self.sanitise {
            self.text.extend(text.chars().map(allowed));
        } else {
            self.text.push_str(text);
        }
        start..self.text.len()
    }
}

impl std::fmt::Debug for Collector<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Collector")
    }
}

/// `c` if a metric value may hold it, else `_`.
fn allowed(c: char) -> char {
    if c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/') {
        c
    } else {
        '_'
    }
}

/// The object whose numbers are being told.
#[derive(Debug)]
pub struct Object<'c, 'a> {
    collector: &'c mut Collector<'a>,
}

impl Object<'_, '_> {
    /// Adds a static tag after the common ones: `extra_metrics_tags`.
    #[must_use]
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.push_tag(key, value);
        self
    }

    /// Adds static tags after the common ones.
    #[must_use]
    pub fn tags<K: AsRef<str>, V: AsRef<str>>(mut self, tags: impl IntoIterator<Item = (K, V)>) -> Self {
        for (key, value) in tags {
            self.push_tag(key.as_ref(), value.as_ref());
        }
        self
    }

    /// Tells a counter's value since the object was made; `tags` are those of this line alone.
    pub fn counter(&mut self, name: &str, rule: Rule, tags: &[(&str, &str)], value: u64) {
        let shown = match rule {
            Rule::Always => true,
            Rule::NonZero => value != 0,
            Rule::Set { lead } => lead != 0,
        };
        if shown {
            self.emit(name, tags, |out, line| out.counter(line, rule, value));
        }
    }

    /// Tells a gauge's value; `tags` are those of this line alone.
    pub fn gauge(&mut self, name: &str, rule: Rule, tags: &[(&str, &str)], value: impl Into<Gauge>) {
        if rule != (Rule::Set { lead: 0 }) {
            let value = value.into();
            self.emit(name, tags, |out, line| out.gauge(line, rule, value));
        }
    }

    fn push_tag(&mut self, key: &str, value: &str) {
        let key = self.collector.push(key);
        let value = self.collector.push(value);
        self.collector.tags.push((key, value));
    }

    fn emit(&mut self, name: &str, own: &[(&str, &str)], emit: impl FnOnce(&mut dyn Emit, &Line<'_>)) {
        let id = HASHER.hash_one((self.collector.object, name, own));
        let common_text = self.collector.text.len();
        let common = self.collector.tags.len();
        for (key, value) in own {
            self.push_tag(key, value);
        }
        let Collector { out, text, tags, .. } = &mut *self.collector;
        let slice = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
        let all: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (slice(key), slice(value))).collect();
        emit(&mut **out, &Line { name, tags: &all, id });
        text.truncate(common_text);
        tags.truncate(common);
    }
}

/// `text` with what a metric value may not hold replaced by `_`.
pub(super) fn sanitised(text: &str) -> String {
    text.chars().map(allowed).collect()
}

/// `name` with `prefix`, as one OpenMetrics name: what it may not hold becomes `_`.
pub(super) fn openmetrics_name(prefix: &str, name: &str) -> String {
    let mut joined = String::with_capacity(prefix.len() + 1 + name.len());
    // Writing to a string cannot fail.
    let _ = match prefix {
        "" => write!(joined, "{name}"),
        prefix => write!(joined, "{prefix}.{name}"),
    };
    let mut clean: String = joined
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if clean.starts_with(|c: char| c.is_ascii_digit()) {
        clean.insert(0, '_');
    }
    clean
}
