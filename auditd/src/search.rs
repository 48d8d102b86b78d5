//! Finding events in event logs.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::{self, BufRead, BufReader},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use sluice_telemetry::warn;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    intake::host_of,
    store::{Kind, Listed, list, open_reader},
};

/// Tasks whose users and hosts are remembered, at most.
const MAX_TASKS: usize = 200_000;

/// The longest line that is read.
const MAX_LINE: usize = 2 << 20;

/// What is looked for; what is not given fits everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) host: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) task: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) since: Option<SystemTime>,
    pub(crate) until: Option<SystemTime>,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The last lines that fit.
    pub(crate) lines: VecDeque<String>,
    /// How many fit before them.
    pub(crate) more: u64,
    /// Files that cannot be read to their end.
    pub(crate) damaged: Vec<String>,
}

/// The last `limit` lines that fit.
pub(crate) fn run(dir: &Path, filter: &Filter, limit: usize) -> io::Result<Found> {
    let mut found = Found::default();
    let mut tasks = Tasks::default();
    let files = match list(dir) {
        Ok(files) => files,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(), // nothing was ever written
        Err(e) => return Err(e),
    };
    let logs = files.iter().filter(|file| file.kind == Kind::Events);
    let (older, logs): (Vec<_>, Vec<_>) =
        logs.partition(|file| filter.since.is_some_and(|since| file.modified < since));
    if !older.is_empty() && (filter.user.is_some() || filter.host.is_some()) {
        tasks.learn_from(&older, &logs, filter, &mut found.damaged)?;
    }
    for file in logs {
        each_event(file, &mut found.damaged, |line, event| {
            tasks.learn(&event);
            if filter.fits(&event, &tasks) {
                found.lines.push_back(line);
            }
            if found.lines.len() > limit {
                found.lines.pop_front();
                found.more += 1;
            }
        })?;
    }
    Ok(found)
}

/// Gives the events of a file to `each`, with their lines; where it is damaged, those before, and its name to `damaged`.
fn each_event(file: &Listed, damaged: &mut Vec<String>, mut each: impl FnMut(String, Value)) -> io::Result<()> {
    let mut input = match open_reader(file) {
        Ok(input) => BufReader::with_capacity(1 << 16, input),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()), // deleted meanwhile
        Err(e) => return Err(e),
    };
    loop {
        let line = match next_line(&mut input) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(e) if is_damage(&e) => {
                warn!("an event log is damaged"; "file" => %file.path.display(), "error" => %e);
                let name = file.path.file_name().unwrap_or_default();
                damaged.push(name.to_string_lossy().into_owned());
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        // What is no event is the end of a file that is being written.
        if let Ok(event) = serde_json::from_str(&line) {
            each(line, event);
        }
    }
}

/// The next whole line, without its end; of one that is too long the rest, which is no event.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    loop {
        line.clear();
        io::Read::take(&mut *input, limit).read_until(b'\n', &mut line)?;
        match line.pop() {
            Some(b'\n') => return Ok(Some(String::from_utf8_lossy(&line).into_owned())),
            Some(_) if line.len() + 1 >= MAX_LINE => {}
            _ => return Ok(None),
        }
    }
}

/// Whether the bytes of a file are not what they should be, as of a compressed one that was cut.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

/// Whose tasks are, and where they go: not every event says it.
#[derive(Default)]
struct Tasks(HashMap<String, (Option<String>, Option<String>)>);

impl Tasks {
    fn learn(&mut self, event: &Value) {
        let Some(task) = event["task_id"].as_str() else { return };
        let user = event["user"].as_str();
        let host = host(event);
        if (user.is_none() && host.is_none()) || (self.0.len() >= MAX_TASKS && !self.0.contains_key(task)) {
            return;
        }
        let known = self.0.entry(task.to_owned()).or_default();
        if let Some(user) = user {
            known.0 = Some(user.to_owned());
        }
        if let Some(host) = host {
            known.1 = Some(host.to_owned());
        }
    }

