//! What a peer of HTTP/2 may send beside requests and answers (RFC 9113).
//!
//! The h2 library answers each SETTINGS and PING and takes each PRIORITY, WINDOW_UPDATE and unknown frame, however many
//! there are (CVE-2019-9512, -9515), and says PROTOCOL_ERROR of a frame of a wrong size. So a [`Guard`] looks at frames
//! before the library sees them: heads and data earn a peer what it may send of all else.
//!
//! Bytes in, verdicts out: no I/O, no clock, and no memory but the head of one frame.
//!
//! ```
//! use std::time::Duration;
//! use sluice_http2::{Guard, Offence};
//!
//! let mut guard = Guard::of_upstream();
//! let now = || Duration::from_secs(1); // since the guard was made
//! assert_eq!(guard.received(b"\0\0\0\x04\0\0\0\0\0", now), Ok(())); // SETTINGS
//! let refused = guard.received(b"\0\0\x01\x06\0\0\0\0\0", now).unwrap_err();
//! assert_eq!((refused.at, refused.offence), (0, Offence::Size(6))); // a PING of one byte
//! ```

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::indexing_slicing))]

mod frames;
#[cfg(any(test, feature = "cases"))]
#[doc(hidden)]
pub mod properties;
#[cfg(test)]
mod tests;

use std::time::Duration;

use thiserror::Error;

use frames::{ACK, CONTINUATION, DATA, FrameHead, Frames, HEADERS, SETTINGS};

/// Other frames that a peer may send at first.
const BURST: u64 = 1000;
/// Others that each frame of a head or of data is good for, of either side.
const PER_MESSAGE: u64 = 4;
/// Others that each second is good for.
const PER_SECOND: u64 = 100;
/// The most that can be saved.
const SAVINGS: u64 = 10 * BURST;

/// "PRI * HTTP/2.0" and so on (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// What a peer has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Offence {
    /// It sends more frames than it has earned.
    #[error("control frames without end")]
    Flood,
    /// It does not begin as it must (RFC 9113 §3.4).
    #[error("something else than SETTINGS first")]
    NoSettings,
    /// A frame of this type has a wrong size (RFC 9113 §6).
    #[error("a frame of type {0:#x} that is too short or too long")]
    Size(u8),
}

/// A frame that must go no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{offence}")]
pub struct Refused {
    /// How many of the bytes come before it. Some of its head may have come, and gone on, with bytes before these.
    pub at: usize,
    /// What is wrong with it.
    pub offence: Offence,
}

/// Looks after the peer of one connection. Of no use any more once it has refused something.
#[derive(Debug)]
pub struct Guard {
    read: Frames,
    written: Frames,
    account: Account,
}

impl Guard {
    /// Of a peer that is a client.
    #[must_use]
    pub fn of_client() -> Self {
        Self::new(PREFACE, 0)
    }

    /// Of a peer that is an upstream.
    #[must_use]
    pub fn of_upstream() -> Self {
        Self::new(0, PREFACE)
    }

    fn new(before_read: usize, before_written: usize) -> Self {
        Self {
            read: Frames::behind(before_read),
            written: Frames::behind(before_written),
            account: Account {
                begun: false,
                left: BURST,
                since: Duration::ZERO,
            },
        }
    }

    /// Takes what has come from the peer into account; `now` tells the time since the guard was made.
    ///
    /// # Errors
    /// The first frame that must go no further.
    pub fn received(&mut self, bytes: &[u8], now: impl Fn() -> Duration) -> Result<(), Refused> {
        self.read
            .follow(bytes, |head| self.account.receive(head, &now))
            .map_err(|(at, offence)| Refused { at, offence })
    }

    /// Takes what has been sent to the peer into account.
    pub fn sent(&mut self, bytes: &[u8]) {
        let mut messages = 0;
        let _: Result<(), (usize, Offence)> = self.written.follow(bytes, |head| {
            messages += u64::from(matches!(head.kind, HEADERS | DATA));
            Ok(())
        });
        self.account.earn(messages * PER_MESSAGE);
    }
}

/// What a peer has earned and not yet used.
#[derive(Debug)]
struct Account {
    /// Whether the first frame has come.
    begun: bool,
    left: u64,
    /// Up to when seconds have been counted.
    since: Duration,
}

impl Account {
    /// Takes the next frame of the peer into account.
    fn receive(&mut self, head: FrameHead, now: impl Fn() -> Duration) -> Result<(), Offence> {
        if !std::mem::replace(&mut self.begun, true) && (head.kind != SETTINGS || head.flags & ACK != 0) {
            return Err(Offence::NoSettings);
        }
        if !head.has_right_size() {
            return Err(Offence::Size(head.kind));
        }
        match head.kind {
            HEADERS => self.earn(PER_MESSAGE),
            DATA if head.length > 0 => self.earn(PER_MESSAGE),
            // The library limits these.
            CONTINUATION => {}
            _ => {
                if self.left == 0 {
                    self.count_time(now());
                }
                self.left = self.left.checked_sub(1).ok_or(Offence::Flood)?;
            }
        }
        Ok(())
    }

    fn earn(&mut self, frames: u64) {
        self.left = self.left.saturating_add(frames).min(SAVINGS);
    }

    fn count_time(&mut self, now: Duration) {
        let earned = now.saturating_sub(self.since).as_millis() * u128::from(PER_SECOND) / 1000;
        if let Ok(earned @ 1..) = u64::try_from(earned) {
            self.since = now;
            self.earn(earned);
        }
    }
}
