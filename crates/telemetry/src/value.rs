//! How ids, times and durations look in a log record. Each is a [`slog::Value`].

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use slog::{Key, Record, Serializer, Value};
use time::OffsetDateTime;

/// A point in time: RFC 3339 in UTC with microseconds, as in `2026-11-22T10:00:00.123456Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    secs: i64,
    nanos: u32,
}

impl Timestamp {
    /// Now, to the nanosecond.
    pub fn now() -> Self {
        Self::read(ClockId::Realtime)
    }

    /// Now, as of the kernel's last tick (1 to 10 ms ago): several times cheaper than [`Timestamp::now`].
    pub fn coarse() -> Self {
        Self::read(ClockId::RealtimeCoarse)
    }

    fn read(clock: ClockId) -> Self {
        let now = clock_gettime(clock);
        Self {
            secs: now.tv_sec,
            nanos: u32::try_from(now.tv_nsec).unwrap_or(0),
        }
    }

    /// The time `secs` seconds and `nanos` nanoseconds after the Unix epoch; more than a second of `nanos` is cut.
    pub fn from_unix(secs: i64, nanos: u32) -> Self {
        Self {
            secs,
            nanos: nanos.min(999_999_999),
        }
    }

    /// Seconds since the Unix epoch.
    pub fn unix_secs(self) -> i64 {
        self.secs
    }

    /// Nanoseconds within the second.
    pub fn subsec_nanos(self) -> u32 {
        self.nanos
    }

    /// The calendar time in UTC; the epoch when it is out of range.
    pub(crate) fn utc(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.secs)
            .ok()
            .and_then(|at| at.replace_nanosecond(self.nanos).ok())
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: since.subsec_nanos(),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.utc();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            self.nanos / 1000,
        )
    }
}

impl Value for Timestamp {
    fn serialize(&self, _: &Record<'_>, key: Key, out: &mut dyn Serializer) -> slog::Result {
        out.emit_arguments(key, &format_args!("{self}"))
    }
}

/// A span of time with three decimals and its unit, as in `1.234ms` or `2.000s`; a zero one is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dur(pub Duration);

impl fmt::Display for Dur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3?}", self.0)
    }
}

impl Value for Dur {
    fn serialize(&self, _: &Record<'_>, key: Key, out: &mut dyn Serializer) -> slog::Result {
        if self.0.is_zero() {
            return out.emit_none(key);
        }
        out.emit_arguments(key, &format_args!("{self}"))
    }
}

/// Anything that displays itself; an empty rendering is not absent, for that take an `Option`.
#[derive(Clone, Copy, Debug)]
pub struct Shown<T>(pub T);

impl<T: fmt::Display> Value for Shown<T> {
    fn serialize(&self, _: &Record<'_>, key: Key, out: &mut dyn Serializer) -> slog::Result {
        out.emit_arguments(key, &format_args!("{}", self.0))
    }
}

/// A time-based id (RFC 9562 version 1) with a node id drawn at random for each process: 32 hex digits, no dashes.
///
/// Unique within the process, and across processes as far as 47 random bits make it so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Uuid(u128);

/// 100 ns steps from 1582-10-15, where version 1 begins to count, to the Unix epoch.
const GREGORIAN_TO_UNIX: u64 = 0x01b2_1dd2_1381_4000;

thread_local! {
    /// The clock sequence of this thread (what keeps ids of two threads apart) and the last time it used.
    static SEQUENCE: Cell<Option<(u16, u64)>> = const { Cell::new(None) };
}

impl Uuid {
    /// A new id. Takes some nanoseconds, no lock and no allocation.
    pub fn new() -> Self {
        let now = Timestamp::coarse();
        let unix = u64::try_from(now.secs).unwrap_or(0) * 10_000_000 + u64::from(now.nanos / 100);
        let (clock_seq, last) = SEQUENCE.get().unwrap_or_else(|| (Self::next_sequence(), 0));
        let ticks = (unix + GREGORIAN_TO_UNIX).max(last + 1);
        SEQUENCE.set(Some((clock_seq, ticks)));

        let time_low = u128::from(ticks & 0xffff_ffff);
        let time_mid = u128::from((ticks >> 32) & 0xffff);
        let time_high = u128::from((ticks >> 48) & 0x0fff) | 0x1000;
        let sequence = u128::from(clock_seq & 0x3fff) | 0x8000;
        Self((time_low << 96) | (time_mid << 80) | (time_high << 64) | (sequence << 48) | u128::from(node_id()))
    }

    /// The id as the 128-bit number that its hex digits write.
    pub fn as_u128(self) -> u128 {
        self.0
    }

    /// The id that this number writes in hex.
    pub fn from_u128(id: u128) -> Self {
        Self(id)
    }

    fn next_sequence() -> u16 {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }
}

/// 48 bits with the multicast bit set, so that it can be no network card's (RFC 9562 §6.10).
fn node_id() -> u64 {
    static NODE: OnceLock<u64> = OnceLock::new();
    *NODE.get_or_init(|| {
        // Without the kernel's randomness the process id still keeps the processes of one machine apart.
        let random = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
        (random & 0xffff_ffff_ffff) | 0x0100_0000_0000
    })
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for Uuid {
    fn serialize(&self, _: &Record<'_>, key: Key, out: &mut dyn Serializer) -> slog::Result {
        out.emit_arguments(key, &format_args!("{self}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_rfc_3339_in_utc_with_microseconds() {
        let at = Timestamp::from_unix(1_795_341_600, 123_456_789);
        assert_eq!(at.to_string(), "2026-11-22T10:00:00.123456Z");
        assert_eq!(Timestamp::from_unix(0, 0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert!(Timestamp::now() >= Timestamp::coarse());
    }

    #[test]
    fn a_duration_has_three_decimals_and_a_unit() {
        assert_eq!(Dur(Duration::from_micros(1234)).to_string(), "1.234ms");
        assert_eq!(Dur(Duration::from_secs(2)).to_string(), "2.000s");
        assert_eq!(Dur(Duration::from_nanos(12_345)).to_string(), "12.345µs");
        assert_eq!(Dur(Duration::from_secs(86_400)).to_string(), "86400.000s");
    }

    #[test]
    fn an_id_is_version_1_of_the_rfc_variant_with_a_multicast_node() {
        let text = Uuid::new().to_string();
        assert_eq!(text.len(), 32);
        assert_eq!(&text[12..13], "1");
        assert!(matches!(&text[16..17], "8" | "9" | "a" | "b"));
        let node = u64::from_str_radix(&text[20..], 16).unwrap();
        assert_ne!(node & 0x0100_0000_0000, 0);
    }

    #[test]
    fn ids_of_several_threads_never_repeat() {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| (0..10_000).map(|_| Uuid::new()).collect::<Vec<_>>()))
            .collect();
        let mut all: Vec<Uuid> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
        let made = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), made);
    }
}