    /// Learns from files that are too old to be searched what `logs` do not say of their tasks, the newest first.
    fn learn_from(
        &mut self,
        older: &[&Listed],
        logs: &[&Listed],
        filter: &Filter,
        damaged: &mut Vec<String>,
    ) -> io::Result<()> {
        let mut said = Self::default();
        let mut unsaid = HashSet::new();
        for file in logs {
            // They are read once more, which is when damage is told.
            each_event(file, &mut Vec::new(), |_, event| {
                said.learn(&event);
                if let Some(task) = event["task_id"].as_str()
                    && filter.is_in_time(&event)
                    && said.lacks(task, filter)
                    && unsaid.len() < MAX_TASKS
                {
                    unsaid.insert(task.to_owned());
                }
            })?;
        }
        for file in older.iter().rev() {
            if unsaid.is_empty() {
                break;
            }
            each_event(file, damaged, |_, event| {
                if event["task_id"].as_str().is_some_and(|task| unsaid.contains(task)) {
                    self.learn(&event);
                }
            })?;
            unsaid.retain(|task| self.lacks(task, filter));
        }
        Ok(())
    }

    /// Whether something of a task is asked for that is not known.
    fn lacks(&self, task: &str, filter: &Filter) -> bool {
        let known = self.0.get(task);
        let has_user = known.is_some_and(|(user, _)| user.is_some());
        let has_host = known.is_some_and(|(_, host)| host.is_some());
        (filter.user.is_some() && !has_user) || (filter.host.is_some() && !has_host)
    }

    fn of(&self, event: &Value) -> (Option<&str>, Option<&str>) {
        let known = event["task_id"].as_str().and_then(|task| self.0.get(task));
        known.map_or((None, None), |(user, host)| (user.as_deref(), host.as_deref()))
    }
}

fn host(event: &Value) -> Option<&str> {
    event["host"]
        .as_str()
        .map(host_of)
        .or_else(|| event["upstream"].as_str().map(host_of))
}

impl Filter {
    fn fits(&self, event: &Value, tasks: &Tasks) -> bool {
        let (task_user, task_host) = tasks.of(event);
        let is =
            |wanted: &Option<String>, got: Option<&str>| wanted.as_deref().is_none_or(|wanted| got == Some(wanted));
        let in_host = |wanted: &str| {
            let got = host(event).or(task_host).unwrap_or_default();
            let (got, wanted) = (got.to_ascii_lowercase(), wanted.to_ascii_lowercase());
            got == wanted || got.strip_suffix(&wanted).is_some_and(|rest| rest.ends_with('.'))
        };
        let of_kind = |wanted: &str| {
            let kind = event["log_type"].as_str();
            kind.is_some_and(|kind| kind.eq_ignore_ascii_case(wanted))
        };
        is(&self.task, event["task_id"].as_str())
            && self.kind.as_deref().is_none_or(of_kind)
            && is(&self.user, event["user"].as_str().or(task_user))
            && self.host.as_deref().is_none_or(in_host)
            && self.is_in_time(event)
    }

    fn is_in_time(&self, event: &Value) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let Some(at) = event["at"].as_str().and_then(rfc3339) else {
            return false;
        };
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at <= until)
    }
}

/// A time as people write it: RFC 3339, a day, or how long before `now`.
pub(crate) fn time_of(text: &str, now: SystemTime) -> Option<SystemTime> {
    if let Some(at) = rfc3339(text).or_else(|| rfc3339(&format!("{text}T00:00:00Z"))) {
        return Some(at);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    let ago = count.parse::<u64>().ok()?.checked_mul(each)?;
    now.checked_sub(Duration::from_secs(ago))
}

fn rfc3339(text: &str) -> Option<SystemTime> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let nanos = u64::try_from(at.unix_timestamp_nanos()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_how_long_ago() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (text, secs) in [
            ("90s", 999_910),
            ("15m", 999_100),
            ("1d", 913_600),
            ("1970-01-12T13:46:40Z", 1_000_000),
            ("1970-01-12", 950_400),
        ] {
            assert_eq!(
                time_of(text, now),
                Some(UNIX_EPOCH + Duration::from_secs(secs)),
                "{text}"
            );
        }
        for text in ["", "5", "h", "yesterday", "1w", "99999999999999999999s", "-5m"] {
            assert_eq!(time_of(text, now), None, "{text}");
        }
    }

    #[test]
    fn events_are_found_by_the_user_and_host_of_their_task() {
        let dir = tempfile::TempDir::new().unwrap();
        let lines = [
            r#"{"at":"2026-11-25T10:00:00Z","log_type":"Flow","task_id":"1","user":"alice","host":"www.example"}"#,
            r#"{"at":"2026-11-25T10:00:01Z","log_type":"Intercept","task_id":"1","uri":"/a"}"#,
            r#"{"at":"2026-11-25T10:00:02Z","log_type":"Intercept","task_id":"2","upstream":"other.example:443"}"#,
        ];
        let text = lines.map(|line| format!("{line}\n")).concat() + "{\"half";
        std::fs::write(dir.path().join("events-000001-20261125T100000Z.jsonl"), text).unwrap();
        let find = |filter: Filter| run(dir.path(), &filter, 10).unwrap().lines;
        let some = |text: &str| Some(text.to_owned());
        let alice = find(Filter {
            user: some("alice"),
            ..Filter::default()
        });
        assert_eq!(alice, &lines[..2]);
        let example = find(Filter {
            host: some("Example"),
            ..Filter::default()
        });
        assert_eq!(example.len(), 3);
        let other = find(Filter {
            host: some("other.example"),
            ..Filter::default()
        });
        assert_eq!(other, &lines[2..]);
        assert!(
            find(Filter {
                host: some("her.example"),
                ..Filter::default()
            })
            .is_empty()
        );
        let late = find(Filter {
            since: rfc3339("2026-11-25T10:00:02Z"),
            ..Filter::default()
        });
        assert_eq!(late, &lines[2..]);
        let kind = find(Filter {
            kind: some("intercept"),
            ..Filter::default()
        });
        assert_eq!(kind, &lines[1..]);
        let last = run(dir.path(), &Filter::default(), 1).unwrap();
        assert_eq!((last.lines, last.more), ([lines[2].to_owned()].into(), 2));
    }

    #[test]
    fn a_task_is_known_by_files_that_are_older_than_what_is_searched() {
        let dir = tempfile::TempDir::new().unwrap();
        let since = rfc3339("2026-11-25T12:00:00Z").unwrap();
        let put = |name: &str, lines: &[&str], modified: SystemTime| {
            let path = dir.path().join(name);
            std::fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(modified).unwrap();
        };
        let before = since - Duration::from_secs(3600);
        put(
            "events-000001-20261125T090000Z.jsonl",
            &[
                r#"{"at":"2026-11-25T09:00:00Z","log_type":"Stream","task_id":"1","user":"alice","host":"www.example"}"#,
                r#"{"at":"2026-11-25T09:00:00Z","log_type":"Stream","task_id":"2","user":"bob","host":"b.example"}"#,
            ],
            before,
        );
        put(
            "events-000002-20261125T100000Z.jsonl",
            &[r#"{"at":"2026-11-25T10:00:00Z","log_type":"Intercept","task_id":"1","uri":"/old"}"#],
            before,
        );
        let new = [
            r#"{"at":"2026-11-25T12:30:00Z","log_type":"Intercept","task_id":"1","uri":"/new"}"#,
            r#"{"at":"2026-11-25T12:30:01Z","log_type":"Intercept","task_id":"2","uri":"/of-bob"}"#,
            r#"{"at":"2026-11-25T12:30:02Z","log_type":"Stream","task_id":"3","user":"alice","host":"c.example"}"#,
        ];
        put(
            "events-000003-20261125T120000Z.jsonl",
            &new,
            since + Duration::from_secs(3600),
        );
        let find = |user: Option<&str>, host: Option<&str>| {
            let filter = Filter {
                user: user.map(str::to_owned),
                host: host.map(str::to_owned),
                since: Some(since),
                ..Filter::default()
            };
            run(dir.path(), &filter, 10).unwrap().lines
        };
        assert_eq!(find(Some("alice"), None), [new[0], new[2]]);
        assert_eq!(find(None, Some("b.example")), [new[1]]);
        assert_eq!(find(Some("alice"), Some("www.example")), [new[0]]);
    }

    #[test]
    fn neither_a_damaged_file_nor_a_long_line_hides_what_comes_behind() {
        let dir = tempfile::TempDir::new().unwrap();
        let event = r#"{"at":"2026-11-25T10:00:00Z","log_type":"Intercept"}"#;
        let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, event.as_bytes()).unwrap();
        let whole = gzip.finish().unwrap();
        let cut = "events-000001-20261125T100000Z.jsonl.gz";
        put(cut, &whole[..whole.len() / 2]);
        put("events-000002-20261125T100000Z.jsonl.gz", b"no gzip");
        let long = format!("{{\"x\":\"{}\"}}", "x".repeat(2 * MAX_LINE));
        put(
            "events-000003-20261125T100000Z.jsonl",
            format!("{long}\n{event}\n").as_bytes(),
        );
        let found = run(dir.path(), &Filter::default(), 10).unwrap();
        assert_eq!(found.lines, [event]);
        assert_eq!(found.damaged[0], cut);
        assert_eq!(found.damaged.len(), 2);
    }
}
